//! Threads for reads that wait for the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use hearth_store::StoreError;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};

/// Reads that may wait or run at once; the next ones wait in their callers.
const CAPACITY: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads that run blocking reads.
pub(crate) struct ReaderPool {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl std::fmt::Debug for ReaderPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReaderPool").field("free", &self.permits.available_permits()).finish_non_exhaustive()
    }
}

impl ReaderPool {
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let spawn = |number: usize| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("store-read-{number}")).spawn(move || shared.work())
        };
        let threads = (0..threads.max(1)).map(spawn).collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { shared, permits: Arc::new(Semaphore::new(CAPACITY)), threads: Mutex::new(threads) })
    }

    /// Runs `job` on a thread of the pool.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Unavailable("the store is shutting down".into());
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| stopped())?;
        let (answer, answered) = oneshot::channel();
        let job = move || {
            // Nobody waits any more if the request was dropped: then the read is not worth doing.
            if !answer.is_closed() {
                let _ = answer.send(job());
            }
            drop(permit);
        };
        self.shared.push(Box::new(job));
        answered.await.map_err(|_| stopped())?
    }

    /// Finishes what runs, drops what waits, ends the threads.
    pub(crate) fn close(&self) {
        self.permits.close();
        let waiting = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            std::mem::take(&mut state.jobs)
        };
        drop(waiting);
        self.shared.ready.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        let me = std::thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != me) {
            if thread.join().is_err() {
                tracing::error!("a reader thread of the store has panicked");
            }
        }
    }
}

impl Drop for ReaderPool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn push(&self, job: Job) {
        let mut state = self.state.lock();
        if !state.closed {
            state.jobs.push_back(job);
            drop(state);
            self.ready.notify_one();
        }
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            job();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            self.ready.wait(&mut state);
        }
    }
}
