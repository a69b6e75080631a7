//! Threads that hash passwords.
//!
//! One hash takes some 20 ms and 19 MiB. On the threads of the async runtime it would stop every
//! other request; on a thread each, eight log-ins would take 150 MB and all cores. So there are few
//! threads, of low priority, each with one piece of memory that it uses again, and a short queue:
//! who finds it full is told so at once instead of waiting for something that comes too late.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hearth_base::Secret;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::StartError;
use crate::password::{Argon2Cost, Hasher, SALT_BYTES, UnusableHash, Verdict};

/// A thread without work gives its memory back after this long.
const IDLE: Duration = Duration::from_secs(5);
/// Hashing waits while anything else wants the processor.
const NICENESS: i32 = 10;

/// Why a password was not hashed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PoolError {
    /// The queue is full: try later.
    #[error("too many passwords are being checked")]
    Busy,
    /// The server is stopping, or a worker failed on this password.
    #[error("the password was not checked")]
    Stopped,
    /// The stored hash is no Argon2id hash.
    #[error(transparent)]
    Unusable(#[from] UnusableHash),
}

/// The threads and their queue.
pub(crate) struct HashPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    capacity: usize,
    runs: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Job {
    password: Secret<String>,
    work: Work,
}

enum Work {
    Hash { salt: [u8; SALT_BYTES], reply: oneshot::Sender<Result<String, UnusableHash>> },
    Verify { phc: Option<String>, reply: oneshot::Sender<Result<Verdict, UnusableHash>> },
}

enum Next {
    Job(Job),
    Idle,
    Closed,
}

impl HashPool {
    /// Starts `workers` threads (at least one) with room for `capacity` waiting passwords.
    pub(crate) fn start(cost: Argon2Cost, workers: usize, capacity: usize) -> Result<Self, StartError> {
        let shared =
            Arc::new(Shared { queue: Mutex::default(), ready: Condvar::new(), capacity, runs: AtomicU64::new(0) });
        let mut pool = Self { shared, workers: Vec::new() };
        for _ in 0..workers.max(1) {
            let hasher = Hasher::new(cost).map_err(StartError::Argon2)?;
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name("hearth-argon2".into());
            pool.workers.push(thread.spawn(move || work(&shared, hasher))?);
        }
        Ok(pool)
    }

    /// The PHC string of `password`.
    pub(crate) async fn hash(&self, password: &Secret<String>, salt: [u8; SALT_BYTES]) -> Result<String, PoolError> {
        let (reply, answer) = oneshot::channel();
        self.submit(password, Work::Hash { salt, reply })?;
        Ok(answer.await.map_err(|_| PoolError::Stopped)??)
    }

    /// Whether `password` belongs to `phc`; without one the answer is no, after the same work.
    pub(crate) async fn verify(&self, password: &Secret<String>, phc: Option<String>) -> Result<Verdict, PoolError> {
        let (reply, answer) = oneshot::channel();
        self.submit(password, Work::Verify { phc, reply })?;
        Ok(answer.await.map_err(|_| PoolError::Stopped)??)
    }

    /// How many times Argon2 has run.
    pub(crate) fn runs(&self) -> u64 {
        self.shared.runs.load(Ordering::Relaxed)
    }

    fn submit(&self, password: &Secret<String>, work: Work) -> Result<(), PoolError> {
        let mut queue = self.shared.queue.lock();
        if queue.jobs.len() >= self.shared.capacity {
            // Those who hung up need no answer; only a full queue is worth the search.
            queue.jobs.retain(|job| !job.work.is_abandoned());
        }
        if queue.jobs.len() >= self.shared.capacity {
            return Err(PoolError::Busy);
        }
        queue.jobs.push_back(Job { password: password.clone(), work });
        drop(queue);
        self.shared.ready.notify_one();
        Ok(())
    }
}

impl Drop for HashPool {
    /// Waits for the passwords being hashed (tens of milliseconds); the waiting ones are dropped.
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.shared.ready.notify_all();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a thread that hashes passwords had panicked");
            }
        }
    }
}

impl Work {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Hash { reply, .. } => reply.is_closed(),
            Self::Verify { reply, .. } => reply.is_closed(),
        }
    }
}

