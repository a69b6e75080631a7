//! The handle that others hold.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_base::{Clock, Random};
use hearth_event::SigningKey;
use hearth_rooms::remote::RemoteError;
use hearth_schema::Ids;
use hearth_store::Store;
use http::{HeaderMap, Method};
use ruma_common::{OwnedServerName, ServerName};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{Dns, Federation, OldKey, PeersSettings};

/// Names that a listener may be behind.
const HEARD_QUEUE: usize = 1024;
/// Bytes of an answer, if nothing else is said.
const MAX_RESPONSE: usize = 1 << 20;

/// What [`Peers`] is made of.
pub struct PeersParts {
    /// This server.
    pub server_name: OwnedServerName,
    /// Signs this server's requests and its keys.
    pub signing_key: Arc<SigningKey>,
    /// What it signed with before.
    pub old_keys: Vec<OldKey>,
    /// Where other servers' keys are stored.
    pub store: Arc<dyn Store>,
    /// Numbers for names, with the store's key.
    pub ids: Ids,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Spreads retries.
    pub random: Arc<dyn Random>,
    /// Looks names up.
    pub dns: Arc<dyn Dns>,
    /// What the operator chose.
    pub settings: PeersSettings,
    /// Ends what runs in the background.
    pub shutdown: CancellationToken,
}

/// Other servers. Cheap to clone.
#[derive(Clone)]
pub struct Peers(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub parts: PeersParts,
    heard: broadcast::Sender<OwnedServerName>,
}

/// Whether a request waits its turn after failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// It fails at once while the server is left alone.
    #[default]
    FailFast,
    /// It is sent: whoever asks has waited already.
    Probe,
}

/// A request to another server.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// To whom.
    pub destination: OwnedServerName,
    /// The method.
    pub method: Method,
    /// From `/_matrix` on, percent-encoded.
    pub path_and_query: String,
    /// A JSON object, or nothing.
    pub body: Option<Bytes>,
    /// How long it may take from discovery to the last byte of the answer.
    pub deadline: Duration,
    /// Bytes of the answer.
    pub max_bytes: usize,
    /// Whether it waits its turn.
    pub patience: Patience,
}

/// A successful answer (status 2xx).
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

impl Peers {
    /// Asks nobody anything yet.
    ///
    /// # Errors
    /// If a certificate of `settings.extra_roots` is none.
    pub fn new(parts: PeersParts) -> Result<Self, PeersError> {
        let (heard, _) = broadcast::channel(HEARD_QUEUE);
        Ok(Self(Arc::new(Inner { parts, heard })))
    }

    /// This server.
    pub fn server_name(&self) -> &ServerName {
        &self.0.parts.server_name
    }

    /// A `GET` with the usual limits.
    pub fn get(&self, destination: &ServerName, path_and_query: String) -> Outgoing {
        Outgoing {
            destination: destination.to_owned(),
            method: Method::GET,
            path_and_query,
            body: None,
            deadline: self.0.parts.settings.request_timeout,
            max_bytes: MAX_RESPONSE,
            patience: Patience::FailFast,
        }
    }

    /// A request with a body, and with the usual limits.
    pub fn with_body(&self, method: Method, destination: &ServerName, path_and_query: String, body: Bytes) -> Outgoing {
        Outgoing { method, body: Some(body), ..self.get(destination, path_and_query) }
    }

    /// Sends a signed request.
    ///
    /// # Errors
    /// If there is no answer, or one that says no or that is too large.
    #[expect(clippy::unused_async, reason = "no network yet")]
    pub async fn request(&self, outgoing: Outgoing) -> Result<Reply, RemoteError> {
        if self.0.parts.settings.federation == Federation::Off {
            return Err(RemoteError::Off);
        }
        Err(RemoteError::Unreachable { server: outgoing.destination, why: "there is no network yet".to_owned() })
    }

    /// A server has shown that it lives: what waits for it may be tried again.
    pub fn heard_from(&self, server: &ServerName) {
        // Nobody listens: nobody waits.
        let _ = self.0.heard.send(server.to_owned());
    }

    /// Servers as they are heard from.
    pub fn hear(&self) -> broadcast::Receiver<OwnedServerName> {
        self.0.heard.subscribe()
    }
}

/// Why there are no [`Peers`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum PeersError {
    /// An extra certificate authority cannot be used.
    #[error("an extra certificate authority cannot be used: {0}")]
    Authority(String),
}
