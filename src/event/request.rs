//! Signatures on requests between servers.

use ruma_common::{OwnedServerName, ServerName};

use crate::json::{JsonError, JsonLimits, Strictness, parse_object, write_string};
use crate::{PublicKeys, SigningKey};

/// The event in a transaction may be as deep as events are.
const LIMITS: JsonLimits = JsonLimits { bytes: usize::MAX, depth: 128 };

/// A request from one server to another, as far as it is signed.
///
/// Spec: <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// Path and query, byte by byte as they are sent.
    pub uri: &'a str,
    /// Who sends it.
    pub origin: &'a ServerName,
    /// For whom it is; servers older than v1.3 of the spec do not say.
    pub destination: Option<&'a ServerName>,
    /// The body, a JSON object; `None`: there is none.
    pub content: Option<&'a [u8]>,
}

impl SignedRequest<'_> {
    /// The signature of `key`, in unpadded base64.
    ///
    /// # Errors
    /// If the body is no JSON object.
    pub fn sign(&self, key: &SigningKey) -> Result<String, JsonError> {
        Ok(key.sign(&self.message()?))
    }

    /// The request in the form that is signed, made once however many signatures there are.
    ///
    /// # Errors
    /// If the body is no JSON object.
    pub fn signed_form(&self) -> Result<SignedForm, JsonError> {
        Ok(SignedForm { origin: self.origin.to_owned(), message: self.message()? })
    }

    /// The canonical JSON that is signed. Numbers are those of the sender: rooms of old versions have such that
    /// canonical JSON does not know.
    fn message(&self) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::with_capacity(self.content.map_or(0, <[u8]>::len).saturating_add(512));
        out.push(b'{');
        if let Some(content) = self.content {
            out.extend_from_slice(b"\"content\":");
            parse_object(content, LIMITS, Strictness::Lenient)?.write(&mut out);
            out.push(b',');
        }
        if let Some(destination) = self.destination {
            text(&mut out, "destination", destination.as_str());
            out.push(b',');
        }
        text(&mut out, "method", self.method);
        out.push(b',');
        text(&mut out, "origin", self.origin.as_str());
        out.push(b',');
        text(&mut out, "uri", self.uri);
        out.push(b'}');
        Ok(out)
    }
}

/// A request in the form that is signed.
#[derive(Clone, Debug)]
pub struct SignedForm {
    origin: OwnedServerName,
    message: Vec<u8>,
}

impl SignedForm {
    /// Whether `signature` is (key ID, base64) of the origin over the request, by a key in `keys` that is good at `now`
    /// (milliseconds).
    pub fn is_signed(&self, keys: &PublicKeys, signature: (&str, &str), now: u64) -> bool {
        keys.verify(&self.origin, signature, &self.message, now)
    }
}

fn text(out: &mut Vec<u8>, key: &str, value: &str) {
    write_string(key, out);
    out.push(b':');
    write_string(value, out);
}

#[cfg(test)]
mod tests {
    use ruma_common::server_name;

    use super::*;

    fn request(content: Option<&'static [u8]>) -> SignedRequest<'static> {
        SignedRequest {
            method: "PUT",
            uri: "/_matrix/x?a=b",
            origin: server_name!("a.example"),
            destination: Some(server_name!("b.example:8448")),
            content,
        }
    }

    #[test]
    fn what_is_signed_is_canonical() {
        let message = request(Some(b" { \"b\": 1.0, \"a\": [] }")).message().expect("an object");
        assert_eq!(
            String::from_utf8(message).expect("text"),
            r#"{"content":{"a":[],"b":1.0},"destination":"b.example:8448","method":"PUT","origin":"a.example","uri":"/_matrix/x?a=b"}"#
        );
        let message = SignedRequest { destination: None, ..request(None) }.message().expect("nothing to parse");
        assert_eq!(
            String::from_utf8(message).expect("text"),
            r#"{"method":"PUT","origin":"a.example","uri":"/_matrix/x?a=b"}"#
        );
        request(Some(b"[]")).message().expect_err("no object");
        request(Some(b"")).message().expect_err("not JSON");
    }

    #[test]
    fn a_signature_is_for_one_request_while_the_key_is_good() {
        let key = SigningKey::from_seed([7; 32], "1").expect("a key");
        let mut keys = PublicKeys::default();
        keys.insert(server_name!("a.example"), "ed25519:1", &key.public_key_base64(), 1000).expect("a key");
        let signature = request(Some(b"{}")).sign(&key).expect("an object");
        let verify = |request: SignedRequest<'_>, now| {
            request.signed_form().map(|form| form.is_signed(&keys, ("ed25519:1", &signature), now))
        };
        assert_eq!(verify(request(Some(b"{}")), 1000), Ok(true));
        assert_eq!(verify(request(Some(b"{}")), 1001), Ok(false), "expired");
        assert_eq!(verify(request(None), 1000), Ok(false), "no body");
        assert_eq!(verify(request(Some(b"{\"a\":1}")), 1000), Ok(false), "another body");
        assert_eq!(verify(SignedRequest { method: "POST", ..request(Some(b"{}")) }, 1), Ok(false));
        assert_eq!(verify(SignedRequest { uri: "/_matrix/X?a=b", ..request(Some(b"{}")) }, 1), Ok(false));
        assert_eq!(verify(SignedRequest { destination: None, ..request(Some(b"{}")) }, 1), Ok(false));
        let other = SignedRequest { origin: server_name!("c.example"), ..request(Some(b"{}")) };
        assert_eq!(verify(other, 1), Ok(false));
    }
}
