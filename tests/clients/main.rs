//! Conversations of real client libraries with the real server.
//!
//! The scripts beside this file hold the conversations; each ends with status 0 only if both sides saw every
//! step.

use std::path::{Path, PathBuf};
use std::process::Command;

use hearth_test_harness::{Config, Server};

const BINARY: &str = env!("CARGO_BIN_EXE_hearth");

#[tokio::test]
async fn matrix_nio_holds_a_conversation() {
    let python = cache("HEARTH_NIO_PYTHON", "nio/bin/python");
    assert!(
        python.exists(),
        "matrix-nio is not installed; run: python3 -m venv ~/.cache/hearth/nio && \
         ~/.cache/hearth/nio/bin/pip install -r tests/clients/nio/requirements.txt"
    );
    converse(python, script("nio/conversation.py")).await;
}

#[tokio::test]
async fn matrix_js_sdk_holds_a_conversation() {
    let beside = script("js/node_modules/matrix-js-sdk");
    assert!(
        beside.exists() || cache("HEARTH_JS_DIR", "js").join("node_modules/matrix-js-sdk").exists(),
        "matrix-js-sdk is not installed; run: mkdir -p ~/.cache/hearth/js && \
         cp tests/clients/js/package*.json ~/.cache/hearth/js && npm ci --prefix ~/.cache/hearth/js"
    );
    // The SDK wants a newer Node than some systems have; the set-up then makes one of its own.
    let own = cache("HEARTH_NODE", "node/bin/node");
    let node = if own.exists() { own } else { "node".into() };
    converse(node, script("js/conversation.mjs")).await;
}

/// Runs a script against a fresh server and fails with everything that it printed.
async fn converse(interpreter: PathBuf, script: PathBuf) {
    let server = Server::start(BINARY, &Config::open()).await;
    let url = server.url();
    let run = move || Command::new(interpreter).arg(script).arg(url).output();
    let output = tokio::task::spawn_blocking(run).await.expect("waiting does not panic");
    let output = output.expect("the script's interpreter starts");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "the conversation broke off:\n{text}");
    println!("{text}");
    assert!(!server.log().contains("panicked"), "a handler panicked:\n{}", server.log());
}

/// What `variable` names, else `path` in the cache of test tools.
fn cache(variable: &str, path: &str) -> PathBuf {
    match (std::env::var_os(variable), std::env::var_os("HOME")) {
        (Some(given), _) => given.into(),
        (None, Some(home)) => Path::new(&home).join(".cache/hearth").join(path),
        (None, None) => panic!("set HOME or {variable}"),
    }
}

fn script(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(path)
}
