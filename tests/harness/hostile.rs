//! A server that does whatever a test wants: it answers any path by a script, signs anything, and asks anything.
//!
//! It shares no code with the product, so that it cannot share a mistake with it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::host_of;
use crate::gate::{background, listen};
use crate::{Answer, Authority};

/// How long a request of this server may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A scripted server, named `127.0.0.3:PORT`.
#[derive(Clone)]
pub struct Hostile(Arc<Inner>);

struct Inner {
    name: String,
    key: SigningKey,
    key_id: String,
    script: Mutex<Vec<Line>>,
    asked: Mutex<Vec<Asked>>,
}

type Line = Arc<dyn Fn(&Asked) -> Option<Reply> + Send + Sync>;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET`, `PUT`, …
    pub method: String,
    /// As it came, percent-encoded.
    pub path: String,
    /// Path and query as they came.
    pub uri: String,
    /// `Authorization`, empty if there is none.
    pub authorization: String,
    /// The body as JSON, null if it is none.
    pub body: Value,
}

impl Asked {
    /// The path without percent-encoding.
    pub fn decoded(&self) -> String {
        percent_encoding::percent_decode_str(&self.path).decode_utf8_lossy().into_owned()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: ReplyBody,
}

#[derive(Clone, Debug)]
enum ReplyBody {
    Whole(Bytes),
    /// The bytes again and again, as long as the other side takes them.
    Endless(Bytes),
    /// Headers, and then nothing more.
    Silence,
}

impl Reply {
    /// 200 with this JSON.
    pub fn json(body: &Value) -> Self {
        Self::text(200, body.to_string())
    }

    /// Any status and body, called JSON.
    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self { status, headers, body: ReplyBody::Whole(Bytes::from(body.into())) }
    }

    /// A Matrix error.
    pub fn error(status: u16, errcode: &str) -> Self {
        Self::text(status, json!({"errcode": errcode, "error": "because"}).to_string())
    }

    /// A body that never ends, of this again and again.
    pub fn endless(piece: &str) -> Self {
        Self {
            body: ReplyBody::Endless(Bytes::from(piece.repeat(64 * 1024 / piece.len().max(1)))),
            ..Self::text(200, "")
        }
    }

    /// A head, and never a body.
    pub fn silence() -> Self {
        Self { body: ReplyBody::Silence, ..Self::text(200, "") }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn into_response(self) -> http::Response<BoxBody<Bytes, Infallible>> {
        let body = match self.body {
            ReplyBody::Whole(bytes) => Full::new(bytes).boxed(),
            ReplyBody::Endless(piece) => {
                BodyExt::boxed(StreamBody::new(futures::stream::repeat_with(move || Ok(Frame::data(piece.clone())))))
            }
            ReplyBody::Silence => BodyExt::boxed(StreamBody::new(futures::stream::pending())),
        };
        let mut response = http::Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(self.status).expect("a status");
        for (name, value) in self.headers {
            let name = http::HeaderName::try_from(name).expect("a header's name");
            response.headers_mut().append(name, http::HeaderValue::try_from(value).expect("a header's value"));
        }
        response
    }
}

/// What a request claims, and signs.
#[derive(Clone, Debug)]
pub struct Claim {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// Who asks.
    pub origin: String,
    /// Who is asked; not named if empty.
    pub destination: String,
    /// The body, if there is one.
    pub content: Option<Value>,
    /// Of the key that signs.
    pub key_id: String,
}

/// A request that differs from what is right in whatever a test changes.
#[must_use]
pub struct Ask {
    server: Hostile,
    to: String,
    /// What is signed.
    pub claim: Claim,
    /// What is sent as method, path with query, and body.
    pub sent: (String, String, Option<Vec<u8>>),
    /// `Authorization` headers instead of that made of the claim.
    pub authorization: Option<Vec<String>>,
}

impl Hostile {
    /// Starts one that answers its keys and takes transactions, and knows nothing else.
    pub fn start() -> Self {
        Self::with(Authority::shared(), None)
    }

    /// One whose certificate is for `host`, which it is not.
    pub fn called(host: &str) -> Self {
        Self::with(Authority::shared(), Some(host))
    }

    /// One whose certificate nobody has signed whom anybody trusts.
    pub fn untrusted() -> Self {
        Self::with(&Authority::new(), None)
    }

    fn with(authority: &Authority, certified: Option<&str>) -> Self {
        let (listener, address) = listen("127.0.0.3");
        let inner = Inner {
            name: address.to_string(),
            key: SigningKey::from_bytes(&fresh_seed()),
            key_id: "ed25519:mal".to_owned(),
            script: Mutex::default(),
            asked: Mutex::default(),
        };
        let server = Self(Arc::new(inner));
        let tls = authority.server(certified.unwrap_or(&server.0.name));
        background().spawn(serve(listener, TlsAcceptor::from(tls), server.clone()));
        server
    }

    /// What others call it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// `@name:` and this server.
    pub fn user(&self, name: &str) -> String {
        format!("@{name}:{}", self.0.name)
    }

    /// The ID of its key.
    pub fn key_id(&self) -> &str {
        &self.0.key_id
    }

    /// From now on first asks `line`; `None` leaves a request to what was said before.
    pub fn script(&self, line: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) {
        self.0.script.lock().expect("no line panics").push(Arc::new(line));
    }

    /// Answers requests whose path contains `part`.
    pub fn answer(&self, part: &'static str, reply: Reply) {
        self.script(move |asked| asked.path.contains(part).then(|| reply.clone()));
    }

    /// Everything that was asked so far whose path contains `part`.
    pub fn asked(&self, part: &str) -> Vec<Asked> {
        let asked = self.0.asked.lock().expect("nothing panics here");
        asked.iter().filter(|asked| asked.path.contains(part)).cloned().collect()
    }

    /// Waits until a request for which `wanted` holds has come.
    pub async fn is_asked(&self, what: &str, wanted: impl Fn(&Asked) -> bool) -> Asked {
        let began = Instant::now();
        loop {
            if let Some(found) = self.asked("").into_iter().find(|asked| wanted(asked)) {
                return found;
            }
            assert!(began.elapsed() < DEADLINE, "nobody asked for {what}; asked were {:#?}", self.asked(""));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The signature of any bytes, in base64.
    pub fn sign(&self, message: &[u8]) -> String {
        STANDARD_NO_PAD.encode(self.0.key.sign(message).to_bytes())
    }

    /// `object` with this server's signature.
    pub fn signed(&self, mut object: Value) -> Value {
        object.as_object_mut().expect("an object").remove("signatures");
        let signature = self.sign(object.to_string().as_bytes());
        object["signatures"] = json!({self.name(): {self.key_id(): signature}});
        object
    }

    /// Its public key in base64.
    pub fn public_key(&self) -> String {
        STANDARD_NO_PAD.encode(self.0.key.verifying_key().to_bytes())
    }

    /// Its keys as it publishes them.
    pub fn keys(&self) -> Value {
        self.signed(json!({
            "server_name": self.name(),
            "valid_until_ts": now() + 3_600_000,
            "verify_keys": {self.key_id(): {"key": self.public_key()}},
            "old_verify_keys": {},
        }))
    }

    /// A signed request to the server named `to`.
    pub fn ask(&self, to: &str, method: &str, uri: &str) -> Ask {
        let claim = Claim {
            method: method.to_owned(),
            uri: uri.to_owned(),
            origin: self.name().to_owned(),
            destination: to.to_owned(),
            content: None,
            key_id: self.key_id().to_owned(),
        };
        let sent = (method.to_owned(), uri.to_owned(), None);
        Ask { server: self.clone(), to: to.to_owned(), claim, sent, authorization: None }
    }

    /// GET.
    pub fn get(&self, to: &str, uri: &str) -> Ask {
        self.ask(to, "GET", uri)
    }

    /// PUT with a JSON body.
    pub fn put(&self, to: &str, uri: &str, body: &Value) -> Ask {
        self.ask(to, "PUT", uri).json(body)
    }

    /// POST with a JSON body.
    pub fn post(&self, to: &str, uri: &str, body: &Value) -> Ask {
        self.ask(to, "POST", uri).json(body)
    }

    /// The `Authorization` of a claim.
    pub fn authorization(&self, claim: &Claim) -> String {
        let mut signed = json!({"method": claim.method, "uri": claim.uri, "origin": claim.origin});
        if !claim.destination.is_empty() {
            signed["destination"] = json!(claim.destination);
        }
        if let Some(content) = &claim.content {
            signed["content"] = content.clone();
        }
        let signature = self.sign(signed.to_string().as_bytes());
        let named = if claim.destination.is_empty() {
            String::new()
        } else {
            format!("destination=\"{}\",", claim.destination)
        };
        let Claim { origin, key_id, .. } = claim;
        format!("X-Matrix origin=\"{origin}\",{named}key=\"{key_id}\",sig=\"{signature}\"")
    }

    fn reply(&self, asked: &Asked) -> Reply {
        let script = self.0.script.lock().expect("no line panics").clone();
        if let Some(reply) = script.iter().rev().find_map(|line| line(asked)) {
            return reply;
        }
        if asked.path.starts_with("/_matrix/key/v2/server") {
            return Reply::json(&self.keys());
        }
        if asked.path.starts_with("/_matrix/federation/v1/send/") {
            return Reply::json(&json!({"pdus": {}}));
        }
        Reply::error(404, "M_UNRECOGNIZED")
    }
}

impl Ask {
    /// With this body, which is also what is signed.
    pub fn json(mut self, body: &Value) -> Self {
        self.claim.content = Some(body.clone());
        self.sent.2 = Some(body.to_string().into_bytes());
        self
    }

    /// With this body, which may be no JSON that [`Value`] holds: signed is `signed`, as text.
    pub fn text(mut self, body: &str) -> Self {
        let Claim { method, uri, origin, destination, key_id, .. } = &self.claim;
        // Sorted by key, as canonical JSON is; the body is taken as it is.
        let message = format!(
            "{{\"content\":{body},\"destination\":{},\"method\":{},\"origin\":{},\"uri\":{}}}",
            json!(destination),
            json!(method),
            json!(origin),
            json!(uri)
        );
        let signature = self.server.sign(message.as_bytes());
        self.authorization = Some(vec![format!(
            "X-Matrix origin=\"{origin}\",destination=\"{destination}\",key=\"{key_id}\",sig=\"{signature}\""
        )]);
        self.sent.2 = Some(body.as_bytes().to_vec());
        self
    }

    /// With these `Authorization` headers.
    pub fn with_authorization(mut self, headers: Vec<String>) -> Self {
        self.authorization = Some(headers);
        self
    }

    /// The answer.
    pub async fn send(self) -> Answer {
        let what = format!("{} {}", self.sent.0, self.sent.1);
        let asking = tokio::time::timeout(DEADLINE, self.exchange(&what));
        asking.await.unwrap_or_else(|_| panic!("no answer to {what} in {DEADLINE:?}"))
    }

    /// The body of a 200.
    pub async fn ok(self) -> Value {
        self.send().await.expect_status(200).unwrap_or_else(|other| panic!("{other}")).body
    }

    async fn exchange(&self, what: &str) -> Answer {
        // Servers under test are named after their address, or `localhost`.
        let address: SocketAddr = self.to.replace("localhost", "127.0.0.1").parse().expect("a name on loopback");
        let tcp = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let name = ServerName::try_from(host_of(&self.to).to_owned()).expect("a host");
        let tls = TlsConnector::from(Authority::shared().client()).connect(name, tcp).await;
        let tls = tls.unwrap_or_else(|error| panic!("{what}: {error}"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.expect("HTTP/1");
        let connection = tokio::spawn(connection);
        let response = sender.send_request(self.request()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap_or_else(|error| panic!("{what}: {error}")).to_bytes();
        connection.abort();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        let (status, version, headers) = (head.status.as_u16(), head.version, head.headers);
        Answer { what: what.to_owned(), status, version, headers, text, body }
    }

    fn request(&self) -> http::Request<Full<Bytes>> {
        let (method, uri, body) = &self.sent;
        let mut request = http::Request::builder().method(method.as_str()).uri(uri).header("host", &self.to);
        let made = || vec![self.server.authorization(&self.claim)];
        for header in self.authorization.clone().unwrap_or_else(made) {
            let header = http::HeaderValue::from_bytes(header.as_bytes()).expect("a header's value");
            request = request.header("authorization", header);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        request.body(Full::new(Bytes::from(body.clone().unwrap_or_default()))).expect("a request")
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, server: Hostile) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (acceptor, server) = (acceptor.clone(), server.clone());
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let service = service_fn(|request| respond(&server, request));
            // However the connection ends: what was asked is remembered already.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

async fn respond(
    server: &Hostile,
    request: http::Request<Incoming>,
) -> Result<http::Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let authorization = head.headers.get("authorization").and_then(|value| value.to_str().ok());
    let asked = Asked {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        uri: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        authorization: authorization.unwrap_or_default().to_owned(),
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    };
    server.0.asked.lock().expect("nothing panics here").push(asked.clone());
    Ok(server.reply(&asked).into_response())
}

/// Bytes for a key that nothing depends on.
#[expect(clippy::disallowed_methods, reason = "each test run has other keys, as each server has")]
pub(crate) fn fresh_seed() -> [u8; 32] {
    rand::random()
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the server under test has the real time, and so must its peers")]
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500000000")
}
