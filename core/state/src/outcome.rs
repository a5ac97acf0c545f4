//! What an order came to: its answer, and hints of what to push.

use farlane_model::{AttemptRef, KeyId, NodeId, SessionId, TaskId};
use serde::{Deserialize, Serialize};

use crate::{QuotaReached, WriteSet};

/// Everything that applying one order gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The answer to who proposed it.
    pub outcome: Outcome,
    /// Rows to commit together with last-applied.
    pub writes: WriteSet,
    /// Hints of what to push, in the order they came about.
    pub changes: Vec<Change>,
}

/// The answer to one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, in whole.
    Done,
    /// Nothing was changed.
    Refused(Refusal),
    /// Of `SubmitBatch`. Everything up to `through` is durable.
    Submitted {
        /// Last sequence number taken in.
        through: u64,
        /// Those of this batch that were refused; each consumed its number.
        refused: Vec<(u64, Refusal)>,
        /// Those of this batch that are an earlier task.
        duplicates: Vec<(u64, TaskId)>,
    },
    /// Of `Place`.
    Placed {
        /// How many were assigned.
        placed: u32,
        /// Those that no longer fitted.
        refused: Vec<(TaskId, Refusal)>,
    },
    /// Of `CompleteBatch`: positions that no longer counted.
    Completed {
        /// Ascending positions in the batch.
        stale: Vec<u32>,
    },
    /// Of `Cancel`: those that were live and are now finished.
    Cancelled {
        /// In the order asked.
        tasks: Vec<TaskId>,
    },
    /// Of `Return`, `Expire`, `Refuse` and `SetPrices`: how many items still counted.
    Settled {
        /// Of those named.
        count: u32,
    },
}

