//! What can go wrong between a caller and the network, in words that say the next step.

use std::time::Duration;

use farlane_model::{BadSpec, TaskId};

/// A failure of the client; failures of tasks are [`crate::Outcome`]s.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No server could be reached. The caller checks the address, or that `farlane up` runs.
    #[error("{}", away(.urls, *.tried, .reason))]
    Connection {
        /// Every address tried.
        urls: Vec<String>,
        /// For how long; zero where an open connection broke.
        tried: Duration,
        /// The last failure.
        reason: String,
    },
    /// The key is wrong, expired, revoked, or lacks a scope.
    #[error("{0}")]
    Auth(String),
    /// No identity was found. The text lists every place looked at.
    #[error("{0}")]
    NoIdentity(String),
    /// An identity file that cannot be used.
    #[error("{0}")]
    BadIdentity(String),
    /// A spec out of its bounds.
    #[error("{0}")]
    Spec(#[from] BadSpec),
    /// More than the network takes.
    #[error("{what} has {size} bytes; at most {limit} are allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// Signature, digest or seal do not hold. Never tried again.
    #[error("integrity check failed: {0}")]
    Integrity(String),
    /// The result was kept no longer.
    #[error("the result of task {0} is no longer kept; ask for a longer result_ttl")]
    ResultExpired(TaskId),
    /// No such task in this project.
    #[error("no task {0} in this project")]
    UnknownTask(TaskId),
    /// The client was shut down.
    #[error("the client is shut down")]
    Closed,
    /// The server refused; `code` is an `ErrorCode` with a page under docs/errors.
    #[error("{message} [{code}]")]
    Refused {
        /// The code.
        code: String,
        /// What the server says.
        message: String,
    },
    /// A local file could not be read or written.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
}

fn away(urls: &[String], tried: Duration, reason: &str) -> String {
    let urls = urls.join(", ");
    match tried.is_zero() {
        true => format!("the connection to the Farlane server at {urls} was lost: {reason}"),
        false => format!(
            "no Farlane server at {urls} answered within {:.1} s: {reason}",
            tried.as_secs_f64()
        ),
    }
}

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The caller's to mend.
    Caller,
    /// Worth trying again.
    Retry,
    /// Something attacked or broke.
    Broken,
}

impl Error {
    /// Whose move it is.
    pub fn class(&self) -> Class {
        match self {
            Error::Connection { .. } => Class::Retry,
            Error::Integrity(_) => Class::Broken,
            Error::Auth(_)
            | Error::NoIdentity(_)
            | Error::BadIdentity(_)
            | Error::Spec(_)
            | Error::TooLarge { .. }
            | Error::ResultExpired(_)
            | Error::UnknownTask(_)
            | Error::Closed
            | Error::Refused { .. }
            | Error::File { .. } => Class::Caller,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_broke_is_not_said_to_have_been_tried_for_no_time() {
        let away = |tried| Error::Connection {
            urls: vec!["https://a".to_owned(), "https://b".to_owned()],
            tried,
            reason: "reset".to_owned(),
        };
        let broke = "the connection to the Farlane server at https://a, https://b was lost: reset";
        assert_eq!(away(Duration::ZERO).to_string(), broke);
        assert_eq!(
            away(Duration::from_millis(1_500)).to_string(),
            "no Farlane server at https://a, https://b answered within 1.5 s: reset"
        );
    }
}
