//! An event that this server holds.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use js_int::UInt;
use ruma_common::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use ruma_events::TimelineEventType;
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::RoomVersion;
use crate::auth::Facts;
use crate::check::FormatError;
use crate::make::create_room_id;

/// An event: its canonical JSON, and the fields that the server works with. Cheap to clone.
///
/// A `Pdu` was built here, or came through [`crate::check()`] and [`crate::Checked::verify`], or out of our own store.
#[derive(Clone)]
pub struct Pdu {
    parts: Arc<Parts>,
    rejected: bool,
}

struct Parts {
    fields: PduFields,
    /// `event_type` as ruma has it.
    kind: TimelineEventType,
    /// What the auth rules read from the content, parsed when first asked for.
    facts: OnceLock<Facts>,
}

/// The fields of an event whose JSON has been checked or made here.
pub(crate) struct PduFields {
    pub(crate) version: RoomVersion,
    pub(crate) event_id: OwnedEventId,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) sender: OwnedUserId,
    pub(crate) event_type: String,
    pub(crate) state_key: Option<String>,
    pub(crate) prev_events: Vec<OwnedEventId>,
    pub(crate) auth_events: Vec<OwnedEventId>,
    pub(crate) depth: u64,
    pub(crate) origin_server_ts: u64,
    pub(crate) redacts: Option<OwnedEventId>,
    /// Where `content` lies in `json`.
    pub(crate) content: Range<usize>,
    pub(crate) json: Bytes,
}

/// The top level of a stored event.
#[derive(Deserialize)]
struct Stored<'a> {
    auth_events: Vec<Reference>,
    #[serde(borrow)]
    content: &'a RawValue,
    depth: u64,
    origin_server_ts: u64,
    prev_events: Vec<Reference>,
    #[serde(borrow, default)]
    redacts: Option<&'a RawValue>,
    #[serde(default)]
    room_id: Option<String>,
    #[serde(borrow)]
    sender: Cow<'a, str>,
    #[serde(default)]
    state_key: Option<String>,
    #[serde(rename = "type")]
    event_type: String,
}

/// An event ID, or a pair of it and hashes (versions 1 and 2).
struct Reference(OwnedEventId);

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReferenceVisitor).map(Self)
    }
}

struct ReferenceVisitor;

impl<'de> Visitor<'de> for ReferenceVisitor {
    type Value = OwnedEventId;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an event ID, or a pair of it and hashes")
    }

    fn visit_str<E: serde::de::Error>(self, id: &str) -> Result<OwnedEventId, E> {
        EventId::parse(id).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<OwnedEventId, A::Error> {
        let Reference(id) = pair.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        while pair.next_element::<IgnoredAny>()?.is_some() {}
        Ok(id)
    }
}

impl Pdu {
    /// Reads an event from our own store: no limits, hashes or signatures are checked again.
    pub fn from_stored(event_id: &EventId, json: Bytes, version: RoomVersion) -> Result<Self, FormatError> {
        let stored: Stored<'_> =
            serde_json::from_slice(&json).map_err(|error| FormatError::Unreadable(error.to_string()))?;
        let room_id = match stored.room_id {
            Some(room_id) => RoomId::parse(room_id).map_err(|_| FormatError::Invalid { field: "room_id" })?,
            None => create_room_id(event_id.as_str()),
        };
        let sender = UserId::parse(stored.sender.as_ref()).map_err(|_| FormatError::Invalid { field: "sender" })?;
        let content = range_in(&json, stored.content.get());
        let redacts = if stored.event_type == "m.room.redaction" {
            redacts(version, stored.content, stored.redacts)
        } else {
            None
        };
        let fields = PduFields {
            version,
            event_id: event_id.to_owned(),
            room_id,
            sender,
            redacts,
            prev_events: stored.prev_events.into_iter().map(|reference| reference.0).collect(),
            auth_events: stored.auth_events.into_iter().map(|reference| reference.0).collect(),
            depth: stored.depth,
            origin_server_ts: stored.origin_server_ts,
            event_type: stored.event_type,
            state_key: stored.state_key,
            content,
            json,
        };
        Ok(Self::from_fields(fields))
    }

    pub(crate) fn from_fields(fields: PduFields) -> Self {
        let kind = TimelineEventType::from(fields.event_type.as_str());
        Self { parts: Arc::new(Parts { fields, kind, facts: OnceLock::new() }), rejected: false }
    }

