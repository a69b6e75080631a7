//! Leaving servers alone that do not answer.
//!
//! After a failure a server is left alone for a while that doubles with each one. When it is over, one request may try;
//! all others go on failing at once until that one knows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hearth_base::{Clock, Millis, Random};
use moka::sync::Cache;
use parking_lot::Mutex;
use ruma_common::{OwnedServerName, ServerName};

use crate::Patience;

/// Servers whose failures are remembered.
const MAX_SERVERS: u64 = 100_000;
/// A server that is heard from is tried again at once, but not more often than this.
const AFTER_WORD: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct BackOff {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    first: Duration,
    most: Duration,
    failing: Cache<OwnedServerName, Arc<Mutex<Failing>>>,
}

#[derive(Debug)]
struct Failing {
    failures: u32,
    last: Millis,
    until: Millis,
    probed: bool,
}

/// The right to try. Whoever drops it without a word leaves the turn to another.
pub(crate) struct Turn {
    of: BackOff,
    server: OwnedServerName,
    began: Millis,
    probe: Option<Arc<Mutex<Failing>>>,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("server", &self.server).finish_non_exhaustive()
    }
}

impl BackOff {
    pub(crate) fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, first: Duration, most: Duration) -> Self {
        Self { clock, random, first, most, failing: Cache::new(MAX_SERVERS) }
    }

    /// Leave to try `server`; if not, how long it is still left alone (zero: somebody is trying).
    pub(crate) fn turn(&self, server: &ServerName, patience: Patience) -> Result<Turn, Duration> {
        let now = self.clock.now();
        let mut probe = None;
        if let Some(failing) = self.failing.get(server)
            && patience == Patience::FailFast
        {
            let mut row = failing.lock();
            if row.probed || now < row.until {
                return Err(row.until.since(now));
            }
            row.probed = true;
            probe = Some(Arc::clone(&failing));
        }
        Ok(Turn { of: self.clone(), server: server.to_owned(), began: now, probe })
    }

    /// `server` lives: it may be tried again, although perhaps it cannot be reached from here.
    pub(crate) fn heard_from(&self, server: &ServerName) {
        if let Some(failing) = self.failing.get(server) {
            let mut row = failing.lock();
            row.until = row.until.min(row.last.plus(AFTER_WORD.min(self.first)));
        }
    }

    /// `server` has not answered what it was asked at `began`.
    pub(crate) fn failed(&self, server: &ServerName, began: Millis) {
        let now = self.clock.now();
        let new = || Arc::new(Mutex::new(Failing { failures: 0, last: Millis(0), until: now, probed: false }));
        let failing = self.failing.get_with_by_ref(server, new);
        let mut row = failing.lock();
        // What began before the last failure says nothing new.
        if row.failures > 0 && began < row.last {
            return;
        }
        let doubled = self.first.saturating_mul(1 << row.failures.min(24));
        row.failures = row.failures.saturating_add(1);
        row.last = now;
        row.until = now.plus(self.spread(doubled.min(self.most)));
    }

    /// Up to a fifth less, so that not everything comes back at the same time.
    fn spread(&self, pause: Duration) -> Duration {
        let mut byte = [0];
        self.random.fill(&mut byte);
        pause.saturating_sub(pause / 5 * u32::from(byte[0]) / 256)
    }
}

impl Turn {
    /// It answered; gives its name if it had not the time before.
    pub(crate) fn reached(mut self) -> Option<OwnedServerName> {
        self.probe = None;
        self.of.failing.remove(&self.server).map(|_| self.server.clone())
    }

    /// It did not.
    pub(crate) fn failed(self) {
        self.of.failed(&self.server, self.began);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.lock().probed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use hearth_base::{FixedClock, SeededRandom};
    use ruma_common::server_name;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn back_off() -> (BackOff, Arc<FixedClock>) {
        let clock = Arc::new(FixedClock::new(Millis(1_000_000)));
        let random = Arc::new(SeededRandom::new(1));
        (BackOff::new(clock.clone(), random, 60 * SECOND, 3600 * SECOND), clock)
    }

    #[test]
    fn failures_make_pauses_that_grow_and_end() {
        let (back_off, clock) = back_off();
        let server = server_name!("a.example");
        let mut pauses = Vec::new();
        for _ in 0..9 {
            back_off.turn(server, Patience::FailFast).expect("a turn").failed();
            let pause = back_off.turn(server, Patience::FailFast).expect_err("a pause");
            pauses.push(pause.as_secs());
            clock.advance(pause);
        }
        for (pause, full) in pauses.iter().zip([60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]) {
            assert!((full * 4 / 5..=full).contains(pause), "{pauses:?}");
        }
        let reached = back_off.turn(server, Patience::FailFast).expect("a turn").reached();
        assert_eq!(reached.as_deref(), Some(server), "it is back");
        let again = back_off.turn(server, Patience::FailFast).expect("forgotten").reached();
        assert_eq!(again, None, "as ever");
        assert!(back_off.turn(server_name!("b.example"), Patience::FailFast).is_ok(), "another server");
    }

    #[test]
    fn one_at_a_time_tries() {
        let (back_off, clock) = back_off();
        let server = server_name!("a.example");
        back_off.turn(server, Patience::FailFast).expect("a turn").failed();
        clock.advance(60 * SECOND);
        let first = back_off.turn(server, Patience::FailFast).expect("a turn");
        assert!(back_off.turn(server, Patience::FailFast).is_err(), "somebody is trying");
        assert!(back_off.turn(server, Patience::Probe).is_ok(), "who has waited may");
        drop(first);
        assert!(back_off.turn(server, Patience::FailFast).is_ok(), "given up");
    }

    #[test]
    fn what_failed_together_counts_once() {
        let (back_off, clock) = back_off();
        let server = server_name!("a.example");
        let turns: Vec<_> = (0..20).map(|_| back_off.turn(server, Patience::FailFast).expect("a turn")).collect();
        clock.advance(SECOND);
        turns.into_iter().for_each(Turn::failed);
        let pause = back_off.turn(server, Patience::FailFast).expect_err("a pause");
        assert!(pause <= 60 * SECOND, "{pause:?}");
    }

    #[test]
    fn who_is_heard_from_is_tried_again_but_not_all_the_time() {
        let (back_off, clock) = back_off();
        let server = server_name!("a.example");
        back_off.turn(server, Patience::FailFast).expect("a turn").failed();
        back_off.heard_from(server);
        assert!(back_off.turn(server, Patience::FailFast).is_err(), "failed just now");
        clock.advance(6 * SECOND);
        back_off.turn(server, Patience::FailFast).expect("a turn").failed();
        clock.advance(6 * SECOND);
        assert!(back_off.turn(server, Patience::FailFast).is_err());
        back_off.heard_from(server);
        assert!(back_off.turn(server, Patience::FailFast).is_ok());
    }
}
