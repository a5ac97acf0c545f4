//! The outbox: what sinks outside the cluster (SQL) must hear exactly once.

use bytes::Bytes;
use farlane_model::{Digest, ExitKind, KeyId, NodeId, ProjectId, TaskId};
use farlane_units::{ByteCount, MilliCpu, Millis, NanoGramsCo2, UsdFemtos, UsdMicros};
use serde::{Deserialize, Serialize};

use crate::order::Moved;

/// Events that wait for sinks before no more work is taken. What runs and waits by then still ends and is
/// billed, so that there may be more by one for each of its attempts. Source: at 250 B an event 1 GB of
/// each server's disk, and more than an hour of 1,000 tasks a second.
pub const MAX_OUTBOX: u64 = 4_000_000;

/// Names one event: the sink's idempotency key.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct OutboxKey {
    /// Log index.
    pub index: u64,
    /// Order within the entry.
    pub ordinal: u32,
    /// Event within the order, from 0, dense.
    pub n: u32,
}

/// Row of `Table::Outbox`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutboxEvent {
    /// An attempt ended.
    Attempt(Usage),
    /// What calls ask was said for the first time, before any of them ran.
    Spec {
        /// Of the bytes.
        digest: Digest,
        /// Canonical `TaskSpec`.
        spec: Bytes,
    },
    /// A node was registered or changed.
    Node {
        /// Which.
        node: NodeId,
        /// Canonical `NodeSpec`.
        spec: Bytes,
        /// From its certificate.
        region: String,
        /// Its provider.
        provider: Digest,
        /// Cluster time.
        at: Millis,
    },
    /// A node was revoked or removed.
    NodeGone {
        /// Which.
        node: NodeId,
        /// Revoked for good, or merely removed.
        revoked: bool,
        /// Cluster time.
        at: Millis,
    },
    /// A key was revoked.
    KeyRevoked {
        /// Which.
        key: KeyId,
        /// Cluster time.
        at: Millis,
    },
}

/// One attempt's usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of which call.
    pub task: TaskId,
    /// Which attempt.
    pub attempt: u32,
    /// Who pays.
    pub project: ProjectId,
    /// Where.
    pub node: NodeId,
    /// Where that is.
    pub region: String,
    /// Name for people.
    pub function: String,
    /// What it asked.
    pub spec: Digest,
    /// Its place in its gang; `None` where it is on its own.
    pub rank: Option<u16>,
    /// Cluster time.
    pub submitted: Millis,
    /// Cluster time, held between the lease and now.
    pub started: Millis,
    /// Cluster time; equal to `started` when nothing was reported.
    pub ended: Millis,
    /// Cores held.
    pub cpus: MilliCpu,
    /// Price at the end of the attempt.
    pub price_usd_micros_core_hour: UsdMicros,
    /// Run time × cores × price, and what bytes between regions cost, rounded up.
    pub cost: UsdMicros,
    /// Run time × what an hour of it emitted there when it was placed; `None` where nobody knew.
    pub emitted: Option<NanoGramsCo2>,
    /// How it ended.
    pub exit: ExitKind,
    /// Whether the task ended with it.
    pub last: bool,
    /// As reported.
    pub cpu_time: Millis,
    /// As reported.
    pub peak_memory: ByteCount,
    /// Between the servers' region and the node's, as the leader saw.
    pub moved: Moved,
    /// What that cost at the end of the attempt, in `cost`.
    pub egress: UsdFemtos,
}

impl OutboxEvent {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(1);
        *out = postcard::to_extend(self, std::mem::take(out))
            .expect("postcard into a Vec cannot fail for these types");
    }

    /// From a row's bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (event, left) = postcard::take_from_bytes(rest).ok()?;
        (*version == 1 && left.is_empty()).then_some(event)
    }
}
