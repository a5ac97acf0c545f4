//! What the planner says runs at once runs at once, and what makes way is enough and no more than that: it counts
//! accelerators and named resources as the judge does.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use farlane_model::*;
use farlane_plan::*;
use farlane_state::*;
use farlane_units::{ByteCount, Micros, MilliCpu, MilliGpu, Millis, Ppm, UsdMicros};
use proptest::prelude::*;

const BOOT: BootId = BootId([1; 16]);
/// So long that nothing is placed behind anything.
const LONG: Micros = Micros(3_600_000_000);

fn device(model: &str) -> Device {
    Device {
        kind: DeviceKind::Gpu { cuda_cores: 6912 },
        model: model.to_owned(),
        memory: ByteCount::gib(40),
        tdp_watts: 300,
        id: String::new(),
        measured: None,
    }
}

fn machine(models: &[&str], licenses: u32) -> NodeSpec {
    NodeSpec {
        name: "n".into(),
        cpu_model: "x".into(),
        cpus: MilliCpu(8000),
        clock_mhz: 2000,
        memory: ByteCount::gib(64),
        disk: ByteCount::gib(64),
        interpreters: [Interpreter {
            version: PYTHON,
            full: "3.11.2".into(),
        }]
        .into(),
        tier: Tier::Namespaces,
        enforced: [].into(),
        labels: [].into(),
        price_usd_micros_core_hour: UsdMicros(1),
        backlog_credit: 2,
        os: "linux".into(),
        arch: "x86_64".into(),
        agent: "0".into(),
        devices: models.iter().map(|model| device(model)).collect(),
        measured: None,
        resources: Amount::new("license", licenses).into_iter().collect(),
    }
}

const PYTHON: PythonVersion = PythonVersion {
    major: 3,
    minor: 11,
};

/// What some tasks ask for.
#[derive(Debug, Clone, Copy)]
struct Kind {
    gpus: u32,
    model: Option<&'static str>,
    licenses: u32,
    gang: u16,
    once: bool,
}

impl Kind {
    fn spec(&self) -> Arc<TaskSpec> {
        let code = BlobRef {
            digest: Digest([0; 32]),
            size: ByteCount(1),
        };
        let mut spec = TaskSpec::new(ProjectId::new(0, [0; 10]), code, PYTHON);
        spec.resources.cpus = MilliCpu(1000);
        spec.resources.gpus = MilliGpu(self.gpus);
        spec.gpu.models = match self.gpus {
            0 => Vec::new(),
            _ => self.model.map(str::to_owned).into_iter().collect(),
        };
        spec.amounts = Amount::new("license", self.licenses).into_iter().collect();
        spec.node.tier = Tier::Namespaces;
        spec.retry.at_most_once = self.once && self.gang == 1;
        spec.gang = (self.gang > 1).then_some(Gang {
            size: self.gang,
            regions: GangRegions::One,
        });
        Arc::new(spec)
    }
}

/// A state, and what stands before it.
struct Network {
    state: State,
    index: u64,
    /// Of each tenant its session, and the number of its next task.
    sessions: [(SessionId, u64); 2],
}

impl Network {
    fn order(&mut self, order: impl Into<Order>) -> Outcome {
        self.index += 1;
        let stamp = Stamp {
            index: self.index,
            term: 1,
            now: Millis(1_000_000 + self.index),
        };
        apply(&mut self.state, stamp, 0, order.into()).outcome
    }

