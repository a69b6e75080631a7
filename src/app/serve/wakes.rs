//! Wakes of a task by itself.
//!
//! The problem: who wakes the own task while it runs is asked again through the scheduler, which wakes another thread for
//! a task that waits; with every request that has a body, because the reader of the body calls the connection, which is
//! the same task. The answer: a wake that comes during a poll makes it be polled once more, here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// How often it is polled at once; after that it is the others' turn.
const AT_ONCE: usize = 8;

/// Nobody polls, or has woken it: wakes are for the task.
const RESTING: u8 = 0;
/// It is being polled.
const POLLED: u8 = 1;
/// It has been woken.
const WOKEN: u8 = 2;

/// Catches wakes of one task that come while it is being polled.
pub(super) struct Wakes {
    shared: Arc<Shared>,
    waker: Waker,
}

#[derive(Default)]
struct Shared {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Always a write, also where it is woken already: what was done before this wake has then been seen by a poll
        // that takes the bit back.
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) & POLLED == 0 {
            self.task.wake();
        }
    }
}

impl Wakes {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        Self { waker: Waker::from(Arc::clone(&shared)), shared }
    }

    /// Calls `poll` until it is ready, or waits for something.
    pub(super) fn poll<T>(&self, task: &Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let state = &self.shared.state;
        self.shared.task.register(task.waker());
        for _ in 0..AT_ONCE {
            state.swap(POLLED, Ordering::AcqRel);
            let polled = poll(&mut Context::from_waker(&self.waker));
            if polled.is_ready() {
                // Whoever polls for more does so without being woken.
                state.store(RESTING, Ordering::Release);
                return polled;
            }
            if state.compare_exchange(POLLED, RESTING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return polled;
            }
        }
        state.store(RESTING, Ordering::Release);
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Task {
        woken: Arc<Counter>,
        waker: Waker,
        wakes: Wakes,
    }

    impl Task {
        fn new() -> Self {
            let woken = Arc::<Counter>::default();
            Self { waker: Waker::from(Arc::clone(&woken)), woken, wakes: Wakes::new() }
        }

        fn poll<T>(&self, poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
            self.wakes.poll(&Context::from_waker(&self.waker), poll)
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn who_wakes_itself_is_polled_again_at_once() {
        let task = Task::new();
        let mut polls = 0;
        let polled = task.poll(|context| {
            polls += 1;
            if polls == 3 {
                return Poll::Ready("done");
            }
            context.waker().wake_by_ref();
            Poll::Pending
        });
        assert_eq!((polled, polls, task.woken()), (Poll::Ready("done"), 3, 0));
    }

    #[test]
    fn who_wakes_itself_without_end_gives_way() {
        let task = Task::new();
        let mut polls = 0;
        let forever = |context: &mut Context<'_>| {
            polls += 1;
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        };
        assert!(task.poll(forever).is_pending());
        assert_eq!((polls, task.woken()), (AT_ONCE, 1), "and is woken by the scheduler");
    }

    #[test]
    fn a_wake_between_polls_reaches_the_task_once() {
        let task = Task::new();
        let mut kept = None;
        let polled = task.poll(|context| {
            kept = Some(context.waker().clone());
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!(task.woken(), 0);
        let kept = kept.expect("it was polled");
        kept.wake_by_ref();
        kept.wake_by_ref();
        assert_eq!(task.woken(), 1, "the second finds it woken");
        assert!(task.poll(|_| Poll::<()>::Pending).is_pending());
        kept.wake();
        assert_eq!(task.woken(), 2);
    }

    #[test]
    fn no_wake_of_another_thread_is_lost() {
        for _ in 0..200 {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let (wakes, steps) = (Wakes::new(), Arc::new(AtomicUsize::new(0)));
                let (tell, heard) = std::sync::mpsc::channel::<Waker>();
                let other = Arc::clone(&steps);
                let thread = std::thread::spawn(move || {
                    for waker in heard {
                        other.fetch_add(1, Ordering::Release);
                        waker.wake();
                    }
                });
                for wanted in 1..=20 {
                    let mut told = false;
                    std::future::poll_fn(|context| {
                        wakes.poll(context, |context| {
                            if !std::mem::replace(&mut told, true) {
                                tell.send(context.waker().clone()).expect("somebody listens");
                            }
                            if steps.load(Ordering::Acquire) == wanted { Poll::Ready(()) } else { Poll::Pending }
                        })
                    })
                    .await;
                }
                drop(tell);
                thread.join().expect("no panic");
            });
        }
    }
}
