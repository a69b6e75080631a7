//! Files and records that were made to hurt who looks somebody up.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::json;

use crate::testing::{Body, Seen, World, json, server};

fn found(_: &Seen) -> Response<Body> {
    json(200, &json!({}))
}

fn endless(_: &Seen) -> Response<Body> {
    let chunk = || Ok(Frame::data(Bytes::from(vec![b' '; 16 << 10])));
    Response::new(StreamBody::new(futures::stream::repeat_with(chunk)).boxed())
}

fn packed(_: &Seen) -> Response<Body> {
    let mut answer = json(200, &json!({ "m.server": "evil.test" }));
    answer.headers_mut().insert("content-encoding", "gzip".parse().expect("a value"));
    answer
}

fn many_hops(seen: &Seen) -> Response<Body> {
    let hop: usize = seen.uri.rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(0);
    let mut answer = json(if hop < 20 { 302 } else { 200 }, &json!({ "m.server": "evil.test" }));
    let to = format!("https://a.test/{}", hop + 1);
    answer.headers_mut().insert("location", to.parse().expect("a value"));
    answer
}

#[tokio::test]
async fn files_without_end_packed_ones_and_long_ways_to_them_are_as_good_as_none() {
    for (n, handler) in [endless, packed, many_hops].into_iter().enumerate() {
        let world = World::new();
        world.dns.host("a.test", "127.0.0.1");
        let usual = world.serve(&format!("127.0.0.1:{}", world.ports.matrix), &["a.test"], found).await;
        let web = world.serve(&format!("127.0.0.1:{}", world.ports.web), &["a.test"], handler).await;
        let peers = world.peers("me.test");
        for _ in 0..3 {
            let asked = peers.request(peers.get(&server("a.test"), "/_matrix/x".to_owned())).await;
            asked.unwrap_or_else(|error| panic!("{n}: {error}"));
        }
        assert_eq!(usual.last().sni.as_deref(), Some("a.test"), "{n}");
        // That there is none is remembered.
        assert!((1..=4).contains(&web.uris().len()), "{n}: {:?}", web.uris());
    }
}

#[tokio::test]
async fn of_a_thousand_services_few_are_tried() {
    let world = World::new();
    world.dns.host("a.test", "127.0.0.1");
    for n in 0..1000 {
        world.dns.service("_matrix-fed._tcp.a.test", &format!("t{n}.test"), 1);
    }
    let peers = world.peers("me.test");
    let asked = peers.request(peers.get(&server("a.test"), "/_matrix/x".to_owned())).await;
    asked.expect_err("none of them is there");
    // One look-up was for the file.
    let looked_up = world.dns.asked.load(Ordering::Relaxed);
    assert!((2..=9).contains(&looked_up), "{looked_up}");
}
