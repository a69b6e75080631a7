//! Keys for others to see: ours, and as a notary those of others.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use hearth_base::Millis;
use hearth_event::{JsonLimits, canonical_json, parse_canonical_object};
use hearth_rooms::remote::KeyWish;
use hearth_schema::{PeerKeyAnswer, PeerKeyAnswers};
use hearth_store::{StoreError, View};
use ruma_common::{CanonicalJsonObject, OwnedServerName, ServerName};
use serde_json::json;

use crate::Peers;
use crate::ring::{RingError, Use};

/// How long others may take our keys for granted.
const VALIDITY: Duration = Duration::from_secs(24 * 60 * 60);
/// Servers that somebody may ask about at once.
pub const MAX_NOTARY_ASKS: usize = 100;
/// Of these so many are asked at the same time.
const AT_A_TIME: usize = 8;
const STORED: JsonLimits = JsonLimits { bytes: 1 << 20, depth: 64 };

/// What a notary is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotaryAsk {
    /// Whose keys.
    pub server: OwnedServerName,
    /// Which; empty: all.
    pub key_ids: Vec<String>,
    /// They should be valid until then; `None`: now.
    pub minimum_valid_until_ts: Option<Millis>,
}

impl Peers {
    /// The body of `GET /_matrix/key/v2/server`.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#publishing-keys>
    pub fn server_keys(&self) -> Bytes {
        Bytes::from(canonical_json(&self.own_keys()))
    }

    /// The body of `GET /_matrix/key/v2/query/{serverName}` and `POST /_matrix/key/v2/query`, for the first
    /// [`MAX_NOTARY_ASKS`] of `asks`.
    ///
    /// Nothing is signed but what a server has signed as its keys before, and was checked then.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server>
    ///
    /// # Errors
    /// If the store fails; servers that do not answer and never did are left out.
    pub async fn notary(&self, asks: &[NotaryAsk]) -> Result<Bytes, StoreError> {
        // Boxed: the compiler does not see that futures of a borrowed question may move between threads.
        let asked: Vec<BoxFuture<'_, _>> =
            asks.iter().take(MAX_NOTARY_ASKS).map(|ask| self.testify(ask).boxed()).collect();
        let mut found = futures::stream::iter(asked).buffer_unordered(AT_A_TIME);
        let mut body = b"{\"server_keys\":[".to_vec();
        let start = body.len();
        while let Some(keys) = found.next().await {
            let Some(keys) = keys? else { continue };
            if body.len() > start {
                body.push(b',');
            }
            body.extend(canonical_json(&keys));
        }
        body.extend_from_slice(b"]}");
        Ok(Bytes::from(body))
    }

    /// What is known of one server, with our signature.
    async fn testify(&self, ask: &NotaryAsk) -> Result<Option<CanonicalJsonObject>, StoreError> {
        let parts = &self.0.parts;
        if ask.server == parts.server_name {
            return Ok(Some(self.own_keys()));
        }
        let now = parts.clock.now();
        let mut stored = self.stored_answer(&ask.server).await?;
        if !stored.as_ref().is_some_and(|answer| is_fresh(answer, ask, now)) {
            let at = ask.minimum_valid_until_ts.unwrap_or(now).0;
            // Keys that are known well enough to verify with are asked for again all the same: the answer is old.
            let wish = KeyWish { server: ask.server.clone(), key_ids: Vec::new(), at };
            match self.public_keys(&wish, Use::Events).await {
                Ok(_) => stored = self.stored_answer(&ask.server).await?,
                Err(RingError::Storage(error)) => return Err(error),
                Err(RingError::Unavailable(why)) => tracing::debug!(server = %ask.server, why, "no keys to pass on"),
            }
        }
        let Some(stored) = stored else { return Ok(None) };
        let object = parse_canonical_object(stored.json.as_bytes(), STORED).map_err(|error| StoreError::Corrupt {
            keyspace: "PeerKeyAnswers",
            detail: format!("{}: {error}", ask.server).into(),
        })?;
        Ok(Some(parts.signing_key.sign_server_keys(&parts.server_name, object)))
    }

    async fn stored_answer(&self, server: &ServerName) -> Result<Option<PeerKeyAnswer>, StoreError> {
        let parts = &self.0.parts;
        let key = (parts.ids.server_lane(server), server.to_string());
        View::latest(&*parts.store).await?.get::<PeerKeyAnswers>(&key).await
    }

    fn own_keys(&self) -> CanonicalJsonObject {
        let parts = &self.0.parts;
        let old = parts.old_keys.iter();
        let old: serde_json::Map<_, _> =
            old.map(|old| (old.key_id.clone(), json!({ "key": old.key, "expired_ts": old.expired_ts.0 }))).collect();
        let key = &parts.signing_key;
        let object = json!({
            "server_name": parts.server_name.as_str(),
            "valid_until_ts": parts.clock.now().plus(VALIDITY).0,
            "verify_keys": { key.key_id(): { "key": key.public_key_base64() } },
            "old_verify_keys": old,
        });
        let object = parse_canonical_object(object.to_string().as_bytes(), STORED);
        let object = object.unwrap_or_else(|_| unreachable!("texts and small numbers are canonical"));
        key.sign_server_keys(&parts.server_name, object)
    }
}

/// Whether `answer` need not be asked for again: it has not run out half, and has what is asked for.
fn is_fresh(answer: &PeerKeyAnswer, ask: &NotaryAsk, now: Millis) -> bool {
    let half = answer.fetched_at + answer.valid_until.saturating_sub(answer.fetched_at) / 2;
    let until = ask.minimum_valid_until_ts.unwrap_or(now).0;
    now.0 <= half
        && until <= answer.valid_until
        && ask.key_ids.iter().all(|key_id| answer.json.contains(key_id.as_str()))
}
