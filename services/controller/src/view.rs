//! The network as a plan sees it: applied state, less what is on its way.
//!
//! Owns the copy of nodes and queue heads into plain data, and expected run times. Leaves the choice
//! to `farlane-plan`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use farlane_model::{AttemptRef, Digest, NodeId, SessionId, TaskId, TaskSpec};
use farlane_plan::{ClusterView, Group, NodeView, PlanInput, plan};
use farlane_state::{Node, Order, State, SubmitBatch};
use farlane_units::Micros;

use crate::Controller;
use crate::overlay::{Freeing, Overlay, Placing};
use crate::refusals::Refusals;

/// Placements of one entry. Source: at 52 B each they take a tenth of an entry's bound.
const BUDGET: u32 = 2048;
/// Queues looked at in one round, the most urgent of each project first.
const MAX_GROUPS: usize = 256;
/// A task of which nothing is known yet. Source: none; it only has to be the same for every node.
const UNKNOWN_RUN_TIME: f64 = 100_000.0;
/// Specs whose run time is remembered; beyond it all are forgotten.
const MAX_SPECS: usize = 65_536;
/// Weight of the newest batch in an expected run time. Source: settles within 20 batches.
const NEWEST: f64 = 0.2;

/// What one round of planning came to.
#[derive(Default)]
pub(crate) struct Planned {
    pub based_on: u64,
    pub placements: Vec<Placing>,
    pub freed: Vec<Freeing>,
    /// The budget ended before the work.
    pub more: bool,
}

/// What planning remembers between rounds.
#[derive(Debug, Default)]
pub(crate) struct ViewCache {
    run_times: HashMap<Digest, f64>,
    rounds: u64,
}

impl ViewCache {
    fn learn(&mut self, spec: Digest, micros: f64) {
        if self.run_times.len() >= MAX_SPECS && !self.run_times.contains_key(&spec) {
            self.run_times.clear();
        }
        let known = self.run_times.entry(spec).or_insert(micros);
        *known += NEWEST * (micros - *known);
    }
    fn run_time(&self, spec: &Digest) -> Micros {
        Micros(
            self.run_times
                .get(spec)
                .copied()
                .unwrap_or(UNKNOWN_RUN_TIME) as u64,
        )
    }
}

impl Controller {
    /// Plans on what the orders of one entry will make of the state.
    pub(crate) fn plan_round(&self, orders: &[Order], overlay: &Overlay) -> Planned {
        let based_on = self.consensus.applied_index();
        let mut cache = self.view.lock();
        cache.rounds += 1;
        let seed = cache.rounds;
        // Held for the round only where there are any: a usual call's end does not wait for it.
        let refusals = Some(self.refusals.lock()).filter(|r| !r.is_empty());
        let (freed, view, heads) = self.consensus.read(|state| {
            let freed = freed_by(state, orders, overlay, &mut cache);
            let mut nodes = self.online_nodes(state);
            let room = settle_overlay(state, &mut nodes, overlay, &freed);
            let (waiting, heads) = match room {
                0 => (Vec::new(), Vec::new()),
                room => gather(state, orders, overlay, room, &cache, refusals.as_deref()),
            };
            (freed, ClusterView { nodes, waiting }, heads)
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
        let (found, report) = plan(
            &view,
            PlanInput {
                now: self.now(),
                seed,
                budget: BUDGET,
            },
        );
        planned.more = report.cut_short;
        let mut taken = vec![0usize; heads.len()];
        for assignment in &found.assignments {
            let (group, node) = (&heads[assignment.group], &view.nodes[assignment.node]);
            let from = taken[assignment.group];
            let to = (from + assignment.tasks as usize).min(group.len());
            taken[assignment.group] = to;
            let need = view.waiting[assignment.group].spec.resources;
            planned
                .placements
                .extend(group[from..to].iter().map(|task| Placing {
                    task: *task,
                    node: node.id,
                    generation: 0,
                    need,
                }));
        }
        self.consensus.read(|state| {
            for placing in &mut planned.placements {
                placing.generation = state.node(&placing.node).map_or(0, |n| n.generation);
            }
        });
        planned
    }

    /// Nodes that may be given work now.
    fn online_nodes(&self, state: &State) -> Vec<NodeView> {
        let (leases, steady) = (self.leases.lock(), self.clock.steady());
        let usable = |n: &&Node| {
            !n.revoked
                && (n.daily.is_some() || !n.one_time.is_empty() || !n.contexts.is_empty())
                && leases.is_online(n.id, steady)
        };
        let view = |n| {
            node_view(
                n,
                true,
                leases.get(n.id).map_or(Micros::ZERO, |l| l.round_trip),
            )
        };
        state.nodes().filter(usable).map(view).collect()
    }

    /// Every registered node that is not revoked, for what could ever run.
    pub(crate) fn whole_view(&self, state: &State) -> ClusterView {
        let (leases, steady) = (self.leases.lock(), self.clock.steady());
        let view = |n: &Node| {
            let trip = leases.get(n.id).map_or(Micros::ZERO, |l| l.round_trip);
            node_view(n, leases.is_online(n.id, steady), trip)
        };
        ClusterView {
            nodes: state.nodes().filter(|n| !n.revoked).map(view).collect(),
            waiting: Vec::new(),
        }
    }

    pub(crate) fn run_time(&self, spec: &Digest) -> Micros {
        self.view.lock().run_time(spec)
    }
}

/// Groups with as many heads as there could be room for.
struct Gathered<'a> {
    cache: &'a ViewCache,
    waiting: Vec<Group>,
    heads: Vec<Vec<TaskId>>,
    index: HashMap<(SessionId, Digest, Vec<NodeId>), usize>,
}

impl Gathered<'_> {
    fn add(
        &mut self,
        session: SessionId,
        digest: Digest,
        spec: &Arc<TaskSpec>,
        tasks: Vec<TaskId>,
        not_on: Vec<NodeId>,
    ) {
        if tasks.is_empty() {
            return;
        }
        let key = (session, digest, not_on);
        match self.index.get(&key) {
            Some(at) => {
                self.heads[*at].extend(tasks);
                self.waiting[*at].tasks = self.heads[*at].len() as u32;
            }
            None => {
                let at = self.heads.len();
                let not_on = key.2.clone();
                self.index.insert(key, at);
                self.waiting.push(Group {
                    spec: spec.clone(),
                    tasks: tasks.len() as u32,
                    urgency: -i16::from(spec.priority),
                    since: at as u64,
                    run_time: self.cache.run_time(&digest),
                    granter: true,
                    not_on,
                });
                self.heads.push(tasks);
            }
        }
    }
}

