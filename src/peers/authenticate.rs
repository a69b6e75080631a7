//! Who sent a request.

use hearth_event::SignedRequest;
use hearth_rooms::remote::KeyWish;
use ruma_common::{OwnedServerName, ServerName};

use crate::ring::{RingError, Use};
use crate::x_matrix::XMatrix;
use crate::{MissingDestination, Peers};

/// Signatures of one request, by several keys of the server that sends it.
const MAX_SIGNATURES: usize = 8;

/// Why nobody vouches for a request. All of them are `401 M_UNAUTHORIZED` to the other server, but [`Self::Body`]
/// (`400`) and [`Self::Storage`] (`500`).
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthError {
    /// There is no `Authorization: X-Matrix …`.
    #[error("the request is not signed")]
    Missing,
    /// The header cannot be read, or there are several that contradict each other.
    #[error("the authorization header cannot be read: {0}")]
    Malformed(&'static str),
    /// The request was meant for another server, or does not say for whom.
    #[error("the request is not for this server")]
    Destination,
    /// The server's key is not known and could not be had.
    #[error("the keys of {server} could not be had: {why}")]
    UnknownKey {
        /// Whose.
        server: OwnedServerName,
        /// What happened.
        why: String,
    },
    /// The signature is not by a key that the server signs with now, or not over this request.
    #[error("the signature is wrong, or not by a key that the server signs with now")]
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
    /// came, `body` the bytes (none: it had no body, or an empty one).
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>
    ///
    /// # Errors
    /// If nobody did.
    pub async fn authenticate(
        &self,
        authorization: &[&[u8]],
        method: &str,
        uri: &str,
        body: Option<&[u8]>,
    ) -> Result<OwnedServerName, AuthError> {
        let signatures = read(authorization)?;
        let first = signatures.first().ok_or(AuthError::Missing)?;
        self.check_names(&first.origin, first.destination.as_deref())?;
        let request = SignedRequest {
            method,
            uri,
            origin: &first.origin,
            destination: first.destination.as_deref(),
            content: body.filter(|body| !body.is_empty()),
        };
        let now = self.0.parts.clock.now().0;
        for signature in &signatures {
            let wish = KeyWish { server: first.origin.clone(), key_ids: vec![signature.key_id.clone()], at: now };
            let keys = match self.public_keys(&wish, Use::Requests).await {
                Ok(keys) => keys,
                Err(RingError::Storage(error)) => return Err(AuthError::Storage(error)),
                Err(RingError::Unavailable(why)) => {
                    return Err(AuthError::UnknownKey { server: first.origin.clone(), why });
                }
            };
            let by = (signature.key_id.as_str(), signature.signature.as_str());
            if request.verify(&keys, by, now).map_err(|error| AuthError::Body(error.to_string()))? {
                self.heard_from(&first.origin);
                return Ok(first.origin.clone());
            }
        }
        Err(AuthError::Signature)
    }

    fn check_names(&self, origin: &ServerName, destination: Option<&ServerName>) -> Result<(), AuthError> {
        let parts = &self.0.parts;
        let accepts_any = parts.settings.missing_destination == MissingDestination::Accept;
        match destination {
            Some(named) if *named == *parts.server_name => {}
            None if accepts_any => {}
            _ => return Err(AuthError::Destination),
        }
        if *origin == *parts.server_name {
            return Err(AuthError::Malformed("this server does not ask itself"));
        }
        Ok(())
    }
}

/// All signatures: by one server, for one server.
fn read(authorization: &[&[u8]]) -> Result<Vec<XMatrix>, AuthError> {
    let mut signatures: Vec<XMatrix> = Vec::new();
    for header in authorization {
        let Some(read) = XMatrix::parse(header).map_err(AuthError::Malformed)? else { continue };
        if signatures.len() >= MAX_SIGNATURES {
            return Err(AuthError::Malformed("there are too many"));
        }
        let same = |first: &XMatrix| first.origin == read.origin && first.destination == read.destination;
        if !signatures.first().is_none_or(same) {
            return Err(AuthError::Malformed("there are two of different servers"));
        }
        signatures.push(read);
    }
    Ok(signatures)
}
