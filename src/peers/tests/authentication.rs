//! Signed requests, as the other server takes them.

use std::time::Duration;

use bytes::Bytes;
use hearth_base::Millis;
use hearth_event::{SignedRequest, SigningKey};
use http::Method;
use ruma_common::{OwnedServerName, ServerName};

use crate::testing::{NOW, TestServer, World, key_of};
use crate::{AuthError, Federation, MissingDestination, OldKey, Peers, PeersParts};

const URI: &str = "/_matrix/federation/v1/send/1?b=2&a=1";
const BODY: &[u8] = br#"{"pdus":[]}"#;

/// A server that publishes its keys, and one that it speaks to.
struct Pair {
    world: World,
    name: OwnedServerName,
    key: SigningKey,
    key_server: TestServer,
    me: Peers,
}

impl Pair {
    async fn new() -> Self {
        let world = World::new();
        let (name, key_server) = world.key_server(|name| world.peers(name.as_str()).server_keys()).await;
        let me = world.peers("me.test");
        Self { key: key_of(name.as_str()), world, name, key_server, me }
    }

    fn header(&self, destination: Option<&str>) -> String {
        self.signed(&self.key, destination, Some(BODY))
    }

    fn signed(&self, key: &SigningKey, destination: Option<&str>, content: Option<&[u8]>) -> String {
        let to = destination.map(|name| ServerName::parse(name).expect("a name"));
        let request =
            SignedRequest { method: "PUT", uri: URI, origin: &self.name, destination: to.as_deref(), content };
        let sig = request.sign(key).expect("JSON");
        let to = destination.map(|name| format!(",destination=\"{name}\"")).unwrap_or_default();
        format!("X-Matrix origin=\"{}\"{to},key=\"{}\",sig=\"{sig}\"", self.name, key.key_id())
    }

    async fn check(&self, headers: &[&str]) -> Result<OwnedServerName, AuthError> {
        let headers: Vec<_> = headers.iter().map(|header| header.as_bytes()).collect();
        self.me.authenticate(&headers, "PUT", URI, Some(&Bytes::from_static(BODY))).await
    }
}

#[tokio::test]
async fn what_one_server_sends_the_other_knows() {
    let world = World::new();
    let (name, _keys) = world.key_server(|name| world.peers(name.as_str()).server_keys()).await;
    let receiver = world.serve("127.0.0.1:0", &["127.0.0.1"], |_| crate::testing::body(200, "{}")).await;
    let receiver_name = crate::testing::server(&receiver.address.to_string());
    let sender = world.peers(name.as_str());
    let me = world.peers(receiver_name.as_str());
    let mut heard = me.hear();
    for body in [Some(Bytes::from_static(b" {\"b\": 1.50, \"a\": \"\\u00e4\"}")), None] {
        let method = if body.is_some() { Method::PUT } else { Method::GET };
        let outgoing = sender.get(&receiver_name, URI.to_owned());
        sender.request(crate::Outgoing { method, body, ..outgoing }).await.expect("an answer");
        let seen = receiver.last();
        let header = [seen.header("authorization").as_bytes()];
        let from = me.authenticate(&header, seen.method.as_str(), &seen.uri, Some(&seen.body)).await;
        assert_eq!(from.expect("signed"), name);
    }
    assert_eq!(heard.recv().await.expect("heard"), name);
}

