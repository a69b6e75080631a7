//! Keys that are not believed, old answers that come again, and answers that take too much memory together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_event::{JsonLimits, SigningKey, canonical_json, parse_canonical_object};
use hearth_rooms::remote::{KeyWish, Remote as _, RemoteError};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use parking_lot::Mutex;
use ruma_common::ServerName;
use serde_json::{Value, json};

use crate::testing::{NOW, World, body, json as reply, key_of, server};
use crate::{Outgoing, Peers, PeersError};

const WEEK: u64 = 7 * 24 * 3_600_000;
const LIMITS: JsonLimits = JsonLimits { bytes: usize::MAX, depth: 64 };

fn key(seed: u8, version: &str) -> SigningKey {
    SigningKey::from_seed([seed; 32], version).expect("a key")
}

/// `name` says that it signs with `current`, and has signed with `old` until then.
fn said(name: &ServerName, current: &SigningKey, old: Option<(&SigningKey, u64)>, until: u64) -> Bytes {
    let old = old.map(|(key, until)| (key.key_id(), json!({ "key": key.public_key_base64(), "expired_ts": until })));
    let object = json!({
        "server_name": name,
        "valid_until_ts": until,
        "verify_keys": { current.key_id(): { "key": current.public_key_base64() } },
        "old_verify_keys": old.into_iter().map(|(id, key)| (id.to_owned(), key)).collect::<serde_json::Map<_, _>>(),
    });
    let object = parse_canonical_object(object.to_string().as_bytes(), LIMITS).expect("an object");
    canonical_json(&current.sign_server_keys(name, object)).into()
}

/// Whether something of `server` counts that `key` signed at `at`.
async fn counts(peers: &Peers, server: &ServerName, key: &SigningKey, at: u64) -> bool {
    let wish = KeyWish { server: server.to_owned(), key_ids: vec![key.key_id().to_owned()], at };
    let keys = peers.keys(&[wish]).await.expect("readable");
    let request =
        hearth_event::SignedRequest { method: "GET", uri: "/", origin: server, destination: None, content: None };
    let signature = request.sign(key).expect("no body");
    request.signed_form().expect("no body").is_signed(&keys, (key.key_id(), &signature), at)
}

#[tokio::test]
async fn nothing_is_believed_by_a_key_that_is_distrusted() {
    let world = World::new();
    let (leaked, new) = (key(1, "leaked"), key(2, "new"));
    let answer: Arc<Mutex<Bytes>> = Arc::default();
    let shared = answer.clone();
    let by = world.serve("127.0.0.1:0", &["127.0.0.1"], move |_| body(200, shared.lock().clone())).await;
    let name = server(&by.address.to_string());
    *answer.lock() = said(&name, &leaked, None, NOW.0 + WEEK);
    let trusting = world.peers("me.test");
    assert!(counts(&trusting, &name, &leaked, NOW.0).await);
    // Its key was known before it was distrusted: that is over, for what it signed long ago as well.
    let wary = world.peers_with("me.test", |settings| settings.distrusted_keys = vec![leaked.public_key()]);
    for at in [1, NOW.0] {
        assert!(!counts(&wary, &name, &leaked, at).await, "{at}");
    }
    // Nor does it introduce another: whoever has the key could be the one who does.
    let both = {
        let object = json!({
            "server_name": name, "valid_until_ts": NOW.0 + WEEK, "old_verify_keys": {},
            "verify_keys": {
                leaked.key_id(): { "key": leaked.public_key_base64() },
                new.key_id(): { "key": new.public_key_base64() },
            },
        });
        let object = parse_canonical_object(object.to_string().as_bytes(), LIMITS).expect("an object");
        let object = new.sign_server_keys(&name, leaked.sign_server_keys(&name, object));
        Bytes::from(canonical_json(&object))
    };
    *answer.lock() = both;
    world.clock.advance(Duration::from_secs(120));
    assert!(!counts(&wary, &name, &new, NOW.0).await);
    // Once the server has given it up, what it signs with instead counts.
    *answer.lock() = said(&name, &new, Some((&leaked, NOW.0)), NOW.0 + WEEK);
    world.clock.advance(Duration::from_secs(600));
    assert!(counts(&wary, &name, &new, NOW.0).await);
    assert!(!counts(&wary, &name, &leaked, NOW.0).await);
}

