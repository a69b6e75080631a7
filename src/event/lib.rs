//! Events: their form, hashes, signatures, authorization and state resolution, in room versions 1 to 12.
//!
//! Everything here is a pure function of its arguments: no clock, no randomness, no storage, no network. An event
//! comes into being in one of three ways, and each is a type or a function that nothing else can stand in for:
//! [`build()`] makes our own, [`check()`] and [`Checked::verify`] let in those of others, [`Pdu::from_stored`] reads
//! back what was let in before.

// What is counted here comes from other servers.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod auth;
mod check;
mod client;
mod countersign;
mod json;
mod key;
mod make;
mod pdu;
mod policy;
mod redact;
mod request;
mod resolve;
mod server_keys;
mod template;
mod version;

pub use auth::{PowerLevel, PowerLevels, Rejection, StateOf, auth_types, auth_types_of, check_auth, check_auth_events};
pub use check::{
    Checked, FormatError, MAX_AUTH_EVENTS, MAX_FIELD_BYTES, MAX_PDU_BYTES, MAX_PREV_EVENTS, Unvouched, Verified,
    VerifyError, check,
};
pub use client::{client_head, client_head_without_room};
pub use countersign::{CountersignError, countersign, with_countersignature};
pub use json::{JsonError, JsonLimits, canonical_json, parse_canonical_object};
pub use key::{KeyError, PublicKeys, SigningKey, public_key_bytes};
pub use make::{BuildError, EventDraft, build};
pub use pdu::Pdu;
pub use policy::{POLICY_KEY_ID, POLICY_TYPE, PolicyServer};
pub use redact::redact;
pub use request::{SignedForm, SignedRequest};
pub use resolve::{Fetch, ResolveError, StateMap, resolve};
pub use server_keys::{MAX_SERVER_KEYS_BYTES, ServerKeys, ServerKeysError, check_server_keys};
pub use template::template;
pub use version::RoomVersion;