    fn new(machines: &[NodeSpec]) -> Self {
        let mut network = Self {
            state: State::empty(),
            index: 0,
            sessions: [1, 2].map(|n| (SessionId::new(1000, [n; 5]), 1)),
        };
        network.order(Genesis {
            network: Digest([1; 32]),
            epoch: 1,
            cluster_version: 1,
        });
        for (n, machine) in (1u8..).zip(machines) {
            let (node, spec) = (NodeId([n; 32]), Bytes::from(machine.to_canonical()));
            network.order(RegisterNode {
                node,
                record: Bytes::new(),
                spec: spec.clone(),
                region: "eu".to_owned(),
                provider: Digest([9; 32]),
            });
            network.order(UpdateNode {
                node,
                boot: BOOT,
                spec,
            });
            network.order(StockPrekeys {
                node,
                boot: BOOT,
                daily: Some(Bytes::from_static(b"daily")),
                one_time: Vec::new(),
            });
        }
        for (n, (session, _)) in (1u8..).zip(network.sessions) {
            let project = ProjectId::new(0, [0; 10]);
            network.order(OpenSession {
                session,
                project,
                tenant: TenantId([n; 32]),
                key: KeyId::new(1, [n; 10]),
                wrapped_session_key: Bytes::new(),
                device: Bytes::new(),
            });
            network.order(AttachGranter {
                granter: session,
                project,
                standing: false,
                device: Bytes::new(),
            });
        }
        network
    }

    /// Queues so many of a kind, gangs whole.
    fn submit(&mut self, tenant: usize, kind: Kind, count: usize) {
        let bytes: Bytes = kind.spec().to_canonical().into();
        let spec = Digest::of(&bytes);
        let task = Submitted {
            spec,
            wrapped_key: Bytes::from_static(&[5; 48]),
            payload: Sealed::Inline(Bytes::from_static(b"sealed")),
            payload_digest: Digest::default(),
            idempotency: None,
            refs: Vec::new(),
        };
        let count = count * usize::from(kind.gang);
        let (session, first_seq) = self.sessions[tenant];
        let outcome = self.order(SubmitBatch {
            session,
            first_seq,
            tasks: vec![task; count],
            specs: vec![bytes],
        });
        assert!(matches!(outcome, Outcome::Submitted { .. }), "{outcome:?}");
        self.sessions[tenant].1 += count as u64;
    }

    fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::new();
        self.state.nodes().for_each(|node| fleet.put(view(node)));
        fleet
    }

    fn groups(&self) -> (Vec<Group>, Vec<Vec<TaskId>>) {
        let (mut groups, mut heads) = (Vec::new(), Vec::<Vec<TaskId>>::new());
        for queue in self.state.waiting() {
            let some: Vec<TaskId> = match queue.spec.task.gang {
                None => queue.heads().collect(),
                Some(_) => queue.gangs().flatten().collect(),
            };
            let size = queue.spec.task.gang.map_or(1, |gang| gang.size.into());
            groups.push(Group {
                tasks: some.len() as u32,
                since: heads.len() as u64,
                gang: size,
                ..group(&queue)
            });
            heads.push(some);
        }
        (groups, heads)
    }

    /// Plans and applies a round, and holds one against the other.
    fn round(&mut self, seed: u64) -> Result<u32, TestCaseError> {
        let (groups, heads) = self.groups();
        let input = PlanInput {
            now: Millis(1_000_000 + self.index),
            seed,
            budget: 1000,
            shares: Vec::new(),
            presence: Presence::new(),
            gangs: Gangs::default(),
        };
        let (found, report) = plan(&mut self.fleet(), &groups, &input);
        let mut taken = vec![0; groups.len()];
        let (mut placements, mut devices) = (Vec::new(), Vec::new());
        for a in &found.assignments {
            let from = taken[a.group];
            taken[a.group] += a.tasks as usize;
            let tasks = &heads[a.group][from..taken[a.group]];
            devices.extend(tasks.iter().map(|_| a.devices));
            placements.extend(tasks.iter().map(|task| Placement {
                task: *task,
                node: a.node,
                generation: a.generation,
            }));
        }
        let outcome = self.order(Place {
            based_on: self.index,
            placements: placements.clone(),
            quotes: Vec::new(),
        });
        let Outcome::Placed { refused, .. } = outcome else {
            return Err(TestCaseError::fail(format!("{outcome:?}")));
        };
        prop_assert_eq!(refused, vec![]);
        for (placement, devices) in placements.iter().zip(devices) {
            let lease = self.state.task(placement.task).unwrap().placed.unwrap();
            prop_assert!(!lease.lease.backlog, "{placement:?} waits");
            prop_assert_eq!(lease.lease.devices, devices);
        }
        Ok(report.placed)
    }

    /// Has work make way for the first that waits, which goes before all: it runs where that was.
    fn preempt(&mut self) -> Result<u32, TestCaseError> {
        let (groups, heads) = self.groups();
        let waits = groups.into_iter().zip(heads);
        let Some((group, head)) = waits.into_iter().find(|(group, _)| !group.is_gang()) else {
            return Ok(0);
        };
        let group = Group {
            urgency: -127,
            ..group
        };
        let occupied = self.state.nodes().map(|node| self.occupied(node));
        let occupied: Vec<Occupied> = occupied.collect();
        let found = preempt(&mut self.fleet(), &[group], &occupied, &[]);
        let Some(found) = found.first() else {
            return Ok(0);
        };
        let node = occupied[found.node].node;
        let attempts = self.state.desired(&node).map(|t| t.attempt_ref());
        let attempts: Vec<AttemptRef> = attempts.collect();
        for (nth, victim) in found.victims.iter().enumerate() {
            let waits = self.place(head[0], node);
            prop_assert!(waits, "{nth} of {:?} were enough", found.victims);
            self.complete(node, attempts[*victim]);
        }
        prop_assert!(!self.place(head[0], node), "{:?} was not", found.victims);
        Ok(found.victims.len() as u32)
    }

    /// Places a task; whether it would have to wait, and is not.
    fn place(&mut self, task: TaskId, node: NodeId) -> bool {
        let generation = self.state.node(&node).unwrap().generation;
        let outcome = self.order(Place {
            based_on: self.index,
            placements: vec![Placement {
                task,
                node,
                generation,
            }],
            quotes: Vec::new(),
        });
        assert!(matches!(outcome, Outcome::Placed { .. }), "{outcome:?}");
        let live = self.state.task(task).unwrap();
        let Some(placed) = live.placed else {
            return true;
        };
        let (waits, attempt) = (placed.lease.backlog, live.attempt_ref());
        if waits {
            self.order(Return {
                attempts: vec![(attempt, ReturnReason::CalledBack)],
            });
        }
        waits
    }

    /// A node with its leases, all of which may be asked, as the controller shows it.
    fn occupied(&self, node: &Node) -> Occupied {
        let holder = |live: LiveTask<'_>| Holder {
            project: live.spec.task.project,
            urgency: 0,
            waited: Millis::ZERO,
            need: live.spec.task.resources,
            devices: live.placed.unwrap().lease.devices,
            amounts: live.spec.task.amounts.clone(),
            members: 1,
            ran: Millis(live.id.seq() % 7),
            stands: Stands::Running,
        };
        Occupied {
            node: node.id,
            free: Resources {
                cpus: node.free_cpus(),
                memory: node.free_memory(),
                scratch: node.free_scratch(),
                gpus: MilliGpu::ZERO,
            },
            devices: node.devices().clone(),
            amounts: node.free_amounts(),
            holders: self.state.desired(&node.id).map(holder).collect(),
        }
    }

    /// Ends what runs by these bits.
    fn end(&mut self, bits: u64) {
        let nodes: Vec<NodeId> = self.state.nodes().map(|node| node.id).collect();
        let mut nth = 0;
        for node in nodes {
            let attempts = self.state.desired(&node).map(|t| t.attempt_ref());
            let ended = attempts.filter(|_| {
                nth += 1;
                bits >> (nth % 64) & 1 == 1
            });
            let ended: Vec<AttemptRef> = ended.collect();
            for attempt in ended {
                self.complete(node, attempt);
            }
        }
    }

    fn complete(&mut self, node: NodeId, attempt: AttemptRef) {
        let done = Completion {
            attempt,
            exit: Exit::plain(ExitKind::Returned),
            sealed: Some(Sealed::Inline(Bytes::from_static(b"sealed"))),
            started: Millis(0),
            ended: Millis(1),
            peak_memory: ByteCount(0),
            cpu: Millis(1),
            moved: Moved::NONE,
        };
        self.order(CompleteBatch {
            node,
            boot: BOOT,
            session: attempt.task.session(),
            batch: self.index,
            signature: Some(BatchSignature {
                id: [1; 16],
                leaves: vec![1; 32].into(),
                signature: Bytes::from_static(&[2; 64]),
            }),
            items: vec![done],
        });
        assert!(self.state.task(attempt.task).is_none());
    }
}

