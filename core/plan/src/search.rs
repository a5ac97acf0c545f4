//! The search: the most urgent group first, each task to the node where it now costs least.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use farlane_model::{NodeId, Resources};
use farlane_units::{ByteCount, MilliCpu};

use crate::constraint::fits;
use crate::cost::cost;
use crate::view::{Assignment, ClusterView, Group, NodeView, Plan, PlanInput, Report};

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
/// taken from its head. *Cost*: O(groups × nodes + placements × log nodes).
pub fn plan(view: &ClusterView, input: PlanInput) -> (Plan, Report) {
    let mut left: Vec<Left> = view.nodes.iter().map(Left::of).collect();
    let mut order: Vec<usize> = (0..view.waiting.len()).collect();
    order.sort_by_key(|g| (view.waiting[*g].urgency, view.waiting[*g].since));
    let (mut plan, mut report) = (Plan::default(), Report::default());
    let mut budget = input.budget;
    for index in order {
        let group = &view.waiting[index];
        if group.tasks == 0 || !group.granter {
            continue;
        }
        if budget == 0 {
            report.cut_short = true;
            break;
        }
        match place_group(
            view,
            input.seed,
            index,
            group,
            &mut left,
            &mut budget,
            &mut plan,
        ) {
            Placed::Some(n) => report.placed += n,
            Placed::Unfit => report.unfit.push(index),
        }
    }
    report.unfit.sort_unstable();
    (plan, report)
}

enum Placed {
    Some(u32),
    /// No online node has what it takes, even empty.
    Unfit,
}

fn place_group(
    view: &ClusterView,
    seed: u64,
    index: usize,
    group: &Group,
    left: &mut [Left],
    budget: &mut u32,
    plan: &mut Plan,
) -> Placed {
    let need = &group.spec.resources;
    let mut any = false;
    let mut offers: BinaryHeap<Reverse<Offer>> = BinaryHeap::new();
    for (at, node) in view.nodes.iter().enumerate() {
        if !node.online || !fits(&node.spec, &node.region, &group.spec) {
            continue;
        }
        any = true;
        if let Some(ahead) = left[at].ahead(need) {
            let (cost, tie) = (cost(node, group, ahead), tie(seed, &node.id));
            offers.push(Reverse(Offer {
                cost,
                tie,
                id: node.id,
                node: at,
            }));
        }
    }
    if !any {
        return Placed::Unfit;
    }
    let mut placed = 0;
    while placed < group.tasks && *budget > 0 {
        let Some(Reverse(offer)) = offers.pop() else {
            break;
        };
        let room = &mut left[offer.node];
        room.take(need);
        placed += 1;
        *budget -= 1;
        match plan.assignments.last_mut() {
            Some(last) if last.group == index && last.node == offer.node => last.tasks += 1,
            _ => plan.assignments.push(Assignment {
                group: index,
                node: offer.node,
                tasks: 1,
            }),
        }
        if let Some(ahead) = room.ahead(need) {
            let cost = cost(&view.nodes[offer.node], group, ahead);
            offers.push(Reverse(Offer { cost, ..offer }));
        }
    }
    Placed::Some(placed)
}
