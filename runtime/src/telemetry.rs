//! The start of tracing for a process.
//!
//! Owns where log lines go and in what form. Leaves what is logged to the rooms.

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

/// Starts logging for this process.
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
}
