//! What the planner is given, and what it answers: plain data.

use std::cmp::Reverse;
use std::sync::Arc;

use farlane_model::{
    Amount, DeviceLoads, Digest, NodeId, NodeSpec, ProjectId, Resources, TaskSpec, TenantId,
};
use farlane_units::{
    ByteCount, ByteRate, MicroGramsCo2, Micros, MilliCpu, MilliUcu, Millis, Ppm, UsdMicros,
};

use crate::company::Presence;
use crate::cost::{Bill, Policy};
use crate::devices::Need;
use crate::estimate::Work;
use crate::fleet::Totals;
use crate::units::NO_BOUND;

/// One node, as one round of planning sees it: applied state less what is on its way.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Which.
    pub id: NodeId,
    /// Counts changes that void a plan.
    pub generation: u32,
    /// What its agent measured.
    pub spec: Arc<NodeSpec>,
    /// From its certificate.
    pub region: Arc<str>,
    /// Fingerprint of its provider's root.
    pub provider: Digest,
    /// Holds a lease now. Those that do not count for feasibility only.
    pub online: bool,
    /// Cores not held by running leases.
    pub free_cpus: MilliCpu,
    /// Memory not held by running leases.
    pub free_memory: ByteCount,
    /// Scratch not held by running leases.
    pub free_scratch: ByteCount,
    /// What running leases hold of its accelerators.
    pub devices: DeviceLoads,
    /// What of its named resources no running lease holds; empty where it has none.
    pub free_amounts: Vec<Amount>,
    /// Leases it still takes ahead of capacity.
    pub free_backlog: u32,
    /// Leases it has already taken ahead of capacity.
    pub backlog: u32,
    /// Between its agent and the server, as the server measured it; zero before it did.
    pub round_trip: Micros,
    /// Between its agent and the servers, the slower way; `None` where nothing was moved yet.
    pub bandwidth: Option<ByteRate>,
    /// What bytes cost on their way there and back.
    pub egress: Egress,
    /// Price in force of one core for an hour.
    pub price: UsdMicros,
    /// What its region's grid emits now, grams of CO2e a kWh; `None` where nobody knows.
    pub carbon: Option<u32>,
    /// What one busy core draws, with its share of cooling, thousandths of a watt; 0 where unknown.
    pub milliwatts_core: u32,
    /// What one of its accelerators draws at full load, likewise; 0 where it has
    /// none, or where nobody knows: then it counts for nothing here, and what a task emits is unknown.
    pub milliwatts_gpu: u32,
    /// Chance that an attempt is lost here.
    pub risk: Ppm,
    /// Runs take so much longer than its claim says, as audits found; 1000 where nothing is known.
    pub slowdown_milli: u32,
    /// What runs here are expected to need more for its heat, in steps.
    pub heat: Heat,
    /// In quarantine: it counts for feasibility, and gets nothing.
    pub quarantined: bool,
}

/// How much longer work is expected to take for the heat of a node; nothing where no sensor says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Heat {
    /// Of its processors; a million is twice as long.
    pub cores: Ppm,
    /// Of its accelerators.
    pub gpus: Ppm,
}

impl Heat {
    /// What counts for a task that holds so much.
    pub(crate) fn of(&self, held: &Resources) -> Ppm {
        match held.gpus.0 > 0 {
            true => self.cores.max(self.gpus),
            false => self.cores,
        }
    }
}

/// What 10^9 bytes cost between the servers' region and a node's; nothing where they are one, or where nobody said
/// where the servers stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Egress {
    /// From the servers.
    pub there: UsdMicros,
    /// To the servers.
    pub back: UsdMicros,
}

