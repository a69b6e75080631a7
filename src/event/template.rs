//! What this server suggests to another that wants to make an event.

use bytes::Bytes;
use ruma_common::{EventId, ServerName};

use crate::check::FormatError;
use crate::json::{Object, write_entry, write_string};
use crate::make::references;
use crate::{EventDraft, Pdu, RoomVersion};

/// The ID that a template goes by while it is judged; nothing else has it.
const TEMPLATE_ID: &str = "$template:template.invalid";

/// The unsigned event that `draft` describes, in canonical JSON, as `make_join`, `make_leave` and `make_knock` give it
/// away; it names `origin`, which suggests it. It has no ID, no hashes and no signature: as a [`Pdu`] it is good for
/// [`crate::check_auth`] and for nothing else.
///
/// Spec: <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid>
pub fn template(draft: EventDraft, version: RoomVersion, origin: &ServerName) -> Result<Pdu, FormatError> {
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    let start = out.len();
    let raw = |key: &str, value: &[u8], out: &mut Vec<u8>| {
        write_entry(key, start, out, |out| out.extend_from_slice(value));
    };
    let text = |key: &str, value: &str, out: &mut Vec<u8>| {
        write_entry(key, start, out, |out| write_string(value, out));
    };
    raw("auth_events", &references(&draft.auth_events, version), &mut out);
    raw("content", &Object::from(draft.content).bytes(), &mut out);
    raw("depth", draft.depth.to_string().as_bytes(), &mut out);
    text("origin", origin.as_str(), &mut out);
    raw("origin_server_ts", draft.origin_server_ts.to_string().as_bytes(), &mut out);
    raw("prev_events", &references(&draft.prev_events, version), &mut out);
    if let Some(room_id) = &draft.room_id {
        text("room_id", room_id.as_str(), &mut out);
    }
    text("sender", draft.sender.as_str(), &mut out);
    if let Some(state_key) = &draft.state_key {
        text("state_key", state_key, &mut out);
    }
    text("type", &draft.event_type, &mut out);
    out.push(b'}');
    let id = <&EventId>::try_from(TEMPLATE_ID).map_err(|_| FormatError::Invalid { field: "event_id" })?;
    Pdu::from_stored(id, Bytes::from(out), version)
}

#[cfg(test)]
mod tests {
    use ruma_common::{
        CanonicalJsonObject, CanonicalJsonValue, owned_event_id, owned_room_id, owned_user_id, server_name,
    };

    use super::*;

    #[test]
    fn a_template_is_canonical_and_names_nobody_who_signed() {
        let mut content = CanonicalJsonObject::new();
        content.insert("membership".into(), CanonicalJsonValue::String("join".into()));
        let draft = EventDraft {
            room_id: Some(owned_room_id!("!r:hearth.test")),
            event_type: "m.room.member".into(),
            state_key: Some("@u:other.test".into()),
            sender: owned_user_id!("@u:other.test"),
            content,
            origin_server_ts: 7,
            prev_events: vec![owned_event_id!("$p:hearth.test")],
            auth_events: vec![owned_event_id!("$a:hearth.test")],
            depth: 3,
            redacts: None,
        };
        let made = |version: &str| {
            let version = RoomVersion::parse(version).expect("a version");
            let pdu = template(draft.clone(), version, server_name!("hearth.test")).expect("a template");
            String::from_utf8(pdu.json().to_vec()).expect("text")
        };
        let expected = r#"{"auth_events":["$a:hearth.test"],"content":{"membership":"join"},"depth":3,"origin":"hearth.test","origin_server_ts":7,"prev_events":["$p:hearth.test"],"room_id":"!r:hearth.test","sender":"@u:other.test","state_key":"@u:other.test","type":"m.room.member"}"#;
        assert_eq!(made("11"), expected);
        let pairs = expected.replace(r#""$a:hearth.test""#, r#"["$a:hearth.test",{}]"#);
        let pairs = pairs.replace(r#""$p:hearth.test""#, r#"["$p:hearth.test",{}]"#);
        assert_eq!(made("2"), pairs);
    }
}
