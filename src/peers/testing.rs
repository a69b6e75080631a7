//! Servers with TLS on this machine, names for them, and somebody who asks them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hearth_base::{FixedClock, Millis, SeededRandom};
use hearth_event::SigningKey;
use hearth_schema::Ids;
use hearth_store::Store;
use hearth_store::memory::MemoryStore;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ruma_common::{OwnedServerName, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use crate::connect::Ports;
use crate::{Dns, DnsError, Peers, PeersParts, PeersSettings, SrvTarget};

pub(crate) const NOW: Millis = Millis(1_800_000_000_000);

pub(crate) type Body = BoxBody<Bytes, Infallible>;
type Handler = Arc<dyn Fn(&Seen) -> Response<Body> + Send + Sync>;

/// Names and their addresses.
#[derive(Default)]
pub(crate) struct FakeDns {
    addresses: Mutex<HashMap<String, Vec<IpAddr>>>,
    services: Mutex<HashMap<String, Vec<SrvTarget>>>,
    pub asked: AtomicUsize,
}

impl FakeDns {
    pub(crate) fn host(&self, name: &str, address: &str) {
        let address = address.parse().expect("an address");
        self.addresses.lock().entry(name.to_owned()).or_default().push(address);
    }

    pub(crate) fn service(&self, name: &str, host: &str, port: u16) {
        let target = SrvTarget { priority: 1, weight: 1, host: host.to_owned(), port };
        self.services.lock().entry(name.to_owned()).or_default().push(target);
    }
}

impl Dns for FakeDns {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, DnsError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let found = self.addresses.lock().get(host).cloned().unwrap_or_default();
        async move { Ok(found) }.boxed()
    }

    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<SrvTarget>, DnsError>> {
        let found = self.services.lock().get(name).cloned().unwrap_or_default();
        async move { Ok(found) }.boxed()
    }
}

/// A request as a server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub method: Method,
    /// Path and query.
    pub uri: String,
    /// `Host`, or what stands for it in HTTP/2.
    pub host: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The name in the TLS handshake.
    pub sni: Option<String>,
    pub version: Version,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
    }
}

pub(crate) struct TestServer {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl TestServer {
    pub(crate) fn uris(&self) -> Vec<String> {
        self.seen.lock().iter().map(|seen| seen.uri.clone()).collect()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().last().expect("a request").clone()
    }
}

/// How a certificate is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    ByAuthority,
    BySelf,
    Expired,
}

/// Names, an authority, a clock.
pub(crate) struct World {
    pub dns: Arc<FakeDns>,
    pub clock: Arc<FixedClock>,
    pub ports: Ports,
    pub store: Arc<MemoryStore>,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl World {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("signed").der().clone();
        let free = || {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            socket.local_addr().expect("bound").port()
        };
        Self {
            dns: Arc::default(),
            clock: Arc::new(FixedClock::new(NOW)),
            ports: Ports { matrix: free(), web: free() },
            store: Arc::new(MemoryStore::new()),
            issuer: Issuer::new(params, key),
            root,
        }
    }

