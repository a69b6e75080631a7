//! What describes a room to who is not in it, as other servers send it and as they are sent it.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>

use std::sync::Arc;

use hearth_event::{Checked, FormatError, Pdu, PublicKeys, RoomVersion, VerifyError, check};
use hearth_schema::{CurrentState, RoomNid};
use hearth_store::{StoreError, View};
use ruma_common::{RoomId, UserId};
use serde_json::{Map, Value, json};

use crate::intake::Rooms;
use crate::query::RoomEvent;
use crate::remote::RawPdu;

/// Events that another server may describe a room by.
pub(super) const MAX_EVENTS: usize = 64;
/// Bytes that they may have together as they come.
pub(super) const MAX_BYTES: usize = 512 * 1024;
/// Bytes that are kept of what describes a room, besides its creation.
const MAX_KEPT: usize = 32 * 1024;
/// Bytes of a type or a state key.
const MAX_NAME: usize = 255;

const CREATE: &str = "m.room.create";
const MEMBER: &str = "m.room.member";

/// The types of events with an empty state key that describe a room.
const TYPES: [&str; 8] = [
    CREATE,
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.history_visibility",
];

/// Whether rooms of this version are described by whole events only, which are verified.
pub(super) fn is_strict(version: RoomVersion) -> bool {
    version.rules().authorization.room_create_event_id_as_room_id
}

/// The current state of `room` that describes it to who is invited by `inviter`: the room's creation first.
///
/// # Errors
/// If the store cannot be read.
pub(crate) async fn describing(
    rooms: &Rooms,
    view: &View,
    room: RoomNid,
    inviter: Option<&UserId>,
) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
    let places = TYPES.map(|kind| (kind, "")).into_iter().chain(inviter.map(|inviter| (MEMBER, inviter.as_str())));
    let keys: Vec<_> = places.map(|(kind, key)| (room, kind.to_owned(), key.to_owned())).collect();
    let entries = view.get_many::<CurrentState>(&keys).await?;
    let numbers: Vec<u32> = entries.into_iter().flatten().map(|entry| entry.n).collect();
    let mut events = rooms.events(view, room, &numbers).await?;
    let mut spare = MAX_KEPT;
    events.retain(|event| {
        let bytes = event.pdu.json().len();
        let kept = event.event_type() == CREATE || bytes <= spare;
        spare = if kept { spare.saturating_sub(bytes) } else { spare };
        kept
    });
    Ok(events)
}

/// `pdu` as who is outside is shown it; the room's creation with its time (MSC4311).
pub(super) fn of_pdu(pdu: &Pdu) -> String {
    let mut event = Map::new();
    // What an event holds has been parsed when it came in.
    let content = serde_json::from_str(pdu.content().get()).unwrap_or_else(|_| json!({}));
    event.insert("content".into(), content);
    event.insert("sender".into(), pdu.sender().as_str().into());
    event.insert("type".into(), pdu.event_type().into());
    if let Some(state_key) = pdu.state_key() {
        event.insert("state_key".into(), state_key.into());
    }
    if pdu.event_type() == CREATE {
        event.insert("origin_server_ts".into(), pdu.origin_server_ts().into());
    }
    Value::Object(event).to_string()
}

/// What another server sent to describe a room, before its signatures are looked at.
pub(super) enum Described {
    /// Whole events, to be verified, each with what it was read from.
    Whole(Vec<(Checked, RawPdu)>),
    /// Anything that looks like stripped events, on the word of the server that sent it.
    Told(Vec<String>),
}

