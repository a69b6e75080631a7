//! Views, ranges, the change log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;

use super::fixtures::{append, fill, set_head};
use super::{Heads, Log, Mailbox, Outcome, Owned, Upset};
use crate::{
    Batch, Frontier, Lane, Order, Owner, Page, Pos, Range, RawKey, Snapshot, Store, StoreError, View, raw_key,
};

const ANNA: Owned = Owned::new(3, 1);
const BELA: Owned = Owned::new(9, 1);
const CARL: Owned = Owned::new(3, 2);

/// # Errors
/// If it was upset.
pub async fn look_ups_are_answered_in_their_order(store: Arc<dyn Store>) -> Outcome {
    // More keys than an engine reads at once, from both profiles, some of them not there.
    let mut batch = Batch::new(ANNA.lane());
    for number in (0..600).step_by(2) {
        batch.put::<Mailbox>(&(ANNA, number.to_string()), &format!("value {number}"));
    }
    store.commit(batch).await?;
    fill(&*store, ANNA, 1).await?;
    let view = View::latest(&*store).await?;
    let keys: Vec<_> = (0..600).rev().map(|number| (ANNA, number.to_string())).collect();
    let found = view.get_many::<Mailbox>(&keys).await?;
    assert_eq!(found.len(), keys.len());
    for ((_, number), value) in keys.iter().zip(found) {
        let even = number.parse::<u32>().expect("a number").is_multiple_of(2);
        assert_eq!(value, even.then(|| format!("value {number}")));
    }
    let (log, _) = view.page::<Log, _>(&(ANNA,), Order::Ascending, 1).await?.remove(0);
    let mut reads = view.reads();
    let absent = reads.get::<Heads>(&(ANNA,));
    let row = reads.get::<Log>(&log);
    let even = reads.get::<Mailbox>(&(ANNA, "4".into()));
    let mut found = reads.run().await?;
    assert_eq!(found.take(absent)?, None);
    assert_eq!(found.take(row)?, Some("row 0".into()));
    assert_eq!(found.take(even)?, Some("value 4".into()));
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn a_snapshot_does_not_change(store: Arc<dyn Store>) -> Outcome {
    store.commit(set_head(ANNA, None, "old")).await?;
    fill(&*store, ANNA, 3).await?;
    let view = View::latest(&*store).await?;
    let before = view.page::<Log, _>(&(ANNA,), Order::Ascending, 99).await?;
    let mut batch = set_head(ANNA, Some("old"), "new");
    batch.delete_prefix::<Log, _>(&(ANNA,));
    append(&mut batch, ANNA, "after");
    store.commit(batch).await?;
    assert_eq!(view.get::<Heads>(&(ANNA,)).await?, Some("old".into()));
    assert_eq!(view.page::<Log, _>(&(ANNA,), Order::Ascending, 99).await?, before);
    let now = View::latest(&*store).await?;
    assert_eq!(now.page::<Log, _>(&(ANNA,), Order::Ascending, 99).await?.len(), 1);
    assert!(view.frontier().base() < now.frontier().base());
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn a_snapshot_is_as_new_as_asked(store: Arc<dyn Store>) -> Outcome {
    for _ in 0..20 {
        let committed = fill(&*store, ANNA, 1).await?.remove(0);
        let view = View::at_least(&*store, &Frontier::uniform(committed.first)).await?;
        assert!(view.frontier().of(ANNA.lane()) >= committed.first);
        let newest = view.page::<Log, _>(&(ANNA,), Order::Descending, 1).await?;
        assert_eq!(newest.first().map(|((_, pos), _)| *pos), Some(committed.first));
    }
    let never = Frontier::uniform(Pos::MAX);
    assert!(matches!(store.snapshot(&never).await, Err(StoreError::Unavailable(_) | StoreError::SnapshotExpired)));
    Ok(())
}

async fn all_pages(snapshot: &dyn Snapshot, range: Range) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError> {
    let (mut rows, mut next, limit) = (Vec::new(), Some(range.clone()), range.limit);
    while let Some(range) = next.take() {
        let Page { rows: more, rest } = snapshot.scan_many(&[range]).await?.remove(0);
        assert!(more.len() <= limit, "a page is within its limit");
        assert!(!more.is_empty() || rest.is_none(), "a page without rows is the last one");
        rows.extend(more);
        next = rest;
    }
    Ok(rows)
}

/// # Errors
/// If it was upset.
pub async fn ranges_are_read_from_both_ends_and_resumed(store: Arc<dyn Store>) -> Outcome {
    fill(&*store, ANNA, 50).await?;
    fill(&*store, CARL, 5).await?;
    fill(&*store, BELA, 5).await?;
    let snapshot = store.snapshot(&store.frontier()).await?;
    let key = |owner, pos| raw_key::<Log>(&(owner, pos)).0.0;
    let whole = |order, limit| Range { start: key(ANNA, Pos::ZERO), end: key(ANNA, Pos::MAX), order, limit };
    let expected = all_pages(&*snapshot, whole(Order::Ascending, 1000)).await?;
    assert_eq!(expected.len(), 50, "the rows of the owner and of nobody else");
    assert!(expected.is_sorted(), "smallest key first");
    let reversed: Vec<_> = expected.iter().rev().cloned().collect();
    for limit in [1, 7, 50, 51] {
        assert_eq!(all_pages(&*snapshot, whole(Order::Ascending, limit)).await?, expected);
        assert_eq!(all_pages(&*snapshot, whole(Order::Descending, limit)).await?, reversed);
    }
    // Half open, and empty when upside down.
    let (third, fifth) = (expected[2].0.clone(), expected[4].0.clone());
    let inner = Range { start: third.clone(), end: fifth.clone(), order: Order::Ascending, limit: 9 };
    assert_eq!(all_pages(&*snapshot, inner).await?, expected[2..4]);
    let nothing = Range { start: fifth, end: third, order: Order::Ascending, limit: 9 };
    assert_eq!(all_pages(&*snapshot, nothing).await?, []);
    let view = View::latest(&*store).await?;
    let (_, from) = view.page::<Log, _>(&(ANNA,), Order::Ascending, 10).await?[9].0;
    let after = view.page_between::<Log, _>(&(ANNA,), from.next().., Order::Ascending, 3).await?;
    assert_eq!(after.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["row 10", "row 11", "row 12"]);
    let log = view.page::<Log, _>(&(ANNA,), Order::Ascending, 50).await?;
    assert_eq!(view.page_within::<Log>(&log[7].0, &log[11].0, 50).await?, log[7..=11]);
    assert_eq!(view.page_within::<Log>(&log[7].0, &log[11].0, 2).await?, log[7..9]);
    assert_eq!(view.page_within::<Log>(&log[49].0, &log[49].0, 50).await?, log[49..]);
    assert_eq!(view.page_within::<Log>(&log[11].0, &log[7].0, 50).await?, []);
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn many_ranges_are_answered_in_their_order(store: Arc<dyn Store>) -> Outcome {
    let owners: Vec<_> = (0..40).map(|number| Owned::new(number % 32, number)).collect();
    for (count, owner) in owners.iter().enumerate() {
        fill(&*store, *owner, count % 5).await?;
    }
    let snapshot = store.snapshot(&store.frontier()).await?;
    let range = |owner: &Owned| {
        let at = |pos| raw_key::<Log>(&(*owner, pos)).0.0;
        Range { start: at(Pos::ZERO), end: at(Pos::MAX), order: Order::Descending, limit: 3 }
    };
    let ranges: Vec<_> = owners.iter().map(range).collect();
    let pages = snapshot.scan_many(&ranges).await?;
    assert_eq!(pages.len(), ranges.len());
    for (count, page) in pages.iter().enumerate() {
        assert_eq!(page.rows.len(), (count % 5).min(3));
        assert_eq!(page.rest.is_some(), count % 5 > 3);
        let owner = raw_key::<Log>(&(owners[count], Pos::ZERO)).0.0;
        let own = |key: &[u8]| key.starts_with(&owner[..RawKey::HEADER + 4]);
        assert!(page.rows.iter().all(|(key, _)| own(key)));
    }
    Ok(())
}

/// Writers in three owners, a reader that follows one lane meanwhile with small pages.
///
/// # Errors
/// If it was upset.
pub async fn the_tail_is_in_order_without_gaps(store: Arc<dyn Store>) -> Outcome {
    let write = |owner, count| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { fill(&*store, owner, count).await })
    };
    let writers = [write(ANNA, 60), write(CARL, 60), write(BELA, 60)];
    let mut seen = Vec::new();
    let mut from = Pos::ZERO;
    for _ in 0..30 {
        let facts = store.tail(ANNA.lane(), from, 3).await?;
        assert!(facts.len() <= 3);
        from = facts.last().map_or(from, |fact| fact.pos);
        seen.extend(facts);
        tokio::task::yield_now().await;
    }
    let mut expected = Vec::new();
    for (writer, committed) in join_all(writers).await.into_iter().enumerate() {
        let positions = committed.expect("no writer panics")?;
        if writer < 2 {
            expected.extend(positions.iter().map(|committed| committed.first));
        }
    }
    loop {
        let facts = store.tail(ANNA.lane(), from, 7).await?;
        let Some(last) = facts.last() else { break };
        from = last.pos;
        seen.extend(facts);
    }
    expected.sort_unstable();
    assert_eq!(seen.iter().map(|fact| fact.pos).collect::<Vec<_>>(), expected);
    assert!(seen.iter().all(|fact| fact.body.starts_with(b"row ")));
    assert_eq!(store.tail(ANNA.lane(), Pos::MAX, 7).await?, []);
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn the_newest_fact_is_never_behind_the_frontier(store: Arc<dyn Store>) -> Outcome {
    for lane in Lane::all() {
        assert!(matches!(store.newest_fact(lane), None | Some(Pos::ZERO)), "nothing has happened yet");
    }
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move { fill(&*store, ANNA, 200).await }
    });
    while !writer.is_finished() {
        // Every position is a fact of this lane here.
        let frontier = store.frontier().of(ANNA.lane());
        let began = frontier > Pos::FLOOR;
        assert!(!began || store.newest_fact(ANNA.lane()).is_none_or(|newest| newest >= frontier));
        tokio::task::yield_now().await;
    }
    let committed = writer.await.expect("the writer does not panic")?;
    let last = committed.last().map(|committed| committed.first);
    assert!(store.newest_fact(ANNA.lane()).is_none_or(|newest| Some(newest) == last));
    assert!(matches!(store.newest_fact(BELA.lane()), None | Some(Pos::ZERO)));
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn a_watcher_hears_that_a_lane_moved(store: Arc<dyn Store>) -> Outcome {
    let mut watch = store.watch();
    fill(&*store, ANNA, 3).await?;
    match tokio::time::timeout(Duration::from_secs(2), watch.next()).await {
        Ok(Some(lane)) => assert_eq!(lane, ANNA.lane()),
        Ok(None) => panic!("the stream ended while the store is open"),
        Err(_) => return Err(Upset::NoHint),
    }
    Ok(())
}
