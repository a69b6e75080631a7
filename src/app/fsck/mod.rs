//! `hearth fsck`: does the store hold what it promises?
//!
//! Every row is read from disk and decoded, and every row that speaks of another is followed to it.
//! Rows stream from the scan to the checks through a short channel, so memory does not grow with the
//! store (only with the state of the largest room). The invariants have the names that the report
//! and the tests use; [`report::Invariant`] says what each one means.

mod accounts;
mod delayed;
mod outbound;
mod peers;
mod relations;
mod report;
mod rooms;
mod scan;

use std::sync::Arc;

use futures::StreamExt as _;
use hearth_schema::Ids;
use hearth_settings::Settings;
use hearth_store::{RawKey, Store as _, StoreError, View};
use hearth_store_rocks::RocksStore;
use tokio::sync::mpsc;

use crate::exit::{Code, Failure};
use crate::open::{self, Rollback};
use report::{Invariant, Report, Violation};
use scan::Row;

/// Rows that are read ahead of the checks.
const READ_AHEAD: usize = 1024;
/// Rows that are checked at a time.
const AT_A_TIME: usize = 32;

/// How the report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Checks the store that `settings` name and prints the report.
pub(crate) fn run(settings: &Settings, format: Format) -> Result<(), Failure> {
    let path = settings.storage.path.join("db");
    match path.try_exists() {
        Ok(true) => {}
        // Opening would make an empty store and find nothing wrong with it.
        Ok(false) => return Err(Failure::new(Code::Unusable, format!("there is no store at {}", path.display()))),
        Err(error) => return Err(Failure::new(Code::Io, format!("cannot look at {}: {error}", path.display()))),
    }
    let store = open::store(settings, Rollback::Refuse)?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::new(Code::Io, format!("cannot start threads: {error}")))?;
    let report = runtime.block_on(check(store.clone())).map_err(|error| Failure::new(Code::Unusable, error))?;
    store.shutdown().map_err(|error| Failure::new(Code::Io, error))?;
    crate::print(&match format {
        Format::Text => report.to_text(),
        Format::Json => report.to_json(),
    })?;
    match report.violations() {
        0 => Ok(()),
        found => Err(Failure::new(Code::Findings, format!("the store breaks {found} promises"))),
    }
}

/// What every check works with.
struct Context {
    view: View,
    ids: Ids,
}

/// What a check has found: nothing, or one broken promise.
type Finding = Option<Violation>;

async fn check(store: Arc<RocksStore>) -> Result<Report, StoreError> {
    let context = Context { view: View::latest(&*store).await?, ids: Ids::new(store.store_key()) };
    let newest = store.frontier().base();
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let scan = tokio::task::spawn_blocking(move || {
        let mut report = Report::default();
        store.scan_all(|key: &RawKey, value| {
            report.count(key.keyspace());
            match Row::read(key, value, newest) {
                // The receiver goes away only after an error, which is what will be told.
                Ok(Some(row)) => drop(sender.blocking_send(row)),
                Ok(None) => {}
                Err(violation) => report.add(violation),
            }
        })?;
        Ok::<_, StoreError>(report)
    });
    let rows = futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let mut findings = std::pin::pin!(rows.map(|row| row.check(&context)).buffer_unordered(AT_A_TIME));
    let mut found = Report::default();
    while let Some(finding) = findings.next().await {
        match finding {
            Ok(finding) => finding.into_iter().for_each(|violation| found.add(violation)),
            // The scan tells the damaged row itself; this one leads to it.
            Err(StoreError::Corrupt { keyspace, detail }) => found.add(Violation {
                invariant: Invariant::I13,
                keyspace,
                detail: format!("another row leads to a damaged one: {detail}"),
            }),
            Err(error) => return Err(error),
        }
    }
    let mut report = scan.await.map_err(|error| StoreError::Unavailable(error.to_string().into()))??;
    report.absorb(found);
    Ok(report)
}

#[cfg(test)]
mod tests;
