//! Asking for keys: the server itself first, then those that are trusted to know.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_base::Millis;
use hearth_event::{MAX_SERVER_KEYS_BYTES, ServerKeys, canonical_json, check_server_keys};
use hearth_rooms::remote::KeyWish;
use hearth_schema::{PeerKeyAnswer, PeerKeyAnswers, PeerKeys, PeerKeysRow};
use hearth_store::{Batch, CommitError, StoreError};
use http::Method;
use ruma_common::{OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::merge::{Source, merged, valid_until};
use super::{RingError, Use, suffices};
use crate::peers::Signing;
use crate::{Federation, Outgoing, Patience, Peers};

/// How long a server may take to say what its keys are.
const PATIENCE: Duration = Duration::from_secs(12);
/// Servers that a notary answers about.
const MAX_NOTARY_ANSWERS: usize = 64;

impl Peers {
    /// Asks for what is missing of `wish`; the caller sees to it that nobody else does. Gives what is known then.
    pub(super) async fn ask(
        &self,
        wish: &KeyWish,
        known: Option<Arc<PeerKeysRow>>,
        purpose: Use,
    ) -> Result<Arc<PeerKeysRow>, RingError> {
        let server = &wish.server;
        let unavailable = |why: String| RingError::Unavailable(why);
        if self.0.parts.settings.federation == Federation::Off {
            return known.ok_or_else(|| unavailable("federation is off".to_owned()));
        }
        let Ok(turn) = self.0.ring.back_off.turn(server, Patience::FailFast) else {
            return known.ok_or_else(|| unavailable("it did not answer a moment ago".to_owned()));
        };
        let (mut known, mut failure) = (known, None);
        // Not while the key servers are asked: for their own keys one of them may wait here, too.
        let asked = match timeout(PATIENCE, self.0.ring.asking.acquire()).await {
            Ok(Ok(_permit)) => self.ask_directly(server).await,
            // Nothing is said against this server: others are in the way.
            Ok(Err(_)) | Err(_) => {
                return known.ok_or_else(|| unavailable("too many servers are asked for their keys".to_owned()));
            }
        };
        match asked {
            Ok(said) => {
                turn.reached();
                known = Some(self.learn(server, known, said, Source::Server).await?);
            }
            Err(why) => {
                turn.failed();
                failure = Some(why);
            }
        }
        // Of each other they are no witnesses: that could go round in circles.
        let notaries = &self.0.parts.settings.key_servers;
        for notary in notaries.iter().filter(|_| !notaries.contains(server)) {
            if known.as_ref().is_some_and(|known| suffices(known, wish, purpose)) {
                break;
            }
            match self.ask_notary(notary, wish).await {
                Ok(answers) => {
                    for said in answers {
                        known = Some(self.learn(server, known, said, Source::KeyServer).await?);
                    }
                }
                Err(RingError::Unavailable(why)) => tracing::debug!(%server, %notary, why, "a key server is no help"),
                Err(error @ RingError::Storage(_)) => return Err(error),
            }
        }
        known.ok_or_else(|| unavailable(failure.unwrap_or_else(|| "nobody knows its keys".to_owned())))
    }

    async fn ask_directly(&self, server: &ServerName) -> Result<ServerKeys, String> {
        let outgoing = Outgoing {
            deadline: PATIENCE,
            max_bytes: MAX_SERVER_KEYS_BYTES,
            patience: Patience::Probe,
            ..self.get(server, "/_matrix/key/v2/server".to_owned())
        };
        let reply = self.send(outgoing, Signing::None).await.map_err(|error| error.to_string())?;
        let said = check_server_keys(&reply.body, server).map_err(|error| error.to_string())?;
        self.check_trust(&said)?;
        Ok(said)
    }

    /// Whoever has a key that is distrusted may be anybody, and so may whatever that key vouches for.
    fn check_trust(&self, said: &ServerKeys) -> Result<(), String> {
        for key in said.verify_keys.values() {
            if self.distrusts(key).map_err(|error| error.to_string())? {
                return Err("it signs with a key that is distrusted".to_owned());
            }
        }
        Ok(())
    }

    /// What `notary` says of the keys of `wish.server`, as far as that server has signed it and the notary, too.
    async fn ask_notary(&self, notary: &OwnedServerName, wish: &KeyWish) -> Result<Vec<ServerKeys>, RingError> {
        #[derive(Deserialize)]
        struct Answer {
            server_keys: Vec<Box<RawValue>>,
        }
        if *notary == wish.server || *notary == self.0.parts.server_name {
            return Ok(Vec::new());
        }
        let wanted: serde_json::Map<_, _> =
            wish.key_ids.iter().map(|id| (id.clone(), json!({ "minimum_valid_until_ts": wish.at }))).collect();
        let body = json!({ "server_keys": { wish.server.as_str(): wanted } }).to_string();
        let query = self.with_body(Method::POST, notary, "/_matrix/key/v2/query".to_owned(), Bytes::from(body));
        let query = Outgoing { deadline: PATIENCE, ..query };
        let answer = self.json::<Answer>(query).await;
        let answer = answer.map_err(|error| RingError::Unavailable(error.to_string()))?;
        let now = self.0.parts.clock.now();
        let own = KeyWish { server: notary.clone(), key_ids: Vec::new(), at: now.0 };
        let mut found = Vec::new();
        for item in answer.server_keys.iter().take(MAX_NOTARY_ANSWERS) {
            let Ok(said) = check_server_keys(item.get().as_bytes(), &wish.server) else { continue };
            if self.check_trust(&said).is_err() {
                continue;
            }
            let key_ids = said.key_ids_of(notary);
            let own = KeyWish { key_ids, ..own.clone() };
            // A notary is asked for its own keys directly: of itself it is no witness.
            let keys = Box::pin(self.public_keys(&own, Use::Requests)).await?;
            if said.is_signed_by(notary, &keys, now.0) {
                found.push(said);
            }
        }
        Ok(found)
    }

    /// Stores what `server` has said, and gives all that is known of it.
    async fn learn(
        &self,
        server: &ServerName,
        known: Option<Arc<PeerKeysRow>>,
        said: ServerKeys,
        source: Source,
    ) -> Result<Arc<PeerKeysRow>, StoreError> {
        let parts = &self.0.parts;
        let now = parts.clock.now();
        let before = known.as_deref();
        let row = merged(server, before.cloned().unwrap_or_default(), &said, (source, now));
        let answer = answer(said, now)?;
        let lane = parts.ids.server_lane(server);
        let mut batch = Batch::new(lane);
        let key = (lane, server.to_string());
        batch.check::<PeerKeys>(&key, before);
        batch.put::<PeerKeys>(&key, &row);
        batch.put::<PeerKeyAnswers>(&key, &answer);
        match parts.store.commit(batch).await {
            Ok(_) => {}
            // Somebody else asked at the same time and was faster: what they stored is as good.
            Err(CommitError::Conflict(_)) => {
                self.0.ring.cached.invalidate(server);
                let stored = self.known_keys(server).await?;
                return stored.ok_or_else(|| StoreError::Unavailable("keys were removed meanwhile".into()));
            }
            Err(error) => return Err(StoreError::Unavailable(error.to_string().into())),
        }
        let row = Arc::new(row);
        self.0.ring.cached.insert(server.to_owned(), Arc::clone(&row));
        Ok(row)
    }
}

/// What is passed on of it.
fn answer(said: ServerKeys, now: Millis) -> Result<PeerKeyAnswer, StoreError> {
    let valid_until = valid_until(&said, now);
    let json = String::from_utf8(canonical_json(&said.into_object()));
    let json = json.map_err(|error| StoreError::Unavailable(error.to_string().into()))?;
    Ok(PeerKeyAnswer { json, fetched_at: now.0, valid_until })
}
