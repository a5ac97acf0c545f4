//! Grants: how one node, and no other, comes to hold a task's key.
//!
//! ```text
//!  granter                                     node
//!  GranterContext::open ── Opening ──────────▶ PrekeyStock::accept ─▶ NodeContext
//!    (record, chain, revocation, prekey)         (device chain, signature, own record, prekey)
//!  GranterContext::seal ── counter, sealed ──▶ NodeContext::open ─▶ grants
//!    (GrantLog::admit first)                     (replay window, expiry)
//! ```
//! The context is HPKE Base to the node's prekey; info = BLAKE3 of the canonical [`GrantInfo`], and
//! the granter's device signs label ‖ enc ‖ info bytes. Batches are AES-256-GCM messages under the
//! context's exported key with an explicit counter. Contexts live in memory only and end after
//! [`CONTEXT_LIFE`].

mod context;
mod info;
mod log;
mod message;
mod window;

#[cfg(test)]
mod tests;

use farlane_units::Millis;

use crate::record::RecordError;
use crate::stream::OpenError;

pub(crate) use context::verify;
pub use context::{GranterContext, NodeContext, OpenContext};
pub use info::{GrantInfo, Opening};
pub use log::{Admission, GrantEntry, GrantLog, MAX_LOGGED_TASKS, attempts_allowed};
pub use message::{Grant, MAX_GRANTS};

/// How long a context serves. Source: docs/design/spine.md, "One call, hop by hop".
pub const CONTEXT_LIFE: Millis = Millis(10 * 60_000);
/// What a node allows a context's end to lie beyond [`CONTEXT_LIFE`]: granter and node each take
/// cluster time from a server, at most a round trip apart.
pub const CONTEXT_SLACK: Millis = Millis(60_000);

/// Why a granter gives no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// A record does not hold; the node gets nothing.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The prekey cannot be used: another boot's, unknown suite, or a degenerate key.
    #[error("the node's prekey is not usable")]
    BadPrekey,
    /// The context has ended; open another.
    #[error("the grant context has ended")]
    ContextEnded,
    /// More than [`MAX_GRANTS`] in one batch.
    #[error("a batch holds at most {MAX_GRANTS} grants")]
    TooMany,
    /// Another node holds a grant for this attempt.
    #[error("this attempt was granted to another node")]
    GrantedElsewhere,
    /// The task has had all the attempts that its retries allow.
    #[error("the task has had all of its {limit} attempts")]
    AttemptsUsed {
        /// How many it had.
        limit: u32,
    },
    /// The log is full; tasks must finish first.
    #[error("the grant log holds {MAX_LOGGED_TASKS} unfinished tasks")]
    LogFull,
}

/// Why a node takes no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The device's record or the opening cannot be read or does not hold.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It was made for another node, network, record or boot.
    #[error("the grant context was opened for another {what}")]
    Misplaced {
        /// What does not match.
        what: &'static str,
    },
    /// The device did not sign it, or may not grant.
    #[error("the grant context is not signed by a device that may grant")]
    NotSigned,
    /// The prekey is unknown, used, or too old.
    #[error("the prekey is unknown here, or was used already")]
    PrekeyGone,
    /// Past its end, or its end is further off than allowed.
    #[error("the grant context's end is past, or too far off")]
    BadExpiry,
    /// This counter was seen, or is too far behind.
    #[error("the grant batch was seen before")]
    Replayed,
    /// The batch does not open.
    #[error(transparent)]
    Damaged(#[from] OpenError),
}
