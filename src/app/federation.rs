//! From settings to [`Peers`].

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use futures::future::BoxFuture;
use hearth_accounts::Accounts;
use hearth_base::{Clock, Random, Supervisor};
use hearth_client_api::{Peer, TrustedProxies};
use hearth_event::{SigningKey, public_key_bytes};
use hearth_fanout::{Follower, ForeignEdus, Outbound, OutboundParts, OutboundSettings, PresenceOut};
use hearth_peers::{Federation, MissingDestination, OldKey, Peers, PeersParts, PeersSettings, SystemDns};
use hearth_rooms::Rooms;
use hearth_schema::Ids;
use hearth_server_api::{
    Caller, EduSink, FirstHandshakes, PublicRooms, RawEdu, ServerApi, ServerApiSettings, ServerRates,
};
use hearth_settings::Settings;
use hearth_store::Store;
use ruma_common::{OwnedServerName, ServerName};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_util::sync::CancellationToken;

use crate::exit::{Code, Failure};

/// What [`peers`] needs besides settings.
pub(crate) struct Ground {
    pub(crate) server_name: OwnedServerName,
    pub(crate) signing_key: Arc<SigningKey>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ids: Ids,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) shutdown: CancellationToken,
}

/// Other servers, as `settings` want them.
pub(crate) fn peers(settings: &Settings, ground: Ground) -> Result<Peers, Failure> {
    let old_keys = settings.federation.old_signing_keys.iter().map(|old| OldKey {
        key_id: old.key_id.clone(),
        key: old.key.clone(),
        expired_ts: old.expired_ts,
    });
    let unusable = |error| Failure::new(Code::Unusable, error);
    Peers::new(PeersParts {
        server_name: ground.server_name,
        signing_key: ground.signing_key,
        old_keys: old_keys.collect(),
        store: ground.store,
        ids: ground.ids,
        clock: ground.clock,
        random: ground.random,
        dns: Arc::new(SystemDns::default()),
        settings: peers_settings(settings)?,
        shutdown: ground.shutdown,
    })
    .map_err(unusable)
}

pub(crate) fn peers_settings(settings: &Settings) -> Result<PeersSettings, Failure> {
    let chosen = &settings.federation;
    let name = |name: &String| {
        let wrong = |error| Failure::new(Code::Unusable, format!("federation.key_servers \"{name}\": {error}"));
        OwnedServerName::try_from(name.as_str()).map_err(wrong)
    };
    let distrusted = |key: &String| {
        let wrong = |_| Failure::new(Code::Unusable, format!("federation.distrusted_keys: \"{key}\" is no public key"));
        public_key_bytes(key).map_err(wrong)
    };
    Ok(PeersSettings {
        federation: if chosen.enabled { Federation::On } else { Federation::Off },
        missing_destination: if chosen.accept_without_destination {
            MissingDestination::Accept
        } else {
            MissingDestination::Refuse
        },
        denied_networks: chosen.denied_networks.clone(),
        allowed_networks: chosen.allowed_networks.clone(),
        extra_roots: chosen.extra_authorities.as_deref().map_or_else(|| Ok(Vec::new()), authorities)?,
        key_servers: chosen.key_servers.iter().map(name).collect::<Result<_, _>>()?,
        distrusted_keys: chosen.distrusted_keys.iter().map(distrusted).collect::<Result<_, _>>()?,
        connect_timeout: chosen.connect_timeout,
        request_timeout: chosen.request_timeout,
        join_timeout: chosen.join_timeout,
        max_join_response: chosen.max_join_response.as_usize(),
        retry_first: chosen.retry_first,
        retry_max: chosen.retry_longest,
    })
}

/// What the running server does with others.
pub(crate) struct Running {
    pub(crate) rooms: Rooms,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) peers: Peers,
    pub(crate) ground: Ground,
}