/// Tasks that share a spec, waiting in one queue.
#[derive(Debug, Clone)]
pub struct Group {
    /// What they ask for.
    pub spec: Arc<TaskSpec>,
    /// Digest of it.
    pub digest: Digest,
    /// Whose they are: parts of one accelerator are never two tenants'.
    pub tenant: TenantId,
    /// How many wait.
    pub tasks: u32,
    /// Lower goes first (the negated priority).
    pub urgency: i16,
    /// How long its head has waited: it grows more urgent with that, see [`Group::rank`].
    pub waited: Millis,
    /// It is placed only where it runs at once: it waited on a node for too long before.
    pub at_once: bool,
    /// Names the queue, and breaks ties between equal urgency and age: lower goes first.
    pub since: u64,
    /// How long one is expected to run.
    pub work: Work,
    /// What a node that holds nothing yet must take for one of them: code, environment, arguments.
    pub bytes_there: ByteCount,
    /// What of that is known to lie where; nothing of what only its class would say.
    pub lies: Vec<Lies>,
    /// How large its result is expected to be.
    pub bytes_back: ByteCount,
    /// How long it takes to make its environment ready where it is not.
    pub start: Micros,
    /// Where it is ready, as far as is known. *Shape*: at most [`MAX_WARM`], sorted.
    pub warm: Arc<[NodeId]>,
    /// What time, carbon and risk are worth to it.
    pub policy: Policy,
    /// Whether somebody attached can grant them; without, none is placed.
    pub granter: bool,
    /// Nodes that their granter has refused.
    pub not_on: Vec<NodeId>,
    /// Placed together or not at all, this many at a time; 1 for tasks on their own.
    pub gang: u32,
}

/// A part of what tasks take with them, and nodes that hold it.
#[derive(Debug, Clone)]
pub struct Lies {
    /// Those known. *Shape*: at most [`MAX_WARM`], sorted.
    pub nodes: Arc<[NodeId]>,
    /// What need not be moved there.
    pub bytes: ByteCount,
}

/// A group that waits so long goes one priority up. Source: choice; a task of priority 0 passes new ones of
/// priority 10 after ten minutes, and one of the lowest priority those of the highest after 4.3 hours.
pub const AGEING: Millis = Millis(60_000);
/// The urgency of the highest priority: nothing rises above it. Source: `TaskSpec::priority` is an `i8`.
const MOST_URGENT: i16 = -(i8::MAX as i16);

impl Group {
    /// What one of them asks of a node's room.
    pub(crate) fn need(&self) -> Need<'_> {
        Need {
            task: &self.spec,
            tenant: &self.tenant,
        }
    }

    /// What of the bytes that it takes with it a node holds already.
    pub(crate) fn held(&self, node: &NodeId) -> ByteCount {
        let there = self.lies.iter();
        let there = there.filter(|part| part.nodes.binary_search(node).is_ok());
        there.fold(ByteCount::ZERO, |sum, part| sum.saturating_add(part.bytes))
    }

    /// Its place within its project: lower goes first. By urgency, which rises with its wait up to that of the
    /// highest priority; then by the wait itself, so that what came later never goes first for ever.
    pub fn rank(&self) -> (i16, Reverse<Millis>, u64) {
        let aged = aged(self.urgency, self.waited);
        (aged, Reverse(self.waited), self.since)
    }
}

/// An urgency after so long a wait.
pub(crate) fn aged(urgency: i16, waited: Millis) -> i16 {
    let steps = i16::try_from(waited.0 / AGEING.0).unwrap_or(i16::MAX);
    let aged = urgency.saturating_sub(steps).max(MOST_URGENT);
    aged.min(urgency)
}

/// What a project holds already, and what it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Whose.
    pub project: ProjectId,
    /// Against others'; 1000 unless set.
    pub weight: u32,
    /// Cores that its leases hold.
    pub cpus: u64,
    /// Memory that they hold.
    pub memory: ByteCount,
    /// Thousandths of an accelerator that they hold.
    pub gpus: u64,
    /// What its quota leaves.
    pub left: Left,
}

impl Share {
    /// Of a project that holds nothing and of which nothing is set.
    pub(crate) fn none(project: ProjectId) -> Self {
        Self {
            project,
            weight: 1000,
            cpus: 0,
            memory: ByteCount::ZERO,
            gpus: 0,
            left: Left::ALL,
        }
    }

    /// Its dominant share by its weight, with so much more (or, `sign` being -1, less) than it holds.
    pub(crate) fn with(&self, more: &Resources, sign: f64, totals: &Totals) -> f64 {
        let of = |held: u64, more: f64, all: u64| (held as f64 + sign * more) / all.max(1) as f64;
        let cpus = of(self.cpus, f64::from(more.cpus.0), totals.cpus);
        let memory = of(self.memory.0, more.memory.0 as f64, totals.memory.0);
        let gpus = of(self.gpus, f64::from(more.gpus.0), totals.gpus);
        cpus.max(memory).max(gpus) / f64::from(self.weight.max(1))
    }
}

/// What a project's quota leaves: no plan takes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Tasks.
    pub tasks: u64,
    /// Thousandths of a core.
    pub cpus: u64,
    /// Thousandths of an accelerator.
    pub gpus: u64,
    /// Thousandths of a unit of compute; `u64::MAX` where there is no bound.
    pub ucu: u64,
}

