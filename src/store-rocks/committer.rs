//! The thread that writes what waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::courier::Courier;
use crate::engine::Engine;
use crate::facts::RecentFacts;
use crate::pool::ReaderPool;
use crate::queue::{PANICKED, Patience, Queue};
use crate::snapshot::RocksSnapshot;
use crate::writer::Writer;

/// The longest a group waits for more batches; a disk that takes longer than eight times this to sync
/// is slow anyway.
const LONGEST_PATIENCE: Duration = Duration::from_micros(500);

/// What writers and the store share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) pool: Arc<ReaderPool>,
    pub(crate) queue: Queue,
    /// The newest view. Only who has the turn to write replaces it.
    pub(crate) latest: RwLock<Arc<RocksSnapshot>>,
    pub(crate) courier: Arc<Courier>,
    /// The newest facts of each lane.
    pub(crate) facts: RecentFacts,
    /// Why nothing is written any more.
    pub(crate) failed: watch::Sender<Option<Arc<str>>>,
}

/// The thread that writes what waits.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
}

/// A writer that panics (a mistake in this crate) must not leave callers waiting for ever.
pub(crate) struct DeathNotice<'a>(pub(crate) &'a Shared);

impl Drop for DeathNotice<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why: Arc<str> = PANICKED.into();
            self.0.failed.send_replace(Some(Arc::clone(&why)));
            self.0.queue.abandon(why);
        }
    }
}

impl Committer {
    pub(crate) const fn new(shared: Arc<Shared>, writer: Arc<Mutex<Writer>>) -> Self {
        Self { shared, writer }
    }

    /// Runs until the queue is closed and empty, or the disk fails.
    pub(crate) fn run(self) {
        let _notice = DeathNotice(&self.shared);
        let mut waiting = Vec::new();
        let mut patience = Patience::default();
        loop {
            let turn = self.shared.queue.take(&mut waiting, patience);
            if waiting.is_empty() {
                return;
            }
            let began = Instant::now();
            let (outcomes, lanes) = self.writer.lock().commit(&mut waiting);
            drop(turn);
            // Those who are answered now and those who came meanwhile: all may be in the next group.
            // Writers that do not come back cost this much once, because the next group is smaller.
            let synced = waiting.iter().filter(|item| item.needs_sync()).count();
            if synced > 0 {
                let writers = synced + self.shared.queue.syncs();
                patience = Patience { writers, time: (began.elapsed() / 8).min(LONGEST_PATIENCE) };
            }
            let outcomes = waiting.drain(..).map(|item| item.answer).zip(outcomes);
            self.shared.courier.bring(outcomes, lanes);
        }
    }
}
