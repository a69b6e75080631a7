//! Making our own events.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ruma_common::room_version_rules::EventIdFormatVersion;
use ruma_common::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName};
use sha2::{Digest as _, Sha256};

use crate::check::{MAX_AUTH_EVENTS, MAX_FIELD_BYTES, MAX_PDU_BYTES, MAX_PREV_EVENTS};
use crate::json::{Json, MAX_SAFE, Object, write_entry, write_string};
use crate::key::BASE64;
use crate::pdu::PduFields;
use crate::redact::redact_content;
use crate::{Pdu, RoomVersion, SigningKey};

/// An event before it has hashes, an ID and a signature.
#[derive(Clone, Debug)]
pub struct EventDraft {
    /// The room; `None` only for a create event whose hash becomes the room's ID (from version 12).
    pub room_id: Option<OwnedRoomId>,
    /// `type`, at most 255 bytes.
    pub event_type: String,
    /// `state_key`, at most 255 bytes.
    pub state_key: Option<String>,
    /// A user of the server that signs.
    pub sender: OwnedUserId,
    /// `content`.
    pub content: CanonicalJsonObject,
    /// Milliseconds since the Unix epoch.
    pub origin_server_ts: u64,
    /// At most 20.
    pub prev_events: Vec<OwnedEventId>,
    /// At most 10.
    pub auth_events: Vec<OwnedEventId>,
    /// One more than the deepest of `prev_events`; held to at most 2^53 − 1.
    pub depth: u64,
    /// What a redaction redacts; written where the room version wants it.
    pub redacts: Option<OwnedEventId>,
}

/// Why a draft cannot become an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The event would be larger than 65 536 bytes (`M_TOO_LARGE`).
    #[error("the event has {bytes} bytes; at most {MAX_PDU_BYTES} are allowed")]
    TooLarge {
        /// Its size in canonical JSON, with signatures.
        bytes: usize,
    },
    /// A field is longer than 255 bytes (`M_TOO_LARGE`).
    #[error("{field} is longer than {MAX_FIELD_BYTES} bytes")]
    FieldTooLong {
        /// Which field.
        field: &'static str,
    },
    /// More `prev_events` or `auth_events` than an event may have.
    #[error("too many {field}")]
    TooMany {
        /// Which field.
        field: &'static str,
    },
    /// A room ID where there must be none, or none where there must be one.
    #[error("only the create event of a room from version 12 on has no room ID")]
    RoomId,
    /// The sender is not a user of the signing server.
    #[error("the sender is not a user of this server")]
    ForeignSender,
    /// `origin_server_ts` is beyond 2^53 − 1.
    #[error("origin_server_ts is out of range")]
    Time,
}

/// Makes the event: content hash, event ID, and `origin`'s signature.
///
/// In room versions 1 and 2, where the server names its events, the name is derived from the content, so the
/// same draft is the same event.
pub fn build(
    draft: EventDraft,
    version: RoomVersion,
    origin: &ServerName,
    key: &SigningKey,
) -> Result<Pdu, BuildError> {
    check_limits(&draft, version, origin)?;
    let mut event = Fields::of(draft, version);
    if version.has_event_id_field() {
        let named_by = Sha256::digest(event.hashed_form());
        event.event_id = Some(format!("${}:{origin}", URL_SAFE_NO_PAD.encode(named_by)));
    }
    event.hash = BASE64.encode(Sha256::digest(event.hashed_form()));
    let signed = event.signed_form();
    event.signature = Some((origin.as_str(), key.key_id(), key.sign(&signed)));
    let event_id = match &event.event_id {
        Some(event_id) => event_id.clone(),
        None => format!("${}", reference_hash(&signed, version)),
    };
    let (json, content) = event.full_form();
    if json.len() > MAX_PDU_BYTES {
        return Err(BuildError::TooLarge { bytes: json.len() });
    }
    let room_id = event.draft.room_id.take().unwrap_or_else(|| create_room_id(&event_id));
    let draft = event.draft;
    Ok(Pdu::from_fields(PduFields {
        version,
        event_id: OwnedEventId::try_from(event_id).expect("a hash makes a valid event ID"),
        room_id,
        sender: draft.sender,
        event_type: draft.event_type,
        state_key: draft.state_key,
        prev_events: draft.prev_events,
        auth_events: draft.auth_events,
        depth: event.depth,
        origin_server_ts: draft.origin_server_ts,
        redacts: draft.redacts,
        content,
        json: Bytes::from(json),
    }))
}

