//! Token buckets, as many as there are askers, in bounded memory.
//!
//! A bucket is one number: the time at which it will be full again. Taking from it moves that time
//! away; when the way to it is longer than the bucket is deep, nothing can be taken. A bucket whose
//! time has passed is full, as one that was never there, so it can be dropped at any moment.
//!
//! Somebody with many addresses can still make more buckets than there is room for. Then those that
//! are nearest to full are dropped, half of them at once, so that the sweep is paid for by the
//! entries that filled the map: what is forgotten is what had the least to say.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use parking_lot::Mutex;

use crate::{Millis, Rate};

/// A power of two, so that two requests seldom want the same lock.
const SHARDS: usize = 16;

/// When a bucket is full again, in microseconds since the epoch.
type FullAt = u64;

/// Buckets by key.
pub struct Buckets<K> {
    shards: [Mutex<HashMap<K, FullAt>>; SHARDS],
    hasher: RandomState,
    per_shard: usize,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    /// Keeps at most `capacity` of them, give or take what does not divide evenly.
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            per_shard: (capacity / SHARDS).max(2),
        }
    }

    /// Takes `count` from the bucket of `key`, which `rate` fills. A count above the burst takes
    /// everything, and passes when the bucket is full.
    ///
    /// # Errors
    /// How long to wait until there is enough.
    pub fn take(&self, key: K, rate: Rate, count: u32, now: Millis) -> Result<(), Duration> {
        let now = micros(now);
        let mut shard = self.shard(&key).lock();
        let known = shard.get(&key).copied();
        let after = after_taking(known.unwrap_or(now), rate, count, now)?;
        if known.is_none() && shard.len() >= self.per_shard {
            make_room(&mut shard, self.per_shard / 2, now);
        }
        shard.insert(key, after);
        Ok(())
    }

    /// Gives one back to the bucket of `key`.
    pub fn give_back(&self, key: K, rate: Rate) {
        if let Some(full_at) = self.shard(&key).lock().get_mut(&key) {
            *full_at = full_at.saturating_sub(rate.interval_micros());
        }
    }

    fn shard(&self, key: &K) -> &Mutex<HashMap<K, FullAt>> {
        let hash = self.hasher.hash_one(key).to_le_bytes();
        &self.shards[usize::from(hash[0]) % SHARDS]
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

const fn micros(now: Millis) -> u64 {
    now.0.saturating_mul(1000)
}

fn after_taking(full_at: FullAt, rate: Rate, count: u32, now: u64) -> Result<FullAt, Duration> {
    let depth = rate.interval_micros().saturating_mul(u64::from(rate.burst()));
    let cost = rate.interval_micros().saturating_mul(u64::from(count.min(rate.burst())));
    let limit = now.saturating_add(depth);
    // Also after the clock was set back, nobody waits longer than for an empty bucket.
    let after = full_at.clamp(now, limit).saturating_add(cost);
    if after > limit { Err(Duration::from_micros(after - limit)) } else { Ok(after) }
}

/// Drops what is full, and if more than `keep` are left, those that are nearest to full.
fn make_room<K: Eq + Hash>(shard: &mut HashMap<K, FullAt>, keep: usize, now: u64) {
    shard.retain(|_, full_at| *full_at > now);
    if shard.len() > keep {
        let mut times: Vec<FullAt> = shard.values().copied().collect();
        let surplus = times.len() - keep - 1;
        let (_, last_dropped, _) = times.select_nth_unstable(surplus);
        let last_dropped = *last_dropped;
        shard.retain(|_, full_at| *full_at > last_dropped);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Millis = Millis(1_700_000_000_000);

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (buckets, rate) = (Buckets::new(100), Rate::per_second(2, 3));
        for _ in 0..3 {
            assert_eq!(buckets.take("ann", rate, 1, START), Ok(()));
        }
        assert_eq!(buckets.take("ann", rate, 1, START), Err(Duration::from_millis(500)));
        assert_eq!(buckets.take("bob", rate, 1, START), Ok(()), "others have buckets of their own");
        let later = START.plus(Duration::from_millis(499));
        assert_eq!(buckets.take("ann", rate, 1, later), Err(Duration::from_millis(1)));
        assert_eq!(buckets.take("ann", rate, 1, START.plus(Duration::from_millis(500))), Ok(()));
    }

    #[test]
    fn more_than_the_burst_passes_only_when_the_bucket_is_full() {
        let (buckets, rate) = (Buckets::new(100), Rate::per_second(1, 10));
        assert_eq!(buckets.take("ann", rate, 1, START), Ok(()));
        assert_eq!(buckets.take("ann", rate, 50, START), Err(Duration::from_secs(1)));
        assert_eq!(buckets.take("ann", rate, 50, START.plus(Duration::from_secs(1))), Ok(()));
        assert_eq!(buckets.take("ann", rate, 1, START.plus(Duration::from_secs(1))), Err(Duration::from_secs(1)));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (buckets, rate) = (Buckets::new(100), Rate::per_hour(1, 1));
        assert_eq!(buckets.take("ann", rate, 1, START), Ok(()));
        buckets.give_back("ann", rate);
        assert_eq!(buckets.take("ann", rate, 1, START), Ok(()));
        buckets.take("ann", rate, 1, START).expect_err("taken");
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let (buckets, rate) = (Buckets::new(100), Rate::per_second(1, 2));
        assert_eq!(buckets.take("ann", rate, 2, START.plus(Duration::from_secs(86_400))), Ok(()));
        assert_eq!(buckets.take("ann", rate, 1, START), Err(Duration::from_secs(1)));
    }

    #[test]
    fn many_askers_do_not_take_more_memory_than_there_is() {
        let (buckets, rate) = (Buckets::new(1600), Rate::per_minute(1, 10));
        buckets.take(u64::MAX, rate, 10, START).expect("the first time");
        for asker in 0..100_000_u64 {
            buckets.take(asker, rate, 1, START).expect("a new asker");
            assert!(buckets.len() <= 1600, "{}", buckets.len());
        }
        buckets.take(u64::MAX, rate, 1, START).expect_err("the emptiest bucket is kept");
    }

    #[test]
    fn full_buckets_are_dropped_first() {
        let (buckets, rate) = (Buckets::new(1600), Rate::per_second(1, 1));
        for asker in 0..1600_u64 {
            buckets.take(asker, rate, 1, START).expect("a new asker");
        }
        let later = START.plus(Duration::from_secs(1));
        for asker in 1_000_000..1_000_200_u64 {
            buckets.take(asker, rate, 1, later).expect("a new asker");
        }
        for asker in 1_000_000..1_000_200_u64 {
            buckets.take(asker, rate, 1, later).expect_err("none of the new ones is forgotten");
        }
    }

    proptest! {
        /// In no stretch of time does more pass than the burst and what the rate allows in it.
        #[test]
        fn no_more_passes_than_the_rate_allows(
            count in 1_u32..50, burst in 1_u32..20, steps in prop::collection::vec(0_u64..300, 1..200),
        ) {
            let (buckets, rate) = (Buckets::new(100), Rate::per_second(count, burst));
            let mut now = START;
            let mut passed: Vec<Millis> = Vec::new();
            for step in steps {
                now = now.plus(Duration::from_millis(step));
                match buckets.take((), rate, 1, now) {
                    Ok(()) => passed.push(now),
                    Err(wait) => {
                        // Whoever waits as long as told passes.
                        let then = micros(now) + u64::try_from(wait.as_micros()).expect("short");
                        let full_at = buckets.shard(&()).lock()[&()];
                        prop_assert!(after_taking(full_at, rate, 1, then).is_ok());
                    }
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let refilled = u64::try_from(to.since(*from).as_micros()).expect("short") / rate.interval_micros();
                    prop_assert!((last - first) as u64 <= u64::from(burst) + refilled);
                }
            }
        }
    }
}
