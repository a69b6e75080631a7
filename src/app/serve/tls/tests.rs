//! TLS as a client meets it.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use hearth_base::Supervisor;
use hearth_settings::{Address, FileMode};
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::super::{HttpLimits, Listener, Slots, listen};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A certificate of its own making, written to `directory`.
fn issue(directory: &Path) -> CertificateDer<'static> {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a valid name");
    let certificate = params.self_signed(&key).expect("signed");
    std::fs::write(directory.join("tls.crt"), certificate.pem()).expect("written");
    std::fs::write(directory.join("tls.key"), key.serialize_pem()).expect("written");
    certificate.der().clone()
}

fn load(directory: &Path) -> Result<Arc<Certificate>, TlsError> {
    Certificate::load(directory.join("tls.crt"), SecretFile::Path(directory.join("tls.key")))
}

async fn serve(certificate: &Arc<Certificate>) -> (Supervisor, SocketAddr) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("bound");
    drop(socket);
    let supervisor = Supervisor::new();
    let listener = Listener::bind(&Address::Tcp(address), FileMode(0o600)).await.expect("bound");
    let listener = listener.with_tls(certificate.acceptor().expect("TLS"));
    let limits = HttpLimits {
        request_head: 8 * 1024,
        header_deadline: Duration::from_millis(300),
        idle_deadline: Duration::from_secs(5),
        http2_streams: 100,
    };
    let router = Router::new().route("/", get(async || "hello"));
    listen(&supervisor, listener, router, limits, Slots::new(1));
    (supervisor, address)
}

/// Connects as somebody who trusts only `trusted`.
async fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, socket)).await.expect("an answer")
}

#[tokio::test]
async fn requests_are_answered_and_both_protocols_offered() {
    let directory = tempfile::tempdir().expect("a directory");
    let trusted = issue(directory.path());
    let (_supervisor, address) = serve(&load(directory.path()).expect("usable")).await;
    let mut socket = connect(address, &trusted, &["http/1.1"]).await.expect("trusted");
    assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("written");
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("closed").expect("text");
    assert!(answer.ends_with("hello"), "{answer}");

    let mut socket = connect(address, &trusted, &["h2", "http/1.1"]).await.expect("trusted");
    assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // The preface and empty settings are answered with settings.
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("written");
    let mut frame = [0; 9];
    timeout(PATIENCE, socket.read_exact(&mut frame)).await.expect("an answer").expect("a frame");
    assert_eq!(frame[3], 4);
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_and_a_bad_one_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = issue(directory.path());
    let certificate = load(directory.path()).expect("usable");
    let (_supervisor, address) = serve(&certificate).await;
    assert_eq!(certificate.reload().expect("usable"), Reloaded::Same);
    drop(connect(address, &first, &[]).await.expect("trusted"));

    // A key without its certificate, half a certificate, no certificate at all.
    let (good, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
    let (old_certificate, old_key) = (std::fs::read(&good).expect("there"), std::fs::read(&key).expect("there"));
    std::fs::write(&key, KeyPair::generate().expect("a key").serialize_pem()).expect("written");
    assert!(matches!(certificate.reload(), Err(TlsError::Unusable(_))));
    assert_eq!(certificate.reload().expect("told once"), Reloaded::Same);
    std::fs::write(&key, &old_key).expect("written");
    std::fs::write(&good, &old_certificate[..old_certificate.len() / 2]).expect("written");
    certificate.reload().expect_err("half a certificate");
    std::fs::write(&good, "hello").expect("written");
    assert!(matches!(certificate.reload(), Err(TlsError::NoCertificate(_))));
    std::fs::remove_file(&good).expect("removed");
    assert!(matches!(certificate.reload(), Err(TlsError::Read { .. })));
    drop(connect(address, &first, &[]).await.expect("the old one still holds"));

    let second = issue(directory.path());
    assert_eq!(certificate.reload().expect("usable"), Reloaded::New);
    drop(connect(address, &second, &[]).await.expect("the new one"));
    connect(address, &first, &[]).await.expect_err("the old one is gone");
}

#[tokio::test]
async fn who_does_not_finish_the_handshake_loses_the_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let trusted = issue(directory.path());
    let (supervisor, address) = serve(&load(directory.path()).expect("usable")).await;
    for silent in [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut socket = TcpStream::connect(address).await.expect("listening");
        socket.write_all(silent).await.expect("connected");
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("the server closes");
        assert!(!rest.starts_with(b"HTTP"), "an answer without TLS");
    }
    // There is one slot: it is free again.
    drop(connect(address, &trusted, &[]).await.expect("trusted"));
    let _waiting = TcpStream::connect(address).await.expect("listening");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(supervisor.shutdown(PATIENCE).await, Ok(()), "also with a handshake open");
}

#[test]
fn what_is_wrong_is_told_without_the_key() {
    let directory = tempfile::tempdir().expect("a directory");
    issue(directory.path());
    let key = directory.path().join("tls.key");
    std::fs::write(&key, "hunter2").expect("written");
    let error = load(directory.path()).expect_err("no key").to_string();
    assert!(!error.contains("hunter2"), "{error}");
    std::fs::remove_file(&key).expect("removed");
    assert!(matches!(load(directory.path()), Err(TlsError::Secret(_))));
}
