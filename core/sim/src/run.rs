//! One history: events in their order, judged by the real state machine, placed by the real planner.
//!
//! ```text
//! arrivals ─▶ SubmitBatch ─▶ ┌───────┐ ◀─ Place ── plan(fleet, groups)
//! ends     ─▶ CompleteBatch ▶│ State │ ── touched nodes ─▶ fleet
//! silence  ─▶ Return        ▶└───────┘ ── what runs now  ─▶ its end, later
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use farlane_model::{
    AttemptRef, BootId, Digest, Exit, ExitKind, KeyId, LostCause, NodeId, Sealed, TaskId, TenantId,
};
use farlane_plan::{Estimates, Fleet, Group, NodeView, PlanInput, Share, Work, plan};
use farlane_state::{
    AttachGranter, BatchSignature, CompleteBatch, Completion, Genesis, OpenSession, Order, Outcome,
    Place, Placement, RegisterNode, Return, ReturnReason, Stamp, State, StockPrekeys, SubmitBatch,
    Submitted, TouchMark, UpdateNode, apply,
};
use farlane_units::{ByteCount, Micros, Millis};

use crate::report::{Figures, Tally};
use crate::work::Client;
use crate::{Random, Scenario, World};

/// Time of the first event, cluster time.
const EPOCH: u64 = 1_700_000_000_000;
/// Between two looks at what arrives, milliseconds.
const ARRIVALS: u64 = 100;
/// Events of this many milliseconds happen at once, as a busy server gathers them.
const TICK: u64 = 10;
/// How long a silent node stays away, milliseconds.
const AWAY: u64 = 60_000;
/// Placements of one round, and rounds at one moment. Source: as the controller's.
const BUDGET: u32 = 2048;
const ROUNDS: usize = 16;
/// Most tasks of a batch.
const BATCH: usize = 512;
/// A day, milliseconds.
const DAY: u64 = 24 * 3_600_000;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Ended(AttemptRef, NodeId),
    Back(NodeId),
    Silent(NodeId),
    Arrivals,
}

/// A history on its way.
pub struct Simulation {
    scenario: Scenario,
    random: Random,
    state: State,
    index: u64,
    /// Since [`EPOCH`], milliseconds.
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, What)>>,
    counted: u64,
    nodes: HashMap<NodeId, NodeView>,
    clients: Vec<Client>,
    fleet: Fleet,
    mark: Option<TouchMark>,
    estimates: Estimates,
    running: HashSet<AttemptRef>,
    /// Placed ahead of room, in the order in which they will have it.
    ahead: HashMap<NodeId, VecDeque<AttemptRef>>,
    tally: Tally,
}

impl Simulation {
    /// At its beginning.
    ///
    /// *Errors*: the scenario is out of bounds.
    pub fn new(scenario: Scenario) -> Result<Self, crate::BadScenario> {
        scenario.check()?;
        let mut world = World::new(scenario.seed, scenario.regions);
        let nodes: Vec<NodeView> = (0..scenario.nodes).map(|_| world.node()).collect();
        let clients = Client::all(&scenario);
        let weights = clients.iter().map(|c| c.weight).collect();
        let cores = nodes.iter().map(|n| u64::from(n.spec.cpus.0)).sum();
        let mut simulation = Self {
            random: Random::new(scenario.seed ^ 0x5eed),
            state: State::empty(),
            index: 0,
            now: 0,
            events: BinaryHeap::new(),
            counted: 0,
            nodes: HashMap::new(),
            fleet: Fleet::new(),
            mark: None,
            estimates: Estimates::default(),
            running: HashSet::new(),
            ahead: HashMap::new(),
            tally: Tally::new(cores, weights, &scenario),
            clients,
            scenario,
        };
        simulation.found(nodes);
        Ok(simulation)
    }

