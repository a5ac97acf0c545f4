//! Running work that makes way for more urgent work.
//!
//! Owns when it is looked for: something has waited a while, queued or on its node. Leaves the choice to
//! `farlane-plan`, and whether it still holds to `farlane-state`.

use std::collections::BTreeMap;

use farlane_model::{AttemptRef, ProjectId, Resources};
use farlane_plan::{Group, Holder, Occupied, Stands, make_way, preempt};
use farlane_state::{LiveTask, Node, Order, Preempt, Return, ReturnReason, State};
use farlane_units::Millis;

use crate::Controller;
use crate::overlay::Overlay;
use crate::quota::Quotas;
use crate::view::ViewCache;

/// What has waited less may yet find room by itself. Source: choice; a grant that does not come is given up after 2 s.
const PATIENCE: Millis = Millis(2_000);
/// Queues looked at, as in a round of planning.
const MAX_GROUPS: usize = 256;
/// Projects for which something makes way in a second. Source: choice, as `farlane-plan` takes no more.
const MAX_PROJECTS: usize = 16;
/// Nodes looked at. Source: a look takes a microsecond for each lease; a second's worth of looks stays under 50 ms.
const MAX_NODES: usize = 4096;
/// Attempts of one order.
const PAGE: usize = 2048;

/// A node with its leases, and who they are.
struct Place {
    occupied: Occupied,
    attempts: Vec<AttemptRef>,
}

impl Controller {
    /// Orders by which attempts make way, and those that did not say in time how they did.
    pub(crate) fn preemptions(&self) -> Vec<Order> {
        let now = self.now();
        let mut cache = self.view.lock();
        let cache = &mut *cache;
        let (asked, recalled, overdue) = self.consensus.read(|state| {
            let overdue: Vec<_> = state.overdue_to_yield(now).take(PAGE).collect();
            let counts = state.counts();
            if counts.placed == 0 {
                return (Vec::new(), Vec::new(), overdue);
            }
            self.refresh(state, cache);
            let (asked, recalled) = victims(state, cache, now);
            (asked, recalled, overdue)
        });
        let back = |attempts: Vec<AttemptRef>, reason| Return {
            attempts: attempts.into_iter().map(|a| (a, reason)).collect(),
        };
        let mut orders: Vec<Order> = Vec::new();
        // What waits before it goes back first, so that the room that comes is not theirs.
        if !recalled.is_empty() {
            orders.push(back(recalled, ReturnReason::NotGranted).into());
        }
        if !asked.is_empty() {
            tracing::info!(attempts = asked.len(), "asked to make way");
            orders.push(Preempt { attempts: asked }.into());
        }
        if !overdue.is_empty() {
            orders.push(back(overdue, ReturnReason::Preempted).into());
        }
        orders
    }
}

