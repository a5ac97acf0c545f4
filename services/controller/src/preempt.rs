//! Running work that makes way for more urgent work.
//!
//! Owns when it is looked for: something has waited a while, queued or on its node. Leaves what goes back to its queue
//! first, since another node has room, to `stuck`, the choice to `farlane-plan`, and whether it still holds to
//! `farlane-state`.

use std::collections::{BTreeMap, BTreeSet};

use farlane_model::{AttemptRef, NodeId, ProjectId, Resources};
use farlane_plan::{
    Group, Holder, Occupied, PATIENCE, Presence, Share, Stands, make_room, make_way, preempt,
};
use farlane_state::{LiveTask, Node, Order, Preempt, Return, ReturnReason, State};
use farlane_units::{MilliGpu, Millis};

use crate::Controller;
use crate::company::presence;
use crate::gather::refused_of;
use crate::overlay::Overlay;
use crate::quota::Quotas;
use crate::refusals::Refusals;
use crate::stuck::{MAX_STUCK, Stuck, called_back};
use crate::view::ViewCache;

/// Queues looked at, as in a round of planning.
const MAX_GROUPS: usize = 256;
/// Projects for which something makes way in a second. Source: choice, as `farlane-plan` takes no more.
const MAX_PROJECTS: usize = 16;
/// Nodes passed in a second, in turn. Source: as many as a cell's 100,000 in half a minute; passing one that has nothing takes 50 ns.
const MAX_NODES: usize = 4096;
/// Leases looked at in a second. Source: choice; of 10,000 nodes with four each all
/// are looked at in three seconds, and the state is read for a few milliseconds at a time, as for a round of planning.
const MAX_LEASES: usize = 16_384;
/// Members of a gang that may make way. Source: as much as makes way for one task.
const MAX_MEMBERS: u32 = 8;
/// Attempts of one order.
const PAGE: usize = 2048;

/// A node with its leases, and who they are.
pub(crate) struct Place {
    pub occupied: Occupied,
    pub attempts: Vec<AttemptRef>,
}

/// What was seen of the state: all that the choice needs.
pub(crate) struct Seen {
    /// What waits in queues, of each project what goes first.
    groups: Vec<Group>,
    shares: Vec<Share>,
    /// Gangs that go first, with the nodes that are kept for them.
    gangs: Vec<(Group, Vec<Place>)>,
    /// Nodes that something has waited on for a while, and whom it wants to be near or far from.
    stuck: Vec<Stuck>,
    presence: Presence,
    places: Vec<Place>,
    /// Nodes that are kept for gangs: what makes way there makes way for them.
    kept: BTreeSet<NodeId>,
}

impl Controller {
    /// Orders by which attempts make way, and those that did not say in time how they did.
    pub(crate) fn preemptions(&self) -> Vec<Order> {
        let now = self.now();
        let mut cache = self.view.lock();
        let cache = &mut *cache;
        let refusals = Some(self.refusals.lock()).filter(|known| !known.is_empty());
        let (seen, overdue) = self.consensus.read(|state| {
            let overdue: Vec<_> = state.overdue_to_yield(now).take(PAGE).collect();
            if state.counts().placed == 0 {
                return (None, overdue);
            }
            self.refresh(state, cache);
            cache.forget_gone(state);
            (look(state, cache, refusals.as_deref(), now), overdue)
        });
        drop(refusals);
        // The state is not held while it is chosen.
        let chosen = seen.map(|seen| choose(seen, cache, now));
        let (asked, recalled) = chosen.unwrap_or_default();
        let back = |attempts: &[AttemptRef], reason| Return {
            attempts: attempts.iter().map(|a| (*a, reason)).collect(),
        };
        let mut orders: Vec<Order> = Vec::new();
        // What waits before it goes back first, so that the room that comes is not theirs.
        if !recalled.is_empty() {
            tracing::debug!(
                attempts = recalled.len(),
                "called back from where they wait"
            );
        }
        let pages = recalled.chunks(PAGE);
        orders.extend(pages.map(|some| back(some, ReturnReason::CalledBack).into()));
        if !asked.is_empty() {
            tracing::info!(attempts = asked.len(), "asked to make way");
        }
        let pages = asked.chunks(PAGE).map(<[_]>::to_vec);
        orders.extend(pages.map(|attempts| Preempt { attempts }.into()));
        if !overdue.is_empty() {
            orders.push(back(&overdue, ReturnReason::Preempted).into());
        }
        orders
    }
}

