//! Background tasks that somebody answers for.
//!
//! A task that is spawned and forgotten outlives its owner, hides its panic and cuts a shutdown
//! short in the middle of a write. Here every task has a name, is told to stop, is waited for, and
//! a panic in it is an error line and a metric.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns tasks and ends them at shutdown. Clones share the same tasks.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stopping: CancellationToken,
    abandoned: CancellationToken,
    tasks: TaskTracker,
    running: Mutex<BTreeMap<&'static str, usize>>,
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
        let entry = Running::new(&self.0, name);
        let abandoned = self.0.abandoned.clone();
        self.0.tasks.spawn(async move {
            let _entry = entry;
            let guarded = catch_panic(task);
            tokio::select! {
                biased;
                panicked = guarded => if panicked {
                    metrics::counter!("hearth_task_panics_total", "task" => name).increment(1);
                    tracing::error!(task = name, "a background task panicked");
                },
                () = abandoned.cancelled() => {}
            }
        });
    }

    /// How many tasks run now, by name.
    pub fn running(&self) -> BTreeMap<&'static str, usize> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        self.0.abandoned.cancel();
        Err(StillRunning(left))
    }
}

/// Counts one task for as long as it lives.
struct Running(Arc<Inner>, &'static str);

impl Running {
    fn new(inner: &Arc<Inner>, name: &'static str) -> Self {
        *inner.running.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Self(inner.clone(), name)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.1) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.1);
            }
        }
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