/// The room ID that a create event's ID implies (from version 12).
pub(crate) fn create_room_id(event_id: &str) -> OwnedRoomId {
    RoomId::parse(format!("!{}", event_id.trim_start_matches('$'))).expect("a hash makes a valid room ID")
}

/// The hash of an event's signed form, as its ID has it.
///
/// Spec: <https://spec.matrix.org/v1.19/server-server-api/#calculating-the-reference-hash-for-an-event>
pub(crate) fn reference_hash(signed_form: &[u8], version: RoomVersion) -> String {
    let hash = Sha256::digest(signed_form);
    match version.rules().event_id_format {
        EventIdFormatVersion::V1 | EventIdFormatVersion::V2 => BASE64.encode(hash),
        _ => URL_SAFE_NO_PAD.encode(hash),
    }
}

fn check_limits(draft: &EventDraft, version: RoomVersion, origin: &ServerName) -> Result<(), BuildError> {
    let names_room = draft.event_type == "m.room.create" && version.room_id_is_create_hash();
    if draft.room_id.is_none() != names_room {
        return Err(BuildError::RoomId);
    }
    if draft.sender.server_name() != origin {
        return Err(BuildError::ForeignSender);
    }
    let lengths = [
        ("type", draft.event_type.len()),
        ("state_key", draft.state_key.as_ref().map_or(0, String::len)),
        ("sender", draft.sender.as_str().len()),
        ("room_id", draft.room_id.as_ref().map_or(0, |room_id| room_id.as_str().len())),
        ("event_id", if version.has_event_id_field() { origin.as_str().len().saturating_add(45) } else { 0 }),
    ];
    if let Some((field, _)) = lengths.into_iter().find(|(_, length)| *length > MAX_FIELD_BYTES) {
        return Err(BuildError::FieldTooLong { field });
    }
    if draft.prev_events.len() > MAX_PREV_EVENTS {
        return Err(BuildError::TooMany { field: "prev_events" });
    }
    if draft.auth_events.len() > MAX_AUTH_EVENTS {
        return Err(BuildError::TooMany { field: "auth_events" });
    }
    if draft.origin_server_ts > MAX_SAFE.unsigned_abs() {
        return Err(BuildError::Time);
    }
    Ok(())
}

/// A draft with its parts in canonical JSON; each part is written once, and the forms are put together from them.
struct Fields<'a> {
    draft: EventDraft,
    event_id: Option<String>,
    content: Vec<u8>,
    redacted_content: Vec<u8>,
    prev_events: Vec<u8>,
    auth_events: Vec<u8>,
    depth: u64,
    version: RoomVersion,
    hash: String,
    signature: Option<(&'a str, &'a str, String)>,
}

