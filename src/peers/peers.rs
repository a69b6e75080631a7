//! The handle that others hold.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_base::{Clock, Random};
use hearth_event::{PublicKeys, SignedRequest, SigningKey};
use hearth_rooms::remote::RemoteError;
use hearth_schema::Ids;
use hearth_store::Store;
use http::{HeaderMap, Method, Response};
use hyper::body::Incoming;
use moka::sync::Cache;
use ruma_common::{OwnedServerName, ServerName};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::back_off::{BackOff, Turn};
use crate::client::{Failed, HttpClient, Memories, Raw, Ready, check_plain};
use crate::connect::{Connector, Ports, Service};
use crate::refusal::{clean, refused};
use crate::ring::Ring;
use crate::well_known::WellKnown;
use crate::x_matrix::XMatrix;
use crate::{Dns, Federation, OldKey, PeersSettings};

/// Names that a listener may be behind.
const HEARD_QUEUE: usize = 1024;
/// A server that speaks all the time is passed on once in this time.
const HEARD_AGAIN: Duration = Duration::from_secs(1);
/// Servers that spoke in that time.
const MAX_HEARD: u64 = 20_000;
/// Bytes of an answer, if nothing else is said.
pub(crate) const MAX_RESPONSE: usize = 1 << 20;
/// How long an answer whose status says yes may take to tell more.
const MORE: Duration = Duration::from_secs(10);
/// From here on parsing takes long enough to be no work for the threads that answer requests.
pub(crate) const LARGE: usize = 256 << 10;

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
    /// When it is cancelled, requests that are under way are given up.
    pub shutdown: CancellationToken,
}

/// Other servers. Cheap to clone.
#[derive(Clone)]
pub struct Peers(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub parts: PeersParts,
    pub ring: Ring,
    pub well_known: WellKnown,
    http: HttpClient,
    pub back_off: BackOff,
    heard: broadcast::Sender<OwnedServerName>,
    heard_lately: Cache<OwnedServerName, ()>,
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

/// Whether a request says who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signing {
    XMatrix,
    None,
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

/// Why there are no [`Peers`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum PeersError {
    /// An extra certificate authority cannot be used.
    #[error("an extra certificate authority cannot be used: {0}")]
    Authority(String),
    /// An old signing key cannot be used.
    #[error("the old signing key {0} is not an ed25519 key in base64")]
    OldKey(String),
    /// The key that this server signs with is among those that nothing is believed by.
    #[error("this server's own signing key is in federation.distrusted_keys: make a new one")]
    Distrusted,
}

impl Peers {
    /// Asks nobody anything yet.
    ///
    /// # Errors
    /// If a certificate of `settings.extra_roots` or a key of `old_keys` is none.
    pub fn new(parts: PeersParts) -> Result<Self, PeersError> {
        Self::with_ports(parts, Ports::default())
    }

    pub(crate) fn with_ports(parts: PeersParts, usual: Ports) -> Result<Self, PeersError> {
        for old in &parts.old_keys {
            let checked = PublicKeys::default().insert(&parts.server_name, &old.key_id, &old.key, old.expired_ts.0);
            checked.map_err(|_| PeersError::OldKey(old.key_id.clone()))?;
        }
        let settings = &parts.settings;
        if settings.distrusted_keys.contains(&parts.signing_key.public_key()) {
            return Err(PeersError::Distrusted);
        }
        let connector = Connector::new(parts.dns.clone(), parts.random.clone(), settings, usual)?;
        let web = connector.for_service(Service::Web);
        Ok(Self(Arc::new(Inner {
            ring: Ring::new(&parts),
            well_known: WellKnown::new(web, parts.clock.clone()),
            http: HttpClient::new(connector, Memories::new(settings.max_join_response)),
            back_off: BackOff::new(parts.clock.clone(), parts.random.clone(), settings.retry_first, settings.retry_max),
            heard: broadcast::channel(HEARD_QUEUE).0,
            heard_lately: Cache::builder().max_capacity(MAX_HEARD).time_to_live(HEARD_AGAIN).build(),
            parts,
        })))
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
    pub async fn request(&self, outgoing: Outgoing) -> Result<Reply, RemoteError> {
        self.send(outgoing, Signing::XMatrix).await
    }

    /// The same, for an answer that is JSON of a certain form.
    ///
    /// # Errors
    /// The same, and if the answer has another form.
    pub async fn json<T: DeserializeOwned + Send + 'static>(&self, outgoing: Outgoing) -> Result<T, RemoteError> {
        let server = outgoing.destination.clone();
        let body = self.request(outgoing).await?.body;
        let small = body.len() < LARGE;
        let parse = move || serde_json::from_slice(&body).map_err(|error| error.to_string());
        let parsed = if small {
            parse()
        } else {
            let task = tokio::task::spawn_blocking(parse);
            task.await.unwrap_or_else(|error| Err(error.to_string()))
        };
        parsed.map_err(|why| RemoteError::Invalid { server, why: clean(&why) })
    }

