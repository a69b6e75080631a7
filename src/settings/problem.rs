//! What is wrong with settings, where, and what was probably meant.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file, at a line and column that count from 1.
    File { path: PathBuf, line: usize, column: usize },
    /// An environment variable.
    Environment(String),
    /// Nobody gave it.
    Nowhere,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}: ", path.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}: "),
            Self::Nowhere => Ok(()),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What, and what was probably meant.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.message)
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// Values are wrong; all that are, in the order of the file.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// `message`, with the one of `known` that is closest to `given`, if any is close.
pub(crate) fn with_suggestion<'a>(message: String, given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let similar = |name: &'a str| (strsim::jaro_winkler(given, name), name);
    let best = known.into_iter().map(similar).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((similarity, name)) if similarity > 0.75 => format!("{message}; did you mean \"{name}\"?"),
        _ => message,
    }
}
