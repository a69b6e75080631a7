//! How long a destination that does not answer is left alone.

use std::time::Duration;

use hearth_base::{Millis, Random};
use hearth_schema::BackOff;

use super::OutboundSettings;

/// After one more failure: twice as long as after the last, give or take a fifth, so that those who lost the same peer
/// do not all come back at the same moment.
pub(super) fn after_failure(
    before: Option<BackOff>,
    now: Millis,
    settings: &OutboundSettings,
    random: &dyn Random,
) -> BackOff {
    let failures = before.map_or(0, |before| before.failures).saturating_add(1);
    let doublings = 1_u32 << (failures - 1).min(20);
    let pause = settings.first_retry.saturating_mul(doublings).min(settings.longest_retry);
    let mut dice = [0; 1];
    random.fill(&mut dice);
    let pause = pause.mul_f64(0.8 + 0.4 * f64::from(dice[0]) / 255.0);
    BackOff { failures, since: before.map_or(now.0, |before| before.since), retry_at: now.plus(pause).0 }
}

/// The peer has been heard from: as if nothing had failed, but not more often than `pause` after the last attempt.
pub(super) fn heard(before: BackOff, last_attempt: Millis, pause: Duration) -> BackOff {
    BackOff { failures: 0, retry_at: before.retry_at.min(last_attempt.plus(pause).0), ..before }
}

#[cfg(test)]
mod tests {
    use hearth_base::SeededRandom;

    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn pauses_double_from_a_minute_to_a_week() {
        let (settings, random) = (OutboundSettings::default(), SeededRandom::new(1));
        let (mut before, mut pauses) = (None, Vec::new());
        for _ in 0..50 {
            let back_off = after_failure(before, Millis(1_000), &settings, &random);
            pauses.push(back_off.retry_at - 1_000);
            before = Some(back_off);
        }
        for (n, pause) in pauses.iter().enumerate() {
            let expected = (60_000_u64 << n.min(30)).min(7 * 24 * HOUR);
            assert!((expected * 4 / 5..=expected * 6 / 5).contains(pause), "{n}: {pause}");
        }
        let distinct: std::collections::BTreeSet<_> = pauses[20..].iter().collect();
        assert!(distinct.len() > 10, "there is chance in it");
        assert_eq!(before.map(|last| (last.failures, last.since)), Some((50, 1_000)));
    }

    #[test]
    fn who_is_heard_from_is_tried_at_once_but_not_all_the_time() {
        let long = BackOff { failures: 9, since: 5, retry_at: 100 * HOUR };
        let pause = Duration::from_secs(10);
        assert_eq!(heard(long, Millis(HOUR), pause), BackOff { failures: 0, since: 5, retry_at: HOUR + 10_000 });
        let soon = BackOff { retry_at: HOUR, ..long };
        assert_eq!(heard(soon, Millis(HOUR), pause).retry_at, HOUR, "never later than it was");
    }
}
