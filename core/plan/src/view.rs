//! What the planner is given, and what it answers: plain data.

use std::sync::Arc;

use farlane_model::{NodeId, NodeSpec, TaskSpec};
use farlane_units::{ByteCount, Micros, MilliCpu, Millis};

/// The network as one round of planning sees it: applied state less what is on its way.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    /// Registered and not revoked; offline ones count for feasibility only. Order is irrelevant.
    pub nodes: Vec<NodeView>,
    /// Waiting work by spec. Order is irrelevant: projects take turns, and within one [`Group::urgency`]
    /// and [`Group::since`] decide.
    pub waiting: Vec<Group>,
}

/// One node.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Which.
    pub id: NodeId,
    /// What its agent measured.
    pub spec: Arc<NodeSpec>,
    /// From its certificate.
    pub region: Arc<str>,
    /// Holds a lease now.
    pub online: bool,
    /// Cores not held by running leases.
    pub free_cpus: MilliCpu,
    /// Memory not held by running leases.
    pub free_memory: ByteCount,
    /// Scratch not held by running leases.
    pub free_scratch: ByteCount,
    /// Leases it still takes ahead of capacity.
    pub free_backlog: u32,
    /// Leases it has already taken ahead of capacity.
    pub backlog: u32,
    /// Between its agent and the server.
    pub round_trip: Micros,
}

/// Tasks that share a spec, waiting in one queue.
#[derive(Debug, Clone)]
pub struct Group {
    /// What they ask for.
    pub spec: Arc<TaskSpec>,
    /// How many wait.
    pub tasks: u32,
    /// Lower goes first (the negated priority).
    pub urgency: i16,
    /// Names the queue, and breaks ties between equal urgency: lower goes first.
    pub since: u64,
    /// Expected run time of one.
    pub run_time: Micros,
    /// Whether somebody attached can grant them; without, none is placed.
    pub granter: bool,
    /// Nodes that their granter has refused.
    pub not_on: Vec<NodeId>,
}

/// What a plan depends on besides the view.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput {
    /// Cluster time.
    pub now: Millis,
    /// Breaks ties between nodes of equal cost.
    pub seed: u64,
    /// Most placements to try: steps, never seconds.
    pub budget: u32,
}

/// So many tasks of a group, from its head, onto a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// Index into [`ClusterView::waiting`].
    pub group: usize,
    /// Index into [`ClusterView::nodes`].
    pub node: usize,
    /// How many; at least one.
    pub tasks: u32,
}

/// Placements in the order in which queue heads are to be taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order of placement: a group may come again; within a group cheapest first.
    pub assignments: Vec<Assignment>,
}

/// What a round did and left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Placed in all.
    pub placed: u32,
    /// Groups (index) that no online node fits even when empty.
    pub unfit: Vec<usize>,
    /// The budget ended before the work.
    pub cut_short: bool,
}
