//! The one thread that writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_store::{
    Batch, CommitError, Committed, Durability, Frontier, Lane, LoggedFact, Op, Pos, RecentIds, Signals,
};
use metrics::{Counter, Gauge, Histogram};
use parking_lot::RwLock;
use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::watch;

use crate::acknowledged::AcknowledgeHandle;
use crate::engine::{Engine, Families, fact_key};
use crate::facts::RecentFacts;
use crate::meta::{PROGRESS, Progress};
use crate::overlay::Overlay;
use crate::pool::ReaderPool;
use crate::queue::{Patience, Queue, Waiting};
use crate::snapshot::RocksSnapshot;

/// Batches whose answer is found again when they are repeated.
const RECENT_IDS: usize = 8192;

/// The longest a group waits for more batches; a disk that takes longer than eight times this to sync
/// is slow anyway.
const LONGEST_PATIENCE: Duration = Duration::from_micros(500);

/// What the committer and the store share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) pool: Arc<ReaderPool>,
    pub(crate) queue: Queue,
    /// The newest view. Only the committer replaces it.
    pub(crate) latest: RwLock<Arc<RocksSnapshot>>,
    pub(crate) signals: Signals,
    /// The newest facts of each lane.
    pub(crate) facts: RecentFacts,
    /// Why nothing is written any more.
    pub(crate) failed: watch::Sender<Option<Arc<str>>>,
}

pub(crate) struct Committer {
    shared: Arc<Shared>,
    marks: AcknowledgeHandle,
    progress: Progress,
    recent: RecentIds,
    numbers: Numbers,
}

/// One group being put together.
struct Group<'a> {
    families: Families<'a>,
    overlay: Overlay<'a>,
    rows: WriteBatch,
    progress: Progress,
    synced: bool,
    lanes: u32,
    /// Facts in order of their positions.
    facts: Vec<(Lane, LoggedFact)>,
}

struct Numbers {
    commits: Counter,
    conflicts: Counter,
    group: Histogram,
    write: Histogram,
    depth: Gauge,
}

impl Numbers {
    fn new() -> Self {
        Self {
            commits: metrics::counter!("hearth_store_commits_total"),
            conflicts: metrics::counter!("hearth_store_conflicts_total"),
            group: metrics::histogram!("hearth_store_group_batches"),
            write: metrics::histogram!("hearth_store_write_seconds"),
            depth: metrics::gauge!("hearth_store_queue_depth"),
        }
    }
}

/// A committer that panics (a mistake in this file) must not leave callers waiting for ever.
struct DeathNotice(Arc<Shared>);

impl Drop for DeathNotice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why: Arc<str> = "the committer has panicked".into();
            self.0.failed.send_replace(Some(Arc::clone(&why)));
            self.0.queue.abandon(why);
        }
    }
}

