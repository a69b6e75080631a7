//! Telling watchers which lanes moved: shared by the embedded engines.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures::stream::{BoxStream, Stream, StreamExt};
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::Lane;

/// Set in a watcher's mask when the engine has gone.
const CLOSED: u64 = 1 << 63;
/// Set in a watcher's mask when it has to be woken.
const UNTOLD: u64 = 1 << 62;

/// The watchers of one engine. A watcher that does not keep up loses nothing but repetitions: what
/// waits for it is one bit per lane.
#[derive(Debug, Default)]
pub struct Signals(Mutex<Vec<Weak<Watcher>>>);

#[derive(Debug, Default)]
struct Watcher {
    moved: AtomicU64,
    waker: AtomicWaker,
}

impl Watcher {
    fn set(&self, bits: u64) {
        self.moved.fetch_or(bits, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Wakes it if it has to be and has not looked by itself meanwhile.
    fn tell(&self) -> bool {
        // Lanes are set with the bit, so none is there that was not seen here.
        let moved = self.moved.fetch_and(!UNTOLD, Ordering::AcqRel);
        let waits = moved & UNTOLD != 0 && moved & !(CLOSED | UNTOLD) != 0;
        if waits {
            self.waker.wake();
        }
        waits
    }

    fn is_untold(&self) -> bool {
        self.moved.load(Ordering::Acquire) & UNTOLD != 0
    }
}

impl Signals {
    /// A stream of lanes that move from now on; it ends when the engine has gone.
    pub fn watch(&self) -> BoxStream<'static, Lane> {
        let watcher = Arc::new(Watcher::default());
        let mut watchers = self.0.lock();
        watchers.retain(|known| known.strong_count() > 0);
        watchers.push(Arc::downgrade(&watcher));
        Watch(watcher).boxed()
    }

    /// Wakes every watcher with `lanes`, one bit per lane number.
    pub fn moved(&self, lanes: u32) {
        if lanes != 0 {
            self.each(u64::from(lanes));
        }
    }

    /// As [`Self::moved`], but wakes nobody yet.
    pub fn mark(&self, lanes: u32) {
        if lanes != 0 {
            for watcher in self.0.lock().iter().filter_map(Weak::upgrade) {
                watcher.moved.fetch_or(u64::from(lanes) | UNTOLD, Ordering::AcqRel);
            }
        }
    }

    /// Wakes the first watcher that is marked; `true` if there are others.
    pub fn tell_next(&self) -> bool {
        let watchers = self.0.lock();
        let mut marked = watchers.iter().filter_map(Weak::upgrade);
        marked.find(|watcher| watcher.tell());
        marked.any(|watcher| watcher.is_untold())
    }

    /// Ends every stream.
    pub fn close(&self) {
        self.each(CLOSED);
    }

    fn each(&self, bits: u64) {
        for watcher in self.0.lock().iter().filter_map(Weak::upgrade) {
            watcher.set(bits);
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.close();
    }
}

struct Watch(Arc<Watcher>);

impl Stream for Watch {
    type Item = Lane;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Lane>> {
        // Registering first: a bit that is set after the look below wakes us.
        self.0.waker.register(context.waker());
        let moved = self.0.moved.load(Ordering::Acquire);
        let lanes = moved & !(CLOSED | UNTOLD);
        if lanes == 0 {
            return if moved & CLOSED != 0 { Poll::Ready(None) } else { Poll::Pending };
        }
        self.0.moved.fetch_and(!(1 << lanes.trailing_zeros()), Ordering::AcqRel);
        let number = u8::try_from(lanes.trailing_zeros()).expect("a mask has 64 bits");
        Poll::Ready(Some(Lane::of(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    /// How often somebody was woken.
    #[derive(Default)]
    struct Count(AtomicU64);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn tells_each_lane_once_and_ends_with_the_engine() {
        let signals = Signals::default();
        let mut watch = signals.watch();
        assert_eq!(watch.next().now_or_never(), None, "nothing moved yet");
        signals.moved(0b1001);
        signals.moved(0b1000);
        assert_eq!(watch.next().now_or_never(), Some(Some(Lane::of(0))));
        assert_eq!(watch.next().now_or_never(), Some(Some(Lane::of(3))));
        assert_eq!(watch.next().now_or_never(), None);
        drop(signals);
        assert_eq!(watch.next().now_or_never(), Some(None));
    }

    #[test]
    fn who_is_marked_is_told_in_turn_unless_it_has_looked() {
        let signals = Signals::default();
        let wakes: [_; 3] = std::array::from_fn(|_| Arc::new(Count::default()));
        let mut watches: [_; 3] = std::array::from_fn(|_| signals.watch());
        let mut look = |n: usize| watches[n].poll_next_unpin(&mut Context::from_waker(&wakes[n].clone().into()));
        let counts = || wakes.each_ref().map(|wakes| wakes.0.load(Ordering::Relaxed));
        assert!((0..3).all(|n| look(n).is_pending()));
        signals.mark(0b10);
        assert_eq!(counts(), [0, 0, 0], "nobody is woken yet");
        assert!(signals.tell_next(), "two are left");
        assert_eq!(counts(), [1, 0, 0]);
        assert_eq!(look(1), Poll::Ready(Some(Lane::of(1))));
        assert!(look(1).is_pending());
        assert!(!signals.tell_next());
        assert_eq!(counts(), [1, 0, 1], "one has looked by itself");
        assert!(!signals.tell_next());
        assert_eq!(counts(), [1, 0, 1]);
        assert_eq!(look(2), Poll::Ready(Some(Lane::of(1))), "what it was woken for");
    }

    #[test]
    fn forgets_watchers_that_have_gone() {
        let signals = Signals::default();
        for _ in 0..100 {
            drop(signals.watch());
        }
        assert_eq!(signals.0.lock().len(), 1, "only the last one, dropped after it was added");
    }
}
