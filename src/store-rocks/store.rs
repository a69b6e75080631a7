//! The store as its users see it.

use std::sync::Arc;
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hearth_store::{
    Batch, CommitError, Committed, Durability, Frontier, Lane, Limits, LoggedFact, Op, Order, Pos, RawKey, Snapshot,
    Store, StoreError,
};
use parking_lot::Mutex;
use rocksdb::{FlushOptions, ReadOptions};
use tokio::sync::{oneshot, watch};

use crate::acknowledged::{Acknowledger, Ending};
use crate::committer::{DeathNotice, Shared};
use crate::engine::{fact_pos, fact_range};
use crate::meta::OWN;
use crate::queue::Waiting;
use crate::snapshot::RocksSnapshot;
use crate::writer::{Outcome, Writer};

/// Bytes of a batch that may be written in the caller's thread: more is work for a thread of its own.
const AT_ONCE_BYTES: usize = 16 << 10;

/// A store in a directory. Dropping it without [`Self::shutdown`] loses nothing that was acknowledged;
/// the next start then replays the log.
#[derive(Debug)]
pub struct RocksStore {
    pub(crate) shared: Arc<Shared>,
    /// Used by whoever has the queue's turn.
    pub(crate) writer: Arc<Mutex<Writer>>,
    pub(crate) threads: Mutex<Option<Threads>>,
    pub(crate) store_key: [u8; 32],
    pub(crate) rolled_back: Option<u64>,
}

/// What has to be joined.
#[derive(Debug)]
pub(crate) struct Threads {
    pub(crate) committer: JoinHandle<()>,
    pub(crate) marks: Acknowledger,
}

impl RocksStore {
    /// A secret of this store, made when it was created.
    pub const fn store_key(&self) -> [u8; 32] {
        self.store_key
    }

    /// How many acknowledged writes were missing at this start, if that was accepted.
    pub const fn rolled_back(&self) -> Option<u64> {
        self.rolled_back
    }

    /// Becomes `Some(why)` when the store can never write again: the process should end and start
    /// anew, because only replaying the log tells what the disk has.
    pub fn failed(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.shared.failed.subscribe()
    }

    /// Commits what waits, refuses what follows, writes everything out and ends all threads, so that
    /// the next start has nothing to replay. Blocks: seconds with a slow disk. Does nothing if it has
    /// been called before.
    ///
    /// # Errors
    /// If something could not be written out. Nothing that was acknowledged is lost then either.
    pub fn shutdown(&self) -> Result<(), StoreError> {
        self.stop(Shared::flush)
    }

    /// Brings the outcomes of commits to those who wait for them, for as long as it is polled: to be run as a task where
    /// most of them wait. Without it they are woken from another thread, which costs a little more, and so they are while
    /// it is not `quiet`: where many wait for what is committed, to wake a second worker is worth it.
    ///
    /// # Errors
    /// If there is no pipe to be had; then all is as without it.
    pub fn bring_outcomes<Q>(&self, quiet: Q) -> impl Future<Output = std::io::Result<()>> + Send + use<Q>
    where
        Q: Fn() -> bool + Send + Sync + 'static,
    {
        Arc::clone(&self.shared.courier).run(quiet)
    }

    /// Shows every row of every keyspace and of the change log ([`crate::CHANGE_LOG`]) to `visit`, in no
    /// particular order of keyspaces, and gives their number. Reads from disk with check sums
    /// verified; blocks.
    ///
    /// # Errors
    /// At the first damaged block.
    pub fn scan_all(&self, mut visit: impl FnMut(&RawKey, &[u8])) -> Result<u64, StoreError> {
        let engine = &self.shared.engine;
        let families = engine.families();
        let snapshot = engine.db.snapshot();
        let mut key = RawKey(Vec::new());
        let mut count = 0;
        for family in [families.scan, families.point] {
            let mut how = ReadOptions::default();
            how.set_snapshot(&snapshot);
            how.set_verify_checksums(true);
            how.fill_cache(false);
            how.set_readahead_size(1 << 20);
            let mut rows = engine.db.raw_iterator_cf_opt(family, how);
            rows.seek_to_first();
            while let Some((found, value)) = rows.item() {
                key.0.clear();
                key.0.extend_from_slice(found);
                if found.first() != Some(&OWN) {
                    visit(&key, value);
                    count += 1;
                }
                rows.next();
            }
            rows.status().map_err(|error| engine.damaged(&key.0, &error))?;
        }
        Ok(count)
    }

    fn stop(&self, write_out: impl FnOnce(&Shared) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let Some(threads) = self.threads.lock().take() else { return Ok(()) };
        self.shared.queue.close("the store is shutting down".into());
        let panicked = threads.committer.join().is_err();
        let written = write_out(&self.shared);
        let clean = written.is_ok() && !panicked && self.shared.failed.borrow().is_none();
        let marked = threads.marks.stop(if clean { Ending::Clean } else { Ending::Dirty });
        self.shared.pool.close();
        self.shared.courier.signals().close();
        written?;
        if panicked {
            return Err(StoreError::Unavailable("the committer has panicked".into()));
        }
        marked.map_err(|error| StoreError::Unavailable(error.to_string().into()))
    }