/// Waiting tasks that somebody can grant: those of the queues, then those that the orders submit.
fn gather(
    state: &State,
    orders: &[Order],
    overlay: &Overlay,
    room: usize,
    cache: &ViewCache,
    refusals: Option<&Refusals>,
) -> (Vec<Group>, Vec<Vec<TaskId>>) {
    let room = room.min(BUDGET as usize);
    let mut all = Gathered {
        cache,
        waiting: Vec::new(),
        heads: Vec::new(),
        index: HashMap::new(),
    };
    for queue in state
        .waiting()
        .filter(|q| q.granter.is_some())
        .take(MAX_GROUPS)
    {
        let fresh = queue.heads().filter(|t| !overlay.places(t));
        let (session, digest, spec) = (queue.session.id, queue.spec.digest, &queue.spec.task);
        let Some(refusals) = refusals else {
            all.add(
                session,
                digest,
                spec,
                fresh.take(room).collect(),
                Vec::new(),
            );
            continue;
        };
        // What was refused somewhere must not stand before what was not.
        let (mut free, mut refused) = (Vec::new(), BTreeMap::<_, Vec<TaskId>>::new());
        let mut spare = room;
        for task in fresh {
            let known = queue.granter.and_then(|g| refusals.of(task, g));
            match known {
                None => free.push(task),
                Some(_) if spare == 0 => continue,
                Some(known) => {
                    spare -= 1;
                    refused.entry(known.nodes.clone()).or_default().push(task);
                }
            }
            if free.len() >= room {
                break;
            }
        }
        all.add(session, digest, spec, free, Vec::new());
        for (not_on, tasks) in refused {
            all.add(session, digest, spec, tasks, not_on);
        }
    }
    for order in orders {
        if let Order::SubmitBatch(batch) = order {
            submitted(state, batch, room, &mut all);
        }
    }
    (all.waiting, all.heads)
}

/// Adds what a submission will queue once it is applied. What it resends is queued, placed or
/// finished already.
fn submitted(state: &State, batch: &SubmitBatch, room: usize, all: &mut Gathered) {
    let Some(session) = state.session(&batch.session) else {
        return;
    };
    if state.granter_for(session).is_none() || batch.first_seq > session.next_seq {
        return;
    }
    let mut read: HashMap<Digest, Arc<TaskSpec>> = HashMap::new();
    for bytes in &batch.specs {
        if let Ok(spec) = TaskSpec::from_canonical(bytes) {
            read.insert(Digest::of(bytes), Arc::new(spec));
        }
    }
    let mut run: Option<(Digest, Arc<TaskSpec>, Vec<TaskId>)> = None;
    let fresh = (batch.first_seq..)
        .zip(&batch.tasks)
        .filter(|(seq, _)| *seq >= session.next_seq);
    for (seq, task) in fresh.take(room) {
        let same = run
            .as_ref()
            .is_some_and(|(digest, ..)| *digest == task.spec);
        if !same {
            if let Some((digest, spec, tasks)) = run.take() {
                all.add(session.id, digest, &spec, tasks, Vec::new());
            }
            let known = state.spec(&task.spec).map(|s| s.task.clone());
            let Some(spec) = known.or_else(|| read.get(&task.spec).cloned()) else {
                continue;
            };
            run = Some((task.spec, spec, Vec::new()));
        }
        if let Some((_, _, tasks)) = &mut run {
            tasks.push(session.task_id(seq));
        }
    }
    if let Some((digest, spec, tasks)) = run {
        all.add(session.id, digest, &spec, tasks, Vec::new());
    }
}

