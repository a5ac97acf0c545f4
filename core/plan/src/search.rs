//! The search: projects take turns, the most urgent group of each first, each task to the node where it
//! now costs least.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use farlane_model::{NodeId, ProjectId, Resources};
use farlane_units::{ByteCount, MilliCpu};

use crate::constraint::fits;
use crate::cost::cost;
use crate::view::{Assignment, ClusterView, Group, NodeView, Plan, PlanInput, Report};

/// Tasks a project places before the next has its turn. Source: choice; small against a batch of 512, large
/// against what a turn costs on few nodes.
const QUANTUM: u32 = 64;

/// What a node has left during the round.
struct Left {
    cpus: MilliCpu,
    memory: ByteCount,
    scratch: ByteCount,
    credit: u32,
    backlog: u32,
}

impl Left {
    fn of(node: &NodeView) -> Self {
        Self {
            cpus: node.free_cpus,
            memory: node.free_memory,
            scratch: node.free_scratch,
            credit: node.free_backlog,
            backlog: node.backlog,
        }
    }
    fn runs(&self, need: &Resources) -> bool {
        // What waits here goes first: a later task takes no room before it.
        self.backlog == 0
            && need.cpus <= self.cpus
            && need.memory <= self.memory
            && need.scratch <= self.scratch
    }
    /// How many would be ahead of one more; `None` when there is no room for it at all.
    fn ahead(&self, need: &Resources) -> Option<u32> {
        if self.runs(need) {
            Some(0)
        } else if self.credit > 0 {
            Some(self.backlog.saturating_add(1))
        } else {
            None
        }
    }
    fn take(&mut self, need: &Resources) {
        if self.runs(need) {
            self.cpus = self.cpus.saturating_sub(need.cpus);
            self.memory = self.memory.saturating_sub(need.memory);
            self.scratch = self.scratch.saturating_sub(need.scratch);
        } else {
            self.credit = self.credit.saturating_sub(1);
            self.backlog = self.backlog.saturating_add(1);
        }
    }
}

/// A node that could take the next task, at this cost. Ordered by cost, then by the tie.
#[derive(PartialEq)]
struct Offer {
    cost: f64,
    tie: u64,
    id: NodeId,
    node: usize,
}
impl Eq for Offer {}
impl PartialOrd for Offer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Offer {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cost
            .total_cmp(&other.cost)
            .then_with(|| self.tie.cmp(&other.tie))
            .then_with(|| self.id.cmp(&other.id))
    }
}

/// Mixes the seed with a node's id, so that equal nodes are not always taken in one order. Source:
/// the finaliser of splitmix64 (Steele, Lea, Flood 2014).
fn tie(seed: u64, id: &NodeId) -> u64 {
    let mut head = [0u8; 8];
    head.copy_from_slice(&id.as_bytes()[..8]);
    let mut x = u64::from_le_bytes(head) ^ seed;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Places what it can. Deterministic: equal views (in any order) and inputs give equal plans.
///
/// *Shape*: never over a node's capacity and credit as the view states them; a group's tasks are
/// taken from its head; projects take turns, the seed says which begins. *Cost*: O(turns × nodes +
/// placements × log nodes), one turn for each group where there is one project.
pub fn plan(view: &ClusterView, input: PlanInput) -> (Plan, Report) {
    let projects = turns(view, input.seed);
    let quantum = match projects.len() {
        1 => u32::MAX,
        _ => QUANTUM,
    };
    let mut round = Round {
        view,
        seed: input.seed,
        left: view.nodes.iter().map(Left::of).collect(),
        wanted: view.waiting.iter().map(|g| g.tasks).collect(),
        budget: input.budget,
        plan: Plan::default(),
        report: Report::default(),
    };
    while round.budget > 0 && round.turn_of_each(&projects, quantum) {}
    let mut report = round.report;
    report.cut_short = projects
        .iter()
        .flatten()
        .any(|g| round.budget == 0 && round.wanted[*g] > 0);
    report.unfit.sort_unstable();
    (round.plan, report)
}

/// Groups that can be granted, by project; within one the most urgent first.
fn turns(view: &ClusterView, seed: u64) -> Vec<Vec<usize>> {
    let mut projects: BTreeMap<ProjectId, Vec<usize>> = BTreeMap::new();
    for (index, group) in view.waiting.iter().enumerate() {
        if group.granter && group.tasks > 0 {
            projects.entry(group.spec.project).or_default().push(index);
        }
    }
    let mut projects: Vec<Vec<usize>> = projects.into_values().collect();
    for groups in &mut projects {
        groups.sort_by_key(|g| (view.waiting[*g].urgency, view.waiting[*g].since));
    }
    if !projects.is_empty() {
        let first = seed % projects.len() as u64;
        projects.rotate_left(first as usize);
    }
    projects
}

/// The work of one plan.
struct Round<'a> {
    view: &'a ClusterView,
    seed: u64,
    left: Vec<Left>,
    /// Tasks of each group still to be placed; 0 once no room is left for it.
    wanted: Vec<u32>,
    budget: u32,
    plan: Plan,
    report: Report,
}

impl Round<'_> {
    /// Every project places up to `quantum` tasks. False when nobody could.
    fn turn_of_each(&mut self, projects: &[Vec<usize>], quantum: u32) -> bool {
        let mut moved = false;
        for groups in projects {
            let mut quantum = quantum;
            for &index in groups {
                let most = self.wanted[index].min(quantum);
                if most == 0 || self.budget == 0 {
                    continue;
                }
                let placed = self.place_group(index, most);
                quantum -= placed;
                self.report.placed += placed;
                self.wanted[index] -= placed;
                if placed < most && self.budget > 0 {
                    self.wanted[index] = 0;
                }
                moved |= placed > 0;
            }
        }
        moved
    }

    /// Places up to `most` tasks of a group, each where it now costs least.
    fn place_group(&mut self, index: usize, most: u32) -> u32 {
        let group = &self.view.waiting[index];
        let need = &group.spec.resources;
        let Some(mut offers) = self.offers(group) else {
            self.report.unfit.push(index);
            return 0;
        };
        let mut placed = 0;
        while placed < most && self.budget > 0 {
            let Some(Reverse(offer)) = offers.pop() else {
                break;
            };
            let room = &mut self.left[offer.node];
            room.take(need);
            placed += 1;
            self.budget -= 1;
            match self.plan.assignments.last_mut() {
                Some(last) if last.group == index && last.node == offer.node => last.tasks += 1,
                _ => self.plan.assignments.push(Assignment {
                    group: index,
                    node: offer.node,
                    tasks: 1,
                }),
            }
            if let Some(ahead) = room.ahead(need) {
                let cost = cost(&self.view.nodes[offer.node], group, ahead);
                offers.push(Reverse(Offer { cost, ..offer }));
            }
        }
        placed
    }

    /// What each node would cost that has room now; `None` where no online node fits even when empty.
    fn offers(&self, group: &Group) -> Option<BinaryHeap<Reverse<Offer>>> {
        let need = &group.spec.resources;
        let mut any = false;
        let mut offers = BinaryHeap::new();
        for (at, node) in self.view.nodes.iter().enumerate() {
            let open = node.online && !group.not_on.contains(&node.id);
            if !open || !fits(&node.spec, &node.region, &group.spec) {
                continue;
            }
            any = true;
            if let Some(ahead) = self.left[at].ahead(need) {
                offers.push(Reverse(Offer {
                    cost: cost(node, group, ahead),
                    tie: tie(self.seed, &node.id),
                    id: node.id,
                    node: at,
                }));
            }
        }
        any.then_some(offers)
    }
}
