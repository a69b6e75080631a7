//! Who is told to wait, for how long, and who is not.

use hearth_base::Rate;

use super::*;
use crate::{Peer, RateLimits, TrustedProxies};

const HOME: &str = "203.0.113.1";
const ELSEWHERE: &str = "198.51.100.1";

/// A server that allows what `rates` says and everything else.
fn limited(rates: RateLimits) -> World {
    World::with(Registration::Open, |settings| settings.rate_limits = Some(rates))
}

/// A request without a token from an address.
async fn from(world: &World, address: &str, method: Method, path: &str, body: Value) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("{CLIENT}{path}"));
    request = request.extension(Peer::Address(address.parse().unwrap()));
    world.send(request.body(Body::from(body.to_string())).unwrap()).await
}

async fn log_in(world: &World, address: &str, name: &str, password: &str) -> Answer {
    let identifier = json!({"type": "m.id.user", "user": name});
    let body = json!({"type": "m.login.password", "identifier": identifier, "password": password});
    from(world, address, Method::POST, "/login", body).await
}

#[track_caller]
fn must_wait(answer: &Answer, millis: u64) {
    assert_eq!(answer.verdict(), (429, "M_LIMIT_EXCEEDED"), "{}", answer.body);
    assert_eq!(answer.body["retry_after_ms"], millis);
    assert_eq!(answer.headers[header::RETRY_AFTER], millis.div_ceil(1000).to_string());
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*", "browsers must see it too");
}

#[tokio::test]
async fn a_user_who_sends_too_much_waits_and_others_do_not() {
    let world = limited(RateLimits { sending: Some(Rate::per_second(2, 3)), ..RateLimits::default() });
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let message = json!({"msgtype": "m.text", "body": "x"});
    let send = async |by: &Person, n: u32| {
        world.put(&in_room(&room, &format!("send/m.room.message/t{n}")), by, message.clone()).await
    };
    for n in 0..2 {
        send(&ann, n).await.ok();
    }
    // State is counted with messages, on every path that it has.
    world.put(&in_room(&room, "state/m.room.topic/"), &ann, json!({"topic": "x"})).await.ok();
    must_wait(&send(&ann, 3).await, 500);
    must_wait(&world.put(&in_room(&room, "state/m.room.topic"), &ann, json!({"topic": "y"})).await, 500);
    send(&bob, 0).await.ok();
    world.get("/account/whoami", &ann).await.ok();
    world.clock.advance(Duration::from_millis(500));
    send(&ann, 3).await.ok();
    must_wait(&send(&ann, 4).await, 500);
}

#[tokio::test]
async fn joins_and_invitations_are_counted_apart() {
    let rate = Some(Rate::per_minute(1, 2));
    let world = limited(RateLimits { joins: rate, invites: rate, ..RateLimits::default() });
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    for name in ["carl", "dora"] {
        world.register(name).await;
    }
    let room = world.create_room(&ann, json!({"invite": ["@bob:hs.test"]})).await;
    world.create_room(&ann, json!({})).await;
    must_wait(&world.post("/createRoom", &ann, json!({})).await, 60_000);
    let invite = async |name: &str| world.post(&in_room(&room, "invite"), &ann, json!({"user_id": name})).await;
    invite("@carl:hs.test").await.ok();
    must_wait(&invite("@dora:hs.test").await, 60_000);
    world.clock.advance(Duration::from_secs(60));
    let more = json!({"invite": ["@bob:hs.test", "@carl:hs.test"]});
    must_wait(&world.post("/createRoom", &ann, more).await, 60_000);
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
}

#[tokio::test]
async fn wrong_passwords_are_counted_for_the_account_in_all_its_spellings() {
    let world = limited(RateLimits { failed_login_account: Some(Rate::per_minute(6, 3)), ..RateLimits::default() });
    world.register("ann").await;
    world.register("bob").await;
    for (n, name) in ["ann", "ANN", "@ann:hs.test"].into_iter().enumerate() {
        let address = format!("203.0.113.{n}");
        assert_eq!(log_in(&world, &address, name, "wrong").await.verdict(), (403, "M_FORBIDDEN"));
    }
    must_wait(&log_in(&world, ELSEWHERE, "ann", PASSWORD).await, 10_000);
    log_in(&world, ELSEWHERE, "bob", PASSWORD).await.ok();
    world.clock.advance(Duration::from_secs(10));
    for _ in 0..5 {
        log_in(&world, ELSEWHERE, "ann", PASSWORD).await.ok();
    }
    // An account that is not there answers like one that is.
    for _ in 0..3 {
        assert_eq!(log_in(&world, HOME, "nobody", "wrong").await.verdict(), (403, "M_FORBIDDEN"));
    }
    must_wait(&log_in(&world, HOME, "nobody", "wrong").await, 10_000);
}

