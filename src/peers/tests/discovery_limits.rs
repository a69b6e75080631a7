//! Names whose owners want others to be busy.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hearth_rooms::remote::RemoteError;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::json;

use crate::Peers;
use crate::testing::{Body, Seen, World, body, json, server};

async fn ask(peers: &Peers, name: &str) -> Result<(), RemoteError> {
    peers.request(peers.get(&server(name), "/_matrix/x".to_owned())).await.map(drop)
}

#[tokio::test]
async fn of_a_thousand_services_a_few_are_tried() {
    let world = World::new();
    for n in 0..1000 {
        world.dns.service("_matrix-fed._tcp.a.test", &format!("t{n}.test"), 1);
    }
    let result = ask(&world.peers("me.test"), "a.test").await;
    assert!(matches!(result, Err(RemoteError::Unreachable { .. })), "{result:?}");
    let asked = world.dns.asked.load(Ordering::Relaxed);
    // The host of the file, and eight of the services.
    assert_eq!(asked, 9);
}

/// A file that never ends.
fn endless(_: &Seen) -> Response<Body> {
    let piece = || Ok(Frame::data(Bytes::from_static(&[b' '; 4096])));
    Response::new(StreamBody::new(futures::stream::repeat_with(piece)).boxed())
}

#[tokio::test]
async fn a_file_without_end_is_as_good_as_none() {
    let world = World::new();
    world.dns.host("a.test", "127.0.0.1");
    let usual = format!("127.0.0.1:{}", world.ports.matrix);
    let usual = world.serve(&usual, &["a.test"], |_| json(200, &json!({}))).await;
    let web = world.serve(&format!("127.0.0.1:{}", world.ports.web), &["a.test"], endless).await;
    ask(&world.peers("me.test"), "a.test").await.expect("the usual port");
    assert_eq!((web.uris().len(), usual.uris().len()), (1, 1));
}

#[tokio::test]
async fn a_name_without_a_file_is_asked_ever_more_seldom() {
    let world = World::new();
    world.dns.host("a.test", "127.0.0.1");
    let usual = format!("127.0.0.1:{}", world.ports.matrix);
    let _usual = world.serve(&usual, &["a.test"], |_| json(200, &json!({}))).await;
    let web = world.serve(&format!("127.0.0.1:{}", world.ports.web), &["a.test"], |_| body(404, "")).await;
    let peers = world.peers("me.test");
    ask(&peers, "a.test").await.expect("the usual port");
    let mut expected = 1;
    // Five minutes, twice as long each time, and an hour at the most.
    for minutes in [5, 10, 20, 40, 60, 60] {
        world.clock.advance(Duration::from_secs(minutes * 60 - 1));
        ask(&peers, "a.test").await.expect("the usual port");
        assert_eq!(web.uris().len(), expected, "within {minutes} minutes");
        world.clock.advance(Duration::from_secs(1));
        ask(&peers, "a.test").await.expect("the usual port");
        expected += 1;
        assert_eq!(web.uris().len(), expected, "after {minutes} minutes");
    }
}