impl Shared {
    fn next(&self, patience: Option<Duration>) -> Next {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                return Next::Closed;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Next::Job(job);
            }
            match patience {
                None => self.ready.wait(&mut queue),
                Some(patience) => {
                    if self.ready.wait_for(&mut queue, patience).timed_out() && queue.jobs.is_empty() {
                        return Next::Idle;
                    }
                }
            }
        }
    }
}

fn work(shared: &Shared, mut hasher: Hasher) {
    // On Linux this is the priority of the thread. Without it everything works, only less smoothly.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "cannot lower the priority of hashing passwords");
    }
    let mut patience = None;
    loop {
        match shared.next(patience) {
            Next::Closed => return,
            Next::Idle => {
                hasher.release();
                patience = None;
            }
            Next::Job(job) if job.work.is_abandoned() => {}
            Next::Job(job) => {
                shared.runs.fetch_add(1, Ordering::Relaxed);
                // A dead thread would leave its queue waiting for ever.
                if catch_unwind(AssertUnwindSafe(|| answer(&mut hasher, job))).is_err() {
                    tracing::error!("hashing a password panicked");
                }
                patience = Some(IDLE);
            }
        }
    }
}

/// A receiver that has gone away in the meantime is no error: nobody wants to know.
fn answer(hasher: &mut Hasher, Job { password, work }: Job) {
    let password = password.expose().as_bytes();
    match work {
        Work::Hash { salt, reply } => drop(reply.send(hasher.hash(password, salt))),
        Work::Verify { phc: Some(phc), reply } => drop(reply.send(hasher.verify(password, &phc))),
        Work::Verify { phc: None, reply } => drop(reply.send(hasher.burn(password).map(|()| Verdict::Wrong))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 };
    /// Long enough for a test to act while it runs.
    const SLOW: Argon2Cost = Argon2Cost { memory_kib: 64 * 1024, iterations: 4, parallelism: 1 };

    fn password(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn passwords_are_hashed_and_checked() {
        let pool = HashPool::start(CHEAP, 2, 4).unwrap();
        let phc = pool.hash(&password("one"), [1; 16]).await.unwrap();
        assert_eq!(pool.verify(&password("one"), Some(phc.clone())).await.unwrap(), Verdict::Correct);
        assert_eq!(pool.verify(&password("two"), Some(phc)).await.unwrap(), Verdict::Wrong);
        assert_eq!(pool.verify(&password("one"), None).await.unwrap(), Verdict::Wrong);
        assert!(matches!(pool.verify(&password("one"), Some("x".into())).await, Err(PoolError::Unusable(_))));
        assert_eq!(pool.runs(), 5);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let pool = HashPool::start(SLOW, 1, 1).unwrap();
        let (a, b) = (password("a"), password("b"));
        let mut running = Box::pin(pool.hash(&a, [0; 16]));
        assert!(poll_once(&mut running).is_none());
        while !pool.shared.queue.lock().jobs.is_empty() {
            std::thread::yield_now();
        }
        let mut waiting = Box::pin(pool.hash(&b, [0; 16]));
        assert!(poll_once(&mut waiting).is_none());
        assert!(matches!(pool.hash(&password("c"), [0; 16]).await, Err(PoolError::Busy)));
        // Who hangs up makes room.
        drop(waiting);
        assert!(pool.hash(&password("d"), [0; 16]).await.is_ok());
        assert!(running.await.is_ok());
        assert_eq!(pool.runs(), 2, "the abandoned one is not hashed");
    }

    #[tokio::test]
    async fn stopping_answers_those_who_wait() {
        let pool = HashPool::start(SLOW, 1, 8).unwrap();
        let shared = Arc::clone(&pool.shared);
        let (reply, waiting) = oneshot::channel();
        pool.submit(&password("a"), Work::Verify { phc: None, reply: oneshot::channel().0 }).unwrap();
        pool.submit(&password("b"), Work::Verify { phc: None, reply }).unwrap();
        drop(pool);
        assert!(waiting.await.is_err());
        assert!(shared.queue.lock().jobs.is_empty());
    }

    /// Polls once.
    fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
