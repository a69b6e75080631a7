//! Looking names up.

use std::net::IpAddr;

use futures::future::BoxFuture;

/// Where a service is, by a SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvTarget {
    /// Lower comes first.
    pub priority: u16,
    /// Among equal priorities, more is chosen more often.
    pub weight: u16,
    /// A host name without a final dot.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A name could not be looked up. A name that is known not to exist is an empty answer, no error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DnsError(pub String);

/// Looks names up.
pub trait Dns: Send + Sync + 'static {
    /// Addresses of `host`, also from the hosts file.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, DnsError>>;

    /// SRV records of `name`, such as `_matrix-fed._tcp.example.org`.
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<SrvTarget>, DnsError>>;
}
