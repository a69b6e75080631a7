//! Whose address a request came from.
//!
//! Anybody can write `X-Forwarded-For`, so it counts only from peers that the operator has named, and
//! of its hops only those that such a peer has added: from the right, up to the first that is not a
//! named proxy itself. That one is the client. Loopback is nothing special.

use std::net::{IpAddr, SocketAddr};

use hearth_base::Network;
use http::{HeaderMap, HeaderName};

/// As a name, so that it is not parsed for every request.
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of a connection; listeners put it into the extensions of each request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on this machine, through a Unix socket.
    #[default]
    Local,
    /// An address.
    Address(IpAddr),
}

/// Who is believed when it says whose request it passes on.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    /// Peers with these addresses.
    pub networks: Vec<Network>,
    /// Whoever can open a Unix socket of this server.
    pub local: bool,
}

/// Where a request comes from, as far as it can be known: `None` is this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub Option<IpAddr>);

impl TrustedProxies {
    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// The client behind `peer`.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> ClientAddress {
        let mut nearest = match peer {
            Peer::Local if self.local => None,
            Peer::Address(address) if self.trusts(address) => Some(address.to_canonical()),
            Peer::Local => return ClientAddress(None),
            Peer::Address(address) => return ClientAddress(Some(address.to_canonical())),
        };
        for header in headers.get_all(&FORWARDED_FOR).iter().rev() {
            // What is no text is no address: the hops before it are nobody's word.
            let Ok(hops) = header.to_str() else { return ClientAddress(nearest) };
            for hop in hops.rsplit(',') {
                let Some(address) = parse(hop) else { return ClientAddress(nearest) };
                nearest = Some(address);
                if !self.trusts(address) {
                    return ClientAddress(nearest);
                }
            }
        }
        ClientAddress(nearest)
    }

    /// Whether the operator has named `peer`.
    pub fn names(&self, peer: Peer) -> bool {
        match peer {
            Peer::Local => self.local,
            Peer::Address(address) => self.trusts(address),
        }
    }

    /// Whether `peer` says that it passes on somebody's request, and is not believed.
    pub(super) fn ignores(&self, peer: Peer, headers: &HeaderMap) -> bool {
        !self.names(peer) && headers.contains_key(&FORWARDED_FOR)
    }
}

/// An address with or without a port, as proxies write them.
fn parse(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address: Option<IpAddr> = bare.parse().ok();
    let address = address.or_else(|| hop.parse::<SocketAddr>().ok().map(|both| both.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        TrustedProxies { networks: networks.iter().map(|text| text.parse().unwrap()).collect(), local: true }
    }

    fn client(proxies: &TrustedProxies, peer: &str, forwarded: &[&str]) -> Option<String> {
        let peer = if peer == "unix" { Peer::Local } else { Peer::Address(peer.parse().unwrap()) };
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(&FORWARDED_FOR, value.parse().unwrap());
        }
        proxies.client(peer, &headers).0.map(|address| address.to_string())
    }

    #[test]
    fn only_named_proxies_are_believed() {
        let nobody = TrustedProxies::default();
        assert_eq!(client(&nobody, "127.0.0.1", &["203.0.113.9"]).unwrap(), "127.0.0.1");
        assert_eq!(client(&nobody, "unix", &["203.0.113.9"]), None);
        let one = proxies(&["127.0.0.1"]);
        assert_eq!(client(&one, "127.0.0.1", &["203.0.113.9"]).unwrap(), "203.0.113.9");
        assert_eq!(client(&one, "::ffff:127.0.0.1", &["203.0.113.9"]).unwrap(), "203.0.113.9");
        assert_eq!(client(&one, "unix", &["203.0.113.9"]).unwrap(), "203.0.113.9");
        assert_eq!(client(&one, "198.51.100.1", &["203.0.113.9"]).unwrap(), "198.51.100.1");
    }

    #[test]
    fn the_client_is_the_rightmost_hop_that_is_no_proxy() {
        let two = proxies(&["127.0.0.1", "10.0.0.0/8"]);
        let cases: &[(&[&str], &str)] = &[
            (&["1.1.1.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            (&["1.1.1.1, 203.0.113.9", "10.0.0.2"], "203.0.113.9"),
            (&["203.0.113.9:4711"], "203.0.113.9"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["::ffff:203.0.113.9"], "203.0.113.9"),
            // A client may be in the proxies' own network.
            (&["10.0.0.7, 10.0.0.2"], "10.0.0.7"),
            // What cannot be read ends the chain: what is before it could have been written by anybody.
            (&["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["203.0.113.9, , 10.0.0.2"], "10.0.0.2"),
            (&["unknown"], "127.0.0.1"),
            (&[""], "127.0.0.1"),
            (&[], "127.0.0.1"),
        ];
        for (forwarded, wanted) in cases {
            assert_eq!(client(&two, "127.0.0.1", forwarded).unwrap(), *wanted, "{forwarded:?}");
        }
    }

    proptest! {
        /// Whatever a client writes before its own address changes nothing.
        #[test]
        fn what_the_client_wrote_does_not_count(lie in "[ -~]{0,40}", client_bits: u32) {
            let address = IpAddr::from(client_bits.to_be_bytes());
            let proxies = proxies(&["127.0.0.1"]);
            prop_assume!(address.to_string() != "127.0.0.1");
            let found = client(&proxies, "127.0.0.1", &[&format!("{lie}, {address}")]);
            prop_assert_eq!(found, Some(address.to_string()));
        }
    }
}
