//! How much one server may say.

use std::collections::HashMap;

use hearth_base::{Millis, Rate};
use parking_lot::Mutex;
use ruma_common::{OwnedServerName, ServerName};

/// Things that one server may say: users typing, receipts, presences.
const RATE: Rate = Rate::per_second(200, 2_000);
/// Servers that are remembered; those that have said little lately are forgotten first.
const MAX_SERVERS: usize = 10_000;

/// Counts what servers say.
#[derive(Default)]
pub(super) struct Floods(Mutex<HashMap<OwnedServerName, u64>>);

impl Floods {
    /// Whether `origin` may say `items` things more at `now`; it has said them then.
    ///
    /// For each server there is the time, in microseconds, at which everything that it has said is paid for.
    pub(super) fn allow(&self, origin: &ServerName, items: usize, now: Millis) -> bool {
        let now = now.0.saturating_mul(1_000);
        let cost = RATE.interval_micros().saturating_mul(u64::try_from(items).unwrap_or(u64::MAX));
        let most = RATE.interval_micros().saturating_mul(u64::from(RATE.burst()));
        let mut servers = self.0.lock();
        if servers.len() >= MAX_SERVERS && !servers.contains_key(origin) {
            servers.retain(|_, paid| *paid > now);
            if servers.len() >= MAX_SERVERS {
                return false;
            }
        }
        let paid = servers.entry(origin.to_owned()).or_default();
        let after = (*paid).max(now).saturating_add(cost);
        if after > now.saturating_add(most) {
            return false;
        }
        *paid = after;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(n: usize) -> OwnedServerName {
        format!("s{n}.test").try_into().expect("a name")
    }

    #[test]
    fn a_server_has_a_burst_and_a_rate_of_its_own() {
        let floods = Floods::default();
        let now = Millis(1_000_000);
        assert!(floods.allow(&server(1), 2_000, now));
        assert!(!floods.allow(&server(1), 1, now));
        assert!(floods.allow(&server(2), 1, now), "others are not concerned");
        let later = Millis(1_001_000);
        assert!(!floods.allow(&server(1), 201, later));
        assert!(floods.allow(&server(1), 200, later));
    }

    #[test]
    fn servers_are_forgotten_when_they_have_been_quiet() {
        let floods = Floods::default();
        for n in 0..MAX_SERVERS {
            assert!(floods.allow(&server(n), 1, Millis(1_000)));
        }
        assert!(!floods.allow(&server(MAX_SERVERS), 1, Millis(1_000)), "too many speak at once");
        assert!(floods.allow(&server(MAX_SERVERS), 1, Millis(2_000)));
        assert_eq!(floods.0.lock().len(), 1);
    }
}
