//! A recorded trace in the place of a made-up world: the same nodes, the same work, at the same moments.
//!
//! Owns how a trace becomes machines, clients and arrivals. Leaves what was recorded of it to `recorded`.
//!
//! ```text
//! nodes ─▶ machines; prices and grids in dated steps; they come and go when they did
//! tasks ─▶ arrivals; a run's length × the speed of where it ran ─▶ work, which is the same on every node
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use farlane_model::{Device, DeviceKind, Interpreter, NodeId, NodeSpec, PolicyPrices, TaskSpec};
use farlane_plan::{NodeView, Policy};
use farlane_trace::{Call, Fault, Node, Outcome, Trace};
use farlane_units::{ByteCount, Micros, Ppm, UsdMicros};

use crate::machine::{Course, Grid, Machine, idle, measured, speed};
use crate::run::{BATCH, Simulation, What};
use crate::work::{Client, Recorded, TaskKind};
use crate::{Chooser, Scenario};

/// Chance that an attempt is lost on a node of which little is known. Source: as made-up machines'.
const RISK: u64 = 500;
/// So many attempts count as seen with that chance. Source: choice.
const SEEN: u64 = 100;

/// What is different from when it was recorded.
#[derive(Debug, Clone, Default)]
pub struct WhatIf {
    /// Policies of projects, by name, in the place of all that the trace names; without a name: of every project.
    /// Later ones win.
    pub policies: Vec<(Option<String>, PolicyPrices)>,
    /// Weights of projects, by name.
    pub weights: Vec<(String, u32)>,
}

/// A trace that cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum BadReplay {
    /// A change of what is not there.
    #[error("the trace has no project {name:?}")]
    UnknownProject {
        /// As it was named.
        name: String,
    },
    /// Nothing to do, or nowhere.
    #[error("the trace has no {what}")]
    Empty {
        /// Tasks, or nodes.
        what: &'static str,
    },
    /// A kind that no task can be of.
    #[error("kind {name:?}: {fault}")]
    Kind {
        /// Its name.
        name: String,
        /// What is wrong with it.
        #[source]
        fault: Fault,
    },
}

/// A task that will arrive.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// Since the beginning, milliseconds.
    at: u64,
    client: u32,
    /// Of its client's.
    kind: u32,
}

/// What a trace will bring.
#[derive(Debug)]
pub(crate) struct Replay {
    /// By moment.
    arrivals: Vec<Arrival>,
    next: usize,
    /// When nodes come and go.
    coming: Vec<(u64, NodeId)>,
    going: Vec<(u64, NodeId)>,
    /// When a price or a grid changes.
    turns: BTreeSet<u64>,
    /// When a task ended last.
    pub last_end: u64,
}

impl Simulation {
    /// A recorded trace at its beginning, with today's planner.
    ///
    /// *Errors*: it has nothing to replay, or a change names a project that is not in it.
    pub fn replay(trace: &Trace, what_if: &WhatIf) -> Result<Self, BadReplay> {
        for (what, none) in [
            ("tasks", trace.calls.is_empty()),
            ("nodes", trace.nodes.is_empty()),
        ] {
            if none {
                return Err(BadReplay::Empty { what });
            }
        }
        let machines = machines(trace);
        let specs: Vec<NodeSpec> = machines.iter().map(|m| (*m.view.spec).clone()).collect();
        let (clients, arrivals) = clients(trace, &specs, what_if)?;
        let at = |pick: &dyn Fn(&Node) -> Option<u64>| -> Vec<(u64, NodeId)> {
            let both = trace.nodes.iter().zip(&machines);
            let both = both.filter_map(|(node, machine)| Some((pick(node)?, machine.view.id)));
            both.collect()
        };
        let courses = machines.iter().filter_map(|m| m.course.as_ref());
        let replay = Replay {
            arrivals,
            next: 0,
            coming: at(&|node| (node.from_ms > 0).then_some(node.from_ms)),
            going: at(&|node| node.until_ms),
            turns: courses.flat_map(|course| course.turns()).collect(),
            last_end: 0,
        };
        let scenario = Scenario {
            seed: 0,
            hours: trace.header.ms as f64 / 3_600_000.0,
            regions: trace.regions.len(),
            nodes: trace.nodes.len(),
            failures_per_node_day: 0.0,
            machines: crate::Machines::default(),
            round_trip_ms: [0.0, 0.0],
            carbon_swing: 0.0,
            projects: Vec::new(),
        };
        Ok(Self::begin(
            Chooser::Farlane,
            scenario,
            machines,
            clients,
            Some(replay),
        ))
    }

