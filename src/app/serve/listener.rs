//! Where connections come from: a TCP port, with or without TLS, or a Unix socket.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hearth_client_api::Peer;
use hearth_settings::{Address, FileMode};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

/// A bound address.
pub(crate) struct Listener {
    socket: Socket,
    tls: Option<TlsAcceptor>,
}

enum Socket {
    Tcp(TcpListener),
    /// The file goes first, while somebody still listens: then a new server cannot find it dead, put
    /// its own there and lose that to us.
    Unix {
        _file: SocketFile,
        listener: UnixListener,
    },
}

/// A socket's file, removed with its listener.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the socket");
        }
    }
}

/// An accepted connection.
pub(super) enum Accepted {
    Tcp(TcpStream, Peer),
    Unix(UnixStream),
    /// The handshake is still to come.
    Tls(TcpStream, Peer, TlsAcceptor),
}

impl Accepted {
    /// The other end.
    pub(super) const fn peer(&self) -> Peer {
        match self {
            Self::Tcp(_, peer) | Self::Tls(_, peer, _) => *peer,
            Self::Unix(_) => Peer::Local,
        }
    }
}

impl Listener {
    /// Listens on `address`; `mode` is that of a Unix socket's file.
    ///
    /// # Errors
    /// `AddrInUse` if somebody else does.
    pub(crate) async fn bind(address: &Address, mode: FileMode) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => Socket::Tcp(TcpListener::bind(address).await?),
            Address::Unix(path) => bind_unix(path, mode).await?,
        };
        Ok(Self { socket, tls: None })
    }

    /// The same speaking TLS. Unix sockets do not: nobody is between their ends.
    pub(crate) fn with_tls(self, tls: TlsAcceptor) -> Self {
        Self { tls: Some(tls), ..self }
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                // Answers are written whole: waiting for more to send would only delay them.
                let _ = socket.set_nodelay(true);
                let peer = Peer::Address(address.ip());
                Ok(match &self.tls {
                    None => Accepted::Tcp(socket, peer),
                    Some(tls) => Accepted::Tls(socket, peer, tls.clone()),
                })
            }
            Socket::Unix { listener, .. } => listener.accept().await.map(|(socket, _)| Accepted::Unix(socket)),
        }
    }
}

#[cfg(test)]
impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { socket: Socket::Tcp(listener), tls: None }
    }
}

async fn bind_unix(path: &Path, mode: FileMode) -> io::Result<Socket> {
    let listener = match UnixListener::bind(path) {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !is_dead(path).await? {
                return Err(error);
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        Err(error) => return Err(error),
    };
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(mode.0))?;
    Ok(Socket::Unix { _file: file, listener })
}

/// Whether `path` is a socket that a server has left behind: one that refuses connections.
async fn is_dead(path: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    match UnixStream::connect(path).await {
        Ok(_) => Ok(false),
        Err(error) => Ok(error.kind() == io::ErrorKind::ConnectionRefused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: FileMode = FileMode(0o660);

    async fn refusal(address: &Address) -> io::ErrorKind {
        match Listener::bind(address, MODE).await {
            Ok(_) => panic!("bound"),
            Err(error) => error.kind(),
        }
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("hearth.sock");
        let address = Address::Unix(path.clone());
        // The standard library does not remove the file, as a killed server does not.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        let listener = Listener::bind(&address, MODE).await.expect("the old one is dead");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o660);
        assert_eq!(refusal(&address).await, io::ErrorKind::AddrInUse);
        assert!(path.exists(), "the other's socket is left alone");
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        fs::write(&path, "data").expect("written");
        assert_eq!(refusal(&Address::Unix(path.clone())).await, io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).expect("still there"), "data");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        assert_eq!(refusal(&Address::Unix(link.clone())).await, io::ErrorKind::AddrInUse);
        assert!(link.exists());
    }
}
