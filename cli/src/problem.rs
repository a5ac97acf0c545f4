//! What went wrong, and what a person does next.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use farlane::Error;
use farlane_server::ConfigError;

use crate::show;

/// Exit codes, as `farlane --help` lists them. 2 is clap's, for wrong usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Anything else.
    Failed = 1,
    /// The flags do not fit together.
    Usage = 2,
    /// The key is wrong, expired, revoked, or lacks a right.
    NotAllowed = 3,
    /// No server answered.
    NoConnection = 4,
    /// No such task, node, key or token; a file that was named is not there.
    NotFound = 5,
    /// Nobody reads standard output any more: what a shell reports for SIGPIPE.
    ClosedPipe = 141,
}

/// A failed command.
#[derive(Debug)]
pub struct Problem {
    exit: Exit,
    what: String,
    next: Option<String>,
}

impl Problem {
    /// A failure in words.
    pub fn new(exit: Exit, what: impl Display) -> Self {
        Self {
            exit,
            what: what.to_string(),
            next: None,
        }
    }
    /// A failure without a class of its own.
    pub fn failed(what: impl Display) -> Self {
        Self::new(Exit::Failed, what)
    }
    /// Adds what to do about it.
    #[must_use]
    pub fn next(mut self, step: impl Display) -> Self {
        self.next = Some(step.to_string());
        self
    }
    /// As [`Problem::next`], where what is missing has a nearer answer than its page.
    #[must_use]
    pub fn where_missing(self, step: impl Display) -> Self {
        match self.exit {
            Exit::NotFound => self.next(step),
            _ => self,
        }
    }
    /// Says it on standard error.
    pub fn print(&self) {
        if self.exit == Exit::ClosedPipe {
            return;
        }
        eprintln!("farlane: {}", show::plain(&self.what));
        if let Some(next) = &self.next {
            eprintln!("  → {}", show::plain(next));
        }
    }
    /// Whether it ends the process that way.
    #[cfg(test)]
    pub fn is(&self, exit: Exit) -> bool {
        self.exit == exit
    }
    /// As the process's exit.
    pub fn exit(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
    /// The words.
    pub fn what(&self) -> &str {
        &self.what
    }
    /// The next step.
    pub fn step(&self) -> Option<&str> {
        self.next.as_deref()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let at = |exit| Self::new(exit, &error);
        match &error {
            Error::Connection { .. } => at(Exit::NoConnection)
                .next("is the server running? `farlane up` starts one here; `farlane doctor` checks the rest"),
            // It says itself which command helps.
            Error::Auth(said) if said.contains("`farlane ") => at(Exit::NotAllowed),
            Error::Auth(_) => at(Exit::NotAllowed)
                .next("ask the network's owner for a key (`farlane keys create`), then `farlane login FILE`"),
            Error::NoIdentity(_) => at(Exit::NotAllowed),
            Error::BadIdentity(_) => {
                at(Exit::NotAllowed).next("`farlane login FILE` with a good file replaces it")
            }
            Error::UnknownTask(_) => at(Exit::NotFound).next("`farlane tasks` lists those of your project"),
            Error::ResultExpired(_) => at(Exit::NotFound),
            Error::Refused { code, .. } => {
                at(exit_of(code)).next(format!("{} says what this means", page(code)))
            }
            _ => at(Exit::Failed),
        }
    }
}

/// Where a code is explained. Source: the workspace's `repository`.
fn page(code: &str) -> String {
    let repository = env!("CARGO_PKG_REPOSITORY");
    format!("{repository}/blob/main/docs/errors/{code}.md")
}

/// What is not there has an exit of its own, whoever found it missing.
fn exit_of(code: &str) -> Exit {
    match code {
        "unknown_task" | "unknown_node" | "unknown_key" | "unknown_token" | "unknown_blob"
        | "result_expired" => Exit::NotFound,
        "permission_denied" => Exit::NotAllowed,
        "invalid_argument" => Exit::Usage,
        _ => Exit::Failed,
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // `farlane tasks | head`: whoever read us has had enough.
            std::io::ErrorKind::BrokenPipe => Self::new(Exit::ClosedPipe, ""),
            _ => Self::failed(error),
        }
    }
}

/// Names the file that was to be read, for `map_err`.
pub fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Problem + '_ {
    move |error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Problem::new(Exit::NotFound, format!("{} does not exist", path.display()))
                .next("check the path")
        }
        _ => Problem::failed(format!("{}: {error}", path.display())),
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        match &error {
            ConfigError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Self::new(Exit::NotFound, &error).next("check the path after --config")
            }
            _ => Self::failed(error),
        }
    }
}

/// Names what was tried, for `map_err`.
pub fn doing<E: Display>(what: impl Display) -> impl FnOnce(E) -> Problem {
    move |error| Problem::failed(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_of_the_client_has_its_exit_and_a_next_step() {
        let away = Error::Connection {
            urls: vec!["https://a:1".into()],
            tried: std::time::Duration::from_millis(1500),
            reason: "refused".into(),
        };
        let problem = Problem::from(away);
        assert_eq!(problem.exit, Exit::NoConnection);
        assert!(problem.what().contains("https://a:1") && problem.what().contains("1.5 s"));
        assert!(problem.step().is_some_and(|s| s.contains("farlane up")));
        assert_eq!(
            Problem::from(Error::Auth("no".into())).exit,
            Exit::NotAllowed
        );
        let own =
            Error::Auth("ask the owner: `farlane keys create NAME --identity-out FILE`".into());
        let own = Problem::from(own);
        assert!(own.exit == Exit::NotAllowed && own.step().is_none());
        let refused = Error::Refused {
            code: "infeasible".into(),
            message: "no node".into(),
        };
        assert!(
            Problem::from(refused)
                .step()
                .is_some_and(|s| s.contains("https://") && s.contains("/docs/errors/infeasible.md"))
        );
        for code in [
            "unknown_task",
            "unknown_key",
            "unknown_node",
            "unknown_token",
        ] {
            let missing = Error::Refused {
                code: code.into(),
                message: "none".into(),
            };
            assert_eq!(Problem::from(missing).exit, Exit::NotFound, "{code}");
        }
    }

    #[test]
    fn wrong_usage_and_missing_files_have_exits_of_their_own() {
        let refused = Error::Refused {
            code: "invalid_argument".into(),
            message: "no such scope".into(),
        };
        assert_eq!(Problem::from(refused).exit, Exit::Usage);
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let problem = reading(Path::new("x.json"))(missing);
        assert!(problem.exit == Exit::NotFound && problem.what().contains("x.json"));
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(reading(Path::new("x.json"))(denied).exit, Exit::Failed);
    }

    #[test]
    fn a_closed_pipe_is_not_worth_words() {
        let problem = Problem::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(problem.exit, Exit::ClosedPipe);
    }
}
