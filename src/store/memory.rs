//! The engine for tests: everything in memory, nothing kept.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use imbl::OrdMap;
use parking_lot::Mutex;

use crate::{
    Batch, Check, CommitError, Committed, Frontier, Lane, Limits, LoggedFact, Op, Order, Page, Pos, Range, RawKey,
    RecentIds, Signals, Snapshot, Store, StoreError,
};

type Rows = OrdMap<Bytes, Bytes>;

/// An engine without a disk. A commit happens inside the call, so call order is commit order;
/// a snapshot shares its rows with the store.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    signals: Signals,
}

#[derive(Debug)]
struct State {
    rows: Rows,
    facts: OrdMap<(Lane, Pos), Bytes>,
    last: Pos,
    recent: RecentIds,
}

#[derive(Debug)]
struct MemorySnapshot {
    rows: Rows,
    frontier: Frontier,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        let recent = RecentIds::new(4096);
        let state = State { rows: OrdMap::new(), facts: OrdMap::new(), last: Pos::FLOOR, recent };
        Self { state: Mutex::new(state), signals: Signals::default() }
    }

    fn commit_now(&self, batch: Batch) -> Result<Committed, CommitError> {
        batch.assert_well_formed();
        batch.fits(Limits::EMBEDDED)?;
        let lanes = batch.moved_lanes();
        let committed = self.state.lock().commit(batch)?;
        self.signals.moved(lanes);
        Ok(committed)
    }
}

impl State {
    fn commit(&mut self, mut batch: Batch) -> Result<Committed, CommitError> {
        if let Some(first_answer) = self.recent.find(batch.id) {
            return Ok(first_answer);
        }
        let failed: Vec<_> =
            batch.checks.iter().enumerate().filter(|(_, check)| !self.holds(check)).map(|(index, _)| index).collect();
        if !failed.is_empty() {
            return Err(CommitError::Conflict(failed));
        }
        let committed = Committed { first: self.last.next(), count: batch.slots };
        batch.fill_holes(committed.first);
        for op in batch.ops.into_iter().chain(batch.outbox) {
            self.apply(op);
        }
        for fact in batch.facts {
            let pos = committed.resolve(Pos::pending(fact.slot));
            self.facts.insert((batch.lane, pos), fact.body);
        }
        self.last = Pos::new(self.last.get() + u64::from(batch.slots));
        self.recent.remember(batch.id, committed);
        Ok(committed)
    }

    fn holds(&self, check: &Check) -> bool {
        match check {
            Check::Absent(key) => !self.rows.contains_key(key.0.as_slice()),
            Check::Is(key, expected) => self.rows.get(key.0.as_slice()) == Some(expected),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Put { key, value, .. } => {
                self.rows.insert(key.0.into(), value.into());
            }
            Op::Delete { key } => {
                self.rows.remove(key.0.as_slice());
            }
            Op::DeleteRange { start, end } => {
                let doomed: Vec<_> = between(&self.rows, &start.0, &end.0).map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    self.rows.remove(&key);
                }
            }
            Op::Add { key, by } => {
                let old = self.rows.get(key.0.as_slice()).map(AsRef::as_ref);
                let sum = crate::add_to_counter(old, by).expect("only counters are added to");
                self.rows.insert(key.0.into(), Bytes::copy_from_slice(&sum));
            }
        }
    }
}

fn between<'a>(rows: &'a Rows, start: &[u8], end: &[u8]) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Bytes)> {
    // An empty range is a question like any other, but the map panics if it is upside down.
    let end = end.max(start);
    rows.range::<_, [u8]>((Bound::Included(start), Bound::Excluded(end)))
}

impl Store for MemoryStore {
    fn snapshot(&self, min: &Frontier) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        let state = self.state.lock();
        let frontier = Frontier::uniform(state.last);
        let reached = Lane::all().all(|lane| min.of(lane) <= state.last);
        let snapshot: Arc<dyn Snapshot> = Arc::new(MemorySnapshot { rows: state.rows.clone(), frontier });
        drop(state);
        let answer = if reached { Ok(snapshot) } else { Err(StoreError::Unavailable("not committed yet".into())) };
        async { answer }.boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, CommitError>> {
        let answer = self.commit_now(batch);
        async { answer }.boxed()
    }

    fn tail(&self, lane: Lane, from: Pos, limit: usize) -> BoxFuture<'_, Result<Vec<LoggedFact>, StoreError>> {
        let facts = self.state.lock().facts.clone();
        let after = (Bound::Excluded((lane, from)), Bound::Included((lane, Pos::MAX)));
        let rows = facts.range::<_, (Lane, Pos)>(after).take(limit);
        let answer = rows.map(|((_, pos), body)| LoggedFact { pos: *pos, body: body.clone() }).collect();
        async { Ok(answer) }.boxed()
    }

    fn newest_fact(&self, lane: Lane) -> Option<Pos> {
        let state = self.state.lock();
        let facts = state.facts.range::<_, (Lane, Pos)>((lane, Pos::ZERO)..=(lane, Pos::MAX));
        Some(facts.last().map_or(Pos::ZERO, |((_, pos), _)| *pos))
    }

    fn watch(&self) -> BoxStream<'static, Lane> {
        self.signals.watch()
    }

    fn frontier(&self) -> Frontier {
        Frontier::uniform(self.state.lock().last)
    }

    fn limits(&self) -> Limits {
        Limits::EMBEDDED
    }
}

impl Snapshot for MemorySnapshot {
    fn get_many<'a>(&'a self, keys: &'a [RawKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, StoreError>> {
        let found = keys.iter().map(|key| self.rows.get(key.0.as_slice()).cloned()).collect();
        async { Ok(found) }.boxed()
    }

    fn scan_many<'a>(&'a self, ranges: &'a [Range]) -> BoxFuture<'a, Result<Vec<Page>, StoreError>> {
        let pages = ranges.iter().map(|range| self.page(range)).collect();
        async { Ok(pages) }.boxed()
    }

    fn frontier(&self) -> &Frontier {
        &self.frontier
    }
}

impl MemorySnapshot {
    fn page(&self, range: &Range) -> Page {
        let rows = between(&self.rows, &range.start, &range.end);
        let mut found: Vec<_> = match range.order {
            Order::Ascending => rows.take(range.limit.saturating_add(1)).map(owned).collect(),
            Order::Descending => rows.rev().take(range.limit.saturating_add(1)).map(owned).collect(),
        };
        let cut_short = found.len() > range.limit;
        found.truncate(range.limit);
        let rest = cut_short.then(|| found.last().map_or_else(|| range.clone(), |(last, _)| range.after(last)));
        Page { rows: found, rest }
    }
}

fn owned((key, value): (&Bytes, &Bytes)) -> (Vec<u8>, Bytes) {
    (key.to_vec(), value.clone())
}
