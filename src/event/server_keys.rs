//! The keys that servers publish.

use std::collections::BTreeMap;

use base64::Engine as _;
use ruma_common::{CanonicalJsonObject, ServerName};

use crate::json::{Json, JsonError, JsonLimits, Object, Strictness, parse_object};
use crate::key::BASE64;
use crate::{KeyError, PublicKeys};

/// Bytes of the keys of one server.
pub const MAX_SERVER_KEYS_BYTES: usize = 64 << 10;
/// Keys that a server may sign with at the same time.
const MAX_VERIFY_KEYS: usize = 32;
/// Keys that it may have signed with before.
const MAX_OLD_VERIFY_KEYS: usize = 256;
const MAX_KEY_ID_BYTES: usize = 128;

/// What a server says of its keys, signed by one of them.
///
/// Spec: <https://spec.matrix.org/v1.19/server-server-api/#publishing-keys>
#[derive(Clone, Debug, PartialEq)]
pub struct ServerKeys {
    /// Key ID to key (unpadded base64) of those that it signs with. Only `ed25519`.
    pub verify_keys: BTreeMap<String, String>,
    /// Key ID to key and the last moment at which it signed, in milliseconds.
    pub old_verify_keys: BTreeMap<String, (String, u64)>,
    /// Ask again then, in milliseconds. Whoever trusts it must not do so for more than a week ahead.
    pub valid_until_ts: u64,
    object: Object,
}

/// Why an answer says nothing about a server's keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerKeysError {
    /// It is not JSON, or too much of it.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// It is of another server.
    #[error("these are the keys of another server")]
    OtherServer,
    /// A field is missing or wrong.
    #[error("{0} is missing or wrong")]
    Field(&'static str),
    /// There are more keys than anybody needs.
    #[error("there are too many keys")]
    TooMany,
    /// A key is no ed25519 key.
    #[error("the key {0:?} cannot be used")]
    Key(String),
    /// None of the keys that it signs with has signed it, or one that should have has not.
    #[error("the keys are not signed by the server that has them")]
    Signature,
}

/// The keys of `server` in `json`, if one of those that it signs with has signed them, and no other such has signed
/// anything else in their place.
///
/// # Errors
/// If they are not.
pub fn check_server_keys(json: &[u8], server: &ServerName) -> Result<ServerKeys, ServerKeysError> {
    let limits = JsonLimits { bytes: MAX_SERVER_KEYS_BYTES, depth: 16 };
    let object = parse_object(json, limits, Strictness::Canonical)?;
    if object.text("server_name") != Some(server.as_str()) {
        return Err(ServerKeysError::OtherServer);
    }
    let valid_until_ts = time(&object, "valid_until_ts")?;
    let verify_keys = objects(&object, "verify_keys", MAX_VERIFY_KEYS)?.ok_or(ServerKeysError::Field("verify_keys"))?;
    let mut keys = BTreeMap::new();
    for (key_id, about) in verify_keys {
        keys.insert(key_id.to_owned(), key(key_id, about)?);
    }
    let mut old_keys = BTreeMap::new();
    for (key_id, about) in objects(&object, "old_verify_keys", MAX_OLD_VERIFY_KEYS)?.unwrap_or_default() {
        // What it signs with now it has not stopped to sign with.
        if !keys.contains_key(key_id) {
            old_keys.insert(key_id.to_owned(), (key(key_id, about)?, time(about, "expired_ts")?));
        }
    }
    let mut trusted = PublicKeys::default();
    for (key_id, key) in &keys {
        trusted.insert(server, key_id, key, u64::MAX).map_err(|_: KeyError| ServerKeysError::Key(key_id.clone()))?;
    }
    for (key_id, (key, _)) in &old_keys {
        let mut scratch = PublicKeys::default();
        scratch.insert(server, key_id, key, 0).map_err(|_: KeyError| ServerKeysError::Key(key_id.clone()))?;
    }
    let read = ServerKeys { verify_keys: keys, old_verify_keys: old_keys, valid_until_ts, object };
    let signed = read.signatures_by(server).filter(|(key_id, _)| read.verify_keys.contains_key(*key_id));
    let verdicts: Vec<bool> = signed.map(|signature| trusted.verify(server, signature, &read.message(), 0)).collect();
    if verdicts.is_empty() || verdicts.contains(&false) {
        return Err(ServerKeysError::Signature);
    }
    Ok(read)
}

