//! What is known of keys, and what is said of them now.

use std::collections::btree_map::Entry;
use std::time::Duration;

use hearth_base::Millis;
use hearth_event::{ServerKeys, SigningKey};
use hearth_schema::{PeerKey, PeerKeysRow};
use ruma_common::ServerName;

use crate::OldKey;

/// However long a server says that its keys are good, it has a week to be sorry.
///
/// Spec: <https://spec.matrix.org/v1.19/server-server-api/#publishing-keys>
pub(super) const MAX_VALIDITY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Keys that are remembered of one server.
const MAX_KEYS: usize = 512;

/// Who says something about a server's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The server itself, now.
    Server,
    /// A key server: what the server itself has said, but perhaps long ago.
    KeyServer,
}

/// `known` and what `said` adds to it.
pub(super) fn merged(
    server: &ServerName,
    known: PeerKeysRow,
    said: &ServerKeys,
    (source, now): (Source, Millis),
) -> PeerKeysRow {
    let mut row = PeerKeysRow { fetched_at: now.0, ..known };
    let until = valid_until(said, now);
    for (key_id, key) in &said.verify_keys {
        let new = PeerKey { key: key.clone(), valid_until: until, retired: false };
        add(server, &mut row, key_id, new, |known| {
            // An old answer, passed on again, must not bring back a key that its server has given up since.
            if known.retired && source == Source::KeyServer {
                return;
            }
            known.valid_until = if known.retired { until } else { known.valid_until.max(until) };
            known.retired = false;
        });
    }
    for (key_id, (key, expired_ts)) in &said.old_verify_keys {
        let until = (*expired_ts).min(now.0);
        let new = PeerKey { key: key.clone(), valid_until: until, retired: true };
        add(server, &mut row, key_id, new, |known| {
            known.valid_until = until;
            known.retired = true;
        });
    }
    row
}

/// Until when `said` is believed.
pub(super) fn valid_until(said: &ServerKeys, now: Millis) -> u64 {
    said.valid_until_ts.min(now.plus(MAX_VALIDITY).0)
}

fn add(server: &ServerName, row: &mut PeerKeysRow, key_id: &str, new: PeerKey, update: impl FnOnce(&mut PeerKey)) {
    let full = row.keys.len() >= MAX_KEYS;
    match row.keys.entry(key_id.to_owned()) {
        Entry::Occupied(known) if known.get().key != new.key => {
            tracing::error!(
                %server,
                key_id,
                known = known.get().key,
                said = new.key,
                "a server has changed the bytes of a signing key: what it signs with the new ones is refused. \
                 Either somebody else speaks as that server, or it was set up anew under an old key ID"
            );
        }
        Entry::Occupied(mut known) => update(known.get_mut()),
        Entry::Vacant(_) if full => {
            tracing::warn!(%server, key_id, "a server has had more signing keys than are remembered");
        }
        Entry::Vacant(place) => {
            place.insert(new);
        }
    }
}

/// This server's own keys.
pub(super) fn own(signing_key: &SigningKey, old_keys: &[OldKey]) -> PeerKeysRow {
    let old = old_keys.iter().map(|old| {
        (old.key_id.clone(), PeerKey { key: old.key.clone(), valid_until: old.expired_ts.0, retired: true })
    });
    let current = PeerKey { key: signing_key.public_key_base64(), valid_until: u64::MAX, retired: false };
    let keys = old.chain([(signing_key.key_id().to_owned(), current)]).collect();
    PeerKeysRow { keys, fetched_at: u64::MAX }
}
