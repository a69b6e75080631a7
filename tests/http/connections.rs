//! Connections that are slow, too large, or open when the server stops.

use std::time::{Duration, Instant};

use hearth_test_harness::{Config, Server, User, pct};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::BINARY;

async fn user(server: &Server) -> User {
    server.api().register("patient", "correct horse").await.unwrap_or_else(|other| panic!("{other}"))
}

#[tokio::test]
async fn stopping_ends_long_polls_with_an_answer() {
    let mut server = Server::start(BINARY, &Config::open()).await;
    let user = user(&server).await;
    let first = server.api().get("/_matrix/client/v3/sync?timeout=0").by(&user).ok().await;
    let since = pct(first["next_batch"].as_str().expect("a sync has a next_batch"));
    let polls: Vec<_> = (0..20)
        .map(|_| {
            let path = format!("/_matrix/client/v3/sync?timeout=60000&since={since}");
            tokio::spawn(server.api().get(&path).by(&user).try_send())
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(polls.iter().all(|poll| !poll.is_finished()), "a poll with nothing new waits");
    let began = Instant::now();
    server.terminate();
    for poll in polls {
        let answer = poll.await.expect("a poll does not panic").unwrap_or_else(|lost| panic!("a poll was cut: {lost}"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(answer.body["next_batch"].is_string(), "a poll without a token: {}", answer.text);
    }
    let status = server.wait(Duration::from_secs(10)).await;
    assert!(status.success(), "SIGTERM ends with {status}");
    println!("stopped {:?} after SIGTERM with 20 polls open", began.elapsed());

    // The tokens of the last life go on.
    server.restart().await;
    let path = format!("/_matrix/client/v3/sync?timeout=0&since={since}");
    server.api().get(&path).by(&user).ok().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let server = Server::start(BINARY, &Config::open().with("limits", "header_deadline", "\"1 s\"")).await;
    let mut socket = TcpStream::connect(server.address()).await.expect("the server listens");
    socket.write_all(b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.expect("it reads");
    let began = Instant::now();
    let mut rest = Vec::new();
    let closed = timeout(Duration::from_secs(8), socket.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "still open after {:?}", began.elapsed());
    assert!(began.elapsed() > Duration::from_millis(500), "cut off before the deadline");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::start(BINARY, &Config::open()).await;
    let answer = raw(
        &server,
        format!("GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(100_000))
            .as_bytes(),
    )
    .await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    server.api().get("/_matrix/client/versions").ok().await;
}

#[tokio::test]
async fn a_body_without_end_is_refused_while_it_streams() {
    let server = Server::start(BINARY, &Config::open()).await;
    let user = user(&server).await;
    let mut socket = TcpStream::connect(server.address()).await.expect("the server listens");
    let head = format!(
        "POST /_matrix/client/v3/createRoom HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        user.token
    );
    socket.write_all(head.as_bytes()).await.expect("it reads");
    let mut chunk = b"8000\r\n".to_vec();
    chunk.extend(std::iter::repeat_n(b' ', 0x8000));
    chunk.extend(b"\r\n");
    // 64 MiB: far more than the limit and every socket buffer.
    let mut sent = 0;
    while sent < 2048 && timeout(Duration::from_secs(5), socket.write_all(&chunk)).await.is_ok_and(|r| r.is_ok()) {
        sent += 1;
    }
    assert!(sent < 2048, "the server swallowed 64 MiB");
    server.api().get("/_matrix/client/versions").ok().await;
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_refused_unread() {
    let server = Server::start(BINARY, &Config::open()).await;
    let user = user(&server).await;
    let head = format!(
        "POST /_matrix/client/v3/createRoom HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 999999999\r\n\r\n{{",
        user.token
    );
    let answer = raw(&server, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("M_TOO_LARGE"), "{answer}");
}

#[tokio::test]
async fn who_has_sent_too_much_reads_the_refusal() {
    let server = Server::start(BINARY, &Config::open()).await;
    let user = user(&server).await;
    let mut socket = TcpStream::connect(server.address()).await.expect("the server listens");
    let length = 4 << 20;
    let head = format!(
        "POST /_matrix/client/v3/createRoom HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Length: {length}\r\n\r\n",
        user.token
    );
    socket.write_all(head.as_bytes()).await.expect("it reads");
    socket.write_all(&vec![b' '; length]).await.expect("it does not break the connection");
    let mut answer = String::new();
    timeout(Duration::from_secs(30), socket.read_to_string(&mut answer)).await.expect("in time").expect("not reset");
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("M_TOO_LARGE"), "{answer}");
}

#[tokio::test]
async fn nonsense_on_the_wire_harms_nobody() {
    let server = Server::start(BINARY, &Config::open()).await;
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /%ff%fe%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /_matrix/client/v3/rooms/%2e%2e%2f/state HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all, sorry",
    ] {
        let answer = raw(&server, nonsense).await;
        assert!(!answer.starts_with("HTTP/1.1 2") && !answer.starts_with("HTTP/1.1 5"), "{nonsense:?}: {answer}");
        server.api().get("/_matrix/client/versions").ok().await;
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// What comes back for these bytes within two seconds.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(server.address()).await.expect("the server listens");
    // The server may refuse before it has read all.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(Ok(length @ 1..)) = timeout(Duration::from_secs(2), socket.read(&mut piece)).await {
        answer.extend(&piece[..length]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}
