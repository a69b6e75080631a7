//! Why other servers can, or cannot, reach a server: every step that they take, and what to do about each that fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hearth_base::{Clock, Random};
use hearth_event::{MAX_SERVER_KEYS_BYTES, ServerKeysError, check_server_keys};
use http::header::DATE;
use http::{HeaderMap, Method};
use ruma_common::ServerName;
use tokio::time::timeout;

use crate::client::{Failed, HttpClient, MAX_PAGE, Memories, Raw, Ready};
use crate::connect::{Candidates, Connector, Pinned, Ports, Service};
use crate::name::{Authority, Host};
use crate::refusal::clean;
use crate::srv::{Kind, Records};
use crate::well_known::{Served, WellKnown};
use crate::{Dns, PeersError, PeersSettings, http_date};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Addresses that are tried.
const MAX_ADDRESSES: usize = 16;
/// Clocks that differ by more than this are worth a word.
const CLOCK: Duration = Duration::from_secs(30);
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Other servers cannot reach it, or not all can.
    Bad,
}

/// What one step showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was seen.
    pub what: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// Looks at servers as others see them.
pub struct Doctor {
    connector: Connector,
    well_known: WellKnown,
    clock: Arc<dyn Clock>,
}

impl Doctor {
    /// With the networks and authorities of `settings`.
    ///
    /// # Errors
    /// If an authority cannot be used.
    pub fn new(
        dns: Arc<dyn Dns>,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
        settings: &PeersSettings,
    ) -> Result<Self, PeersError> {
        let connector = Connector::new(dns, random, settings, Ports::default())?;
        Ok(Self::with(connector, clock))
    }

    pub(crate) fn with(connector: Connector, clock: Arc<dyn Clock>) -> Self {
        let well_known = WellKnown::new(connector.for_service(Service::Web), Arc::clone(&clock));
        Self { connector, well_known, clock }
    }

    /// Everything there is to tell about `server`, in the order in which other servers find out.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>
    pub async fn examine(&self, server: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        let parsed = ServerName::parse(server).ok().zip(Authority::parse(server));
        let Some((name, own)) = parsed else {
            let fix = "Give the part of user IDs after the colon, such as example.org.".to_owned();
            findings.push(bad(format!("\"{server}\" is not the name of a server"), fix));
            return findings;
        };
        let authority = self.delegation(own, &mut findings).await;
        let candidates = self.connector.candidates(&authority).await;
        findings.extend(candidates.records.as_ref().map(|records| of_records(&candidates.name, records)));
        findings.extend(without_address(&candidates));
        let sockets = candidates.places.iter().flat_map(|place| {
            let addresses = place.addresses.iter().flatten();
            addresses.map(move |address| (place.host.as_str(), SocketAddr::new(*address, place.port)))
        });
        for (host, socket) in sockets.take(MAX_ADDRESSES) {
            self.visit(&name, &authority, (host, socket), &mut findings).await;
        }
        findings
    }

    /// Whom the name stands for.
    async fn delegation(&self, own: Authority, findings: &mut Vec<Finding>) -> Authority {
        let Authority { host: Host::Name(host), port: None } = &own else {
            findings.push(good(format!("{own} says itself where to connect to")));
            return own;
        };
        let address = format!("https://{host}/.well-known/matrix/server");
        match self.well_known.ask(host).await {
            Ok((authority, lifetime)) => {
                let hours = lifetime.as_secs() / 3600;
                findings.push(good(format!("{address} names {authority} (remembered for {hours} h)")));
                authority
            }
            Err(missing) if missing.served == Served::Nothing => {
                let what =
                    format!("{address} is not there ({}): servers look for SRV records and port 8448", missing.why);
                let fix = "Nothing to do if the server is reached that way. If not, have the web server of the domain \
                           answer it with {\"m.server\":\"HOST:PORT\"}.";
                findings.push(Finding { level: Level::Note, what, fix: Some(fix.to_owned()) });
                own
            }
            Err(wrong) => {
                let fix = "Have it answer with status 200 and {\"m.server\":\"HOST:PORT\"}, without redirects to other \
                           schemes; or remove it.";
                findings.push(bad(format!("{address} cannot be used: {}", wrong.why), fix.to_owned()));
                own
            }
        }
    }

