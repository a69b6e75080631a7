//! A store whose conditions fail as often as a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hearth_store::memory::MemoryStore;
use hearth_store::{
    Batch, CommitError, Committed, Frontier, Lane, Limits, LoggedFact, Pos, Snapshot, Store, StoreError,
};

#[derive(Default)]
pub(super) struct Watched {
    inner: MemoryStore,
    /// How many of the next commits with conditions are refused.
    pub conflicts: AtomicU32,
}

impl Store for Watched {
    fn snapshot(&self, min: &Frontier) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        self.inner.snapshot(min)
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
