//! Opening what was written.

use futures::StreamExt;
use hearth_store::{Durability, Pos, Range, Snapshot};

use super::*;

#[tokio::test]
async fn a_clean_stop_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let committed = fill(&store, 300).await.unwrap();
    store.shutdown().unwrap();
    store.shutdown().unwrap();
    assert!(matches!(store.commit(batch(0)).await, Err(CommitError::Unavailable(_))));
    drop(store);
    let store = open_with(dir.path(), &RocksOptions::new([8; 32])).unwrap();
    assert_eq!(store.store_key(), [7; 32], "the key is made once");
    assert_eq!(store.frontier().base(), committed[299].first);
    assert_eq!(store.newest_fact(ANNA.lane()), Some(committed[299].first));
    assert_eq!(store.newest_fact(BELA.lane()), Some(Pos::ZERO));
    assert_eq!(present(&store, 300).await, 300);
    let next = fill(&store, 1).await.unwrap()[0].first;
    assert_eq!(next, committed[299].first.next(), "positions go on where they were");
}

#[tokio::test]
async fn the_log_is_the_same_from_memory_and_from_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let committed = fill(&store, 300).await.unwrap();
    let begin = Pos::new(committed[0].first.get() - 1);
    let mut from_memory = Vec::new();
    for from in committed.iter().map(|committed| committed.first).chain([begin]) {
        from_memory.push((from, store.tail(ANNA.lane(), from, 40).await.unwrap()));
    }
    drop(store);
    let store = open(dir.path()).unwrap();
    for (from, facts) in from_memory {
        let after = committed.iter().filter(|committed| committed.first > from).count();
        assert_eq!(facts.len(), after.min(40));
        assert_eq!(store.tail(ANNA.lane(), from, 40).await.unwrap(), facts);
    }
}

#[tokio::test]
async fn a_drop_without_a_stop_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let store = open(dir.path()).unwrap();
        assert_eq!(store.frontier().base().get(), hearth_store::Pos::FLOOR.get() + round * 50);
        let mut relaxed = Batch::new(BELA.lane());
        relaxed.put::<Heads>(&(BELA,), &round.to_string());
        relaxed.durability = Durability::Relaxed;
        fill(&store, 50).await.unwrap();
        store.commit(relaxed).await.unwrap();
        drop(store);
        let store = open(dir.path()).unwrap();
        let view = View::latest(&store).await.unwrap();
        assert_eq!(view.get::<Heads>(&(ANNA,)).await.unwrap(), Some("49".into()));
        assert_eq!(view.get::<Heads>(&(BELA,)).await.unwrap(), Some(round.to_string()));
    }
}

#[tokio::test]
async fn queued_batches_are_committed_before_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let queued: Vec<_> = (0..2000).map(|number| store.commit(batch(number))).collect();
    store.shutdown().unwrap();
    for answer in queued {
        answer.await.unwrap();
    }
    drop(store);
    assert_eq!(present(&open(dir.path()).unwrap(), 2000).await, 2000);
}

#[tokio::test]
async fn rows_that_are_not_in_memory_are_read_by_the_pool() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    fill(&store, 3000).await.unwrap();
    store.shutdown().unwrap();
    drop(store);
    // A cache that holds next to nothing: every look-up misses somewhere in the middle.
    let options = RocksOptions { block_cache_bytes: 40_000, ..RocksOptions::new([7; 32]) };
    let store = open_with(dir.path(), &options).unwrap();
    assert_eq!(present(&store, 3000).await, 3000);
    let snapshot = store.snapshot(&store.frontier()).await.unwrap();
    let at = |pos| hearth_store::raw_key::<Log>(&(ANNA, pos)).0.0;
    for order in [Order::Ascending, Order::Descending] {
        let mut next = Some(Range { start: at(Pos::ZERO), end: at(Pos::MAX), order, limit: 77 });
        let mut keys = Vec::new();
        while let Some(range) = next.take() {
            assert_eq!(range.limit, 77, "a page that was finished by the pool keeps its limit");
            let page = snapshot.scan_many(&[range]).await.unwrap().remove(0);
            keys.extend(page.rows.into_iter().map(|(key, _)| key));
            next = page.rest;
        }
        assert_eq!(keys.len(), 3000);
        assert!(if order == Order::Ascending { keys.is_sorted() } else { keys.is_sorted_by(|a, b| a > b) });
    }
}