    /// What is at one address.
    async fn visit(
        &self,
        server: &ServerName,
        authority: &Authority,
        (host, socket): (&str, SocketAddr),
        findings: &mut Vec<Finding>,
    ) {
        let at = format!("{host} at {socket}");
        let http = HttpClient::new(Pinned(self.connector.clone(), socket), Memories::new(MAX_PAGE));
        let version = match get(&http, authority, "/_matrix/federation/v1/version").await {
            Ok(version) => version,
            Err(why) => return findings.push(unreached(&at, authority, socket, &why)),
        };
        findings.push(good(format!("{at} is reached, with a certificate for {authority}")));
        findings.push(match version.status.as_u16() {
            200 => good(format!("{at} is {}", software(&version.body))),
            status => {
                let fix = "Is it a Matrix server? A reverse proxy in front of it must pass on all of /_matrix.";
                bad(format!("{at} answers /_matrix/federation/v1/version with HTTP status {status}"), fix.to_owned())
            }
        });
        findings.extend(self.clocks(&at, &version.headers));
        match get(&http, authority, "/_matrix/key/v2/server").await {
            Ok(keys) => findings.push(self.keys(&at, server, &keys)),
            Err(why) => findings.push(unreached(&at, authority, socket, &why)),
        }
    }

    fn keys(&self, at: &str, server: &ServerName, answer: &Raw) -> Finding {
        let path = "/_matrix/key/v2/server";
        if answer.status != 200 {
            let fix = "A reverse proxy must pass on all of /_matrix, not only /_matrix/client and /_matrix/federation.";
            let what = format!("{at} answers {path} with HTTP status {}", answer.status.as_u16());
            return bad(what, fix.to_owned());
        }
        match check_server_keys(&answer.body, server) {
            Ok(keys) if keys.valid_until_ts <= self.clock.now().0 => {
                let fix = "Set the clock of that machine, and see that no cache keeps old answers.".to_owned();
                bad(format!("{at} shows signing keys that have run out"), fix)
            }
            Ok(keys) => {
                let ids: Vec<_> = keys.verify_keys.into_keys().collect();
                good(format!("{at} shows its signing keys: {}", ids.join(", ")))
            }
            Err(error @ ServerKeysError::OtherServer) => {
                let fix = format!("That server is not called {server}: correct server.name, or where the name leads.");
                bad(format!("{at}, {path}: {error}"), fix)
            }
            Err(error) => {
                let fix = "Nobody will believe what this server signs. Look into its log.".to_owned();
                bad(format!("{at}, {path}: {error}"), fix)
            }
        }
    }

    /// Whether our clock and theirs agree.
    fn clocks(&self, at: &str, headers: &HeaderMap) -> Option<Finding> {
        let theirs = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(http_date::parse)?;
        let ours = self.clock.now();
        // Their seconds are cut off.
        let apart = ours.since(theirs).max(theirs.since(ours.plus(Duration::from_secs(1))));
        if apart <= CLOCK {
            return Some(good(format!("{at} has the same time as this machine")));
        }
        let (seconds, late) = (apart.as_secs(), if theirs < ours { "behind" } else { "ahead of" });
        let what = format!("the clock of {at} is {seconds} s {late} that of this machine");
        let fix = Some("Let both keep time by NTP: events and keys have dates.".to_owned());
        Some(Finding { level: if apart > WEEK { Level::Bad } else { Level::Note }, what, fix })
    }
}

