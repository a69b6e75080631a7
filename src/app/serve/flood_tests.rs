//! HTTP/2 peers that flood, and requests that two servers could read in two ways.

use std::net::SocketAddr;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types and flags of frames, RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET /slow` over http, without Huffman coding: indexed method and scheme, literal path and authority.
const SLOW: &[u8] = b"\x82\x86\x04\x05/slow\x01\x01x";
/// The same for `POST /echo`.
const ECHO: &[u8] = b"\x83\x86\x04\x05/echo\x01\x01x";

async fn start() -> (Supervisor, SocketAddr) {
    let supervisor = Supervisor::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let router = Router::new()
        .route("/", get(async || "hello"))
        .route("/slow", get(async || tokio::time::sleep(PATIENCE).await))
        .route("/echo", post(async |body: String| format!("<{body}>")));
    let limits = HttpLimits {
        request_head: 16 * 1024,
        header_deadline: Duration::from_secs(1),
        idle_deadline: Duration::from_secs(2),
        http2_streams: 100,
    };
    listen(&supervisor, listener.into(), router, limits, Slots::new(10));
    (supervisor, address)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection whose preface and settings have been exchanged.
async fn connect(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("listening");
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    socket.write_all(&hello).await.expect("connected");
    socket
}

/// Writes until the server has had enough; `false` if it never has.
async fn flood(socket: &mut TcpStream, bytes: &[u8], times: usize) -> bool {
    for _ in 0..times {
        match timeout(PATIENCE, socket.write_all(bytes)).await.expect("the server reads or closes") {
            Ok(()) => {}
            Err(_) => return true,
        }
    }
    false
}

/// Types of the frames that come until the connection ends, with the payload of each.
async fn frames(socket: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("the server closes");
    let (mut all, mut rest) = (Vec::new(), &bytes[..]);
    while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((payload, after)) = after.split_at_checked(length) else { break };
        all.push((*kind, payload.to_vec()));
        rest = after;
    }
    all
}

async fn hello(address: SocketAddr) -> String {
    let mut socket = TcpStream::connect(address).await.expect("listening");
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("connected");
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("an answer").expect("text");
    answer
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let (_supervisor, address) = start().await;
    let mut socket = connect(address).await;
    let mut enough = false;
    for n in 0..10_000_u32 {
        let stream = 2 * n + 1;
        let begin = frame(HEADERS, END_HEADERS | END_STREAM, stream, SLOW);
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        if flood(&mut socket, &[begin, reset].concat(), 1).await {
            enough = true;
            break;
        }
    }
    // Either the writes fail, or what comes back is a farewell.
    assert!(enough || frames(&mut socket).await.iter().any(|(kind, _)| *kind == GOAWAY));
    assert!(hello(address).await.ends_with("hello"), "others are served");
}

#[tokio::test]
async fn a_head_that_goes_on_and_on_ends_the_connection() {
    let (_supervisor, address) = start().await;
    let mut socket = connect(address).await;
    let begin = frame(HEADERS, END_STREAM, 1, SLOW);
    socket.write_all(&begin).await.expect("connected");
    // A new header field in each: 16 MiB in all.
    let field = [&b"\x00\x01a\x7f\x81\x7f"[..], &[b'v'; 256]].concat();
    let more = frame(CONTINUATION, 0, 1, &field.repeat(60));
    assert!(flood(&mut socket, &more, 1100).await, "16 MiB of headers were read");
    assert!(hello(address).await.ends_with("hello"), "others are served");
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused() {
    let (_supervisor, address) = start().await;
    let mut socket = connect(address).await;
    let all: Vec<u8> = (0..150_u32).flat_map(|n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, SLOW)).collect();
    socket.write_all(&all).await.expect("connected");
    let mut bytes = vec![0; 4096];
    let mut seen = Vec::new();
    let refused = timeout(PATIENCE, async {
        loop {
            let read = socket.read(&mut bytes).await.unwrap_or(0);
            seen.extend_from_slice(&bytes[..read]);
            // REFUSED_STREAM (7) in a reset, or a farewell.
            let reset = seen.windows(13).any(|w| w[..5] == [0, 0, 4, RST_STREAM, 0] && w[9..] == [0, 0, 0, 7]);
            let farewell = seen.windows(4).any(|w| w[2..] == [GOAWAY, 0]);
            if reset || farewell || read == 0 {
                return reset || farewell;
            }
        }
    });
    assert!(refused.await.expect("an answer"), "{} bytes", seen.len());
}

#[tokio::test]
async fn floods_of_small_frames_that_nobody_asked_for_end() {
    let (_supervisor, address) = start().await;
    for flooding in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 50])] {
        let mut socket = connect(address).await;
        // Nothing is read: when the answers fill the buffers, the server must stop reading too, and
        // then the deadline of idle connections ends it.
        let ended = flood(&mut socket, &flooding.repeat(1000), 20_000).await;
        assert!(ended, "the server holds answers to 20 million frames");
    }
    assert!(hello(address).await.ends_with("hello"), "others are served");
}

#[tokio::test]
async fn empty_data_frames_do_not_keep_a_server_busy_for_ever() {
    let (_supervisor, address) = start().await;
    let mut socket = connect(address).await;
    socket.write_all(&frame(HEADERS, END_HEADERS, 1, ECHO)).await.expect("connected");
    let empty = frame(DATA, 0, 1, &[]).repeat(1000);
    // Ten million of them: the library gives up long before, and if it did not, others would still be
    // served.
    let ended = flood(&mut socket, &empty, 1000).await;
    assert!(hello(address).await.ends_with("hello"), "others are served; ended: {ended}");
}

#[tokio::test]
async fn acknowledgements_of_nothing_are_an_error() {
    let (_supervisor, address) = start().await;
    let mut socket = connect(address).await;
    socket.write_all(&frame(SETTINGS, ACK, 0, &[]).repeat(5)).await.expect("connected");
    assert!(frames(&mut socket).await.iter().any(|(kind, _)| *kind == GOAWAY));
}

/// Of two lengths the one is obeyed that every server obeys (RFC 9112 §6.3), so nobody can hide a
/// request in the other.
#[tokio::test]
async fn a_body_with_two_lengths_hides_no_request() {
    let (_supervisor, address) = start().await;
    let hidden = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let chunked = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for lengths in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"]
    {
        let mut socket = TcpStream::connect(address).await.expect("listening");
        let head = format!("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lengths}\r\n");
        socket.write_all(format!("{head}{chunked}").as_bytes()).await.expect("connected");
        let mut answer = String::new();
        let _ = timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("closed");
        assert_eq!(answer.matches("HTTP/1.1 ").count() - answer.matches("<GET / HTTP/1.1 ").count(), 1, "{answer}");
        assert!(!answer.contains("\r\n\r\nhello"), "{answer}");
    }
    for ambiguous in [
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 4, 5\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: -1\r\n",
    ] {
        let mut socket = TcpStream::connect(address).await.expect("listening");
        let request = format!("POST /echo HTTP/1.1\r\nHost: x\r\n{ambiguous}\r\nabcd");
        socket.write_all(request.as_bytes()).await.expect("connected");
        let mut answer = String::new();
        let _ = timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("closed");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{ambiguous}: {answer}");
    }
}
