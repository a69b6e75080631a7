//! Other servers' keys: which are taken, and how often somebody is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hearth_base::Millis;
use hearth_event::{JsonLimits, SignedRequest, SigningKey, canonical_json, check_server_keys, parse_canonical_object};
use hearth_rooms::remote::{KeyWish, Remote as _};
use hearth_schema::{PeerKeys, PeerKeysRow};
use hearth_store::View;
use hearth_store::chaos::{ChaosRates, ChaosStore};
use hearth_store::memory::MemoryStore;
use parking_lot::Mutex;
use ruma_common::{OwnedServerName, ServerName};
use serde_json::{Value, json};

use crate::testing::{NOW, TestServer, World, body, key_of, server};
use crate::{NotaryAsk, Peers};

const WEEK: u64 = 7 * 24 * 3_600_000;

fn key(seed: u8, version: &str) -> SigningKey {
    SigningKey::from_seed([seed; 32], version).expect("a key")
}

/// What `name` says of its `keys`, signed by `signers`.
fn answer(name: &ServerName, keys: &[&SigningKey], signers: &[&SigningKey], valid_until_ts: u64) -> Bytes {
    let listed: serde_json::Map<_, _> =
        keys.iter().map(|key| (key.key_id().to_owned(), json!({ "key": key.public_key_base64() }))).collect();
    let object = json!({ "server_name": name, "verify_keys": listed, "valid_until_ts": valid_until_ts });
    let limits = JsonLimits { bytes: usize::MAX, depth: 64 };
    let mut object = parse_canonical_object(object.to_string().as_bytes(), limits).expect("an object");
    for signer in signers {
        object = signer.sign_server_keys(name, object);
    }
    Bytes::from(canonical_json(&object))
}

/// A server whose answer can change.
struct Changing {
    name: OwnedServerName,
    answer: Arc<Mutex<Bytes>>,
    status: Arc<AtomicU16>,
    server: TestServer,
}

impl Changing {
    async fn new(world: &World) -> Self {
        let (answer, status): (Arc<Mutex<Bytes>>, _) = (Arc::default(), Arc::new(AtomicU16::new(200)));
        let (shared, code) = (answer.clone(), status.clone());
        let handler = move |_: &_| body(code.load(Ordering::Relaxed), shared.lock().clone());
        let server = world.serve("127.0.0.1:0", &["127.0.0.1"], handler).await;
        Self { name: crate::testing::server(&server.address.to_string()), answer, status, server }
    }

    fn say(&self, answer: Bytes) {
        *self.answer.lock() = answer;
    }
}

fn wish(server: &ServerName, key_id: &str, at: u64) -> KeyWish {
    KeyWish { server: server.to_owned(), key_ids: vec![key_id.to_owned()], at }
}

/// Until when `key` is good, if it is `server`'s.
async fn good_until(peers: &Peers, server: &ServerName, key: &SigningKey, at: u64) -> bool {
    let keys = peers.keys(&[wish(server, key.key_id(), at)]).await.expect("readable");
    let request = SignedRequest { method: "GET", uri: "/", origin: server, destination: None, content: None };
    let signature = request.sign(key).expect("no body");
    request.signed_form().expect("no body").is_signed(&keys, (key.key_id(), &signature), at)
}

async fn stored(world: &World, server: &ServerName) -> Option<PeerKeysRow> {
    let lane = world.parts("me.test", world.settings()).ids.server_lane(server);
    let view = View::latest(&*world.store).await.expect("readable");
    view.get::<PeerKeys>(&(lane, server.to_string())).await.expect("readable")
}

#[tokio::test]
async fn keys_are_asked_for_once_and_stored() {
    let world = World::new();
    let one = Changing::new(&world).await;
    let signer = key(1, "a");
    one.say(answer(&one.name, &[&signer], &[&signer], NOW.0 + WEEK));
    let peers = world.peers("me.test");
    let wishes: Vec<_> = (0..20).map(|_| wish(&one.name, "ed25519:a", NOW.0)).collect();
    let (first, second) = futures::join!(peers.keys(&wishes), peers.keys(&wishes));
    let (first, second) = (first.expect("readable"), second.expect("readable"));
    assert!(first.knows(&one.name) && second.knows(&one.name));
    assert_eq!(one.server.uris(), ["/_matrix/key/v2/server"]);
    assert_eq!(one.server.last().header("authorization"), "", "nobody needs to know who asks");
    // After a restart, and with the server gone.
    drop(one.server);
    assert!(good_until(&world.peers("me.test"), &one.name, &signer, NOW.0).await);
}

