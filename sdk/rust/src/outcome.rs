//! What comes back: one [`Delivered`] for each task, opened and checked.

use bytes::Bytes;
use farlane_model::{AttemptRef, Exit, NodeId};
use farlane_units::{Millis, UsdMicros};

/// How a task ended, as its caller sees it.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The encoded value; `Codec::Pickle` only from a provider of one's own.
    Returned {
        /// How `body` is encoded.
        codec: Codec,
        /// The encoded value.
        body: Bytes,
    },
    /// The safe-encoded exception record of docs/design/payload.md.
    Raised {
        /// Whether pickles inside may be loaded.
        trusted: bool,
        /// The encoded record.
        body: Bytes,
    },
    /// The environment could not be built; the log, where there is one.
    EnvFailed {
        /// What the agent says.
        exit: Exit,
        /// Safe-encoded text of the build log; empty when none came.
        log: Bytes,
    },
    /// It ended without a value: lost, timed out, cancelled, expired, infeasible, refused.
    Ended(Exit),
    /// The result does not hold against its signature or seal, or the client gave up.
    Failed(crate::Error),
}

/// How a result is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// The codec that cannot execute.
    Safe,
    /// Python's pickle.
    Pickle,
}

/// Where and when it ran, and what it cost.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// The last attempt; zero where none ran.
    pub attempt: u32,
    /// The node, where one ran it.
    pub node: Option<NodeId>,
    /// Its name for people.
    pub node_name: String,
    /// Its region.
    pub region: String,
    /// Cluster time.
    pub started: Millis,
    /// Cluster time.
    pub ended: Millis,
    /// What it cost.
    pub cost: UsdMicros,
}

/// One ended task, handed to the sink.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// What the caller gave at submission.
    pub token: u64,
    /// Which attempt.
    pub attempt: AttemptRef,
    /// How it ended.
    pub outcome: Outcome,
    /// Where, when, how much.
    pub receipt: Receipt,
}

/// Takes delivered tasks in batches, from one thread, in no promised order between tasks.
pub type Sink = Box<dyn Fn(Vec<Delivered>) + Send + Sync>;