impl Left {
    /// Of a project without a quota.
    pub const ALL: Self = Self {
        tasks: u64::MAX,
        cpus: u64::MAX,
        gpus: u64::MAX,
        ucu: NO_BOUND,
    };

    /// Whether `count` tasks of this size are within it, wherever they go; what they take of its units depends on that.
    pub fn holds(&self, need: &Resources, count: u32) -> bool {
        let times = |each: u32| u64::from(each) * u64::from(count);
        u64::from(count) <= self.tasks
            && times(need.cpus.0) <= self.cpus
            && (need.gpus.0 == 0 || times(need.gpus.0) <= self.gpus)
            // None takes less than a thousandth.
            && u64::from(count) <= self.ucu
    }

    /// And what one of them gives back, whose cores count for so much.
    pub fn give(&mut self, need: &Resources, ucu: MilliUcu) {
        self.tasks = self.tasks.saturating_add(1);
        self.cpus = self.cpus.saturating_add(u64::from(need.cpus.0));
        self.gpus = self.gpus.saturating_add(u64::from(need.gpus.0));
        self.ucu = self.ucu.saturating_add(ucu.0);
    }

    /// Less what `count` of them take, but for units.
    pub fn take(&mut self, need: &Resources, count: u32) {
        let times = |each: u32| u64::from(each) * u64::from(count);
        self.tasks = self.tasks.saturating_sub(u64::from(count));
        self.cpus = self.cpus.saturating_sub(times(need.cpus.0));
        self.gpus = self.gpus.saturating_sub(times(need.gpus.0));
    }

    /// Less what the cores of one of them count for.
    pub fn spend(&mut self, ucu: MilliUcu) {
        if self.ucu != NO_BOUND {
            self.ucu = self.ucu.saturating_sub(ucu.0);
        }
    }
}

/// Nodes of a group that are known to be ready, each of which the search looks at beside its class. Source: choice; a
/// class stands for the rest.
pub const MAX_WARM: usize = 64;

/// What a plan depends on besides fleet and groups.
#[derive(Debug, Clone)]
pub struct PlanInput {
    /// Cluster time.
    pub now: Millis,
    /// Breaks ties between projects whose shares are equal.
    pub seed: u64,
    /// Most placements to try: steps, never seconds.
    pub budget: u32,
    /// Projects with something leased, a weight or a quota of their own; others hold nothing and weigh 1000.
    pub shares: Vec<Share>,
    /// Where those lie that waiting tasks want to be near or far from, or beside which they spread.
    pub presence: Presence,
    /// What gangs wait for.
    pub gangs: Gangs,
}

/// Nodes kept for a gang that found no room at its turn, until all of it has room. What is expected to end before
/// that may still run there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Ascending.
    pub nodes: Vec<NodeId>,
    /// When they were expected to have the room; this does not move.
    pub at: Millis,
}

/// What a plan knows of gangs that wait.
#[derive(Debug, Clone, Default)]
pub struct Gangs {
    /// What [`Report::reserved`] of the last round said for the gang at the head of a group (index).
    pub known: Vec<(usize, Reservation)>,
    /// When a node is expected to have ended all that it has; ascending by node, without those that have nothing.
    /// `None`: no room is to be kept but what is known.
    pub ends: Option<Vec<(NodeId, Millis)>>,
}

/// So many tasks of a group, from its head, onto a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assignment {
    /// Index into the groups.
    pub group: usize,
    /// Where.
    pub node: NodeId,
    /// The node's generation.
    pub generation: u32,
    /// How many; at least one, and no more of those that ask for accelerators.
    pub tasks: u32,
    /// The accelerators that it is expected to get, as a set of places; none where it waits there for them.
    pub devices: u64,
    /// What the first of them is expected to cost.
    pub bill: Bill,
    /// How long that one is expected to run.
    pub run: Micros,
    /// What an hour of it emits there; `None` where nobody knows.
    pub emits: Option<MicroGramsCo2>,
    /// The best node of the next best class, and its cost in micro-dollars; `None` where there is none.
    pub runner_up: Option<(NodeId, f64)>,
}

/// Placements in the order in which queue heads are to be taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// In order of placement: a group may come again.
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
    /// Room that is kept for the gang at the head of a group (index).
    pub reserved: Vec<(usize, Reservation)>,
}
