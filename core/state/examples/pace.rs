//! What one task costs the state machine, step by step, in microseconds. Build with `--release`.

use std::time::Instant;

use bytes::Bytes;
use farlane_model::*;
use farlane_state::*;
use farlane_units::*;

const BATCH: u64 = 256;
const ROUNDS: u64 = 400;

fn node_spec() -> NodeSpec {
    NodeSpec {
        name: "machine".into(),
        cpu_model: "x".into(),
        cpus: MilliCpu(BATCH as u32 * 1000),
        clock_mhz: 3000,
        memory: ByteCount::gib(8192),
        disk: ByteCount::gib(8),
        interpreters: [].into(),
        tier: Tier::Namespaces,
        enforced: [].into(),
        labels: [].into(),
        price_usd_micros_core_hour: UsdMicros(36_000),
        backlog_credit: 64,
        os: "linux".into(),
        arch: "x86_64".into(),
        agent: "0.1.0".into(),
        devices: Vec::new(),
        measured: None,
        resources: Vec::new(),
    }
}

fn task_spec(project: ProjectId) -> TaskSpec {
    let code = BlobRef {
        digest: Digest::of(b"code"),
        size: ByteCount(1),
    };
    let python = PythonVersion {
        major: 3,
        minor: 11,
    };
    TaskSpec {
        function: "f".into(),
        resources: Resources {
            memory: ByteCount::mib(512),
            scratch: ByteCount::ZERO,
            ..Resources::default()
        },
        node: NodeRequest {
            tier: Tier::Namespaces,
            ..NodeRequest::any(python)
        },
        ..TaskSpec::new(project, code, python)
    }
}

fn quote() -> Bytes {
    let quote = Quote {
        run: Micros(1000),
        emits: Some(MicroGramsCo2(1_162_980)),
        prices: PolicyName::Balanced.prices(),
        terms: vec![
            (TermKind::Price, UsdPicos(10_000)),
            (TermKind::Run, UsdPicos(138_888)),
            (TermKind::RoundTrip, UsdPicos(277_777)),
            (TermKind::Carbon, UsdPicos(16)),
        ],
        runner_up: Some(RunnerUp {
            node_name: "rack-7".into(),
            region: "eu-west".into(),
            cost: UsdPicos(1_000_000),
        }),
    };
    quote.to_bytes().into()
}

struct Pace {
    state: State,
    index: u64,
    /// Seconds in encoding, decoding and applying.
    spent: [f64; 3],
}

impl Pace {
    fn order(&mut self, order: impl Into<Order>) -> Applied {
        let order = order.into();
        self.index += 1;
        let stamp = Stamp {
            index: self.index,
            term: 1,
            now: Millis(self.index),
        };
        let start = Instant::now();
        let command = order.encode();
        let encoded = Instant::now();
        let order = Order::decode(&command).expect("it was just encoded");
        let decoded = Instant::now();
        let applied = apply(&mut self.state, stamp, 0, order);
        let done = Instant::now();
        let parts = [encoded - start, decoded - encoded, done - decoded];
        for (sum, part) in self.spent.iter_mut().zip(parts) {
            *sum += part.as_secs_f64();
        }
        applied
    }

    fn tell(&mut self, name: &str, spent: &mut [f64; 3]) {
        for (sum, part) in spent.iter_mut().zip(std::mem::take(&mut self.spent)) {
            *sum += part;
        }
        let each = spent.map(|s| s * 1e6 / (BATCH * ROUNDS) as f64);
        println!(
            "{name}: encode {:.2}  decode {:.2}  apply {:.2} µs a task",
            each[0], each[1], each[2]
        );
    }
}

