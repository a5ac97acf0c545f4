//! A little world for stories: a state, the rows it wrote, a clock, and names for what is in it.
//!
//! Every order goes through its bytes, and after every entry a state loaded from the rows alone must
//! equal the live one.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use farlane_model::*;
use farlane_state::*;
use farlane_units::*;

pub type Stored = BTreeMap<(Table, Vec<u8>), Bytes>;

pub struct World {
    pub state: State,
    pub rows: Stored,
    pub index: u64,
    pub now: u64,
    pub specs: BTreeMap<char, Digest>,
    pub batch: u64,
    text: String,
}

impl Rows for World {
    fn get(&self, table: Table, key: &[u8]) -> Option<Bytes> {
        self.rows.get(&(table, key.to_vec())).cloned()
    }
    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        let range = self
            .rows
            .range((table, from.to_vec())..(table, to.to_vec()));
        range
            .take(limit)
            .map(|((_, k), v)| (k.clone().into(), v.clone()))
            .collect()
    }
}

pub fn project() -> ProjectId {
    ProjectId::new(1, [9; 10])
}
pub fn key() -> KeyId {
    KeyId::new(1, [8; 10])
}
pub fn session(name: char) -> SessionId {
    SessionId::new(1000, [0, 0, 0, 0, name as u8])
}
/// B is another tenant's.
pub fn tenant(name: char) -> TenantId {
    TenantId([if name == 'B' { 8 } else { 7 }; 32])
}
pub fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}
pub fn boot(n: u8) -> BootId {
    BootId([n; 16])
}
pub fn task(name: char, seq: u64) -> TaskId {
    session(name).task(seq)
}

pub fn gpu(model: &str, gib: u64) -> Device {
    Device {
        kind: DeviceKind::Gpu { cuda_cores: 1 },
        model: model.into(),
        memory: ByteCount::gib(gib),
        tdp_watts: 0,
        id: model.into(),
        measured: None,
    }
}

pub fn node_spec(cores: u32, credit: u32) -> NodeSpec {
    NodeSpec {
        name: "machine".into(),
        cpu_model: "x".into(),
        cpus: MilliCpu(cores * 1000),
        clock_mhz: 3000,
        memory: ByteCount::gib(8),
        disk: ByteCount::gib(8),
        interpreters: [Interpreter {
            version: PythonVersion {
                major: 3,
                minor: 11,
            },
            full: "3.11.7".into(),
        }]
        .into(),
        tier: Tier::Namespaces,
        enforced: [].into(),
        labels: [].into(),
        price_usd_micros_core_hour: UsdMicros(36_000),
        backlog_credit: credit,
        os: "linux".into(),
        arch: "x86_64".into(),
        agent: "0.1.0".into(),
        devices: vec![gpu("A100", 40), gpu("T4", 15)],
        measured: None,
        resources: vec![Amount::new("license", 2).unwrap()],
    }
}

/// So many cores, together so many thousandths of one of the reference node.
pub fn measured(cores: u32, thousandths: u64) -> Measured {
    Measured::even(cores, REFERENCE.fp32 * thousandths / 1000)
}

pub fn task_spec(function: &str) -> TaskSpec {
    let code = BlobRef {
        digest: Digest::of(b"code"),
        size: ByteCount(1),
    };
    let python = PythonVersion {
        major: 3,
        minor: 11,
    };
    TaskSpec {
        function: function.into(),
        resources: Resources {
            memory: ByteCount::mib(512),
            scratch: ByteCount::ZERO,
            ..Resources::default()
        },
        node: NodeRequest {
            tier: Tier::Namespaces,
            ..NodeRequest::any(python)
        },
        ..TaskSpec::new(project(), code, python)
    }
}

pub fn submitted(spec: Digest) -> Submitted {
    Submitted {
        spec,
        wrapped_key: Bytes::from_static(&[5; 48]),
        payload: Sealed::Inline(Bytes::from_static(b"sealed payload")),
        payload_digest: Digest::of(b"sealed payload"),
        idempotency: None,
        refs: vec![],
    }
}

impl World {
    /// Before Genesis, at second 1000.
    pub fn void() -> Self {
        World {
            state: State::empty(),
            rows: Stored::new(),
            index: 0,
            now: 1_000_000,
            specs: BTreeMap::new(),
            batch: 0,
            text: String::new(),
        }
    }

    /// Founded, with node 1 up (2 cores, 1 backlog credit) and session A attached as its granter.
    pub fn new() -> Self {
        let mut w = Self::void();
        w.found();
        w.join(1, 2, 1);
        w.open('A');
        w.attach('A', false);
        w.text.clear();
        w
    }