#[tokio::test]
async fn only_the_request_that_was_signed_passes() {
    let pair = Pair::new().await;
    let good = pair.header(Some("me.test"));
    assert_eq!(pair.check(&[&good]).await.expect("signed"), pair.name);
    let header = [good.as_bytes()];
    for (method, uri, body) in [
        ("POST", URI, Some(BODY)),
        ("put", URI, Some(BODY)),
        ("PUT", "/_matrix/federation/v1/SEND/1?b=2&a=1", Some(BODY)),
        ("PUT", "/_matrix/federation/v1/send/1?a=1&b=2", Some(BODY)),
        ("PUT", "/_matrix/federation/v1/send/1", Some(BODY)),
        ("PUT", URI, Some(&br#"{"pdus":[],"edus":[]}"#[..])),
        ("PUT", URI, Some(b"{}")),
        ("PUT", URI, Some(b"")),
        ("PUT", URI, None),
    ] {
        let bytes = body.map(Bytes::from_static);
        let result = pair.me.authenticate(&header, method, uri, bytes.as_ref()).await;
        assert!(matches!(result, Err(AuthError::Signature)), "{method} {uri} {body:?}: {result:?}");
    }
    let same = pair.me.authenticate(&header, "PUT", URI, Some(&Bytes::from_static(b" { \"pdus\" : [ ] } "))).await;
    assert_eq!(same.expect("the same value"), pair.name);
    let result = pair.me.authenticate(&header, "PUT", URI, Some(&Bytes::from_static(b"no JSON"))).await;
    assert!(matches!(result, Err(AuthError::Body(_))), "{result:?}");
    // No body is another thing than an empty object, but not than an empty body.
    let bare = pair.signed(&pair.key, Some("me.test"), None);
    let result = pair.me.authenticate(&[bare.as_bytes()], "PUT", URI, Some(&Bytes::from_static(b"{}"))).await;
    assert!(matches!(result, Err(AuthError::Signature)), "{result:?}");
    for none in [None, Some(&Bytes::new())] {
        assert_eq!(pair.me.authenticate(&[bare.as_bytes()], "PUT", URI, none).await.expect("signed"), pair.name);
    }
    assert_eq!(pair.key_server.uris(), ["/_matrix/key/v2/server"], "asked once");
}

#[tokio::test]
async fn only_requests_for_this_server_pass() {
    let pair = Pair::new().await;
    let accepts = pair.world.peers_with("me.test", |settings| {
        settings.missing_destination = MissingDestination::Accept;
    });
    let other = pair.header(Some("you.test"));
    let none = pair.header(None);
    let port = pair.header(Some("me.test:8448"));
    for header in [&other, &none, &port] {
        let result = pair.check(&[header]).await;
        assert!(matches!(result, Err(AuthError::Destination)), "{header}: {result:?}");
    }
    let relabelled = other.replace("you.test", "me.test");
    assert!(matches!(pair.check(&[&relabelled]).await, Err(AuthError::Signature)));
    let from = accepts.authenticate(&[none.as_bytes()], "PUT", URI, Some(&Bytes::from_static(BODY))).await;
    assert_eq!(from.expect("as chosen"), pair.name);
    let result = accepts.authenticate(&[other.as_bytes()], "PUT", URI, Some(&Bytes::from_static(BODY))).await;
    assert!(matches!(result, Err(AuthError::Destination)), "{result:?}");
}

#[tokio::test]
async fn only_keys_of_the_origin_pass() {
    let pair = Pair::new().await;
    let stranger = SigningKey::from_seed([9; 32], "test").expect("a key");
    let forged = pair.signed(&stranger, Some("me.test"), Some(BODY));
    assert!(matches!(pair.check(&[&forged]).await, Err(AuthError::Signature)), "another key of the same ID");
    let unknown = SigningKey::from_seed([9; 32], "other").expect("a key");
    let unknown = pair.signed(&unknown, Some("me.test"), Some(BODY));
    assert!(matches!(pair.check(&[&unknown]).await, Err(AuthError::Signature)), "an unknown key");
    let good = pair.header(Some("me.test"));
    let (other, _keys) = pair.world.key_server(|name| pair.world.peers(name.as_str()).server_keys()).await;
    let relabelled = good.replace(pair.name.as_str(), other.as_str());
    assert!(matches!(pair.check(&[&relabelled]).await, Err(AuthError::Signature)), "another origin");
    let mine = good.replace(&format!("origin=\"{}\"", pair.name), "origin=\"me.test\"");
    assert!(matches!(pair.check(&[&mine]).await, Err(AuthError::Malformed(_))), "this server itself");
    let nobody = good.replace(pair.name.as_str(), "127.0.0.1:1");
    assert!(matches!(pair.check(&[&nobody]).await, Err(AuthError::UnknownKey { .. })), "nobody there");
}

#[tokio::test]
async fn several_headers_have_to_agree() {
    let pair = Pair::new().await;
    let good = pair.header(Some("me.test"));
    let stranger = SigningKey::from_seed([9; 32], "other").expect("a key");
    let wrong = pair.signed(&stranger, Some("me.test"), Some(BODY));
    assert_eq!(pair.check(&["Bearer x", &wrong, &good]).await.expect("one is right"), pair.name);
    let elsewhere = good.replace(pair.name.as_str(), "a.test");
    assert!(matches!(pair.check(&[&good, &elsewhere]).await, Err(AuthError::Malformed(_))));
    assert!(matches!(pair.check(&[&good, &pair.header(None)]).await, Err(AuthError::Malformed(_))));
    assert!(matches!(pair.check(&[good.as_str(); 9]).await, Err(AuthError::Malformed(_))));
    assert!(matches!(pair.check(&[&good, "X-Matrix nonsense"]).await, Err(AuthError::Malformed(_))));
    assert!(matches!(pair.check(&["Bearer x"]).await, Err(AuthError::Missing)));
    assert!(matches!(pair.check(&[]).await, Err(AuthError::Missing)));
}

#[tokio::test]
async fn retired_and_expired_keys_sign_no_requests() {
    let world = World::new();
    let old = SigningKey::from_seed([3; 32], "old").expect("a key");
    let (name, key_server) = world
        .key_server(|name| {
            let old = OldKey {
                key_id: old.key_id().to_owned(),
                key: old.public_key_base64(),
                expired_ts: Millis(NOW.0 + 1_000_000),
            };
            let parts = PeersParts { old_keys: vec![old], ..world.parts(name.as_str(), world.settings()) };
            Peers::new(parts).expect("usable").server_keys()
        })
        .await;
    let pair = Pair { key: key_of(name.as_str()), me: world.peers("me.test"), world, name, key_server };
    let retired = pair.signed(&old, Some("me.test"), Some(BODY));
    assert!(matches!(pair.check(&[&retired]).await, Err(AuthError::Signature)), "retired");
    let good = pair.header(Some("me.test"));
    assert_eq!(pair.check(&[&good]).await.expect("current"), pair.name);
    // The published answer is good for a day, and nobody answers any more.
    let Pair { world, key_server, .. } = &pair;
    key_server.seen.lock().clear();
    world.clock.advance(Duration::from_secs(25 * 3600));
    assert!(matches!(pair.check(&[&good]).await, Err(AuthError::Signature)), "expired");
    assert_eq!(key_server.uris().len(), 1, "asked again, in vain");
    let off = world.peers_with("me.test", |settings| settings.federation = Federation::Off);
    let result = off.authenticate(&[good.as_bytes()], "PUT", URI, Some(&Bytes::from_static(BODY))).await;
    assert!(matches!(result, Err(AuthError::Signature)), "{result:?}");
}