    fn latest(&self) -> Arc<RocksSnapshot> {
        Arc::clone(&self.shared.latest.read())
    }
}

impl Shared {
    fn flush(&self) -> Result<(), StoreError> {
        let families = self.engine.families();
        let mut how = FlushOptions::default();
        how.set_wait(true);
        let flushed = self.engine.db.flush_cfs_opt(&[families.scan, families.point], &how);
        flushed.map_err(|error| self.engine.damaged(&[], &error))
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        // What is not flushed is in the log: synced, so that relaxed commits survive a power loss too.
        let sync_log = |shared: &Shared| {
            shared.engine.db.flush_wal(true).map_err(|error| shared.engine.damaged(&[], &error))?;
            Err(StoreError::Unavailable("not flushed".into()))
        };
        let _: Result<(), StoreError> = self.stop(sync_log);
    }
}

impl Store for RocksStore {
    fn snapshot(&self, min: &Frontier) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        let view = self.latest();
        let reached = view.frontier().reaches(min);
        let answer: Result<Arc<dyn Snapshot>, _> =
            if reached { Ok(view) } else { Err(StoreError::Unavailable("not committed yet".into())) };
        async { answer }.boxed()
    }

    fn commit(&self, mut batch: Batch) -> BoxFuture<'static, Result<Committed, CommitError>> {
        batch.assert_well_formed();
        self.assert_known(&batch);
        if let Err(error) = batch.fits(Limits::EMBEDDED) {
            return async { Err(error) }.boxed();
        }
        let bytes = batch.bytes();
        if let Some(outcome) = self.commit_now(&mut batch, bytes) {
            return async {
                // Nothing makes its caller wait, so a loop of commits would keep a thread to itself.
                tokio::task::coop::consume_budget().await;
                outcome
            }
            .boxed();
        }
        let (answer, answered) = oneshot::channel();
        match self.shared.queue.push(Waiting { batch, bytes, answer }) {
            Err(error) => async { Err(error) }.boxed(),
            Ok(()) => async {
                let gone = |_| Err(CommitError::Unavailable("the committer has ended".into()));
                answered.await.unwrap_or_else(gone)
            }
            .boxed(),
        }
    }

    fn tail(&self, lane: Lane, from: Pos, limit: usize) -> BoxFuture<'_, Result<Vec<LoggedFact>, StoreError>> {
        let view = self.latest();
        // In memory there may be more than the view has.
        let known = self.shared.facts.between(lane, (from, view.frontier().of(lane)), limit);
        async move {
            if let Some(known) = known {
                return Ok(known);
            }
            let range = fact_range(lane, from, Order::Ascending, limit);
            let pages = view.scan_many(std::slice::from_ref(&range)).await?;
            let rows = pages.into_iter().flat_map(|page| page.rows);
            rows.map(|(key, body)| Ok(LoggedFact { pos: fact_pos(&key)?, body })).collect()
        }
        .boxed()
    }

    fn newest_fact(&self, lane: Lane) -> Option<Pos> {
        Some(self.shared.facts.newest(lane))
    }

    fn watch(&self) -> BoxStream<'static, Lane> {
        self.shared.courier.signals().watch()
    }

    fn frontier(&self) -> Frontier {
        self.shared.latest.read().frontier().clone()
    }

    fn limits(&self) -> Limits {
        Limits::EMBEDDED
    }
}

impl RocksStore {
    /// Commits a batch that needs no sync in the caller's thread, if the committer has nothing to do and nothing has to
    /// be read from disk: some microseconds of work, where two threads would have to wake each other.
    fn commit_now(&self, batch: &mut Batch, bytes: usize) -> Option<Outcome> {
        // One without rows asks whether the committer lives.
        let light = !batch.ops.is_empty() && bytes <= AT_ONCE_BYTES;
        // In a destructor while something else panics, it would be taken for a panic of the writer.
        if batch.durability != Durability::Relaxed || batch.id.is_some() || !light || std::thread::panicking() {
            return None;
        }
        let _notice = DeathNotice(&self.shared);
        let turn = self.shared.queue.turn()?;
        let (outcome, lanes) = self.writer.lock().commit_now(batch, bytes)?;
        drop(turn);
        self.shared.courier.signals().moved(lanes);
        Some(outcome)
    }

    /// A keyspace the store was not opened with, or a check that the committer could not verify
    /// within a group, is a mistake in the program.
    fn assert_known(&self, batch: &Batch) {
        let layout = &self.shared.engine.layout;
        for op in batch.ops.iter().chain(&batch.outbox) {
            let key = op.first_key();
            let known = layout.get(key);
            assert!(known.is_some(), "no such keyspace: {key:?}");
            // The committer does not know sums, so no check could be verified within a group.
            let sum = matches!(op, Op::Add { .. }) && known.is_some_and(|def| def.guarded);
            assert!(!sum, "counters cannot be guarded: {key:?}");
        }
        for check in &batch.checks {
            let (hearth_store::Check::Absent(key) | hearth_store::Check::Is(key, _)) = check;
            assert!(layout.get(key).is_some_and(|def| def.guarded), "not a guarded keyspace: {key:?}");
        }
    }
}
