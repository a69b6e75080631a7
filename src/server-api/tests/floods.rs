//! Whoever signs badly, asks for everybody's keys or begins bodies pays for it, and nobody else does.

use std::net::Ipv4Addr;

use bytes::Bytes;
use futures::StreamExt as _;
use hearth_base::Rate;

use super::*;
use crate::{Caller, FirstHandshakes};

const LIMITED: (u16, &str) = (429, "M_LIMIT_EXCEEDED");
const REFUSED: (u16, &str) = (401, "M_UNAUTHORIZED");

/// `request` as it comes from 203.0.113.`last`.
fn from(last: u8, mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(Caller(Some(Ipv4Addr::new(203, 0, 113, last).into())));
    request
}

/// A world in which an address may fail eight times.
async fn strict() -> World {
    World::with(|settings| settings.rates.unproven = Some(Rate::per_minute(1, 8))).await
}

fn profile() -> String {
    format!("{V1}/query/profile?user_id=@nobody:hs.test")
}

/// A request in the name of `name` that `name` did not sign.
fn forged(name: &str) -> Request<Body> {
    let header = format!("X-Matrix origin=\"{name}\",destination=\"hs.test\",key=\"ed25519:1\",sig=\"AAAA\"");
    Request::builder().uri(profile()).header(header::AUTHORIZATION, header).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn bad_signatures_cost_the_address_that_they_come_from() {
    let (world, friend) = (strict().await, Other::friend());
    let good = || friend.request(&Method::GET, &profile(), None);
    for n in 0..2 {
        assert_eq!(world.send(from(1, forged("mal.test"))).await.verdict(), REFUSED, "{n}");
    }
    let answer = world.send(from(1, forged("mal.test"))).await;
    assert_eq!(answer.verdict(), LIMITED, "one name has a quarter of what the address has");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(world.send(from(1, good())).await.verdict(), (404, "M_NOT_FOUND"), "others behind it go on");
    for n in 0..6 {
        assert_eq!(world.send(from(1, forged(&format!("s{n}.test")))).await.verdict(), REFUSED, "{n}");
    }
    assert_eq!(world.send(from(1, forged("another.test"))).await.verdict(), LIMITED, "the address has had enough");
    // The names that were used badly are nobody's fault: their servers come from elsewhere.
    assert_eq!(world.send(from(2, good())).await.verdict(), (404, "M_NOT_FOUND"));
    let mallory = Other::mallory().request(&Method::GET, &profile(), None);
    assert_eq!(world.send(from(2, mallory)).await.verdict(), (404, "M_NOT_FOUND"));
    world.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(world.send(from(1, forged("another.test"))).await.verdict(), REFUSED, "and again after a while");
}

#[tokio::test]
async fn good_signatures_cost_nothing() {
    let (world, friend) = (strict().await, Other::friend());
    for _ in 0..40 {
        let request = friend.request(&Method::GET, &profile(), None);
        assert_eq!(world.send(from(1, request)).await.verdict(), (404, "M_NOT_FOUND"));
    }
}

#[tokio::test]
async fn what_is_not_for_this_server_or_too_much_is_not_even_read() {
    let world = strict().await;
    let endless = |header: String| {
        let body = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let request = Request::builder().method(Method::PUT).uri(format!("{V1}/send/1"));
        from(3, request.header(header::AUTHORIZATION, header).body(body).unwrap())
    };
    let to = |destination: &str| {
        format!("X-Matrix origin=\"other.test\",destination=\"{destination}\",key=\"ed25519:1\",sig=\"AAAA\"")
    };
    assert_eq!(world.send(endless(to("elsewhere.test"))).await.verdict(), REFUSED);
    for n in 0..8 {
        world.send(from(3, forged(&format!("s{n}.test")))).await;
    }
    assert_eq!(world.send(endless(to("hs.test"))).await.verdict(), LIMITED);
}

#[tokio::test]
async fn asking_us_for_keys_costs_what_we_have_to_ask_for() {
    let world = strict().await;
    let ask = |last: u8, servers: usize| {
        let asked: serde_json::Map<_, _> = (0..servers).map(|n| (format!("s{n}.test"), json!({}))).collect();
        let body = json!({ "server_keys": asked }).to_string();
        let request = Request::builder().method(Method::POST).uri("/_matrix/key/v2/query");
        from(last, request.body(Body::from(body)).unwrap())
    };
    world.send(ask(1, 6)).await.ok();
    assert_eq!(world.send(ask(1, 6)).await.verdict(), LIMITED);
    world.send(ask(2, 6)).await.ok();
    let one =
        |last: u8| from(last, Request::builder().uri("/_matrix/key/v2/query/s1.test").body(Body::empty()).unwrap());
    for _ in 0..2 {
        world.send(one(1)).await.ok();
    }
    assert_eq!(world.send(one(1)).await.verdict(), LIMITED);
    // Our own keys are for everybody, always.
    let own = from(1, Request::builder().uri("/_matrix/key/v2/server").body(Body::empty()).unwrap());
    assert_eq!(world.send(own).await.ok()["server_name"], "hs.test");
}

#[tokio::test]
async fn bodies_that_are_begun_share_a_bounded_memory() {
    let world = World::with(|settings| settings.bodies_bytes = 1 << 20).await;
    let (friend, mallory) = (Other::friend(), Other::mallory());
    // A body of 900 kB that never ends.
    let (begun, is_begun) = tokio::sync::oneshot::channel();
    let chunk = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 900 << 10])) });
    let begun = futures::stream::once(async move {
        begun.send(()).unwrap();
        Ok(Bytes::new())
    });
    let mut request = mallory.request(&Method::PUT, &format!("{V1}/send/1"), Some("{}"));
    *request.body_mut() = Body::from_stream(chunk.chain(begun).chain(futures::stream::pending()));
    let router = world.router.clone();
    let waiting = tokio::spawn(async move { router.oneshot(request).await });
    is_begun.await.unwrap();
    let padded = |bytes: usize| format!(r#"{{"pdus":[],"x":"{}"}}"#, "x".repeat(bytes));
    assert_eq!(friend.put(&world, &format!("{V1}/send/1"), &padded(500 << 10)).await.verdict(), LIMITED);
    assert_eq!(friend.put(&world, &format!("{V1}/send/2"), &padded(60 << 10)).await.verdict(), (200, ""), "small");
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert_eq!(friend.put(&world, &format!("{V1}/send/3"), &padded(500 << 10)).await.verdict(), (200, ""));
}

#[tokio::test]
async fn the_first_endpoints_for_joins_and_leaves_can_be_turned_off() {
    let world = World::with(|settings| settings.first_handshakes = FirstHandshakes::Unknown).await;
    let (friend, room) = (Other::friend(), world.room(Preset::PublicChat).await);
    let bob = friend.user("bob");
    let join = friend.member(&world, &room, &bob, json!({"membership": "join"})).await;
    for endpoint in ["send_join", "send_leave"] {
        let answer = friend.hand_in(&world, &format!("{V1}/{endpoint}"), &room, &join).await;
        assert_eq!(answer.verdict(), (404, "M_UNRECOGNIZED"), "{endpoint}");
    }
    assert_eq!(world.membership(&room, bob.as_str()).await, None);
    friend.hand_in(&world, &format!("{V2}/send_join"), &room, &join).await.ok();
    assert_eq!(world.membership(&room, bob.as_str()).await, Some("join"));
}
