//! Adding this server's signature to another server's event.

use bytes::Bytes;
use ruma_common::{ServerName, UserId};

use crate::auth::Facts;
use crate::json::{JsonLimits, Strictness, parse_object};
use crate::key::add_signature;
use crate::redact::redact_object;
use crate::{MAX_PDU_BYTES, Pdu, SigningKey};

/// Why this server does not put its name to an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountersignError {
    /// It is neither an invitation of one of our users, nor a join on the word of one.
    #[error("the event is not one that this server vouches for")]
    NotOurs,
    /// With our signature it would be too large.
    #[error("the event is too large")]
    TooLarge,
    /// The stored event cannot be read.
    #[error("the event cannot be read: {0}")]
    Unreadable(String),
}

/// `pdu` with the signature of `server` added: only an invitation of a user of `server`, or a join that names a user of
/// `server` in `join_authorised_via_users_server`. Whether that user is content is for the caller to know.
///
/// Spec: <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>,
/// <https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms>
pub fn countersign(pdu: &Pdu, server: &ServerName, key: &SigningKey) -> Result<Pdu, CountersignError> {
    let Facts::Member(member) = pdu.facts() else { return Err(CountersignError::NotOurs) };
    let of_ours = |user: &str| <&UserId>::try_from(user).is_ok_and(|user| user.server_name() == server);
    let vouched = match member.membership.as_deref() {
        Some("invite") => pdu.state_key().is_some_and(of_ours),
        Some("join") => member.authorised_by.as_ref().is_some_and(|user| user.as_deref().is_ok_and(of_ours)),
        _ => false,
    };
    if !vouched {
        return Err(CountersignError::NotOurs);
    }
    let limits = JsonLimits { bytes: usize::MAX, depth: 128 };
    let mut event = parse_object(pdu.json(), limits, Strictness::Lenient)
        .map_err(|error| CountersignError::Unreadable(error.to_string()))?;
    let mut redacted = event.clone();
    redact_object(&mut redacted, &pdu.version().rules().redaction, pdu.event_type());
    let mut message = Vec::with_capacity(1024);
    redacted.write_without(&["signatures", "unsigned"], &mut message);
    add_signature(&mut event, server, key.key_id(), key.sign(&message));
    let json = event.bytes();
    if json.len() > MAX_PDU_BYTES {
        return Err(CountersignError::TooLarge);
    }
    Pdu::from_stored(pdu.event_id(), Bytes::from(json), pdu.version())
        .map_err(|error| CountersignError::Unreadable(error.to_string()))
}
