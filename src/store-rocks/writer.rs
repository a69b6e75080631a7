//! Writing groups of batches, one after the other.

use std::sync::Arc;
use std::time::Instant;

use hearth_store::{Batch, CommitError, Committed, Durability, Frontier, Lane, LoggedFact, Op, Pos, RecentIds};
use metrics::{Counter, Gauge, Histogram};
use rocksdb::{ErrorKind, ReadTier, WriteBatch, WriteOptions};

use crate::acknowledged::AcknowledgeHandle;
use crate::committer::Shared;
use crate::engine::{Cached, Engine, Families, fact_key};
use crate::meta::{PROGRESS, Progress};
use crate::overlay::Overlay;
use crate::queue::Waiting;
use crate::snapshot::RocksSnapshot;

/// Batches whose answer is found again when they are repeated.
const RECENT_IDS: usize = 8192;

/// Bytes of a batch beyond those of its rows, about.
const GROUP_OVERHEAD: usize = 256;

pub(crate) type Outcome = Result<Committed, CommitError>;

/// What a write may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Haste {
    /// The disk.
    None,
    /// Nothing: it is made in a thread that others need.
    Now,
}

/// Why there is nothing written.
enum Unwritten {
    /// It would have to wait for the disk.
    Later,
    /// It never will be.
    Refused(CommitError),
}

impl Unwritten {
    /// What it means for a batch that may wait.
    fn for_good(self) -> CommitError {
        match self {
            Self::Later => CommitError::Unavailable("a write that may use the disk did not".into()),
            Self::Refused(error) => error,
        }
    }
}

/// Writes to the database; used by whoever has the turn.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    marks: AcknowledgeHandle,
    progress: Progress,
    recent: RecentIds,
    numbers: Numbers,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("progress", &self.progress).finish_non_exhaustive()
    }
}

/// One group being put together.
struct Group<'a> {
    families: Families<'a>,
    overlay: Overlay<'a>,
    rows: WriteBatch,
    progress: Progress,
    haste: Haste,
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

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, marks: AcknowledgeHandle, progress: Progress) -> Self {
        Self { shared, marks, progress, recent: RecentIds::new(RECENT_IDS), numbers: Numbers::new() }
    }

    /// Commits what can be committed of `waiting`; `result.0[i]` belongs to `waiting[i]`, `result.1` has a bit for each
    /// lane that has moved.
    pub(crate) fn commit(&mut self, waiting: &mut [Waiting]) -> (Vec<Outcome>, u32) {
        let failed = self.shared.failed.borrow().clone();
        if let Some(why) = failed {
            return (waiting.iter().map(|_| Err(CommitError::Unavailable(Arc::clone(&why)))).collect(), 0);
        }
        let engine = Arc::clone(&self.shared.engine);
        let bytes: usize = waiting.iter().map(|item| item.bytes + GROUP_OVERHEAD).sum();
        let mut group = Group::new(&engine, bytes, self.progress, Haste::None);
        let mut outcomes = Vec::with_capacity(waiting.len());
        let mut new_ids = Vec::new();
        for item in waiting.iter_mut() {
            let id = item.batch.id;
            let outcome = match self.recent.find(id) {
                Some(first_answer) => Ok(first_answer),
                None => group.add(&mut item.batch).map_err(Unwritten::for_good).inspect(|committed| {
                    self.recent.remember(id, *committed);
                    new_ids.extend(id);
                }),
            };
            outcomes.push(outcome);
        }
        let lanes = self.write(group).unwrap_or_else(|error| {
            let error = error.for_good();
            for id in new_ids {
                self.recent.forget(id);
            }
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                *outcome = Err(error.clone());
            }
            0
        });
        self.count(&outcomes);
        (outcomes, lanes)
    }

    /// Commits `batch`, of so many `bytes` and without an id, if nothing has to be waited for; `None`: nothing has
    /// happened. The number has a bit for each lane that has moved.
    pub(crate) fn commit_now(&mut self, batch: &mut Batch, bytes: usize) -> Option<(Outcome, u32)> {
        let engine = Arc::clone(&self.shared.engine);
        let mut group = Group::new(&engine, bytes + GROUP_OVERHEAD, self.progress, Haste::Now);
        let written = group.add(batch).and_then(|committed| Ok((committed, self.write(group)?)));
        let (outcome, lanes) = match written {
            Ok((committed, lanes)) => (Ok(committed), lanes),
            Err(Unwritten::Later) => return None,
            Err(Unwritten::Refused(error)) => (Err(error), 0),
        };
        self.count(std::slice::from_ref(&outcome));
        Some((outcome, lanes))
    }

    /// Writes the group and publishes it; gives the lanes that have moved.
    fn write(&mut self, group: Group<'_>) -> Result<u32, Unwritten> {
        if group.progress == self.progress {
            return Ok(0);
        }
        let Group { families, mut rows, progress, haste, synced, lanes, facts, .. } = group;
        rows.put_cf(families.scan, PROGRESS, progress.to_bytes());
        let mut how = WriteOptions::default();
        how.set_sync(synced);
        how.set_no_slowdown(haste == Haste::Now);
        let began = Instant::now();
        self.shared.engine.db.write_opt(rows, &how).map_err(|error| match error.kind() {
            ErrorKind::Incomplete if haste == Haste::Now => Unwritten::Later,
            _ => Unwritten::Refused(self.refused(&error)),
        })?;
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
        Ok(lanes)
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
    fn new(engine: &'a Engine, bytes: usize, progress: Progress, haste: Haste) -> Self {
        let tier = if haste == Haste::Now { ReadTier::BlockCache } else { ReadTier::All };
        Self {
            families: engine.families(),
            overlay: Overlay::new(engine, tier),
            rows: WriteBatch::with_capacity_bytes(bytes),
            progress,
            haste,
            synced: false,
            lanes: 0,
            facts: Vec::new(),
        }
    }

    /// Adds `batch` if its conditions hold. Nothing is added otherwise.
    fn add(&mut self, batch: &'a mut Batch) -> Result<Committed, Unwritten> {
        match self.overlay.failing(&batch.checks) {
            Ok(Cached::Hit(failing)) if failing.is_empty() => {}
            Ok(Cached::Hit(failing)) => return Err(Unwritten::Refused(CommitError::Conflict(failing))),
            Ok(Cached::Miss) => return Err(Unwritten::Later),
            Err(error) => return Err(Unwritten::Refused(CommitError::Unavailable(error.to_string().into()))),
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
