//! The network as a plan sees it: applied state, less what is on its way.
//!
//! Owns the copy of nodes into the fleet. Leaves the choice to `farlane-plan`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use farlane_audit::Pace;
use farlane_model::{AttemptRef, Digest, MAX_QUOTE_BYTES, NodeId, TaskId, TaskSpec, TenantId};
use farlane_plan::{
    Egress, Estimates, Fleet, Group, NodeView, PlanInput, Policy, Reserved, Shadow, Shape, Sizes,
    plan,
};
use farlane_state::{Node, Order, Rows, State, TouchMark, Turn};
use farlane_units::{ByteCount, Millis};

use crate::Controller;
use crate::carbon::{core_milliwatts, gpu_milliwatts};
use crate::company::presence;
use crate::gather::{Waits, gather};
use crate::holdings::Holdings;
use crate::learn::{Learned, learn_arguments};
use crate::moved::held;
use crate::overlay::{Freeing, Overlay, Placing, Special};
use crate::quota::Quotas;
use crate::reserve::Ends;
use crate::stuck::Called;
use crate::tempo::Tempo;
use crate::warm::Warmth;

/// Placements of one entry. Source: at 52 B each they take a tenth of an entry's bound.
pub(crate) const BUDGET: u32 = 2048;
/// Between two looks at every node: for a minute a plan may go by yesterday's price, no bill does.
const GRID: Millis = Millis(60_000);

/// What one round of planning came to.
#[derive(Default)]
pub(crate) struct Planned {
    pub based_on: u64,
    pub placements: Vec<Placing>,
    /// What they are expected to take, by the place of the first that it is of.
    pub quotes: Vec<(u32, Bytes)>,
    pub freed: Vec<Freeing>,
    /// The budget ended before the work.
    pub more: bool,
}

/// What planning remembers between rounds.
#[derive(Debug, Default)]
pub(crate) struct ViewCache {
    pub estimates: Estimates,
    pub sizes: Sizes,
    /// Beside the estimates, in shadow: no plan uses it.
    pub shadow: Shadow,
    pub warmth: Warmth,
    pub holdings: Holdings,
    pub fleet: Fleet,
    /// Run times by node, for audits.
    pub pace: Pace,
    /// Up to where the state's changes are in the fleet.
    mark: Option<TouchMark>,
    /// Nodes that the fleet holds less what was on its way.
    overlaid: Vec<NodeId>,
    grid: Grid,
    /// Room kept for gangs.
    pub reserved: Reserved,
    /// When nodes come free, for that.
    pub ends: Ends,
    /// What was called back from where it waited.
    pub called: Called,
    /// How fast each project's line moves.
    pub tempo: Tempo,
    rounds: u64,
    /// Whose queues the next round looks at.
    pub turn: Turn,
    /// Likewise, for what can never run.
    pub hopeless: Turn,
    /// Likewise, for what others make way for: the next node, and whose queues.
    pub making_way: (NodeId, Turn),
}

/// What changes without anybody's order: prices at their dates, carbon by the hour. Every node is looked at
/// again after [`GRID`].
#[derive(Debug, Default)]
struct Grid {
    until: Millis,
    /// g CO2e a kWh, by region.
    carbon: HashMap<Arc<str>, Option<u32>>,
}

impl ViewCache {
    /// Leadership is lost: forgets what was true of it alone, or is told by others from now on. What run times, sizes and
    /// environments were learned stays true, and the next lead looks at every node anew.
    pub fn cease(&mut self) {
        (self.tempo, self.holdings) = (Tempo::default(), Holdings::default());
        (self.reserved, self.called) = (Reserved::default(), Called::default());
        self.mark = None;
    }

    /// What waited and does not any more needs no room, and was called back for good.
    pub fn forget_gone(&mut self, state: &State) {
        let waits = |task: &TaskId| state.task(*task).is_some_and(|live| live.placed.is_none());
        self.called.retain(waits);
        self.reserved.retain(waits);
    }

    /// A group of these tasks, for the plan or to be explained.
    pub fn group(
        &mut self,
        state: &State,
        digest: Digest,
        spec: &Arc<TaskSpec>,
        tenant: TenantId,
        tasks: u32,
    ) -> Group {
        let lock = spec.environment.map_or(ByteCount::ZERO, |e| e.lock.size);
        let code = spec.code.size.saturating_add(lock);
        let (arguments, result) = self.sizes.sizes(&digest);
        let (start, warm) = self.warmth.of(spec);
        let lies = self.holdings.of(spec, self.sizes.shared(&digest));
        Group {
            spec: spec.clone(),
            digest,
            tenant,
            tasks,
            urgency: -i16::from(spec.priority),
            waited: Millis::ZERO,
            since: 0,
            work: self.estimates.work(&digest, Shape::of(spec)),
            start,
            warm,
            lies,
            bytes_there: code.saturating_add(arguments),
            bytes_back: result,
            policy: Policy::of(state.project(&spec.project).policy(spec)),
            granter: true,
            at_once: false,
            not_on: Vec::new(),
            gang: 1,
        }
    }
}