/// Why an order, or one item of it, was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Genesis comes once.
    #[error("this cluster is founded already")]
    AlreadyFounded,
    /// Genesis comes first.
    #[error("this cluster is not founded yet")]
    NotFounded,
    /// Open it first.
    #[error("the session is unknown; open it first")]
    SessionUnknown,
    /// Another project's, or not a session id.
    #[error("the session id is taken or malformed")]
    SessionTaken,
    /// Its key was revoked.
    #[error("the key has been revoked")]
    KeyRevoked,
    /// Numbers are contiguous; send again from the expected one.
    #[error("expected sequence number {expected}")]
    SequenceGap {
        /// The next number that would be taken.
        expected: u64,
    },
    /// More items than one batch may hold.
    #[error("a batch holds at most {most} items")]
    BatchTooLarge {
        /// The bound.
        most: u32,
    },
    /// The session never sent this spec.
    #[error("the task's spec is unknown to this session")]
    SpecUnknown,
    /// The spec is unreadable or out of bounds.
    #[error("the task's spec is not valid: {why}")]
    SpecInvalid {
        /// One line for people.
        why: String,
    },
    /// A session may know only so many.
    #[error("a session may use at most {most} different specs")]
    TooManySpecs {
        /// The bound.
        most: u32,
    },
    /// The spec names another project than the session's.
    #[error("the task belongs to another project than the key")]
    WrongProject,
    /// Key, digest or references are not as they must be.
    #[error("the task's envelope is not valid: {field}")]
    EnvelopeInvalid {
        /// Which part.
        field: String,
    },
    /// Sealed bytes above the bound of a row.
    #[error("sealed bytes above {most} must travel as a blob")]
    PayloadTooLarge {
        /// The bound.
        most: u64,
    },
    /// The project's queue is at its bound.
    #[error("the project has {most} live tasks, which is its bound")]
    QueueFull {
        /// The bound.
        most: u64,
    },
    /// Finished, or never was.
    #[error("the task is not live")]
    TaskGone,
    /// It has an attempt already.
    #[error("the task is placed already")]
    TaskPlaced,
    /// Not registered.
    #[error("the node is unknown")]
    NodeUnknown,
    /// Revoked for good.
    #[error("the node has been revoked")]
    NodeRevoked,
    /// Audits found that it is not what it says.
    #[error("the node is in quarantine")]
    NodeQuarantined,
    /// It never came up, or another boot is meant.
    #[error("the node's boot is unknown or no longer the current one")]
    BootUnknown,
    /// Unreadable spec, or a region that is not one.
    #[error("the node's description is not valid")]
    NodeInvalid,
    /// Its quotes are not of its placements, or too long.
    #[error("the plan's quotes are not those of its placements")]
    PlanInvalid,
    /// The plan rests on an older state of the node.
    #[error("the node has changed since the plan was made")]
    PlanStale,
    /// No capacity and no backlog credit is left.
    #[error("the node is full")]
    NodeFull,
    /// What it requires of others near it does not hold there.
    #[error("a task that it must be near is not there, or one that it must be apart from is")]
    CompanyBroken,
    /// Its gang comes whole: all of it in one batch, and of a plan all that have not finished.
    #[error("its gang of {size} did not come whole")]
    GangSplit {
        /// Of the gang.
        size: u32,
    },
    /// Its gang stays in one region.
    #[error("its gang was to be placed in more than one region")]
    GangApart,
    /// Another of its gang does not fit, so none is placed.
    #[error("rank {rank} of its gang could not be placed")]
    GangUnplaced {
        /// Which.
        rank: u16,
    },
    /// Nobody attached can grant it.
    #[error("no granter of the project is attached")]
    NoGranter,
    /// The node has no prekey that the task accepts.
    #[error("the node has no prekey left that the task accepts")]
    NoPrekey,
    /// Not attached.
    #[error("the granter is not attached")]
    GranterUnknown,
    /// A bound of the cluster is reached.
    #[error("too many {what}: at most {most}")]
    TooMany {
        /// Of what.
        what: String,
        /// The bound.
        most: u64,
    },
    /// Another list came between; make it again from that one.
    #[error("the provider's revocations have changed since this list was made")]
    RevocationsStale,
    /// SQL has been away for so long that the outbox is at its bound.
    #[error(
        "accounts have yet to take in {most} events; new work is taken again once the accounts' database answers"
    )]
    AccountsBehind {
        /// The bound.
        most: u64,
    },
    /// Dates out of order, too many of them, or a negative price.
    #[error("the prices are not in order of their dates, too many, or negative")]
    PricesInvalid,
    /// A weight or a budget out of its bounds.
    #[error("a weight is 1 to {}, and a budget not negative", crate::MAX_WEIGHT)]
    SettingsInvalid,
    /// Somebody else set them meanwhile.
    #[error("the project's settings have changed since these were made from them")]
    SettingsStale,
    /// The project holds what it may. The task stays queued.
    #[error("the project's quota is reached: at most {0}")]
    QuotaExceeded(QuotaReached),
}

/// What became of a sequence number that is no task of its own; kept so that a resent batch gets
/// the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It was refused.
    Refused(Refusal),
    /// It is this earlier task.
    Duplicate(TaskId),
}

/// A hint of what to push. Derived from applied state, never logged; losing one costs latency only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An attempt was leased to a node.
    Assigned {
        /// To which.
        node: NodeId,
        /// What.
        attempt: AttemptRef,
    },
    /// The attempt waits for a grant.
    GrantWanted {
        /// From whom.
        granter: SessionId,
        /// For what.
        attempt: AttemptRef,
    },
    /// The task's result is there.
    Finished {
        /// Whose.
        session: SessionId,
        /// Which.
        task: TaskId,
    },
    /// The task is back in its queue. Not told of submissions: who proposes one plans for it at once,
    /// and a hint for every call would cost more than the call.
    Queued {
        /// Which.
        task: TaskId,
    },
    /// The attempt no longer counts and should end.
    StopWanted {
        /// Where.
        node: NodeId,
        /// What.
        attempt: AttemptRef,
    },
    /// Registered, changed, restarted, revoked or removed.
    NodeChanged {
        /// Which.
        node: NodeId,
    },
    /// The stock of one-time prekeys is low.
    PrekeysLow {
        /// Whose.
        node: NodeId,
    },
    /// Sessions under this key must end.
    KeyRevoked {
        /// Which.
        key: KeyId,
    },
}