    /// A server at `address` (`ip:port`) with a certificate for `names`.
    pub(crate) async fn serve(
        &self,
        address: &str,
        names: &[&str],
        handler: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> TestServer {
        self.serve_as(address, (names, Signed::ByAuthority, &["h2", "http/1.1"]), handler).await
    }

    /// The same with another certificate and other protocols.
    pub(crate) async fn serve_as(
        &self,
        address: &str,
        (names, signed, protocols): (&[&str], Signed, &[&str]),
        handler: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> TestServer {
        let acceptor = TlsAcceptor::from(Arc::new(self.tls(names, signed, protocols)));
        let listener = TcpListener::bind(address).await.expect("a free port");
        let server = TestServer {
            address: listener.local_addr().expect("bound"),
            seen: Arc::default(),
            connections: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (seen, connections, stop) = (server.seen.clone(), server.connections.clone(), server.stop.clone());
        let handler: Handler = Arc::new(handler);
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let connection = serve_connection(socket, acceptor.clone(), handler.clone(), seen.clone());
                tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
            }
        }));
        server
    }

    fn tls(&self, names: &[&str], signed: Signed, protocols: &[&str]) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        if signed == Signed::Expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let certificate = match signed {
            Signed::BySelf => params.self_signed(&key),
            Signed::ByAuthority | Signed::Expired => params.signed_by(&key, &self.issuer),
        };
        let chain = vec![certificate.expect("signed").der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).expect("a pair");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// Settings with which this machine may be connected to.
    pub(crate) fn settings(&self) -> PeersSettings {
        PeersSettings {
            allowed_networks: vec!["127.0.0.0/8".parse().expect("a network")],
            extra_roots: vec![self.root.clone()],
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            ..PeersSettings::default()
        }
    }

    pub(crate) fn parts(&self, name: &str, settings: PeersSettings) -> PeersParts {
        PeersParts {
            server_name: server(name),
            signing_key: Arc::new(key_of(name)),
            old_keys: Vec::new(),
            store: self.store.clone() as Arc<dyn Store>,
            ids: Ids::new([7; 32]),
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(1)),
            dns: self.dns.clone(),
            settings,
            shutdown: CancellationToken::new(),
        }
    }

    /// The server `name`.
    pub(crate) fn peers(&self, name: &str) -> Peers {
        Peers::with_ports(self.parts(name, self.settings()), self.ports).expect("usable")
    }

    /// The same with other settings.
    pub(crate) fn peers_with(&self, name: &str, change: impl FnOnce(&mut PeersSettings)) -> Peers {
        let mut settings = self.settings();
        change(&mut settings);
        Peers::with_ports(self.parts(name, settings), self.ports).expect("usable")
    }

    /// A server that publishes `keys` as its own, under the name that is given.
    pub(crate) async fn key_server(&self, keys: impl Fn(&ServerName) -> Bytes) -> (OwnedServerName, TestServer) {
        let answer: Arc<Mutex<Bytes>> = Arc::default();
        let shared = answer.clone();
        let server = self.serve("127.0.0.1:0", &["127.0.0.1"], move |_| body(200, shared.lock().clone())).await;
        let name = ServerName::parse(server.address.to_string()).expect("a name");
        *answer.lock() = keys(&name);
        (name, server)
    }
}

async fn serve_connection(socket: TcpStream, acceptor: TlsAcceptor, handler: Handler, seen: Arc<Mutex<Vec<Seen>>>) {
    let Ok(stream) = acceptor.accept(socket).await else { return };
    let sni = stream.get_ref().1.server_name().map(str::to_owned);
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, seen, sni) = (handler.clone(), seen.clone(), sni.clone());
        async move {
            let (head, body) = request.into_parts();
            let named = head.headers.get("host").map(|host| host.to_str().expect("text").to_owned());
            let authority = head.uri.authority().map(ToString::to_string);
            let request = Seen {
                method: head.method,
                uri: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
                host: authority.or(named).unwrap_or_default(),
                headers: head.headers,
                body: body.collect().await?.to_bytes(),
                sni,
                version: head.version,
            };
            seen.lock().push(request.clone());
            Ok::<_, hyper::Error>(handler(&request))
        }
    });
    // Clients hang up as they like.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

pub(crate) fn body(status: u16, bytes: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(bytes.into()).boxed();
    Response::builder().status(status).body(body).expect("a response")
}

pub(crate) fn json(status: u16, value: &serde_json::Value) -> Response<Body> {
    body(status, value.to_string())
}

pub(crate) fn server(name: &str) -> OwnedServerName {
    ServerName::parse(name).expect("a server name")
}

/// Each name has its own key.
pub(crate) fn key_of(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    for (n, byte) in name.bytes().enumerate() {
        seed[n % 32] ^= byte.rotate_left(u32::try_from(n / 32).expect("short"));
    }
    SigningKey::from_seed(seed, "test").expect("a key")
}
