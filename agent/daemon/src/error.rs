//! Why an agent does not start, or stops.

use std::path::PathBuf;

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither a record in the state folder nor a join file. Make a token, and give its file.
    #[error(
        "this machine has not joined a network yet; run `farlane tokens create` at the provider's, then `farlane agent --join-file FILE` here"
    )]
    NotJoined,
    /// The join file cannot be used: the caller's fault.
    #[error("the join file cannot be used: {0}")]
    BadJoinFile(String),
    /// The state folder holds something else than was written there.
    #[error("{path} cannot be read back: {why}; move the folder away to join anew")]
    BadState {
        /// Which file.
        path: PathBuf,
        /// In what way.
        why: String,
    },
    /// The clocks differ by more than certificates bear.
    #[error("this machine's clock is {} s {} the server's; set it (for instance `timedatectl set-ntp true`) and start again", .skew_ms.unsigned_abs() / 1000, if *.skew_ms < 0 { "behind" } else { "ahead of" })]
    ClockSkew {
        /// Own minus the server's.
        skew_ms: i64,
    },
    /// The server refused the enrolment.
    #[error("the server refused this machine: {0}")]
    Refused(String),
    /// No server could be reached.
    #[error("no server answered at {urls} within {seconds} s: {why}")]
    Unreachable {
        /// What was tried.
        urls: String,
        /// For how long.
        seconds: u64,
        /// The last failure.
        why: String,
    },
    /// No interpreter that a task could run on.
    #[error(
        "no Python 3.10 or newer that this user can run was found ({skipped}); install one (Debian: `apt install python3`)"
    )]
    NoPython {
        /// Why those that were found cannot serve.
        skipped: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl StartError {
    /// Names what was tried, for `map_err`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Why a running agent stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The node was revoked or removed.
    #[error("the network does not accept this node any more: {0}")]
    Removed(String),
    /// No server has heard of the node: the network's data are older than this agent's, or made anew.
    #[error(
        "the network does not know this machine: {0}; its data may be older than this agent's (a backup, say)"
    )]
    Unknown(String),
    /// The agent's thread ended early: a bug.
    #[error("the agent stopped unexpectedly; please report this")]
    Crashed,
}
