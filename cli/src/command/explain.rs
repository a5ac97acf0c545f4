//! `farlane explain`.

use farlane::v1;
use farlane_model::TaskId;
use farlane_units::UsdPicos;
use serde_json::json;

use crate::connect::{Target, block_on};
use crate::problem::Problem;
use crate::show::{self, Form, Table};

/// Say why a task is where it is: each term of its node's cost, and why others were refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:  farlane explain 01JDC4V8Q2X3S4ZK9T5B6N7M8P")]
pub struct Args {
    /// The task's id, as `farlane tasks` or `future.id` show it.
    task: TaskId,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

fn dollars(picos: u64) -> f64 {
    picos as f64 / 1e12
}

pub fn run(args: Args) -> Result<(), Problem> {
    let reply = block_on(async {
        let network = args.target.connect().await?;
        let task = args.task.to_bytes().to_vec().into();
        let request = v1::ExplainRequest {
            task,
            spec_bytes: Default::default(),
        };
        let list = "`farlane tasks` lists those of your project";
        let reply = network.explain(request).await;
        reply.map_err(|error| Problem::from(error).where_missing(list))
    })?;
    if args.form.json {
        return show::json(&json!({
            "task": args.task.to_string(),
            "phase": reply.phase,
            "summary": reply.summary,
            "node_name": reply.node_name,
            "terms": reply.terms.iter().map(|t| json!({
                "name": t.name, "usd": dollars(t.usd_picos), "detail": t.detail,
            })).collect::<Vec<_>>(),
            "policy": reply.policy,
            "runner_up": reply.runner_up.as_ref().map(|o| json!({
                "node_name": o.node_name, "region": o.region, "usd": dollars(o.usd_picos),
            })),
            "starts": (!reply.starts_because.is_empty()).then(|| json!({
                "in_s": reply.starts_in_ms.map(|ms| ms as f64 / 1000.0), "because": reply.starts_because,
            })),
            "classes": reply.classes.iter().map(|c| json!({
                "class": c.class, "nodes": c.nodes, "fits": c.reasons.is_empty(), "reasons": c.reasons,
            })).collect::<Vec<_>>(),
        }));
    }
    show::line(&format!("{}: {}", reply.phase, reply.summary))?;
    if !reply.terms.is_empty() {
        show::line(&format!(
            "\nExpected cost on {}, by policy {}:",
            show::name(&reply.node_name),
            show::name(&reply.policy)
        ))?;
        let mut table = Table::new(&["TERM", "USD", "BECAUSE"]);
        for term in &reply.terms {
            table.row([
                term.name.clone(),
                UsdPicos(term.usd_picos).to_string(),
                term.detail.clone(),
            ]);
        }
        let sum = reply
            .terms
            .iter()
            .map(|t| t.usd_picos)
            .fold(0, u64::saturating_add);
        table.row(["total".to_owned(), UsdPicos(sum).to_string(), String::new()]);
        if let Some(other) = &reply.runner_up {
            table.row([
                "runner-up".to_owned(),
                UsdPicos(other.usd_picos).to_string(),
                format!(
                    "{} in {}",
                    show::name(&other.node_name),
                    show::name(&other.region)
                ),
            ]);
        }
        table.print("")?;
    }
    if !reply.classes.is_empty() {
        show::line("")?;
        let mut table = Table::new(&["MACHINES", "NODES", "FITS"]);
        for class in &reply.classes {
            let fits = if class.reasons.is_empty() {
                "yes".to_owned()
            } else {
                class.reasons.join("; ")
            };
            table.row([class.class.clone(), class.nodes.to_string(), fits]);
        }
        table.print("")?;
    }
    Ok(())
}
