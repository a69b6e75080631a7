//! What stays of an event when it is redacted. The signed and the hashed form of an event is the
//! redacted one, so this decides event IDs too.
//!
//! Spec: <https://spec.matrix.org/v1.19/rooms/v12/#redactions>, and likewise for each version.

use ruma_common::room_version_rules::RedactionRules;

use crate::check::{FormatError, parse_pdu};
use crate::json::{Json, Object};
use crate::{Pdu, RoomVersion};

/// `pdu` without what a redaction removes: the same event ID, `hashes` and signatures.
pub fn redact(version: RoomVersion, pdu: &Pdu) -> Result<Pdu, FormatError> {
    let mut event = parse_pdu(pdu.json(), version)?;
    redact_object(&mut event, &version.rules().redaction, pdu.event_type());
    Pdu::from_stored(pdu.event_id(), event.bytes().into(), version)
}

/// Removes from `event`, of type `event_type`, what a redaction removes.
pub(crate) fn redact_object(event: &mut Object, rules: &RedactionRules, event_type: &str) {
    event.retain(|key, value| {
        if key == "content" {
            if let Json::Object(content) = value {
                redact_content(content, rules, event_type);
            }
            return true;
        }
        keeps_field(key, rules)
    });
}

fn keeps_field(key: &str, rules: &RedactionRules) -> bool {
    match key {
        "event_id" | "type" | "room_id" | "sender" | "state_key" | "content" | "hashes" | "signatures" | "depth"
        | "prev_events" | "auth_events" | "origin_server_ts" => true,
        "origin" | "membership" | "prev_state" => rules.keep_origin_membership_prev_state,
        _ => false,
    }
}

/// Removes from the content of an event of type `event_type` what a redaction removes.
pub(crate) fn redact_content(content: &mut Object, rules: &RedactionRules, event_type: &str) {
    if event_type == "m.room.create" && rules.keep_room_create_content {
        return;
    }
    content.retain(|key, value| match (event_type, key) {
        ("m.room.member", "membership")
        | ("m.room.create", "creator")
        | ("m.room.join_rules", "join_rule")
        | ("m.room.history_visibility", "history_visibility")
        | (
            "m.room.power_levels",
            "ban" | "events" | "events_default" | "kick" | "redact" | "state_default" | "users" | "users_default",
        ) => true,
        ("m.room.member", "join_authorised_via_users_server") => {
            rules.keep_room_member_join_authorised_via_users_server
        }
        ("m.room.member", "third_party_invite") if rules.keep_room_member_third_party_invite_signed => {
            keep_signed(value)
        }
        ("m.room.join_rules", "allow") => rules.keep_room_join_rules_allow,
        ("m.room.power_levels", "invite") => rules.keep_room_power_levels_invite,
        ("m.room.redaction", "redacts") => rules.keep_room_redaction_redacts,
        ("m.room.aliases", "aliases") => rules.keep_room_aliases_aliases,
        _ => false,
    });
}

/// Of `third_party_invite` only `signed` stays; what is no object goes.
fn keep_signed(invite: &mut Json) -> bool {
    let Json::Object(invite) = invite else { return false };
    invite.retain(|key, _| key == "signed");
    true
}
