//! What can go wrong, as a caller sees it.

use std::path::PathBuf;

/// Why a proposal or a confirmation was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not done here, and surely not done: go to the leader.
    #[error("this server does not lead{}", .leader.as_ref().map_or_else(String::new, |(id, url)| format!("; server {id} at {url} does")))]
    NotLeader {
        /// Who leads, where known: (id, URL).
        leader: Option<(u64, String)>,
    },
    /// Not done: the commands of one call do not fit one entry. Split them.
    #[error("{bytes} bytes of commands do not fit one entry of {most}")]
    TooLarge {
        /// What was asked.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// No quorum answered. Try again.
    #[error("no quorum of servers answers")]
    NoQuorum,
    /// This server ceased to lead before the proposal was answered. Whether it was done is not known
    /// here: ask the server that leads now.
    #[error(
        "leadership changed before the proposal was answered; whether it was done is not known"
    )]
    Unknown,
    /// This replica has stopped. Whether the proposal was done is not known here: ask another
    /// server, or this one once it is back.
    #[error("this replica has stopped")]
    Stopped,
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder or a file in it cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process holds the folder. Stop it first.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file that is locked.
        path: PathBuf,
    },
    /// The folder belongs to another server id.
    #[error("{} belongs to server {found}, not to {wanted}", path.display())]
    WrongServer {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        found: u64,
        /// Who asked.
        wanted: u64,
    },
    /// A file was damaged where damage cannot come from a crash. Restore it, or let this server
    /// start empty and catch up from the others.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The state file cannot be read: damaged, or another build's. Restore it, run that build, or begin
    /// anew.
    #[error("the state file {} cannot be read: {source}", path.display())]
    StateFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// The rows do not make a state: damaged, or another build's. As above.
    #[error("the rows of {} do not load: {source}", path.display())]
    Rows {
        /// Which.
        path: PathBuf,
        /// Why.
        source: farlane_state::LoadError,
    },
    /// The configuration makes no sense.
    #[error("{0}")]
    BadConfig(String),
    /// The replica stopped while starting.
    #[error("the replica stopped while starting: {0}")]
    Raft(String),
}

/// Why there is no channel to another server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not a URL of a server.
    #[error("{url:?} is not the URL of a server")]
    BadUrl {
        /// What was given.
        url: String,
    },
    /// It does not answer, or not as it must.
    #[error("cannot connect to {url}")]
    Failed {
        /// Which.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
