//! Adversity on purpose: what a distributed engine may do on a bad day, from a seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

use crate::{
    Batch, BatchId, CommitError, Committed, Frontier, Lane, Limits, LoggedFact, Page, Pos, Range, RawKey, Snapshot,
    Store, StoreError,
};

/// How often, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChaosRates {
    /// Commits with conditions that are refused although they hold.
    pub conflict: u8,
    /// Commits whose answer is lost and asked for again.
    pub lost_answer: u8,
    /// Commits that are answered late.
    pub late_answer: u8,
    /// Reads that find their snapshot expired.
    pub expired: u8,
    /// Reads that take a while.
    pub slow_read: u8,
    /// Hints that never come.
    pub lost_hint: u8,
    /// Hints that come late.
    pub late_hint: u8,
}

impl Default for ChaosRates {
    fn default() -> Self {
        Self { conflict: 5, lost_answer: 10, late_answer: 5, expired: 1, slow_read: 5, lost_hint: 20, late_hint: 20 }
    }
}

/// Wraps any store. Everything that an engine has promised still holds: a batch happens once or not at
/// all, in the order of calls, and a lost answer is found again.
#[derive(Clone, Debug)]
pub struct ChaosStore<S> {
    inner: Arc<S>,
    dice: Arc<Dice>,
}

#[derive(Debug)]
struct Dice {
    state: AtomicU64,
    rates: ChaosRates,
}

impl Dice {
    /// The next number (splitmix64). The order of draws depends on the scheduler, so a seed repeats a
    /// run exactly only on a single-threaded runtime.
    fn draw(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let state = self.state.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn happens(&self, percent: u8) -> bool {
        self.draw() % 100 < u64::from(percent)
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(self.draw() % 5_000)
    }

    fn batch_id(&self) -> BatchId {
        let mut id = [0xC4; 16];
        id[8..].copy_from_slice(&self.draw().to_be_bytes());
        BatchId(id)
    }

    async fn read(&self) -> Result<(), StoreError> {
        if self.happens(self.rates.slow_read) {
            tokio::time::sleep(self.delay()).await;
        }
        if self.happens(self.rates.expired) { Err(StoreError::SnapshotExpired) } else { Ok(()) }
    }
}

impl<S: Store> ChaosStore<S> {
    /// Wraps `inner` with the default rates.
    pub fn new(inner: S, seed: u64) -> Self {
        Self::with_rates(inner, seed, ChaosRates::default())
    }

    /// Wraps `inner`.
    pub fn with_rates(inner: S, seed: u64, rates: ChaosRates) -> Self {
        Self { inner: Arc::new(inner), dice: Arc::new(Dice { state: AtomicU64::new(seed), rates }) }
    }

    /// The store inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: Store> Store for ChaosStore<S> {
    fn snapshot(&self, min: &Frontier) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        let min = min.clone();
        async move {
            let inner = self.inner.snapshot(&min).await?;
            let snapshot: Arc<dyn Snapshot> = Arc::new(ChaosSnapshot { inner, dice: Arc::clone(&self.dice) });
            Ok(snapshot)
        }
        .boxed()
    }

    fn commit(&self, mut batch: Batch) -> BoxFuture<'static, Result<Committed, CommitError>> {
        let dice = Arc::clone(&self.dice);
        if !batch.checks.is_empty() && dice.happens(dice.rates.conflict) {
            batch.assert_well_formed();
            let all = (0..batch.checks.len()).collect();
            return async { Err(CommitError::Conflict(all)) }.boxed();
        }
        batch.id.get_or_insert_with(|| dice.batch_id());
        let repeat = dice.happens(dice.rates.lost_answer).then(|| batch.clone());
        let late = dice.happens(dice.rates.late_answer);
        // Queued now, so that the order of calls is the order of commits whatever happens to answers.
        let first = self.inner.commit(batch);
        let inner = Arc::clone(&self.inner);
        async move {
            let mut answer = first.await;
            if let Some(batch) = repeat {
                let again = inner.commit(batch).await;
                // What was refused may hold by now; what was committed is found by its id.
                if answer.is_ok() {
                    answer = again;
                } else if let Ok(committed) = again {
                    answer = Ok(committed);
                }
            }
            if late {
                tokio::time::sleep(dice.delay()).await;
            }
            answer
        }
        .boxed()
    }

    fn tail(&self, lane: Lane, from: Pos, limit: usize) -> BoxFuture<'_, Result<Vec<LoggedFact>, StoreError>> {
        async move {
            if self.dice.happens(self.dice.rates.slow_read) {
                tokio::time::sleep(self.dice.delay()).await;
            }
            // A short answer is a right one: whoever follows asks again.
            let limit = if self.dice.happens(self.dice.rates.slow_read) { limit.min(1) } else { limit };
            self.inner.tail(lane, from, limit).await
        }
        .boxed()
    }

    fn newest_fact(&self, lane: Lane) -> Option<Pos> {
        // An engine need not know.
        if self.dice.happens(self.dice.rates.lost_hint) { None } else { self.inner.newest_fact(lane) }
    }

    fn watch(&self) -> BoxStream<'static, Lane> {
        let dice = Arc::clone(&self.dice);
        let hint = move |lane| {
            let dice = Arc::clone(&dice);
            async move {
                if dice.happens(dice.rates.lost_hint) {
                    return None;
                }
                if dice.happens(dice.rates.late_hint) {
                    tokio::time::sleep(dice.delay()).await;
                }
                Some(lane)
            }
        };
        self.inner.watch().filter_map(hint).boxed()
    }

    fn frontier(&self) -> Frontier {
        self.inner.frontier()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

struct ChaosSnapshot {
    inner: Arc<dyn Snapshot>,
    dice: Arc<Dice>,
}

impl Snapshot for ChaosSnapshot {
    fn get_many<'a>(&'a self, keys: &'a [RawKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, StoreError>> {
        async move {
            self.dice.read().await?;
            self.inner.get_many(keys).await
        }
        .boxed()
    }

    fn scan_many<'a>(&'a self, ranges: &'a [Range]) -> BoxFuture<'a, Result<Vec<Page>, StoreError>> {
        async move {
            self.dice.read().await?;
            self.inner.scan_many(ranges).await
        }
        .boxed()
    }

    fn frontier(&self) -> &Frontier {
        self.inner.frontier()
    }
}
