//! Events from elsewhere: bytes → [`Checked`] → [`Verified`].
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use base64::Engine as _;
use bytes::Bytes;
use ruma_common::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName, UserId};
use sha2::{Digest as _, Sha256};

use crate::json::{Json, JsonError, JsonLimits, Object, Strictness, parse_object};
use crate::key::BASE64;
use crate::make::reference_hash;
use crate::redact::redact_object;
use crate::{CountersignError, Pdu, PublicKeys, RoomVersion, SigningKey, countersign};

/// The largest event, in bytes of canonical JSON with signatures.
///
/// Spec: <https://spec.matrix.org/v1.19/client-server-api/#size-limits>
pub const MAX_PDU_BYTES: usize = 65_536;
/// The longest `type`, `state_key`, `sender`, `room_id` and `event_id`, in bytes.
pub const MAX_FIELD_BYTES: usize = 255;
/// The most `prev_events`.
pub const MAX_PREV_EVENTS: usize = 20;
/// The most `auth_events`.
pub const MAX_AUTH_EVENTS: usize = 10;

/// An event may arrive with spaces, escapes and an `unsigned` that do not count.
const LIMITS: JsonLimits = JsonLimits { bytes: 8 * MAX_PDU_BYTES, depth: 100 };

/// Fields that neither the signature nor the event ID is over.
const UNSIGNED: [&str; 2] = ["signatures", "unsigned"];
/// Fields that the content hash is not over.
const UNHASHED: [&str; 3] = ["hashes", "signatures", "unsigned"];

/// Why bytes are no event of a room version: such an event is dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The JSON itself.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The event is larger than 65 536 bytes.
    #[error("the event is larger than {MAX_PDU_BYTES} bytes")]
    TooLarge,
    /// A field is missing.
    #[error("{field} is missing")]
    Missing {
        /// Which field.
        field: &'static str,
    },
    /// A field has the wrong type or an impossible value.
    #[error("{field} is invalid")]
    Invalid {
        /// Which field.
        field: &'static str,
    },
    /// A field is longer than 255 bytes, or a list has too many entries.
    #[error("{field} is too long")]
    TooLong {
        /// Which field.
        field: &'static str,
    },
    /// Bytes of our own store that are no event.
    #[error("stored event is unreadable: {0}")]
    Unreadable(String),
}

/// Why an event of the right form is not accepted from the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No key of this server is at hand: fetch its keys and try again.
    #[error("no key of {server} is known")]
    UnknownKeys {
        /// Whose keys to fetch.
        server: OwnedServerName,
    },
    /// The server did not sign it, or not with a key that was good at the time: drop it.
    #[error("no valid signature of {server}")]
    BadSignature {
        /// Whose signature it is.
        server: OwnedServerName,
    },
}

/// An event of the right form, with its ID. Nobody vouches for it yet.
#[derive(Clone, Debug)]
pub struct Checked {
    event: Object,
    event_id: OwnedEventId,
    version: RoomVersion,
    time: u64,
    signers: Vec<OwnedServerName>,
}

/// An event that the servers it needs have signed.
///
/// [`Checked::verify`] is the only way to one, but for the signature that [`Unvouched::vouch`] adds.
#[derive(Clone, Debug)]
pub struct Verified {
    pdu: Pdu,
    redacted: bool,
}

impl Verified {
    /// The event.
    pub fn pdu(&self) -> &Pdu {
        &self.pdu
    }

    /// The event.
    pub fn into_pdu(self) -> Pdu {
        self.pdu
    }

    /// Whether it was altered on the way, so that only its redacted form is left.
    pub fn redacted_by_hash(&self) -> bool {
        self.redacted
    }
}

/// An event that everybody has signed but perhaps this server: [`Checked::verify_for`].
#[derive(Clone, Debug)]
pub struct Unvouched {
    verified: Verified,
    wanting: bool,
}

impl Unvouched {
    /// The event, without this server's signature.
    pub fn pdu(&self) -> &Pdu {
        &self.verified.pdu
    }

