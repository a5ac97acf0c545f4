//! One history: events in their order, judged by the real state machine, placed by the real planner.
//!
//! ```text
//! arrivals ─▶ SubmitBatch ─▶ ┌───────┐ ◀─ Place ── plan(fleet, groups)
//! ends     ─▶ CompleteBatch ▶│ State │ ── touched nodes ─▶ fleet
//! silence  ─▶ Return        ▶└───────┘ ── what runs now  ─▶ its end, later
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};

use bytes::Bytes;
use farlane_model::{AttemptRef, BootId, Digest, Exit, ExitKind, NodeId, Sealed, TaskId};
use farlane_plan::{Estimates, Fleet, Reserved, Shape};
use farlane_state::{
    BatchSignature, CompleteBatch, Completion, Order, Outcome, Stamp, State, SubmitBatch,
    Submitted, TouchMark, Turn, apply,
};
use farlane_units::{ByteCount, Micros, Millis};

use crate::instance::{Instance, Job};
use crate::machine::{Machine, speed};
use crate::peers::{Chooser, Peer};
use crate::replay::Replay;
use crate::report::{Figures, Started, Tally};
use crate::work::Client;
use crate::{Random, Scenario, World};

/// Time of the first event, cluster time.
pub(crate) const EPOCH: u64 = 1_700_000_000_000;
/// Between two looks at what arrives, milliseconds.
const ARRIVALS: u64 = 100;
/// Events of this many milliseconds happen at once, as a busy server gathers them.
const TICK: u64 = 10;
/// Rounds at one moment. Source: as the controller's.
const ROUNDS: usize = 16;
/// Longest that an attempt runs, milliseconds. Source: ten times the latest moment of a trace, eleven years; a million of
/// them after each other are still a moment.
const LONGEST: u64 = 10 * farlane_trace::MAX_MS;
/// Tasks remembered for the bound. Source: 24 MB; a history with more has none.
const MAX_JOBS: usize = 1_000_000;
/// Most tasks of a batch.
pub(crate) const BATCH: usize = 512;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Hour,
    Ended(AttemptRef, NodeId),
    Turn,
    Back(NodeId),
    Silent(NodeId),
    Gone(NodeId),
    Arrivals,
    Recorded,
    CallBack,
}

/// A history on its way.
pub struct Simulation {
    pub(crate) scenario: Scenario,
    pub(crate) random: Random,
    pub(crate) state: State,
    pub(crate) index: u64,
    /// Since [`EPOCH`], milliseconds.
    pub(crate) now: u64,
    events: BinaryHeap<Reverse<(u64, u64, What)>>,
    counted: u64,
    /// Hours that ended with nothing else to come.
    pub(crate) still_hours: u32,
    pub(crate) nodes: HashMap<NodeId, Machine>,
    pub(crate) clients: Vec<Client>,
    pub(crate) fleet: Fleet,
    pub(crate) mark: Option<TouchMark>,
    /// Whose queues the next round looks at.
    pub(crate) turn: Turn,
    pub(crate) estimates: Estimates,
    /// Room kept for gangs.
    pub(crate) reserved: Reserved,
    /// Called back from where they waited: they are placed where they run at once.
    pub(crate) called: BTreeSet<TaskId>,
    /// Who chooses where the planner does not.
    pub(crate) peer: Option<Peer>,
    /// Attempts that are not in a backlog, and what they hold, thousandths of a core.
    pub(crate) running: HashMap<AttemptRef, u32>,
    /// All of it.
    pub(crate) busy: u64,
    /// Placed ahead of room, in the order in which they will have it.
    pub(crate) ahead: BTreeMap<NodeId, VecDeque<AttemptRef>>,
    /// What arrived, for the bound.
    jobs: Vec<Job>,
    pub(crate) tally: Tally,
    /// In the place of what is made up.
    pub(crate) replay: Option<Replay>,
}

impl Simulation {
    /// At its beginning.
    ///
    /// *Errors*: the scenario is out of bounds.
    pub fn new(scenario: Scenario) -> Result<Self, crate::BadScenario> {
        Self::chosen_by(Chooser::Farlane, scenario)
    }

    /// The same with another chooser of nodes, in the same world and before the same judge.
    ///
    /// *Errors*: the scenario is out of bounds.
    pub fn chosen_by(chooser: Chooser, scenario: Scenario) -> Result<Self, crate::BadScenario> {
        scenario.check()?;
        let mut world = World::of(&scenario);
        let machines = (0..scenario.nodes).map(|_| world.machine()).collect();
        let clients = Client::all(&scenario);
        Ok(Self::begin(chooser, scenario, machines, clients, None))
    }

