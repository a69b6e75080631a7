//! From what another server suggests to an event of our own.
//!
//! A server that answers `make_join` could suggest anything at all, and whoever signed it as it is would put its name to
//! foreign words. So nothing of a suggestion is signed: the event is ours from the start, and of the template only four
//! fields are read, each bounded: `prev_events`, `auth_events`, `depth`, and on whose word a user joins a restricted
//! room. A template that contradicts what was asked for is refused before there is anything to sign.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use hearth_base::Millis;
use hearth_event::{
    BuildError, EventDraft, MAX_AUTH_EVENTS, MAX_FIELD_BYTES, MAX_PREV_EVENTS, Pdu, RoomVersion, build,
};
use hearth_schema::Membership;
use ruma_common::room_version_rules::EventsReferenceFormatVersion;
use ruma_common::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedUserId, RoomId, ServerName, UserId,
};

use crate::membership::AUTHORISED_BY;
use crate::plan::Signer;
use crate::remote::{Handshake, Template};

/// The largest integer in canonical JSON.
const MAX_DEPTH: u64 = (1 << 53) - 1;

/// Why another server's suggestion leads to no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// It suggests something else than what was asked for.
    #[error("the template has another {0} than was asked for")]
    Contradicts(&'static str),
    /// A field that is needed has no form that could be used.
    #[error("{0} of the template cannot be used")]
    Invalid(&'static str),
    /// Rooms of this version know no such membership, or have no such room IDs.
    #[error("room version {0} does not fit")]
    Version(RoomVersion),
    /// What we want to say ourselves makes no event.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// What was asked of the other server, and what is ours to say.
#[derive(Clone, Debug)]
pub(crate) struct Wish<'a> {
    /// Which membership.
    pub what: Handshake,
    /// Who answered.
    pub via: &'a ServerName,
    /// In which room.
    pub room_id: &'a RoomId,
    /// Whose membership: a local user.
    pub user: &'a UserId,
    /// The room's version, where it is known from elsewhere.
    pub version: Option<RoomVersion>,
    /// Content of the member event: profile, reason, what the client wants in it. What the handshake decides is set by it.
    pub content: CanonicalJsonObject,
    /// `origin_server_ts`
    pub now: Millis,
}

impl Handshake {
    /// The membership that it gives.
    pub(crate) const fn membership(self) -> Membership {
        match self {
            Self::Join => Membership::Join,
            Self::Leave => Membership::Leave,
            Self::Knock => Membership::Knock,
        }
    }
}

/// The signed event that `template` lets us make.
///
/// # Errors
/// See [`HandshakeError`]; nothing is signed then.
pub(crate) fn signed(template: &Template, wish: Wish<'_>, signer: &Signer) -> Result<Pdu, HandshakeError> {
    let draft = draft(template, wish)?;
    Ok(build(draft, template.room_version, &signer.server_name, &signer.key)?)
}

/// The event of our own that `template` leads to.
///
/// # Errors
/// See [`HandshakeError`].
pub(crate) fn draft(template: &Template, wish: Wish<'_>) -> Result<EventDraft, HandshakeError> {
    fits_version(template.room_version, &wish)?;
    let suggested = suggested_content(template, &wish)?;
    let mut content = wish.content;
    let membership = wish.what.membership().as_str();
    content.insert("membership".into(), CanonicalJsonValue::String(membership.into()));
    content.remove(AUTHORISED_BY);
    content.remove("third_party_invite");
    if wish.what == Handshake::Join
        && template.room_version.rules().authorization.restricted_join_rule
        && let Some(member) = suggested.get(AUTHORISED_BY)
    {
        let member = authoriser(member, wish.via, wish.user)?;
        content.insert(AUTHORISED_BY.into(), CanonicalJsonValue::String(member.into()));
    }
    let prev_events = references(template, "prev_events", MAX_PREV_EVENTS)?;
    if prev_events.is_empty() {
        return Err(HandshakeError::Invalid("prev_events"));
    }
    Ok(EventDraft {
        room_id: Some(wish.room_id.to_owned()),
        event_type: "m.room.member".into(),
        state_key: Some(wish.user.to_string()),
        sender: wish.user.to_owned(),
        content,
        origin_server_ts: wish.now.0,
        prev_events,
        auth_events: references(template, "auth_events", MAX_AUTH_EVENTS)?,
        depth: depth(template)?,
        redacts: None,
    })
}

fn fits_version(version: RoomVersion, wish: &Wish<'_>) -> Result<(), HandshakeError> {
    if wish.version.is_some_and(|known| known != version) {
        return Err(HandshakeError::Contradicts("room_version"));
    }
    let rules = &version.rules().authorization;
    let named_by_hash = wish.room_id.server_name().is_none();
    let no_knocking = wish.what == Handshake::Knock && !rules.knocking;
    if named_by_hash != rules.room_create_event_id_as_room_id || no_knocking {
        return Err(HandshakeError::Version(version));
    }
    Ok(())
}

/// The content of the template, once the template says what was asked for.
fn suggested_content<'a>(template: &'a Template, wish: &Wish<'_>) -> Result<&'a CanonicalJsonObject, HandshakeError> {
    let event = &template.event;
    let expected = [
        ("type", "m.room.member"),
        ("room_id", wish.room_id.as_str()),
        ("sender", wish.user.as_str()),
        ("state_key", wish.user.as_str()),
    ];
    for (field, expected) in expected {
        if text(event, field) != Some(expected) {
            return Err(HandshakeError::Contradicts(field));
        }
    }
    let Some(CanonicalJsonValue::Object(content)) = event.get("content") else {
        return Err(HandshakeError::Invalid("content"));
    };
    if text(content, "membership") != Some(wish.what.membership().as_str()) {
        return Err(HandshakeError::Contradicts("membership"));
    }
    Ok(content)
}

fn text<'a>(object: &'a CanonicalJsonObject, field: &str) -> Option<&'a str> {
    match object.get(field) {
        Some(CanonicalJsonValue::String(text)) => Some(text),
        _ => None,
    }
}

