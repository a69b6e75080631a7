//! The signature of a room's policy server.
//!
//! It stands beside the other signatures of an event and is over the same bytes, but the key that it is verified by is
//! in the room's state, never one that the server publishes: who may speak for a server and who may recommend events to
//! a room are two things.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>

use base64::Engine as _;
use ed25519_dalek::VerifyingKey;
use ruma_common::{OwnedServerName, ServerName};
use serde_json::Value;

use crate::countersign::{CountersignError, signed_form, with_signature};
use crate::json::{Json, Object};
use crate::key::{BASE64, verify_bytes};
use crate::{Pdu, public_key_bytes};

/// The type of the state event, with an empty state key, that names a room's policy server.
pub const POLICY_TYPE: &str = "m.room.policy";
/// The ID of the key that policy servers sign with.
pub const POLICY_KEY_ID: &str = "ed25519:policy_server";

/// The policy server that a room names, and the key that it signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyServer {
    via: OwnedServerName,
    /// `None`: what the room gives is no key, so nothing is signed by it.
    key: Option<Box<VerifyingKey>>,
}

impl PolicyServer {
    /// What `event`, an `m.room.policy`, says; `None`: it is not valid, and the room uses none.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#determining-if-a-policy-server-is-enabled-in-a-room>
    pub fn of(event: &Pdu) -> Option<Self> {
        // Members write these events, so anything may be in them.
        let Ok(content) = serde_json::from_slice::<Value>(event.content_json()) else { return None };
        let Ok(via) = OwnedServerName::try_from(content.get("via")?.as_str()?) else { return None };
        let key = content.get("public_keys")?.as_object()?.get("ed25519")?.as_str()?;
        let key =
            public_key_bytes(key).and_then(|key| VerifyingKey::from_bytes(&key).map_err(|_| crate::KeyError::Seed));
        Some(Self { via, key: key.ok().map(Box::new) })
    }

    /// Its name.
    pub fn via(&self) -> &ServerName {
        &self.via
    }

    /// Whether there is a key that something can be signed with.
    pub const fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether `event` needs its signature: all do but the one that names it, which has to get through without.
    pub fn is_for(event: &Pdu) -> bool {
        !event.is_state(POLICY_TYPE, "")
    }

    /// Whether it has signed `event`.
    ///
    /// # Errors
    /// If the stored event cannot be read.
    pub fn has_signed(&self, event: &Pdu) -> Result<bool, CountersignError> {
        let (object, message) = signed_form(event)?;
        Ok(signature_in(&object, &self.via).is_some_and(|signature| self.verify(signature, &message)))
    }

    /// `event` with `signature`, in base64, which must be valid. Every other signature stays.
    ///
    /// # Errors
    /// If it is not valid, or the event gets too large by it.
    pub fn with_signature(&self, event: &Pdu, signature: &str) -> Result<Pdu, CountersignError> {
        let (object, message) = signed_form(event)?;
        if !self.verify(signature, &message) {
            return Err(CountersignError::BadSignature);
        }
        with_signature(event, object, &self.via, (POLICY_KEY_ID, signature.to_owned()))
    }

    fn verify(&self, signature: &str, message: &[u8]) -> bool {
        let Some(key) = &self.key else { return false };
        let Ok(bytes) = BASE64.decode(signature) else { return false };
        <[u8; 64]>::try_from(bytes).is_ok_and(|bytes| verify_bytes(key, &bytes, message))
    }
}