/// Starts what talks to other servers, in both directions; gives what they reach.
pub(crate) async fn start(
    settings: &Settings,
    running: Running,
    requests: &Supervisor,
    tasks: &Supervisor,
) -> Result<Router, Failure> {
    let Running { rooms, accounts, peers, ground } = running;
    let presence = accounts.presence().clone();
    let edus = ForeignEdus::new(rooms.clone(), presence.clone(), ground.clock.clone());
    tasks.spawn("EDUs of other servers", edus.clone().run(tasks.stopping()));
    let outbound = Outbound::new(OutboundParts {
        rooms: rooms.clone(),
        presence,
        clock: ground.clock.clone(),
        random: ground.random.clone(),
        server_name: ground.server_name.clone(),
        deliver: Arc::new(peers.clone()),
        settings: outbound_settings(settings),
        shutdown: tasks.stopping(),
    });
    let follower = Follower::new(ground.store.clone(), outbound.consumer());
    tasks.spawn("outbound", outbound.run(peers.hear()));
    tasks.spawn("queues of other servers", follower.run(tasks.stopping()));
    tasks.spawn("memory of transactions", rooms.clone().run_forgetting(tasks.stopping()));
    tasks.spawn("events that wait for other servers", rooms.clone().run_hearing(peers.hear(), tasks.stopping()));
    rooms.resume_inbound().await.map_err(|error| Failure::new(Code::Io, error))?;
    let router = hearth_server_api::router(ServerApi {
        rooms,
        accounts,
        peers,
        edus: Arc::new(Edus(edus)),
        clock: ground.clock,
        settings: api_settings(settings),
        shutdown: requests.stopping(),
    });
    Ok(with_caller(router, crate::graph::trusted_proxies(settings)))
}

/// `router`, whose requests know where they came from: behind a proxy that is by what it says.
fn with_caller(router: Router, proxies: TrustedProxies) -> Router {
    let proxies = Arc::new(proxies);
    router.layer(from_fn(move |mut request: Request, next: Next| {
        let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
        let caller = Caller(proxies.client(peer, request.headers()).0);
        async move {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    }))
}

/// Gives what is no event to who knows what it means.
struct Edus(ForeignEdus);

impl EduSink for Edus {
    fn accept<'a>(&'a self, origin: &'a ServerName, edu: RawEdu) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.0.accept(origin, &edu.edu_type, &edu.content).await })
    }
}

fn outbound_settings(settings: &Settings) -> OutboundSettings {
    OutboundSettings {
        first_retry: settings.federation.retry_first,
        longest_retry: settings.federation.delivery_retry_longest,
        presence: if settings.presence.tell_other_servers { PresenceOut::Told } else { PresenceOut::Kept },
        ..OutboundSettings::default()
    }
}

fn api_settings(settings: &Settings) -> ServerApiSettings {
    let usual = ServerApiSettings::default();
    ServerApiSettings {
        body_deadline: settings.limits.body_deadline,
        rates: ServerRates {
            requests: settings.federation.requests.filter(|_| settings.rate_limits.enabled),
            heavy: settings.federation.heavy_requests.filter(|_| settings.rate_limits.enabled),
            unproven: settings.federation.unproven_requests.filter(|_| settings.rate_limits.enabled),
        },
        public_rooms: if settings.federation.public_rooms { PublicRooms::Open } else { PublicRooms::Closed },
        first_handshakes: if settings.federation.first_handshakes {
            FirstHandshakes::Served
        } else {
            FirstHandshakes::Unknown
        },
        ..usual
    }
}