    /// Its ID.
    pub fn event_id(&self) -> &EventId {
        &self.parts.fields.event_id
    }

    /// The room; for a create event from version 12 on, the room that it makes.
    pub fn room_id(&self) -> &RoomId {
        &self.parts.fields.room_id
    }

    /// `sender`.
    pub fn sender(&self) -> &UserId {
        &self.parts.fields.sender
    }

    /// `type`.
    pub fn event_type(&self) -> &str {
        &self.parts.fields.event_type
    }

    /// `state_key`.
    pub fn state_key(&self) -> Option<&str> {
        self.parts.fields.state_key.as_deref()
    }

    /// Whether it is a state event of type `event_type` with state key `state_key`.
    pub fn is_state(&self, event_type: &str, state_key: &str) -> bool {
        self.event_type() == event_type && self.state_key() == Some(state_key)
    }

    /// `content`.
    pub fn content(&self) -> &RawValue {
        serde_json::from_slice(self.content_json()).expect("the content of an event is JSON")
    }

    /// `content` in canonical JSON.
    pub fn content_json(&self) -> &[u8] {
        &self.parts.fields.json[self.parts.fields.content.clone()]
    }

    /// `prev_events`, in their order.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.parts.fields.prev_events
    }

    /// `auth_events`, in their order.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.parts.fields.auth_events
    }

    /// `depth`.
    pub fn depth(&self) -> u64 {
        self.parts.fields.depth
    }

    /// `origin_server_ts`, in milliseconds since the Unix epoch.
    pub fn origin_server_ts(&self) -> u64 {
        self.parts.fields.origin_server_ts
    }

    /// What an `m.room.redaction` redacts, from where its room version has it.
    pub fn redacts(&self) -> Option<&EventId> {
        self.parts.fields.redacts.as_deref()
    }

    /// The whole event in canonical JSON, without `unsigned`.
    pub fn json(&self) -> &Bytes {
        &self.parts.fields.json
    }

    /// The version of its room.
    pub fn version(&self) -> RoomVersion {
        self.parts.fields.version
    }

    /// Whether it was rejected when it arrived.
    pub fn rejected(&self) -> bool {
        self.rejected
    }

    /// The same event, known to be rejected.
    #[must_use]
    pub fn with_rejected(&self) -> Self {
        Self { parts: Arc::clone(&self.parts), rejected: true }
    }

    pub(crate) fn facts(&self) -> &Facts {
        self.parts.facts.get_or_init(|| Facts::of(self))
    }
}

/// Where `part`, which was borrowed from `whole`, lies in it.
fn range_in(whole: &[u8], part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start.saturating_add(part.len())
}

/// The ID that a redaction names. Anything else there redacts nothing, but does not make the event invalid.
fn redacts(version: RoomVersion, content: &RawValue, on_top: Option<&RawValue>) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        redacts: Cow<'a, str>,
    }
    let named = if version.redacts_in_content() {
        serde_json::from_str::<Content<'_>>(content.get()).ok()?.redacts.into_owned()
    } else {
        serde_json::from_str::<String>(on_top?.get()).ok()?
    };
    EventId::parse(named).ok()
}

impl PartialEq for Pdu {
    /// Equal when the events are; the verdict does not count.
    fn eq(&self, other: &Self) -> bool {
        self.event_id() == other.event_id() && self.json() == other.json()
    }
}

impl Eq for Pdu {}

impl std::fmt::Debug for Pdu {
    /// Never shows the content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pdu")
            .field("event_id", &self.event_id())
            .field("type", &self.event_type())
            .field("state_key", &self.state_key())
            .field("sender", &self.sender())
            .field("rejected", &self.rejected)
            .finish_non_exhaustive()
    }
}

impl ruma_state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.parts.fields.event_id
    }

    /// As in the event: a create event that names its room has none.
    fn room_id(&self) -> Option<&RoomId> {
        let names_room = self.version().room_id_is_create_hash() && self.event_type() == "m.room.create";
        if names_room { None } else { Some(self.room_id()) }
    }

    fn sender(&self) -> &UserId {
        self.sender()
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.origin_server_ts()))
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.parts.kind
    }

    /// Power levels are shown as the rules of this crate read them.
    fn content(&self) -> &RawValue {
        let plain = match self.facts() {
            Facts::Power(levels) => levels.plain(self),
            _ => None,
        };
        plain.unwrap_or_else(|| self.content())
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events().iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events().iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.parts.fields.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}