impl ServerKeys {
    /// Whether `notary` has signed this with one of `keys` that is good at `now` (milliseconds).
    pub fn is_signed_by(&self, notary: &ServerName, keys: &PublicKeys, now: u64) -> bool {
        let message = self.message();
        self.signatures_by(notary).any(|signature| keys.verify(notary, signature, &message, now))
    }

    /// The IDs of the keys with which `server` has signed this, or says so.
    pub fn key_ids_of(&self, server: &ServerName) -> Vec<String> {
        self.signatures_by(server).map(|(key_id, _)| key_id.to_owned()).collect()
    }

    /// The object, to be stored or to be signed by a notary.
    pub fn into_object(self) -> CanonicalJsonObject {
        self.object.try_into().unwrap_or_else(|_| unreachable!("it was parsed as canonical"))
    }

    /// (key ID, signature) by `server`.
    fn signatures_by(&self, server: &ServerName) -> impl Iterator<Item = (&str, &str)> {
        let own = self.object.get("signatures").and_then(Json::as_object);
        let own = own.and_then(|all| all.get(server.as_str())).and_then(Json::as_object);
        let own = own.into_iter().flat_map(Object::iter);
        own.filter_map(|(key_id, signature)| Some((key_id, signature.as_str()?)))
    }

    fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(512);
        self.object.write_without(&["signatures", "unsigned"], &mut message);
        message
    }
}

fn time(object: &Object, field: &'static str) -> Result<u64, ServerKeysError> {
    match object.get(field) {
        Some(Json::Int(time)) => u64::try_from(*time).map_err(|_| ServerKeysError::Field(field)),
        _ => Err(ServerKeysError::Field(field)),
    }
}

type Entries<'a> = Vec<(&'a str, &'a Object)>;

/// The ed25519 keys in `field`. Keys of other algorithms are nothing to us.
fn objects<'a>(object: &'a Object, field: &'static str, most: usize) -> Result<Option<Entries<'a>>, ServerKeysError> {
    let Some(value) = object.get(field) else { return Ok(None) };
    let entries = value.as_object().ok_or(ServerKeysError::Field(field))?.iter();
    let mut found = Vec::new();
    for (key_id, about) in entries.filter(|(key_id, _)| key_id.starts_with("ed25519:")) {
        if found.len() >= most {
            return Err(ServerKeysError::TooMany);
        }
        found.push((key_id, about.as_object().ok_or(ServerKeysError::Field(field))?));
    }
    Ok(Some(found))
}

