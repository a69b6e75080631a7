//! Whom a name leads to.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hearth_rooms::remote::RemoteError;
use http::{Response, Version};
use http_body_util::{BodyExt as _, Empty};
use serde_json::json;

use crate::testing::{Body, Seen, Signed, TestServer, World, body, json, server};
use crate::{Dns as _, Peers};

fn found(_: &Seen) -> Response<Body> {
    json(200, &json!({}))
}

async fn ask(peers: &Peers, name: &str) -> Result<(), RemoteError> {
    peers.request(peers.get(&server(name), "/_matrix/x?y=%2F".to_owned())).await.map(drop)
}

fn unreachable(result: Result<(), RemoteError>) -> String {
    match result {
        Err(RemoteError::Unreachable { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

/// What a server saw: the `Host` header and the name in the handshake.
fn as_whom(server: &TestServer) -> (String, Option<String>) {
    let seen = server.last();
    assert_eq!(seen.uri, "/_matrix/x?y=%2F");
    (seen.host, seen.sni)
}

fn whom(host: &str, name: &str) -> (String, Option<String>) {
    (host.to_owned(), Some(name.to_owned()))
}

#[tokio::test]
async fn addresses_and_ports_are_taken_as_they_are() {
    let world = World::new();
    let one = world.serve("127.0.0.1:0", &["127.0.0.1", "a.test"], found).await;
    let usual = world.serve(&format!("127.0.0.2:{}", world.ports.matrix), &["127.0.0.2"], found).await;
    world.dns.host("a.test", "127.0.0.1");
    world.dns.service("_matrix-fed._tcp.a.test", "elsewhere.test", 1);
    let peers = world.peers("me.test");
    let port = one.address.port();
    ask(&peers, &format!("127.0.0.1:{port}")).await.expect("an address and a port");
    assert_eq!(as_whom(&one), (format!("127.0.0.1:{port}"), None));
    ask(&peers, "127.0.0.2").await.expect("an address");
    assert_eq!(as_whom(&usual), ("127.0.0.2".to_owned(), None));
    ask(&peers, &format!("a.test:{port}")).await.expect("a name and a port");
    assert_eq!(as_whom(&one), whom(&format!("a.test:{port}"), "a.test"));
}

#[tokio::test]
async fn the_file_names_somebody_else() {
    for (n, (to, service)) in [
        ("127.0.0.1:PORT", None),
        ("b.test:PORT", Some("_matrix-fed")),
        ("b.test", Some("_matrix-fed")),
        ("b.test", Some("_matrix")),
        ("b.test", None),
    ]
    .into_iter()
    .enumerate()
    {
        let world = World::new();
        let real = world.serve("127.0.0.1:0", &["b.test", "127.0.0.1"], found).await;
        let usual = world.serve(&format!("127.0.0.3:{}", world.ports.matrix), &["b.test"], found).await;
        let port = real.address.port();
        world.dns.host("a.test", "127.0.0.2");
        world.dns.host("b.test", if service.is_some() { "127.0.0.1" } else { "127.0.0.3" });
        world.dns.host("srv.test", "127.0.0.1");
        if let Some(service) = service {
            world.dns.service(&format!("{service}._tcp.b.test"), "srv.test", port);
        }
        let to = to.replace("PORT", &port.to_string());
        let file = json!({ "m.server": to });
        let web = world.serve(&format!("127.0.0.2:{}", world.ports.web), &["a.test"], move |_| json(200, &file)).await;
        ask(&world.peers("me.test"), "a.test").await.unwrap_or_else(|error| panic!("{n}: {error}"));
        assert_eq!(web.uris(), ["/.well-known/matrix/server"], "{n}");
        assert_eq!((web.last().host.as_str(), web.last().sni.as_deref()), ("a.test", Some("a.test")), "{n}");
        let name = to.starts_with('b').then(|| "b.test".to_owned());
        let by = if n == 4 { &usual } else { &real };
        assert_eq!(as_whom(by), (to, name), "{n}");
    }
}

#[tokio::test]
async fn without_a_file_services_and_then_the_usual_port_are_tried() {
    let world = World::new();
    let current = world.serve("127.0.0.1:0", &["a.test"], found).await;
    let deprecated = world.serve("127.0.0.1:0", &["a.test"], found).await;
    let usual = world.serve(&format!("127.0.0.1:{}", world.ports.matrix), &["a.test"], found).await;
    world.dns.host("a.test", "127.0.0.1");
    world.dns.host("srv.test", "127.0.0.1");
    ask(&world.peers("me.test"), "a.test").await.expect("the usual port");
    assert_eq!(as_whom(&usual), whom("a.test", "a.test"));
    world.dns.service("_matrix._tcp.a.test", "srv.test", deprecated.address.port());
    ask(&world.peers("me.test"), "a.test").await.expect("the deprecated service");
    assert_eq!(as_whom(&deprecated), whom("a.test", "a.test"));
    world.dns.service("_matrix-fed._tcp.a.test", "nobody.test", 1);
    world.dns.service("_matrix-fed._tcp.a.test", "srv.test", current.address.port());
    ask(&world.peers("me.test"), "a.test").await.expect("the service, after a target without address");
    assert_eq!(as_whom(&current), whom("a.test", "a.test"));
}

#[tokio::test]
async fn files_that_are_no_help_are_as_good_as_none() {
    for (n, answer) in [
        body(404, "{\"m.server\":\"evil.test\"}"),
        body(200, "no JSON"),
        body(200, "{}"),
        body(200, "{\"m.server\":\"evil.test/path\"}"),
        body(200, format!("{{\"m.server\":\"evil.test\",\"more\":\"{}\"}}", "x".repeat(51 << 10))),
        redirect("http://a.test/other"),
        redirect("https://169.254.169.254/latest"),
        redirect("/again"),
    ]
    .into_iter()
    .enumerate()
    {
        let world = World::new();
        world.dns.host("a.test", "127.0.0.1");
        let usual = world.serve(&format!("127.0.0.1:{}", world.ports.matrix), &["a.test"], found).await;
        let (head, content) = answer.into_parts();
        let content = content.collect().await.expect("a body").to_bytes();
        let web = world
            .serve(&format!("127.0.0.1:{}", world.ports.web), &["a.test"], move |_| {
                let mut response = body(head.status.as_u16(), content.clone());
                *response.headers_mut() = head.headers.clone();
                response
            })
            .await;
        ask(&world.peers("me.test"), "a.test").await.unwrap_or_else(|error| panic!("{n}: {error}"));
        assert_eq!(as_whom(&usual), whom("a.test", "a.test"), "{n}");
        assert!((1..=4).contains(&web.uris().len()), "{n}: {:?}", web.uris());
    }
}

fn redirect(to: &'static str) -> Response<Body> {
    Response::builder().status(302).header("location", to).body(Empty::new().boxed()).expect("a response")
}

#[tokio::test]
async fn redirects_are_followed_and_answers_remembered_for_a_while() {
    let world = World::new();
    world.dns.host("a.test", "127.0.0.1");
    world.dns.host("b.test", "127.0.0.1");
    let real = world.serve("127.0.0.1:0", &["b.test"], found).await;
    let file = json!({ "m.server": format!("b.test:{}", real.address.port()) });
    let port = world.ports.web;
    let web = world
        .serve(&format!("127.0.0.1:{port}"), &["a.test", "b.test"], move |seen| {
            if seen.host == "a.test" {
                let to = format!("https://b.test:{port}/elsewhere");
                let answer = Response::builder().status(301).header("location", to).body(Empty::new().boxed());
                return answer.expect("a response");
            }
            let mut answer = json(200, &file);
            answer.headers_mut().insert("cache-control", "max-age=0".parse().expect("a value"));
            answer
        })
        .await;
    let peers = world.peers("me.test");
    for _ in 0..3 {
        ask(&peers, "a.test").await.expect("an answer");
    }
    assert_eq!(web.uris(), ["/.well-known/matrix/server", "/elsewhere"]);
    world.clock.advance(Duration::from_secs(3599));
    ask(&peers, "a.test").await.expect("an answer");
    assert_eq!(web.uris().len(), 2, "an hour at least");
    world.clock.advance(Duration::from_secs(1));
    ask(&peers, "a.test").await.expect("an answer");
    assert_eq!(web.uris().len(), 4);
    assert_eq!(real.uris().len(), 5);
}

#[tokio::test]
async fn certificates_have_to_be_right() {
    let world = World::new();
    world.dns.host("a.test", "127.0.0.1");
    for (names, signed) in [
        (&["b.test"], Signed::ByAuthority),
        (&["127.0.0.1"], Signed::ByAuthority),
        (&["a.test"], Signed::BySelf),
        (&["a.test"], Signed::Expired),
    ] {
        let wrong = world.serve_as("127.0.0.1:0", (names, signed, &["http/1.1"]), found).await;
        let why = unreachable(ask(&world.peers("me.test"), &format!("a.test:{}", wrong.address.port())).await);
        assert!(why.contains("TLS with a.test"), "{names:?} {signed:?}: {why}");
        assert!(wrong.uris().is_empty(), "{names:?} {signed:?}");
    }
    let named = world.serve("127.0.0.1:0", &["a.test"], found).await;
    unreachable(ask(&world.peers("me.test"), &named.address.to_string()).await);
}

#[tokio::test]
async fn denied_addresses_are_not_connected_to() {
    let world = World::new();
    let local = world.serve("127.0.0.1:0", &["a.test", "127.0.0.1"], found).await;
    let port = local.address.port();
    world.dns.host("a.test", "127.0.0.1");
    world.dns.host("mapped.test", "::ffff:127.0.0.1");
    world.dns.host("a.test", "::1");
    let peers = world.peers_with("me.test", |settings| settings.allowed_networks.clear());
    for name in ["a.test", "127.0.0.1", "mapped.test", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"] {
        let why = unreachable(ask(&peers, &format!("{name}:{port}")).await);
        assert!(why.contains("federation.denied_networks"), "{name}: {why}");
    }
    for name in ["[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "10.0.0.1", "169.254.169.254", "100.64.0.1"] {
        let why = unreachable(ask(&peers, name).await);
        assert!(why.contains("federation.denied_networks"), "{name}: {why}");
    }
    assert_eq!(local.connections.load(Ordering::Relaxed), 0);
    let peers = world.peers_with("me.test", |settings| settings.denied_networks.clear());
    ask(&peers, &format!("a.test:{port}")).await.expect("nothing is denied");
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_connected_to() {
    let world = World::new();
    let local = world.serve("127.0.0.1:0", &["a.test"], found).await;
    let port = local.address.port();
    // One harmless address (of a network for documentation, allowed here) and one that is denied.
    world.dns.host("a.test", "192.0.2.1");
    world.dns.host("a.test", "127.0.0.1");
    let peers = world.peers_with("me.test", |settings| {
        settings.allowed_networks = vec!["192.0.2.0/24".parse().expect("a network")];
        settings.connect_timeout = Duration::from_millis(300);
    });
    unreachable(ask(&peers, &format!("a.test:{port}")).await);
    assert_eq!(local.connections.load(Ordering::Relaxed), 0);
    assert_eq!(world.dns.asked.load(Ordering::Relaxed), 1, "looked up once");
    assert!(world.dns.addresses("a.test").await.is_ok_and(|found| found.len() == 2));
}

#[tokio::test]
async fn both_protocols_are_spoken_and_connections_kept() {
    let world = World::new();
    world.dns.host("a.test", "127.0.0.1");
    for (protocols, version) in
        [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)]
    {
        let server = world.serve_as("127.0.0.1:0", (&["a.test"], Signed::ByAuthority, protocols), found).await;
        let peers = world.peers("me.test");
        for _ in 0..3 {
            ask(&peers, &format!("a.test:{}", server.address.port())).await.expect("an answer");
        }
        let seen = server.last();
        assert_eq!(seen.version, version);
        assert_eq!(seen.host, format!("a.test:{}", server.address.port()));
        assert_eq!(server.connections.load(Ordering::Relaxed), 1, "{version:?}");
    }
}