    pub fn found(&mut self) {
        self.order(Genesis {
            network: Digest::of(b"net"),
            epoch: 1,
            cluster_version: 1,
        });
    }
    pub fn join(&mut self, n: u8, cores: u32, credit: u32) {
        let spec: Bytes = node_spec(cores, credit).to_canonical().into();
        self.order(RegisterNode {
            node: node(n),
            record: Bytes::from_static(b"record"),
            spec: spec.clone(),
            region: "us-west".into(),
            provider: Digest::of(b"provider"),
        });
        self.order(UpdateNode {
            node: node(n),
            boot: boot(n),
            spec,
        });
        self.stock(n, n, 2);
    }
    pub fn stock(&mut self, n: u8, b: u8, keys: usize) -> Outcome {
        let one_time = (0..keys)
            .map(|i| Bytes::from(vec![b, i as u8, 1]))
            .collect();
        let daily = Some(Bytes::from_static(b"daily"));
        self.order(StockPrekeys {
            node: node(n),
            boot: boot(b),
            daily,
            one_time,
        })
    }
    pub fn open(&mut self, name: char) -> Outcome {
        self.order(OpenSession {
            session: session(name),
            project: project(),
            tenant: tenant(name),
            key: key(),
            wrapped_session_key: Bytes::from_static(b"wrapped"),
            device: Bytes::from_static(b"device"),
        })
    }
    pub fn attach(&mut self, name: char, standing: bool) -> Outcome {
        let device = Bytes::from_static(b"device");
        self.order(AttachGranter {
            granter: session(name),
            project: project(),
            standing,
            device,
        })
    }
    pub fn detach(&mut self, name: char) -> Outcome {
        self.order(DetachGranter {
            granter: session(name),
        })
    }

    pub fn submit_order(&self, name: char, first: u64, n: u64, spec: &TaskSpec) -> SubmitBatch {
        let bytes: Bytes = spec.to_canonical().into();
        let digest = Digest::of(&bytes);
        let tasks = (0..n).map(|_| submitted(digest)).collect();
        SubmitBatch {
            session: session(name),
            first_seq: first,
            specs: vec![bytes],
            tasks,
        }
    }
    pub fn submit(&mut self, name: char, first: u64, n: u64, spec: &TaskSpec) -> Outcome {
        self.order(self.submit_order(name, first, n, spec))
    }
    pub fn place_order(&self, tasks: &[TaskId], n: u8) -> Place {
        let generation = self.state.node(&node(n)).map_or(0, |n| n.generation);
        let one = |t: &TaskId| Placement {
            task: *t,
            node: node(n),
            generation,
        };
        Place {
            based_on: self.index,
            placements: tasks.iter().map(one).collect(),
            quotes: Vec::new(),
        }
    }
    pub fn place(&mut self, tasks: &[TaskId], n: u8) -> Outcome {
        self.order(self.place_order(tasks, n))
    }
    pub fn attempt(&self, task: TaskId, attempt: u32) -> AttemptRef {
        AttemptRef {
            task,
            attempt,
            epoch: self.state.epoch(),
        }
    }
    pub fn completion(&self, task: TaskId, attempt: u32, kind: ExitKind) -> Completion {
        let sealed = Some(Sealed::Inline(Bytes::from_static(b"sealed result")));
        Completion {
            attempt: self.attempt(task, attempt),
            exit: Exit::plain(kind),
            sealed,
            started: Millis(self.now - 500),
            ended: Millis(self.now),
            peak_memory: ByteCount::mib(20),
            cpu: Millis(400),
            moved: farlane_state::Moved::NONE,
        }
    }
    pub fn complete_order(&mut self, n: u8, b: u8, items: Vec<Completion>) -> CompleteBatch {
        self.batch += 1;
        let owner = items
            .first()
            .map_or(session('A'), |i| i.attempt.task.session());
        let signature = Some(BatchSignature {
            id: [self.batch as u8; 16],
            leaves: vec![1; 32 * items.len()].into(),
            signature: Bytes::from_static(&[2; 64]),
        });
        CompleteBatch {
            node: node(n),
            boot: boot(b),
            session: owner,
            batch: self.batch,
            signature,
            items,
        }
    }
    pub fn complete(&mut self, n: u8, b: u8, items: &[(TaskId, u32, ExitKind)]) -> Outcome {
        let items = items
            .iter()
            .map(|(t, a, k)| self.completion(*t, *a, *k))
            .collect();
        let order = self.complete_order(n, b, items);
        self.order(order)
    }
    pub fn give_back(&mut self, task: TaskId, attempt: u32, reason: ReturnReason) -> Outcome {
        let attempts = vec![(self.attempt(task, attempt), reason)];
        self.order(Return { attempts })
    }
    pub fn cancel(&mut self, tasks: &[TaskId]) -> Outcome {
        self.order(Cancel {
            project: project(),
            tasks: tasks.to_vec(),
            reason: "asked".into(),
        })
    }
    /// What the leader does when it looks at the clock.
    pub fn tick(&mut self, ms: u64) {
        self.now += ms;
        if let Some(due) = self.state.due(Millis(self.now), 100) {
            self.order(due);
        }
        if let (Some(due), _) = expired(&self.state, self, Millis(self.now), 100, None) {
            self.order(due);
        }
        if let Some(idle) = self.state.idle_sessions(Millis(self.now), 100) {
            self.order(idle);
        }
    }