    /// A server has shown that it lives: what waits for it may be tried again.
    pub fn heard_from(&self, server: &ServerName) {
        self.0.back_off.heard_from(server);
        self.0.ring.heard_from(server);
        if !self.0.heard_lately.contains_key(server) {
            self.0.heard_lately.insert(server.to_owned(), ());
            // Nobody listens: nobody waits.
            let _ = self.0.heard.send(server.to_owned());
        }
    }

    /// Servers as they are heard from, each once a second at the most, and besides when one answers that had failed to.
    /// Who lags behind may take it that all were.
    pub fn hear(&self) -> broadcast::Receiver<OwnedServerName> {
        self.0.heard.subscribe()
    }

    /// Sends a signed request; gives the answer of whatever status.
    pub(crate) async fn answer(&self, outgoing: Outgoing) -> Result<Raw, RemoteError> {
        let exchange = async { self.0.http.send(&self.ready(&outgoing, Signing::XMatrix).await?).await };
        self.in_turn(&outgoing, exchange).await
    }

    pub(crate) async fn send(&self, outgoing: Outgoing, signing: Signing) -> Result<Reply, RemoteError> {
        let exchange = async { self.0.http.send(&self.ready(&outgoing, signing).await?).await };
        let raw = self.in_turn(&outgoing, exchange).await?;
        if raw.status.is_success() {
            return Ok(Reply { headers: raw.headers, body: raw.body });
        }
        Err(refused(&outgoing.destination, raw.status, &raw.body))
    }

    /// Sends a signed request; the body of the successful answer is still to be read, within the limits of `outgoing`,
    /// which is up to the caller.
    pub(crate) async fn open(&self, outgoing: Outgoing) -> Result<Incoming, RemoteError> {
        let exchange = async {
            match self.answered(&outgoing).await? {
                Ok(answer) => {
                    check_plain(&answer)?;
                    Ok(Ok(answer.into_body()))
                }
                Err(raw) => Ok(Err(raw)),
            }
        };
        match self.in_turn(&outgoing, exchange).await? {
            Ok(body) => Ok(body),
            Err(raw) => Err(refused(&outgoing.destination, raw.status, &raw.body)),
        }
    }

    /// Sends a signed request that has done its work when the status of the answer says so. The body only tells more: it is
    /// empty if it cannot be had within the limits of `outgoing` and a few seconds.
    pub(crate) async fn tell(&self, outgoing: Outgoing) -> Result<Bytes, RemoteError> {
        let server = &outgoing.destination;
        let answer = match self.in_turn(&outgoing, self.answered(&outgoing)).await? {
            Ok(answer) => answer,
            Err(raw) => return Err(refused(server, raw.status, &raw.body)),
        };
        let why = match timeout(MORE, self.0.http.rest(answer, outgoing.max_bytes)).await {
            Ok(Ok(raw)) => return Ok(raw.body),
            Ok(Err(Failed::Invalid(why) | Failed::Unreachable(why))) => why,
            Err(_) => "it takes too long".to_owned(),
        };
        tracing::debug!(%server, why = clean(&why), "what a server says besides yes is not read");
        Ok(Bytes::new())
    }

