//! The authorization rules.
//!
//! Spec: <https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules>, and likewise for each version. Where a rule
//! leaves open what happens to content of the wrong shape, a value of the wrong shape counts as absent
//! if the rule only looks for a match, and fails the event if the rule needs the value.

mod facts;
mod member;
mod plain;
mod power;
mod select;

use ruma_common::UserId;

pub(crate) use facts::Facts;
use power::{Field, Levels, check_change};
pub use power::{PowerLevel, PowerLevels};
pub use select::{auth_types, auth_types_of};

use crate::{MAX_FIELD_BYTES, Pdu, RoomVersion};

/// A function from (type, state key) to the state event there.
pub type StateOf<'a> = dyn Fn(&str, &str) -> Option<Pdu> + 'a;

/// Why an event is not allowed, in words that a client may see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct Rejection {
    /// The rule that does not hold.
    pub rule: String,
}

pub(crate) fn reject<T>(rule: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection { rule: rule.into() })
}

/// The rules that look at the event and its `auth_events` only. `auth_events` holds the events that `pdu` names, in any
/// order.
pub fn check_auth_events(version: RoomVersion, pdu: &Pdu, auth_events: &[Pdu]) -> Result<(), Rejection> {
    if pdu.event_type().len() > MAX_FIELD_BYTES || pdu.state_key().is_some_and(|key| key.len() > MAX_FIELD_BYTES) {
        return reject("the type or the state key is too long");
    }
    if pdu.event_type() == "m.room.create" {
        return check_create(version, pdu);
    }
    let expected = select::auth_types_of(version, pdu)?;
    let mut seen: Vec<(&str, &str)> = Vec::with_capacity(auth_events.len());
    for named in pdu.auth_events() {
        let Some(event) = auth_events.iter().find(|event| event.event_id() == named) else {
            return reject(format!("the auth event {named} is not known"));
        };
        if event.room_id() != pdu.room_id() {
            return reject("an auth event belongs to another room");
        }
        let Some(state_key) = event.state_key() else {
            return reject("an auth event is not a state event");
        };
        let key = (event.event_type(), state_key);
        if seen.contains(&key) {
            return reject("two auth events have the same type and state key");
        }
        if !expected.iter().any(|(kind, expected_key)| key == (kind.as_str(), expected_key.as_str())) {
            return reject("an auth event is not one that this event needs");
        }
        if event.rejected() {
            return reject("an auth event was rejected");
        }
        seen.push(key);
    }
    if !version.room_id_is_create_hash() && !seen.contains(&("m.room.create", "")) {
        return reject("the create event is not among the auth events");
    }
    Ok(())
}

fn check_create(version: RoomVersion, pdu: &Pdu) -> Result<(), Rejection> {
    if !pdu.prev_events().is_empty() {
        return reject("a create event has no previous events");
    }
    if !version.room_id_is_create_hash() && pdu.room_id().server_name() != Some(pdu.sender().server_name()) {
        return reject("the room ID of a create event belongs to the sender's server");
    }
    let Facts::Create(create) = pdu.facts() else { return reject("the create event has no content") };
    if create.room_version.as_deref().ok().and_then(RoomVersion::parse) != Some(version) {
        return reject("the room version is not known");
    }
    let rules = &version.rules().authorization;
    if !rules.use_room_create_sender && !create.has_creator {
        return reject("a create event names the creator");
    }
    if rules.additional_room_creators && create.additional_creators.is_err() {
        return reject("additional_creators is a list of user IDs");
    }
    // Not in the rules; but from version 12 on no server reads such an event.
    if rules.additional_room_creators && !create.federate_is_flag {
        return reject("m.federate is true or false");
    }
    Ok(())
}

