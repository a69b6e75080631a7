//! Where to connect to, as text: a host and perhaps a port.
//!
//! What comes from another server's `.well-known` is read by the same rules as a server name, and a little more
//! strictly: nothing that other software would take for an address in disguise.
//!
//! Spec: <https://spec.matrix.org/v1.19/appendices/#server-name>

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

/// Bytes of a DNS name, and of one label.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A host and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Authority {
    pub host: Host,
    pub port: Option<NonZeroU16>,
}

/// Half of an [`Authority`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Ip(IpAddr),
    /// Without a final dot.
    Name(String),
}

impl Authority {
    /// `None`: this is no `host[:port]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']')?;
            let host = Host::Ip(address.parse::<Ipv6Addr>().ok()?.into());
            let port = if rest.is_empty() { None } else { Some(port(rest.strip_prefix(':')?)?) };
            return Some(Self { host, port });
        }
        let (name, port) = match text.split_once(':') {
            None => (text, None),
            Some((name, digits)) => (name, Some(port(digits)?)),
        };
        let host = match name.parse::<Ipv4Addr>() {
            Ok(address) => Host::Ip(address.into()),
            Err(_) => Host::Name(dns_name(name)?.to_owned()),
        };
        Some(Self { host, port })
    }
}

/// One to five digits, and not zero.
fn port(digits: &str) -> Option<NonZeroU16> {
    let form = (1..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    form.then(|| digits.parse().ok()).flatten()
}

fn dns_name(name: &str) -> Option<&str> {
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    // `127.1`, `2130706433` and `0x7f.1` are addresses to some.
    let digits = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X")).unwrap_or(last);
    let number = digits.bytes().all(|byte| byte.is_ascii_digit())
        || (digits.len() < last.len() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (name.len() <= MAX_NAME && name.split('.').all(label) && !number).then_some(name)
}

impl fmt::Display for Authority {
    /// As in a `Host` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V4(address)) => write!(f, "{address}")?,
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            Host::Name(name) => f.write_str(name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_and_ports_are_read() {
        for (text, host, port) in [
            ("example.org", "example.org", None),
            ("hs1", "hs1", None),
            ("Example.org:8448", "Example.org", Some(8448)),
            ("xn--bcher-kva.example:1", "xn--bcher-kva.example", Some(1)),
        ] {
            let expected = Authority { host: Host::Name(host.to_owned()), port: port.and_then(NonZeroU16::new) };
            assert_eq!(Authority::parse(text), Some(expected), "{text}");
        }
        for (text, host, port) in [
            ("1.2.3.4", "1.2.3.4", None),
            ("1.2.3.4:80", "1.2.3.4", Some(80)),
            ("[2001:db8::1]:9", "2001:db8::1", Some(9)),
        ] {
            let host = Host::Ip(host.parse().expect("an address"));
            let expected = Authority { host, port: port.and_then(NonZeroU16::new) };
            assert_eq!(Authority::parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            ":8448",
            "example.org:",
            "example.org:0",
            "example.org:65536",
            "example.org:+80",
            "example.org:8448:1",
            "example.org/path",
            "user@example.org",
            "user:secret@example.org",
            "exämple.org",
            "a..b",
            "..",
            ".a",
            "a.",
            "a b",
            "a_b",
            "-a.b",
            "a-.b",
            "::1",
            "[::1",
            "[::1]80",
            "[fe80::1%eth0]",
            "[1.2.3.4]",
            "127.1",
            "0x7f.1",
            "2130706433",
            "a.0x7f",
            "1.2.3.4.5",
            "https://example.org",
            "example.org?",
            "example.org#",
            "a\n",
        ] {
            assert_eq!(Authority::parse(text), None, "{text:?}");
        }
        assert_eq!(Authority::parse(&"a".repeat(64)), None);
        assert_eq!(Authority::parse(&"a.".repeat(130)), None);
    }

    proptest! {
        #[test]
        fn what_is_read_prints_as_it_was(text in "[a-z0-9.:\\[\\]-]{1,24}") {
            if let Some(read) = Authority::parse(&text) {
                prop_assert_eq!(Authority::parse(&read.to_string()), Some(read));
            }
        }
    }
}
