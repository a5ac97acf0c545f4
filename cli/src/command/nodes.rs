//! `farlane nodes`.

use std::path::Path;

use farlane::{Network, v1};
use farlane_model::{NodeId, NodeSpec};
use farlane_seal::record::RevocationList;
use farlane_units::UsdMicros;
use serde_json::{Value, json};

use super::node_page;
use crate::connect::{Target, block_on};
use crate::owner::{Owner, hex};
use crate::problem::{Exit, Problem};
use crate::show::{self, Form, Table};
use crate::{capacity, folders, revocations};

/// List the network's machines, show one, or remove one.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane nodes\n          farlane nodes list --json\n          farlane nodes remove 3f9a"
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

/// The flags are the command's own: given before one of these or after, they mean the same.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the machines (what `farlane nodes` alone does).
    #[command(after_help = "Example:  farlane nodes list --json")]
    List,
    /// Show one machine: what it has, what it was measured to do, and what audits found.
    #[command(after_help = "Example:  farlane nodes show 3f9a12")]
    Show {
        /// Its name, or the first digits of its identity.
        node: String,
    },
    /// Give a machine that audits found wanting its good standing again; audits go on.
    #[command(after_help = "Example:  farlane nodes pardon 3f9a12")]
    Pardon {
        /// Its name, or the first digits of its identity.
        node: String,
    },
    /// Remove a machine for good; its work runs elsewhere.
    #[command(after_help = "Example:  farlane nodes remove 3f9a12")]
    Remove {
        /// Its name, or the first digits of its identity.
        node: String,
    },
    /// Sign the list of removed machines anew: granters refuse the machines of a provider whose list is
    /// older than a day.
    ///
    /// `farlane up` and `farlane granter`, run where the provider's keys are, do so by themselves.
    #[command(after_help = "Example:  farlane nodes renew")]
    Renew,
}

pub fn run(args: Args) -> Result<(), Problem> {
    let Args {
        action,
        form,
        target,
    } = args;
    match action {
        None | Some(Action::List) => block_on(list(target, form)),
        Some(Action::Show { node }) => block_on(node_page::show(target, form, node)),
        Some(Action::Pardon { node }) => block_on(node_page::pardon(target, form, node)),
        Some(Action::Remove { node }) => block_on(remove(target, form, node)),
        Some(Action::Renew) => block_on(renew(target, form)),
    }
}

async fn nodes(network: &Network) -> Result<Vec<v1::NodeView>, Problem> {
    let mut nodes = network.list_nodes(v1::ListNodesRequest {}).await?.nodes;
    nodes.sort_by(|a, b| (&a.region, &a.name, &a.node).cmp(&(&b.region, &b.name, &b.node)));
    Ok(nodes)
}

async fn list(target: Target, form: Form) -> Result<(), Problem> {
    let network = target.connect().await?;
    let nodes = nodes(&network).await?;
    if form.json {
        return show::json(&nodes.iter().map(as_json).collect::<Vec<_>>());
    }
    let mut table = Table::new(&[
        "NODE",
        "NAME",
        "REGION",
        "STATE",
        "CORES",
        "MEMORY",
        "CAPACITY",
        "DEVICES",
        "PYTHON",
        "SANDBOX",
        "PRICE/CORE-H",
        "RUNNING",
        "RTT",
    ]);
    for node in &nodes {
        let spec = NodeSpec::from_canonical(&node.spec_bytes);
        let cell =
            |f: &dyn Fn(&NodeSpec) -> String| spec.as_ref().map_or_else(|| "?".to_owned(), f);
        table.row([
            short(&node.node),
            show::name(&node.name),
            show::name(&node.region),
            state(node).to_owned(),
            cell(&|s| format!("{}", f64::from(s.cpus.0) / 1000.0)),
            cell(&|s| s.memory.to_string()),
            cell(&capacity::cell),
            cell(&capacity::devices),
            cell(&|s| {
                s.interpreters
                    .iter()
                    .map(|i| i.version.to_string())
                    .collect::<Vec<_>>()
                    .join(" ")
            }),
            cell(&|s| tier(s.tier).to_owned()),
            show::money(UsdMicros(node.core_hour_usd_micros)),
            format!("{} of {}", node.running, node.leased),
            match node.round_trip_micros {
                0 => String::new(),
                rtt => format!("{:.1} ms", rtt as f64 / 1000.0),
            },
        ]);
    }
    table.print("no machine has joined yet; `farlane tokens create` makes a join file for one")
}

