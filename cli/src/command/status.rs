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
            "warnings": warnings(&status),
            "voters": status.voters,
            "epoch": status.epoch,
            "applied_index": status.applied_index,
            "cluster_time_ms": status.cluster_time_ms,
            "queued": status.queued,
            "placed": status.placed,
            "outbox": status.outbox,
            "outbox_limit": status.outbox_limit,
            "estimators": status.estimators.iter().map(|e| json!({
                "name": e.name, "runs": e.runs, "error": f64::from(e.error_ppm) / 1e6,
            })).collect::<Vec<_>>(),
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
    ))?;
    for warning in warnings(&status) {
        show::line(&format!("warning  {warning}"))?;
    }
    Ok(())
}

fn warnings(status: &v1::StatusReply) -> Vec<String> {
    let found = [leaderless(status), behind(status)];
    found.into_iter().flatten().collect()
}

/// That accounts do not take in what happens: from a tenth of the bound on, long before it bites.
fn behind(status: &v1::StatusReply) -> Option<String> {
    let (outbox, limit) = (status.outbox, status.outbox_limit);
    let what = match outbox {
        _ if limit == 0 || outbox < limit / 10 => return None,
        _ if outbox < limit => format!("at {limit} no new work is taken"),
        _ => "no new work is taken until it has".to_owned(),
    };
    Some(format!(
        "the accounts' database has yet to take in {outbox} events, and {what}; see that it answers"
    ))
}

/// What a server without a leader can still say, and cannot do.
pub fn leaderless(status: &v1::StatusReply) -> Option<String> {
    let voters = status.voters.len();
    status.leader.is_empty().then(|| {
        format!(
            "no server leads: nothing is taken, placed or finished, and these numbers may be old; \
             {} of {voters} servers must run and reach each other ({})",
            voters / 2 + 1,
            status.voters.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_network_without_a_leader_says_who_must_run() {
        let mut status = v1::StatusReply {
            voters: (1..=3).map(|n| format!("https://s{n}:7443")).collect(),
            ..Default::default()
        };
        let warning = leaderless(&status).unwrap();
        for part in ["no server leads", "2 of 3", "https://s2:7443"] {
            assert!(warning.contains(part), "{warning}");
        }
        status.leader = "https://s2:7443".into();
        assert_eq!(leaderless(&status), None);
    }

    #[test]
    fn accounts_that_are_away_are_told_before_they_bite() {
        let mut status = v1::StatusReply {
            leader: "https://s1:7443".into(),
            outbox: 399,
            outbox_limit: 4_000,
            ..Default::default()
        };
        assert_eq!(warnings(&status), Vec::<String>::new());
        status.outbox = 400;
        let warning = &warnings(&status)[0];
        assert!(warning.contains("400 events"), "{warning}");
    }
}
