//! The replicated state machine: what every server agrees on, and how an order changes it.
//!
//! Owns the orders and their bytes, `apply` (total, synchronous, pure), the rows it writes, and the
//! live state that loads from those rows alone. Leaves finding a plan to `farlane-plan`, where rows
//! lie and who leads to `farlane-consensus`, and time to the stamp that each entry carries.
//!
//! ```text
//!   submit ──▶ queued ──place──▶ placed (attempt n) ──complete──▶ finished (row only)
//!                ▲                  │      │                        ▲
//!                └──── return ◀─────┘      └── cancel, expire ──────┘
//!                └──────────────── cancel, expire, refuse ──────────┘
//! ```
//!
//! An order that cannot be done is refused as a value; an order of an unknown kind or version must
//! stop the replica. No hash decides an iteration order here, and there are no floats.

mod alike;
mod apply;
mod capacity;
mod codec;
mod command;
mod companies;
mod due;
mod gang;
mod image;
mod load;
mod node;
mod order;
mod outcome;
mod project;
mod queue;
mod retention;
mod row;
mod rows;
mod session;
mod settle;
mod slab;
mod spec;
mod state;
mod task;
mod touched;
mod turn;

pub use apply::apply;
pub use command::{Command, Order, Stamp, UnknownCommand};
pub use gang::Member;
pub use load::LoadError;
pub use node::{
    Boot, CONTEXT_LIFE, Context, DatedPrice, EgressPrice, MAX_PREKEYS, Node, PREKEYS_LOW,
    PrekeyKind,
};
pub use order::{
    AckOutbox, AckResults, AttachGranter, BatchSignature, Cancel, CompleteBatch, Completion,
    DetachGranter, Expire, Forgotten, Genesis, MAX_BATCH, MAX_DATED_PRICES, MAX_PREEMPTIONS,
    MAX_REFS, MAX_REVOCATIONS_BYTES, Moved, NodePrices, OpenSession, PREEMPT_PAUSE, Place,
    Placement, Preempt, PublishRevocations, Refuse, RegisterNode, RemoveNode, Return, ReturnReason,
    Revoke, Revoked, SetPrices, SetProject, SetStanding, StockPrekeys, SubmitBatch, Submitted,
    UpdateNode,
};
pub use outcome::{Applied, Change, Outcome, Refusal, Verdict};
pub use project::{
    DEFAULT_WEIGHT, Holding, MAX_WEIGHT, ProjectRow, ProjectSet, ProjectSettings, ProjectView,
    Quota, QuotaLeft, QuotaLimit, QuotaReached, Spent, TooSmall,
};
pub use queue::WaitingQueue;
pub use retention::{MAX_KEPT_PER_PROJECT, RETENTION, RETENTION_ACKED, expired};
pub use row::{
    AttemptRow, BatchRow, Cursor, FinishedTask, MAX_OUTBOX, NodeRow, OutboxEvent, OutboxKey,
    ResultRow, RevocationsRow, TaskEnvelopeRow, Usage, keys,
};
pub use rows::{Row, Rows, Table, WriteSet};
pub use session::{Granter, SESSION_IDLE, Session, VERDICT_WINDOW};
pub use spec::Spec;
pub use state::{Counts, State};
pub use task::{Lease, LiveTask, PlacedOn, Quoted};
pub use touched::TouchMark;
pub use turn::Turn;