/// A user of the server that answered, which signs for having let the user in. Never one of ours: our signature under
/// the join would count as that user's word.
fn authoriser(member: &CanonicalJsonValue, via: &ServerName, joining: &UserId) -> Result<OwnedUserId, HandshakeError> {
    let invalid = HandshakeError::Invalid(AUTHORISED_BY);
    let CanonicalJsonValue::String(member) = member else { return Err(invalid) };
    let member = <&UserId>::try_from(member.as_str()).map_err(|_| invalid.clone())?;
    let theirs = member.server_name() == via && via != joining.server_name();
    if !theirs || member.as_str().len() > MAX_FIELD_BYTES {
        return Err(invalid);
    }
    Ok(member.to_owned())
}

/// Event IDs in the form that the room version has for them, at most `most`, none twice.
fn references(template: &Template, field: &'static str, most: usize) -> Result<Vec<OwnedEventId>, HandshakeError> {
    let invalid = || HandshakeError::Invalid(field);
    let Some(CanonicalJsonValue::Array(items)) = template.event.get(field) else { return Err(invalid()) };
    if items.len() > most {
        return Err(invalid());
    }
    let pairs = template.room_version.rules().events_reference_format == EventsReferenceFormatVersion::V1;
    let mut found: Vec<OwnedEventId> = Vec::with_capacity(items.len());
    for item in items {
        let name = match item {
            CanonicalJsonValue::String(name) if !pairs => name,
            CanonicalJsonValue::Array(pair) if pairs => match pair.as_slice() {
                [CanonicalJsonValue::String(name), CanonicalJsonValue::Object(_)] => name,
                _ => return Err(invalid()),
            },
            _ => return Err(invalid()),
        };
        let event_id = EventId::parse(name.as_str()).map_err(|_| invalid())?;
        let whole = event_id.server_name().is_some() == pairs && name.len() <= MAX_FIELD_BYTES;
        if !whole || found.contains(&event_id) {
            return Err(invalid());
        }
        found.push(event_id);
    }
    Ok(found)
}

/// Held to what an event that is not the first of its room can have.
fn depth(template: &Template) -> Result<u64, HandshakeError> {
    match template.event.get("depth") {
        Some(CanonicalJsonValue::Integer(depth)) => {
            Ok(u64::try_from(i64::from(*depth)).unwrap_or_default().clamp(1, MAX_DEPTH))
        }
        _ => Err(HandshakeError::Invalid("depth")),
    }
}

#[cfg(test)]
mod tests;
