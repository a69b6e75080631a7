//! A store that stops where a test says, so that races happen the same way each time.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hearth_store::memory::MemoryStore;
use hearth_store::{
    Batch, CommitError, Committed, Frontier, Lane, Limits, LoggedFact, Page, Pos, Range, RawKey, Snapshot, Store,
    StoreError,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Where to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the next commit happens.
    Commit,
    /// After the next commit, before anybody is told.
    Answer,
    /// In the next snapshot, before its first read.
    Read,
}

/// Holds one operation.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    reached: Arc<Notify>,
    open: Arc<Notify>,
}

impl Gate {
    /// Waits until somebody stands before it.
    pub(super) async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets it pass.
    pub(super) fn open(&self) {
        self.open.notify_one();
    }

    async fn pass(&self) {
        self.reached.notify_one();
        self.open.notified().await;
    }
}

#[derive(Debug)]
pub(super) struct GatedStore {
    inner: Arc<MemoryStore>,
    armed: Mutex<Option<(Place, Gate)>>,
}

impl GatedStore {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { inner: Arc::new(MemoryStore::new()), armed: Mutex::new(None) })
    }

    /// Stops the next operation of this kind.
    pub(super) fn hold(&self, place: Place) -> Gate {
        let gate = Gate::default();
        *self.armed.lock() = Some((place, gate.clone()));
        gate
    }

    fn gate(&self, place: Place) -> Option<Gate> {
        self.armed.lock().take_if(|(armed, _)| *armed == place).map(|(_, gate)| gate)
    }
}

impl Store for GatedStore {
    fn snapshot(&self, min: &Frontier) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        let min = min.clone();
        async move {
            let inner = self.inner.snapshot(&min).await?;
            let snapshot: Arc<dyn Snapshot> = match self.gate(Place::Read) {
                Some(gate) => Arc::new(GatedSnapshot { inner, gate: Mutex::new(Some(gate)) }),
                None => inner,
            };
            Ok(snapshot)
        }
        .boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, CommitError>> {
        if let Some(gate) = self.gate(Place::Commit) {
            let inner = Arc::clone(&self.inner);
            return async move {
                gate.pass().await;
                inner.commit(batch).await
            }
            .boxed();
        }
        let answer = self.inner.commit(batch);
        let gate = self.gate(Place::Answer);
        async move {
            if let Some(gate) = gate {
                gate.pass().await;
            }
            answer.await
        }
        .boxed()
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

struct GatedSnapshot {
    inner: Arc<dyn Snapshot>,
    gate: Mutex<Option<Gate>>,
}

impl Snapshot for GatedSnapshot {
    fn get_many<'a>(&'a self, keys: &'a [RawKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, StoreError>> {
        let gate = self.gate.lock().take();
        async move {
            if let Some(gate) = gate {
                gate.pass().await;
            }
            self.inner.get_many(keys).await
        }
        .boxed()
    }

    fn scan_many<'a>(&'a self, ranges: &'a [Range]) -> BoxFuture<'a, Result<Vec<Page>, StoreError>> {
        self.inner.scan_many(ranges)
    }

    fn frontier(&self) -> &Frontier {
        self.inner.frontier()
    }
}