    fn found(&mut self, nodes: Vec<NodeView>) {
        self.order(Genesis {
            network: Digest::of(b"a made-up network"),
            epoch: 1,
            cluster_version: 1,
        });
        for node in nodes {
            let spec: Bytes = node.spec.to_canonical().into();
            self.order(RegisterNode {
                node: node.id,
                record: Bytes::new(),
                spec: spec.clone(),
                region: node.region.to_string(),
                provider: node.provider,
            });
            let boot = BootId([1; 16]);
            let node_id = node.id;
            self.order(UpdateNode {
                node: node_id,
                boot,
                spec,
            });
            self.order(StockPrekeys {
                node: node_id,
                boot,
                daily: Some(Bytes::from_static(b"daily")),
                one_time: Vec::new(),
            });
            self.nodes.insert(node_id, node);
            self.silence_later(node_id);
        }
        for at in 0..self.clients.len() {
            let (session, project) = (self.clients[at].session, self.clients[at].project);
            self.order(OpenSession {
                session,
                project,
                tenant: TenantId([7; 32]),
                key: KeyId::new(1, [8; 10]),
                wrapped_session_key: Bytes::new(),
                device: Bytes::new(),
            });
            self.order(AttachGranter {
                granter: session,
                project,
                standing: false,
                device: Bytes::new(),
            });
        }
        self.event(0, What::Arrivals);
    }

    /// How far it has come: simulated milliseconds of those in which work arrives, and all of them.
    pub fn progress(&self) -> (u64, u64) {
        let all = self.arrive_until();
        (self.now.min(all), all)
    }

    fn arrive_until(&self) -> u64 {
        (self.scenario.hours * 3_600_000.0) as u64
    }

    /// Goes on to the next moment at which something happens. False once nothing more will.
    pub fn step(&mut self) -> bool {
        let Some(Reverse((at, ..))) = self.events.peek() else {
            return false;
        };
        let at = *at;
        self.tally.pass(&self.state, &self.clients, self.now, at);
        self.now = at;
        while let Some(Reverse((next, _, what))) = self.events.peek().copied()
            && next == at
        {
            self.events.pop();
            match what {
                What::Arrivals => self.arrivals(),
                What::Ended(attempt, node) => self.ended(attempt, node),
                What::Silent(node) => self.silent(node),
                What::Back(node) => self.back(node),
            }
        }
        for _ in 0..ROUNDS {
            if !self.place() {
                break;
            }
        }
        let idle = self.now >= self.arrive_until()
            && self.state.counts().queued + self.state.counts().placed == 0;
        !idle
    }

    /// What it came to.
    pub fn figures(self) -> Figures {
        self.tally.figures(self.now, &self.clients, &self.scenario)
    }

    fn event(&mut self, at: u64, what: What) {
        let at = at.next_multiple_of(TICK);
        self.counted += 1;
        self.events.push(Reverse((at, self.counted, what)));
    }

    fn order(&mut self, order: impl Into<Order>) -> Outcome {
        self.index += 1;
        let stamp = Stamp {
            index: self.index,
            term: 1,
            now: Millis(EPOCH + self.now),
        };
        apply(&mut self.state, stamp, 0, order.into()).outcome
    }

    fn arrivals(&mut self) {
        let from = self.now;
        let share = ARRIVALS as f64 / 3_600_000.0;
        for at in 0..self.clients.len() {
            let count = self.clients[at].arrivals(from, share, &mut self.random);
            for some in batches(count, self.clients[at].gang) {
                self.submit(at, some);
            }
        }
        if from + ARRIVALS < self.arrive_until() {
            self.event(from + ARRIVALS, What::Arrivals);
        }
    }

    fn submit(&mut self, client: usize, count: usize) {
        let client = &mut self.clients[client];
        let first_seq = client.next_seq;
        client.next_seq += count as u64;
        let tasks = (0..count).map(|_| Submitted {
            spec: client.draw(&mut self.random),
            wrapped_key: Bytes::from_static(&[5; 48]),
            payload: Sealed::Inline(Bytes::from_static(b"sealed")),
            payload_digest: Digest::default(),
            idempotency: None,
            refs: Vec::new(),
        });
        let order = SubmitBatch {
            session: client.session,
            first_seq,
            tasks: tasks.collect(),
            specs: client.new_specs(),
        };
        let outcome = self.order(order);
        self.tally.submitted(count, &outcome);
    }