    /// What happens by itself while a trace is replayed.
    pub(crate) fn found_replay(&mut self) {
        let Some(replay) = &self.replay else { return };
        let first = replay.arrivals.first().map(|arrival| arrival.at);
        let (coming, going) = (replay.coming.clone(), replay.going.clone());
        let turns: Vec<u64> = replay.turns.iter().copied().filter(|at| *at > 0).collect();
        for (at, node) in coming {
            self.online(node, false);
            self.event(at, What::Back(node));
        }
        for (at, node) in going {
            self.event(at, What::Gone(node));
        }
        turns.into_iter().for_each(|at| self.event(at, What::Turn));
        if let Some(at) = first {
            self.event(at, What::Recorded);
        }
    }

    /// What came by now is submitted, each client's in batches of whole gangs.
    pub(crate) fn recorded(&mut self) {
        let Some(replay) = &mut self.replay else {
            return;
        };
        let rest = &replay.arrivals[replay.next..];
        let due = rest.partition_point(|arrival| arrival.at <= self.now);
        let mut by_client: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for arrival in &rest[..due] {
            by_client
                .entry(arrival.client)
                .or_default()
                .push(arrival.kind);
        }
        replay.next += due;
        let next = replay.arrivals.get(replay.next).map(|arrival| arrival.at);
        for (client, kinds) in by_client {
            let (at, mut kinds) = (client as usize, &kinds[..]);
            while !kinds.is_empty() {
                let (some, left) = kinds.split_at(self.clients[at].whole(kinds, BATCH));
                self.submit_kinds(at, some);
                kinds = left;
            }
        }
        if let Some(at) = next {
            self.event(at, What::Recorded);
        }
    }

    /// A node is removed; what ran there is lost.
    pub(crate) fn gone(&mut self, node: NodeId) {
        self.online(node, false);
        self.lose(node);
    }

    /// Prices and grids are what they were at this moment.
    pub(crate) fn turn(&mut self) {
        let now = self.now;
        for machine in self.nodes.values_mut() {
            if let Some(course) = &machine.course {
                machine.view.price = course.price(now);
                machine.view.carbon = course.carbon(now);
            }
        }
        self.mark = None;
    }
}

fn machines(trace: &Trace) -> Vec<Machine> {
    let mut seen = vec![(0u64, 0u64); trace.nodes.len()];
    for run in &trace.runs {
        let (all, lost) = &mut seen[run.node as usize];
        *all += 1;
        *lost += u64::from(run.outcome == Outcome::Lost);
    }
    let grids: HashMap<&str, Arc<[(u64, u32)]>> = trace
        .regions
        .iter()
        .map(|region| (region.name.as_str(), region.g_kwh.clone().into()))
        .collect();
    let machine = |(number, (node, (all, lost))): (usize, (&Node, (u64, u64)))| {
        let risk = (lost * 1_000_000 + RISK * SEEN) / (all + SEEN);
        let grid = grids.get(node.region.as_str()).cloned();
        machine(number as u64, node, grid.unwrap_or_default(), risk)
    };
    let both = trace.nodes.iter().zip(seen);
    both.enumerate().map(machine).collect()
}

fn machine(number: u64, node: &Node, grid: Arc<[(u64, u32)]>, risk: u64) -> Machine {
    let spec = Arc::new(spec_of(node));
    let course = Course::new(node.core_hour_usd_micros.clone(), grid);
    let view = NodeView {
        provider: node.owner(),
        round_trip: Micros((node.round_trip_ms * 1000.0) as u64),
        price: course.price(0),
        carbon: course.carbon(0),
        milliwatts_core: (node.core_watts * 1000.0) as u32,
        milliwatts_gpu: (node.gpu_watts * 1000.0) as u32,
        risk: Ppm(risk as u32),
        ..idle(number, node.region.as_str().into(), spec)
    };
    Machine {
        view,
        grid: Grid::default(),
        course: Some(Arc::new(course)),
    }
}

