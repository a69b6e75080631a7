//! What the doctor says of servers on this machine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_base::SeededRandom;
use http::Response;
use serde_json::json;

use crate::Level::{self, Bad, Good, Note};
use crate::connect::Connector;
use crate::testing::{Body, Seen, Signed, TestServer, World, body, json as reply};
use crate::{Doctor, Finding};

/// 2027-01-15 08:00:00, the time of the tests.
const DATE: &str = "Fri, 15 Jan 2027 08:00:00 GMT";

impl World {
    async fn examine(&self, server: &str) -> Vec<Finding> {
        let random = Arc::new(SeededRandom::new(1));
        let connector = Connector::new(self.dns.clone(), random, &self.settings(), self.ports).expect("usable");
        Doctor::with(connector, self.clock.clone()).examine(server).await
    }

    /// A sound server at `address`, with the keys of `name`.
    async fn matrix(&self, address: &str, certificate: (&[&str], Signed), name: &str) -> TestServer {
        let keys = self.peers(name).server_keys();
        let how = (certificate.0, certificate.1, &["h2", "http/1.1"][..]);
        self.serve_as(address, how, move |seen| dated(answer(seen, &keys), DATE)).await
    }
}

fn answer(seen: &Seen, keys: &Bytes) -> Response<Body> {
    match seen.uri.as_str() {
        "/_matrix/federation/v1/version" => reply(200, &json!({ "server": { "name": "Test", "version": "1" } })),
        "/_matrix/key/v2/server" => body(200, keys.clone()),
        _ => body(404, ""),
    }
}

fn dated(mut answer: Response<Body>, date: &'static str) -> Response<Body> {
    answer.headers_mut().insert("date", date.parse().expect("a value"));
    answer
}

fn levels(findings: &[Finding]) -> Vec<Level> {
    findings.iter().map(|finding| finding.level).collect()
}

fn worst(findings: &[Finding]) -> &Finding {
    let found = findings.iter().find(|finding| finding.level == Level::Bad);
    found.unwrap_or_else(|| panic!("nothing is bad: {findings:?}"))
}

#[tokio::test]
async fn a_sound_server_is_sound() {
    let world = World::new();
    world.dns.host("a.test", "127.0.0.1");
    let usual = format!("127.0.0.1:{}", world.ports.matrix);
    let _server = world.matrix(&usual, (&["a.test"], Signed::ByAuthority), "a.test").await;
    let findings = world.examine("a.test").await;
    assert_eq!(levels(&findings), [Note, Good, Good, Good, Good], "{findings:?}");
    let file = json!({ "m.server": format!("a.test:{}", world.ports.matrix) });
    let web = format!("127.0.0.1:{}", world.ports.web);
    let _web = world.serve(&web, &["a.test"], move |_| reply(200, &file)).await;
    let findings = world.examine("a.test").await;
    assert_eq!(levels(&findings), [Good; 5], "{findings:?}");
    assert!(findings[2].what.ends_with("is Test 1"), "{}", findings[2].what);
    assert!(findings[4].what.ends_with("its signing keys: ed25519:test"), "{}", findings[4].what);
}

#[tokio::test]
async fn what_is_wrong_is_told_with_what_to_do() {
    let world = World::new();
    let say = async |server: &str| worst(&world.examine(server).await).clone();
    let wrong = say("@user:a.test").await;
    assert!(wrong.what.contains("not the name of a server"), "{}", wrong.what);
    let nowhere = say("nowhere.test").await;
    assert_eq!(nowhere.what, "nowhere.test has no address");
    world.dns.host("a.test", "127.0.0.1");
    let closed = say("a.test").await;
    assert!(closed.what.contains("refused") && closed.fix.expect("a fix").contains("firewall"), "{}", closed.what);
    for (names, signed) in [(&["b.test"][..], Signed::ByAuthority), (&["a.test"], Signed::Expired)] {
        let server = world.matrix("127.0.0.1:0", (names, signed), "a.test").await;
        let finding = say(&format!("a.test:{}", server.address.port())).await;
        assert!(finding.fix.expect("a fix").contains("certificate for a.test"), "{}", finding.what);
    }
    let other = world.matrix("127.0.0.1:0", (&["a.test"], Signed::ByAuthority), "b.test").await;
    let finding = say(&format!("a.test:{}", other.address.port())).await;
    assert!(finding.what.contains("keys of another server"), "{}", finding.what);
    let proxy = world.serve("127.0.0.1:0", &["a.test"], |_| body(502, "")).await;
    let finding = say(&format!("a.test:{}", proxy.address.port())).await;
    assert!(finding.what.contains("HTTP status 502"), "{}", finding.what);
    let file = world.serve(&format!("127.0.0.1:{}", world.ports.web), &["a.test"], |_| body(200, "<html>")).await;
    let finding = say("a.test").await;
    assert!(finding.what.contains("well-known/matrix/server cannot be used"), "{}", finding.what);
    assert_eq!(file.uris().len(), 1);
}

