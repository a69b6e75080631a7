//! Adding this server's signature to another server's event.

use bytes::Bytes;
use ruma_common::{ServerName, UserId};

use crate::auth::Facts;
use crate::json::{JsonLimits, Object, Strictness, parse_object};
use crate::key::add_signature;
use crate::redact::redact_object;
use crate::{MAX_PDU_BYTES, Pdu, PublicKeys, SigningKey};

/// Why this server does not put its name to an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountersignError {
    /// It is neither an invitation of one of our users, nor a join on the word of one.
    #[error("the event is not one that this server vouches for")]
    NotOurs,
    /// The other server's signature is not valid.
    #[error("the signature is not valid")]
    BadSignature,
    /// With the signature it would be too large.
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
    let (event, message) = signed_form(pdu)?;
    with_signature(pdu, event, server, (key.key_id(), key.sign(&message)))
}

/// `pdu` with a signature of `server` that it has given to somebody else's copy of the event: the key ID and the
/// signature in base64, which must be valid by `keys`. Nothing else of that copy comes in.
pub fn with_countersignature(
    pdu: &Pdu,
    server: &ServerName,
    (key_id, signature): (&str, &str),
    keys: &PublicKeys,
) -> Result<Pdu, CountersignError> {
    let (event, message) = signed_form(pdu)?;
    if !keys.verify(server, (key_id, signature), &message, pdu.origin_server_ts()) {
        return Err(CountersignError::BadSignature);
    }
    with_signature(pdu, event, server, (key_id, signature.to_owned()))
}

/// The event, and the bytes that its signatures are over.
pub(crate) fn signed_form(pdu: &Pdu) -> Result<(Object, Vec<u8>), CountersignError> {
    let limits = JsonLimits { bytes: usize::MAX, depth: 128 };
    let event = parse_object(pdu.json(), limits, Strictness::Lenient)
        .map_err(|error| CountersignError::Unreadable(error.to_string()))?;
    let mut redacted = event.clone();
    redact_object(&mut redacted, &pdu.version().rules().redaction, pdu.event_type());
    let mut message = Vec::with_capacity(1024);
    redacted.write_without(&["signatures", "unsigned"], &mut message);
    Ok((event, message))
}

pub(crate) fn with_signature(
    pdu: &Pdu,
    mut event: Object,
    server: &ServerName,
    (key_id, signature): (&str, String),
) -> Result<Pdu, CountersignError> {
    add_signature(&mut event, server, key_id, signature);
    let json = event.bytes();
    if json.len() > MAX_PDU_BYTES {
        return Err(CountersignError::TooLarge);
    }
    Pdu::from_stored(pdu.event_id(), Bytes::from(json), pdu.version())
        .map_err(|error| CountersignError::Unreadable(error.to_string()))
}