    /// Whether it was altered on the way, so that only its redacted form is left.
    pub fn redacted_by_hash(&self) -> bool {
        self.verified.redacted
    }

    /// Whether this server's signature is needed.
    pub fn is_wanting(&self) -> bool {
        self.wanting
    }

    /// The event as it is, if that is enough.
    pub fn complete(self) -> Option<Verified> {
        Some(self.verified).filter(|_| !self.wanting)
    }

    /// The event with the signature of `server`, whose user is content with the join.
    pub fn vouch(self, server: &ServerName, key: &SigningKey) -> Result<Verified, CountersignError> {
        let pdu = countersign(&self.verified.pdu, server, key)?;
        Ok(Verified { pdu, ..self.verified })
    }
}

/// Reads an event of a room of `version` as it comes over federation; `unsigned` is dropped.
pub fn check(bytes: &[u8], version: RoomVersion) -> Result<Checked, FormatError> {
    let mut event = parse_pdu(bytes, version)?;
    event.remove("unsigned");
    let mut canonical = Vec::with_capacity(bytes.len());
    event.write(&mut canonical);
    if canonical.len() > MAX_PDU_BYTES {
        return Err(FormatError::TooLarge);
    }
    check_fields(&event, version)?;
    let event_id = event_id(&event, version)?;
    let time = non_negative(&event, "origin_server_ts")?;
    let signers = signers(&event, &event_id, version)?;
    Ok(Checked { event, event_id, version, time, signers })
}

/// Parses the JSON of an event as strictly as `version` asks.
pub(crate) fn parse_pdu(bytes: &[u8], version: RoomVersion) -> Result<Object, JsonError> {
    let strictness = if version.strict_json() { Strictness::Canonical } else { Strictness::Lenient };
    parse_object(bytes, LIMITS, strictness)
}

impl Checked {
    /// Its ID.
    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    /// What `hashes.sha256` should say, in unpadded base64.
    pub fn content_hash(&self) -> String {
        BASE64.encode(content_hash(&self.event))
    }

    /// `origin_server_ts`, in milliseconds.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The servers that must have signed it.
    pub fn signers(&self) -> &[OwnedServerName] {
        &self.signers
    }

    /// The key IDs that `server` signed it with, as far as the event says. The key of a policy server is in the room's
    /// state, and not among those that the server publishes, so nobody has to be asked for it.
    pub fn key_ids<'a>(&'a self, server: &str) -> impl Iterator<Item = &'a str> {
        let own = self.signatures_of(server);
        let is_alone = own.is_some_and(|own| own.iter().count() == 1);
        let key_ids = own.into_iter().flat_map(|own| own.iter().map(|(key_id, _)| key_id));
        key_ids.filter(move |key_id| is_alone || *key_id != crate::POLICY_KEY_ID)
    }

    /// Verifies the signatures of the servers that must have signed it. If the content does not have the hash that
    /// was signed, only the redacted form is kept.
    pub fn verify(self, keys: &PublicKeys) -> Result<Verified, VerifyError> {
        self.verify_but_for(keys, None)
    }

    /// As [`Self::verify`], for the server whose word lets somebody into a restricted room: if `server` is named in
    /// `join_authorised_via_users_server`, its own signature is not asked for, because it is still to be made.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>
    pub fn verify_for(self, keys: &PublicKeys, server: &ServerName) -> Result<Unvouched, VerifyError> {
        let sender = self.event.text("sender").and_then(|sender| <&UserId>::try_from(sender).ok());
        let own = sender.is_some_and(|sender| sender.server_name() == server)
            || self.version.rules().signatures.check_event_id_server && self.event_id.server_name() == Some(server);
        let wanting = !own && self.signers.iter().any(|signer| signer == server);
        let verified = self.verify_but_for(keys, Some(server).filter(|_| wanting))?;
        Ok(Unvouched { verified, wanting })
    }

    fn verify_but_for(mut self, keys: &PublicKeys, absent: Option<&ServerName>) -> Result<Verified, VerifyError> {
        let rules = self.version.rules();
        let kind = self.event.text("type").unwrap_or_default().to_owned();
        let mut redacted = self.event.clone();
        redact_object(&mut redacted, &rules.redaction, &kind);
        let mut message = Vec::with_capacity(1024);
        redacted.write_without(&UNSIGNED, &mut message);
        // Before version 5 a key that has expired since is as good as ever.
        let time = if rules.enforce_key_validity { self.time } else { 0 };
        for server in self.signers.iter().filter(|server| Some(&***server) != absent) {
            if !keys.knows(server) {
                return Err(VerifyError::UnknownKeys { server: server.clone() });
            }
            let signed = self.signatures_of(server.as_str()).is_some_and(|own| {
                own.iter().any(|(key_id, signature)| {
                    let signature = signature.as_str().unwrap_or_default();
                    keys.verify(server, (key_id, signature), &message, time)
                })
            });
            if !signed {
                return Err(VerifyError::BadSignature { server: server.clone() });
            }
        }
        let altered = !has_its_hash(&self.event);
        if altered {
            self.event = redacted;
        }
        Ok(Verified { pdu: self.unverified(), redacted: altered })
    }

    fn signatures_of(&self, server: &str) -> Option<&Object> {
        self.event.get("signatures")?.as_object()?.get(server)?.as_object()
    }

    /// The event, although nobody vouches for it. For tests of rules that do not look at signatures.
    fn unverified(self) -> Pdu {
        Pdu::from_stored(&self.event_id, Bytes::from(self.event.bytes()), self.version)
            .expect("the fields of a checked event are readable")
    }
}

