//! A store that counts what is read of it, and whose conditions fail as often as a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hearth_store::memory::MemoryStore;
use hearth_store::{
    Batch, CommitError, Committed, Frontier, Lane, Limits, LoggedFact, Page, Pos, Range, RawKey, Snapshot, Store,
    StoreError,
};

#[derive(Default)]
pub(super) struct Watched {
    inner: MemoryStore,
    /// Rows asked for; a range counts for the rows that it gave, and for one at least.
    reads: Arc<AtomicUsize>,
    /// How many of the next commits with conditions are refused.
    pub conflicts: AtomicU32,
}

impl Watched {
    /// How many rows were read since the last time.
    pub(super) fn reads(&self) -> usize {
        self.reads.swap(0, Ordering::Relaxed)
    }
}

impl Store for Watched {
    fn snapshot(&self, min: &Frontier) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        let min = min.clone();
        async move {
            let inner = self.inner.snapshot(&min).await?;
            let snapshot: Arc<dyn Snapshot> = Arc::new(WatchedSnapshot { inner, reads: Arc::clone(&self.reads) });
            Ok(snapshot)
        }
        .boxed()
    }
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, CommitError>> {
        let refuse = |left: u32| left.checked_sub(1);
        if !batch.checks.is_empty() && self.conflicts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuse).is_ok()
        {
            let all = (0..batch.checks.len()).collect();
            return async { Err(CommitError::Conflict(all)) }.boxed();
        }
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

struct WatchedSnapshot {
    inner: Arc<dyn Snapshot>,
    reads: Arc<AtomicUsize>,
}

impl Snapshot for WatchedSnapshot {
    fn get_many<'a>(&'a self, keys: &'a [RawKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, StoreError>> {
        self.reads.fetch_add(keys.len(), Ordering::Relaxed);
        self.inner.get_many(keys)
    }
    fn scan_many<'a>(&'a self, ranges: &'a [Range]) -> BoxFuture<'a, Result<Vec<Page>, StoreError>> {
        async move {
            let pages = self.inner.scan_many(ranges).await?;
            let rows: usize = pages.iter().map(|page| page.rows.len().max(1)).sum();
            self.reads.fetch_add(rows, Ordering::Relaxed);
            Ok(pages)
        }
        .boxed()
    }
    fn frontier(&self) -> &Frontier {
        self.inner.frontier()
    }
}
