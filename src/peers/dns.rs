//! Looking names up.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{ResolverBuilder, TokioResolver};
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
    bounded(TokioResolver::builder_tokio()?)
}

/// A resolver that does not ask for ever.
fn bounded(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<TokioResolver, NetError> {
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
    use std::net::SocketAddr;
    use std::sync::Arc;

    use hickory_resolver::config::{NameServerConfig, ResolverConfig};
    use hickory_resolver::proto::op::Message;
    use hickory_resolver::proto::rr::rdata::CNAME;
    use hickory_resolver::proto::rr::{Name, Record};
    use tokio::net::UdpSocket;

    use super::*;

    /// What a name server of a test was asked.
    type Asked = Arc<Mutex<Vec<String>>>;

    /// A resolver, and a name server for which every name is another name for that of `next`.
    async fn misled(next: impl Fn(&str) -> String + Send + 'static) -> (SystemDns, Asked) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let SocketAddr::V4(address) = socket.local_addr().expect("bound") else { panic!("it was bound to IPv4") };
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut datagram = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut datagram).await {
                let question = Message::from_vec(&datagram[..length]).expect("a question");
                let query = question.queries.first().expect("of something").clone();
                let name = query.name().to_ascii();
                let other = Name::from_ascii(next(&name)).expect("a name");
                log.lock().push(name);
                let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
                let record = Record::from_rdata(query.name().clone(), 60, RData::CNAME(CNAME(other)));
                answer.add_query(query).add_answer(record);
                let bytes = answer.to_vec().expect("an answer");
                socket.send_to(&bytes, peer).await.expect("sent");
            }
        });
        let mut server = NameServerConfig::udp((*address.ip()).into());
        server.connections.iter_mut().for_each(|connection| connection.port = address.port());
        let config = ResolverConfig::from_name_servers(vec![server]);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        (SystemDns(Mutex::new(Some(bounded(builder).expect("usable")))), asked)
    }

    fn after(name: &str) -> String {
        let number: u32 = name.trim_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap_or(0);
        format!("n{}.test.", number + 1)
    }

    #[tokio::test]
    async fn names_that_only_lead_to_names_are_given_up() {
        let circle = |name: &str| if name.starts_with('a') { "b.test." } else { "a.test." }.to_owned();
        for (what, (dns, asked)) in [
            ("a circle", misled(circle).await),
            ("itself", misled(str::to_owned).await),
            ("no end", misled(after).await),
        ] {
            for host in ["a.test", "b.test"] {
                // Whether there is no such name or it cannot be found out: nobody is connected to.
                if let Ok(found) = dns.addresses(host).await {
                    assert!(found.is_empty(), "{what}: {found:?}");
                }
                if let Ok(found) = dns.srv("_matrix-fed._tcp.a.test").await {
                    assert_eq!(found, [], "{what}");
                }
            }
            let asked = asked.lock().len();
            // Addresses of two kinds and a service, each tried twice, each a few names deep.
            assert!((3..=2 * 3 * 2 * 10).contains(&asked), "{what}: {asked} questions");
        }
    }

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
