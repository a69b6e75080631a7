//! Background tasks that somebody answers for.
//!
//! A task that is spawned and forgotten outlives its owner, hides its panic and cuts a shutdown
//! short in the middle of a write. Here every task has a name, is told to stop, is waited for, and
//! a panic in it is an error line and a metric.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns tasks and ends them at shutdown. Clones share the same tasks.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stopping: CancellationToken,
    tasks: TaskTracker,
    running: Mutex<RunningTasks>,
}

/// What runs.
#[derive(Debug, Default)]
struct RunningTasks {
    /// Tasks by number; without a handle they are about to begin.
    tasks: HashMap<u64, (&'static str, Option<AbortHandle>)>,
    /// The number of the next one.
    next: u64,
}

/// Tasks that did not stop in time and were dropped: their names, each with how many there were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("still running at the end: {0:?}")]
pub struct StillRunning(pub BTreeMap<&'static str, usize>);

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Becomes cancelled when the server stops. Tasks end soon after; long polls answer early.
    pub fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    /// Runs `task` on the current runtime. It ends by itself, or soon after [`Self::stopping`].
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let entry = Entry::new(&self.0, name);
        let number = entry.number;
        let handle = self.0.tasks.spawn(async move {
            let _entry = entry;
            if catch_panic(task).await {
                metrics::counter!("hearth_task_panics_total", "task" => name).increment(1);
                tracing::error!(task = name, "a background task panicked");
            }
        });
        // Unless it has ended already.
        if let Some((_, place)) = self.0.running().tasks.get_mut(&number) {
            *place = Some(handle.abort_handle());
        }
    }

    /// How many tasks run now, by name.
    pub fn running(&self) -> BTreeMap<&'static str, usize> {
        let mut names = BTreeMap::new();
        for (name, _) in self.0.running().tasks.values() {
            *names.entry(*name).or_default() += 1;
        }
        names
    }

    /// Tells all tasks to stop and waits for them, `patience` at the most; later ones are dropped.
    ///
    /// # Errors
    /// If tasks had to be dropped.
    pub async fn shutdown(&self, patience: Duration) -> Result<(), StillRunning> {
        self.0.stopping.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(patience, self.0.tasks.wait()).await.is_ok() {
            return Ok(());
        }
        let left = self.running();
        let tasks: Vec<_> = self.0.running().tasks.values().filter_map(|(_, task)| task.clone()).collect();
        tasks.iter().for_each(AbortHandle::abort);
        Err(StillRunning(left))
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, RunningTasks> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One task's place among those that run, for as long as it lives.
struct Entry {
    inner: Arc<Inner>,
    number: u64,
}

impl Entry {
    fn new(inner: &Arc<Inner>, name: &'static str) -> Self {
        let mut running = inner.running();
        let number = running.next;
        running.next += 1;
        running.tasks.insert(number, (name, None));
        Self { inner: Arc::clone(inner), number }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.inner.running().tasks.remove(&self.number);
    }
}

/// Drives `task` to its end; `true` if that was a panic.
async fn catch_panic(task: impl Future<Output = ()>) -> bool {
    let mut task = std::pin::pin!(task);
    std::future::poll_fn(move |cx| {
        // A future that panicked is never polled again, so its broken state is not seen.
        match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(false),
            Err(_) => Poll::Ready(true),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_tasks_that_stop() {
        let supervisor = Supervisor::new();
        let stopping = supervisor.stopping();
        supervisor.spawn("polite", async move { stopping.cancelled().await });
        assert_eq!(supervisor.running(), BTreeMap::from([("polite", 1)]));
        assert_eq!(supervisor.shutdown(Duration::from_secs(5)).await, Ok(()));
        assert_eq!(supervisor.running(), BTreeMap::new());
    }

    #[tokio::test]
    async fn shutdown_names_and_drops_tasks_that_do_not_stop() {
        let supervisor = Supervisor::new();
        supervisor.spawn("stubborn", std::future::pending());
        supervisor.spawn("stubborn", std::future::pending());
        let left = supervisor.shutdown(Duration::from_millis(10)).await;
        assert_eq!(left, Err(StillRunning(BTreeMap::from([("stubborn", 2)]))));
        tokio::time::timeout(Duration::from_secs(5), async {
            while !supervisor.running().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("dropped tasks go away");
    }

    #[tokio::test]
    async fn a_panicking_task_ends_alone() {
        let supervisor = Supervisor::new();
        supervisor.spawn("broken", async { panic!("on purpose") });
        supervisor.spawn("fine", async {});
        assert_eq!(supervisor.shutdown(Duration::from_secs(5)).await, Ok(()));
    }
}
