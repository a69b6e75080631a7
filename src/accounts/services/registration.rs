//! One registration: what an operator writes into a file for a service
//! ([spec](https://spec.matrix.org/v1.19/application-service-api/#registration)).
//!
//! The file holds two secrets. So no error here quotes a value; it names the key.

use hearth_base::Secret;
use ruma_common::{OwnedUserId, ServerName};
use serde_json::{Map, Value};

use super::{Claim, Namespaces, RateLimit, Service};
use crate::{names, token};

/// Bytes of an ID, a URL or a protocol.
const MAX_TEXT_BYTES: usize = 1024;
/// Bytes of a token at the least: a shorter one could be guessed.
const MIN_TOKEN_BYTES: usize = 16;
/// Bytes of a token at the most: it comes in the head of each request.
const MAX_TOKEN_BYTES: usize = 1024;
/// Protocols that one service may name.
const MAX_PROTOCOLS: usize = 64;

/// What is wrong with a registration. The words tell what to do and hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The document is something else.
    #[error("must be a list of keys and values, such as \"id: my-bridge\"")]
    NotAMap,
    /// A key is not there.
    #[error("\"{0}\" is missing")]
    Missing(&'static str),
    /// A value is of another type.
    #[error("\"{0}\" must be {1}")]
    WrongType(&'static str, &'static str),
    /// A text is empty or too long.
    #[error("\"{0}\" must have 1 to {MAX_TEXT_BYTES} bytes")]
    BadLength(&'static str),
    /// A token is too short, too long, or cannot be sent in a header.
    #[error(
        "\"{0}\" must have {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES} characters that cannot be guessed, of ASCII and \
         without white space: for example the output of \"openssl rand -hex 32\""
    )]
    BadToken(&'static str),
    /// The token looks like one that this server makes for its users.
    #[error("\"as_token\" has the form of a user's token: choose another, for example with \"openssl rand -hex 32\"")]
    TokenOfUser,
    /// The URL is none.
    #[error("\"url\" must begin with http:// or https://, or be null")]
    BadUrl,
    /// The sender's name cannot be a user's.
    #[error("\"sender_localpart\": {0}")]
    BadSender(&'static str),
    /// There are too many.
    #[error("\"namespaces.{0}\" has too many entries")]
    TooManyNamespaces(&'static str),
    /// An expression is wrong; they count from 1.
    #[error("\"namespaces.{kind}\", entry {number}, \"regex\": {why}")]
    BadExpression { kind: &'static str, number: usize, why: String },
    /// There are too many protocols.
    #[error("\"protocols\" has more than {MAX_PROTOCOLS} entries")]
    TooManyProtocols,
}

impl Service {
    /// Reads a registration of a service of the server `server_name`. Keys that are not known are
    /// skipped: proposals add some.
    ///
    /// # Errors
    /// If the service cannot be served so.
    pub fn from_registration(document: &Value, server_name: &ServerName) -> Result<Self, RegistrationError> {
        let map = document.as_object().ok_or(RegistrationError::NotAMap)?;
        let id = short(map, "id")?;
        let as_token = token_at(map, "as_token")?;
        if token::is_reserved(as_token.expose()) {
            return Err(RegistrationError::TokenOfUser);
        }
        let namespaces = required(map, "namespaces")?;
        let Value::Object(namespaces) = namespaces else {
            return Err(RegistrationError::WrongType("namespaces", "a map of \"users\", \"aliases\" and \"rooms\""));
        };
        Ok(Self {
            url: url(map)?,
            hs_token: token_at(map, "hs_token")?,
            sender: sender(&short(map, "sender_localpart")?, server_name)?,
            users: list(namespaces, "users")?,
            aliases: list(namespaces, "aliases")?,
            rooms: list(namespaces, "rooms")?,
            rate_limit: match flag(map, "rate_limited")? {
                Some(false) => RateLimit::Lifted,
                Some(true) | None => RateLimit::AsUsers,
            },
            protocols: protocols(map)?,
            receives_ephemeral: flag(map, "receive_ephemeral")?.unwrap_or(false),
            // No device has such an ID (see `check_device`).
            client_name: format!("\0service {id}"),
            as_token,
            id,
        })
    }
}

fn required<'a>(map: &'a Map<String, Value>, key: &'static str) -> Result<&'a Value, RegistrationError> {
    map.get(key).ok_or(RegistrationError::Missing(key))
}

fn text<'a>(map: &'a Map<String, Value>, key: &'static str) -> Result<&'a str, RegistrationError> {
    required(map, key)?.as_str().ok_or(RegistrationError::WrongType(key, "a text: put it in quotes"))
}

fn short(map: &Map<String, Value>, key: &'static str) -> Result<String, RegistrationError> {
    let text = text(map, key)?;
    let fits = !text.is_empty() && text.len() <= MAX_TEXT_BYTES;
    if fits { Ok(text.to_owned()) } else { Err(RegistrationError::BadLength(key)) }
}

fn flag(map: &Map<String, Value>, key: &'static str) -> Result<Option<bool>, RegistrationError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(RegistrationError::WrongType(key, "true or false")),
    }
}

fn token_at(map: &Map<String, Value>, key: &'static str) -> Result<Secret<String>, RegistrationError> {
    let token = text(map, key)?;
    let is_one =
        (MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    if is_one { Ok(Secret::new(token.to_owned())) } else { Err(RegistrationError::BadToken(key)) }
}

/// `null` and an empty one mean that the service is sent nothing.
fn url(map: &Map<String, Value>) -> Result<Option<String>, RegistrationError> {
    match required(map, "url")? {
        Value::Null => Ok(None),
        Value::String(url) if url.is_empty() => Ok(None),
        Value::String(url) if url.len() > MAX_TEXT_BYTES => Err(RegistrationError::BadLength("url")),
        Value::String(url) => {
            let parsed = url::Url::parse(url).map_err(|_| RegistrationError::BadUrl)?;
            let has_host = matches!(parsed.scheme(), "http" | "https") && parsed.has_host();
            if has_host { Ok(Some(url.clone())) } else { Err(RegistrationError::BadUrl) }
        }
        _ => Err(RegistrationError::WrongType("url", "a text or null")),
    }
}

fn sender(localpart: &str, server_name: &ServerName) -> Result<OwnedUserId, RegistrationError> {
    if localpart.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(RegistrationError::BadSender("a user name has no capital letters"));
    }
    names::registrable_by_service(localpart, server_name).map_err(|why| RegistrationError::BadSender(why.reason()))
}

/// The namespaces of one kind; none if the key is not there.
fn list(namespaces: &Map<String, Value>, kind: &'static str) -> Result<Namespaces, RegistrationError> {
    let entries = match namespaces.get(kind) {
        None | Some(Value::Null) => return Ok(Namespaces::default()),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(RegistrationError::WrongType(kind, "a list")),
    };
    let entry = |entry: &Value| {
        let map =
            entry.as_object().ok_or(RegistrationError::WrongType(kind, "a list of \"exclusive\" and \"regex\""))?;
        let claim = match flag(map, "exclusive")? {
            Some(true) => Claim::Exclusive,
            Some(false) => Claim::Shared,
            None => return Err(RegistrationError::Missing("exclusive")),
        };
        Ok((text(map, "regex")?.to_owned(), claim))
    };
    Namespaces::compile(kind, entries.iter().map(entry).collect::<Result<_, _>>()?)
}

fn protocols(map: &Map<String, Value>) -> Result<Vec<String>, RegistrationError> {
    let wrong = || RegistrationError::WrongType("protocols", "a list of texts");
    let entries = match map.get("protocols") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(entries)) if entries.len() > MAX_PROTOCOLS => {
            return Err(RegistrationError::TooManyProtocols);
        }
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(wrong()),
    };
    let entry = |entry: &Value| match entry.as_str() {
        Some(name) if !name.is_empty() && name.len() <= MAX_TEXT_BYTES => Ok(name.to_owned()),
        Some(_) => Err(RegistrationError::BadLength("protocols")),
        None => Err(wrong()),
    };
    entries.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use ruma_common::server_name;
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "id": "irc", "url": "http://127.0.0.1:9000", "as_token": "as-0123456789abcdef",
            "hs_token": "hs-0123456789abcdef", "sender_localpart": "_irc_bot", "rate_limited": false,
            "namespaces": {"users": [{"exclusive": true, "regex": "@_irc_.*"}], "rooms": [], "aliases": []},
            "protocols": ["irc"], "push_ephemeral": true, "org.matrix.msc3202": {"x": [1]},
        })
    }

    fn read(document: &Value) -> Result<Service, RegistrationError> {
        Service::from_registration(document, server_name!("hs.test"))
    }

    fn with(key: &str, value: Value) -> RegistrationError {
        let mut document = good();
        match key.split_once('.') {
            None => document[key] = value,
            Some((outer, inner)) => document[outer][inner] = value,
        }
        read(&document).unwrap_err()
    }

    #[test]
    fn a_registration_is_read_and_unknown_keys_are_skipped() {
        let service = read(&good()).unwrap();
        assert_eq!((service.id(), service.url()), ("irc", Some("http://127.0.0.1:9000")));
        assert_eq!(service.sender(), "@_irc_bot:hs.test");
        assert_eq!(service.rate_limit, RateLimit::Lifted);
        assert_eq!(service.protocols(), ["irc"]);
        assert!(service.users().contains_exclusively("@_irc_x:hs.test"));
        let mut silent = good();
        silent["url"] = Value::Null;
        silent.as_object_mut().unwrap().remove("rate_limited");
        let service = read(&silent).unwrap();
        assert_eq!((service.url(), service.rate_limit), (None, RateLimit::AsUsers));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_and_not_quoted() {
        assert_eq!(read(&json!([])).unwrap_err(), RegistrationError::NotAMap);
        for key in ["id", "url", "as_token", "hs_token", "sender_localpart", "namespaces"] {
            let mut document = good();
            document.as_object_mut().unwrap().remove(key);
            assert_eq!(read(&document).unwrap_err(), RegistrationError::Missing(key), "{key}");
        }
        for key in ["as_token", "hs_token"] {
            for weak in [json!(""), json!("short-secret"), json!("has white space in it"), json!("é".repeat(20))] {
                assert_eq!(with(key, weak.clone()), RegistrationError::BadToken(key), "{weak}");
            }
            let number = with(key, json!(1_234_567_890_123_456_789_u64));
            assert!(!number.to_string().contains("1234"), "{number}");
        }
        let of_user = token::generate(&hearth_base::SeededRandom::new(1));
        assert_eq!(with("as_token", json!(of_user)), RegistrationError::TokenOfUser);
        for url in ["", "ftp://x", "localhost:9000", "http://"] {
            let read = {
                let mut document = good();
                document["url"] = json!(url);
                read(&document)
            };
            assert_eq!(read.err(), (!url.is_empty()).then_some(RegistrationError::BadUrl), "{url}");
        }
        for name in ["a b", "Bot", "@bot", "a:b"] {
            assert!(matches!(with("sender_localpart", json!(name)), RegistrationError::BadSender(_)), "{name}");
        }
        assert_eq!(with("id", json!("")), RegistrationError::BadLength("id"));
        for (key, value) in [
            ("id", json!(1)),
            ("rate_limited", json!("no")),
            ("namespaces", json!([])),
            ("namespaces.users", json!({})),
            ("namespaces.users", json!(["@x"])),
            ("protocols", json!("irc")),
        ] {
            assert!(matches!(with(key, value), RegistrationError::WrongType(..)), "{key}");
        }
        assert_eq!(with("namespaces.users", json!([{"regex": "x"}])), RegistrationError::Missing("exclusive"));
        assert_eq!(with("namespaces.aliases", json!([{"exclusive": true}])), RegistrationError::Missing("regex"));
    }
}