    pub fn order(&mut self, order: impl Into<Order>) -> Outcome {
        self.entry(vec![order.into()]).pop().unwrap()
    }
    /// One entry of the log.
    pub fn entry(&mut self, orders: Vec<Order>) -> Vec<Outcome> {
        self.index += 1;
        self.now += 1;
        let stamp = Stamp {
            index: self.index,
            term: 1,
            now: Millis(self.now),
        };
        let mut outcomes = Vec::new();
        for (ordinal, order) in orders.into_iter().enumerate() {
            let command = order.encode();
            let read = Order::decode(&command).unwrap();
            assert_eq!(read, order, "an order survives its bytes");
            let name = format!("{order:?}");
            let applied = apply(&mut self.state, stamp, ordinal as u32, read);
            self.tell(name.split(['(', ' ', '{']).next().unwrap_or(""), &applied);
            for row in applied.writes.rows {
                let at = (row.table, row.key.to_vec());
                match row.value {
                    Some(value) => self.rows.insert(at, value),
                    None => self.rows.remove(&at),
                };
            }
            outcomes.push(applied.outcome);
        }
        self.check();
        outcomes
    }
    /// A state loaded from the rows alone is this state.
    pub fn check(&self) {
        let rows = self
            .rows
            .iter()
            .map(|((t, k), v)| (*t, k.clone().into(), v.clone()));
        let loaded = State::load(rows).unwrap();
        assert!(
            loaded == self.state,
            "loaded state differs at index {}",
            self.index
        );
        assert_eq!(loaded.fingerprint(), self.state.fingerprint());
        assert_eq!(loaded.counts(), self.state.counts());
    }
    /// The server restarts: everything in memory is gone.
    pub fn restart(&mut self) {
        let rows = self
            .rows
            .iter()
            .map(|((t, k), v)| (*t, k.clone().into(), v.clone()));
        self.state = State::load(rows).unwrap();
    }

    pub fn finished(&self, task: TaskId) -> Option<FinishedTask> {
        let row = self.get(Table::Finished, &keys::task(task))?;
        Some(FinishedTask::from_bytes(row).unwrap())
    }
    pub fn events(&self) -> Vec<OutboxEvent> {
        let rows = self.rows.iter().filter(|((t, _), _)| *t == Table::Outbox);
        rows.map(|(_, v)| OutboxEvent::from_bytes(v).unwrap())
            .collect()
    }
    pub fn count(&self, table: Table) -> usize {
        self.rows.keys().filter(|(t, _)| *t == table).count()
    }

    /// What happened since the last time, one line an order.
    pub fn story(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
    fn tell(&mut self, order: &str, applied: &Applied) {
        let changes: Vec<String> = applied.changes.iter().map(change).collect();
        let outcome = outcome(&applied.outcome);
        writeln!(self.text, "{order}: {outcome}; {}", changes.join(", ")).unwrap();
    }
}

fn name(task: &TaskId) -> String {
    format!("{}{}", session_name(&task.session()), task.seq())
}
fn session_name(id: &SessionId) -> char {
    char::from(id.to_bytes()[10])
}
fn attempt_name(a: &AttemptRef) -> String {
    format!("{}#{}", name(&a.task), a.attempt)
}
fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".into(),
        Outcome::Refused(why) => format!("refused, {why}"),
        Outcome::Submitted {
            through,
            refused,
            duplicates,
        } => {
            let mut out = format!("through {through}");
            for (seq, why) in refused {
                write!(out, ", {seq} refused: {why}").unwrap();
            }
            for (seq, of) in duplicates {
                write!(out, ", {seq} is {}", name(of)).unwrap();
            }
            out
        }
        Outcome::Placed { placed, refused } => {
            let mut out = format!("placed {placed}");
            for (task, why) in refused {
                write!(out, ", {} refused: {why}", name(task)).unwrap();
            }
            out
        }
        Outcome::Completed { stale } if stale.is_empty() => "counted".into(),
        Outcome::Completed { stale } => format!("stale {stale:?}"),
        Outcome::Cancelled { tasks } => {
            format!(
                "cancelled {}",
                tasks.iter().map(name).collect::<Vec<_>>().join(" ")
            )
        }
        Outcome::Settled { count } => format!("settled {count}"),
    }
}
fn change(change: &Change) -> String {
    match change {
        Change::Assigned { node, attempt } => {
            format!("{} to node {}", attempt_name(attempt), node.0[0])
        }
        Change::GrantWanted { granter, attempt } => {
            format!("{} grants {}", session_name(granter), attempt_name(attempt))
        }
        Change::Finished { task, .. } => format!("{} finished", name(task)),
        Change::Queued { task } => format!("{} queued", name(task)),
        Change::StopWanted { node, attempt } => {
            format!("stop {} on node {}", attempt_name(attempt), node.0[0])
        }
        Change::NodeChanged { node } => format!("node {} changed", node.0[0]),
        Change::PrekeysLow { node } => format!("node {} low on prekeys", node.0[0]),
        Change::KeyRevoked { .. } => "key revoked".into(),
    }
}
