//! Other servers' signing keys.
//!
//! Whoever has a server's key can speak as it, so what is known of keys only grows: the bytes of a key never change
//! once they are known, whatever anybody says later. And anybody can name any server in a signature, so asking is
//! bounded: one question at a time to each server, pauses after failures, and no second question within a minute.

mod fetch;
mod merge;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hearth_base::Millis;
use hearth_event::{KeyError, PublicKeys, public_key_bytes};
use hearth_rooms::remote::KeyWish;
use hearth_schema::{PeerKeys, PeerKeysRow};
use hearth_store::{StoreError, View};
use moka::sync::Cache;
use ruma_common::{OwnedServerName, ServerName};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::back_off::BackOff;
use crate::flights::Flights;
use crate::{Peers, PeersParts};

/// Servers whose keys are kept in memory.
const MAX_CACHED: u64 = 20_000;
/// Servers that are asked at the same time.
const MAX_ASKED: usize = 64;
/// How long a batch of wishes may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// A server whose answer was not enough is not asked again before this.
const AGAIN: Duration = Duration::from_secs(60);

/// How long a server is left alone that does not tell its keys.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What is known, and who is being asked.
pub(crate) struct Ring {
    cached: Cache<OwnedServerName, Arc<PeerKeysRow>>,
    flights: Flights<OwnedServerName>,
    back_off: BackOff,
    asking: Semaphore,
}

/// Why nothing is known of a server's keys.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RingError {
    #[error(transparent)]
    Storage(#[from] StoreError),
    #[error("{0}")]
    Unavailable(String),
}

/// Which of a server's keys are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Those that events may be signed with.
    Events,
    /// Those that requests may be signed with.
    Requests,
}

impl Ring {
    pub(crate) fn new(parts: &PeersParts) -> Self {
        let settings = &parts.settings;
        // Shorter than for other requests: until its keys are known, a server that is back cannot say so.
        let (first, most) = (settings.retry_first.min(FIRST_PAUSE), settings.retry_max.min(LONGEST_PAUSE));
        let back_off = BackOff::new(parts.clock.clone(), parts.random.clone(), first, most);
        Self { cached: Cache::new(MAX_CACHED), flights: Flights::new(), back_off, asking: Semaphore::new(MAX_ASKED) }
    }

    /// `server` lives: its keys may be had now.
    pub(crate) fn heard_from(&self, server: &ServerName) {
        self.back_off.heard_from(server);
    }
}

impl Peers {
    /// The keys that are known of each of `wanted`; those of servers that do not answer are absent.
    ///
    /// # Errors
    /// If the store fails: whether there are keys is not known then.
    pub(crate) async fn all_keys(&self, wanted: &[KeyWish]) -> Result<PublicKeys, StoreError> {
        let until = Instant::now() + DEADLINE;
        let mut found = PublicKeys::default();
        let mut open: FuturesUnordered<_> = wanted
            .iter()
            .map(|wish| async move { (wish, timeout_at(until, self.keys_of(wish, Use::Events)).await) })
            .collect();
        while let Some((wish, answer)) = open.next().await {
            match answer {
                Ok(Ok(keys)) => self.add(&mut found, &wish.server, &keys, Use::Events)?,
                Ok(Err(RingError::Storage(error))) => return Err(error),
                Ok(Err(RingError::Unavailable(why))) => tracing::debug!(server = %wish.server, why, "no keys"),
                Err(_) => tracing::debug!(server = %wish.server, "no keys: it takes too long"),
            }
        }
        Ok(found)
    }

    /// The keys of one server, for `purpose`.
    pub(crate) async fn public_keys(&self, wish: &KeyWish, purpose: Use) -> Result<PublicKeys, RingError> {
        let keys = self.keys_of(wish, purpose).await?;
        let mut found = PublicKeys::default();
        self.add(&mut found, &wish.server, &keys, purpose)?;
        Ok(found)
    }

    /// What is known of the keys of `wish.server`, after asking if that is not enough.
    async fn keys_of(&self, wish: &KeyWish, purpose: Use) -> Result<Arc<PeerKeysRow>, RingError> {
        let server = &wish.server;
        if *server == self.0.parts.server_name {
            return Ok(Arc::new(self.own_row()));
        }
        let known = self.known_keys(server).await?;
        if let Some(known) = known.filter(|known| suffices(known, wish, purpose)) {
            return Ok(known);
        }
        let _turn = self.0.ring.flights.turn(server.clone()).await;
        let known = self.known_keys(server).await?;
        let now = self.0.parts.clock.now();
        match known {
            Some(known) if suffices(&known, wish, purpose) => Ok(known),
            // Asked a moment ago: there is nothing more to be had.
            Some(known) if now.since(Millis(known.fetched_at)) < AGAIN => Ok(known),
            known => self.ask(wish, known, purpose).await,
        }
    }

    /// Stored keys.
    pub(crate) async fn known_keys(&self, server: &ServerName) -> Result<Option<Arc<PeerKeysRow>>, StoreError> {
        if let Some(known) = self.0.ring.cached.get(server) {
            return Ok(Some(known));
        }
        let parts = &self.0.parts;
        let key = (parts.ids.server_lane(server), server.to_string());
        let stored = View::latest(&*parts.store).await?.get::<PeerKeys>(&key).await?.map(Arc::new);
        if let Some(stored) = &stored {
            self.0.ring.cached.insert(server.to_owned(), Arc::clone(stored));
        }
        Ok(stored)
    }

    /// This server's own keys, as if they were another's.
    fn own_row(&self) -> PeerKeysRow {
        merge::own(&self.0.parts.signing_key, &self.0.parts.old_keys)
    }

    /// Adds what `keys` has for `purpose` to `found`.
    fn add(
        &self,
        found: &mut PublicKeys,
        server: &ServerName,
        keys: &PeerKeysRow,
        purpose: Use,
    ) -> Result<(), StoreError> {
        for (key_id, key) in keys.keys.iter().filter(|(_, key)| purpose == Use::Events || !key.retired) {
            if !self.distrusts(&key.key).map_err(|error| damaged(server, error))? {
                found.insert(server, key_id, &key.key, key.valid_until).map_err(|error| damaged(server, error))?;
            }
        }
        Ok(())
    }

    /// Whether nothing is believed by `key`. The bytes count: there are several ways to write them.
    fn distrusts(&self, key: &str) -> Result<bool, KeyError> {
        let distrusted = &self.0.parts.settings.distrusted_keys;
        Ok(!distrusted.is_empty() && distrusted.contains(&public_key_bytes(key)?))
    }
}

/// Whether `known` has every key that is wished for, as good as it is wished for.
fn suffices(known: &PeerKeysRow, wish: &KeyWish, purpose: Use) -> bool {
    !wish.key_ids.is_empty()
        && wish.key_ids.iter().all(|key_id| {
            let key = known.keys.get(key_id).filter(|key| purpose == Use::Events || !key.retired);
            key.is_some_and(|key| key.valid_until >= wish.at)
        })
}

/// A stored key that is none.
fn damaged(server: &ServerName, detail: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { keyspace: "PeerKeys", detail: Arc::from(format!("{server}: {detail}")) }
}
