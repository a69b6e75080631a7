//! Tracing set-up. What may be logged is a rule of review: never tokens, bodies or message content.

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("\"{filter}\" is no log filter: {reason}")]
    Filter { filter: String, reason: String },
    /// Somebody else set it up before.
    #[error("logging has been set up already")]
    AlreadyStarted,
}

/// Starts logging to standard error for the whole process.
///
/// `filter` is a level, or directives such as `info,hearth_rooms=debug`.
///
/// # Errors
/// If `filter` does not parse, or logging runs already.
pub fn start_logging(filter: &str, format: LogFormat) -> Result<(), LoggingError> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| LoggingError::Filter { filter: filter.into(), reason: error.to_string() })?;
    // Standard error: journald and container runtimes read it, and a log line is never lost in a buffer.
    // A log that cannot be written (a full disk) must not end the thread that reports it.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let started = match format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    started.map_err(|_| LoggingError::AlreadyStarted)
}