fn spec_of(node: &Node) -> NodeSpec {
    let interpreter = |version: farlane_model::PythonVersion| Interpreter {
        version,
        full: version.to_string(),
    };
    let device = |(at, gpu): (usize, &farlane_trace::Gpu)| Device {
        kind: DeviceKind::Gpu {
            cuda_cores: gpu.cuda_cores,
        },
        model: gpu.model.clone(),
        memory: ByteCount::mib(gpu.memory_mib),
        tdp_watts: 0,
        id: format!("GPU-{at}"),
        // How fast they are is told by their model.
        measured: None,
    };
    let cores = node.cpus().0.div_ceil(1000);
    let of_core = |ucu: f64| measured(cores, ((ucu * 1000.0) as u64).max(1));
    NodeSpec {
        name: node.name.clone(),
        cpu_model: "recorded".into(),
        cpus: node.cpus(),
        clock_mhz: 3000,
        memory: ByteCount::mib(node.memory_mib),
        disk: ByteCount::mib(node.disk_mib),
        interpreters: node.interpreters().into_iter().map(interpreter).collect(),
        tier: node.strongest(),
        enforced: [].into(),
        labels: node.labels.clone().into(),
        price_usd_micros_core_hour: UsdMicros(
            node.core_hour_usd_micros
                .first()
                .map_or(0, |(_, price)| *price),
        ),
        backlog_credit: node.backlog,
        os: "linux".into(),
        arch: "x86_64".into(),
        agent: "0".into(),
        devices: node.gpus.iter().enumerate().map(device).collect(),
        measured: node.core_ucu.map(of_core),
        resources: Vec::new(),
    }
}

/// One client for each project, and what arrives.
fn clients(
    trace: &Trace,
    nodes: &[NodeSpec],
    what_if: &WhatIf,
) -> Result<(Vec<Client>, Vec<Arrival>), BadReplay> {
    let known = |name: &str| match trace.projects.iter().any(|project| project.name == name) {
        true => Ok(()),
        false => Err(BadReplay::UnknownProject {
            name: name.to_owned(),
        }),
    };
    let named = what_if
        .policies
        .iter()
        .filter_map(|(name, _)| name.as_ref());
    for name in named.chain(what_if.weights.iter().map(|(name, _)| name)) {
        known(name)?;
    }
    let mut clients: Vec<Client> = Vec::new();
    let mut by_name = HashMap::new();
    for (number, project) in trace.projects.iter().enumerate() {
        by_name.insert(project.name.as_str(), number);
        let forced = what_if.policies.iter().rev();
        let mut forced = forced.filter(|(of, _)| of.as_ref().is_none_or(|of| *of == project.name));
        let set = what_if.weights.iter().rev();
        let mut set = set.filter(|(of, _)| *of == project.name);
        let weight = set.next().map_or(project.weight, |(_, weight)| *weight);
        let policy = forced.next().map(|(_, prices)| Policy::of(*prices));
        let recorded = Recorded::new(policy.is_none());
        let policy = policy.unwrap_or_else(|| Policy::of(project.policy.0));
        clients.push(Client::recorded(
            number as u64,
            &project.name,
            weight,
            policy,
            recorded,
        ));
    }
    // Each kind: whose, which of its client's, and what it asks.
    let mut kinds: Vec<(u32, u32, Arc<TaskSpec>)> = Vec::with_capacity(trace.kinds.len());
    for kind in &trace.kinds {
        let at = by_name.get(kind.project.as_str()).copied().unwrap_or(0);
        let client = &mut clients[at];
        let spec = kind.spec(client.project).map_err(|fault| BadReplay::Kind {
            name: kind.name.clone(),
            fault,
        });
        let mut spec = spec?;
        // A node that goes costs no task its life here.
        spec.retry.lost = u16::MAX;
        let of = TaskKind::of(spec);
        kinds.push((at as u32, client.kinds.len() as u32, of.spec.clone()));
        client.learn(of, kind.policy.map(|policy| Policy::of(policy.0)));
    }
    let mut arrivals = Vec::with_capacity(trace.calls.len());
    for call in &trace.calls {
        let (client, kind, spec) = &kinds[call.kind as usize];
        clients[*client as usize].will_run(work(trace, call, nodes, spec));
        arrivals.push(Arrival {
            at: call.submitted,
            client: *client,
            kind: *kind,
        });
    }
    Ok((clients, arrivals))
}

/// How long a task would have run at the speed that work is stated for: by the attempt that it ended with, or where
/// that was cut short, by its longest.
fn work(trace: &Trace, call: &Call, nodes: &[NodeSpec], spec: &TaskSpec) -> u64 {
    let attempts = trace.attempts(call);
    let ended = |outcome| matches!(outcome, Outcome::Returned | Outcome::Raised);
    let last = attempts.last().filter(|run| ended(run.outcome));
    let run = last.or(attempts.iter().max_by_key(|run| run.ended - run.started));
    run.map_or(1, |run| {
        let speed = speed(&nodes[run.node as usize], spec);
        let work = (run.ended - run.started).saturating_mul(speed);
        work.div_ceil(1000).max(1)
    })
}