/// What has waited for a while, and some of the nodes with their leases: on from where the last look ended.
pub(crate) fn look(
    state: &State,
    cache: &mut ViewCache,
    refusals: Option<&Refusals>,
    now: Millis,
) -> Option<Seen> {
    let (mut stuck, mut places, mut gangs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut groups, mut passed, mut leases, mut waits) = (Vec::new(), 0, 0, 0);
    for (group, kept) in waiting(state, cache, refusals, now) {
        if !group.is_gang() {
            groups.push(group);
            continue;
        }
        let there = kept
            .iter()
            .filter_map(|id| place(state, state.node(id)?, now));
        let there: Vec<Place> = there.collect();
        // Where room is not kept what makes way would be others' room.
        if !kept.is_empty() && there.len() == kept.len() {
            gangs.push((group, there));
        }
    }
    let kept: BTreeSet<NodeId> = cache.reserved.nodes().collect();
    let from = cache.making_way.0;
    for node in state.nodes_from(&from) {
        if passed == MAX_NODES || leases >= MAX_LEASES || waits >= MAX_STUCK {
            cache.making_way.0 = node.id;
            break;
        }
        passed += 1;
        let wanted = !groups.is_empty() && node.running() > 0 || node.waiting() > 0;
        if node.revoked || !wanted {
            continue;
        }
        leases += node.running() + node.waiting();
        let Some(place) = place(state, node, now) else {
            continue;
        };
        match Stuck::on(state, place, now, (cache, refusals)) {
            Ok(some) => {
                waits += some.waits().count();
                stuck.push(some);
            }
            Err(place) if !groups.is_empty() && !kept.contains(&node.id) => places.push(*place),
            Err(_) => {}
        }
    }
    if stuck.is_empty() && places.is_empty() && gangs.is_empty() {
        return None;
    }
    let quotas = Quotas::of(state, &Overlay::default(), &[], now);
    let waits: Vec<Group> = stuck.iter().flat_map(Stuck::waits).cloned().collect();
    Some(Seen {
        groups,
        shares: quotas.shares(usize::MAX),
        gangs,
        stuck,
        presence: presence(state, &Overlay::default(), &waits),
        places,
        kept,
    })
}

/// Of each project what goes first of what has waited for a while in queues, some projects at a time; of gangs with the
/// nodes that are kept for the first of them.
fn waiting(
    state: &State,
    cache: &mut ViewCache,
    refusals: Option<&Refusals>,
    now: Millis,
) -> Vec<(Group, Vec<NodeId>)> {
    let quotas = Quotas::of(state, &Overlay::default(), &[], now);
    let long = |since: Millis| since.saturating_add(PATIENCE) <= now;
    let turn = &mut cache.making_way.1;
    let queues = state.waiting_in_turn(turn, MAX_GROUPS, |queue| {
        queue.granter.is_some() && quotas.leave(&queue.project) && long(queue.oldest())
    });
    let mut first: BTreeMap<ProjectId, (Group, Vec<NodeId>)> = BTreeMap::new();
    for queue in queues {
        let spec = &queue.spec.task;
        let gang = spec.gang.and_then(|_| queue.gangs().next());
        let kept = gang
            .as_ref()
            .and_then(|gang| cache.reserved.of(gang.first()?));
        let kept = kept.map_or_else(Vec::new, |kept| kept.nodes.clone());
        let next = gang.unwrap_or_else(|| queue.heads().take(1).collect());
        let group = Group {
            not_on: refused_of(&next, queue.granter, refusals),
            gang: next.len() as u32,
            waited: now.saturating_sub(queue.oldest()),
            ..cache.group(state, queue.spec.digest, spec, queue.session.tenant, 1)
        };
        match first.get(&queue.project) {
            Some((known, _)) if known.rank() <= group.rank() => {}
            _ => drop(first.insert(queue.project, (group, kept))),
        }
    }
    let mut groups: Vec<_> = first.into_values().collect();
    // In turns, where they are many.
    let turn = (now.0 / 1000) as usize % groups.len().max(1);
    groups.rotate_left(turn);
    groups.truncate(MAX_PROJECTS);
    groups
}