    /// The answer, if its status says yes; otherwise all of it.
    async fn answered(&self, outgoing: &Outgoing) -> Result<Result<Response<Incoming>, Raw>, Failed> {
        let answer = self.0.http.open(&self.ready(outgoing, Signing::XMatrix).await?).await?;
        if answer.status().is_success() {
            return Ok(Ok(answer));
        }
        Ok(Err(self.0.http.rest(answer, MAX_RESPONSE).await?))
    }

    /// Waits for `exchange`, if it is the server's turn, until the deadline of `outgoing`.
    async fn in_turn<T>(
        &self,
        outgoing: &Outgoing,
        exchange: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, RemoteError> {
        let server = outgoing.destination.clone();
        if self.0.parts.settings.federation == Federation::Off {
            return Err(RemoteError::Off);
        }
        if server == self.0.parts.server_name {
            return Err(RemoteError::Invalid { server, why: "this server does not ask itself".to_owned() });
        }
        let unreachable = |why: String| RemoteError::Unreachable { server: server.clone(), why };
        let turn = self.0.back_off.turn(&server, outgoing.patience).map_err(|pause| {
            unreachable(format!("it did not answer a moment ago, and is tried again in {} s", pause.as_secs()))
        })?;
        let answered = tokio::select! {
            answered = timeout(outgoing.deadline, exchange) => answered,
            () = self.0.parts.shutdown.cancelled() => return Err(unreachable("this server stops".to_owned())),
        };
        match answered {
            Ok(Ok(answer)) => {
                self.reached(turn);
                Ok(answer)
            }
            Ok(Err(Failed::Invalid(why))) => {
                self.reached(turn);
                Err(RemoteError::Invalid { server, why: clean(&why) })
            }
            Ok(Err(Failed::Unreachable(why))) => {
                turn.failed();
                Err(unreachable(clean(&why)))
            }
            Err(_) => {
                turn.failed();
                Err(unreachable(format!("no answer within {} s", outgoing.deadline.as_secs())))
            }
        }
    }

    /// A server has answered. If it had not before, whoever waits for it is told.
    fn reached(&self, turn: Turn) {
        if let Some(server) = turn.reached() {
            // Nobody listens: nobody waits.
            let _ = self.0.heard.send(server);
        }
    }

    async fn ready(&self, outgoing: &Outgoing, signing: Signing) -> Result<Ready, Failed> {
        let authorization = match signing {
            Signing::XMatrix => Some(self.authorization(outgoing)?),
            Signing::None => None,
        };
        let authority = self.0.well_known.authority(&outgoing.destination).await;
        let authority = authority.ok_or_else(|| Failed::Unreachable("no server can have this name".to_owned()))?;
        Ok(Ready {
            authority,
            method: outgoing.method.clone(),
            path_and_query: outgoing.path_and_query.clone(),
            authorization,
            body: outgoing.body.clone(),
            max_bytes: outgoing.max_bytes,
        })
    }

    fn authorization(&self, outgoing: &Outgoing) -> Result<String, Failed> {
        let parts = &self.0.parts;
        let request = SignedRequest {
            method: outgoing.method.as_str(),
            uri: &outgoing.path_and_query,
            origin: &parts.server_name,
            destination: Some(&outgoing.destination),
            content: outgoing.body.as_deref(),
        };
        let signature = request.sign(&parts.signing_key);
        let signature = signature.map_err(|error| Failed::Invalid(format!("the request cannot be signed: {error}")))?;
        let header = XMatrix {
            origin: parts.server_name.clone(),
            destination: Some(outgoing.destination.clone()),
            key_id: parts.signing_key.key_id().to_owned(),
            signature,
        };
        Ok(header.to_string())
    }
}
