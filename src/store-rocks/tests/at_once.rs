//! Batches that need no sync and are written by their callers.

use std::task::Poll;

use hearth_store::conformance::{Heads, Owned};
use hearth_store::{Batch, CommitError, Durability, Owner, Store, View};

use super::{ANNA, BELA, batch, fill, open, open_with};
use crate::RocksOptions;

fn relaxed(owner: Owned, before: Option<&str>, after: &str) -> Batch {
    let mut batch = Batch::new(owner.lane());
    batch.durability = Durability::Relaxed;
    batch.check::<Heads>(&(owner,), before.map(ToOwned::to_owned).as_ref());
    batch.put::<Heads>(&(owner,), &after.to_owned());
    batch
}

async fn head(store: &dyn Store, owner: Owned) -> Option<String> {
    View::latest(store).await.unwrap().get::<Heads>(&(owner,)).await.unwrap()
}

#[tokio::test]
async fn with_nothing_to_wait_for_it_is_written_by_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    fill(&store, 3).await.unwrap();
    let before = store.frontier();
    let mut commit = store.commit(relaxed(BELA, None, "1"));
    assert!(matches!(futures::poll!(&mut commit), Poll::Ready(Ok(_))));
    assert_eq!(head(&store, BELA).await, Some("1".into()));
    let mut commit = store.commit(relaxed(BELA, None, "2"));
    assert!(matches!(futures::poll!(&mut commit), Poll::Ready(Err(CommitError::Conflict(_)))));
    assert_eq!(head(&store, BELA).await, Some("1".into()));
    assert_eq!(store.frontier(), before, "it has drawn no position");
    drop(store);
    let store = open(dir.path()).unwrap();
    assert_eq!(head(&store, BELA).await, Some("1".into()), "after a start too");
}

#[tokio::test]
async fn it_does_not_overtake_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for number in 0..300 {
        let first = store.commit(batch(number));
        let second = store.commit(relaxed(ANNA, Some(&number.to_string()), "relaxed"));
        first.await.unwrap();
        second.await.unwrap();
        assert_eq!(head(&store, ANNA).await, Some("relaxed".into()));
    }
}

#[tokio::test]
async fn what_has_to_read_from_disk_waits_for_the_committer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    fill(&store, 3000).await.unwrap();
    store.shutdown().unwrap();
    drop(store);
    // A cache that holds next to nothing.
    let options = RocksOptions { block_cache_bytes: 40_000, ..RocksOptions::new([7; 32]) };
    let store = open_with(dir.path(), &options).unwrap();
    let mut turns = 0;
    for _ in 0..20 {
        let mut commit = store.commit(relaxed(ANNA, Some("2999"), "2999"));
        turns += usize::from(futures::poll!(&mut commit).is_pending());
        if turns > 0 {
            commit.await.unwrap();
            break;
        }
    }
    assert_eq!(turns, 1, "the row was on disk");
    let wrong = store.commit(relaxed(ANNA, Some("7"), "8")).await;
    assert!(matches!(wrong, Err(CommitError::Conflict(_))));
    assert_eq!(head(&store, ANNA).await, Some("2999".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_of_both_kinds_see_their_own_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(open(dir.path()).unwrap());
    let writers = (0..6_u8).map(|writer| {
        let store = std::sync::Arc::clone(&store);
        tokio::spawn(async move {
            let owner = Owned::new(writer, 40 + writer);
            let mut before: Option<String> = None;
            for number in 0..200_u32 {
                let after = number.to_string();
                let mut batch = relaxed(owner, before.as_deref(), &after);
                if (number + u32::from(writer)).is_multiple_of(3) {
                    batch.durability = Durability::Synced;
                }
                store.commit(batch).await.unwrap();
                assert_eq!(head(&*store, owner).await, Some(after.clone()));
                before = Some(after);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}