/// Attempts that are asked to make way, and those that wait on nodes and go back to their queues.
pub(crate) fn choose(
    seen: Seen,
    cache: &mut ViewCache,
    now: Millis,
) -> (Vec<AttemptRef>, Vec<AttemptRef>) {
    let (mut asked, mut recalled) = (Vec::new(), Vec::new());
    let mut take = |occupied: &Occupied, attempts: &[AttemptRef], chosen: &[usize]| {
        for index in chosen {
            match occupied.holders[*index].stands {
                Stands::Running => asked.push(attempts[*index]),
                _ => recalled.push(attempts[*index]),
            }
        }
    };
    let Seen {
        groups,
        shares,
        gangs,
        stuck,
        presence,
        mut places,
        kept,
    } = seen;
    for (gang, there) in gangs {
        let (occupied, attempts): (Vec<_>, Vec<_>) =
            there.into_iter().map(|p| (p.occupied, p.attempts)).unzip();
        for (at, chosen) in make_room(&mut cache.fleet, &gang, &occupied, &shares) {
            take(&occupied[at], &attempts[at], &chosen);
        }
    }
    // First for what waits on a node: the room it gets is its at once.
    let (called, cut_short) = called_back(&stuck, cache, presence, now);
    // Others make way for a project once, as for its queue: then the shares are what came of it.
    let mut served = BTreeSet::new();
    for (stuck, called) in stuck.into_iter().zip(called) {
        let Stuck {
            place,
            before,
            first,
            ..
        } = stuck;
        let (project, kept) = (first.spec.project, kept.contains(&before.node));
        let mut chosen = called;
        if chosen.is_empty() && !kept && !cut_short {
            chosen = make_way(&mut cache.fleet, &first, &before, &shares);
            let others = |at: &usize| before.holders[*at].project != project;
            if chosen.iter().any(others) && !served.insert(project) {
                chosen.clear();
            }
        }
        take(&place.occupied, &place.attempts, &chosen);
        if chosen.is_empty() && !kept {
            places.push(place);
        }
    }
    let (occupied, attempts): (Vec<_>, Vec<_>) =
        places.into_iter().map(|p| (p.occupied, p.attempts)).unzip();
    for found in preempt(&mut cache.fleet, &groups, &occupied, &shares) {
        take(&occupied[found.node], &attempts[found.node], &found.victims);
    }
    (asked, recalled)
}

/// A node's leases, in the order of their placement.
fn place(state: &State, node: &Node, now: Millis) -> Option<Place> {
    let (mut holders, mut attempts) = (Vec::new(), Vec::new());
    for live in state.desired(&node.id) {
        let lease = live.placed?.lease;
        // Granted as it is, it runs there; elsewhere somebody would have to grant it.
        let stays = live.spec.task.retry.at_most_once || state.granter_for(live.session).is_none();
        let attempt = live.attempt_ref();
        let members = live.gang.map_or(1, |member| u32::from(member.size));
        let stands = match lease.backlog {
            true if stays => Stands::Stays,
            true => Stands::Waiting,
            false if lease.yields > Millis::ZERO => Stands::Yielding,
            false if members > MAX_MEMBERS => Stands::Fixed,
            false if !stays && state.may_preempt(&attempt, now) => Stands::Running,
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
            gpus: MilliGpu::ZERO,
        },
        devices: node.devices().clone(),
        amounts: node.free_amounts(),
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
        devices: live.placed.map_or(0, |p| p.lease.devices),
        amounts: task.amounts.clone(),
        members: live.gang.map_or(1, |member| member.size.into()),
        ran: now.saturating_sub(since),
        stands,
    }
}

#[cfg(test)]
#[path = "preempt_tests.rs"]
pub(crate) mod tests;
