//! Following the change log with durable cursors.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use hearth_base::next_tick;
use hearth_schema::{Cursors, Position};
use hearth_store::{Batch, CommitError, Durability, Frontier, LANES, Lane, LoggedFact, Pos, Store, StoreError, View};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Facts of one batch at the most.
const PAGE: usize = 256;
/// How often the log is looked at when nobody says that it moved: hints may be lost.
const POLL: Duration = Duration::from_secs(1);
/// How often a consumer for which nobody waits looks at it while much happens.
const SPARSE_POLL: Duration = Duration::from_millis(250);
/// Facts of a lane that such a consumer passes by before its cursor is stored: what it sees again after
/// a restart.
const SPARSE_FACTS: usize = 4096;
/// Between two attempts after a failure: first and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// Derives rows from facts.
pub trait Consumer: Send + 'static {
    /// Names its cursors; never changed once it has run.
    fn name(&self) -> &'static str;

    /// Adds to `batch`, whose lane is the facts' own, what follows from `facts`; `view` contains
    /// them. The same facts may come again, alone or with others before or after them.
    fn consume<'a>(
        &'a mut self,
        view: &'a View,
        facts: &'a [LoggedFact],
        batch: &'a mut Batch,
    ) -> BoxFuture<'a, Result<(), ConsumeError>>;

    /// What follows from all facts at or below `pos` has been committed.
    fn reached(&mut self, _pos: Pos) {}

    /// The last batch was not applied: forget what memory has of it.
    fn forget(&mut self);

    /// How often it writes.
    fn habit(&self) -> Habit {
        Habit::Busy
    }
}

/// How often a consumer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Something follows from most facts, and somebody waits for it.
    Busy,
    /// Something follows from few facts, and somebody waits for it: its cursor is not stored for every page
    /// in which it has found nothing.
    Prompt,
    /// Something follows from few facts, and nobody minds to wait a second for it: it looks at the log
    /// when everybody does, and its cursor is not stored for every page in which it has found nothing.
    Sparse,
}

/// Why a consumer does not advance for the moment. Every one is tried again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConsumeError {
    /// Facts or what they speak of could not be read.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// The batch was not written.
    #[error(transparent)]
    Write(#[from] CommitError),
}

/// Drives one consumer along all lanes.
pub struct Follower<C> {
    store: Arc<dyn Store>,
    consumer: C,
    /// How far it has come, by lane; `None` until the rows have been read.
    cursors: Option<Vec<Cursor>>,
    page: usize,
    progress: watch::Sender<Pos>,
}

/// How far a consumer has come along one lane.
#[derive(Clone, Copy, Default)]
struct Cursor {
    /// Position of the last fact consumed.
    at: Pos,
    /// The same when it was stored last.
    stored: Pos,
    /// Facts consumed since then.
    passed: usize,
}

impl Cursor {
    const fn stored_at(at: Pos) -> Self {
        Self { at, stored: at, passed: 0 }
    }
}

impl<C: Consumer> Follower<C> {
    /// A follower that has not started.
    pub fn new(store: Arc<dyn Store>, consumer: C) -> Self {
        Self { store, consumer, cursors: None, page: PAGE, progress: watch::Sender::new(Pos::ZERO) }
    }

    /// How far it has come: what it derives from facts at or below this position can be read.
    pub fn progress(&self) -> watch::Receiver<Pos> {
        self.progress.subscribe()
    }

