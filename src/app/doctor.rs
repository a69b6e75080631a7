//! `hearth doctor`: can other servers reach a server, and if not, what to do.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use hearth_base::{SystemClock, SystemRandom};
use hearth_peers::{Doctor, Finding, Level, PeersSettings, SystemDns};

use crate::exit::{Code, Failure};
use crate::federation;

/// Prints what other servers find when they look for `server`.
pub(crate) fn run(server: &str, authorities: Option<&PathBuf>, networks: Networks) -> Result<(), Failure> {
    let mut settings = PeersSettings::default();
    if let Some(path) = authorities {
        settings.extra_roots = federation::authorities(path)?;
    }
    if networks == Networks::All {
        settings.denied_networks.clear();
    }
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::new(Code::Io, format!("cannot start threads: {error}")))?;
    let (dns, random, clock) = (Arc::new(SystemDns::default()), Arc::new(SystemRandom), Arc::new(SystemClock));
    let doctor = Doctor::new(dns, random, clock, &settings).map_err(|error| Failure::new(Code::Unusable, error))?;
    let findings = runtime.block_on(doctor.examine(server));
    crate::print(&text(&findings))?;
    match findings.iter().filter(|finding| finding.level == Level::Bad).count() {
        0 => Ok(()),
        bad => Err(Failure::new(Code::Findings, format!("other servers may not reach {server} (problems: {bad})"))),
    }
}

/// Where the doctor connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Networks {
    /// The internet.
    Public,
    /// Private networks, too.
    All,
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Good => "ok   ",
            Level::Note => "note ",
            Level::Bad => "BAD  ",
        };
        let _ = writeln!(text, "{mark}{}", finding.what);
        if let Some(fix) = &finding.fix {
            let _ = writeln!(text, "     {fix}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_its_mark_and_its_remedy() {
        let finding = |level, what: &str, fix: Option<&str>| Finding {
            level,
            what: what.to_owned(),
            fix: fix.map(str::to_owned),
        };
        let findings = [
            finding(Level::Good, "a", None),
            finding(Level::Note, "b", Some("c")),
            finding(Level::Bad, "d", Some("e")),
        ];
        assert_eq!(text(&findings), "ok   a\nnote b\n     c\nBAD  d\n     e\n");
    }

    #[test]
    fn a_name_that_is_none_is_a_finding() {
        let failure = run("@a:b", None, Networks::Public).expect_err("no server name");
        assert_eq!(failure.code, Code::Findings);
        let failure = run("a.test", Some(&PathBuf::from("/nowhere")), Networks::Public).expect_err("no file");
        assert_eq!(failure.code, Code::Unusable);
    }
}
