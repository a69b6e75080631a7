//! Who sent a request.

use ruma_common::OwnedServerName;

use crate::Peers;

/// Why nobody vouches for a request. All of them are `401 M_UNAUTHORIZED` to the other server, but [`Self::Body`]
/// (`400`) and [`Self::Storage`] (`500`).
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthError {
    /// There is no `Authorization: X-Matrix …`.
    #[error("the request is not signed")]
    Missing,
    /// The header cannot be read, or there are several of different servers.
    #[error("the authorization header cannot be read: {0}")]
    Malformed(&'static str),
    /// The request was meant for another server, or does not say for whom.
    #[error("the request is not for this server")]
    Destination,
    /// The server's key is not known and could not be had.
    #[error("the key {key_id} of {server} could not be had: {why}")]
    UnknownKey {
        /// Whose.
        server: OwnedServerName,
        /// Which.
        key_id: String,
        /// What happened.
        why: String,
    },
    /// The signature is not of that key over this request.
    #[error("the signature is wrong")]
    Signature,
    /// The body is no JSON object.
    #[error("the body is not a JSON object: {0}")]
    Body(String),
    /// This server cannot read its store.
    #[error(transparent)]
    Storage(#[from] hearth_store::StoreError),
}

impl Peers {
    /// The server that signed a request: `authorization` are its header's raw values, `uri` the path and query as they
    /// came, `body` the bytes, `None` if it had none.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>
    ///
    /// # Errors
    /// If nobody did.
    #[expect(clippy::unused_async, reason = "no keys yet")]
    pub async fn authenticate(
        &self,
        authorization: &[&[u8]],
        method: &str,
        uri: &str,
        body: Option<&[u8]>,
    ) -> Result<OwnedServerName, AuthError> {
        let _ = (authorization, method, uri, body);
        Err(AuthError::Missing)
    }
}
