//! Telling systemd how we are (`Type=notify`), when it asked to be told.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager's socket, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// From `$NOTIFY_SOCKET`.
    pub(crate) fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let address = match name.as_bytes().split_first() {
            Some((b'@', abstract_name)) => SocketAddr::from_abstract_name(abstract_name),
            _ => SocketAddr::from_pathname(&name),
        };
        let socket = UnixDatagram::unbound();
        match address.and_then(|address| Ok((socket?, address))) {
            Ok(both) => Self(Some(both)),
            Err(error) => {
                tracing::warn!(%error, "cannot reach the service manager");
                Self::default()
            }
        }
    }

    /// Requests are answered from now on.
    pub(crate) fn ready(&self) {
        self.send("READY=1\nSTATUS=Serving");
    }

    /// The shutdown has begun.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=Finishing requests");
    }

    /// Still alive.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.0
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::warn!(%error, "cannot tell the service manager");
        }
    }
}

/// How often systemd wants to hear that we are alive, halved as it advises.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_an_abstract_socket() {
        let name = format!("hearth-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("short");
        let manager = UnixDatagram::bind_addr(&address).expect("free");
        let notify = Notify(Some((UnixDatagram::unbound().expect("allowed"), address)));
        notify.ready();
        let mut buffer = [0; 100];
        let length = manager.recv(&mut buffer).expect("sent");
        assert_eq!(&buffer[..length], b"READY=1\nSTATUS=Serving");
    }
}
