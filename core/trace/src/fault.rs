//! What can be wrong with a trace.

/// A trace that cannot be used, and where.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct BadTrace {
    /// From 1.
    pub line: u64,
    /// What is wrong there.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file could not be read on.
    #[error("the file cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// Longer than a line can be.
    #[error("it is longer than {} bytes", crate::MAX_LINE)]
    Long,
    /// Not what a line is.
    #[error("column {column}: {why}")]
    Malformed {
        /// From 1; 0 where all of it is meant.
        column: usize,
        /// What is wrong there.
        why: String,
    },
    /// Another format, or none.
    #[error("a trace begins with {{\"trace\":{{\"version\":1,\"ms\":…}}}}; is this file a trace?")]
    NoHeader,
    /// Of a version that is not known here.
    #[error(
        "it is a trace of version {found}; this farlane reads version {}",
        crate::VERSION
    )]
    Version {
        /// Which.
        found: u64,
    },
    /// The last line is missing.
    #[error("the file ends without {{\"end\":…}}: it was cut short; export it again")]
    Cut,
    /// Tasks are missing.
    #[error("its end speaks of {said} tasks, and {found} are above")]
    Count {
        /// By the last line.
        said: u64,
        /// Above it.
        found: u64,
    },
    /// Something stands below the last line, or a second first line.
    #[error("nothing may stand here: the trace has ended, or begins twice")]
    Beyond,
    /// A figure is out of its bounds.
    #[error("{field} must be {bound}")]
    OutOfBounds {
        /// Which.
        field: &'static str,
        /// What it must be.
        bound: &'static str,
    },
    /// A kind that no task can be of.
    #[error("no task can ask this: {0}")]
    Spec(#[from] farlane_model::BadSpec),
    /// It names what is not above it.
    #[error("{what} {name:?} is named here, and no line above says what it is")]
    Unknown {
        /// Project, region, node, kind.
        what: &'static str,
        /// As it was named.
        name: String,
    },
    /// A name for two.
    #[error("there is a {what} {name:?} above already")]
    Twice {
        /// Project, region, node, kind.
        what: &'static str,
        /// As it was named.
        name: String,
    },
    /// Before the line above.
    #[error(
        "it was submitted at {at} ms, before the one above it, at {before} ms: tasks stand in the order of submission"
    )]
    Order {
        /// Of this line.
        at: u64,
        /// Of the line above.
        before: u64,
    },
    /// An attempt that goes back in time.
    #[error("an attempt runs from {from} to {to} ms, before it was submitted or backwards")]
    Backwards {
        /// Its beginning.
        from: u64,
        /// Its end.
        to: u64,
    },
    /// A gang with more or fewer members than its kind says.
    #[error("kind {kind:?} has gangs of {size}, and here are {found}")]
    GangSize {
        /// Of which kind.
        kind: String,
        /// As the kind says.
        size: u16,
        /// Here.
        found: usize,
    },
    /// More than is read.
    #[error("it is one too many: a trace has at most {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        most: usize,
    },
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        let text = error.to_string();
        // Which line of the file it is, is told by whoever reads the file.
        let at = format!(" at line {} column {}", error.line(), error.column());
        Self::Malformed {
            column: error.column(),
            why: text.strip_suffix(&at).unwrap_or(&text).to_owned(),
        }
    }
}