#[tokio::test]
async fn wrong_passwords_are_counted_for_the_address_whatever_the_account() {
    let world = limited(RateLimits { failed_login_address: Some(Rate::per_minute(6, 2)), ..RateLimits::default() });
    world.register("ann").await;
    // Successes in between do not buy new guesses.
    assert_eq!(log_in(&world, "2001:db8:1:2::1", "x", "wrong").await.verdict(), (403, "M_FORBIDDEN"));
    log_in(&world, "2001:db8:1:2::2", "ann", PASSWORD).await.ok();
    assert_eq!(log_in(&world, "2001:db8:1:2::3", "y", "wrong").await.verdict(), (403, "M_FORBIDDEN"));
    must_wait(&log_in(&world, "2001:db8:1:2:ffff::4", "ann", PASSWORD).await, 10_000);
    log_in(&world, "2001:db8:1:3::1", "ann", PASSWORD).await.ok();
}

#[tokio::test]
async fn a_stolen_token_is_no_leave_to_guess_the_password() {
    let world = limited(RateLimits { failed_login_account: Some(Rate::per_minute(6, 2)), ..RateLimits::default() });
    let ann = world.register("ann").await;
    let body = |password: &str| {
        let identifier = json!({"type": "m.id.user", "user": "ann"});
        let auth = json!({"type": "m.login.password", "identifier": identifier, "password": password});
        json!({"new_password": "another horse", "auth": auth})
    };
    for _ in 0..2 {
        let answer = world.post("/account/password", &ann, body("wrong")).await;
        assert_eq!(answer.verdict(), (401, "M_FORBIDDEN"));
    }
    must_wait(&world.post("/account/password", &ann, body(PASSWORD)).await, 10_000);
    world.clock.advance(Duration::from_secs(10));
    world.post("/account/password", &ann, body(PASSWORD)).await.ok();
}

#[tokio::test]
async fn log_ins_registrations_and_lookups_are_counted_by_address() {
    let rate = Some(Rate::per_minute(1, 2));
    let rates = RateLimits { login: rate, registration: rate, lookup: rate, ..RateLimits::default() };
    let requests = [
        (Method::POST, "/login", 400),
        (Method::POST, "/register", 401),
        (Method::GET, "/register/available?username=x", 200),
    ];
    let world = limited(rates);
    for (method, path, status) in requests {
        for _ in 0..2 {
            assert_eq!(from(&world, HOME, method.clone(), path, json!({})).await.verdict().0, status, "{path}");
        }
        must_wait(&from(&world, HOME, method.clone(), path, json!({})).await, 60_000);
        assert_eq!(from(&world, ELSEWHERE, method, path, json!({})).await.verdict().0, status, "{path}");
    }
    from(&world, HOME, Method::GET, "/login", json!({})).await.ok();
    // The old names of the paths are no way around.
    let old = "/_matrix/client/r0/login";
    let request = Request::post(old).extension(Peer::Address(HOME.parse().unwrap())).body(Body::from("{}")).unwrap();
    must_wait(&world.send(request).await, 60_000);
}

#[tokio::test]
async fn all_requests_of_an_address_have_a_bound() {
    let world = limited(RateLimits { address: Some(Rate::per_second(1, 3)), ..RateLimits::default() });
    // Unknown paths and unknown tokens too.
    assert_eq!(from(&world, HOME, Method::GET, "/nothing", json!({})).await.verdict().0, 404);
    assert_eq!(from(&world, HOME, Method::GET, "/sync", json!({})).await.verdict().0, 401);
    assert_eq!(from(&world, HOME, Method::OPTIONS, "/sync", json!({})).await.verdict().0, 204);
    assert_eq!(from(&world, HOME, Method::GET, "/login", json!({})).await.verdict().0, 200);
    must_wait(&from(&world, HOME, Method::GET, "/login", json!({})).await, 1000);
    assert_eq!(from(&world, ELSEWHERE, Method::GET, "/login", json!({})).await.verdict().0, 200);
}

#[tokio::test]
async fn the_address_is_what_a_trusted_proxy_says() {
    let rates = RateLimits { address: Some(Rate::per_second(1, 1)), ..RateLimits::default() };
    let world = World::with(Registration::Open, |settings| {
        settings.rate_limits = Some(rates);
        settings.trusted_proxies = TrustedProxies { networks: vec!["127.0.0.1".parse().unwrap()], local: false };
    });
    let ask = async |peer: &str, forwarded: &str| {
        let request = Request::get("/_matrix/client/versions").header("x-forwarded-for", forwarded);
        let request = request.extension(Peer::Address(peer.parse().unwrap())).body(Body::empty()).unwrap();
        world.send(request).await.status.as_u16()
    };
    assert_eq!(ask("127.0.0.1", HOME).await, 200);
    assert_eq!(ask("127.0.0.1", &format!("{ELSEWHERE}, {HOME}")).await, 429, "the rightmost hop is the client");
    assert_eq!(ask("127.0.0.1", ELSEWHERE).await, 200);
    assert_eq!(ask("192.0.2.7", "192.0.2.1").await, 200);
    assert_eq!(ask("192.0.2.7", "192.0.2.2").await, 429, "whoever is not named is not believed");
}

#[tokio::test]
async fn without_limits_nobody_waits() {
    let world = World::new();
    for _ in 0..100 {
        from(&world, HOME, Method::GET, "/login", json!({})).await.ok();
    }
}