/// In a word.
pub fn state(node: &v1::NodeView) -> &'static str {
    let standing = node.standing.as_ref().map_or("good", |s| s.name.as_str());
    match (node.revoked, node.online, standing) {
        (true, ..) => "removed",
        (false, false, _) => "away",
        (false, true, "quarantined") => "quarantined",
        (false, true, "marked") => "marked",
        (false, true, _) => "online",
    }
}

/// How strongly tasks are shut in, in a word.
pub fn tier(tier: farlane_model::Tier) -> &'static str {
    match tier {
        farlane_model::Tier::Process => "process",
        farlane_model::Tier::Namespaces => "namespaces",
        farlane_model::Tier::UserKernel => "gvisor",
        farlane_model::Tier::MicroVm => "microvm",
    }
}

/// All that is known of one.
pub fn as_json(node: &v1::NodeView) -> Value {
    let spec = NodeSpec::from_canonical(&node.spec_bytes);
    json!({
        "node": hex(&node.node),
        "name": node.name,
        "region": node.region,
        "state": state(node),
        "last_seen_ms": node.last_seen_ms,
        "running": node.running,
        "leased": node.leased,
        "round_trip_micros": (node.round_trip_micros > 0).then_some(node.round_trip_micros),
        "least_round_trip_micros": (node.least_round_trip_micros > 0).then_some(node.least_round_trip_micros),
        "bandwidth_bytes_s": (node.bandwidth_bytes_s > 0).then_some(node.bandwidth_bytes_s),
        "cores_heat_ppm": node.cores_heat_ppm,
        "gpus_heat_ppm": node.gpus_heat_ppm,
        "cpu_millis": spec.as_ref().map(|s| s.cpus.0),
        "cpu_model": spec.as_ref().map(|s| s.cpu_model.clone()),
        "memory_bytes": spec.as_ref().map(|s| s.memory.0),
        "disk_bytes": spec.as_ref().map(|s| s.disk.0),
        "pythons": spec.as_ref().map(|s| s.interpreters.iter().map(|i| i.full.clone()).collect::<Vec<_>>()),
        "tier": spec.as_ref().map(|s| tier(s.tier)),
        "enforced": spec.as_ref().map(|s| s.enforced.clone()),
        "labels": spec.as_ref().map(|s| s.labels.iter().cloned().collect::<std::collections::BTreeMap<_, _>>()),
        "resources": spec.as_ref().map(|s| s.resources.iter().map(|r| (r.name.clone(), r.amount)).collect::<std::collections::BTreeMap<_, _>>()),
        "price_usd_micros_core_hour": node.core_hour_usd_micros,
        "agent": spec.as_ref().map(|s| s.agent.clone()),
        "nominal": spec.as_ref().map(capacity::nominal_json),
        "measured": spec.as_ref().map(capacity::measured_json),
        "standing": node.standing.as_ref().map(node_page::standing_json),
    })
}

/// Twelve digits of an identity: enough for people.
pub fn short(id: &[u8]) -> String {
    hex(&id[..id.len().min(6)])
}

/// The one node that a name, or the first digits of an identity, means.
///
/// *Errors*: none, or several.
pub fn find<'a>(nodes: &'a [v1::NodeView], wanted: &str) -> Result<&'a v1::NodeView, Problem> {
    let digits = wanted.to_ascii_lowercase();
    let mut found: Vec<_> = nodes
        .iter()
        .filter(|n| n.name == wanted || hex(&n.node).starts_with(&digits))
        .collect();
    // A machine that has joined anew bears the name of the one that was removed.
    if found.iter().any(|n| !n.revoked) {
        found.retain(|n| !n.revoked);
    }
    match found[..] {
        [node] => Ok(node),
        [] => Err(
            Problem::new(Exit::NotFound, format!("no node is called {wanted:?}"))
                .next("`farlane nodes` lists them"),
        ),
        _ => {
            let names: Vec<_> = found.iter().map(|n| short(&n.node)).collect();
            let what = format!("{wanted:?} may mean {}", names.join(" or "));
            Err(Problem::new(Exit::Usage, what).next("give more digits"))
        }
    }
}

