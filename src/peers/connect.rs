//! From a name to a connection that is sure to be with its owner.
//!
//! The address that was checked is the one that is connected to: nothing is looked up in between.

use std::fmt;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, select_ok};
use hearth_base::{Network, Random};
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName as TlsName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::name::{Authority, Host};
use crate::srv;
use crate::{Dns, PeersError, PeersSettings};

/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 8;
/// The next address is tried beside the last one after this.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// How long a look-up may take, with all its retries.
const DNS_TIMEOUT: Duration = Duration::from_secs(8);

/// Why there is no connection, in words for the operator.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConnectError(pub String);

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Other servers: SRV records, and port 8448.
    Matrix,
    /// A web server: port 443.
    Web,
}

/// Where servers listen if nobody says otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub matrix: u16,
    pub web: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { matrix: 8448, web: 443 }
    }
}

/// Where a server may be.
#[derive(Clone, Debug)]
pub(crate) struct Candidates {
    /// The host that was looked up.
    pub name: String,
    /// Its SRV records, if it has any and they count.
    pub records: Option<srv::Records>,
    /// In the order to try them.
    pub places: Vec<Place>,
}

/// A host and a port where a server may be.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub host: String,
    pub port: u16,
    /// The host's; otherwise why there are none.
    pub addresses: Result<Vec<IpAddr>, ConnectError>,
}

/// Connects.
#[derive(Clone)]
pub(crate) struct Connector {
    shared: Arc<Shared>,
    service: Service,
}

struct Shared {
    dns: Arc<dyn Dns>,
    random: Arc<dyn Random>,
    tls: TlsConnector,
    denied: Vec<Network>,
    allowed: Vec<Network>,
    timeout: Duration,
    ports: Ports,
}

impl Connector {
    /// One for other servers.
    pub(crate) fn new(
        dns: Arc<dyn Dns>,
        random: Arc<dyn Random>,
        settings: &PeersSettings,
        ports: Ports,
    ) -> Result<Self, PeersError> {
        let shared = Arc::new(Shared {
            dns,
            random,
            tls: TlsConnector::from(Arc::new(tls(settings)?)),
            denied: settings.denied_networks.clone(),
            allowed: settings.allowed_networks.clone(),
            timeout: settings.connect_timeout,
            ports,
        });
        Ok(Self { shared, service: Service::Matrix })
    }

    /// The same for another service.
    pub(crate) fn for_service(&self, service: Service) -> Self {
        Self { shared: Arc::clone(&self.shared), service }
    }

    async fn connect(self, uri: Uri) -> Result<Link, ConnectError> {
        let authority = named(&uri)?;
        let tcp = self.reach(&authority).await?;
        self.shared.secure(&authority, tcp).await
    }

    /// The same, to one address and no other.
    async fn connect_to(self, address: SocketAddr, uri: Uri) -> Result<Link, ConnectError> {
        let authority = named(&uri)?;
        let tcp = self.shared.dial(&[address.ip()], address.port()).await?;
        self.shared.secure(&authority, tcp).await
    }

    /// Where the server behind `authority` may be, as far as that can be found out; nobody is connected to.
    pub(crate) async fn candidates(&self, authority: &Authority) -> Candidates {
        let port = self.port(authority);
        let name = match &authority.host {
            Host::Ip(address) => {
                let place = Place { host: address.to_string(), port, addresses: Ok(vec![*address]) };
                return Candidates { name: place.host.clone(), records: None, places: vec![place] };
            }
            Host::Name(name) => name,
        };
        let records = match authority.port {
            None => srv::records(&*self.shared.dns, &*self.shared.random, name).await,
            Some(_) => None,
        };
        let named = match &records {
            None => vec![(name.clone(), port)],
            Some(records) => records.targets.iter().map(|target| (target.host.clone(), target.port.get())).collect(),
        };
        let mut places = Vec::new();
        for (host, port) in named {
            let addresses = self.shared.addresses(&host).await;
            places.push(Place { host, port, addresses });
        }
        Candidates { name: name.clone(), records, places }
    }

    /// A connection to the first address of `authority` that takes one.
    async fn reach(&self, authority: &Authority) -> Result<TcpStream, ConnectError> {
        let name = match &authority.host {
            Host::Ip(address) => return self.shared.dial(&[*address], self.port(authority)).await,
            Host::Name(name) => name,
        };
        if authority.port.is_none() && self.service == Service::Matrix {
            let records = srv::records(&*self.shared.dns, &*self.shared.random, name).await;
            match records.as_ref().map(|records| records.targets.as_slice()) {
                None => {}
                Some([]) => return Err(ConnectError(format!("by its SRV record, {name} offers no server"))),
                Some(targets) => return self.reach_any(targets).await,
            }
        }
        let addresses = self.shared.addresses(name).await?;
        self.shared.dial(&addresses, self.port(authority)).await
    }

