//! Looking around now and then, all at the same moment.
//!
//! A machine with nothing to do sleeps, and every waking costs it far more than what it wakes for. So whoever looks
//! at something regularly does so when the others do.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// The moment from which everybody counts.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// The first moment after `now` at which those who look every `period` do so.
///
/// # Panics
/// If `period` is less than a millisecond.
pub fn next_tick(now: Instant, period: Duration) -> Instant {
    last_tick(now, period) + period
}

fn last_tick(now: Instant, period: Duration) -> Instant {
    assert!(period >= Duration::from_millis(1), "no rest between two looks");
    let passed = now.saturating_duration_since(origin()).as_nanos();
    let rest = u64::try_from(passed % period.as_nanos()).unwrap_or(0);
    now.checked_sub(Duration::from_nanos(rest)).unwrap_or(now)
}

/// Ticks at once, and then every `period` together with all others of the same period; those that were missed are
/// left out.
///
/// # Panics
/// If `period` is less than a millisecond.
pub fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(last_tick(Instant::now(), period), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_ticks_together() {
        let (second, now) = (Duration::from_secs(1), origin() + Duration::from_millis(7_300));
        assert_eq!(next_tick(now, second), origin() + 8 * second);
        assert_eq!(next_tick(origin() + 8 * second, second), origin() + 9 * second);
        assert_eq!(next_tick(now, 5 * second), origin() + 10 * second);
        assert_eq!(last_tick(now, second), origin() + 7 * second);
        assert_eq!(last_tick(origin(), second), origin());
    }

    #[tokio::test]
    async fn the_first_tick_comes_at_once() {
        let mut ticks = ticks(Duration::from_secs(3600));
        let first = ticks.tick().await;
        assert!(first <= Instant::now());
        let second = tokio::time::timeout(Duration::from_millis(1), ticks.tick()).await;
        assert!(second.is_err(), "and the next does not");
    }
}
