//! How the process ends, in words for people and a number for systemd.

use std::fmt;

/// Why the process ends. The numbers are those of `sysexits.h`; the unit file names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Something was checked, and is not as it should be.
    Findings = 1,
    /// A command cannot do what was asked.
    Refused = 65,
    /// Disk or network failed; starting again may help.
    Io = 70,
    /// Somebody else holds what we need; starting again later may help.
    Busy = 75,
    /// The configuration or the store is not usable: starting again cannot help.
    Unusable = 78,
}

/// The process ends because of this.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