/// Whether `hashes.sha256` is the content hash.
fn has_its_hash(event: &Object) -> bool {
    let named = event.get("hashes").and_then(|hashes| hashes.as_object()?.text("sha256"));
    named.and_then(|named| BASE64.decode(named).ok()).is_some_and(|named| named == content_hash(event))
}

fn content_hash(event: &Object) -> [u8; 32] {
    let mut hashed = Vec::with_capacity(1024);
    event.write_without(&UNHASHED, &mut hashed);
    Sha256::digest(&hashed).into()
}

fn event_id(event: &Object, version: RoomVersion) -> Result<OwnedEventId, FormatError> {
    let event_id = if version.has_event_id_field() {
        text(event, "event_id")?.to_owned()
    } else {
        let kind = name(event, "type", version)?;
        let mut redacted = event.clone();
        redact_object(&mut redacted, &version.rules().redaction, kind);
        let mut signed = Vec::with_capacity(1024);
        redacted.write_without(&UNSIGNED, &mut signed);
        format!("${}", reference_hash(&signed, version))
    };
    let event_id = EventId::parse(event_id).map_err(|_| FormatError::Invalid { field: "event_id" })?;
    if version.has_event_id_field() && event_id.server_name().is_none() {
        return Err(FormatError::Invalid { field: "event_id" });
    }
    Ok(event_id)
}

fn check_fields(event: &Object, version: RoomVersion) -> Result<(), FormatError> {
    let kind = name(event, "type", version)?;
    let names_room = kind == "m.room.create" && version.room_id_is_create_hash();
    UserId::parse(text(event, "sender")?).map_err(|_| FormatError::Invalid { field: "sender" })?;
    if names_room {
        if event.get("room_id").is_some() {
            return Err(FormatError::Invalid { field: "room_id" });
        }
    } else {
        RoomId::parse(text(event, "room_id")?).map_err(|_| FormatError::Invalid { field: "room_id" })?;
    }
    if event.get("state_key").is_some() {
        name(event, "state_key", version)?;
    }
    references(event, "prev_events", MAX_PREV_EVENTS, version)?;
    references(event, "auth_events", MAX_AUTH_EVENTS, version)?;
    non_negative(event, "depth")?;
    for field in ["content", "hashes", "signatures"] {
        let value = event.get(field).ok_or(FormatError::Missing { field })?;
        value.as_object().ok_or(FormatError::Invalid { field })?;
    }
    Ok(())
}

