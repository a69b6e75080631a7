//! How often a server may ask.
//!
//! A server is many users, and one that comes back after a day asks for much; so the limits are wide. They are there
//! for one that asks for the state of the largest room a thousand times.
//!
//! Before a signature is verified nobody knows who asks, and to find out costs more than to lie: keys have to be fetched,
//! a body has to be read. So a request first takes a token of the address that it came from, and gets it back once it is
//! clear that a server that is known here has signed it. One name may use a quarter of what its address has: servers
//! behind one proxy do not pay for the one among them that is broken. The name alone is not counted, or anybody could
//! shut a server out by signing badly in its name.

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use hearth_base::{Buckets, Clock, Rate};
use http::request::Parts;
use ruma_common::ServerName;

use crate::ServerRates;
use crate::error::ApiError;

/// Servers that are remembered at once.
const CAPACITY: usize = 1 << 15;

/// Where a request came from; whoever listens puts it into the extensions of each request. `None`: this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller(pub Option<IpAddr>);

impl Caller {
    /// The address, or the first 64 bits of one of version 6: whoever has one such address usually has all of them.
    fn bits(self) -> (u8, u128) {
        match self.0.map(|address| address.to_canonical()) {
            None => (0, 0),
            Some(IpAddr::V4(v4)) => (4, u128::from(v4.to_bits())),
            Some(IpAddr::V6(v6)) => (6, v6.to_bits() >> 64),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_default())
    }
}

/// How much work a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    Usual,
    Heavy,
    /// To find out who asks: of an address.
    Unproven,
    /// The same, of an address in one name.
    Claimed,
    /// To ask others for their keys: of an address.
    Keys,
    /// To invite whom an identity server vouches for: of an address.
    Bindings,
}

/// What a request costs its name as long as it is unproven: a quarter of what the address has.
const CLAIM: u32 = 4;

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
    /// By the hash of the server's name, of an address, or of both.
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

    /// Counts a request of `caller` that says it is of `claimed`, before anything is done for it.
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED`
    pub(crate) fn unproven(&self, caller: Caller, claimed: &ServerName) -> Result<Unproven<'_>, ApiError> {
        let Some(rate) = self.rates.unproven else { return Ok(Unproven { limits: self, taken: None }) };
        let address = (Work::Unproven, self.names.hash_one(caller.bits()));
        let name = (Work::Claimed, self.names.hash_one((caller.bits(), claimed)));
        let now = self.clock.now();
        self.buckets.take(name, rate, CLAIM, now).map_err(ApiError::limit_exceeded)?;
        let unproven = Unproven { limits: self, taken: Some(Taken { rate, address, name }) };
        if let Err(wait) = self.buckets.take(address, rate, 1, now) {
            unproven.give_back_name();
            return Err(ApiError::limit_exceeded(wait));
        }
        Ok(unproven)
    }

    /// Counts `servers` of which `caller` asks us for the keys.
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED`
    pub(crate) fn keys(&self, caller: Caller, servers: usize) -> Result<(), ApiError> {
        self.of_address(Work::Keys, caller, servers)
    }

    /// Counts `invites` that were bound, of which `caller` tells.
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED`
    pub(crate) fn bindings(&self, caller: Caller, invites: usize) -> Result<(), ApiError> {
        self.of_address(Work::Bindings, caller, invites)
    }

    fn of_address(&self, work: Work, caller: Caller, count: usize) -> Result<(), ApiError> {
        let Some(rate) = self.rates.unproven else { return Ok(()) };
        let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        let address = (work, self.names.hash_one(caller.bits()));
        self.buckets.take(address, rate, count, self.clock.now()).map_err(ApiError::limit_exceeded)
    }
}

/// A request of which nobody knows yet who sent it. Dropped, it counts.
#[must_use]
pub(crate) struct Unproven<'l> {
    limits: &'l Limits,
    taken: Option<Taken>,
}

/// Where the tokens came from.
struct Taken {
    rate: Rate,
    address: (Work, u64),
    name: (Work, u64),
}

impl Unproven<'_> {
    /// A server that was known before has signed it.
    pub(crate) fn prove(self) {
        self.give_back_name();
        if let Some(Taken { rate, address, .. }) = self.taken {
            self.limits.buckets.give_back(address, rate);
        }
    }

    fn give_back_name(&self) {
        if let Some(Taken { rate, name, .. }) = &self.taken {
            (0..CLAIM).for_each(|_| self.limits.buckets.give_back(*name, *rate));
        }
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