async fn remove(target: Target, form: Form, wanted: String) -> Result<(), Problem> {
    let (network, folder) = (target.connect().await?, target.owner_folder());
    let reply = network.list_nodes(v1::ListNodesRequest {}).await?;
    let (nodes, lists) = (reply.nodes, reply.revocations_bytes);
    let node = find(&nodes, &wanted)?;
    // First, since the network may refuse: what is signed is kept, and names the machine for ever.
    let request = v1::RemoveNodeRequest {
        node: node.node.clone(),
        ..Default::default()
    };
    network.remove_node(request).await?;
    if !form.json {
        let name = show::name(&node.name);
        show::line(&format!("removed {name} ({})", short(&node.node)))?;
    }
    let list = revocations(node, &lists, &folder)?;
    let signed = list.is_some();
    if let Some(list) = list {
        tell_granters(&network, &list).await?;
    }
    match (form.json, signed) {
        (true, _) => show::json(&json!({
            "node": hex(&node.node), "name": node.name, "list_signed": signed,
        })),
        (false, true) => Ok(()),
        (false, false) => show::line(
            "its provider's keys are not on this machine: granters hear of it from the servers alone",
        ),
    }
}

async fn tell_granters(network: &Network, list: &RevocationList) -> Result<(), Problem> {
    let revocations_bytes = list.to_bytes();
    let published = network
        .publish_revocations(v1::PublishRevocationsRequest { revocations_bytes })
        .await;
    published.map_err(|error| {
        Problem::from(error).next("granters do not know yet: `farlane nodes renew` tells them")
    })?;
    Ok(())
}

/// Our list of removed machines with this one on it; `None` where another provider's keys would have to
/// sign it.
fn revocations(
    node: &v1::NodeView,
    lists: &[impl AsRef<[u8]>],
    folder: &Path,
) -> Result<Option<RevocationList>, Problem> {
    let Some(owner) = Owner::existing(folder)? else {
        return Ok(None);
    };
    if node.provider[..] != owner.provider.public().fingerprint().0 {
        return Ok(None);
    }
    let id = NodeId::from_slice(&node.node)
        .map_err(|e| Problem::new(Exit::Failed, format!("the server names no machine: {e}")))?;
    revocations::sign(&owner, lists, Some(id)).map(Some)
}

async fn renew(target: Target, form: Form) -> Result<(), Problem> {
    let folder = target.owner_folder();
    let owner = Owner::existing(&folder)?.ok_or_else(|| {
        let keys = folders::keys(&folder);
        let what = format!("no provider's keys in {}", keys.display());
        Problem::new(Exit::NotAllowed, what)
            .next("run this on the machine that made the join files")
    })?;
    let network = target.connect().await?;
    let list = revocations::publish(&owner, &network).await?;
    let removed = list.nodes().len();
    if form.json {
        return show::json(&json!({"removed": removed, "issued_ms": list.issued().0}));
    }
    show::line(&format!(
        "renewed: {removed} removed; granters take it for 24 hours"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn flags_before_an_action_are_those_of_the_action() {
        let actions: [&[&str]; 6] = [
            &[],
            &["list"],
            &["show", "x"],
            &["pardon", "x"],
            &["remove", "x"],
            &["renew"],
        ];
        let flags = [
            "--data",
            "/srv/x",
            "--url",
            "https://a:1",
            "--patience",
            "9s",
            "--json",
        ];
        for action in actions {
            for words in [[&flags, action].concat(), [action, &flags].concat()] {
                let line = [&["nodes"], &words[..]].concat();
                let args = Line::try_parse_from(&line).unwrap().args;
                assert_eq!(args.target.data, Some("/srv/x".into()), "{line:?}");
                assert_eq!(args.target.url.as_deref(), Some("https://a:1"), "{line:?}");
                assert_eq!(args.target.patience.as_secs(), 9, "{line:?}");
                assert!(args.form.json, "{line:?}");
            }
            let line = [&["nodes", "--identity", "i.json"], action].concat();
            let args = Line::try_parse_from(&line).unwrap().args;
            assert_eq!(args.target.identity, Some("i.json".into()), "{line:?}");
            assert_eq!(args.target.patience.as_secs(), 5, "{line:?}");
        }
    }

    #[test]
    fn two_identities_are_one_too_many_on_either_side_of_an_action() {
        let line = ["nodes", "--data", "d", "remove", "x", "--identity", "i"];
        let args = Line::try_parse_from(line).unwrap().args;
        let problem = args.target.identity().unwrap_err();
        assert!(problem.what().contains("--identity"), "{problem:?}");
    }
}