type Outcome = Result<Committed, CommitError>;

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, marks: AcknowledgeHandle, progress: Progress) -> Self {
        Self { shared, marks, progress, recent: RecentIds::new(RECENT_IDS), numbers: Numbers::new() }
    }

    /// Runs until the queue is closed and empty, or the disk fails.
    pub(crate) fn run(mut self) {
        let _notice = DeathNotice(Arc::clone(&self.shared));
        let mut waiting = Vec::new();
        let mut patience = Patience::default();
        loop {
            self.shared.queue.take(&mut waiting, patience);
            if waiting.is_empty() {
                return;
            }
            let began = Instant::now();
            let outcomes = self.commit(&mut waiting);
            // Those who are answered now and those who came meanwhile: all may be in the next group.
            // Writers that do not come back cost this much once, because the next group is smaller.
            let synced = waiting.iter().filter(|item| item.needs_sync()).count();
            if synced > 0 {
                let writers = synced + self.shared.queue.syncs();
                patience = Patience { writers, time: (began.elapsed() / 8).min(LONGEST_PATIENCE) };
            }
            for (item, outcome) in waiting.drain(..).zip(outcomes) {
                // Whoever asked may have gone; the batch is committed all the same.
                let _ = item.answer.send(outcome);
            }
        }
    }

    /// Commits what can be committed of `waiting`; `result[i]` belongs to `waiting[i]`.
    fn commit(&mut self, waiting: &mut [Waiting]) -> Vec<Outcome> {
        let failed = self.shared.failed.borrow().clone();
        if let Some(why) = failed {
            return waiting.iter().map(|_| Err(CommitError::Unavailable(Arc::clone(&why)))).collect();
        }
        let engine = Arc::clone(&self.shared.engine);
        let bytes: usize = waiting.iter().map(|item| item.bytes + 256).sum();
        let mut group = Group::new(&engine, bytes, self.progress);
        let mut outcomes = Vec::with_capacity(waiting.len());
        let mut new_ids = Vec::new();
        for item in waiting.iter_mut() {
            let id = item.batch.id;
            let outcome = match self.recent.find(id) {
                Some(first_answer) => Ok(first_answer),
                None => group.add(&mut item.batch).inspect(|committed| {
                    self.recent.remember(id, *committed);
                    new_ids.extend(id);
                }),
            };
            outcomes.push(outcome);
        }
        if let Err(error) = self.write(group) {
            for id in new_ids {
                self.recent.forget(id);
            }
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                *outcome = Err(error.clone());
            }
        }
        self.count(&outcomes);
        outcomes
    }

    /// Writes the group and publishes it.
    fn write(&mut self, group: Group<'_>) -> Result<(), CommitError> {
        if group.progress == self.progress {
            return Ok(());
        }
        let Group { families, mut rows, progress, synced, lanes, facts, .. } = group;
        rows.put_cf(families.scan, PROGRESS, progress.to_bytes());
        let mut how = WriteOptions::default();
        how.set_sync(synced);
        let began = Instant::now();
        self.shared.engine.db.write_opt(rows, &how).map_err(|error| self.refused(&error))?;
        self.numbers.write.record(began.elapsed());

        self.progress = progress;
        if synced {
            self.marks.durable(progress);
        }
        // Before the view: whoever has seen a frontier must find what it contains.
        for (lane, fact) in facts {
            self.shared.facts.add(lane, fact);
        }
        let frontier = Frontier::uniform(progress.last);
        let view = RocksSnapshot::take(Arc::clone(&self.shared.engine), Arc::clone(&self.shared.pool), frontier);
        // The old view may be the last one of its kind: its snapshot is released outside the lock.
        let old = std::mem::replace(&mut *self.shared.latest.write(), Arc::new(view));
        drop(old);
        self.shared.signals.moved(lanes);
        Ok(())
    }

    /// What a failed write means: a full disk passes, anything else ends the store. What was in the
    /// failed write may still turn up after a restart; nobody has been told that it happened.
    fn refused(&self, error: &rocksdb::Error) -> CommitError {
        let text = error.to_string();
        let syncing = text.contains("While fdatasync") || text.contains("While fsync");
        if text.contains("No space left on device") && !syncing {
            tracing::error!(%error, "the disk is full: writes are refused until there is space");
            return CommitError::Full;
        }
        tracing::error!(%error, "the store cannot write any more and has to be opened again");
        let why: Arc<str> = text.into();
        self.shared.queue.close(Arc::clone(&why));
        self.shared.failed.send_replace(Some(Arc::clone(&why)));
        CommitError::Unavailable(why)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of waiting batches are small")]
    fn count(&self, outcomes: &[Outcome]) {
        let committed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let conflicts = outcomes.iter().filter(|outcome| matches!(outcome, Err(CommitError::Conflict(_)))).count();
        self.numbers.commits.increment(committed as u64);
        self.numbers.conflicts.increment(conflicts as u64);
        self.numbers.group.record(outcomes.len() as f64);
        self.numbers.depth.set(self.shared.queue.depth() as f64);
    }
}

impl<'a> Group<'a> {
    fn new(engine: &'a Engine, bytes: usize, progress: Progress) -> Self {
        Self {
            families: engine.families(),
            overlay: Overlay::new(engine),
            rows: WriteBatch::with_capacity_bytes(bytes),
            progress,
            synced: false,
            lanes: 0,
            facts: Vec::new(),
        }
    }

    /// Adds `batch` if its conditions hold. Nothing is added otherwise.
    fn add(&mut self, batch: &'a mut Batch) -> Outcome {
        match self.overlay.failing(&batch.checks) {
            Ok(failing) if failing.is_empty() => {}
            Ok(failing) => return Err(CommitError::Conflict(failing)),
            Err(error) => return Err(CommitError::Unavailable(error.to_string().into())),
        }
        let committed = Committed { first: self.progress.last.next(), count: batch.slots };
        batch.fill_holes(committed.first);
        let batch: &'a Batch = batch;
        for op in batch.ops.iter().chain(&batch.outbox) {
            self.put(op);
            self.overlay.apply(op);
        }
        let known = self.facts.len();
        for fact in &batch.facts {
            let pos = committed.resolve(Pos::pending(fact.slot));
            self.rows.put_cf(self.families.scan, fact_key(batch.lane, pos), &fact.body);
            self.facts.push((batch.lane, LoggedFact { pos, body: fact.body.clone() }));
        }
        self.facts[known..].sort_unstable_by_key(|(_, fact)| fact.pos);
        self.progress.commits += 1;
        self.progress.last = Pos::new(self.progress.last.get() + u64::from(batch.slots));
        self.synced |= batch.durability == Durability::Synced;
        self.lanes |= batch.moved_lanes();
        Ok(committed)
    }

    fn put(&mut self, op: &Op) {
        let family = self.families.of(&op.first_key().0);
        match op {
            Op::Put { key, value, .. } => self.rows.put_cf(family, &key.0, value),
            Op::Delete { key } => self.rows.delete_cf(family, &key.0),
            Op::DeleteRange { start, end } => self.rows.delete_range_cf(family, &start.0, &end.0),
            Op::Add { key, by } => self.rows.merge_cf(family, &key.0, by.to_be_bytes()),
        }
    }
}