    pub(crate) fn begin(
        chooser: Chooser,
        scenario: Scenario,
        machines: Vec<Machine>,
        clients: Vec<Client>,
        replay: Option<Replay>,
    ) -> Self {
        let weights = clients.iter().map(|c| c.weight).collect();
        let cores = machines.iter().map(|m| u64::from(m.view.spec.cpus.0));
        let cores = cores.sum();
        let mut simulation = Self {
            random: Random::new(scenario.seed ^ 0x5eed),
            state: State::empty(),
            index: 0,
            now: 0,
            events: BinaryHeap::new(),
            counted: 0,
            still_hours: 0,
            nodes: HashMap::new(),
            fleet: Fleet::new(),
            mark: None,
            turn: Turn::default(),
            estimates: Estimates::default(),
            reserved: Reserved::default(),
            called: BTreeSet::new(),
            peer: Peer::of(chooser, scenario.seed),
            running: HashMap::new(),
            busy: 0,
            ahead: BTreeMap::new(),
            jobs: Vec::new(),
            tally: Tally::new(cores, weights, &scenario),
            replay,
            clients,
            scenario,
        };
        simulation.found(machines);
        simulation
    }

    /// How far it has come: simulated milliseconds of those in which work arrives, and all of them.
    pub fn progress(&self) -> (u64, u64) {
        let all = self.arrive_until();
        (self.now.min(all), all)
    }

    pub(crate) fn arrive_until(&self) -> u64 {
        (self.scenario.hours * 3_600_000.0) as u64
    }

    /// Goes on to the next moment at which something happens. False once nothing more will.
    pub fn step(&mut self) -> bool {
        let Some(Reverse((at, ..))) = self.events.peek() else {
            return false;
        };
        let at = *at;
        let (from, busy) = (self.now, self.busy);
        self.tally.pass(&self.state, &self.clients, busy, from..at);
        self.now = at;
        while let Some(Reverse((next, _, what))) = self.events.peek().copied()
            && next == at
        {
            self.events.pop();
            match what {
                What::Arrivals => self.arrivals(),
                What::Recorded => self.recorded(),
                What::Turn => self.turn(),
                What::Gone(node) => self.gone(node),
                What::Ended(attempt, node) => self.ended(attempt, node),
                What::Silent(node) => self.silent(node),
                What::Back(node) => self.back(node),
                What::Hour => self.hour(),
                What::CallBack => self.call_back(),
            }
        }
        for _ in 0..ROUNDS {
            if !self.place() {
                break;
            }
        }
        self.now < self.arrive_until() || self.counts_live() > 0
    }

    /// Whether anything is to come.
    pub(crate) fn awaits(&self) -> bool {
        !self.events.is_empty()
    }

    /// Tasks that wait or are placed.
    pub(crate) fn counts_live(&self) -> usize {
        self.state.counts().queued + self.state.counts().placed
    }

    /// What arrived: when, and how much work.
    #[cfg(test)]
    pub(crate) fn arrived(&self) -> impl Iterator<Item = (u64, u64)> {
        self.jobs.iter().map(|job| (job.arrival, job.work))
    }

    /// What was to be placed, for a bound on what placing it costs. `None` where more than a million tasks
    /// arrived, for a replay, and where gangs lie on nodes that fall silent: what is left of one then begins again, and a
    /// bound takes all of it to begin once.
    pub fn instance(&self) -> Option<Instance> {
        let gangs = self.clients.iter().any(|client| client.gang > 1);
        let broken = gangs && self.scenario.failures_per_node_day > 0.0;
        let whole = self.jobs.len() < MAX_JOBS && self.replay.is_none();
        let machines = self.nodes.values();
        (whole && !broken).then(|| Instance::of(machines, &self.clients, &self.jobs, self.now))
    }

    /// What it came to.
    pub fn figures(self) -> Figures {
        // Steps of a replay go on after its work: grids change, nodes go.
        let now = self.replay.as_ref().map_or(self.now, |r| r.last_end);
        let made_up = self.replay.is_none().then_some(self.scenario);
        self.tally
            .figures(now, &self.clients, made_up, self.nodes.len())
    }

    pub(crate) fn event(&mut self, at: u64, what: What) {
        // What was recorded keeps its moments: calls of a millisecond would last ten.
        let tick = if self.replay.is_none() { TICK } else { 1 };
        let at = at.next_multiple_of(tick);
        self.counted += 1;
        self.events.push(Reverse((at, self.counted, what)));
    }

