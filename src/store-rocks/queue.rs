//! Batches on their way to the committer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hearth_store::{Batch, CommitError, Committed, Durability};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// What may wait. Callers hold their answer's future, so a caller that goes on queueing without
/// waiting for answers is refused here before it fills the memory.
const QUEUE_BATCHES: usize = 16_384;
const QUEUE_BYTES: usize = 64 << 20;
/// What one disk sync may carry. Larger groups would make the first of them wait for the last.
const GROUP_BATCHES: usize = 1024;
const GROUP_BYTES: usize = 4 << 20;

/// Why nothing is written after a mistake in this crate.
pub(crate) const PANICKED: &str = "the committer has panicked";

/// A batch and whom to answer.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) batch: Batch,
    pub(crate) bytes: usize,
    pub(crate) answer: oneshot::Sender<Result<Committed, CommitError>>,
}

impl Waiting {
    /// Whether the answer has to wait for the disk.
    pub(crate) fn needs_sync(&self) -> bool {
        self.batch.durability == Durability::Synced
    }
}

/// What a group with a batch that needs a sync waits for: others that could share it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// How many batches that need one are expected: as many as were on their way a moment ago. 0: none.
    pub(crate) writers: usize,
    /// How long to wait for them: a fraction of what a write takes.
    pub(crate) time: Duration,
}

/// A queue with one reader, the committer, and the turn to write, which it has for each group.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// How many of those that wait need a sync.
    syncs: usize,
    /// The committer sleeps until this many of them wait (or its patience ends), 0: until any batch waits. Waking it for
    /// each would cost more than they gain.
    wanted: usize,
    /// Somebody has the turn.
    writing: bool,
    closed: Option<Arc<str>>,
}

impl State {
    /// Nobody is left who could take what waits.
    fn drop_all(&mut self) -> VecDeque<Waiting> {
        (self.bytes, self.syncs) = (0, 0);
        std::mem::take(&mut self.waiting)
    }
}

/// The right to write until it is dropped. One at a time, so that writes happen in the order of their turns.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Queue);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.writing = false;
        let mut dropped = VecDeque::new();
        if std::thread::panicking() {
            // Nobody knows how much of it is written: nobody else gets a turn.
            state.closed.get_or_insert_with(|| PANICKED.into());
            dropped = state.drop_all();
        }
        let awaited = !state.waiting.is_empty() || state.closed.is_some();
        drop(state);
        drop(dropped);
        if awaited {
            self.0.ready.notify_one();
        }
    }
}

