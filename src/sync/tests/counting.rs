//! A store that tells how much is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hearth_accounts::Requester;
use hearth_store::memory::MemoryStore;
use hearth_store::{
    Batch, CommitError, Committed, Frontier, Lane, Limits, LoggedFact, Page, Pos, Range, RawKey, Snapshot, Store,
    StoreError,
};
use ruma_common::RoomId;

use crate::testing::{World, bodies, joined, next};

/// Counts keys and ranges that are read.
#[derive(Default)]
pub(super) struct CountingStore {
    inner: MemoryStore,
    /// How many so far.
    pub reads: Arc<AtomicU64>,
}

struct CountingSnapshot {
    inner: Arc<dyn Snapshot>,
    reads: Arc<AtomicU64>,
}

impl Store for CountingStore {
    fn snapshot(&self, min: &Frontier) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        let min = min.clone();
        Box::pin(async move {
            let inner = self.inner.snapshot(&min).await?;
            let snapshot: Arc<dyn Snapshot> = Arc::new(CountingSnapshot { inner, reads: Arc::clone(&self.reads) });
            Ok(snapshot)
        })
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, CommitError>> {
        self.inner.commit(batch)
    }

    fn tail(&self, lane: Lane, from: Pos, limit: usize) -> BoxFuture<'_, Result<Vec<LoggedFact>, StoreError>> {
        self.inner.tail(lane, from, limit)
    }

    fn watch(&self) -> BoxStream<'static, Lane> {
        self.inner.watch()
    }

    fn frontier(&self) -> Frontier {
        self.inner.frontier()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

impl Snapshot for CountingSnapshot {
    fn get_many<'a>(&'a self, keys: &'a [RawKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, StoreError>> {
        self.reads.fetch_add(keys.len() as u64, Ordering::Relaxed);
        self.inner.get_many(keys)
    }

    fn scan_many<'a>(&'a self, ranges: &'a [Range]) -> BoxFuture<'a, Result<Vec<Page>, StoreError>> {
        self.reads.fetch_add(ranges.len() as u64, Ordering::Relaxed);
        self.inner.scan_many(ranges)
    }

    fn frontier(&self) -> &Frontier {
        self.inner.frontier()
    }
}

/// What `who` reads to be told of a message in `room`.
pub(super) async fn reads_of_news(
    world: &World,
    reads: &AtomicU64,
    who: &Requester,
    (room, by): (&RoomId, &Requester),
) -> u64 {
    let since = next(&world.now(who, None, "{}").await);
    world.say(room, by, "news").await;
    // Now whatever follows the log has read what it needs.
    world.now(by, None, "{}").await;
    let before = reads.load(Ordering::Relaxed);
    let answer = world.now(who, Some(&since), "{}").await;
    let after = reads.load(Ordering::Relaxed);
    assert_eq!(bodies(joined(&answer, room)), ["news"]);
    assert!(answer["rooms"]["invite"].is_null(), "they were told before");
    after - before
}
