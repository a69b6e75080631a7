//! Who sent a request.

use bytes::Bytes;
use hearth_event::{SignedForm, SignedRequest};
use hearth_rooms::remote::KeyWish;
use hearth_store::StoreError;
use ruma_common::{OwnedServerName, ServerName};

use crate::peers::LARGE;
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
    Storage(#[from] StoreError),
}

impl Peers {
    /// Who says that it sent a request, and that the request is for this server. Nothing is verified: it costs nothing,
    /// and refuses what need not be read any further.
    ///
    /// # Errors
    /// If there is no header that could be right.
    pub fn claimed(&self, authorization: &[&[u8]]) -> Result<OwnedServerName, AuthError> {
        let first = read(authorization)?.into_iter().next().ok_or(AuthError::Missing)?;
        self.check_names(&first.origin, first.destination.as_deref())?;
        Ok(first.origin)
    }

    /// Whether any key of `server` is known without asking anybody.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn knows(&self, server: &ServerName) -> Result<bool, StoreError> {
        Ok(self.known_keys(server).await?.is_some())
    }

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
        body: Option<&Bytes>,
    ) -> Result<OwnedServerName, AuthError> {
        let signatures = read(authorization)?;
        let first = signatures.first().ok_or(AuthError::Missing)?;
        self.check_names(&first.origin, first.destination.as_deref())?;
        let mut form: Option<SignedForm> = None;
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
            let form = match &mut form {
                Some(form) => form,
                // Only now: without a key it would be work for nothing.
                none => none.insert(signed_form(first, (method, uri), body).await?),
            };
            if form.is_signed(&keys, by, now) {
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

/// The request as `header` says that it was signed. A large body is parsed where it holds up nobody.
async fn signed_form(
    header: &XMatrix,
    (method, uri): (&str, &str),
    body: Option<&Bytes>,
) -> Result<SignedForm, AuthError> {
    fn make(header: &XMatrix, (method, uri): (&str, &str), body: Option<&[u8]>) -> Result<SignedForm, AuthError> {
        let XMatrix { origin, destination, .. } = header;
        let request = SignedRequest { method, uri, origin, destination: destination.as_deref(), content: body };
        request.signed_form().map_err(|error| AuthError::Body(error.to_string()))
    }
    let body = body.filter(|body| !body.is_empty());
    let Some(body) = body.filter(|body| body.len() >= LARGE) else {
        return make(header, (method, uri), body.map(|body| &**body));
    };
    let (header, body, line) = (header.clone(), body.clone(), (method.to_owned(), uri.to_owned()));
    let making = tokio::task::spawn_blocking(move || make(&header, (&line.0, &line.1), Some(&body)));
    making.await.unwrap_or_else(|error| Err(AuthError::Body(error.to_string())))
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
