//! Bringing outcomes from the committer to those who wait for them.
//!
//! The problem: a task that another thread wakes is run by a worker of the runtime that has to be woken to look for it.
//! A worker that finds something by looking wakes the next one to look on, and on a server that is not busy that one
//! finds nothing, for every message. A worker that sleeps over its sockets and hears one of them wakes nobody else. So
//! the committer leaves a lone outcome here and rings a bell, which is a pipe; a task hears it and hands the outcome out
//! from within. Then it rings for itself, and wakes one of those who follow the change log each time it comes back: who
//! waits for an answer goes first, on the same worker, and who makes others wait goes next.
//!
//! Several outcomes at once are worth more than one worker, and are handed out in the committer's thread. So is one that
//! many wait for to hear of, and everything before that task runs and after it has ended.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

use hearth_store::Signals;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::writer::Outcome;

/// An outcome and whom to tell.
pub(crate) type Answered = (oneshot::Sender<Outcome>, Outcome);

/// What is to be told, and the bell of the task that does it.
#[derive(Debug, Default)]
pub(crate) struct Courier {
    signals: Signals,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Answered>,
    /// Lanes that have moved, one bit each.
    lanes: u32,
    /// Somebody who follows the change log is marked, to be woken.
    marked: bool,
    /// The task has been called and has not looked yet.
    rung: bool,
    /// `None`: nobody comes.
    bell: Option<Bell>,
}

/// How the task is called.
#[derive(Clone)]
struct Bell {
    pipe: Arc<File>,
    /// Whether what is committed now makes little work for those who follow the change log.
    quiet: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bell").field(&self.pipe).finish()
    }
}

impl Courier {
    /// Who follows the change log.
    pub(crate) const fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Sees to it that each of `outcomes` reaches who waits for it, and that everybody else hears which `lanes` have moved.
    pub(crate) fn bring(&self, mut outcomes: impl ExactSizeIterator<Item = Answered>, lanes: u32) {
        let mut state = self.state.lock();
        let quiet = state.bell.as_ref().is_some_and(|bell| (bell.quiet)());
        // Several are worth another worker.
        if outcomes.len() != 1 || !quiet || state.outcome.is_some() {
            drop(state);
            outcomes.for_each(tell);
            return self.signals.moved(lanes);
        }
        state.outcome = outcomes.next();
        state.lanes |= lanes;
        Self::call(state);
    }

    fn call(mut state: MutexGuard<'_, State>) {
        if std::mem::replace(&mut state.rung, true) {
            return;
        }
        let bell = state.bell.clone();
        drop(state);
        if let Some(bell) = bell {
            // A pipe that is full has been heard by nobody yet, and one without a reader is that of a task that has left.
            let _ = (&*bell.pipe).write(&[1]);
        }
    }

    /// Hands out what there is whenever the bell rings, until it is dropped; it is rung for while it is `quiet`.
    pub(crate) async fn run(self: Arc<Self>, quiet: impl Fn() -> bool + Send + Sync + 'static) -> io::Result<()> {
        let (sender, mut bell) = pipe::pipe()?;
        let pipe = Arc::new(File::from(sender.into_nonblocking_fd()?));
        self.state.lock().bell = Some(Bell { pipe, quiet: Arc::new(quiet) });
        let post = Post(self);
        // More than are ever in it: a read that fills less tells that there is nothing left.
        let mut rings = [0; 16];
        while bell.read(&mut rings).await? > 0 {
            post.0.round();
        }
        Ok(())
    }

    /// Hands out the outcome that has come, then wakes one of those who follow the change log if somebody is marked, and
    /// calls for another round if somebody is left.
    fn round(&self) {
        let mut state = self.state.lock();
        let (outcome, lanes) = (state.outcome.take(), std::mem::take(&mut state.lanes));
        let marked = std::mem::take(&mut state.marked);
        state.rung = false;
        drop(state);
        outcome.into_iter().for_each(tell);
        let left = marked && self.signals.tell_next();
        self.signals.mark(lanes);
        if left || lanes != 0 {
            let mut state = self.state.lock();
            state.marked = true;
            Self::call(state);
        }
    }
}

/// Whoever asked may have gone; the batch is committed all the same.
fn tell((answer, outcome): Answered) {
    let _ = answer.send(outcome);
}

/// The task's place. When it is left, however that is, nothing stays behind.
struct Post(Arc<Courier>);