#[tokio::test]
async fn nobody_is_believed_for_more_than_a_week() {
    let world = World::new();
    let one = Changing::new(&world).await;
    let signer = key(1, "a");
    one.say(answer(&one.name, &[&signer], &[&signer], 7_258_118_400_000));
    let peers = world.peers("me.test");
    assert!(good_until(&peers, &one.name, &signer, NOW.0 + WEEK).await);
    one.status.store(500, Ordering::Relaxed);
    assert!(!good_until(&peers, &one.name, &signer, NOW.0 + WEEK + 1).await);
    world.clock.advance(Duration::from_millis(WEEK));
    one.status.store(200, Ordering::Relaxed);
    assert!(good_until(&peers, &one.name, &signer, NOW.0 + WEEK + 1).await, "confirmed");
}

#[tokio::test]
async fn the_first_bytes_of_a_key_stay() {
    let world = World::new();
    let one = Changing::new(&world).await;
    let (first, forged, new) = (key(1, "a"), key(2, "a"), key(3, "b"));
    one.say(answer(&one.name, &[&first], &[&first], NOW.0 + WEEK));
    let peers = world.peers("me.test");
    assert!(good_until(&peers, &one.name, &first, NOW.0).await);
    world.clock.advance(Duration::from_secs(61));
    one.say(answer(&one.name, &[&forged, &new], &[&forged, &new], NOW.0 + WEEK));
    assert!(good_until(&peers, &one.name, &new, NOW.0).await, "a further key is taken");
    assert!(!good_until(&peers, &one.name, &forged, NOW.0).await);
    assert!(good_until(&peers, &one.name, &first, NOW.0).await);
    let row = stored(&world, &one.name).await.expect("stored");
    assert_eq!(row.keys["ed25519:a"].key, first.public_key_base64());
}

#[tokio::test]
async fn answers_that_are_not_the_servers_are_not_taken() {
    let world = World::new();
    let (signer, other) = (key(1, "a"), key(2, "b"));
    let elsewhere = server("elsewhere.test");
    for (n, make) in [
        |_: &ServerName, a: &SigningKey, _: &SigningKey, elsewhere: &ServerName| {
            answer(elsewhere, &[a], &[a], NOW.0 + WEEK)
        },
        |name: &ServerName, a: &SigningKey, _: &SigningKey, _: &ServerName| answer(name, &[a], &[], NOW.0 + WEEK),
        |name: &ServerName, a: &SigningKey, b: &SigningKey, _: &ServerName| answer(name, &[a], &[b], NOW.0 + WEEK),
        |_: &ServerName, _: &SigningKey, _: &SigningKey, _: &ServerName| Bytes::from("x".repeat(10 << 20)),
        |_: &ServerName, _: &SigningKey, _: &SigningKey, _: &ServerName| Bytes::from("{}"),
    ]
    .into_iter()
    .enumerate()
    {
        let one = Changing::new(&world).await;
        one.say(make(&one.name, &signer, &other, &elsewhere));
        let peers = world.peers("me.test");
        assert!(!good_until(&peers, &one.name, &signer, NOW.0).await, "{n}");
        assert_eq!(stored(&world, &one.name).await, None, "{n}");
        assert!(!good_until(&peers, &one.name, &signer, NOW.0).await, "{n}");
        assert_eq!(one.server.uris().len(), 1, "{n}: left alone for a while");
        one.say(answer(&one.name, &[&signer], &[&signer], NOW.0 + WEEK));
        world.clock.advance(Duration::from_secs(10));
        assert!(good_until(&peers, &one.name, &signer, NOW.0).await, "{n}: asked again");
    }
}

