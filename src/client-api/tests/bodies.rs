//! Bodies that are too large, too deep, too slow, or not what they should be.

use std::convert::Infallible;

use axum::body::Body;
use futures::{StreamExt, stream};

use super::*;

async fn login(world: &World, body: impl Into<Bytes>) -> (u16, String) {
    let answer = world.raw(Method::POST, "/_matrix/client/v3/login", None, body).await;
    let (status, errcode) = answer.verdict();
    (status, errcode.to_owned())
}

fn nested(depth: usize) -> String {
    format!("{{\"x\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1))
}

#[tokio::test]
async fn bodies_are_objects_of_the_right_shape() {
    let world = World::new();
    let deep = nested(65);
    let bomb = "[".repeat(200_000);
    for (body, status, errcode) in [
        ("", 400, "M_NOT_JSON"),
        ("{", 400, "M_NOT_JSON"),
        ("{}{}", 400, "M_NOT_JSON"),
        ("hello", 400, "M_NOT_JSON"),
        ("{\"type\":\"\\ud800\"}", 400, "M_NOT_JSON"),
        ("[]", 400, "M_BAD_JSON"),
        ("null", 400, "M_BAD_JSON"),
        ("\"m.login.password\"", 400, "M_BAD_JSON"),
        ("{\"type\":5}", 400, "M_BAD_JSON"),
        ("{\"type\":\"a\",\"type\":\"b\"}", 400, "M_BAD_JSON"),
        (&deep, 400, "M_BAD_JSON"),
        (&bomb, 400, "M_BAD_JSON"),
        ("{}", 400, "M_MISSING_PARAM"),
        (&nested(64), 400, "M_MISSING_PARAM"),
        ("{\"type\":\"m.login.magic\"}", 400, "M_UNKNOWN"),
    ] {
        let shown: String = body.chars().take(40).collect();
        assert_eq!(login(&world, body.to_owned()).await, (status, errcode.into()), "{shown}");
    }
    assert_eq!(login(&world, &b"{\"type\":\"\xff\"}"[..]).await, (400, "M_NOT_JSON".into()));
}

#[tokio::test]
async fn large_bodies_are_refused_while_they_stream() {
    let world = World::with(Registration::Open, |settings| settings.max_body_bytes = 1000);
    let fits = format!("{{\"type\":\"{}\"}}", "x".repeat(1000 - 11));
    assert_eq!(fits.len(), 1000);
    assert_eq!(login(&world, fits.clone()).await, (400, "M_UNKNOWN".into()));
    assert_eq!(login(&world, format!("{fits} ")).await, (413, "M_TOO_LARGE".into()));

    // Without a length, and without an end.
    let endless = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 100])));
    let request = Request::post("/_matrix/client/v3/login").body(Body::from_stream(endless)).unwrap();
    assert_eq!(world.send(request).await.verdict(), (413, "M_TOO_LARGE"));
    let pieces: Vec<_> =
        fits.as_bytes().chunks(7).map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece))).collect();
    let request = Request::post("/_matrix/client/v3/login").body(Body::from_stream(stream::iter(pieces))).unwrap();
    assert_eq!(world.send(request).await.verdict(), (400, "M_UNKNOWN"), "put together again");
}

#[tokio::test]
async fn slow_bodies_end_at_the_deadline_and_at_shutdown() {
    let world = World::with(Registration::Open, |settings| settings.body_deadline = Duration::from_millis(50));
    let slow = || {
        let begun = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"{")) });
        Request::post("/_matrix/client/v3/login").body(Body::from_stream(begun.chain(stream::pending()))).unwrap()
    };
    assert_eq!(world.send(slow()).await.status, StatusCode::REQUEST_TIMEOUT);
    world.shutdown.cancel();
    assert_eq!(world.send(slow()).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn contents_of_events_are_canonical_json() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let path = format!("{CLIENT}{}", in_room(&room, "send/m.room.message/1"));
    let large = json!({"body": "x".repeat(65_530)}).to_string();
    for (body, wanted) in [
        ("{\"n\":1.5}", (400, "M_BAD_JSON")),
        ("{\"n\":1e2}", (400, "M_BAD_JSON")),
        ("{\"n\":9007199254740992}", (400, "M_BAD_JSON")),
        ("{\"n\":1,\"n\":2}", (400, "M_BAD_JSON")),
        ("[]", (400, "M_BAD_JSON")),
        ("", (400, "M_NOT_JSON")),
        ("{\"n\":}", (400, "M_NOT_JSON")),
        (&nested(65), (400, "M_BAD_JSON")),
        (&large, (413, "M_TOO_LARGE")),
    ] {
        let answer = world.raw(Method::PUT, &path, Some(&ann), body.to_owned()).await;
        let shown: String = body.chars().take(40).collect();
        assert_eq!(answer.verdict(), wanted, "{shown}");
    }
    // None of them has taken the transaction id.
    let first = world.raw(Method::PUT, &path, Some(&ann), "{\"n\":9007199254740991}").await.ok();
    let again = world.raw(Method::PUT, &path, Some(&ann), "{\"n\":2}").await.ok();
    assert_eq!(first, again);
}

#[tokio::test]
async fn answers_never_repeat_what_was_sent() {
    let world = World::new();
    for body in ["{\"password\":\"hunter2\",\"type\":5}", "{\"password\":hunter2}", "{\"type\":{\"hunter2\":1}}"] {
        let answer = world.raw(Method::POST, "/_matrix/client/v3/login", None, body).await;
        assert!(!answer.body.to_string().contains("hunter2"), "{}", answer.body);
    }
}