/// The key in its one form: base64 without padding.
fn key(key_id: &str, about: &Object) -> Result<String, ServerKeysError> {
    let wrong = || ServerKeysError::Key(key_id.chars().take(MAX_KEY_ID_BYTES).collect());
    let text = about.text("key").filter(|_| key_id.len() <= MAX_KEY_ID_BYTES).ok_or_else(wrong)?;
    Ok(BASE64.encode(BASE64.decode(text).map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use ruma_common::server_name;
    use serde_json::{Value, json};

    use super::*;
    use crate::{JsonLimits, SigningKey, parse_canonical_object};

    fn signing_key(seed: u8, version: &str) -> SigningKey {
        SigningKey::from_seed([seed; 32], version).expect("a key")
    }

    fn signed(object: &Value, keys: &[&SigningKey]) -> Vec<u8> {
        let limits = JsonLimits { bytes: usize::MAX, depth: 64 };
        let mut object = parse_canonical_object(object.to_string().as_bytes(), limits).expect("an object");
        for key in keys {
            object = key.sign_server_keys(server_name!("a.example"), object);
        }
        crate::canonical_json(&object)
    }

    fn of(keys: &[&SigningKey]) -> Value {
        let verify_keys: serde_json::Map<_, _> =
            keys.iter().map(|key| (key.key_id().to_owned(), json!({ "key": key.public_key_base64() }))).collect();
        json!({ "server_name": "a.example", "verify_keys": verify_keys, "valid_until_ts": 5000 })
    }

    #[test]
    fn keys_that_the_server_has_signed_are_taken() {
        let (new, old) = (signing_key(1, "new"), signing_key(2, "old"));
        let mut object = of(&[&new]);
        object["old_verify_keys"] =
            json!({ "ed25519:old": { "key": old.public_key_base64() + "=", "expired_ts": 17 }, "ed448:x": 7 });
        let keys = check_server_keys(&signed(&object, &[&new, &old]), server_name!("a.example")).expect("signed");
        assert_eq!(keys.verify_keys, BTreeMap::from([("ed25519:new".to_owned(), new.public_key_base64())]));
        assert_eq!(keys.old_verify_keys["ed25519:old"], (old.public_key_base64(), 17));
        assert_eq!(keys.valid_until_ts, 5000);
    }

    #[test]
    fn what_the_server_has_not_signed_is_not_taken() {
        let (new, old) = (signing_key(1, "new"), signing_key(2, "old"));
        let server = server_name!("a.example");
        let check = |bytes: &[u8]| check_server_keys(bytes, server).map(drop);
        let good = signed(&of(&[&new]), &[&new]);
        assert_eq!(check_server_keys(&good, server_name!("b.example")).map(drop), Err(ServerKeysError::OtherServer));
        assert_eq!(check(&signed(&of(&[&new]), &[])), Err(ServerKeysError::Signature), "unsigned");
        let mut retired = of(&[&new]);
        retired["old_verify_keys"] = json!({ "ed25519:old": { "key": old.public_key_base64(), "expired_ts": 17 } });
        assert_eq!(check(&signed(&retired, &[&old])), Err(ServerKeysError::Signature), "by an old key only");
        let impostor = signing_key(3, "new");
        assert_eq!(check(&signed(&of(&[&new]), &[&impostor])), Err(ServerKeysError::Signature), "by another key");
        let altered = String::from_utf8(good).expect("text").replace("5000", "5001");
        assert_eq!(check(altered.as_bytes()), Err(ServerKeysError::Signature), "altered");
    }

    #[test]
    fn there_are_bounds() {
        let new = signing_key(1, "new");
        let server = server_name!("a.example");
        let mut many = of(&[&new]);
        for n in 0..40 {
            many["verify_keys"][format!("ed25519:{n}")] = json!({ "key": new.public_key_base64() });
        }
        assert_eq!(check_server_keys(&signed(&many, &[&new]), server), Err(ServerKeysError::TooMany));
        let mut large = of(&[&new]);
        large["more"] = json!("x".repeat(MAX_SERVER_KEYS_BYTES));
        let error = check_server_keys(&signed(&large, &[&new]), server).expect_err("too large");
        assert!(matches!(error, ServerKeysError::Json(JsonError::TooLarge { .. })), "{error}");
        for (field, wrong) in [("verify_keys", json!(7)), ("valid_until_ts", json!("5000")), ("verify_keys", json!({}))]
        {
            let mut object = of(&[&new]);
            object[field] = wrong;
            check_server_keys(&signed(&object, &[&new]), server).expect_err(field);
        }
        let mut short = of(&[&new]);
        short["verify_keys"]["ed25519:new"]["key"] = json!("AAAA");
        assert_eq!(
            check_server_keys(&signed(&short, &[&new]), server),
            Err(ServerKeysError::Key("ed25519:new".to_owned()))
        );
    }

    #[test]
    fn a_notary_is_known_by_its_own_keys() {
        let (new, notary) = (signing_key(1, "new"), signing_key(4, "n"));
        let limits = JsonLimits { bytes: usize::MAX, depth: 64 };
        let object = parse_canonical_object(&signed(&of(&[&new]), &[&new]), limits).expect("an object");
        let object = notary.sign_server_keys(server_name!("n.example"), object);
        let bytes = crate::canonical_json(&object);
        let keys = check_server_keys(&bytes, server_name!("a.example")).expect("signed");
        let mut of_notary = PublicKeys::default();
        of_notary.insert(server_name!("n.example"), "ed25519:n", &notary.public_key_base64(), 10).expect("a key");
        assert!(keys.is_signed_by(server_name!("n.example"), &of_notary, 10));
        assert!(!keys.is_signed_by(server_name!("n.example"), &of_notary, 11));
        assert!(!keys.is_signed_by(server_name!("a.example"), &of_notary, 10));
        assert_eq!(keys.into_object(), object);
    }
}
