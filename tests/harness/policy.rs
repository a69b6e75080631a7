//! The key of a policy server: what a room's state names, and what such a server signs with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use crate::hostile::fresh_seed;
use crate::{RawEvent, Signed};

/// The ID of the key that policy servers sign with.
pub const POLICY_KEY_ID: &str = "ed25519:policy_server";

/// What a policy server signs with.
#[derive(Clone)]
pub struct PolicyKey(SigningKey);

impl PolicyKey {
    /// A key that nobody else has.
    pub fn fresh() -> Self {
        Self(SigningKey::from_bytes(&fresh_seed()))
    }

    /// The content of an `m.room.policy` that names the server called `via` and this key.
    pub fn content(&self, via: &str) -> Value {
        let key = STANDARD_NO_PAD.encode(self.0.verifying_key().to_bytes());
        json!({"via": via, "public_keys": {"ed25519": key}})
    }

    /// The signature of `event`, of a room of `version`, whatever signatures it has.
    pub fn sign(&self, event: &Value, version: u8) -> String {
        let message = RawEvent::of(event, version).signed_form();
        STANDARD_NO_PAD.encode(self.0.sign(message.as_bytes()).to_bytes())
    }

    /// What the policy server called `via` answers for `event`.
    pub fn answer(&self, via: &str, event: &Value, version: u8) -> Value {
        json!({via: {POLICY_KEY_ID: self.sign(event, version)}})
    }

    /// `event` with the signature in the name of `via`, beside those that it has.
    pub fn add_to(&self, event: &Signed, via: &str, version: u8) -> Signed {
        let mut json = event.json();
        json["signatures"][via][POLICY_KEY_ID] = json!(self.sign(&json, version));
        Signed { id: event.id.clone(), text: json.to_string() }
    }

    /// Whether `event` carries the signature in the name of `via`.
    pub fn is_on(&self, event: &Value, via: &str, version: u8) -> bool {
        event["signatures"][via][POLICY_KEY_ID] == json!(self.sign(event, version))
    }
}

impl crate::Hostile {
    /// `event`, of a room of `version`, with this server's signature beside those that it has.
    pub fn countersigned(&self, event: &Value, version: u8) -> Value {
        let mut event = event.clone();
        event["signatures"][self.name()][self.key_id()] =
            json!(self.sign(RawEvent::of(&event, version).signed_form().as_bytes()));
        event
    }
}
