//! Requests that are answered before all of them has come.

use axum::body::Body;
use axum::routing::post;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tests::{PATIENCE, limits, rest};
use super::*;

/// More than every buffer of a socket.
const LARGE: usize = 8 << 20;
/// More than any buffer of a connection's head, and less than is read for nothing.
const LARGE_HEAD: usize = 768 << 10;

/// A server that refuses every body unread.
async fn start(slots: usize) -> (Supervisor, std::net::SocketAddr) {
    let supervisor = Supervisor::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let refuse = async |body: Body| {
        drop(body);
        (http::StatusCode::PAYLOAD_TOO_LARGE, "no")
    };
    let router = Router::new().route("/", post(refuse));
    listen(&supervisor, listener.into(), router, limits(), Slots::new(slots));
    (supervisor, address)
}

fn head(length: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n")
}

#[tokio::test]
async fn who_sends_everything_before_reading_gets_the_answer() {
    let (_supervisor, address) = start(10).await;
    let chunked = format!("{LARGE:x}\r\n");
    for (length, start) in [(format!("Content-Length: {LARGE}"), ""), ("Transfer-Encoding: chunked".into(), &*chunked)]
    {
        let mut socket = TcpStream::connect(address).await.expect("listening");
        socket.write_all(head(&length).as_bytes()).await.expect("connected");
        socket.write_all(start.as_bytes()).await.expect("connected");
        socket.write_all(&vec![b' '; LARGE]).await.expect("nothing is reset");
        let (answer, _) = rest(&mut socket).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{length}: {answer}");
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("no"), "{length}: {answer}");
    }
}

#[tokio::test]
async fn who_goes_on_with_a_head_that_is_too_large_gets_the_answer() {
    let (_supervisor, address) = start(10).await;
    let large = format!("{}\r\nX-Large: {}\r\n\r\n", head("Content-Length: 0").trim_end(), "x".repeat(LARGE_HEAD));
    let (first, more) = large.as_bytes().split_at(LARGE_HEAD / 4);
    for before in [String::new(), head("Content-Length: 0")] {
        let mut socket = TcpStream::connect(address).await.expect("listening");
        socket.write_all(&[before.as_bytes(), first].concat()).await.expect("connected");
        let mut begin = [0; 9];
        timeout(PATIENCE, socket.read_exact(&mut begin)).await.expect("an answer").expect("not reset");
        for piece in more.chunks(LARGE_HEAD / 16) {
            // Time for a reset to arrive: a reset fails only what is written after it.
            tokio::time::sleep(Duration::from_millis(2)).await;
            socket.write_all(piece).await.expect("nothing is reset");
        }
        let (answer, _) = rest(&mut socket).await;
        assert!(answer.starts_with("431 ") || answer.contains("HTTP/1.1 431 "), "after {before:?}: {answer}");
    }
}

#[tokio::test]
async fn a_small_body_that_nobody_reads_does_not_end_the_connection() {
    let (_supervisor, address) = start(10).await;
    let mut socket = TcpStream::connect(address).await.expect("listening");
    for _ in 0..3 {
        socket.write_all(format!("{}hello", head("Content-Length: 5")).as_bytes()).await.expect("connected");
        let mut answer = String::new();
        while !answer.ends_with("no") {
            let mut piece = [0; 1024];
            let read = timeout(PATIENCE, socket.read(&mut piece)).await.expect("an answer").expect("no reset");
            assert_ne!(read, 0, "closed after {answer}");
            answer.push_str(std::str::from_utf8(&piece[..read]).expect("text"));
        }
        assert!(answer.starts_with("HTTP/1.1 413 ") && !answer.contains("close"), "{answer}");
    }
}

#[tokio::test]
async fn who_has_the_answer_and_stays_is_cut_off() {
    let (_supervisor, address) = start(1).await;
    let mut first = TcpStream::connect(address).await.expect("listening");
    first.write_all(head(&format!("Content-Length: {LARGE}")).as_bytes()).await.expect("connected");
    let (answer, _) = rest(&mut first).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // The only place is free again although the first still has its end of the connection.
    let mut second = TcpStream::connect(address).await.expect("listening");
    second.write_all(head("Content-Length: 0").as_bytes()).await.expect("connected");
    let mut byte = [0];
    timeout(PATIENCE, second.read_exact(&mut byte)).await.expect("a place is free").expect("an answer");
    drop(first);
}

#[tokio::test]
async fn what_never_ends_is_not_read_for_ever() {
    let (_supervisor, address) = start(10).await;
    let mut socket = TcpStream::connect(address).await.expect("listening");
    socket.write_all(head(&format!("Content-Length: {}", 1_u64 << 40)).as_bytes()).await.expect("connected");
    let piece = vec![b' '; 1 << 20];
    let sending = async { while socket.write_all(&piece).await.is_ok() {} };
    timeout(PATIENCE, sending).await.expect("the server hangs up");
}
