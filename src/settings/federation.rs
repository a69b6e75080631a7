//! Types of settings about other servers.

use hearth_base::{Millis, Network};

use crate::value::{Raw, Setting, quoted};

impl Setting for Network {
    const KIND: &'static str = "addresses or ranges of addresses (`\"10.0.0.0/8\"`)";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text()?.trim();
        text.parse().map_err(|error| format!("\"{text}\": {error}"))
    }
    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// A key that the server signed with before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldSigningKey {
    /// Its ID: `ed25519:` and a version.
    pub key_id: String,
    /// The public key in base64.
    pub key: String,
    /// When it signed last.
    pub expired_ts: Millis,
}

impl Setting for OldSigningKey {
    const KIND: &'static str = "list of `\"key-id public-key milliseconds\"`";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text()?;
        let expected = || {
            let example = "\"ed25519:k1 VGhpcyBzaG91bGQgYmUgYSByZWFsIGVkMjU1MTkgcGF5bG9hZA 1767225600000\"";
            format!("\"{text}\" is no old signing key, such as {example}")
        };
        let mut words = text.split_whitespace();
        let (Some(key_id), Some(key), Some(expired), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(expected());
        };
        let version = key_id.strip_prefix("ed25519:").unwrap_or_default();
        let is_version =
            !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        // 32 bytes in base64; whether they are a key is seen when the server starts.
        let is_key = key.trim_end_matches('=').len() == 43;
        let expired: u64 = expired.parse().map_err(|_| expected())?;
        if !is_version || !is_key || expired >= 1 << 53 {
            return Err(expected());
        }
        let key = key.trim_end_matches('=').to_owned();
        Ok(Self { key_id: key_id.to_owned(), key, expired_ts: Millis(expired) })
    }
    fn to_toml(&self) -> String {
        quoted(&format!("{} {} {}", self.key_id, self.key, self.expired_ts.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "VGhpcyBzaG91bGQgYmUgYSByZWFsIGVkMjU1MTkgcGF5";

    #[test]
    fn an_old_key_is_three_words() {
        let key = &KEY[..43];
        let text = format!("ed25519:k1 {key} 1767225600000");
        let read = OldSigningKey::read(&Raw::Text(text.clone())).expect("a key");
        assert_eq!(read.expired_ts, Millis(1_767_225_600_000));
        assert_eq!(read.to_toml(), format!("\"{text}\""));
        for wrong in [
            String::new(),
            format!("ed25519:k1 {key}"),
            format!("ed25519:k1 {key} 1 2"),
            format!("k1 {key} 1"),
            format!("ed25519: {key} 1"),
            format!("ed25519:k-1 {key} 1"),
            format!("ed25519:k1 {KEY} 1"),
            format!("ed25519:k1 {key} soon"),
            format!("ed25519:k1 {key} 9007199254740992"),
        ] {
            OldSigningKey::read(&Raw::Text(wrong.clone())).expect_err(&wrong);
        }
    }

    #[test]
    fn networks_are_read_as_they_print() {
        let read = Network::read(&Raw::Word(" 10.0.0.0/8 ".into())).expect("a network");
        assert_eq!(read.to_toml(), "\"10.0.0.0/8\"");
        let wrong = Network::read(&Raw::Text("10.0.0.1/8".into())).expect_err("bits behind the prefix");
        assert!(wrong.contains("10.0.0.1/8"), "{wrong}");
    }
}