#[test]
fn a_server_whose_own_key_is_distrusted_does_not_start() {
    let world = World::new();
    let mut settings = world.settings();
    settings.distrusted_keys = vec![key_of("me.test").public_key()];
    let result = Peers::new(world.parts("me.test", settings));
    assert!(matches!(result.map(drop), Err(PeersError::Distrusted)));
}

#[tokio::test]
async fn an_old_answer_does_not_bring_back_a_key_that_was_given_up() {
    let world = World::new();
    let (old, new) = (key(1, "old"), key(2, "new"));
    // A key server that passes on what the server said when it still signed with the old key.
    let passed_on: Arc<Mutex<Value>> = Arc::new(Mutex::new(Value::Null));
    let shared = passed_on.clone();
    let keys: Arc<Mutex<Bytes>> = Arc::default();
    let (notary_keys, answer) = (keys.clone(), Arc::<Mutex<Option<Bytes>>>::default());
    let notary = world
        .serve("127.0.0.1:0", &["127.0.0.1"], move |seen| {
            if seen.uri == "/_matrix/key/v2/server" {
                return body(200, notary_keys.lock().clone());
            }
            reply(200, &json!({ "server_keys": [shared.lock().clone()] }))
        })
        .await;
    let notary_name = server(&notary.address.to_string());
    *keys.lock() = world.peers(notary_name.as_str()).server_keys();
    // The server itself, which answers or does not.
    let shared = answer.clone();
    let by = world
        .serve("127.0.0.1:0", &["127.0.0.1"], move |_| {
            shared.lock().clone().map_or_else(|| body(500, ""), |keys| body(200, keys))
        })
        .await;
    let name = server(&by.address.to_string());
    let before = said(&name, &old, None, NOW.0 + WEEK);
    let object = parse_canonical_object(&before, LIMITS).expect("an object");
    let object = key_of(notary_name.as_str()).sign_server_keys(&notary_name, object);
    *passed_on.lock() = serde_json::from_slice(&canonical_json(&object)).expect("JSON");
    let peers = world.peers_with("me.test", |settings| settings.key_servers = vec![notary_name.clone()]);
    *answer.lock() = Some(said(&name, &new, Some((&old, NOW.0 - 1000)), NOW.0 + 1000));
    assert!(counts(&peers, &name, &new, NOW.0).await);
    assert!(!counts(&peers, &name, &old, NOW.0).await, "given up a second ago");
    *answer.lock() = None;
    world.clock.advance(Duration::from_secs(600));
    assert!(!counts(&peers, &name, &old, NOW.0).await, "whoever passes on what it said before");
    assert!(notary.uris().iter().any(|uri| uri == "/_matrix/key/v2/query"), "the key server was asked");
}

#[tokio::test]
async fn large_answers_share_a_bounded_memory() {
    let world = World::new();
    let room = 1 << 20;
    let peers = world.peers_with("me.test", |settings| settings.max_join_response = room);
    let endless = world.serve("127.0.0.1:0", &["127.0.0.1"], move |_| {
        let chunk = futures::stream::iter([Ok(Frame::data(Bytes::from(vec![b' '; 17 << 20])))]);
        let body = StreamBody::new(futures::StreamExt::chain(chunk, futures::stream::pending()));
        http::Response::new(body.boxed())
    });
    let endless = endless.await;
    let whole = world.serve("127.0.0.1:0", &["127.0.0.1"], |_| body(200, vec![b'x'; 1000 << 10])).await;
    let ask = |port: u16| Outgoing {
        max_bytes: 18 << 20,
        ..peers.get(&server(&format!("127.0.0.1:{port}")), "/_matrix/x".to_owned())
    };
    // Two mebibytes for answers as large as rooms: one that brings seventeen finds no place, and takes none.
    let result = peers.request(ask(endless.address.port())).await;
    assert!(matches!(&result, Err(RemoteError::Invalid { why, .. }) if why.contains("memory")), "{result:?}");
    let first = peers.request(ask(whole.address.port())).await.expect("there is place");
    let second = peers.request(ask(whole.address.port())).await.expect("for two");
    let third = peers.request(ask(whole.address.port())).await;
    assert!(matches!(&third, Err(RemoteError::Invalid { why, .. }) if why.contains("memory")), "{third:?}");
    drop((first, second));
    peers.request(ask(whole.address.port())).await.expect("there is place again");
}