/// Reads what another server sent.
///
/// # Errors
/// In words, if that is not how rooms of this version are described.
pub(super) fn read(raw: &[RawPdu], version: RoomVersion, room_id: &RoomId) -> Result<Described, String> {
    if raw.len() > MAX_EVENTS || raw.iter().map(|event| event.get().len()).sum::<usize>() > MAX_BYTES {
        return Err("the room is described by too much".to_owned());
    }
    if !is_strict(version) {
        return Ok(Described::Told(keep(raw.iter().filter_map(|event| told(event, room_id)))));
    }
    let whole = |event: &RawPdu| Ok((check(event.get().as_bytes(), version)?, event.clone()));
    let checked: Result<Vec<_>, FormatError> = raw.iter().map(whole).collect();
    Ok(Described::Whole(checked.map_err(|error| format!("an event that describes the room: {error}"))?))
}

/// What is kept of `described`: in rooms whose creation names them, only what is verified.
///
/// # Errors
/// In words, if the room's creation is missing, an event is of another room or has a signature that is wrong.
pub(super) fn verified(described: Described, keys: &PublicKeys, room_id: &RoomId) -> Result<Vec<String>, String> {
    let checked = match described {
        Described::Told(events) => return Ok(events),
        Described::Whole(checked) => checked,
    };
    let mut kept = Vec::new();
    let mut created = false;
    for (event, raw) in checked {
        let names_room = event.event_id().as_str().get(1..) == room_id.as_str().get(1..);
        let pdu = match event.verify(keys) {
            Ok(event) => event.into_pdu(),
            // Its server does not answer, which is nobody's fault here. Of the room's creation every byte is bound by
            // the room's ID; of anything else nothing is known.
            Err(VerifyError::UnknownKeys { .. }) => {
                created |= names_room;
                kept.extend(Some(&raw).filter(|_| names_room).and_then(|raw| told(raw, room_id)));
                continue;
            }
            Err(error) => return Err(format!("an event that describes the room: {error}")),
        };
        if pdu.room_id() != room_id {
            return Err("an event that describes the room is of another room".to_owned());
        }
        created |= pdu.is_state(CREATE, "");
        if pdu.state_key().is_some() {
            kept.push(of_pdu(&pdu));
        }
    }
    if !created {
        return Err("the room's creation is not among what describes it".to_owned());
    }
    Ok(keep(kept.into_iter()))
}

/// What is left within the limit, the room's creation in any case.
fn keep(events: impl Iterator<Item = String>) -> Vec<String> {
    let mut spare = MAX_KEPT;
    let fits = |event: &String| {
        let needed = event.len() <= spare;
        spare = if needed { spare - event.len() } else { spare };
        needed
    };
    events.filter(fits).collect()
}

/// An event as it is told, if it can be shown to a client: only the fields that stripped events have.
fn told(raw: &RawPdu, room_id: &RoomId) -> Option<String> {
    let Ok(Value::Object(mut event)) = serde_json::from_str::<Value>(raw.get()) else { return None };
    let name = |value: Option<&Value>| value?.as_str().filter(|name| name.len() <= MAX_NAME).map(str::to_owned);
    let kind = name(event.get("type"))?;
    let state_key = name(event.get("state_key"))?;
    let sender = name(event.get("sender")).filter(|sender| <&UserId>::try_from(sender.as_str()).is_ok())?;
    let elsewhere = event.get("room_id").is_some_and(|other| other != room_id.as_str());
    let content = event.remove("content").filter(Value::is_object)?;
    if elsewhere {
        return None;
    }
    let mut out = Map::new();
    if kind == CREATE
        && let Some(time) = event.get("origin_server_ts").and_then(Value::as_u64)
    {
        out.insert("origin_server_ts".into(), time.into());
    }
    out.insert("content".into(), content);
    out.insert("sender".into(), sender.into());
    out.insert("state_key".into(), state_key.into());
    out.insert("type".into(), kind.into());
    Some(Value::Object(out).to_string())
}

/// What can be shown of what a server sent after a knock; anything else is left out.
pub(super) fn shown(raw: &[RawPdu], room_id: &RoomId) -> Vec<String> {
    keep(raw.iter().take(MAX_EVENTS).filter_map(|event| told(event, room_id)))
}
