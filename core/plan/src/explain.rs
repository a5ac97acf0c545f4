//! Why a task runs where it does, waits, or never can: by class of node.

use std::collections::BTreeMap;
use std::sync::Arc;

use farlane_model::{NodeId, TaskSpec};
use farlane_units::Micros;

use crate::constraint::{Lack, fits, lacks};
use crate::cost::{Term, cost, terms};
use crate::view::{ClusterView, Group, NodeView};

/// Nodes that lack the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassReason {
    /// "us-west: 2 cores, 8 GiB, Python 3.11"
    pub class: String,
    /// How many are alike.
    pub nodes: u32,
    /// What they lack; empty when they fit.
    pub lacks: Vec<Lack>,
}

/// The answer for one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// One sentence.
    pub summary: String,
    /// Fitting classes first, then by what they lack.
    pub classes: Vec<ClassReason>,
    /// Cheapest node online now, if any, and the terms of its cost.
    pub best: Option<(NodeId, Vec<Term>)>,
}

/// Whether any registered node, offline ones counted, could ever run it.
pub fn feasible(view: &ClusterView, task: &TaskSpec) -> bool {
    view.nodes.iter().any(|n| fits(&n.spec, &n.region, task))
}

fn class_of(node: &NodeView) -> String {
    let spec = &node.spec;
    let mut pythons: Vec<_> = spec.interpreters.iter().map(|i| i.version).collect();
    pythons.sort_unstable();
    pythons.dedup();
    let pythons: Vec<String> = pythons.iter().map(ToString::to_string).collect();
    format!(
        "{}: {} cores, {}, Python {}",
        node.region,
        f64::from(spec.cpus.0) / 1000.0,
        spec.memory,
        if pythons.is_empty() {
            "none".to_owned()
        } else {
            pythons.join(" ")
        }
    )
}

/// Explains a task against the network as it is.
pub fn explain(
    view: &ClusterView,
    task: &Arc<TaskSpec>,
    run_time: Micros,
    granter: bool,
) -> Explanation {
    let mut classes: BTreeMap<(usize, String, String), ClassReason> = BTreeMap::new();
    for node in &view.nodes {
        let mut lacking = lacks(&node.spec, &node.region, task);
        if lacking.is_empty() && !node.online {
            lacking.push(Lack::Offline);
        }
        let words: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        let class = class_of(node);
        let entry = classes
            .entry((lacking.len(), words.join("; "), class.clone()))
            .or_insert(ClassReason {
                class,
                nodes: 0,
                lacks: lacking,
            });
        entry.nodes += 1;
    }
    let group = Group {
        spec: task.clone(),
        tasks: 1,
        urgency: 0,
        since: 0,
        run_time,
        granter,
        not_on: Vec::new(),
    };
    let best = view
        .nodes
        .iter()
        .filter(|n| n.online && fits(&n.spec, &n.region, task))
        .map(|n| (cost(n, &group, waits_behind(n, &group)), n))
        .min_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.id.cmp(&b.1.id)))
        .map(|(_, n)| n);
    let summary = summary(view, task, best, granter);
    Explanation {
        summary,
        classes: classes.into_values().collect(),
        best: best.map(|n| (n.id, terms(n, &group, waits_behind(n, &group)))),
    }
}

fn room_now(node: &NodeView, task: &TaskSpec) -> bool {
    let need = &task.resources;
    node.free_cpus >= need.cpus
        && node.free_memory >= need.memory
        && node.free_scratch >= need.scratch
}

fn waits_behind(node: &NodeView, group: &Group) -> u32 {
    if room_now(node, &group.spec) {
        node.backlog
    } else {
        node.backlog.saturating_add(1)
    }
}

fn summary(view: &ClusterView, task: &TaskSpec, best: Option<&NodeView>, granter: bool) -> String {
    match best {
        _ if view.nodes.is_empty() => {
            "no node has joined yet; add one with `farlane tokens create`".to_owned()
        }
        Some(_) if !granter => {
            "nobody who can grant it is attached; keep the client running or start `farlane granter`".to_owned()
        }
        Some(node) if room_now(node, task) => {
            format!("{} in {} fits and has room", node.spec.name, node.region)
        }
        Some(node) => format!(
            "waits for room: {} in {} fits and is busy ({} waiting there)",
            node.spec.name, node.region, node.backlog
        ),
        None if feasible(view, task) => "every node that fits is offline".to_owned(),
        None => format!("none of the {} registered nodes can ever run it", view.nodes.len()),
    }
}
