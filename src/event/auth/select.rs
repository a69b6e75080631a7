//! Which state an event needs as its `auth_events`.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection>

use ruma_common::{CanonicalJsonObject, UserId};

use super::facts::{Facts, Member};
use super::{Rejection, reject};
use crate::json::Object;
use crate::{Pdu, RoomVersion};

/// The (type, state key) pairs of the state that belongs into the `auth_events` of an event, as far as the room
/// has it.
pub fn auth_types(
    version: RoomVersion,
    event_type: &str,
    sender: &UserId,
    state_key: Option<&str>,
    content: &CanonicalJsonObject,
) -> Result<Vec<(String, String)>, Rejection> {
    if event_type == "m.room.member" {
        let member = Member::of(&Object::from(content.clone()));
        select(version, event_type, sender, Some((state_key, &member)))
    } else {
        select(version, event_type, sender, None)
    }
}

/// The same of an event that is there.
pub fn auth_types_of(version: RoomVersion, pdu: &Pdu) -> Result<Vec<(String, String)>, Rejection> {
    let member = match pdu.facts() {
        Facts::Member(member) => Some((pdu.state_key(), member)),
        _ => None,
    };
    select(version, pdu.event_type(), pdu.sender(), member)
}

fn select(
    version: RoomVersion,
    event_type: &str,
    sender: &UserId,
    member: Option<(Option<&str>, &Member)>,
) -> Result<Vec<(String, String)>, Rejection> {
    let rules = &version.rules().authorization;
    let mut types = Vec::with_capacity(6);
    if event_type == "m.room.create" {
        return Ok(types);
    }
    let mut add = |kind: &str, key: &str| {
        if !types.iter().any(|(known, known_key): &(String, String)| known == kind && known_key == key) {
            types.push((kind.to_owned(), key.to_owned()));
        }
    };
    if !rules.room_create_event_id_as_room_id {
        add("m.room.create", "");
    }
    add("m.room.power_levels", "");
    add("m.room.member", sender.as_str());
    let Some((state_key, member)) = member else { return Ok(types) };
    let Some(target) = state_key else { return reject("a membership has a state key") };
    add("m.room.member", target);
    // What no rule knows needs nothing; the rules for memberships reject it.
    let membership = member.membership.as_deref().unwrap_or_default();
    if matches!(membership, "join" | "invite" | "knock") {
        add("m.room.join_rules", "");
    }
    if membership == "invite"
        && let Some(invite) = &member.third_party_invite
    {
        let Some(token) = &invite.token else { return reject("a third-party invite has a token") };
        add("m.room.third_party_invite", token);
    }
    if membership == "join"
        && rules.restricted_join_rule
        && let Some(authorised_by) = &member.authorised_by
    {
        let Ok(user) = authorised_by else { return reject("join_authorised_via_users_server is a user ID") };
        add("m.room.member", user);
    }
    Ok(types)
}
