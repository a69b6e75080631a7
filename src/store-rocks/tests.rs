//! The contract, and what only an engine with a disk can get wrong.

mod at_once;
mod damage;
mod disk;
mod reopen;

use std::path::Path;
use std::sync::Arc;

use hearth_store::conformance::{Heads, KEYSPACES, Log, Mailbox, Owned, Subject};
use hearth_store::{Batch, CommitError, Committed, Order, Owner, Store, View};

use crate::{Identity, OpenError, RocksOptions, RocksStore};

const ANNA: Owned = Owned::new(3, 1);
const BELA: Owned = Owned::new(9, 1);

fn identity() -> Identity {
    Identity { server_name: "hearth.test".into(), schema_version: 3, compat_version: 2 }
}

fn open_with(path: &Path, options: &RocksOptions) -> Result<RocksStore, OpenError> {
    RocksStore::open(path, options, KEYSPACES, &identity())
}

fn open(path: &Path) -> Result<RocksStore, OpenError> {
    open_with(path, &RocksOptions::new([7; 32]))
}

/// One batch with a guarded row, a row by position, a fact and a row elsewhere.
fn batch(number: usize) -> Batch {
    let mut batch = Batch::new(ANNA.lane());
    let pos = batch.next_pos();
    batch.put::<Heads>(&(ANNA,), &number.to_string());
    batch.put::<Log>(&(ANNA, pos), &format!("row {number} {}", "x".repeat(500)));
    batch.put_elsewhere::<Mailbox>(&(BELA, number.to_string()), &"mail".into());
    batch.fact(pos, number.to_string().into_bytes());
    batch
}

async fn fill(store: &RocksStore, count: usize) -> Result<Vec<Committed>, CommitError> {
    let commits: Vec<_> = (0..count).map(|number| store.commit(batch(number))).collect();
    futures::future::try_join_all(commits).await
}

/// How many of the first `count` batches are there; each must be there as a whole.
async fn present(store: &RocksStore, count: usize) -> usize {
    let view = View::latest(store).await.unwrap();
    let mut rows = 0;
    view.scan::<Log, _>(&(ANNA,), Order::Ascending, 100, |_, text| {
        assert!(text.starts_with(&format!("row {rows} ")), "a row is missing or out of order");
        rows += 1;
        std::ops::ControlFlow::Continue(())
    })
    .await
    .unwrap();
    let facts = store.tail(ANNA.lane(), hearth_store::Pos::ZERO, count + 1).await.unwrap();
    assert_eq!(facts.len(), rows);
    let mail: Vec<_> = (0..count).map(|number| (BELA, number.to_string())).collect();
    let mail = view.get_many::<Mailbox>(&mail).await.unwrap();
    assert_eq!(mail.iter().flatten().count(), rows);
    rows
}

fn make(_: u32) -> Subject {
    let directory = tempfile::tempdir().unwrap();
    (Arc::new(open(directory.path()).unwrap()), Box::new(directory))
}
hearth_store::conformance_tests!(make, attempts: 1);

/// A mistake that `commit` would have refused, put into the queue behind its back.
#[tokio::test]
async fn a_committer_that_panics_leaves_nobody_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let mut wrong = Batch::new(ANNA.lane());
    let key = hearth_store::raw_key::<Heads>(&(ANNA,)).0;
    wrong.ops.push(hearth_store::Op::Add { key, by: 1 });
    let (answer, answered) = tokio::sync::oneshot::channel();
    store.shared.queue.push(crate::queue::Waiting { batch: wrong, bytes: 0, answer }).unwrap();
    let behind = store.commit(batch(0));
    assert!(answered.await.is_err(), "there is no answer");
    assert!(matches!(behind.await, Err(CommitError::Unavailable(_))));
    assert!(matches!(store.commit(batch(1)).await, Err(CommitError::Unavailable(_))));
    assert!(store.failed().borrow().is_some(), "the process is told to end");
    assert!(store.shutdown().is_err());
}

#[test]
fn the_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/store");
    let _store = open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}
