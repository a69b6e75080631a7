//! SRV records: where the server behind a name listens.

use std::num::NonZeroU16;
use std::time::Duration;

use hearth_base::Random;
use tokio::time::timeout;

use crate::name::{Authority, Host};
use crate::{Dns, SrvTarget};

/// Targets that are tried.
const MAX_TARGETS: usize = 8;
/// Records that are looked at.
const MAX_RECORDS: usize = 64;
/// How long a look-up may take, with all its retries.
const TIMEOUT: Duration = Duration::from_secs(8);

/// A host and a port to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub host: String,
    pub port: NonZeroU16,
}

/// What the records are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `_matrix-fed._tcp`
    Current,
    /// `_matrix._tcp`, which is looked at if the other is not there.
    Deprecated,
}

impl Kind {
    /// The name of the records of `name`.
    pub(crate) fn of(self, name: &str) -> String {
        match self {
            Self::Current => format!("_matrix-fed._tcp.{name}"),
            Self::Deprecated => format!("_matrix._tcp.{name}"),
        }
    }
}

/// The SRV records of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Records {
    pub kind: Kind,
    /// In the order to try them. Empty: they say that there is no server.
    pub targets: Vec<Target>,
}

/// Where the server `name` listens. `None`: it has no SRV records.
///
/// A look-up that fails is as good as no record: whoever answers at the address of `name` has to show a certificate for
/// `name` as well, and some name servers of private networks never answer such questions.
pub(crate) async fn records(dns: &dyn Dns, random: &dyn Random, name: &str) -> Option<Records> {
    let (current, deprecated) = (Kind::Current.of(name), Kind::Deprecated.of(name));
    let (current, deprecated) = futures::join!(look_up(dns, &current), look_up(dns, &deprecated));
    let found = [(Kind::Current, current), (Kind::Deprecated, deprecated)];
    let (kind, records) = found.into_iter().find(|(_, records)| !records.is_empty())?;
    Some(Records { kind, targets: in_order(records, random) })
}

async fn look_up(dns: &dyn Dns, name: &str) -> Vec<SrvTarget> {
    match timeout(TIMEOUT, dns.srv(name)).await {
        Ok(Ok(records)) => records,
        Ok(Err(error)) => {
            tracing::debug!(name, %error, "a SRV record could not be looked up");
            Vec::new()
        }
        Err(_) => {
            tracing::debug!(name, "looking up a SRV record takes too long");
            Vec::new()
        }
    }
}

/// By priority, and among equals by lot (RFC 2782).
fn in_order(mut records: Vec<SrvTarget>, random: &dyn Random) -> Vec<Target> {
    records.truncate(MAX_RECORDS);
    records.sort_by_key(|record| record.priority);
    let mut ordered = Vec::new();
    while let Some(first) = records.first() {
        let priority = first.priority;
        let equal = records.iter().take_while(|record| record.priority == priority);
        // One more each, so that those without weight have a chance.
        let weights: Vec<u64> = equal.map(|record| u64::from(record.weight) + 1).collect();
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        let mut lot = u64::from_be_bytes(bytes) % weights.iter().sum::<u64>();
        let mut chosen = 0;
        for weight in weights {
            if lot < weight {
                break;
            }
            lot -= weight;
            chosen += 1;
        }
        ordered.push(records.remove(chosen));
    }
    let usable = ordered.into_iter().filter_map(|record| {
        let named = Authority::parse(&record.host).filter(|read| read.port.is_none())?;
        let Host::Name(host) = named.host else { return None };
        Some(Target { host, port: NonZeroU16::new(record.port)? })
    });
    usable.take(MAX_TARGETS).collect()
}

#[cfg(test)]
mod tests {
    use hearth_base::SeededRandom;

    use super::*;

    fn record(priority: u16, weight: u16, host: &str) -> SrvTarget {
        SrvTarget { priority, weight, host: host.to_owned(), port: 443 }
    }

    #[test]
    fn priorities_come_first_and_weights_decide_by_lot() {
        let random = SeededRandom::new(1);
        let mut heavy_first = 0;
        for _ in 0..400 {
            let records = vec![record(2, 0, "last"), record(1, 0, "light"), record(1, 2, "heavy")];
            let order: Vec<_> = in_order(records, &random).into_iter().map(|target| target.host).collect();
            assert_eq!(order.len(), 3);
            assert_eq!(order[2], "last");
            heavy_first += usize::from(order[0] == "heavy");
        }
        assert!((240..360).contains(&heavy_first), "three of four: {heavy_first}");
    }

    #[test]
    fn targets_that_are_none_and_too_many_are_left_out() {
        let random = SeededRandom::new(1);
        let odd = vec![
            record(1, 1, ""),
            record(1, 1, "127.0.0.1"),
            record(1, 1, "a/b"),
            record(1, 1, "a:1"),
            SrvTarget { port: 0, ..record(1, 1, "a") },
        ];
        assert_eq!(in_order(odd, &random), []);
        let many = (0..1000).map(|n| record(n, 1, "a")).collect();
        assert_eq!(in_order(many, &random).len(), MAX_TARGETS);
    }
}