impl Controller {
    /// Plans on what the orders of one entry will make of the state.
    pub(crate) fn plan_round(&self, orders: &[Order], overlay: &Overlay) -> Planned {
        let based_on = self.consensus.applied_index();
        let mut cache = self.view.lock();
        let cache = &mut *cache;
        cache.rounds += 1;
        let seed = cache.rounds;
        // Held for the round only where there are any: a usual call's end does not wait for it.
        let refusals = Some(self.refusals.lock()).filter(|r| !r.is_empty());
        let rows = self.consensus.rows();
        let (freed, groups, heads, shares, presence, gangs) = self.consensus.read(|state| {
            self.refresh(state, cache);
            let freed = freed_by(state, orders, overlay, cache, (&rows, self.now()));
            learn_arguments(orders, &mut cache.sizes);
            self.settle_overlay(state, cache, overlay, &freed);
            let quotas = Quotas::of(state, overlay, &freed, self.now());
            let waits = Waits {
                state,
                overlay,
                quotas: &quotas,
                now: self.now(),
                refusals: refusals.as_deref(),
            };
            let (groups, heads) = match cache.fleet.room() {
                0 => (Vec::new(), Vec::new()),
                room => gather(waits, orders, room, cache),
            };
            let shares = quotas.shares(groups.len());
            let presence = presence(state, overlay, &groups);
            let (now, view) = (self.now(), (&mut cache.estimates, &cache.fleet));
            let gangs = cache
                .reserved
                .input(&groups, &heads, now, || cache.ends.look(state, view, now));
            (freed, groups, heads, shares, presence, gangs)
        });
        drop(refusals);
        let mut planned = Planned {
            based_on,
            freed,
            ..Planned::default()
        };
        if heads.is_empty() {
            return planned;
        }
        let input = PlanInput {
            now: self.now(),
            seed,
            budget: BUDGET,
            shares,
            presence,
            gangs,
        };
        let (found, report) = plan(&mut cache.fleet, &groups, &input);
        planned.more = report.cut_short;
        cache.reserved.take(report.reserved, &heads);
        let mut taken = vec![0usize; heads.len()];
        for assignment in &found.assignments {
            let head = &heads[assignment.group];
            let from = taken[assignment.group];
            let to = (from + assignment.tasks as usize).min(head.len());
            taken[assignment.group] = to;
            let group = &groups[assignment.group];
            let quote = cache.fleet.quote(group, assignment).to_bytes();
            let first = planned.placements.len() as u32;
            let count = to.saturating_sub(from) as u64;
            cache.tempo.placed(group.spec.project, count, input.now);
            // With one that is not well formed the state would refuse them all.
            if to > from && quote.len() <= MAX_QUOTE_BYTES {
                planned.quotes.push((first, quote.into()));
            }
            let need = group.spec.resources;
            let ucu = cache.fleet.ucu_of(&assignment.node, need.cpus);
            let special = Special::of(group, assignment.devices);
            planned
                .placements
                .extend(head[from..to].iter().map(|task| Placing {
                    task: *task,
                    node: assignment.node,
                    generation: assignment.generation,
                    need,
                    ucu,
                    special: special.clone(),
                }));
        }
        planned
    }

    /// Brings the fleet up to date with the state and with who is online.
    pub(crate) fn refresh(&self, state: &State, cache: &mut ViewCache) {
        let now = self.now();
        if now >= cache.grid.until {
            cache.grid.until = now.saturating_add(GRID);
            cache.grid.carbon.clear();
            cache.mark = None;
        }
        let mut changed = self.leases.lock().take_changed();
        changed.append(&mut self.paths.lock().take_changed());
        changed.extend(self.heats.lock().take_changed());
        cache.fleet.set_links(self.between.lock().clone());
        for (blob, node) in std::mem::take(&mut *self.took.lock()) {
            cache.holdings.took(blob, node);
        }
        let (fleet, grid) = (&mut cache.fleet, &mut cache.grid);
        fleet.reopen(now);
        let mut put = |fleet: &mut Fleet, node: &Node| match node.revoked {
            true => fleet.remove(&node.id),
            false => fleet.put(self.node_view(node, grid, now)),
        };
        match cache.mark.and_then(|mark| state.touched_since(mark)) {
            Some(touched) => {
                let named = changed.iter().chain(&cache.overlaid);
                let named = named.filter_map(|id| state.node(id));
                // In runs of the same.
                let mut last = None;
                for node in named.chain(touched) {
                    if last != Some(node.id) {
                        put(fleet, node);
                        last = Some(node.id);
                    }
                }
            }
            None => {
                fleet.retain(|id| state.node(id).is_some());
                state.nodes().for_each(|node| put(fleet, node));
            }
        }
        cache.overlaid.clear();
        cache.mark = Some(state.touch_mark());
    }

