//! How an attempt ended, as everybody between may see it.

use serde::{Deserialize, Serialize};

/// Most bytes of an exit's message; longer ones are cut. It never holds task data.
pub const MAX_EXIT_MESSAGE: usize = 512;

/// The ways an attempt, or a task that never ran, can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExitKind {
    /// With a sealed result.
    Returned,
    /// With a sealed exception.
    Raised,
    /// Its worker or node went away.
    Lost(LostCause),
    /// Its `timeout` passed.
    TimedOut,
    /// Somebody of the project asked for it.
    Cancelled,
    /// Its environment could not be built; the sealed log says why.
    EnvFailed,
    /// The agent refused it: grant, digest or interpreter do not match.
    Refused,
    /// `deadline` or `queue_timeout` passed while no attempt ran.
    Expired,
    /// No node of the network can ever run it.
    Infeasible,
}

/// Why a worker or node went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LostCause {
    /// Killed by this signal.
    Signal(i32),
    /// Left with this code (`sys.exit`, `os._exit`).
    ExitCode(i32),
    /// Over its memory limit.
    OutOfMemory,
    /// Scratch space used up.
    ScratchFull,
    /// The node did not renew its lease.
    LeaseExpired,
    /// The agent started anew.
    NodeRestarted,
    /// The node was removed or revoked.
    NodeRemoved,
    /// The sandbox could not be made, or the worker broke its protocol.
    Sandbox,
    /// Another member of its gang was lost, or ended without a result; this one did nothing wrong.
    GangBroken,
    /// It made way for more urgent work.
    Preempted,
}

/// An exit with words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What happened.
    pub kind: ExitKind,
    /// One line for people; may be empty; at most [`MAX_EXIT_MESSAGE`] bytes.
    pub message: String,
}

impl Exit {
    /// An exit without words.
    pub fn plain(kind: ExitKind) -> Self {
        Self {
            kind,
            message: String::new(),
        }
    }
    /// An exit with a message, cut to its bound at a character's edge.
    pub fn new(kind: ExitKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_EXIT_MESSAGE {
            let cut = (0..=MAX_EXIT_MESSAGE)
                .rev()
                .find(|i| message.is_char_boundary(*i));
            message.truncate(cut.unwrap_or(0));
        }
        Self { kind, message }
    }
}
