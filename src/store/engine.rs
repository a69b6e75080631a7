//! What an engine must do.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::{Batch, Frontier, Lane, LoggedFact, Order, Pos, RawKey};

/// An engine: RocksDB, memory, later a database server.
pub trait Store: Send + Sync + 'static {
    /// One consistent view of every lane, at least as new as `min`.
    fn snapshot(&self, min: &Frontier) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>>;
    /// Applies all of `batch` or none of it. The batch is queued when this returns, in call order;
    /// the future is ready when it is durable. Dropping the future does not take the batch back.
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, CommitError>>;
    /// At most `limit` facts of `lane` after `from`, in position order, without gaps.
    fn tail(&self, lane: Lane, from: Pos, limit: usize) -> BoxFuture<'_, Result<Vec<LoggedFact>, StoreError>>;
    /// Position of the newest fact of `lane`, at least for what [`Self::frontier`] has shown before the
    /// call: whoever has read that far need not ask for the tail. `None`: this engine cannot say.
    fn newest_fact(&self, _lane: Lane) -> Option<Pos> {
        None
    }
    /// Lanes that moved. A hint: items may be lost or merged, so readers also poll.
    fn watch(&self) -> BoxStream<'static, Lane>;
    /// How far each lane has been committed.
    fn frontier(&self) -> Frontier;
    /// Sizes this engine accepts.
    fn limits(&self) -> Limits;
}

/// One consistent view. There is no single look-up, so that every engine must batch.
pub trait Snapshot: Send + Sync {
    /// `result[i]` belongs to `keys[i]`.
    fn get_many<'a>(&'a self, keys: &'a [RawKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, StoreError>>;
    /// `result[i]` belongs to `ranges[i]`.
    fn scan_many<'a>(&'a self, ranges: &'a [Range]) -> BoxFuture<'a, Result<Vec<Page>, StoreError>>;
    /// The positions this view contains.
    fn frontier(&self) -> &Frontier;
}

/// Rows with `start <= key < end`, at most `limit` of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First key that may be in it.
    pub start: Vec<u8>,
    /// First key after it.
    pub end: Vec<u8>,
    /// From which end to read.
    pub order: Order,
    /// How many rows at the most.
    pub limit: usize,
}

impl Range {
    /// What is left of it after `last`, a key that was read from it.
    #[must_use]
    pub fn after(&self, last: &[u8]) -> Self {
        let mut rest = self.clone();
        match self.order {
            Order::Ascending => rest.start = [last, &[0]].concat(),
            Order::Descending => rest.end = last.to_vec(),
        }
        rest
    }
}

/// Rows of a [`Range`], in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values.
    pub rows: Vec<(Vec<u8>, Bytes)>,
    /// What is left of the range, if the limit cut it short. It may turn out to be empty.
    pub rest: Option<Range>,
}

/// What a commit was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The batch's slot 0; slot `n` is `first + n`.
    pub first: Pos,
    /// How many positions.
    pub count: u32,
}

impl Committed {
    /// The position that `pending`, a result of [`Batch::next_pos`], has become.
    pub fn resolve(&self, pending: Pos) -> Pos {
        pending.slot().map_or(pending, |slot| Pos::new(self.first.get() + u64::from(slot)))
    }
}

/// Sizes an engine accepts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one value.
    pub value_bytes: usize,
    /// Of all keys and values of a batch.
    pub batch_bytes: usize,
}

impl Limits {
    /// What the embedded engines accept. A value holds the largest event (64 KiB) with its fixed
    /// fields; a batch holds the creation of a room many times over.
    pub const EMBEDDED: Self = Self { value_bytes: 90_000, batch_bytes: 4 << 20 };
}

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The snapshot is older than the engine keeps: take a new one.
    #[error("the snapshot has expired")]
    SnapshotExpired,
    /// The engine cannot be reached or has stopped.
    #[error("the store is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// What was read is damaged.
    #[error("the store is damaged in {keyspace}: {detail}")]
    Corrupt { keyspace: &'static str, detail: Arc<str> },
}

/// Why a commit did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// These checks (by index) did not hold; nothing was written. Plan again on a new view.
    #[error("the batch's conditions {0:?} do not hold")]
    Conflict(Vec<usize>),
    /// The batch is over the engine's limits; nothing was written.
    #[error("the batch has {bytes} bytes, {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    /// There is no space; nothing was acknowledged and reads go on. Writes resume with space.
    #[error("the disk is full")]
    Full,
    /// The engine has stopped or cannot be reached.
    #[error("the store is unavailable: {0}")]
    Unavailable(Arc<str>),
}
