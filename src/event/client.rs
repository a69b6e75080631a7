//! Events as clients see them.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>

use bytes::Bytes;

use crate::Pdu;
use crate::json::{Json, JsonLimits, Strictness, parse_object, write_string};

/// The client form of `pdu` without its last brace: `{"content":…,"event_id":…,"origin_server_ts":…,"redacts":…,
/// "room_id":…,"sender":…,"state_key":…,"type":…`. The caller appends `,"unsigned":{…}` and the brace.
///
/// A redaction names what it redacts on the top level and in its content, whatever its room version, so that
/// clients of any age find it.
pub fn client_head(pdu: &Pdu) -> Bytes {
    head(pdu, Some(pdu.room_id().as_str()))
}

/// As [`client_head`], but without `room_id`, as `/sync` wants it.
pub fn client_head_without_room(pdu: &Pdu) -> Bytes {
    head(pdu, None)
}

fn head(pdu: &Pdu, room_id: Option<&str>) -> Bytes {
    let mut out = Vec::with_capacity(pdu.content_json().len().saturating_add(320));
    let text = |key: &str, value: &str, out: &mut Vec<u8>| {
        out.extend_from_slice(key.as_bytes());
        write_string(value, out);
    };
    let redacts = pdu.redacts().map(ruma_common::EventId::as_str);
    out.extend_from_slice(b"{\"content\":");
    match redacts {
        Some(redacts) => write_content_with(pdu, redacts, &mut out),
        None => out.extend_from_slice(pdu.content_json()),
    }
    text(",\"event_id\":", pdu.event_id().as_str(), &mut out);
    out.extend_from_slice(b",\"origin_server_ts\":");
    out.extend_from_slice(pdu.origin_server_ts().to_string().as_bytes());
    if let Some(redacts) = redacts {
        text(",\"redacts\":", redacts, &mut out);
    }
    if let Some(room_id) = room_id {
        text(",\"room_id\":", room_id, &mut out);
    }
    text(",\"sender\":", pdu.sender().as_str(), &mut out);
    if let Some(state_key) = pdu.state_key() {
        text(",\"state_key\":", state_key, &mut out);
    }
    text(",\"type\":", pdu.event_type(), &mut out);
    Bytes::from(out)
}

fn write_content_with(pdu: &Pdu, redacts: &str, out: &mut Vec<u8>) {
    let limits = JsonLimits { bytes: usize::MAX, depth: 128 };
    let mut content =
        parse_object(pdu.content_json(), limits, Strictness::Lenient).expect("the content of an event is JSON");
    content.insert("redacts", Json::Str(redacts.into()));
    content.write(out);
}