    /// One round of planning. True where another may place more.
    fn place(&mut self) -> bool {
        self.refresh();
        let room = self.fleet.room().min(BUDGET as usize);
        if room == 0 {
            return false;
        }
        let (mut groups, mut heads) = (Vec::new(), Vec::<Vec<TaskId>>::new());
        for queue in self.state.waiting() {
            let Some(client) = self.clients.iter().find(|c| c.session == queue.session.id) else {
                continue;
            };
            let most = queue
                .count()
                .min(room.next_multiple_of(client.gang as usize)) as u32;
            let most = most / client.gang * client.gang;
            if most == 0 {
                continue;
            }
            heads.push(queue.heads().take(most as usize).collect());
            groups.push(Group {
                spec: queue.spec.task.clone(),
                digest: queue.spec.digest,
                tasks: most,
                urgency: 0,
                since: heads.len() as u64,
                work: Work::of(Micros(0)),
                policy: client.policy,
                granter: true,
                not_on: Vec::new(),
                gang: client.gang,
            });
        }
        for group in &mut groups {
            group.work = self.estimates.work(&group.digest, None);
        }
        let input = PlanInput {
            now: Millis(EPOCH + self.now),
            seed: self.index,
            budget: BUDGET,
            shares: self.shares(),
        };
        let (found, report) = plan(&mut self.fleet, &groups, &input);
        let mut placements = Vec::with_capacity(report.placed as usize);
        let mut taken = vec![0usize; groups.len()];
        for a in &found.assignments {
            let from = taken[a.group];
            taken[a.group] += a.tasks as usize;
            let tasks = &heads[a.group][from..taken[a.group]];
            placements.extend(tasks.iter().map(|task| Placement {
                task: *task,
                node: a.node,
                generation: a.generation,
            }));
        }
        if placements.is_empty() {
            return false;
        }
        let placed = placements.clone();
        let outcome = self.order(Place {
            based_on: self.index,
            placements,
        });
        let Outcome::Placed { refused, .. } = outcome else {
            return false;
        };
        self.tally.refused += refused.len() as u64;
        for placement in placed {
            self.start(placement.task);
        }
        report.cut_short
    }

    fn shares(&self) -> Vec<Share> {
        let held: HashMap<_, _> = self.state.held().collect();
        let share = |client: &Client| {
            let held = held.get(&client.project).copied().unwrap_or_default();
            Share {
                project: client.project,
                weight: client.weight,
                cpus: held.cpus,
                memory: ByteCount(held.memory),
                gpus: held.gpus,
            }
        };
        self.clients.iter().map(share).collect()
    }

    fn refresh(&mut self) {
        let touched = self.mark.and_then(|mark| self.state.touched_since(mark));
        let changed: Vec<NodeId> = match touched {
            Some(touched) => touched.map(|node| node.id).collect(),
            None => self.nodes.keys().copied().collect(),
        };
        for id in changed {
            let (Some(node), Some(view)) = (self.state.node(&id), self.nodes.get(&id)) else {
                continue;
            };
            self.fleet.put(NodeView {
                generation: node.generation,
                free_cpus: node.free_cpus(),
                free_memory: node.free_memory(),
                free_scratch: node.free_scratch(),
                free_gpus: node.free_gpus().0,
                free_gpu_part: node.free_gpus().1,
                free_backlog: node.free_backlog(),
                backlog: node.waiting() as u32,
                ..view.clone()
            });
        }
        self.mark = Some(self.state.touch_mark());
    }

    /// A task that has room on its node runs, and ends later.
    fn start(&mut self, task: TaskId) {
        let Some(live) = self.state.task(task) else {
            return;
        };
        let (attempt, submitted) = (live.attempt_ref(), live.submitted.0 - EPOCH);
        let Some(placed) = live.placed else {
            return;
        };
        let node = placed.node.id;
        if placed.lease.backlog {
            return self.ahead.entry(node).or_default().push_back(attempt);
        }
        if !self.running.insert(attempt) {
            return;
        }
        let (Some(view), Some(client)) = (
            self.nodes.get(&node),
            self.clients
                .iter()
                .position(|c| c.session == task.session()),
        ) else {
            return;
        };
        let trip = view.round_trip.0.div_ceil(1000);
        let run = self.clients[client].runs_ms(task.seq());
        let need = live.spec.task.resources;
        let wait = self.now - submitted;
        self.tally.started(client, wait + trip, run, &need, view);
        self.event(self.now + trip + run, What::Ended(attempt, node));
    }

