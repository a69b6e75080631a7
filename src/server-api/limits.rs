//! How often a server may ask.
//!
//! A server is many users, and one that comes back after a day asks for much; so the limits are wide. They are there
//! for one that asks for the state of the largest room a thousand times.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use hearth_base::{Buckets, Clock, Rate};
use ruma_common::ServerName;

use crate::ServerRates;
use crate::error::ApiError;

/// Servers that are remembered at once.
const CAPACITY: usize = 1 << 15;

/// How much work a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    Usual,
    Heavy,
}

/// Routes whose answers are much work.
const HEAVY: [&str; 6] = ["state", "state_ids", "event_auth", "send_join", "backfill", "publicRooms"];

impl Work {
    /// By the route as it is written in the table.
    pub(crate) fn of(route: &str) -> Self {
        let name = route.split('/').nth(4).unwrap_or_default();
        if HEAVY.contains(&name) { Self::Heavy } else { Self::Usual }
    }
}

/// All buckets, and what they are filled with.
pub(crate) struct Limits {
    rates: ServerRates,
    clock: Arc<dyn Clock>,
    /// By the hash of the server's name.
    buckets: Buckets<(Work, u64)>,
    names: RandomState,
}

impl Limits {
    pub(crate) fn new(rates: ServerRates, clock: Arc<dyn Clock>) -> Self {
        Self { rates, clock, buckets: Buckets::new(CAPACITY), names: RandomState::new() }
    }

    /// Counts a request of `origin`.
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED`
    pub(crate) fn take(&self, origin: &ServerName, work: Work) -> Result<(), ApiError> {
        let (now, origin) = (self.clock.now(), self.names.hash_one(origin));
        let take = |work, rate: Option<Rate>| match rate {
            Some(rate) => self.buckets.take((work, origin), rate, 1, now).map_err(ApiError::limit_exceeded),
            None => Ok(()),
        };
        take(Work::Usual, self.rates.requests)?;
        if work == Work::Heavy { take(Work::Heavy, self.rates.heavy) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_weigh_what_they_cost() {
        for (route, work) in [
            ("/_matrix/federation/v1/state/{room_id}", Work::Heavy),
            ("/_matrix/federation/v2/send_join/{room_id}/{event_id}", Work::Heavy),
            ("/_matrix/federation/v1/send/{txn}", Work::Usual),
            ("", Work::Usual),
        ] {
            assert_eq!(Work::of(route), work, "{route}");
        }
    }
}
