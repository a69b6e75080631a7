//! Addresses that are not on the internet.

use crate::Network;

/// This machine, private networks, those for documentation and tests, and ways to write any of them differently
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>, and the same for IPv6).
const SPECIAL: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Networks that somebody else must not make this server connect to, unless its operator wants it.
pub fn special_networks() -> Vec<Network> {
    let networks = SPECIAL.iter().map(|text| text.parse());
    networks.collect::<Result<_, _>>().unwrap_or_else(|_| unreachable!("the list above is of networks"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_internet_is_not_special_and_the_rest_is() {
        let special = |address: &str| {
            let address = address.parse().expect("an address");
            special_networks().iter().any(|network| network.contains(address))
        };
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.127.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.0.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "fd00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(special(address), "{address}");
        }
        for address in
            ["1.1.1.1", "100.128.0.1", "172.32.0.1", "193.0.0.1", "2600::1", "::ffff:1.1.1.1", "2a00:1450::1"]
        {
            assert!(!special(address), "{address}");
        }
    }
}