impl Fields<'_> {
    fn of(mut draft: EventDraft, version: RoomVersion) -> Self {
        let mut content = Object::from(std::mem::take(&mut draft.content));
        if let Some(redacts) = &draft.redacts
            && version.redacts_in_content()
        {
            content.insert("redacts", Json::Str(redacts.as_str().into()));
        }
        let full = content.bytes();
        redact_content(&mut content, &version.rules().redaction, &draft.event_type);
        Self {
            event_id: None,
            content: full,
            redacted_content: content.bytes(),
            prev_events: references(&draft.prev_events, version),
            auth_events: references(&draft.auth_events, version),
            depth: draft.depth.min(MAX_SAFE.unsigned_abs()),
            version,
            hash: String::new(),
            signature: None,
            draft,
        }
    }

    /// `redacts`, unless the room version has it in the content.
    fn redacts_on_top(&self) -> Option<&OwnedEventId> {
        self.draft.redacts.as_ref().filter(|_| !self.version.redacts_in_content())
    }

    /// What the content hash is over.
    fn hashed_form(&self) -> Vec<u8> {
        self.form(&self.content, self.redacts_on_top()).0
    }

    /// What the signature and the event ID are over: the redacted event with its hash.
    fn signed_form(&self) -> Vec<u8> {
        self.form(&self.redacted_content, None).0
    }

    /// The event and where its content lies.
    fn full_form(&self) -> (Vec<u8>, std::ops::Range<usize>) {
        self.form(&self.content, self.redacts_on_top())
    }

    /// The event, with `hashes` and `signatures` as far as they are known.
    fn form(&self, content: &[u8], redacts: Option<&OwnedEventId>) -> (Vec<u8>, std::ops::Range<usize>) {
        let mut out = Vec::with_capacity(content.len().saturating_add(1024));
        out.push(b'{');
        let start = out.len();
        let raw = |bytes: &[u8], key: &str, out: &mut Vec<u8>| {
            write_entry(key, start, out, |out| out.extend_from_slice(bytes));
        };
        let text = |value: &str, key: &str, out: &mut Vec<u8>| {
            write_entry(key, start, out, |out| write_string(value, out));
        };
        raw(&self.auth_events, "auth_events", &mut out);
        raw(content, "content", &mut out);
        let content_end = out.len();
        raw(self.depth.to_string().as_bytes(), "depth", &mut out);
        if let Some(event_id) = &self.event_id {
            text(event_id, "event_id", &mut out);
        }
        if !self.hash.is_empty() {
            write_entry("hashes", start, &mut out, |out| write_text_map("sha256", &self.hash, out));
        }
        raw(self.draft.origin_server_ts.to_string().as_bytes(), "origin_server_ts", &mut out);
        raw(&self.prev_events, "prev_events", &mut out);
        if let Some(redacts) = redacts {
            text(redacts.as_str(), "redacts", &mut out);
        }
        if let Some(room_id) = &self.draft.room_id {
            text(room_id.as_str(), "room_id", &mut out);
        }
        text(self.draft.sender.as_str(), "sender", &mut out);
        if let Some((server, key_id, signature)) = &self.signature {
            write_entry("signatures", start, &mut out, |out| {
                out.push(b'{');
                write_string(server, out);
                out.push(b':');
                write_text_map(key_id, signature, out);
                out.push(b'}');
            });
        }
        if let Some(state_key) = &self.draft.state_key {
            text(state_key, "state_key", &mut out);
        }
        text(&self.draft.event_type, "type", &mut out);
        out.push(b'}');
        (out, content_end.saturating_sub(content.len())..content_end)
    }
}

fn write_text_map(key: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b'{');
    write_string(key, out);
    out.push(b':');
    write_string(value, out);
    out.push(b'}');
}

/// `["$a","$b"]`, or `[["$a",{}],["$b",{}]]` in versions 1 and 2.
pub(crate) fn references(event_ids: &[OwnedEventId], version: RoomVersion) -> Vec<u8> {
    let mut out = Vec::with_capacity(event_ids.len().saturating_mul(56).saturating_add(2));
    out.push(b'[');
    for (index, event_id) in event_ids.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        if version.refers_by_pairs() {
            out.push(b'[');
            write_string(event_id.as_str(), &mut out);
            out.extend_from_slice(b",{}]");
        } else {
            write_string(event_id.as_str(), &mut out);
        }
    }
    out.push(b']');
    out
}

#[cfg(test)]
mod tests;
