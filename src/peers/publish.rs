//! Keys for others to see: ours, and as a notary those of others.

use bytes::Bytes;
use hearth_base::Millis;
use hearth_store::StoreError;
use ruma_common::OwnedServerName;

use crate::Peers;

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
        Bytes::new()
    }

    /// The body of `GET /_matrix/key/v2/query/{serverName}` and `POST /_matrix/key/v2/query`.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server>
    ///
    /// # Errors
    /// If the store fails; servers that do not answer are left out.
    #[expect(clippy::unused_async, reason = "no keys yet")]
    pub async fn notary(&self, asks: &[NotaryAsk]) -> Result<Bytes, StoreError> {
        let _ = asks;
        Ok(Bytes::from_static(b"{\"server_keys\":[]}"))
    }
}