impl Drop for Post {
    fn drop(&mut self) {
        let left = std::mem::take(&mut *self.0.state.lock());
        left.outcome.into_iter().for_each(tell);
        self.0.signals.moved(left.lanes);
        while self.0.signals.tell_next() {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use futures::{FutureExt as _, StreamExt as _};
    use hearth_store::{Committed, Lane, Pos};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn committed(n: u64) -> Committed {
        Committed { first: Pos::new(n), count: 1 }
    }

    fn bring(courier: &Courier, n: u64) -> oneshot::Receiver<Outcome> {
        let (answer, answered) = oneshot::channel();
        courier.bring(std::iter::once((answer, Ok(committed(n)))), 1);
        answered
    }

    #[test]
    fn without_a_task_everybody_is_told_at_once() {
        let courier = Courier::default();
        let mut watch = courier.signals().watch();
        let outcome = bring(&courier, 1).try_recv().expect("it is there");
        assert_eq!(outcome.expect("committed").first, Pos::new(1));
        assert_eq!(watch.next().now_or_never(), Some(Some(Lane::of(0))));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_task_brings_everything_that_comes_from_another_thread() {
        let courier = Arc::new(Courier::default());
        let mut watch = courier.signals().watch();
        let task = tokio::spawn(Arc::clone(&courier).run(|| true));
        for n in 1..2000 {
            let bringing = Arc::clone(&courier);
            let answered = tokio::task::spawn_blocking(move || bring(&bringing, n)).await.expect("no panic");
            let outcome = timeout(PATIENCE, answered).await.expect("somebody comes").expect("with an outcome");
            assert_eq!(outcome.expect("committed").first, Pos::new(n));
            let lane = timeout(PATIENCE, watch.next()).await.expect("told");
            assert_eq!(lane, Some(Lane::of(0)));
        }
        assert!(!task.is_finished());
    }

    #[tokio::test]
    async fn who_comes_while_the_task_is_busy_and_several_at_once_are_told_where_they_are() {
        let courier = Arc::new(Courier::default());
        let mut task = Box::pin(Arc::clone(&courier).run(|| true));
        assert!((&mut task).now_or_never().is_none());
        let mut first = bring(&courier, 1);
        assert!(bring(&courier, 2).try_recv().is_ok(), "somebody waits for the task already");
        let (answers, answered): (Vec<_>, Vec<_>) = (0..2).map(|_| oneshot::channel()).unzip();
        courier.bring(answers.into_iter().map(|answer| (answer, Ok(committed(3)))), 1);
        assert!(answered.into_iter().all(|mut answered| answered.try_recv().is_ok()));
        assert!(first.try_recv().is_err());
        let outcome = tokio::select! {
            outcome = timeout(PATIENCE, first) => outcome,
            _ = task => panic!("it ended"),
        };
        assert!(outcome.expect("it was rung for").is_ok());
    }

    #[tokio::test]
    async fn what_many_wait_for_is_told_at_once() {
        let courier = Arc::new(Courier::default());
        let quiet = Arc::new(AtomicBool::new(true));
        let is_quiet = Arc::clone(&quiet);
        let mut task = Box::pin(Arc::clone(&courier).run(move || is_quiet.load(Ordering::Relaxed)));
        assert!((&mut task).now_or_never().is_none());
        quiet.store(false, Ordering::Relaxed);
        let mut watch = courier.signals().watch();
        assert!(bring(&courier, 1).try_recv().is_ok());
        assert_eq!(watch.next().now_or_never(), Some(Some(Lane::of(0))));
        quiet.store(true, Ordering::Relaxed);
        assert!(bring(&courier, 2).try_recv().is_err(), "it is rung for");
    }

    #[tokio::test]
    async fn when_the_task_ends_what_is_left_is_handed_out() {
        let courier = Arc::new(Courier::default());
        let mut watch = courier.signals().watch();
        let mut task = Box::pin(Arc::clone(&courier).run(|| true));
        assert!((&mut task).now_or_never().is_none());
        let mut first = bring(&courier, 1);
        assert!(first.try_recv().is_err(), "nobody has been there yet");
        drop(task);
        assert!(first.try_recv().is_ok());
        assert_eq!(watch.next().now_or_never(), Some(Some(Lane::of(0))));
        assert!(bring(&courier, 2).try_recv().is_ok(), "as without a task");
    }
}
