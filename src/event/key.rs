//! Signing keys: ours, and those of other servers.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use ruma_common::{CanonicalJsonObject, OwnedServerName, ServerName};
use zeroize::Zeroizing;

use crate::json::{Json, Object};

/// Unpadded base64 as the spec writes it; reading accepts padding, because some servers send it.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64_CONFIG);
const BASE64_CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);

const ALGORITHM: &str = "ed25519";

/// This server's signing key (ed25519).
///
/// It signs events that [`crate::build()`] made, requests ([`crate::SignedRequest`]), keys of servers, and nothing else
/// from outside: there is no way to have it sign bytes that somebody else chose.
#[derive(Clone)]
pub struct SigningKey(Arc<KeyParts>);

struct KeyParts {
    key: ed25519_dalek::SigningKey,
    key_id: String,
}

/// A signing key's text that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `ed25519 <version> <base64>`.
    #[error("a signing key is one line: ed25519, a version, and the seed in base64")]
    Shape,
    /// The version has characters other than `[A-Za-z0-9_]`, or none.
    #[error("a signing key's version is made of letters, digits and underscores")]
    Version,
    /// Not 32 bytes of base64.
    #[error("a signing key's seed is 32 bytes in base64")]
    Seed,
}

impl SigningKey {
    /// The key with this seed, called `ed25519:<version>`.
    pub fn from_seed(seed: [u8; 32], version: &str) -> Result<Self, KeyError> {
        let seed = Zeroizing::new(seed);
        if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(KeyError::Version);
        }
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        Ok(Self(Arc::new(KeyParts { key, key_id: format!("{ALGORITHM}:{version}") })))
    }

    /// Reads `ed25519 <version> <unpadded base64 of the seed>`, with or without a line end.
    pub fn from_file_text(text: &str) -> Result<Self, KeyError> {
        let mut words = text.split_ascii_whitespace();
        let (Some(ALGORITHM), Some(version), Some(seed), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(KeyError::Shape);
        };
        let seed = Zeroizing::new(BASE64.decode(seed).map_err(|_| KeyError::Seed)?);
        Self::from_seed(seed.as_slice().try_into().map_err(|_| KeyError::Seed)?, version)
    }

    /// The text that [`Self::from_file_text`] reads, with a line end.
    pub fn to_file_text(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(self.0.key.to_bytes());
        let encoded = Zeroizing::new(BASE64.encode(seed.as_slice()));
        Zeroizing::new(format!("{ALGORITHM} {} {}\n", self.version(), encoded.as_str()))
    }

    /// `ed25519:<version>`.
    pub fn key_id(&self) -> &str {
        &self.0.key_id
    }

    /// The version, the part of the key ID after the colon.
    pub fn version(&self) -> &str {
        self.0.key_id.split_once(':').map_or("", |(_, version)| version)
    }

    /// The public key in unpadded base64.
    pub fn public_key_base64(&self) -> String {
        BASE64.encode(self.public_key())
    }

    /// The public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.0.key.verifying_key().to_bytes()
    }

    /// The signature of `message` in unpadded base64.
    pub(crate) fn sign(&self, message: &[u8]) -> String {
        BASE64.encode(self.0.key.sign(message).to_bytes())
    }

    /// `object` with this key's signature as `server` added to `signatures`.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/appendices/#signing-json>
    pub fn sign_server_keys(&self, server: &ServerName, object: CanonicalJsonObject) -> CanonicalJsonObject {
        let mut object = Object::from(object);
        let mut message = Vec::with_capacity(256);
        object.write_without(&["signatures", "unsigned"], &mut message);
        add_signature(&mut object, server, self.key_id(), self.sign(&message));
        object.try_into().unwrap_or_else(|_| unreachable!("a canonical object and a text stay canonical"))
    }
}

