//! Peers that behave badly, over real sockets.

use std::net::SocketAddr;

use axum::routing::{get, post};
use hearth_client_api::Peer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::*;

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn limits() -> HttpLimits {
    HttpLimits {
        request_head: 8 * 1024,
        header_deadline: Duration::from_millis(200),
        idle_deadline: Duration::from_millis(800),
        http2_streams: 100,
    }
}

async fn start(limits: HttpLimits, slots: usize) -> (Supervisor, SocketAddr) {
    let supervisor = Supervisor::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let stopping = supervisor.stopping();
    let router = Router::new()
        .route("/", get(async || "hello"))
        .route("/echo", post(async |body: String| body))
        .route("/poll", get(move || long_poll(stopping.clone())));
    listen(&supervisor, listener.into(), router, limits, Slots::new(slots));
    (supervisor, address)
}

async fn long_poll(stopping: CancellationToken) -> &'static str {
    stopping.cancelled().await;
    "nothing new"
}

async fn send(address: SocketAddr, bytes: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("listening");
    socket.write_all(bytes.as_bytes()).await.expect("connected");
    socket
}

/// Everything until the server closes the connection, and how long that took.
pub(super) async fn rest(socket: &mut TcpStream) -> (String, Duration) {
    let began = Instant::now();
    let mut bytes = Vec::new();
    // A reset is a close too: the server may still have had bytes to read.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("the server closes");
    (String::from_utf8(bytes).expect("text"), began.elapsed())
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let (_supervisor, address) = start(limits(), 10).await;
    let (answer, took) = rest(&mut send(address, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await).await;
    assert_eq!(answer, "");
    assert!(took < Duration::from_millis(700), "{took:?}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_later_than_a_slow_head() {
    let (_supervisor, address) = start(limits(), 10).await;
    let (answer, took) = rest(&mut send(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await).await;
    assert!(answer.ends_with("hello"), "{answer}");
    assert!(took > Duration::from_millis(600), "{took:?}");
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let (_supervisor, address) = start(limits(), 10).await;
    let large = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(20_000));
    let (answer, _) = rest(&mut send(address, &large).await).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(200));
    let (answer, _) = rest(&mut send(address, &many).await).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn ambiguous_lengths_are_refused() {
    let (_supervisor, address) = start(limits(), 10).await;
    let hello = "POST /echo HTTP/1.1\r\nHost: x\r\n";
    for headers in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length: +5\r\n",
        "X: a\r\n folded\r\n",
    ] {
        let (answer, _) = rest(&mut send(address, &format!("{hello}{headers}\r\nhello")).await).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{headers}: {answer}");
    }
}

#[tokio::test]
async fn connections_over_the_cap_wait_for_a_slot() {
    let (_supervisor, address) = start(limits(), 1).await;
    let mut first = send(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut second = send(address, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let mut byte = [0];
    let early = timeout(Duration::from_millis(300), second.read(&mut byte)).await;
    assert!(early.is_err(), "answered although the cap is reached");
    let _ = rest(&mut first).await;
    assert!(rest(&mut second).await.0.ends_with("hello"));
}

#[tokio::test]
async fn a_shutdown_answers_long_polls_and_refuses_new_connections() {
    let (supervisor, address) = start(limits(), 10).await;
    let mut polling = send(address, "GET /poll HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut idle = send(address, "").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    assert_eq!(supervisor.shutdown(PATIENCE).await, Ok(()));
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(rest(&mut polling).await.0.ends_with("nothing new"));
    assert_eq!(rest(&mut idle).await.0, "");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_unix_socket_serves_and_is_gone_after_the_shutdown() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("hearth.sock");
    let address = hearth_settings::Address::Unix(path.clone());
    let listener = Listener::bind(&address, hearth_settings::FileMode(0o600)).await.expect("bound");
    let supervisor = Supervisor::new();
    let peer = async |axum::Extension(peer): axum::Extension<Peer>| format!("{peer:?}");
    let router = Router::new().route("/", get(peer));
    listen(&supervisor, listener, router, limits(), Slots::new(10));
    let mut socket = tokio::net::UnixStream::connect(&path).await.expect("listening");
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("connected");
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("the server closes").expect("text");
    assert!(answer.ends_with("Local"), "{answer}");
    assert_eq!(supervisor.shutdown(PATIENCE).await, Ok(()));
    assert!(!path.exists());
}