#[tokio::test]
async fn unknown_key_ids_make_no_flood() {
    let world = World::new();
    let one = Changing::new(&world).await;
    let signer = key(1, "a");
    one.say(answer(&one.name, &[&signer], &[&signer], NOW.0 + WEEK));
    let peers = world.peers("me.test");
    for n in 0..50 {
        let keys = peers.keys(&[wish(&one.name, &format!("ed25519:{n}"), NOW.0)]).await.expect("readable");
        assert!(keys.knows(&one.name), "the others are known all the same");
    }
    assert_eq!(one.server.uris().len(), 1);
    world.clock.advance(Duration::from_secs(60));
    peers.keys(&[wish(&one.name, "ed25519:x", NOW.0)]).await.expect("readable");
    assert_eq!(one.server.uris().len(), 2);
}

#[tokio::test]
async fn retired_keys_are_good_for_what_they_signed_in_their_time() {
    let world = World::new();
    let one = Changing::new(&world).await;
    let (old, new) = (key(1, "old"), key(2, "new"));
    one.say(answer(&one.name, &[&old], &[&old], NOW.0 + WEEK));
    let peers = world.peers("me.test");
    assert!(good_until(&peers, &one.name, &old, NOW.0 + 1000).await);
    let object = json!({
        "server_name": one.name,
        "valid_until_ts": NOW.0 + WEEK,
        "verify_keys": { "ed25519:new": { "key": new.public_key_base64() } },
        "old_verify_keys": { "ed25519:old": { "key": old.public_key_base64(), "expired_ts": NOW.0 - 1000 } },
    });
    let limits = JsonLimits { bytes: usize::MAX, depth: 64 };
    let object = parse_canonical_object(object.to_string().as_bytes(), limits).expect("an object");
    one.say(Bytes::from(canonical_json(&new.sign_server_keys(&one.name, object))));
    world.clock.advance(Duration::from_secs(61));
    assert!(good_until(&peers, &one.name, &new, NOW.0).await);
    assert!(good_until(&peers, &one.name, &old, NOW.0 - 1000).await);
    assert!(!good_until(&peers, &one.name, &old, NOW.0 - 999).await);
}

#[tokio::test]
async fn our_own_keys_need_no_network() {
    let world = World::new();
    let peers = world.peers("me.test");
    let me = server("me.test");
    let keys = check_server_keys(&peers.server_keys(), &me).expect("signed");
    assert_eq!(keys.valid_until_ts, NOW.0 + 24 * 3_600_000);
    assert!(good_until(&peers, &me, &key_of("me.test"), NOW.0).await);
    assert_eq!(world.dns.asked.load(Ordering::Relaxed), 0);
}

/// A server that answers for `asked` what the handler says.
async fn notary(world: &World, say: impl Fn() -> Value + Send + Sync + 'static) -> (OwnedServerName, TestServer) {
    let own: Arc<Mutex<Bytes>> = Arc::default();
    let shared = own.clone();
    let server = world
        .serve("127.0.0.1:0", &["127.0.0.1"], move |seen| match seen.uri.as_str() {
            "/_matrix/key/v2/server" => body(200, shared.lock().clone()),
            _ => body(200, json!({ "server_keys": [say()] }).to_string()),
        })
        .await;
    let name = crate::testing::server(&server.address.to_string());
    *own.lock() = world.peers(name.as_str()).server_keys();
    (name, server)
}

#[tokio::test]
async fn key_servers_are_believed_what_the_server_itself_has_signed() {
    let world = World::new();
    let gone = server("127.0.0.1:1");
    let (signer, forger) = (key(1, "a"), key(2, "a"));
    let limits = JsonLimits { bytes: usize::MAX, depth: 64 };
    let current: Arc<Mutex<Value>> = Arc::new(Mutex::new(Value::Null));
    let shared = current.clone();
    let (name, by) = notary(&world, move || shared.lock().clone()).await;
    let countersigned = |bytes: &Bytes, by: &SigningKey| {
        let object = parse_canonical_object(bytes, limits).expect("an object");
        serde_json::from_slice(&canonical_json(&by.sign_server_keys(&name, object))).expect("JSON")
    };
    let good = answer(&gone, &[&signer], &[&signer], NOW.0 + WEEK);
    let cases: [(Value, bool); 4] = [
        (serde_json::from_slice(&good).expect("JSON"), false),
        (countersigned(&good, &forger), false),
        (countersigned(&answer(&gone, &[&signer], &[&forger], NOW.0 + WEEK), &key_of(name.as_str())), false),
        (countersigned(&good, &key_of(name.as_str())), true),
    ];
    for (n, (said, believed)) in cases.into_iter().enumerate() {
        *current.lock() = said;
        let peers = world.peers_with("me.test", |settings| settings.key_servers = vec![name.clone()]);
        assert_eq!(good_until(&peers, &gone, &signer, NOW.0).await, believed, "{n}");
    }
    let query = by.last();
    assert_eq!((query.method.as_str(), query.uri.as_str()), ("POST", "/_matrix/key/v2/query"));
    let asked: Value = serde_json::from_slice(&query.body).expect("JSON");
    assert_eq!(
        asked,
        json!({ "server_keys": { gone.as_str(): { "ed25519:a": { "minimum_valid_until_ts": NOW.0 } } } })
    );
}