    fn ended(&mut self, attempt: AttemptRef, node: NodeId) {
        self.running.remove(&attempt);
        if !self.state.is_current(&attempt) {
            return;
        }
        let (session, seq) = (attempt.task.session(), attempt.task.seq());
        let Some(client) = self.clients.iter().find(|c| c.session == session) else {
            return;
        };
        let run = client.runs_ms(seq);
        if let Some((hardware, core)) = self.fleet.hardware(&node)
            && let Some(task) = self.state.task(attempt.task)
        {
            let micros = Micros(run.saturating_mul(1000));
            self.estimates
                .learn(task.spec.digest, hardware, core, micros);
        }
        let completion = Completion {
            attempt,
            exit: Exit::plain(ExitKind::Returned),
            sealed: Some(Sealed::Inline(Bytes::from_static(b"sealed"))),
            started: Millis(EPOCH + self.now.saturating_sub(run)),
            ended: Millis(EPOCH + self.now),
            peak_memory: ByteCount(0),
            cpu: Millis(run),
        };
        let signature = BatchSignature {
            id: [1; 16],
            leaves: Bytes::from_static(&[1; 32]),
            signature: Bytes::from_static(&[2; 64]),
        };
        let outcome = self.order(CompleteBatch {
            node,
            boot: BootId([1; 16]),
            session,
            batch: self.index,
            signature: Some(signature),
            items: vec![completion],
        });
        if let Outcome::Completed { stale } = outcome
            && stale.is_empty()
        {
            self.tally.ended();
        }
        self.go_on(node);
    }

    /// What waited on a node and has room now runs.
    fn go_on(&mut self, node: NodeId) {
        while let Some(next) = self.ahead.get(&node).and_then(|q| q.front()).copied() {
            let current = self
                .state
                .task(next.task)
                .filter(|t| t.attempt_ref() == next);
            let placed = current.and_then(|t| t.placed);
            if placed.is_some_and(|p| p.lease.backlog) {
                return;
            }
            if let Some(queue) = self.ahead.get_mut(&node) {
                queue.pop_front();
            }
            if placed.is_some() {
                self.start(next.task);
            }
        }
    }

    fn silence_later(&mut self, node: NodeId) {
        let rate = self.scenario.failures_per_node_day;
        if rate > 0.0 {
            // Evenly between none and twice the mean: what matters is how often, not how it is spread.
            let days = 2.0 * self.random.unit() / rate;
            self.event(
                self.now + (days * DAY as f64) as u64 + 1,
                What::Silent(node),
            );
        }
    }

    fn silent(&mut self, node: NodeId) {
        if self.now >= self.arrive_until() {
            return;
        }
        self.online(node, false);
        let held: Vec<AttemptRef> = self.state.desired(&node).map(|t| t.attempt_ref()).collect();
        self.tally.lost += held.len() as u64;
        let lost = |attempt| (attempt, ReturnReason::Lost(LostCause::LeaseExpired));
        for some in held.chunks(BATCH) {
            let attempts = some.iter().copied().map(lost).collect();
            self.order(Return { attempts });
        }
        self.event(self.now + AWAY, What::Back(node));
    }

    fn back(&mut self, node: NodeId) {
        self.online(node, true);
        self.silence_later(node);
    }

    fn online(&mut self, node: NodeId, online: bool) {
        if let Some(view) = self.nodes.get_mut(&node) {
            view.online = online;
        }
        // All of it: who is online is nothing that the state knows.
        self.mark = None;
    }
}

/// Batches of whole gangs.
fn batches(count: usize, gang: u32) -> impl Iterator<Item = usize> {
    let gang = gang as usize;
    let each = (BATCH / gang).max(1) * gang;
    (0..count)
        .step_by(each)
        .map(move |from| each.min(count - from))
}
