//! `make_join`, `make_leave` and `make_knock`: what this server suggests to a server that wants into a room or out.
//!
//! Nothing is signed and nothing is stored: the suggestion is an event as the room would take it now, judged by the
//! same rules as one that is sent.

use std::collections::HashMap;

use bytes::Bytes;
use hearth_event::{EventDraft, MAX_PREV_EVENTS, Pdu, RoomVersion, auth_types, check_auth};
use hearth_schema::{CurrentState, Membership};
use hearth_store::StoreError;
use ruma_common::{CanonicalJsonValue, OwnedEventId, OwnedUserId, RoomId, ServerName, UserId};

use super::{ServeError, room_id_of};
use crate::gather::damaged;
use crate::graph::Graph;
use crate::intake::Rooms;
use crate::membership::{AUTHORISED_BY, member_content};
use crate::query::RoomOverview;
use crate::remote::Handshake;
use crate::{MemberProfile, SendError};

/// The largest integer in canonical JSON.
const MAX_DEPTH: u64 = (1 << 53) - 1;
/// Rooms that are looked at for whether a user is in one of them.
const MAX_ALLOWED_ROOMS: usize = 100;

/// A suggested event.
#[derive(Clone, Debug)]
pub struct MadeTemplate {
    /// The room's version.
    pub room_version: RoomVersion,
    /// The event without hashes and signatures, in JSON.
    pub event: Bytes,
}

/// Why another server gets no help into a room or out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HandshakeRefusal {
    /// The room is not here, or not for this server.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The asking server does not know rooms of this version.
    #[error("your server does not know room version {0}")]
    IncompatibleVersion(RoomVersion),
    /// This server cannot tell whether the user is in a room whose members may join.
    #[error("this server cannot tell whether the user may join")]
    CannotAuthorise,
    /// The user may join, but nobody here may let others in.
    #[error("nobody on this server may let the user into the room")]
    CannotGrant,
    /// The room does not allow it.
    #[error("{0}")]
    Forbidden(String),
    /// What was sent is not what the endpoint is for.
    #[error("{0}")]
    Invalid(String),
    /// The event cannot be put into the room.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl From<StoreError> for HandshakeRefusal {
    fn from(error: StoreError) -> Self {
        Self::Serve(error.into())
    }
}

impl Rooms {
    /// The event by which `user`, who is of `origin`, could join, leave or knock now. `versions` are the room versions
    /// that `origin` knows; a leave asks for none.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>
    ///
    /// # Errors
    /// See [`HandshakeRefusal`].
    pub async fn make_template(
        &self,
        origin: &ServerName,
        what: Handshake,
        room_id: &RoomId,
        (user, versions): (&UserId, &[String]),
    ) -> Result<MadeTemplate, HandshakeRefusal> {
        if user.server_name() != origin {
            return Err(HandshakeRefusal::Forbidden("the user is not of your server".into()));
        }
        let graph = self.admit(origin, room_id).await?;
        if what != Handshake::Leave && !versions.iter().any(|version| version == graph.version.as_str()) {
            return Err(HandshakeRefusal::IncompatibleVersion(graph.version));
        }
        let authorised_by = if what == Handshake::Join { word_for(&graph, user).await? } else { None };
        let event = suggested(&graph, user, what.membership(), authorised_by).await?;
        Ok(MadeTemplate { room_version: graph.version, event: event.json().clone() })
    }
}

/// The event, which the current state allows.
async fn suggested(
    graph: &Graph,
    user: &UserId,
    membership: Membership,
    authorised_by: Option<OwnedUserId>,
) -> Result<Pdu, HandshakeRefusal> {
    let rooms = &graph.rooms;
    let mut content = member_content(membership, &MemberProfile::default());
    if let Some(member) = authorised_by {
        content.insert(AUTHORISED_BY.into(), CanonicalJsonValue::String(member.to_string()));
    }
    let wanted = auth_types(graph.version, "m.room.member", user, Some(user.as_str()), &content)
        .map_err(|error| HandshakeRefusal::Forbidden(error.to_string()))?;
    let state = current(graph, &wanted).await?;
    let create = rooms.current_event(&graph.view, graph.room, "m.room.create", "").await?;
    let create = create.ok_or_else(|| damaged("CurrentState", "a room has no create event"))?;
    let (prev_events, depth) = end_of(graph).await?;
    let draft = EventDraft {
        room_id: Some(room_id_of(graph).await?),
        event_type: "m.room.member".into(),
        state_key: Some(user.to_string()),
        sender: user.to_owned(),
        content,
        origin_server_ts: rooms.0.clock.now().0,
        prev_events,
        auth_events: wanted.iter().filter_map(|place| Some(state.get(place)?.event_id().to_owned())).collect(),
        depth,
        redacts: None,
    };
    let event = hearth_event::template(draft, graph.version, rooms.server_name())
        .map_err(|error| SendError::Internal(error.to_string()))?;
    let state_of = |kind: &str, key: &str| match (kind, key) {
        ("m.room.create", "") => Some(create.pdu.clone()),
        _ => state.get(&(kind.to_owned(), key.to_owned())).cloned(),
    };
    check_auth(graph.version, &event, &create.pdu, &state_of)
        .map_err(|rejection| HandshakeRefusal::Forbidden(rejection.to_string()))?;
    Ok(event)
}