    /// Takes what is on its way off the nodes' room.
    fn settle_overlay(
        &self,
        state: &State,
        cache: &mut ViewCache,
        overlay: &Overlay,
        freed: &[Freeing],
    ) {
        let mut views: HashMap<NodeId, NodeView> = HashMap::new();
        let (now, grid) = (self.now(), &mut cache.grid);
        let mut view = |id: &NodeId, change: &dyn Fn(&mut NodeView)| {
            if let Some(known) = views.get_mut(id) {
                change(known);
            } else if let Some(node) = state.node(id).filter(|n| !n.revoked) {
                let mut view = self.node_view(node, grid, now);
                change(&mut view);
                views.insert(*id, view);
            }
        };
        for free in overlay.freeing(state).chain(freed) {
            view(&free.node, &|node| free.give(node));
        }
        for placing in overlay.placing(state) {
            view(&placing.node, &|node| placing.take(node));
        }
        for (id, view) in views {
            cache.overlaid.push(id);
            cache.fleet.put(view);
        }
    }

    /// A node as a plan sees it, without what is on its way.
    fn node_view(&self, node: &Node, grid: &mut Grid, now: Millis) -> NodeView {
        let keys = node.daily.is_some() || !node.one_time.is_empty() || !node.contexts.is_empty();
        let online = {
            let leases = self.leases.lock();
            keys && leases.is_online(node.id, self.clock.steady())
        };
        let path = self.paths.lock().of(node.id);
        let carbon = match grid.carbon.get(&node.region) {
            Some(known) => *known,
            None => {
                let known = self.carbon_of(&node.region);
                let grams = known.map(|intensity| intensity.of.0.div_ceil(1000));
                grid.carbon.insert(node.region.clone(), grams);
                grams
            }
        };
        let egress = node.egress_at(now);
        NodeView {
            id: node.id,
            generation: node.generation,
            spec: node.spec.clone(),
            region: node.region.clone(),
            provider: node.provider,
            online,
            free_cpus: node.free_cpus(),
            free_memory: node.free_memory(),
            free_scratch: node.free_scratch(),
            devices: node.devices().clone(),
            free_amounts: node.free_amounts(),
            free_backlog: node.free_backlog(),
            backlog: node.waiting() as u32,
            round_trip: path.round_trip,
            bandwidth: path.bandwidth,
            egress: Egress {
                there: egress.there,
                back: egress.back,
            },
            price: node.price_at(now),
            carbon,
            milliwatts_core: core_milliwatts(),
            milliwatts_gpu: gpu_milliwatts(&node.spec.devices),
            risk: self.histories.lock().risk(&node.id),
            slowdown_milli: node.standing.slowdown_milli(),
            heat: self.heats.lock().of(&node.id),
            quarantined: node.standing.is_quarantined(),
        }
    }
}

/// Room that the orders' completions will free; learns their run times. Of what is not its own a node says nothing.
fn freed_by(
    state: &State,
    orders: &[Order],
    overlay: &Overlay,
    cache: &mut ViewCache,
    (rows, now): (&impl Rows, Millis),
) -> Vec<Freeing> {
    let mut freed = Vec::new();
    for order in orders {
        let Order::CompleteBatch(batch) = order else {
            continue;
        };
        let mut learn = Learned::of(batch.node, &mut *cache, rows, now);
        for item in &batch.items {
            let attempt: AttemptRef = item.attempt;
            let held = held(state, &batch.node, &attempt);
            let Some((task, placed)) = held.and_then(|task| Some((task, task.placed?))) else {
                continue;
            };
            if overlay.frees(&attempt) {
                continue;
            }
            freed.push(Freeing {
                attempt,
                node: placed.node.id,
                need: task.spec.task.resources,
                devices: placed.lease.devices,
                ucu: placed.lease.ucu,
                backlog: placed.lease.backlog,
            });
            learn.ended(&task, item);
        }
        learn.end();
    }
    freed
}

#[cfg(test)]
mod tests {
    use super::*;
    use farlane_model::ProjectId;

    #[test]
    fn who_leads_again_knows_nothing_of_its_lead_before() {
        let (mut cache, project) = (ViewCache::default(), ProjectId::new(0, [1; 10]));
        cache.tempo.placed(project, 3, Millis(1_000_000));
        let start = |cache: &ViewCache| cache.tempo.start(&project, 1, Millis(4_000_000)).words();
        assert!(start(&cache).ends_with("none of its project was placed in the last 10 minutes"));
        cache.cease();
        assert!(
            start(&cache).ends_with("none of its project was placed since this server leads"),
            "{}",
            start(&cache)
        );
    }
}