/// A type or a state key. Up to version 10 other servers have counted characters where bytes are meant: such an event
/// has children, so it is an event, and the rules reject it.
fn name<'a>(event: &'a Object, field: &'static str, version: RoomVersion) -> Result<&'a str, FormatError> {
    let value = event.get(field).ok_or(FormatError::Missing { field })?;
    let value = value.as_str().ok_or(FormatError::Invalid { field })?;
    let length = if version.counts_bytes() { value.len() } else { value.chars().count() };
    if length > MAX_FIELD_BYTES {
        return Err(FormatError::TooLong { field });
    }
    Ok(value)
}

/// A field of at most 255 bytes of text.
fn text<'a>(event: &'a Object, field: &'static str) -> Result<&'a str, FormatError> {
    let value = event.get(field).ok_or(FormatError::Missing { field })?;
    let value = value.as_str().ok_or(FormatError::Invalid { field })?;
    if value.len() > MAX_FIELD_BYTES {
        return Err(FormatError::TooLong { field });
    }
    Ok(value)
}

fn non_negative(event: &Object, field: &'static str) -> Result<u64, FormatError> {
    match event.get(field) {
        None => Err(FormatError::Missing { field }),
        Some(Json::Int(value)) => u64::try_from(*value).map_err(|_| FormatError::Invalid { field }),
        Some(_) => Err(FormatError::Invalid { field }),
    }
}

fn references(event: &Object, field: &'static str, most: usize, version: RoomVersion) -> Result<(), FormatError> {
    let invalid = FormatError::Invalid { field };
    let items = event.get(field).ok_or(FormatError::Missing { field })?.as_array().ok_or(invalid.clone())?;
    if items.len() > most {
        return Err(FormatError::TooLong { field });
    }
    for item in items {
        let named = match item {
            Json::Str(named) if !version.refers_by_pairs() => Some(named.as_ref()),
            Json::Array(pair) if version.refers_by_pairs() => match pair.as_slice() {
                [Json::Str(named), Json::Object(_)] => Some(named.as_ref()),
                _ => None,
            },
            _ => None,
        };
        let named = named.ok_or(invalid.clone())?;
        if named.len() > MAX_FIELD_BYTES || EventId::parse(named).is_err() {
            return Err(invalid);
        }
    }
    Ok(())
}

/// Spec: <https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events>, and
/// for `join_authorised_via_users_server` the authorization rules from version 8 on.
fn signers(event: &Object, event_id: &EventId, version: RoomVersion) -> Result<Vec<OwnedServerName>, FormatError> {
    let rules = &version.rules().signatures;
    let content = event.get("content").and_then(Json::as_object);
    let is_member = event.text("type") == Some("m.room.member");
    let by_third_party = is_member
        && content.is_some_and(|content| {
            content.text("membership") == Some("invite")
                && content.get("third_party_invite").is_some_and(|invite| invite.as_object().is_some())
        });
    let mut signers = Vec::with_capacity(2);
    let mut add = |server: &ServerName| {
        if !signers.iter().any(|known: &OwnedServerName| known == server) {
            signers.push(server.to_owned());
        }
    };
    if !by_third_party {
        let sender = <&UserId>::try_from(text(event, "sender")?);
        add(sender.map_err(|_| FormatError::Invalid { field: "sender" })?.server_name());
    }
    if rules.check_event_id_server
        && let Some(server) = event_id.server_name()
    {
        add(server);
    }
    // Other memberships may carry it along; who authorised them does not matter.
    let is_join = is_member && content.is_some_and(|content| content.text("membership") == Some("join"));
    if rules.check_join_authorised_via_users_server && is_join {
        const FIELD: &str = "join_authorised_via_users_server";
        if let Some(user) = content.and_then(|content| content.get(FIELD)) {
            let user = user.as_str().and_then(|user| <&UserId>::try_from(user).ok());
            add(user.ok_or(FormatError::Invalid { field: FIELD })?.server_name());
        }
    }
    Ok(signers)
}

#[cfg(test)]
mod tests;