impl Queue {
    /// The turn for somebody else than the committer: only if nobody has it and nothing waits.
    pub(crate) fn turn(&self) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        if state.writing || !state.waiting.is_empty() || state.closed.is_some() {
            return None;
        }
        state.writing = true;
        Some(Turn(self))
    }

    /// Adds a batch at the end.
    pub(crate) fn push(&self, item: Waiting) -> Result<(), CommitError> {
        let mut state = self.state.lock();
        if let Some(why) = &state.closed {
            return Err(CommitError::Unavailable(Arc::clone(why)));
        }
        if state.waiting.len() >= QUEUE_BATCHES || state.bytes + item.bytes > QUEUE_BYTES {
            return Err(CommitError::Unavailable("too many writes are waiting for the disk".into()));
        }
        state.bytes += item.bytes;
        state.syncs += usize::from(item.needs_sync());
        state.waiting.push_back(item);
        // Whoever has the turn looks here when it ends.
        let wake = state.syncs >= state.wanted && !state.writing;
        drop(state);
        if wake {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Waits for batches and for the turn, and moves as many as one group may have into `group`, which is empty.
    /// Nothing is moved when the queue is closed and empty.
    ///
    /// Once there is one that needs a sync, others are waited for as `patience` says: writers that have just been
    /// answered come back a moment later, and would otherwise miss this sync.
    pub(crate) fn take(&self, group: &mut Vec<Waiting>, patience: Patience) -> Turn<'_> {
        let mut state = self.state.lock();
        state.wanted = 0;
        while state.writing || (state.waiting.is_empty() && state.closed.is_none()) {
            self.ready.wait(&mut state);
        }
        let wanted = patience.writers.min(GROUP_BATCHES);
        if state.syncs > 0 && state.syncs < wanted && !patience.time.is_zero() {
            state.wanted = wanted;
            let more = |state: &mut State| state.syncs < wanted && state.closed.is_none();
            self.ready.wait_while_for(&mut state, more, patience.time);
        }
        let mut bytes = 0;
        while let Some(next) = state.waiting.front() {
            if group.len() == GROUP_BATCHES || (bytes > 0 && bytes + next.bytes > GROUP_BYTES) {
                break;
            }
            bytes += next.bytes;
            group.extend(state.waiting.pop_front());
        }
        state.bytes -= bytes;
        state.syncs -= group.iter().filter(|item| item.needs_sync()).count();
        state.writing = true;
        Turn(self)
    }

    /// How many batches wait.
    pub(crate) fn depth(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// How many of them need a sync.
    pub(crate) fn syncs(&self) -> usize {
        self.state.lock().syncs
    }

    /// Refuses new batches from now on; those that wait are still taken.
    pub(crate) fn close(&self, why: Arc<str>) {
        self.state.lock().closed.get_or_insert(why);
        self.ready.notify_all();
    }

    /// Refuses new batches and drops those that wait: there is nobody left to take them.
    pub(crate) fn abandon(&self, why: Arc<str>) {
        self.close(why);
        let dropped = self.state.lock().drop_all();
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use hearth_store::Lane;

    use super::*;

    fn push(queue: &Queue, durability: Durability) {
        let mut batch = Batch::new(Lane::of(0));
        batch.durability = durability;
        let (answer, _) = oneshot::channel();
        queue.push(Waiting { batch, bytes: 1, answer }).expect("there is room");
    }

    fn take(queue: &Queue, writers: usize, time: Duration) -> usize {
        let mut group = Vec::new();
        drop(queue.take(&mut group, Patience { writers, time }));
        group.len()
    }

    #[test]
    fn what_needs_no_sync_waits_for_nobody() {
        let queue = Queue::default();
        push(&queue, Durability::Relaxed);
        push(&queue, Durability::Relaxed);
        assert_eq!((queue.depth(), queue.syncs()), (2, 0));
        let hour = Duration::from_secs(3600);
        assert_eq!(take(&queue, 9, hour), 2);
        // Nor is it somebody to wait for.
        push(&queue, Durability::Relaxed);
        push(&queue, Durability::Synced);
        assert_eq!(queue.syncs(), 1);
        assert_eq!(take(&queue, 1, hour), 2);
        assert_eq!((queue.depth(), queue.syncs()), (0, 0));
    }

    #[test]
    fn there_is_one_turn_and_whatever_waits_goes_first() {
        let queue = Queue::default();
        let turn = queue.turn().expect("nobody has it");
        assert!(queue.turn().is_none());
        push(&queue, Durability::Synced);
        drop(turn);
        assert!(queue.turn().is_none(), "somebody waits");
        assert_eq!(take(&queue, 0, Duration::ZERO), 1);
        assert!(queue.turn().is_some());
    }

    #[test]
    fn after_a_panic_nobody_gets_a_turn_and_nobody_waits() {
        let queue = Queue::default();
        let writer = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let _turn = queue.turn().expect("nobody has it");
                push(&queue, Durability::Synced);
                panic!("a mistake");
            });
            writer.join()
        });
        assert!(writer.is_err());
        assert_eq!((queue.depth(), queue.syncs()), (0, 0));
        assert!(queue.turn().is_none());
        assert_eq!(take(&queue, 0, Duration::ZERO), 0, "the committer ends");
    }

    #[test]
    fn a_sync_is_shared_with_who_comes_in_time() {
        let queue = Queue::default();
        push(&queue, Durability::Synced);
        let taken = std::thread::scope(|scope| {
            let taken = scope.spawn(|| take(&queue, 2, Duration::from_secs(3600)));
            push(&queue, Durability::Relaxed);
            push(&queue, Durability::Synced);
            taken.join().expect("no panic")
        });
        assert_eq!(taken, 3);
        push(&queue, Durability::Synced);
        assert_eq!(take(&queue, 2, Duration::from_millis(1)), 1, "nobody came");
    }
}
