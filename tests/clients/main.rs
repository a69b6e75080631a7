//! Conversations of real client libraries with the real server.
//!
//! The scripts beside this file hold the conversations; each ends with status 0 only if both sides saw every
//! step. A script that writes the line `@restart` gets the server killed and started again, and a line to read when
//! that is done.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use hearth_test_harness::{Config, Server, tool};
use tokio::sync::mpsc;

const BINARY: &str = env!("CARGO_BIN_EXE_hearth");

#[tokio::test]
async fn matrix_nio_holds_a_conversation() {
    converse(python(), script("nio/conversation.py")).await;
}

#[tokio::test]
async fn matrix_nio_talks_about_single_things() {
    converse(python(), script("nio/features.py")).await;
}

#[tokio::test]
async fn matrix_js_sdk_holds_a_conversation() {
    converse(node(), script("js/conversation.mjs")).await;
}

#[tokio::test]
async fn matrix_js_sdk_talks_about_single_things() {
    converse(node(), script("js/features.mjs")).await;
}

/// Python with matrix-nio.
fn python() -> PathBuf {
    let python = tool("HEARTH_NIO_PYTHON", "nio/bin/python");
    assert!(
        python.exists(),
        "matrix-nio is not installed; run: python3 -m venv ~/.cache/hearth/nio && \
         ~/.cache/hearth/nio/bin/pip install -r tests/clients/nio/requirements.txt"
    );
    python
}

/// Node, with matrix-js-sdk where the scripts look for it.
fn node() -> PathBuf {
    let beside = script("js/node_modules/matrix-js-sdk");
    assert!(
        beside.exists() || tool("HEARTH_JS_DIR", "js").join("node_modules/matrix-js-sdk").exists(),
        "matrix-js-sdk is not installed; run: mkdir -p ~/.cache/hearth/js && \
         cp tests/clients/js/package*.json ~/.cache/hearth/js && npm ci --prefix ~/.cache/hearth/js"
    );
    // The SDK wants a newer Node than some systems have; the set-up then makes one of its own.
    let own = tool("HEARTH_NODE", "node/bin/node");
    if own.exists() { own } else { "node".into() }
}

/// Runs a script against a fresh server and fails with everything that it printed.
async fn converse(interpreter: PathBuf, script: PathBuf) {
    let mut server = Server::start(BINARY, &Config::open()).await;
    let mut child = Command::new(interpreter)
        .arg(script)
        .arg(server.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the script's interpreter starts");
    let mut lines = lines(child.stdout.take().expect("the output is ours"));
    let complaints = whole(child.stderr.take().expect("the complaints are ours"));
    let mut input = child.stdin.take().expect("the input is ours");
    let mut text = String::new();
    while let Some(line) = lines.recv().await {
        if line == "@restart" {
            server.restart().await;
            tell(&mut input, "restarted");
        } else {
            text.push_str(&line);
            text.push('\n');
        }
    }
    let waiting = tokio::task::spawn_blocking(move || child.wait());
    let status = waiting.await.expect("waiting does not panic").expect("our own child can be waited for");
    text.push_str(&complaints.join().expect("reading does not panic"));
    assert!(status.success(), "the conversation broke off:\n{text}");
    println!("{text}");
    assert!(!server.log().contains("panicked"), "a handler panicked:\n{}", server.log());
}

/// The lines of the output as they come, until it ends.
fn lines(output: ChildStdout) -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let line = line.expect("a script writes text");
            // Nobody listens any more when the test has failed.
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Everything that is written to `stderr`.
fn whole(mut stderr: ChildStderr) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn tell(input: &mut ChildStdin, line: &str) {
    writeln!(input, "{line}").and_then(|()| input.flush()).expect("the script listens");
}

fn script(path: &str) -> PathBuf {
    hearth_test_harness::root().join("tests/clients").join(path)
}