fn signature_in<'a>(event: &'a Object, via: &ServerName) -> Option<&'a str> {
    let of_server = event.get("signatures").and_then(Json::as_object)?.get(via.as_str());
    of_server.and_then(Json::as_object)?.text(POLICY_KEY_ID)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, room_id, server_name, user_id};
    use serde_json::json;

    use super::*;
    use crate::{EventDraft, PublicKeys, RoomVersion, SigningKey, build, check};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed([seed; 32], "1").expect("a key")
    }

    fn event(version: &str, state: Option<(&str, &str)>, content: Value) -> Pdu {
        let Ok(CanonicalJsonValue::Object(content)) = CanonicalJsonValue::try_from(content) else {
            panic!("no object")
        };
        let content: CanonicalJsonObject = content;
        let draft = EventDraft {
            room_id: Some(room_id!("!r:a.test").to_owned()),
            event_type: state.map_or("m.room.message", |(kind, _)| kind).to_owned(),
            state_key: state.map(|(_, key)| key.to_owned()),
            sender: user_id!("@alice:a.test").to_owned(),
            content,
            origin_server_ts: 1,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            redacts: None,
        };
        build(draft, RoomVersion::parse(version).expect("known"), server_name!("a.test"), &key(1)).expect("an event")
    }

    fn named(content: Value) -> Option<PolicyServer> {
        PolicyServer::of(&event("11", Some((POLICY_TYPE, "")), content))
    }

    fn server(via: &str, seed: u8) -> PolicyServer {
        let key = key(seed).public_key_base64();
        named(json!({ "via": via, "public_keys": { "ed25519": key } })).expect("a policy server")
    }

    /// The signature of whoever has the key made of `seed`.
    fn signature(pdu: &Pdu, seed: u8) -> String {
        key(seed).sign(&signed_form(pdu).expect("readable").1)
    }

    #[test]
    fn only_a_name_and_a_key_name_a_policy_server() {
        let good = json!({ "via": "p.test", "public_keys": { "ed25519": "x", "other": 7 }, "more": [] });
        let odd = named(good).expect("valid");
        assert_eq!((odd.via().as_str(), odd.has_key()), ("p.test", false), "the text is no key");
        for bad in [
            json!({}),
            json!({ "via": "p.test" }),
            json!({ "public_keys": { "ed25519": "x" } }),
            json!({ "via": 7, "public_keys": { "ed25519": "x" } }),
            json!({ "via": "not a name", "public_keys": { "ed25519": "x" } }),
            json!({ "via": "", "public_keys": { "ed25519": "x" } }),
            json!({ "via": "p.test", "public_keys": ["x"] }),
            json!({ "via": "p.test", "public_keys": "x" }),
            json!({ "via": "p.test", "public_keys": {} }),
            json!({ "via": "p.test", "public_keys": { "ed25519": null } }),
        ] {
            assert_eq!(named(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn everything_is_asked_about_but_the_event_that_names_it() {
        for (state, expected) in [
            (None, true),
            (Some((POLICY_TYPE, "")), false),
            (Some((POLICY_TYPE, "x")), true),
            (Some(("m.room.topic", "")), true),
        ] {
            assert_eq!(PolicyServer::is_for(&event("11", state, json!({}))), expected, "{state:?}");
        }
    }

    #[test]
    fn its_signature_comes_beside_those_that_are_there() {
        for version in RoomVersion::all() {
            if version.room_id_is_create_hash() {
                continue;
            }
            // It may be the sender's server.
            for via in ["p.test", "a.test"] {
                let (policy, pdu) = (server(via, 2), event(version.as_str(), None, json!({ "body": "hi" })));
                assert_eq!(policy.has_signed(&pdu), Ok(false));
                let signed = policy.with_signature(&pdu, &signature(&pdu, 2)).expect("a good signature");
                assert_eq!(policy.has_signed(&signed), Ok(true), "{version}");
                assert_eq!(signed.event_id(), pdu.event_id());
                let mut keys = PublicKeys::default();
                keys.insert(server_name!("a.test"), "ed25519:1", &key(1).public_key_base64(), u64::MAX).expect("a key");
                let checked = check(signed.json(), version).expect("an event");
                let asked_for: Vec<&str> = checked.key_ids("a.test").collect();
                assert_eq!(asked_for, ["ed25519:1"], "nobody publishes the other one");
                assert_eq!(checked.verify(&keys).expect("the sender's signature is there").pdu(), &signed);
            }
        }
    }

    #[test]
    fn a_published_key_does_not_count() {
        // The sender's server is the policy server, and signs with its own key under the other one's name.
        let (policy, pdu) = (server("a.test", 2), event("11", None, json!({})));
        assert_eq!(policy.with_signature(&pdu, &signature(&pdu, 1)), Err(CountersignError::BadSignature));
        let forged = server("a.test", 1).with_signature(&pdu, &signature(&pdu, 1)).expect("good by that key");
        assert_eq!(policy.has_signed(&forged), Ok(false));
    }

    proptest! {
        /// A signature counts by the key of the room, for the event, under the name of the server, and in no other case.
        #[test]
        fn a_signature_counts_for_one_key_one_event_one_server(
            by in 2_u8..5, wanted in 2_u8..5, other_event in any::<bool>(), other_name in any::<bool>(),
        ) {
            let pdu = event("11", None, json!({ "body": "hi" }));
            let signed_event = if other_event { event("11", None, json!({ "body": "ho", "n": 1 })) } else { pdu.clone() };
            let signer = server(if other_name { "q.test" } else { "p.test" }, by);
            let given = signature(&signed_event, by);
            let forced = || {
                let (object, _) = signed_form(&pdu).expect("readable");
                with_signature(&pdu, object, signer.via(), (POLICY_KEY_ID, given.clone())).expect("an event")
            };
            let carrier = signer.with_signature(&pdu, &given).unwrap_or_else(|_| forced());
            let counts = server("p.test", wanted).has_signed(&carrier).expect("readable");
            let same_bytes = signed_form(&signed_event).expect("readable").1 == signed_form(&pdu).expect("readable").1;
            prop_assert_eq!(counts, by == wanted && same_bytes && !other_name);
        }
    }
}
