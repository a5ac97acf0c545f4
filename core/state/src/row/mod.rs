//! What the rows hold, and their keys.
//!
//! Owns the encodings: hand-written for what is written once a task, postcard for what is rare.
//! Every row opens with a version byte or sits in a table whose version the cluster row names.

mod attempt;
mod envelope;
mod finished;
pub mod keys;
mod node;
mod outbox;
mod session;

pub use attempt::AttemptRow;
pub use envelope::TaskEnvelopeRow;
pub(crate) use envelope::write as write_envelope;
pub use finished::{BatchRow, Cursor, FinishedTask, ResultRow};
pub(crate) use node::ContextRow;
pub use node::{NodeRow, RevocationsRow};
pub use outbox::{MAX_OUTBOX, OutboxEvent, OutboxKey, Usage};
pub(crate) use session::{ClusterRow, MarksRow, SessionRow};