#[tokio::test]
async fn snapshots_outlive_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    fill(&store, 10).await.unwrap();
    let view = View::latest(&store).await.unwrap();
    let mut watch = store.watch();
    drop(store);
    assert_eq!(view.get::<Heads>(&(ANNA,)).await.unwrap(), Some("9".into()));
    assert_eq!(view.page::<Log, _>(&(ANNA,), Order::Descending, 99).await.unwrap().len(), 10);
    assert!(matches!(open(dir.path()), Err(OpenError::InUse(_))), "the files are still open");
    while watch.next().await.is_some() {}
    drop(view);
    open(dir.path()).unwrap();
}

/// Views taken, read and dropped by many threads while the store is closed under them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn snapshots_are_released_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let store = Arc::new(open(dir.path()).unwrap());
        let reader = |store: Arc<RocksStore>| async move {
            for number in 0..50 {
                let view: Arc<dyn Snapshot> = store.snapshot(&store.frontier()).await.unwrap();
                store.commit(batch(number)).await.unwrap();
                let key = hearth_store::raw_key::<Heads>(&(ANNA,)).0;
                view.get_many(&[key]).await.unwrap();
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    drop(view);
                });
            }
        };
        let readers: Vec<_> = (0..4).map(|_| tokio::spawn(reader(Arc::clone(&store)))).collect();
        drop(store);
        for done in readers {
            done.await.unwrap();
        }
        // Views that were left to tasks are dropped soon.
        for _ in 0..100 {
            match open(dir.path()) {
                Err(OpenError::InUse(_)) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                other => {
                    drop(other.unwrap());
                    break;
                }
            }
        }
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)));
    assert!(error.to_string().contains("in use by another process"));
}

#[test]
fn another_servers_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for stop_cleanly in [true, false] {
        let store = open(dir.path()).unwrap();
        if stop_cleanly {
            store.shutdown().unwrap();
        }
        drop(store);
        let other = Identity { server_name: "other.test".into(), ..identity() };
        let error = RocksStore::open(dir.path(), &RocksOptions::new([7; 32]), KEYSPACES, &other).unwrap_err();
        assert!(matches!(error, OpenError::WrongServer { .. }), "{error}");
        assert!(error.to_string().contains("belongs to the server hearth.test, not to other.test"));
    }
    open(dir.path()).unwrap();
}

#[test]
fn a_newer_store_is_refused_unless_it_says_that_it_is_compatible() {
    let dir = tempfile::tempdir().unwrap();
    let versions = |schema_version, compat_version| {
        let identity = Identity { schema_version, compat_version, ..identity() };
        RocksStore::open(dir.path(), &RocksOptions::new([7; 32]), KEYSPACES, &identity).map(drop)
    };
    versions(3, 2).unwrap();
    versions(2, 1).unwrap();
    assert!(matches!(versions(1, 1), Err(OpenError::Newer { stored: 3, known: 1 })));
    versions(5, 4).unwrap();
    assert!(matches!(versions(3, 2), Err(OpenError::Newer { stored: 5, known: 3 })));
    versions(4, 4).unwrap();
}

#[test]
#[should_panic(expected = "has the number of another keyspace")]
fn two_keyspaces_with_one_number_are_refused() {
    let twice = [KEYSPACES[0], KEYSPACES[0]];
    let dir = tempfile::tempdir().unwrap();
    let _ = RocksStore::open(dir.path(), &RocksOptions::new([7; 32]), &twice, &identity());
}

#[tokio::test]
async fn a_full_scan_shows_every_row_and_fact() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    fill(&store, 40).await.unwrap();
    let mut seen = std::collections::BTreeMap::<u16, usize>::new();
    let count = store.scan_all(|key, _| *seen.entry(key.keyspace().0).or_default() += 1).unwrap();
    assert_eq!(seen, [(crate::CHANGE_LOG.0, 40), (0x10, 1), (0x11, 40), (0x14, 40)].into());
    assert_eq!(count, 121);
}
