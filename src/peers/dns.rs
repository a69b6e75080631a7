//! Looking names up.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RData;
use parking_lot::Mutex;

/// How long one name server may think.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A name that does not exist may exist soon.
const MAX_NEGATIVE: Duration = Duration::from_secs(300);

/// Where a service is, by a SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvTarget {
    /// Lower comes first.
    pub priority: u16,
    /// Among equal priorities, more is chosen more often.
    pub weight: u16,
    /// A host name without a final dot; empty: the service is decidedly not there.
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

/// The machine's hosts file and name servers.
///
/// Their configuration is read at the first look-up, and until that succeeds: a machine without network is no reason not
/// to start.
#[derive(Default)]
pub struct SystemDns(Mutex<Option<TokioResolver>>);

impl SystemDns {
    fn resolver(&self) -> Result<TokioResolver, DnsError> {
        let mut made = self.0.lock();
        if let Some(resolver) = &*made {
            return Ok(resolver.clone());
        }
        let resolver = system().map_err(|error| DnsError(format!("the machine's resolver configuration: {error}")))?;
        *made = Some(resolver.clone());
        Ok(resolver)
    }
}

fn system() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.timeout = TIMEOUT;
    options.attempts = 2;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    options.negative_max_ttl = Some(MAX_NEGATIVE);
    builder.build()
}

/// With a dot at the end, so that the machine's search domains are not tried.
fn absolute(name: &str) -> String {
    format!("{name}.")
}

fn none_is_no_error<T>(error: &NetError) -> Result<Vec<T>, DnsError> {
    if error.is_no_records_found() { Ok(Vec::new()) } else { Err(DnsError(error.to_string())) }
}

impl Dns for SystemDns {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, DnsError>> {
        Box::pin(async move {
            match self.resolver()?.lookup_ip(absolute(host)).await {
                Ok(found) => Ok(found.iter().collect()),
                Err(error) => none_is_no_error(&error),
            }
        })
    }

    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<SrvTarget>, DnsError>> {
        Box::pin(async move {
            let found = match self.resolver()?.srv_lookup(absolute(name)).await {
                Ok(found) => found,
                Err(error) => return none_is_no_error(&error),
            };
            let targets = found.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(SrvTarget {
                    priority: srv.priority,
                    weight: srv.weight,
                    host: srv.target.to_ascii().trim_end_matches('.').to_owned(),
                    port: srv.port,
                }),
                _ => None,
            });
            Ok(targets.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_file_is_read() {
        let Ok(hosts) = std::fs::read_to_string("/etc/hosts") else { return };
        if !hosts.lines().any(|line| line.starts_with("127.0.0.1") && line.contains("localhost")) {
            return;
        }
        let dns = SystemDns::default();
        let found = dns.addresses("localhost").await.expect("no name server is needed");
        assert!(found.contains(&IpAddr::from([127, 0, 0, 1])), "{found:?}");
    }
}
