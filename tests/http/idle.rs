//! Sockets that are opened and say nothing.

use std::fs;
use std::time::Duration;

use hearth_test_harness::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::BINARY;

/// More than the server has open at once by default. Fewer where this process may not open so many.
const SOCKETS: usize = 5_000;
/// Files that this process has open besides.
const OTHERS: usize = 500;
/// Long after every deadline.
const PATIENCE: Duration = Duration::from_secs(120);
/// Kilobytes that an idle socket may cost the server.
const COST: u64 = 64;

/// The limit of open files of this process.
fn open_files() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").expect("Linux has it");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("it is limited");
    line.split_whitespace().nth(3).expect("the soft limit").parse().unwrap_or(usize::MAX)
}

/// Kilobytes of memory that the server uses.
fn memory(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.pid().expect("it runs"));
    let status = fs::read_to_string(path).expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it uses some");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

async fn connect(server: &Server) -> TcpStream {
    timeout(PATIENCE, TcpStream::connect(server.address())).await.expect("it is taken").expect("the server listens")
}

/// The answer on a connection of its own.
async fn asked_anew(server: &Server) -> String {
    let mut socket = connect(server).await;
    let head = b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    socket.write_all(head).await.expect("it reads");
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("an answer").expect("text");
    answer
}

#[tokio::test]
async fn thousands_of_idle_sockets_keep_nobody_out() {
    let config = Config::open().with("limits", "header_deadline", "\"5 s\"");
    let server = Server::start(BINARY, &config).await;
    let user = server.api().register("patient", "correct horse").await.unwrap_or_else(|other| panic!("{other}"));
    let before = memory(&server);
    let count = SOCKETS.min(open_files().saturating_sub(OTHERS));
    let mut sockets = Vec::with_capacity(count);
    for n in 0..count {
        sockets.push(connect(&server).await);
        // Who is connected does not notice.
        if n % 500 == 0 {
            server.api().get("/_matrix/client/v3/account/whoami").by(&user).ok().await;
        }
    }
    let cost = memory(&server).saturating_sub(before) / u64::try_from(count).expect("few").max(1);
    assert!(cost < COST, "{cost} KiB for each of {count} sockets");
    // Who comes now may have to wait until the deadline of the first has passed, and is served.
    let answer = asked_anew(&server).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for mut socket in sockets {
        let mut rest = Vec::new();
        let closed = timeout(PATIENCE, socket.read_to_end(&mut rest)).await;
        // With an error, or without.
        assert!(closed.is_ok(), "a socket that said nothing is still open");
    }
    let answer = asked_anew(&server).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.api().get("/_matrix/client/v3/account/whoami").by(&user).ok().await;
}
