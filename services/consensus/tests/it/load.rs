//! Orders of a plausible size and shape, for tests and measurements.

use bytes::Bytes;
use farlane_model::*;
use farlane_state::{Cancel, Command, OpenSession, Order, SubmitBatch, Submitted};
use farlane_units::ByteCount;

/// The session of this number.
pub fn session(number: u64) -> SessionId {
    SessionId::new(1_700_000_000_000 + number, [1; 5])
}

/// The one project.
pub fn project() -> ProjectId {
    ProjectId::new(1_700_000_000_000, [2; 10])
}

/// Opens it; again does nothing.
pub fn open(number: u64) -> Command {
    Order::OpenSession(OpenSession {
        session: session(number),
        project: project(),
        tenant: TenantId([3; 32]),
        key: KeyId::new(1_700_000_000_000, [4; 10]),
        wrapped_session_key: Bytes::from_static(&[5; 80]),
        device: Bytes::from_static(&[6; 200]),
    })
    .encode()
}

/// The spec of every task.
pub fn spec() -> Bytes {
    let code = BlobRef {
        digest: Digest::of(b"code"),
        size: ByteCount(100),
    };
    let python = PythonVersion {
        major: 3,
        minor: 11,
    };
    TaskSpec {
        function: "noop".to_owned(),
        resources: Resources {
            memory: ByteCount::mib(64),
            scratch: ByteCount::mib(64),
            ..Resources::default()
        },
        node: NodeRequest {
            tier: Tier::Namespaces,
            ..NodeRequest::any(python)
        },
        log_limit: ByteCount::kib(64),
        ..TaskSpec::new(project(), code, python)
    }
    .to_canonical()
    .into()
}

/// Submits the task `seq`, and the spec with the first.
pub fn submit(number: u64, seq: u64, spec: &Bytes, first: bool) -> Command {
    let payload = Bytes::from_static(&[8; 220]);
    Order::SubmitBatch(SubmitBatch {
        session: session(number),
        first_seq: seq,
        specs: if first {
            vec![spec.clone()]
        } else {
            Vec::new()
        },
        tasks: vec![Submitted {
            spec: Digest::of(spec),
            wrapped_key: Bytes::from_static(&[9; 48]),
            payload_digest: Digest([1; 32]),
            payload: Sealed::Inline(payload),
            idempotency: None,
            refs: Vec::new(),
        }],
    })
    .encode()
}

/// Cancels these tasks of the session.
#[allow(
    dead_code,
    reason = "the measurement shares this file and cancels nothing"
)]
pub fn cancel(number: u64, seqs: &[u64]) -> Command {
    let tasks = seqs.iter().map(|seq| session(number).task(*seq)).collect();
    Order::Cancel(Cancel {
        project: project(),
        tasks,
        reason: String::new(),
    })
    .encode()
}
