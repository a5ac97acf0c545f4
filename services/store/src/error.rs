//! What can go wrong with rows.

/// What a caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request is at fault; the same one will fail again.
    Caller,
    /// Try again later: the database is away or busy.
    Retry,
    /// Rows that this program did not write, or a statement that is wrong.
    Bug,
}

/// A statement or a connection that failed. Never holds values of rows.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address is no SQLite or PostgreSQL address.
    #[error(
        "{what} is not a database address; write sqlite:///path/to/file or postgres://user@host/name"
    )]
    BadUrl {
        /// Scheme of what was given; never the whole, which may hold a password.
        what: String,
    },
    /// The database's file could not be made or protected.
    #[error("cannot prepare the database file {path}: {source}")]
    File {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The database's file is no database any more: a disk's fault, or somebody wrote into it.
    #[error(
        "the accounts in {path} are damaged ({why}); stop every server on them and put the file back \
         from a backup, together with its -wal. Without a backup move the server's whole folder away \
         and start anew: keys, history and queue are lost then"
    )]
    Damaged {
        /// Where.
        path: String,
        /// What SQLite says.
        why: String,
    },
    /// The rows are another build's. Run that one, or begin anew.
    #[error(
        "the accounts in {place} were written by another build of Farlane ({why}): run that build"
    )]
    OtherBuild {
        /// Where.
        place: String,
        /// What is not as this build left it.
        why: String,
    },
    /// API keys were hashed under another pepper than this server's: it would know none of them.
    #[error(
        "the file `pepper` is another than that under which the keys in these accounts were hashed; put \
         the right one back: from a copy of this server's folder, or from another server of the network"
    )]
    OtherPepper,
    /// The schema could not be brought up to date.
    #[error("the database's schema cannot be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A statement or the connection failed.
    #[error("the database does not answer as it should: {0}")]
    Database(#[from] sqlx::Error),
    /// A row holds what it cannot.
    #[error("the database holds a {column} that cannot be read")]
    Corrupt {
        /// Which column.
        column: &'static str,
    },
    /// The name is taken, empty or too long.
    #[error("{name:?} cannot be used as a name: {why}")]
    BadName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    Entropy(String),
}

impl StoreError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::BadUrl { .. }
            | Self::File { .. }
            | Self::BadName { .. }
            | Self::OtherBuild { .. }
            | Self::OtherPepper
            | Self::Damaged { .. } => Class::Caller,
            Self::Database(
                sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed,
            )
            | Self::Entropy(_) => Class::Retry,
            Self::Database(sqlx::Error::Database(error)) => {
                // SQLITE_BUSY is 5; PostgreSQL's class 57 is an operator's intervention, 40 a
                // serialization failure. Source: sqlite.org/rescode.html, postgresql.org errcodes.
                let code = error.code().unwrap_or_default();
                let busy = code == "5" || code.starts_with("57") || code.starts_with("40");
                if busy { Class::Retry } else { Class::Bug }
            }
            Self::Migrate(_) | Self::Database(_) | Self::Corrupt { .. } => Class::Bug,
        }
    }
}