/// The events at `places` of the current state, as far as there are any.
pub(super) async fn current(
    graph: &Graph,
    places: &[(String, String)],
) -> Result<HashMap<(String, String), Pdu>, StoreError> {
    let keys: Vec<_> = places.iter().map(|(kind, key)| (graph.room, kind.clone(), key.clone())).collect();
    let entries = graph.view.get_many::<CurrentState>(&keys).await?;
    let there = places.iter().zip(entries).filter_map(|(place, entry)| Some((place, entry?.n)));
    let (places, numbers): (Vec<_>, Vec<u32>) = there.unzip();
    let events = graph.events(&numbers).await?;
    Ok(places.into_iter().cloned().zip(events.into_iter().map(|event| event.pdu.clone())).collect())
}

/// What an event at the room's end comes after, and its depth.
async fn end_of(graph: &Graph) -> Result<(Vec<OwnedEventId>, u64), StoreError> {
    let head = graph.rooms.head(&graph.view, graph.room).await?;
    let last = head.extremities.iter().rev().take(MAX_PREV_EVENTS);
    let ids = last.clone().map(|extremity| {
        OwnedEventId::try_from(extremity.event_id.as_str()).map_err(|error| damaged("RoomHeads", error.to_string()))
    });
    let depth = last.clone().map(|extremity| extremity.depth).max().unwrap_or(0);
    Ok((ids.collect::<Result<_, _>>()?, depth.saturating_add(1).min(MAX_DEPTH)))
}

/// The local member on whose word `user`, who is of another server, joins; `None` where nobody's word is needed.
///
/// Spec: <https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms>
async fn word_for(graph: &Graph, user: &UserId) -> Result<Option<OwnedUserId>, HandshakeRefusal> {
    let (rooms, view) = (&graph.rooms, &graph.view);
    let overview = rooms.overview(view, graph.room).await?.ok_or(ServeError::UnknownRoom)?;
    let now = rooms.current_entry(view, graph.room, "m.room.member", user.as_str()).await?;
    let settled = now
        .is_some_and(|entry| matches!(entry.membership, Some(Membership::Join | Membership::Invite | Membership::Ban)));
    if settled || !is_restricted(graph.version, &overview) {
        return Ok(None);
    }
    in_allowed_room(graph, &overview, user).await?;
    rooms.who_may_invite(view, graph.room).await?.map(Some).ok_or(HandshakeRefusal::CannotGrant)
}

/// Whether the room lets in members of other rooms.
pub(super) fn is_restricted(version: RoomVersion, overview: &RoomOverview) -> bool {
    let rules = &version.rules().authorization;
    match overview.join_rule.as_str() {
        "restricted" => rules.restricted_join_rule,
        "knock_restricted" => rules.knock_restricted_join_rule,
        _ => false,
    }
}

/// Whether `user` is a member of a room whose members the room lets in, as far as this server can tell.
pub(super) async fn in_allowed_room(
    graph: &Graph,
    overview: &RoomOverview,
    user: &UserId,
) -> Result<(), HandshakeRefusal> {
    let (rooms, view) = (&graph.rooms, &graph.view);
    let mut all_known = overview.allowed_room_ids.len() <= MAX_ALLOWED_ROOMS;
    for allowed in overview.allowed_room_ids.iter().take(MAX_ALLOWED_ROOMS) {
        let allowed = rooms.ids().room(allowed);
        // What is left of a room that everybody here has gone from says nothing about now.
        if rooms.room(view, allowed).await?.is_none()
            || !rooms.server_in_room(view, allowed, rooms.server_name()).await?
        {
            all_known = false;
            continue;
        }
        let there = rooms.current_entry(view, allowed, "m.room.member", user.as_str()).await?;
        if there.is_some_and(|entry| entry.membership == Some(Membership::Join)) {
            return Ok(());
        }
    }
    if all_known {
        let why = "the user is neither invited nor in a room whose members may join";
        return Err(HandshakeRefusal::Forbidden(why.into()));
    }
    Err(HandshakeRefusal::CannotAuthorise)
}