fn main() {
    let project = ProjectId::new(1, [9; 10]);
    let (session, node) = (SessionId::new(1, [1; 5]), NodeId([1; 32]));
    let boot = BootId([1; 16]);
    let mut pace = Pace {
        state: State::empty(),
        index: 0,
        spent: [0.0; 3],
    };
    let device = Bytes::from_static(b"device");
    pace.order(Genesis {
        network: Digest::of(b"net"),
        epoch: 1,
        cluster_version: 1,
    });
    let spec: Bytes = node_spec().to_canonical().into();
    let (record, provider) = (Bytes::new(), Digest::of(b"p"));
    pace.order(RegisterNode {
        node,
        record,
        spec: spec.clone(),
        region: "eu".into(),
        provider,
    });
    pace.order(UpdateNode { node, boot, spec });
    pace.order(StockPrekeys {
        node,
        boot,
        daily: Some(device.clone()),
        one_time: vec![device.clone()],
    });
    pace.order(OpenSession {
        session,
        project,
        tenant: TenantId([7; 32]),
        key: KeyId::new(1, [8; 10]),
        wrapped_session_key: device.clone(),
        device: device.clone(),
    });
    pace.order(AttachGranter {
        granter: session,
        project,
        standing: false,
        device,
    });
    let (mut submit, mut place, mut complete) = ([0.0; 3], [0.0; 3], [0.0; 3]);
    let task = task_spec(project).to_canonical();
    pace.spent = [0.0; 3];
    // One for each placement, as calls that come one by one have.
    let quotes: Vec<(u32, Bytes)> = (0..BATCH as u32).map(|at| (at, quote())).collect();
    for round in 0..ROUNDS {
        let first_seq = round * BATCH + 1;
        let ids: Vec<TaskId> = (first_seq..first_seq + BATCH)
            .map(|s| session.task(s))
            .collect();
        pace.order(batch(session, first_seq, &task));
        add(&mut submit, &mut pace);
        let generation = pace.state.node(&node).map_or(0, |n| n.generation);
        let placements = ids
            .iter()
            .map(|t| Placement {
                task: *t,
                node,
                generation,
            })
            .collect();
        let applied = pace.order(Place {
            based_on: 0,
            placements,
            quotes: quotes.clone(),
        });
        assert!(matches!(applied.outcome, Outcome::Placed { refused, .. } if refused.is_empty()));
        add(&mut place, &mut pace);
        let applied = pace.order(results(session, node, boot, round, &ids));
        assert_eq!(applied.outcome, Outcome::Completed { stale: vec![] });
        add(&mut complete, &mut pace);
        let through = OutboxKey {
            index: pace.index,
            ordinal: 0,
            n: u32::MAX,
        };
        pace.order(AckOutbox { sink: 0, through });
        pace.spent = [0.0; 3];
    }
    pace.tell("submit  ", &mut submit);
    pace.tell("place   ", &mut place);
    pace.tell("complete", &mut complete);
}

fn add(sum: &mut [f64; 3], pace: &mut Pace) {
    for (sum, part) in sum.iter_mut().zip(std::mem::take(&mut pace.spent)) {
        *sum += part;
    }
}

fn batch(session: SessionId, first_seq: u64, spec: &[u8]) -> SubmitBatch {
    let payload = Bytes::from_static(&[3; 256]);
    let one = Submitted {
        spec: Digest::of(spec),
        wrapped_key: Bytes::from_static(&[5; 48]),
        payload: Sealed::Inline(payload.clone()),
        payload_digest: Digest::of(&payload),
        idempotency: None,
        refs: vec![],
    };
    let specs = vec![Bytes::copy_from_slice(spec)];
    SubmitBatch {
        session,
        first_seq,
        specs,
        tasks: vec![one; BATCH as usize],
    }
}

fn results(
    session: SessionId,
    node: NodeId,
    boot: BootId,
    batch: u64,
    ids: &[TaskId],
) -> CompleteBatch {
    let one = |task: &TaskId| Completion {
        attempt: AttemptRef {
            task: *task,
            attempt: 1,
            epoch: 1,
        },
        exit: Exit::plain(ExitKind::Returned),
        sealed: Some(Sealed::Inline(Bytes::from_static(&[4; 176]))),
        started: Millis(1),
        ended: Millis(2),
        peak_memory: ByteCount(1),
        cpu: Millis(1),
        moved: farlane_state::Moved::NONE,
    };
    let leaves = vec![0; 32 * ids.len()].into();
    let signature = Some(BatchSignature {
        id: [0; 16],
        leaves,
        signature: Bytes::from_static(&[0; 64]),
    });
    CompleteBatch {
        node,
        boot,
        session,
        batch,
        signature,
        items: ids.iter().map(one).collect(),
    }
}
