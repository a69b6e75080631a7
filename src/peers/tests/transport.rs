//! Answers of every kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hearth_rooms::remote::RemoteError;
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::json;

use crate::testing::{Body, Seen, World, body, json, server};
use crate::{Federation, Outgoing, Peers};

fn request(peers: &Peers, port: u16) -> Outgoing {
    peers.get(&server(&format!("127.0.0.1:{port}")), "/_matrix/x".to_owned())
}

/// A body that begins and never ends.
fn endless(_: &Seen) -> Response<Body> {
    let chunk = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"{")))]);
    Response::new(StreamBody::new(futures::StreamExt::chain(chunk, futures::stream::pending())).boxed())
}

#[tokio::test]
async fn requests_are_signed_and_answers_given() {
    let world = World::new();
    let server = world.serve("127.0.0.1:0", &["127.0.0.1"], |_| json(200, &json!({ "a": 1 }))).await;
    let peers = world.peers("me.test");
    let destination = crate::testing::server(&server.address.to_string());
    let outgoing = peers.with_body(Method::PUT, &destination, "/_matrix/x?y".to_owned(), Bytes::from_static(b"{}"));
    assert_eq!(peers.request(outgoing).await.expect("an answer").body, "{\"a\":1}");
    let seen = server.last();
    let start = format!("X-Matrix origin=\"me.test\",destination=\"{destination}\",key=\"ed25519:test\",sig=\"");
    assert!(seen.header("authorization").starts_with(&start), "{}", seen.header("authorization"));
    assert_eq!(seen.header("accept-encoding"), "identity");
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!((seen.method.as_str(), seen.uri.as_str(), &seen.body[..]), ("PUT", "/_matrix/x?y", &b"{}"[..]));
}

#[tokio::test]
async fn large_slow_and_packed_answers_are_cut_off() {
    let world = World::new();
    let peers = world.peers("me.test");
    let large = world.serve("127.0.0.1:0", &["127.0.0.1"], |_| body(200, vec![b'x'; 1001])).await;
    let result = peers.request(Outgoing { max_bytes: 1000, ..request(&peers, large.address.port()) }).await;
    assert!(matches!(&result, Err(RemoteError::Invalid { why, .. }) if why.contains("1000 bytes")), "{result:?}");
    let result = peers.request(Outgoing { max_bytes: 1001, ..request(&peers, large.address.port()) }).await;
    assert_eq!(result.expect("just so").body.len(), 1001);

    let slow = world.serve("127.0.0.1:0", &["127.0.0.1"], endless).await;
    let outgoing = Outgoing { deadline: Duration::from_millis(300), ..request(&peers, slow.address.port()) };
    let result = peers.request(outgoing).await;
    assert!(matches!(result, Err(RemoteError::Unreachable { .. })), "{result:?}");

    let packed = world.serve("127.0.0.1:0", &["127.0.0.1"], |_| {
        let mut answer = body(200, "x");
        answer.headers_mut().insert("content-encoding", "gzip".parse().expect("a value"));
        answer
    });
    let packed = packed.await;
    let result = peers.request(request(&peers, packed.address.port())).await;
    assert!(matches!(&result, Err(RemoteError::Invalid { why, .. }) if why.contains("compressed")), "{result:?}");
}

#[tokio::test]
async fn answers_with_endless_headers_are_cut_off() {
    let world = World::new();
    for (count, length) in [(150, 10), (50, 3000)] {
        for protocol in ["h2", "http/1.1"] {
            let handler = move |_: &Seen| {
                let mut answer = body(200, "{}");
                for n in 0..count {
                    let name = http::HeaderName::try_from(format!("x-{n}")).expect("a name");
                    answer.headers_mut().insert(name, "v".repeat(length).parse().expect("a value"));
                }
                answer
            };
            let how = (&["127.0.0.1"][..], crate::testing::Signed::ByAuthority, &[protocol][..]);
            let server = world.serve_as("127.0.0.1:0", how, handler).await;
            let peers = world.peers("me.test");
            let result = peers.request(request(&peers, server.address.port())).await;
            // HTTP/2 bounds their bytes, not their number.
            if protocol == "http/1.1" || length > 1000 {
                assert!(matches!(result, Err(RemoteError::Unreachable { .. })), "{protocol} {count}: {result:?}");
            }
        }
    }
}

#[tokio::test]
async fn refusals_are_told_in_few_words() {
    let world = World::new();
    let peers = world.peers("me.test");
    for (status, answer, errcode, error) in [
        (401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"x","soft_logout":true}"#, "M_UNKNOWN_TOKEN", "x"),
        (
            429,
            r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":9223372036854775808}"#,
            "M_LIMIT_EXCEEDED",
            "HTTP status 429",
        ),
        (302, "", "M_UNKNOWN", "HTTP status 302"),
        (502, "<html>", "M_UNKNOWN", "HTTP status 502"),
    ] {
        let server = world.serve("127.0.0.1:0", &["127.0.0.1"], move |_| body(status, answer)).await;
        match peers.request(request(&peers, server.address.port())).await {
            Err(RemoteError::Refused { status: got, errcode: code, error: words, .. }) => {
                assert_eq!((got, code.as_str(), words.as_str()), (status, errcode, error));
            }
            other => panic!("{other:?}"),
        }
    }
    let garbage = world.serve("127.0.0.1:0", &["127.0.0.1"], |_| body(200, "garbage")).await;
    let result: Result<serde_json::Value, _> = peers.json(request(&peers, garbage.address.port())).await;
    assert!(matches!(result, Err(RemoteError::Invalid { .. })), "{result:?}");
}