/// Attempts that are asked to make way, and those that wait on nodes and go back to their queues.
fn victims(
    state: &State,
    cache: &mut ViewCache,
    now: Millis,
) -> (Vec<AttemptRef>, Vec<AttemptRef>) {
    let quotas = Quotas::of(state, &Overlay::default(), &[], now);
    let long = |since: Millis| since.saturating_add(PATIENCE) <= now;
    let queues = state
        .waiting()
        .filter(|q| q.granter.is_some() && quotas.leave(&q.project) && long(q.oldest()));
    // Of each project what goes first.
    let mut first: BTreeMap<ProjectId, Group> = BTreeMap::new();
    for queue in queues.take(MAX_GROUPS) {
        let group = Group {
            waited: now.saturating_sub(queue.oldest()),
            ..cache.group(state, queue.spec.digest, &queue.spec.task, 1)
        };
        match first.get(&queue.project) {
            Some(known) if known.rank() <= group.rank() => {}
            _ => drop(first.insert(queue.project, group)),
        }
    }
    let mut groups: Vec<Group> = first.into_values().collect();
    // In turns, where they are many.
    let turn = (now.0 / 1000) as usize % groups.len().max(1);
    groups.rotate_left(turn);
    groups.truncate(MAX_PROJECTS);
    let stuck = |node: &&Node| node.waiting() > 0;
    if groups.is_empty() && !state.nodes().any(|node| stuck(&node)) {
        return (Vec::new(), Vec::new());
    }
    let shares = quotas.shares(usize::MAX);
    let busy = state.nodes().filter(|node| {
        let leased = node.running() + node.waiting() > 0;
        !node.revoked && leased && (!groups.is_empty() || node.waiting() > 0)
    });
    let mut places: Vec<Place> = busy
        .take(MAX_NODES)
        .filter_map(|node| place(state, node, now))
        .collect();
    let (mut asked, mut recalled) = (Vec::new(), Vec::new());
    let mut take = |place: &Place, chosen: &[usize]| {
        for index in chosen {
            match place.occupied.holders[*index].stands {
                Stands::Running => asked.push(place.attempts[*index]),
                _ => recalled.push(place.attempts[*index]),
            }
        }
    };
    // First for what waits on a node: the room it gets is its at once.
    places.retain(|place| {
        let Some((before, waits)) = stuck_on(state, place, now, cache) else {
            return true;
        };
        let chosen = make_way(&mut cache.fleet, &waits, &before, &shares);
        take(place, &chosen);
        chosen.is_empty()
    });
    let occupied: Vec<Occupied> = places.iter().map(|p| p.occupied.clone()).collect();
    for found in preempt(&mut cache.fleet, &groups, &occupied, &shares) {
        take(&places[found.node], &found.victims);
    }
    (asked, recalled)
}

/// A node's leases, in the order of their placement; `None` where one that waits there could not be placed again.
fn place(state: &State, node: &Node, now: Millis) -> Option<Place> {
    let (mut holders, mut attempts) = (Vec::new(), Vec::new());
    for live in state.desired(&node.id) {
        let lease = live.placed?.lease;
        let once = live.spec.task.retry.at_most_once;
        let attempt = live.attempt_ref();
        let stands = match lease.backlog {
            true if once => return None,
            true => Stands::Waiting,
            false if lease.yields > Millis::ZERO => Stands::Yielding,
            false if state.may_preempt(&attempt, now) => Stands::Running,
            false => Stands::Fixed,
        };
        holders.push(holder(&live, stands, now));
        attempts.push(attempt);
    }
    let occupied = Occupied {
        node: node.id,
        free: Resources {
            cpus: node.free_cpus(),
            memory: node.free_memory(),
            scratch: node.free_scratch(),
            gpus: node.free_gpus().0,
        },
        holders,
    };
    Some(Place { occupied, attempts })
}

fn holder(live: &LiveTask<'_>, stands: Stands, now: Millis) -> Holder {
    let task = &live.spec.task;
    let since = live.placed.map_or(now, |p| p.lease.at);
    Holder {
        project: task.project,
        urgency: -i16::from(task.priority),
        waited: now.saturating_sub(live.submitted),
        need: task.resources,
        ran: now.saturating_sub(since),
        stands,
    }
}

/// The most urgent of those that have waited on a node for a while, and the node without it and what is behind it.
fn stuck_on(
    state: &State,
    place: &Place,
    now: Millis,
    cache: &mut ViewCache,
) -> Option<(Occupied, Group)> {
    let holders = &place.occupied.holders;
    let waits = |at: &usize| holders[*at].stands == Stands::Waiting && holders[*at].ran >= PATIENCE;
    let first = (0..holders.len())
        .filter(waits)
        .min_by_key(|at| (holders[*at].urgency, *at))?;
    let live = state.task(place.attempts[first].task)?;
    let group = Group {
        waited: now.saturating_sub(live.submitted),
        ..cache.group(state, live.spec.digest, &live.spec.task, 1)
    };
    let mut before = place.occupied.clone();
    for holder in &mut before.holders[first..] {
        // Indices stay: what waits behind it is merely none of its business.
        if holder.stands == Stands::Waiting {
            holder.stands = Stands::Fixed;
        }
    }
    Some((before, group))
}