async fn get(http: &HttpClient<Pinned>, authority: &Authority, path: &str) -> Result<Raw, String> {
    let ready = Ready {
        authority: authority.clone(),
        method: Method::GET,
        path_and_query: path.to_owned(),
        authorization: None,
        body: None,
        max_bytes: MAX_SERVER_KEYS_BYTES,
    };
    match timeout(PATIENCE, http.send(&ready)).await {
        Ok(Ok(raw)) => Ok(raw),
        Ok(Err(Failed::Unreachable(why) | Failed::Invalid(why))) => Err(why),
        Err(_) => Err("there is no answer".to_owned()),
    }
}

/// Why nothing came of a connection.
fn unreached(at: &str, authority: &Authority, socket: SocketAddr, why: &str) -> Finding {
    let why = clean(why.strip_prefix(&format!("{socket}: ")).unwrap_or(why));
    let what = format!("{at}: {why}");
    if socket.is_ipv6() && why.contains("unreachable") {
        let what = format!("{what} (this machine may have no IPv6, others do)");
        return Finding { level: Level::Note, what, fix: None };
    }
    let host = Authority { port: None, ..authority.clone() };
    let fix = if why.contains("TLS") || why.contains("certificate") {
        format!(
            "Others expect a certificate for {host}, in its time, with those between it and a known authority. \
             (A certificate for the target of a SRV record is not enough.)"
        )
    } else if why.contains("denied_networks") {
        "The address is not on the internet: other servers will not reach it.".to_owned()
    } else {
        "See that the server or its proxy listens there, and that the firewall and the router let it through."
            .to_owned()
    };
    bad(what, fix)
}

/// What the SRV records of `name` say.
fn of_records(name: &str, Records { kind, targets }: &Records) -> Finding {
    let record = kind.of(name);
    if targets.is_empty() {
        let fix = "Remove the SRV record with the target \".\", or let it name the host of the server.";
        return bad(format!("by the SRV record {record}, there is no server"), fix.to_owned());
    }
    let listed: Vec<String> = targets.iter().map(|target| format!("{}:{}", target.host, target.port)).collect();
    let what = format!("the SRV record {record} names {}", listed.join(", "));
    match kind {
        Kind::Current => good(what),
        Kind::Deprecated => {
            let fix = format!("That name is deprecated. Make the same record for {}.", Kind::Current.of(name));
            Finding { level: Level::Note, what, fix: Some(fix) }
        }
    }
}

/// Hosts without an address. As long as another of them has one, servers go on to that.
fn without_address(candidates: &Candidates) -> Vec<Finding> {
    let others = candidates.places.iter().any(|place| place.addresses.is_ok());
    let level = if others { Level::Note } else { Level::Bad };
    let fix = match candidates.records {
        None => "Make an A or AAAA record for it, or name another host in /.well-known/matrix/server.",
        Some(_) => "Make an A or AAAA record for it, or have the SRV record name another host.",
    };
    let failed = candidates.places.iter().filter_map(|place| place.addresses.as_ref().err());
    failed.map(|error| Finding { level, what: error.to_string(), fix: Some(fix.to_owned()) }).collect()
}

/// What a server says it is.
fn software(body: &[u8]) -> String {
    #[derive(Default, serde::Deserialize)]
    struct Said {
        #[serde(default)]
        server: Software,
    }
    #[derive(Default, serde::Deserialize)]
    struct Software {
        #[serde(default)]
        name: String,
        #[serde(default)]
        version: String,
    }
    // Whoever does not say what it is may be a good server all the same.
    let said: Said = serde_json::from_slice(body).unwrap_or_default();
    match (clean(&said.server.name), clean(&said.server.version)) {
        (name, _) if name.is_empty() => "a server that does not say its name".to_owned(),
        (name, version) => format!("{name} {version}").trim_end().to_owned(),
    }
}

fn good(what: String) -> Finding {
    Finding { level: Level::Good, what, fix: None }
}

fn bad(what: String, fix: String) -> Finding {
    Finding { level: Level::Bad, what, fix: Some(fix) }
}