#[tokio::test]
async fn as_a_notary_we_pass_on_what_servers_have_signed() {
    let world = World::new();
    let one = Changing::new(&world).await;
    let signer = key(1, "a");
    one.say(answer(&one.name, &[&signer], &[&signer], NOW.0 + WEEK));
    let me = world.peers("me.test");
    let ask = |server: &ServerName, at: Option<u64>| NotaryAsk {
        server: server.to_owned(),
        key_ids: vec![],
        minimum_valid_until_ts: at.map(Millis),
    };
    let keys = async |asks: &[NotaryAsk]| {
        let body: Value = serde_json::from_slice(&me.notary(asks).await.expect("readable")).expect("JSON");
        body["server_keys"].as_array().expect("a list").clone()
    };
    let found = keys(&[ask(&one.name, None), ask(&server("127.0.0.1:1"), None), ask(&server("me.test"), None)]).await;
    assert_eq!(found.len(), 2);
    let about = found.iter().find(|keys| keys["server_name"] == one.name.as_str()).expect("about it");
    let read = check_server_keys(about.to_string().as_bytes(), &one.name).expect("its signature is still good");
    let mine = me.keys(&[wish(&server("me.test"), "ed25519:test", NOW.0)]).await.expect("readable");
    assert!(read.is_signed_by(&server("me.test"), &mine, NOW.0));
    // From what is stored, until half of its time is over.
    assert_eq!(keys(&[ask(&one.name, None)]).await.len(), 1);
    assert_eq!(one.server.uris().len(), 1);
    world.clock.advance(Duration::from_millis(WEEK / 2 + 1));
    one.status.store(500, Ordering::Relaxed);
    assert_eq!(keys(&[ask(&one.name, None)]).await.len(), 1, "the last word of a server that is gone");
    assert_eq!(one.server.uris().len(), 2);
    let many: Vec<_> = (0..200).map(|_| ask(&server("me.test"), None)).collect();
    assert_eq!(keys(&many).await.len(), crate::MAX_NOTARY_ASKS);
}

#[tokio::test]
async fn many_servers_are_asked_at_the_same_time() {
    let world = World::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let mut servers = Vec::new();
    for _ in 0..8 {
        let one = Changing::new(&world).await;
        let signer = key(1, "a");
        one.say(answer(&one.name, &[&signer], &[&signer], NOW.0 + WEEK));
        servers.push(one);
        asked.fetch_add(1, Ordering::Relaxed);
    }
    let mut wishes: Vec<_> = servers.iter().map(|one| wish(&one.name, "ed25519:a", NOW.0)).collect();
    wishes.push(wish(&server("127.0.0.1:1"), "ed25519:a", NOW.0));
    let keys = world.peers("me.test").keys(&wishes).await.expect("readable");
    assert!(servers.iter().all(|one| keys.knows(&one.name)));
    assert!(!keys.knows(&server("127.0.0.1:1")));
}

#[tokio::test]
async fn a_store_that_cannot_be_read_does_not_say_that_there_are_no_keys() {
    let world = World::new();
    let wishes = [wish(&server("a.test"), "ed25519:x", NOW.0)];
    let mut parts = world.parts("me.test", world.settings());
    let rates = ChaosRates { expired: 100, ..ChaosRates::default() };
    parts.store = Arc::new(ChaosStore::with_rates(MemoryStore::new(), 1, rates));
    let peers = Peers::with_ports(parts, world.ports).expect("usable");
    assert!(peers.keys(&wishes).await.is_err());
    let keys = world.peers("me.test").keys(&wishes).await.expect("readable");
    assert!(!keys.knows(&server("a.test")), "nobody is there");
}