/// A node as the controller shows it to the planner.
fn view(node: &Node) -> NodeView {
    NodeView {
        id: node.id,
        generation: node.generation,
        spec: node.spec.clone(),
        region: node.region.clone(),
        provider: node.provider,
        online: true,
        free_cpus: node.free_cpus(),
        free_memory: node.free_memory(),
        free_scratch: node.free_scratch(),
        devices: node.devices().clone(),
        free_amounts: node.free_amounts(),
        free_backlog: node.free_backlog(),
        backlog: node.waiting() as u32,
        round_trip: Micros(500),
        bandwidth: None,
        egress: Egress::default(),
        price: UsdMicros(1),
        carbon: None,
        milliwatts_core: 0,
        milliwatts_gpu: 0,
        risk: Ppm(0),
        slowdown_milli: 1000,
        heat: Heat::default(),
        quarantined: false,
    }
}

/// What waits in a queue, likewise.
fn group(queue: &WaitingQueue<'_>) -> Group {
    Group {
        spec: queue.spec.task.clone(),
        digest: queue.spec.digest,
        tenant: queue.session.tenant,
        tasks: 1,
        urgency: 0,
        waited: Millis::ZERO,
        at_once: false,
        since: 0,
        work: Work::of(LONG),
        start: Micros(0),
        warm: Arc::new([]),
        lies: Vec::new(),
        bytes_there: ByteCount::ZERO,
        bytes_back: ByteCount::ZERO,
        policy: Policy::BALANCED,
        granter: true,
        not_on: Vec::new(),
        gang: 1,
    }
}

const MODELS: [&[&str]; 4] = [&["A100", "T4"], &["T4", "T4", "A100"], &["A100"], &[]];

fn kinds() -> impl Strategy<Value = Kind> {
    let gpus = prop::sample::select(vec![0, 250, 500, 600, 1000, 2000]);
    let model = prop::sample::select(vec![None, Some("A100"), Some("T4")]);
    let gang = prop::sample::select(vec![1u16, 1, 1, 2, 3]);
    (gpus, model, 0u32..3, gang, any::<bool>()).prop_map(|(gpus, model, licenses, gang, once)| {
        Kind {
            gpus,
            model,
            licenses,
            gang,
            once,
        }
    })
}

proptest! {
    #[test]
    fn what_the_plan_has_run_at_once_runs_at_once_and_what_makes_way_is_enough(
        machines in prop::collection::vec((0usize..4, 0u32..4), 1..6),
        rounds in prop::collection::vec(
            (prop::collection::vec((0usize..2, kinds(), 1usize..4), 0..4), any::<u64>()),
            1..6,
        ),
    ) {
        let machines = machines.iter().map(|(models, licenses)| machine(MODELS[*models], *licenses));
        let machines: Vec<NodeSpec> = machines.collect();
        let mut network = Network::new(&machines);
        for (seed, (submitted, ended)) in (1u64..).zip(rounds) {
            for (tenant, kind, count) in submitted {
                network.submit(tenant, kind, count);
            }
            network.round(seed)?;
            network.preempt()?;
            network.end(ended);
        }
    }
}