/// Adds `signature` to the `signatures` of `object`.
pub(crate) fn add_signature(object: &mut Object, server: &ServerName, key_id: &str, signature: String) {
    let take = |from: &mut Object, key: &str| match from.remove(key) {
        Some(Json::Object(inner)) => inner,
        _ => Object::default(),
    };
    let mut signatures = take(object, "signatures");
    let mut own = take(&mut signatures, server.as_str());
    own.insert(key_id, Json::Str(signature.into()));
    signatures.insert(server.as_str(), Json::Object(own));
    object.insert("signatures", Json::Object(signatures));
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.0.key_id).finish()
    }
}

/// Public keys of servers, as far as the caller trusts them.
#[derive(Clone, Debug, Default)]
pub struct PublicKeys(HashMap<OwnedServerName, HashMap<String, PublicKey>>);

#[derive(Clone, Debug)]
struct PublicKey {
    key: VerifyingKey,
    valid_until: u64,
}

impl PublicKeys {
    /// Adds the key `key_id` (`ed25519:…`) of `server`: 32 bytes in base64, good for events with an
    /// `origin_server_ts` up to `valid_until` (milliseconds).
    pub fn insert(&mut self, server: &ServerName, key_id: &str, key: &str, valid_until: u64) -> Result<(), KeyError> {
        if key_id.split_once(':').is_none_or(|(algorithm, _)| algorithm != ALGORITHM) {
            return Err(KeyError::Shape);
        }
        let key = VerifyingKey::from_bytes(&public_key_bytes(key)?).map_err(|_| KeyError::Seed)?;
        self.0.entry(server.to_owned()).or_default().insert(key_id.to_owned(), PublicKey { key, valid_until });
        Ok(())
    }

    /// Whether any key of `server` is known.
    pub fn knows(&self, server: &ServerName) -> bool {
        self.0.contains_key(server)
    }

    /// Whether `signature` is (key ID, base64) of `server` over `message`, by a key good at `time`.
    pub(crate) fn verify(&self, server: &ServerName, signature: (&str, &str), message: &[u8], time: u64) -> bool {
        let (key_id, signature) = signature;
        let known = self.0.get(server).and_then(|keys| keys.get(key_id));
        let Some(known) = known.filter(|known| time <= known.valid_until) else { return false };
        let Some(bytes) = BASE64.decode(signature).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok()) else {
            return false;
        };
        verify_bytes(&known.key, &bytes, message)
    }
}

/// The 32 bytes of a public key in base64, which may be written in several ways.
///
/// # Errors
/// If it is no base64 of 32 bytes.
pub fn public_key_bytes(base64: &str) -> Result<[u8; 32], KeyError> {
    let bytes = BASE64.decode(base64).map_err(|_| KeyError::Seed)?;
    bytes.try_into().map_err(|_| KeyError::Seed)
}

/// Strict verification: keys and points of small order are refused, as the other implementations do.
pub(crate) fn verify_bytes(key: &VerifyingKey, signature: &[u8; 64], message: &[u8]) -> bool {
    key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";

    #[test]
    fn reads_and_writes_the_key_file() {
        // The seed of the specification without the two bits that mean nothing.
        let text = format!("ed25519 1 {}\n", SEED.replace("XA1", "XA0"));
        let key = SigningKey::from_file_text(&text).unwrap();
        assert_eq!(key.to_file_text().as_str(), text);
        assert_eq!(key.key_id(), "ed25519:1");
        assert_eq!(key.version(), "1");
    }

    #[test]
    fn refuses_broken_key_files() {
        for (text, error) in [
            ("", KeyError::Shape),
            ("rsa 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", KeyError::Shape),
            ("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1 more", KeyError::Shape),
            ("ed25519 a:b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", KeyError::Version),
            ("ed25519 1 YJDBA9Xnr2sV", KeyError::Seed),
            ("ed25519 1 !!!", KeyError::Seed),
        ] {
            assert_eq!(SigningKey::from_file_text(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn never_prints_the_seed() {
        let key = SigningKey::from_file_text(&format!("ed25519 1 {SEED}")).unwrap();
        assert_eq!(format!("{key:?}"), r#"SigningKey("ed25519:1")"#);
    }
}
