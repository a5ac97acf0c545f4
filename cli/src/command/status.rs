//! `farlane status`.

use farlane::v1;
use serde_json::json;

use crate::connect::{Target, block_on};
use crate::owner::hex;
use crate::problem::Problem;
use crate::show::{self, Form};

/// Show how the network is: servers, nodes, tasks.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:  farlane status --json | jq .nodes_online")]
pub struct Args {
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

pub fn run(args: Args) -> Result<(), Problem> {
    let (status, urls) = block_on(async {
        let network = args.target.connect().await?;
        let status = network.get_status(v1::GetStatusRequest {}).await?;
        Ok((status, network.identity().urls.clone()))
    })?;
    if args.form.json {
        return show::json(&json!({
            "network": hex(&status.network),
            "urls": urls,
            "server": status.server,
            "leader": status.leader,
            "voters": status.voters,
            "epoch": status.epoch,
            "applied_index": status.applied_index,
            "cluster_time_ms": status.cluster_time_ms,
            "queued": status.queued,
            "placed": status.placed,
            "nodes_online": status.nodes_online,
            "nodes": status.nodes,
            "project": status.project,
            "version": status.version,
        }));
    }
    let id = hex(&status.network);
    show::line(&format!(
        "network  {} at {}",
        id.get(..12).unwrap_or(&id),
        urls.join(", ")
    ))?;
    let leader = if status.leader.is_empty() {
        "none"
    } else {
        &status.leader
    };
    show::line(&format!(
        "server   {} · Farlane {} · {} voter{} · leader {leader}",
        status.server,
        status.version,
        status.voters.len(),
        if status.voters.len() == 1 { "" } else { "s" },
    ))?;
    show::line(&format!("project  {}", status.project))?;
    show::line(&format!(
        "nodes    {} online of {}",
        status.nodes_online, status.nodes
    ))?;
    show::line(&format!(
        "tasks    {} queued, {} placed",
        status.queued, status.placed
    ))
}