/// Room that the orders' completions will free; learns their run times.
fn freed_by(
    state: &State,
    orders: &[Order],
    overlay: &Overlay,
    cache: &mut ViewCache,
) -> Vec<Freeing> {
    let mut freed = Vec::new();
    for order in orders {
        let Order::CompleteBatch(batch) = order else {
            continue;
        };
        let mut spans: Option<(Digest, f64, f64)> = None;
        for item in &batch.items {
            let attempt: AttemptRef = item.attempt;
            let Some(task) = state
                .task(attempt.task)
                .filter(|t| t.attempt == attempt.attempt)
            else {
                continue;
            };
            let Some(placed) = task.placed else { continue };
            if overlay.frees(&attempt) {
                continue;
            }
            freed.push(Freeing {
                attempt,
                node: placed.node.id,
                need: task.spec.task.resources,
                backlog: placed.lease.backlog,
            });
            let micros = item.ended.saturating_sub(item.started).0 as f64 * 1000.0;
            match &mut spans {
                Some((spec, sum, n)) if *spec == task.spec.digest => {
                    (*sum, *n) = (*sum + micros, *n + 1.0)
                }
                other => {
                    if let Some((spec, sum, n)) = other.replace((task.spec.digest, micros, 1.0)) {
                        cache.learn(spec, sum / n);
                    }
                }
            }
        }
        if let Some((spec, sum, n)) = spans {
            cache.learn(spec, sum / n);
        }
    }
    freed
}

/// Takes what is on its way off the nodes' room; a bound on how many more they take in all.
fn settle_overlay(
    state: &State,
    nodes: &mut [NodeView],
    overlay: &Overlay,
    freed: &[Freeing],
) -> usize {
    let index: HashMap<NodeId, usize> = nodes.iter().enumerate().map(|(i, n)| (n.id, i)).collect();
    for free in overlay.freeing(state).chain(freed) {
        if let Some(node) = index.get(&free.node).map(|i| &mut nodes[*i]) {
            // Where some wait, the next of them takes the room at once.
            if free.backlog || node.backlog > 0 {
                node.backlog = node.backlog.saturating_sub(1);
                node.free_backlog += 1;
            } else {
                node.free_cpus = node.free_cpus.saturating_add(free.need.cpus);
                node.free_memory = node.free_memory.saturating_add(free.need.memory);
                node.free_scratch = node.free_scratch.saturating_add(free.need.scratch);
            }
        }
    }
    for placing in overlay.placing(state) {
        if let Some(node) = index.get(&placing.node).map(|i| &mut nodes[*i]) {
            take(node, placing);
        }
    }
    // A core takes at most a thousand tasks; more precisely is the plan's to say.
    nodes
        .iter()
        .map(|n| n.free_cpus.0 as usize + n.free_backlog as usize)
        .sum()
}

fn take(node: &mut NodeView, placing: &Placing) {
    let need = &placing.need;
    let runs = node.backlog == 0
        && need.cpus <= node.free_cpus
        && need.memory <= node.free_memory
        && need.scratch <= node.free_scratch;
    if runs {
        node.free_cpus = node.free_cpus.saturating_sub(need.cpus);
        node.free_memory = node.free_memory.saturating_sub(need.memory);
        node.free_scratch = node.free_scratch.saturating_sub(need.scratch);
    } else {
        node.free_backlog = node.free_backlog.saturating_sub(1);
        node.backlog += 1;
    }
}

fn node_view(node: &Node, online: bool, round_trip: Micros) -> NodeView {
    NodeView {
        id: node.id,
        spec: node.spec.clone(),
        region: node.region.clone(),
        online,
        free_cpus: node.free_cpus(),
        free_memory: node.free_memory(),
        free_scratch: node.free_scratch(),
        free_backlog: node.free_backlog(),
        backlog: node.waiting() as u32,
        round_trip,
    }
}