    async fn reach_any(&self, targets: &[srv::Target]) -> Result<TcpStream, ConnectError> {
        let mut last = None;
        for target in targets {
            let addresses = match self.shared.addresses(&target.host).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            match self.shared.dial(&addresses, target.port.get()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ConnectError("there is no address".to_owned())))
    }

    fn port(&self, authority: &Authority) -> u16 {
        let Ports { matrix, web } = self.shared.ports;
        let default = if self.service == Service::Matrix { matrix } else { web };
        authority.port.map_or(default, NonZeroU16::get)
    }
}

impl Shared {
    /// TLS with the owner of `authority`, and nobody else.
    async fn secure(&self, authority: &Authority, tcp: TcpStream) -> Result<Link, ConnectError> {
        let name = match &authority.host {
            Host::Ip(address) => TlsName::from(*address),
            Host::Name(name) => {
                TlsName::try_from(name.clone()).map_err(|error| ConnectError(format!("{name}: {error}")))?
            }
        };
        let stream = timeout(self.timeout, self.tls.connect(name, tcp)).await;
        let stream = stream.map_err(|_| ConnectError(format!("{authority} does not answer the TLS handshake")))?;
        Ok(Link(TokioIo::new(stream.map_err(|error| ConnectError(format!("TLS with {authority}: {error}")))?)))
    }

    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, ConnectError> {
        let found = timeout(DNS_TIMEOUT, self.dns.addresses(name)).await;
        let found = found.map_err(|_| ConnectError(format!("looking up {name} takes too long")))?;
        let found = found.map_err(|error| ConnectError(format!("looking up {name}: {error}")))?;
        if found.is_empty() {
            return Err(ConnectError(format!("{name} has no address")));
        }
        Ok(found)
    }

    /// Connects to one of `addresses`: each a little after the one before it, so that a dead one costs little time.
    async fn dial(&self, addresses: &[IpAddr], port: u16) -> Result<TcpStream, ConnectError> {
        let open = addresses.iter().filter(|address| !self.is_denied(**address)).take(MAX_ADDRESSES);
        let attempts: Vec<BoxFuture<'_, _>> =
            (0..).zip(open).map(|(n, address)| self.dial_one(NEXT_ADDRESS * n, *address, port).boxed()).collect();
        if attempts.is_empty() {
            let listed = Listed(addresses);
            return Err(ConnectError(format!("connections to {listed} are denied by federation.denied_networks")));
        }
        select_ok(attempts).await.map(|(stream, _)| stream)
    }

    async fn dial_one(&self, wait: Duration, address: IpAddr, port: u16) -> Result<TcpStream, ConnectError> {
        sleep(wait).await;
        let address = SocketAddr::new(address, port);
        match timeout(self.timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it small requests may wait; a connection that refuses is a connection all the same.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(error)) => Err(ConnectError(format!("{address}: {error}"))),
            Err(_) => Err(ConnectError(format!("{address} does not take the connection"))),
        }
    }

    fn is_denied(&self, address: IpAddr) -> bool {
        let within = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
        within(&self.denied) && !within(&self.allowed)
    }
}

fn named(uri: &Uri) -> Result<Authority, ConnectError> {
    let authority = uri.authority().and_then(|text| Authority::parse(text.as_str()));
    authority.ok_or_else(|| ConnectError(format!("{uri} names no server")))
}

struct Listed<'a>(&'a [IpAddr]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, address) in self.0.iter().take(MAX_ADDRESSES).enumerate() {
            write!(f, "{}{address}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn tls(settings: &PeersSettings) -> Result<ClientConfig, PeersError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for root in &settings.extra_roots {
        roots.add(root.clone()).map_err(|error| PeersError::Authority(error.to_string()))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| PeersError::Authority(error.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

impl tower::Service<Uri> for Connector {
    type Response = Link;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Link, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        self.clone().connect(uri).boxed()
    }
}

/// Connects to one address, whatever a name says.
#[derive(Clone)]
pub(crate) struct Pinned(pub Connector, pub SocketAddr);

impl tower::Service<Uri> for Pinned {
    type Response = Link;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Link, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        self.0.clone().connect_to(self.1, uri).boxed()
    }
}

/// A connection with TLS.
pub(crate) struct Link(TokioIo<TlsStream<TcpStream>>);

impl Connection for Link {
    fn connected(&self) -> Connected {
        let (_, session) = self.0.inner().get_ref();
        if session.alpn_protocol() == Some(b"h2") { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<Result<(), std::io::Error>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, std::io::Error>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize, std::io::Error>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
