//! `hearth reports`: prints what users have reported. Works on the store itself, so the server must be
//! stopped; while it runs, each report is a line of the log.

use std::fmt::Write as _;
use std::time::Duration;

use hearth_accounts::ReportInfo;
use hearth_base::{Clock as _, Millis, SystemClock};
use hearth_schema::ReportSubject;
use hearth_settings::Settings;

use crate::exit::{Code, Failure};
use crate::graph;
use crate::open::{self, Rollback};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Prints the reports of the last `days` days; `None`: all.
pub(crate) fn run(settings: &Settings, days: Option<u32>) -> Result<(), Failure> {
    open::prepare_directory(settings)?;
    let store = open::store(settings, Rollback::Refuse)?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::new(Code::Io, format!("cannot start threads: {error}")))?;
    let accounts = graph::accounts_only(settings, &store)?;
    let age = |days: u32| u64::try_from((DAY * days).as_millis()).unwrap_or(u64::MAX);
    let since = days.map_or(Millis(0), |days| Millis(SystemClock.now().0.saturating_sub(age(days))));
    let reports = runtime.block_on(accounts.reports(since)).map_err(|error| Failure::new(Code::Io, error))?;
    drop(accounts);
    store.shutdown().map_err(|error| Failure::new(Code::Io, error))?;
    crate::print(&text(&reports))
}

/// One JSON object a line, because reasons may have any characters.
fn text(reports: &[ReportInfo]) -> String {
    let mut text = String::new();
    for report in reports {
        let subject = match &report.subject {
            ReportSubject::Room { room_id } => serde_json::json!({ "room_id": room_id }),
            ReportSubject::Event { room_id, event_id, sender } => {
                serde_json::json!({ "room_id": room_id, "event_id": event_id, "sender": sender })
            }
            ReportSubject::User { user_id } => serde_json::json!({ "user_id": user_id }),
        };
        let line = serde_json::json!({
            "at_ms": report.at.0, "reporter": report.reporter, "reported": subject, "reason": report.reason,
        });
        let _ = writeln!(text, "{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line_whatever_its_reason() {
        let report = ReportInfo {
            at: Millis(7),
            reporter: "@ann:x".into(),
            subject: ReportSubject::User { user_id: "@bob:x".into() },
            reason: "two\nlines \"and quotes\"".into(),
        };
        let text = text(&[report.clone(), report]);
        assert_eq!(text.lines().count(), 2);
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(line["reason"], "two\nlines \"and quotes\"");
        assert_eq!(line["reported"]["user_id"], "@bob:x");
    }
}