/// The rules that look at the room's state: at the state before the event, at its auth events, or at the current state.
///
/// `state` is asked for what the rules need, at most a dozen entries. Whether an entry of `state` was rejected does not
/// count here: a state holds no rejected event.
pub fn check_auth(version: RoomVersion, pdu: &Pdu, create: &Pdu, state: &StateOf<'_>) -> Result<(), Rejection> {
    if pdu.event_type() == "m.room.create" {
        return Ok(());
    }
    let room = Room::new(version, create, state)?;
    if pdu.room_id() != create.room_id() {
        return reject("the create event belongs to another room");
    }
    if create.rejected() {
        return reject("the create event was rejected");
    }
    if !room.federates() && pdu.sender().server_name() != create.sender().server_name() {
        return reject("the room is not federated");
    }
    let rules = &version.rules().authorization;
    if rules.special_case_room_aliases && pdu.event_type() == "m.room.aliases" {
        if pdu.state_key() == Some(pdu.sender().server_name().as_str()) {
            return Ok(());
        }
        return reject("aliases are set under the name of the sender's server");
    }
    if pdu.event_type() == "m.room.member" {
        return member::check_member(&room, pdu);
    }
    if room.membership(pdu.sender()).as_deref() != Some("join") {
        return reject("the sender is not in the room");
    }
    check_by_power(&room, pdu)
}

/// The rules for a sender who is in the room.
fn check_by_power(room: &Room<'_>, pdu: &Pdu) -> Result<(), Rejection> {
    let levels = room.levels();
    let own = levels.user(pdu.sender().as_str())?;
    if pdu.event_type() == "m.room.third_party_invite" {
        if own >= levels.field(Field::Invite)? {
            return Ok(());
        }
        return reject("the sender's power level is too low to invite");
    }
    let default = if pdu.state_key().is_some() { Field::StateDefault } else { Field::EventsDefault };
    if own < levels.event(pdu.event_type(), default)? {
        return reject(format!("the sender's power level is too low to send {}", pdu.event_type()));
    }
    if let Some(state_key) = pdu.state_key()
        && state_key.starts_with('@')
        && state_key != pdu.sender().as_str()
    {
        return reject("the state key is another user's ID");
    }
    if pdu.event_type() == "m.room.power_levels" {
        return check_change(&levels, pdu, own);
    }
    let rules = &room.version.rules().authorization;
    if rules.special_case_room_redaction && pdu.event_type() == "m.room.redaction" {
        let same_server = pdu.event_id().server_name() == pdu.redacts().and_then(|event_id| event_id.server_name());
        if own < levels.field(Field::Redact)? && !same_server {
            return reject("the sender's power level is too low to redact");
        }
    }
    Ok(())
}

/// What the rules ask a room's state.
pub(crate) struct Room<'a> {
    pub(crate) version: RoomVersion,
    create: &'a Pdu,
    state: &'a StateOf<'a>,
    power_levels: Option<Pdu>,
}

impl<'a> Room<'a> {
    fn new(version: RoomVersion, create: &'a Pdu, state: &'a StateOf<'a>) -> Result<Self, Rejection> {
        if !matches!(create.facts(), Facts::Create(_)) {
            return reject("the room has no create event");
        }
        Ok(Self { version, create, state, power_levels: state("m.room.power_levels", "") })
    }

    fn federates(&self) -> bool {
        matches!(self.create.facts(), Facts::Create(create) if create.federate)
    }

    /// The user's membership; `leave` if there is none, `None` if it is no text.
    fn membership(&self, user: &UserId) -> Option<String> {
        self.membership_of(user.as_str())
    }

    fn membership_of(&self, user: &str) -> Option<String> {
        let Some(event) = (self.state)("m.room.member", user) else { return Some("leave".to_owned()) };
        match event.facts() {
            Facts::Member(member) => member.membership.clone(),
            _ => None,
        }
    }

    /// The join rule; `invite` if there is none.
    fn join_rule(&self) -> Option<String> {
        let Some(event) = (self.state)("m.room.join_rules", "") else { return Some("invite".to_owned()) };
        match event.facts() {
            Facts::JoinRules(join_rule) => join_rule.clone(),
            _ => None,
        }
    }

    fn levels(&self) -> Levels<'_> {
        Levels::of(self.version, self.create, self.power_levels.as_ref())
    }
}

#[cfg(test)]
mod tests;
