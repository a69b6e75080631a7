//! Places for connections: so many in all, and so many for one client.
//!
//! The problem: a connection costs its peer next to nothing, and an idle one lives for more than a minute. So one host
//! could hold all places, and nobody else would be served. What is over a client's share is closed as soon as it is
//! accepted. Proxies have no share, because everybody may be behind one; whoever comes through a Unix socket has none
//! either.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hearth_base::Network;
use hearth_client_api::{Peer, TrustedProxies};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of one or more listeners.
pub(crate) struct Slots {
    all: Arc<Semaphore>,
    shares: Option<Shares>,
}

struct Shares {
    most: usize,
    proxies: TrustedProxies,
    /// How many connections each client has; those that have none are not here, so there are never more entries than
    /// places.
    taken: Mutex<HashMap<Network, usize>>,
    warned: AtomicBool,
}

/// A place, until it is dropped.
pub(super) struct Slot {
    _one_of_all: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// One of the connections of a client.
struct Share {
    slots: Arc<Slots>,
    client: Network,
}

impl Slots {
    /// `all` places for whoever comes first.
    pub(crate) fn new(all: usize) -> Arc<Self> {
        Arc::new(Self { all: Arc::new(Semaphore::new(all)), shares: None })
    }

    /// `all` places, of which one client gets `most`, but never more than half; `proxies` may take all.
    pub(crate) fn shared(all: usize, most: usize, proxies: TrustedProxies) -> Arc<Self> {
        let most = most.min(all / 2).max(1);
        let shares = Shares { most, proxies, taken: Mutex::default(), warned: AtomicBool::new(false) };
        Arc::new(Self { all: Arc::new(Semaphore::new(all)), shares: Some(shares) })
    }

    /// Waits for a place that anybody can have.
    pub(super) async fn vacant(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.all).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Gives `place` to `peer`; `None`: it has its share already.
    pub(super) fn take(self: &Arc<Self>, place: OwnedSemaphorePermit, peer: Peer) -> Option<Slot> {
        let share = match (&self.shares, peer) {
            (Some(shares), Peer::Address(address)) if !shares.proxies.names(peer) => {
                let client = Network::of_client(address);
                if !shares.count(client) {
                    return None;
                }
                Some(Share { slots: Arc::clone(self), client })
            }
            _ => None,
        };
        Some(Slot { _one_of_all: place, _share: share })
    }
}

impl Shares {
    /// Counts one more connection, unless these are all that the client may have.
    fn count(&self, client: Network) -> bool {
        let mut taken = self.taken.lock();
        let connections = taken.entry(client).or_default();
        if *connections < self.most {
            *connections += 1;
            return true;
        }
        drop(taken);
        tracing::trace!(%client, "closing a connection over the client's share");
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %client,
                most = self.most,
                "a client has all the connections that rate_limits.address_connections allows: if it is your proxy, \
                 name it in listen.trusted_proxies"
            );
        }
        false
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(shares) = &self.slots.shares else { return };
        if let Entry::Occupied(mut connections) = shares.taken.lock().entry(self.client) {
            *connections.get_mut() -= 1;
            if *connections.get() == 0 {
                connections.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::routing::get;
    use hearth_base::Supervisor;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpSocket, TcpStream};
    use tokio::time::timeout;

    use super::super::tests::{PATIENCE, limits};
    use super::super::{HttpLimits, listen};
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::Address(text.parse().expect("an address"))
    }

    fn open(slots: &Arc<Slots>, peer: Peer) -> Option<Slot> {
        let place = Arc::clone(&slots.all).try_acquire_owned().expect("a place");
        slots.take(place, peer)
    }

    #[test]
    fn a_client_has_its_share_and_gets_it_back() {
        let slots = Slots::shared(100, 2, TrustedProxies::default());
        let first = open(&slots, peer("203.0.113.9")).expect("the first");
        let second = open(&slots, peer("::ffff:203.0.113.9")).expect("the second, of the same client");
        assert!(open(&slots, peer("203.0.113.9")).is_none());
        assert!(open(&slots, peer("203.0.113.10")).is_some(), "another client");
        drop(first);
        let third = open(&slots, peer("203.0.113.9")).expect("a place is free again");
        drop((second, third));
        assert_eq!(slots.shares.as_ref().expect("shares").taken.lock().len(), 0, "nobody is remembered");
        assert_eq!(slots.all.available_permits(), 100);
    }

    #[test]
    fn addresses_of_version_6_share_by_64_bits() {
        let slots = Slots::shared(100, 1, TrustedProxies::default());
        let _one = open(&slots, peer("2001:db8:0:1::1")).expect("the first");
        assert!(open(&slots, peer("2001:db8:0:1:ffff::2")).is_none());
        assert!(open(&slots, peer("2001:db8:0:2::1")).is_some());
    }

    #[test]
    fn proxies_and_unix_sockets_have_all() {
        let proxies = TrustedProxies { networks: vec!["10.0.0.0/8".parse().expect("a network")], local: false };
        let slots = Slots::shared(100, 1, proxies);
        let through = [peer("10.1.2.3"), peer("10.1.2.3"), Peer::Local, Peer::Local];
        let all: Vec<_> = through.into_iter().map(|peer| open(&slots, peer)).collect();
        assert!(all.iter().all(Option::is_some));
    }

    #[test]
    fn nobody_gets_more_than_half() {
        let slots = Slots::shared(4, 512, TrustedProxies::default());
        let all: Vec<_> = (0..3).map(|_| open(&slots, peer("203.0.113.9"))).collect();
        assert_eq!(all.iter().filter(|slot| slot.is_some()).count(), 2);
    }

    /// A request on a connection that stays open, from an address of this machine, and whether it was answered.
    async fn request(from: &str, to: SocketAddr) -> (TcpStream, bool) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(from.parse().expect("an address"), 0)).expect("bound");
        let mut socket = socket.connect(to).await.expect("listening");
        // Who is over the share may find the connection closed already, in either direction.
        let _ = socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let read = timeout(PATIENCE, socket.read(&mut [0])).await.expect("an answer, or an end");
        (socket, read.is_ok_and(|bytes| bytes > 0))
    }

    #[tokio::test]
    async fn who_holds_its_share_is_closed_and_others_are_served() {
        let supervisor = Supervisor::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let router = Router::new().route("/", get(async || "hello"));
        let slots = Slots::shared(10, 2, TrustedProxies::default());
        listen(&supervisor, listener.into(), router, HttpLimits { idle_deadline: 9 * PATIENCE, ..limits() }, slots);
        let held = [request("127.0.0.1", address).await, request("127.0.0.1", address).await];
        assert!(held.iter().all(|(_, answered)| *answered));
        assert!(!request("127.0.0.1", address).await.1, "its share is taken");
        assert!(request("127.0.0.2", address).await.1, "somebody else is served");
        drop(held);
        let served = async { while !request("127.0.0.1", address).await.1 {} };
        timeout(PATIENCE, served).await.expect("its share is free again");
    }
}
