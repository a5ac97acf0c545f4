//! The start of tracing for a process.
//!
//! Owns where log lines go and in what form. Leaves what is logged to the rooms.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines are written, always to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One line for a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What [`init`] could not do.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse; write it like `info,farlane_consensus=debug`.
    #[error("the log filter {filter:?} does not parse")]
    BadFilter {
        /// What was given.
        filter: String,
        /// Why not.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber is set already in this process.
    #[error("logging is set up already in this process")]
    AlreadySet,
}

/// Starts logging for this process. Colours are for terminals only: files and journals get plain text.
///
/// `filter` is in the syntax of tracing's `EnvFilter`. openraft's own lines are held to warnings
/// unless the filter names it.
///
/// *Errors*: the filter does not parse, or logging was started before.
pub fn init(filter: &str, format: Format) -> Result<(), TelemetryError> {
    let quiet = if filter.contains("openraft") {
        String::new()
    } else {
        ",openraft=warn".to_owned()
    };
    let filter = EnvFilter::try_new(format!("{filter}{quiet}")).map_err(|source| {
        TelemetryError::BadFilter {
            filter: filter.to_owned(),
            source,
        }
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().try_init(),
    }
    .map_err(|_| TelemetryError::AlreadySet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        assert!(matches!(
            init("==,=", Format::Text),
            Err(TelemetryError::BadFilter { .. })
        ));
    }

    /// Names the child process that only logs one line.
    const CHILD: &str = "FARLANE_TEST_LOG_ONE_LINE";

    /// The body of the child process; does nothing in an ordinary run of the tests.
    #[test]
    fn child_logs_one_line() -> Result<(), TelemetryError> {
        if std::env::var_os(CHILD).is_some() {
            init("info", Format::Text)?;
            tracing::info!(field = "value", "one line");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_terminal_gets_no_colours() -> std::io::Result<()> {
        let child = std::process::Command::new(std::env::current_exe()?)
            .args(["--exact", "telemetry::tests::child_logs_one_line"])
            .env(CHILD, "1")
            .output()?;
        let logged = String::from_utf8_lossy(&child.stderr);
        assert!(logged.contains("one line field=\"value\""), "{logged:?}");
        assert!(!logged.contains('\u{1b}'), "{logged:?}");
        Ok(())
    }
}
