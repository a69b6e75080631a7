//! The way to a server, which a test can cut and mend.
//!
//! Servers under test are named after a loopback address and a port where a gate listens. It passes bytes on to the
//! server, so that a partition of the network needs no rights on the machine, and a killed server keeps its port.

use std::net::SocketAddr;
use std::sync::LazyLock;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Passes connections on to one server while it is open.
pub struct Gate {
    address: SocketAddr,
    open: watch::Sender<bool>,
}

/// What outlives a single test, and its runtime, runs here.
pub(crate) fn background() -> &'static Runtime {
    static BACKGROUND: LazyLock<Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    });
    &BACKGROUND
}

/// Listens on a free port of `host`, a loopback address.
pub(crate) fn listen(host: &str) -> (TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind((host, 0)).expect("loopback has a free port");
    listener.set_nonblocking(true).expect("our own socket");
    let address = listener.local_addr().expect("a bound listener has an address");
    let _inside = background().enter();
    (TcpListener::from_std(listener).expect("a bound listener"), address)
}

impl Gate {
    /// Listens on a free port of `host` and passes on to `target`.
    pub fn open(host: &str, target: SocketAddr) -> Self {
        let (listener, address) = listen(host);
        let (open, state) = watch::channel(true);
        background().spawn(serve(listener, target, state));
        Self { address, open }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection and lets none through.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, mut open: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The gate is gone when nobody can cut it any more.
            Err(_) = open.wait_for(|_| false) => return,
        };
        let Ok((inner, _)) = accepted else { continue };
        if *open.borrow() {
            tokio::spawn(pass(inner, target, open.clone()));
        }
    }
}

async fn pass(mut inner: TcpStream, target: SocketAddr, mut open: watch::Receiver<bool>) {
    let Ok(mut outer) = TcpStream::connect(target).await else { return };
    // However the connection ends, both sides of it are closed by dropping them.
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
        _ = open.wait_for(|open| !open) => {}
    }
}