    pub(crate) fn order(&mut self, order: impl Into<Order>) -> Outcome {
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

    fn submit(&mut self, at: usize, count: usize) {
        let client = &mut self.clients[at];
        let first_seq = client.next_seq;
        let mut kind = 0;
        let drawn = (0..count as u64).map(|n| {
            let drawn = client.draw(&mut self.random);
            // What belongs together asks the same.
            if n % u64::from(client.gang) == 0 {
                kind = drawn;
            }
            if self.jobs.len() < MAX_JOBS {
                self.jobs.push(Job {
                    client: at as u32,
                    kind: kind as u32,
                    arrival: self.now,
                    work: client.runs_ms(first_seq + n),
                });
            }
            kind as u32
        });
        let kinds: Vec<u32> = drawn.collect();
        self.submit_kinds(at, &kinds);
    }

    /// Tasks of these kinds of one client, in this order.
    pub(crate) fn submit_kinds(&mut self, at: usize, kinds: &[u32]) {
        let client = &mut self.clients[at];
        let first_seq = client.next_seq;
        client.next_seq += kinds.len() as u64;
        let tasks = kinds.iter().map(|kind| Submitted {
            spec: client.kinds[*kind as usize].digest,
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
        self.tally.submitted(kinds.len(), &outcome);
    }

    /// A task that has room on its node runs, and ends later.
    pub(crate) fn start(&mut self, task: TaskId) {
        let Some(live) = self.state.task(task) else {
            return;
        };
        let (attempt, submitted) = (live.attempt_ref(), live.submitted.0 - EPOCH);
        let Some(placed) = live.placed else {
            return;
        };
        let node = placed.node.id;
        if placed.lease.backlog {
            if self.ahead.is_empty() {
                self.call_back_later();
            }
            return self.ahead.entry(node).or_default().push_back(attempt);
        }
        if self.running.contains_key(&attempt) {
            return;
        }
        let (Some(machine), Some(client)) = (
            self.nodes.get(&node),
            self.clients
                .iter()
                .position(|c| c.session == task.session()),
        ) else {
            return;
        };
        let trip = machine.view.round_trip.0.div_ceil(1000);
        let work = self.clients[client].runs_ms(task.seq());
        let spec = &live.spec.task;
        let started = Started {
            wait: self.now - submitted,
            trip,
            run: runs_for(work, speed(&machine.view.spec, spec)),
            cores: f64::from(spec.resources.cpus.0) / 1000.0,
            carbon: machine.carbon_at(self.now),
        };
        let policy = self.clients[client].policy_of(&live.spec.digest);
        let gpus = f64::from(spec.resources.gpus.0) / 1000.0;
        self.tally
            .started(client, &started, &machine.view, (&policy, gpus));
        let (cpus, end) = (spec.resources.cpus.0, self.now + trip + started.run);
        self.running.insert(attempt, cpus);
        self.busy += u64::from(cpus);
        self.event(end, What::Ended(attempt, node));
    }

    fn ended(&mut self, attempt: AttemptRef, node: NodeId) {
        let held = self.running.remove(&attempt);
        self.busy -= held.map_or(0, u64::from);
        if !self.state.is_current(&attempt) {
            return;
        }
        let (session, seq) = (attempt.task.session(), attempt.task.seq());
        let Some(client) = self.clients.iter().find(|c| c.session == session) else {
            return;
        };
        let work = client.runs_ms(seq);
        let (Some(task), Some(machine)) = (self.state.task(attempt.task), self.nodes.get(&node))
        else {
            return;
        };
        let run = runs_for(work, speed(&machine.view.spec, &task.spec.task));
        if let Some((hardware, rates)) = self.fleet.hardware(&node) {
            let micros = Micros(run.saturating_mul(1000));
            self.estimates.learn(
                task.spec.digest,
                Shape::of(&task.spec.task),
                hardware,
                &rates,
                micros,
            );
        }
        let completion = Completion {
            attempt,
            exit: Exit::plain(ExitKind::Returned),
            sealed: Some(Sealed::Inline(Bytes::from_static(b"sealed"))),
            started: Millis(EPOCH + self.now.saturating_sub(run)),
            ended: Millis(EPOCH + self.now),
            peak_memory: ByteCount(0),
            cpu: Millis(run),
            moved: farlane_state::Moved::NONE,
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
            if let Some(replay) = &mut self.replay {
                replay.last_end = self.now;
            }
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
}

/// Milliseconds of so much work at this speed, a thousandth of what the work is stated for; held at [`LONGEST`].
pub(crate) fn runs_for(work: u64, speed: u64) -> u64 {
    (work.saturating_mul(1000) / speed.max(1)).clamp(1, LONGEST)
}

/// Batches of whole gangs.
fn batches(count: usize, gang: u32) -> impl Iterator<Item = usize> {
    let gang = gang as usize;
    let each = (BATCH / gang).max(1) * gang;
    (0..count)
        .step_by(each)
        .map(move |from| each.min(count - from))
}