    /// Follows until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        stoppable(&shutdown, self.follow()).await;
    }

    async fn follow(&mut self) {
        // Listening before looking: what is committed in between is announced.
        let mut hints = match self.consumer.habit() {
            Habit::Busy | Habit::Prompt => self.store.watch().fuse(),
            // Waking it for each commit would cost more than what it does.
            Habit::Sparse => futures::stream::empty().boxed().fuse(),
        };
        let mut patience = RETRY.0;
        loop {
            let pause = match self.catch_up().await {
                Ok(facts) => {
                    patience = RETRY.0;
                    if facts < PAGE || self.consumer.habit() != Habit::Sparse { POLL } else { SPARSE_POLL }
                }
                Err(error) => {
                    tracing::warn!(consumer = self.consumer.name(), %error, "cannot follow the change log, trying again");
                    patience = (patience * 2).min(RETRY.1);
                    tokio::time::sleep(patience).await;
                    continue;
                }
            };
            tokio::select! {
                _ = hints.next(), if !hints.is_done() => {}
                () = tokio::time::sleep_until(next_tick(Instant::now(), pause)) => {}
            }
            // One look at the log serves all lanes that have moved.
            while let Some(Some(_)) = hints.next().now_or_never() {}
        }
    }

    /// Consumes everything that was committed before the call; gives the number of facts.
    ///
    /// # Errors
    /// If the log cannot be read or a batch cannot be written; calling again goes on.
    pub async fn catch_up(&mut self) -> Result<usize, ConsumeError> {
        let caught_up = self.try_catch_up().await;
        if caught_up.is_err() {
            self.consumer.forget();
        }
        caught_up
    }

    async fn try_catch_up(&mut self) -> Result<usize, ConsumeError> {
        let target = self.store.frontier();
        if self.cursors.is_none() {
            self.cursors = Some(self.read_cursors().await?);
        }
        let mut facts = 0;
        for lane in Lane::all() {
            facts += self.catch_up_lane(lane, &target).await?;
        }
        self.consumer.reached(target.base());
        self.progress.send_if_modified(|progress| {
            let moved = *progress < target.base();
            *progress = target.base().max(*progress);
            moved
        });
        Ok(facts)
    }

    async fn read_cursors(&self) -> Result<Vec<Cursor>, StoreError> {
        let view = View::latest(&*self.store).await?;
        let keys: Vec<_> = Lane::all().map(|lane| (lane, self.consumer.name().to_owned())).collect();
        let rows = view.get_many::<Cursors>(&keys).await?;
        let at = |row: Option<Position>| row.map_or(Pos::ZERO, |position| position.0);
        Ok(rows.into_iter().map(|row| Cursor::stored_at(at(row))).collect())
    }

    fn cursor(&mut self, lane: Lane) -> &mut Cursor {
        let cursors = self.cursors.get_or_insert_with(|| vec![Cursor::default(); usize::from(LANES)]);
        &mut cursors[usize::from(lane.number())]
    }

    async fn catch_up_lane(&mut self, lane: Lane, target: &Frontier) -> Result<usize, ConsumeError> {
        let mut consumed = 0;
        loop {
            let cursor = *self.cursor(lane);
            let at = cursor.at;
            if at >= target.of(lane) || self.store.newest_fact(lane).is_some_and(|newest| newest <= at) {
                return Ok(consumed);
            }
            let facts = self.store.tail(lane, at, self.page).await?;
            if facts.is_empty() {
                return Ok(consumed);
            }
            self.consume(lane, cursor, &facts).await?;
            consumed += facts.len();
            if facts.len() == self.page {
                // Nothing else may have made it wait.
                tokio::task::yield_now().await;
            }
        }
    }

    async fn consume(&mut self, lane: Lane, cursor: Cursor, facts: &[LoggedFact]) -> Result<(), ConsumeError> {
        let Some(last) = facts.last() else { return Ok(()) };
        let view = View::latest(&*self.store).await?;
        let mut batch = Batch::new(lane);
        batch.durability = Durability::Relaxed;
        let key = (lane, self.consumer.name().to_owned());
        // Should another process run the same consumer, one of the two finds out here.
        let expected = (cursor.stored > Pos::ZERO).then_some(Position(cursor.stored));
        batch.check::<Cursors>(&key, expected.as_ref());
        self.consumer.consume(&view, facts, &mut batch).await?;
        let passed = cursor.passed + facts.len();
        let nothing = batch.ops.is_empty() && batch.outbox.is_empty();
        if nothing && passed < SPARSE_FACTS && self.consumer.habit() != Habit::Busy {
            *self.cursor(lane) = Cursor { at: last.pos, passed, ..cursor };
            return Ok(());
        }
        batch.put::<Cursors>(&key, &Position(last.pos));
        match self.store.commit(batch).await {
            Ok(_) => {
                *self.cursor(lane) = Cursor::stored_at(last.pos);
                self.page = PAGE;
                Ok(())
            }
            Err(error) => {
                if matches!(error, CommitError::TooLarge { .. }) {
                    self.page = (self.page / 2).max(1);
                }
                self.cursors = None;
                Err(error.into())
            }
        }
    }
}

/// `None` if `shutdown` came first. A batch that is being committed then is durable or is not: the
/// cursor in it says which.
async fn stoppable<T>(shutdown: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        done = work => Some(done),
    }
}
