//! Ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that begin alike; reads and prints as `10.0.0.0/8`, or as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

/// Text that is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an address or a range of addresses, such as \"127.0.0.1\" or \"10.0.0.0/8\"")]
pub struct NetworkError;

impl Network {
    /// What counts as one client: an IPv4 address, or all IPv6 addresses that share the first 64 bits, because one
    /// household has them all.
    pub fn of_client(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let prefix = bits(address).min(64);
        Self { first: start(address, prefix), prefix }
    }

    /// Whether `address` is in the range. An IPv4 address written as IPv6 (`::ffff:…`) is the former.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && start(address, self.prefix) == self.first
    }
}

/// `address` with everything behind its first `prefix` bits cleared.
fn start(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == bits(self.first) {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}/{}", self.first, self.prefix)
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Bits behind the prefix must be zero: whoever writes them means something else.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.trim().split_once('/') {
            None => (text.trim(), None),
            Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| NetworkError)?)),
        };
        let first: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let prefix = prefix.unwrap_or_else(|| bits(first));
        let right = prefix <= bits(first) && start(first, prefix) == first;
        right.then_some(Self { first, prefix }).ok_or(NetworkError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().expect("a range").contains(address.parse().expect("an address"))
    }

    #[test]
    fn a_range_has_its_addresses_and_no_others() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(!contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!contains("::/0", "10.0.0.1"));
        assert!(contains("::1", "::1"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for wrong in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.1/8", "10.0.0.0/", "10.0.0/8", "1.2.3.4:80"] {
            assert_eq!(wrong.parse::<Network>(), Err(NetworkError), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_range_reads_as_it_prints(address: u128, prefix in 0_u8..=128) {
            let first = start(Ipv6Addr::from_bits(address).into(), prefix);
            let network = Network { first, prefix };
            prop_assert_eq!(network.to_string().parse(), Ok(network));
        }
    }
}