/// The certificates in a file.
pub(crate) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let wrong = |error: String| {
        Failure::new(Code::Unusable, format!("federation.extra_authorities {}: {error}", path.display()))
    };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        let text = format!("[server]\nname = \"a.test\"\n{text}");
        Settings::parse(Path::new("hearth.toml"), &text, []).expect("valid")
    }

    #[test]
    fn settings_reach_those_who_ask_other_servers() {
        let usual = peers_settings(&settings("")).expect("usable");
        let unset = PeersSettings::default();
        assert_eq!(format!("{usual:?}"), format!("{unset:?}"), "the same defaults");
        let text = "[federation]\nenabled = false\nkey_servers = [\"b.test\"]\naccept_without_destination = true\n";
        let chosen = peers_settings(&settings(text)).expect("usable");
        assert_eq!((chosen.federation, chosen.missing_destination), (Federation::Off, MissingDestination::Accept));
        assert_eq!(chosen.key_servers, ["b.test"]);
    }

    #[test]
    fn keys_are_distrusted_by_their_bytes() {
        let key = SigningKey::from_seed([1; 32], "1").expect("a key");
        let text = format!("[federation]\ndistrusted_keys = [\"{}=\"]\n", key.public_key_base64());
        assert_eq!(peers_settings(&settings(&text)).expect("usable").distrusted_keys, [key.public_key()]);
        let wrong = peers_settings(&settings("[federation]\ndistrusted_keys = [\"AAAA\"]\n"));
        assert!(wrong.expect_err("no key").to_string().contains("AAAA"));
    }

    #[test]
    fn settings_reach_those_who_are_asked() {
        let usual = api_settings(&settings(""));
        assert_eq!(format!("{usual:?}"), format!("{:?}", ServerApiSettings::default()), "the same defaults");
        let chosen = api_settings(&settings("[federation]\nfirst_handshakes = false\nunproven_requests = \"off\"\n"));
        assert_eq!((chosen.first_handshakes, chosen.rates.unproven), (FirstHandshakes::Unknown, None));
        let unlimited = api_settings(&settings("[rate_limits]\nenabled = false\n")).rates;
        assert!(unlimited.requests.is_none() && unlimited.heavy.is_none() && unlimited.unproven.is_none());
    }

    #[tokio::test]
    async fn requests_know_where_they_came_from() {
        use tower::ServiceExt as _;
        let say = |caller: axum::Extension<Caller>| async move { format!("{:?}", caller.0.0) };
        let proxies = TrustedProxies { networks: vec!["10.0.0.1".parse().expect("a network")], local: false };
        let router = with_caller(Router::new().route("/", axum::routing::get(say)), proxies);
        for (peer, expected) in [("10.0.0.1", "Some(203.0.113.9)"), ("10.0.0.2", "Some(10.0.0.2)")] {
            let request = Request::get("/").header("x-forwarded-for", "203.0.113.9");
            let request = request.extension(Peer::Address(peer.parse().expect("an address")));
            let request = request.body(axum::body::Body::empty()).expect("a request");
            let answer = router.clone().oneshot(request).await.expect("infallible").into_body();
            let text = axum::body::to_bytes(answer, 100).await.expect("small");
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn settings_reach_what_leaves() {
        let usual = outbound_settings(&settings(""));
        assert_eq!(format!("{usual:?}"), format!("{:?}", OutboundSettings::default()), "the same defaults");
        let text = "[federation]\nretry_first = \"1s\"\ndelivery_retry_longest = \"5s\"\n\
                    [presence]\ntell_other_servers = false\n";
        let chosen = outbound_settings(&settings(text));
        assert_eq!((chosen.first_retry.as_secs(), chosen.longest_retry.as_secs()), (1, 5));
        assert_eq!(chosen.presence, PresenceOut::Kept);
    }

    #[test]
    fn authorities_are_read_or_told_to_be_wrong() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ca.pem");
        let read = || {
            let path = path.display();
            peers_settings(&settings(&format!("[federation]\nextra_authorities = \"{path}\"\n")))
        };
        let missing = read().expect_err("no file").to_string();
        assert!(missing.contains("extra_authorities"), "{missing}");
        std::fs::write(&path, "no certificate").expect("written");
        read().expect_err("nothing in it");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("signed");
        std::fs::write(&path, certificate.pem()).expect("written");
        assert_eq!(read().expect("usable").extra_roots, [certificate.der().clone()]);
    }
}