#[tokio::test]
async fn servers_that_do_not_answer_are_left_alone_until_they_are_heard_from() {
    let world = World::new();
    world.dns.host("a.test", "127.0.0.1");
    let down = Arc::new(AtomicBool::new(true));
    let peers = world.peers("me.test");
    let port = world.ports.matrix;
    let name = server(&format!("a.test:{port}"));
    let ask = async || peers.request(peers.get(&name, "/_matrix/x".to_owned())).await;
    let first = ask().await.expect_err("nobody there").to_string();
    assert!(first.contains("refused"), "{first}");
    down.store(false, Ordering::Relaxed);
    let server = world.serve(&format!("127.0.0.1:{port}"), &["a.test"], |_| json(200, &json!({}))).await;
    let second = ask().await.expect_err("left alone").to_string();
    assert!(second.contains("a moment ago"), "{second}");
    assert_eq!(server.uris(), [""; 0]);
    let mut heard = peers.hear();
    peers.heard_from(&name);
    peers.heard_from(&name);
    assert_eq!(heard.recv().await.expect("heard"), name);
    assert!(heard.try_recv().is_err(), "once");
    world.clock.advance(Duration::from_secs(5));
    ask().await.expect("tried again");
    assert_eq!(heard.try_recv().ok(), Some(name.clone()), "whoever waits for it may go on");
    ask().await.expect("and again");
    assert!(heard.try_recv().is_err(), "that is nothing new");
    assert_eq!(server.uris().len(), 2);
}

#[tokio::test]
async fn the_queue_does_not_wait_twice() {
    let world = World::new();
    world.dns.host("a.test", "127.0.0.1");
    let peers = world.peers("me.test");
    let name = server(&format!("a.test:{}", world.ports.matrix));
    peers.transaction(&name, "1", Bytes::from_static(b"{}")).await.expect_err("nobody there");
    let answer = json!({ "pdus": { "$a": { "error": "no" }, "$b": {} } });
    let address = format!("127.0.0.1:{}", world.ports.matrix);
    let server = world.serve(&address, &["a.test"], move |_| json(200, &answer)).await;
    let answer = peers.transaction(&name, "a/1", Bytes::from_static(b"{\"pdus\":[]}")).await.expect("taken");
    assert_eq!(answer.refused.into_iter().map(|(id, why)| format!("{id} {why}")).collect::<Vec<_>>(), ["$a no"]);
    assert_eq!(server.uris(), ["/_matrix/federation/v1/send/a%2F1"]);
    peers.request(peers.get(&name, "/_matrix/x".to_owned())).await.expect("not left alone any more");
}

#[tokio::test]
async fn a_transaction_is_taken_when_the_status_says_so() {
    let world = World::new();
    let huge = format!("{{\"pdus\":{{\"$a\":{{\"error\":\"{}\"}}}}}}", "x".repeat(1 << 20));
    let server = world.serve("127.0.0.1:0", &["127.0.0.1"], move |seen| {
        let plain = |text: &str| body(200, text.to_owned());
        match seen.uri.rsplit('/').next().expect("a transaction ID") {
            "empty" => plain(""),
            "list" => plain("[]"),
            "text" => plain("\"\""),
            "html" => plain("<html>OK</html>"),
            "huge" => plain(&huge),
            "packed" => {
                let mut answer = plain("{}");
                answer.headers_mut().insert("content-encoding", "gzip".parse().expect("a value"));
                answer
            }
            "teapot" => body(418, "<html>"),
            other => panic!("{other}"),
        }
    });
    let server = server.await;
    let (peers, name) = (world.peers("me.test"), crate::testing::server(&server.address.to_string()));
    let send = async |txn_id: &str| peers.transaction(&name, txn_id, Bytes::from_static(b"{}")).await;
    for txn_id in ["empty", "list", "text", "html", "huge", "packed"] {
        let answer = send(txn_id).await.unwrap_or_else(|error| panic!("{txn_id}: {error}"));
        assert!(answer.refused.is_empty(), "{txn_id}: {answer:?}");
    }
    assert_eq!(server.uris().len(), 6, "each was sent once");
    assert!(matches!(send("teapot").await, Err(RemoteError::Refused { status: 418, .. })));
}

#[tokio::test]
async fn a_server_alone_and_a_server_to_itself_ask_nobody() {
    let world = World::new();
    let server = world.serve("127.0.0.1:0", &["127.0.0.1"], |_| json(200, &json!({}))).await;
    let name = server.address.to_string();
    let off = world.peers_with("me.test", |settings| settings.federation = Federation::Off);
    let result = off.request(request(&off, server.address.port())).await;
    assert!(matches!(result, Err(RemoteError::Off)), "{result:?}");
    let alone = world.peers(&name);
    let result = alone.request(request(&alone, server.address.port())).await;
    assert!(matches!(result, Err(RemoteError::Invalid { .. })), "{result:?}");
    assert_eq!(server.connections.load(Ordering::Relaxed), 0);
}