#[tokio::test]
async fn every_address_and_every_clock_is_looked_at() {
    let world = World::new();
    world.dns.host("a.test", "127.0.0.1");
    world.dns.host("a.test", "127.0.0.2");
    world.dns.service("_matrix-fed._tcp.a.test", "a.test", world.ports.matrix);
    let keys = world.peers("a.test").server_keys();
    let usual = format!("127.0.0.1:{}", world.ports.matrix);
    let late = "Fri, 15 Jan 2027 07:59:00 GMT";
    let _server = world.serve(&usual, &["a.test"], move |seen| dated(answer(seen, &keys), late)).await;
    let findings = world.examine("a.test").await;
    assert_eq!(levels(&findings), [Note, Good, Good, Good, Note, Good, Bad], "{findings:?}");
    assert!(findings[4].what.contains("60 s behind"), "{}", findings[4].what);
    assert!(findings[6].what.contains("127.0.0.2"), "{}", findings[6].what);
    world.clock.advance(Duration::from_secs(30 * 24 * 3600));
    let findings = world.examine("a.test").await;
    assert_eq!(findings.iter().filter(|finding| finding.level == Bad).count(), 3, "clock, keys, address: {findings:?}");
}

#[tokio::test]
async fn a_target_without_an_address_is_told_and_the_others_are_looked_at() {
    let world = World::new();
    let port = world.ports.matrix;
    let usual = format!("127.0.0.1:{port}");
    let _server = world.matrix(&usual, (&["a.test"], Signed::ByAuthority), "a.test").await;
    world.dns.service("_matrix-fed._tcp.a.test", "gone.test", port);
    let findings = world.examine("a.test").await;
    assert_eq!(levels(&findings), [Note, Good, Bad], "{findings:?}");
    assert_eq!(findings[1].what, format!("the SRV record _matrix-fed._tcp.a.test names gone.test:{port}"));
    assert_eq!(findings[2].what, "gone.test has no address");
    world.dns.host("here.test", "127.0.0.1");
    world.dns.service("_matrix-fed._tcp.a.test", "here.test", port);
    let findings = world.examine("a.test").await;
    assert_eq!(levels(&findings), [Note, Good, Note, Good, Good, Good, Good], "servers get through: {findings:?}");
    assert_eq!(findings[2].what, "gone.test has no address");
}

#[tokio::test]
async fn the_records_of_a_server_are_told() {
    let world = World::new();
    let port = world.ports.matrix;
    let usual = format!("127.0.0.1:{port}");
    let _server = world.matrix(&usual, (&["a.test"], Signed::ByAuthority), "a.test").await;
    world.dns.host("here.test", "127.0.0.1");
    world.dns.service("_matrix._tcp.a.test", "here.test", port);
    let findings = world.examine("a.test").await;
    assert_eq!(levels(&findings), [Note, Note, Good, Good, Good, Good], "{findings:?}");
    assert!(findings[1].fix.clone().expect("a fix").contains("_matrix-fed._tcp.a.test"), "{:?}", findings[1]);
    world.dns.service("_matrix-fed._tcp.a.test", "", 0);
    let findings = world.examine("a.test").await;
    assert_eq!(levels(&findings), [Note, Bad], "{findings:?}");
    assert!(findings[1].what.contains("no server"), "{}", findings[1].what);
}
