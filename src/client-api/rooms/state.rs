//! `/rooms/{roomId}/state…`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::Requester;
use hearth_rooms::SendEvent;
use ruma_common::{CanonicalJsonObject, OwnedRoomId, RoomId};

use super::claims::{CANONICAL_ALIAS, check_aliases};
use super::membership::may_set_member;
use super::send::{content, sent};
use super::{delayed, render};
use crate::Api;
use crate::auth::Authed;
use crate::body::RawBody;
use crate::error::ApiError;
use crate::params::{Query, Segments};
use crate::services::timestamp;
use crate::{reply, standing};

/// `GET /rooms/{roomId}/state`
pub(crate) async fn get_all(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
) -> Result<Response, ApiError> {
    let events = api.rooms.full_state(&requester.user_id, &room_id).await?;
    let mut body = Vec::with_capacity(render::size(&events));
    render::array(&api, &requester, &events, &mut body).await?;
    Ok(reply::raw(body))
}

/// `GET /rooms/{roomId}/state/{eventType}` and the same with a trailing slash.
pub(crate) async fn get_with_empty_key(
    state: State<Arc<Api>>,
    requester: Authed,
    Segments((room_id, event_type)): Segments<(OwnedRoomId, String)>,
    query: Query,
) -> Result<Response, ApiError> {
    get(state, requester, Segments((room_id, event_type, String::new())), query).await
}

#[derive(Clone, Copy)]
enum Format {
    Content,
    Event,
}

/// `GET /rooms/{roomId}/state/{eventType}/{stateKey}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_type, state_key)): Segments<(OwnedRoomId, String, String)>,
    query: Query,
) -> Result<Response, ApiError> {
    let format = query.choice("format", &[("content", Format::Content), ("event", Format::Event)])?;
    let event = api.rooms.state_event(&requester.user_id, &room_id, &event_type, &state_key).await?;
    match format.unwrap_or(Format::Content) {
        Format::Content => Ok(reply::raw(event.pdu.content_json().to_vec())),
        Format::Event => Ok(reply::raw(render::one(&api, &requester, &event).await?)),
    }
}

/// `PUT /rooms/{roomId}/state/{eventType}` and the same with a trailing slash.
pub(crate) async fn put_with_empty_key(
    state: State<Arc<Api>>,
    requester: Authed,
    Segments((room_id, event_type)): Segments<(OwnedRoomId, String)>,
    query: Query,
    body: RawBody,
) -> Result<Response, ApiError> {
    put(state, requester, Segments((room_id, event_type, String::new())), query, body).await
}

/// `PUT /rooms/{roomId}/state/{eventType}/{stateKey}`
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_type, state_key)): Segments<(OwnedRoomId, String, String)>,
    query: Query,
    RawBody(body): RawBody,
) -> Result<Response, ApiError> {
    let delay = delayed::wanted(&query)?;
    let origin_server_ts = timestamp(&requester, &query)?;
    let content = content(&body)?;
    may_set(&api, &requester, &room_id, (&event_type, &state_key), &content).await?;
    let event = SendEvent {
        room_id,
        event_type,
        state_key: Some(state_key),
        content,
        redacts: None,
        origin_server_ts,
        transaction: None,
        sender: requester.user_id,
    };
    if let Some(delay) = delay {
        return delayed::schedule(&api, &event, delay).await;
    }
    let done = api.rooms.send(event).await?;
    Ok(sent(&done.event_id))
}

/// Whether the requester may ask for a state event, at once or later, besides what the room makes of it: what other
/// endpoints see to when they change the same state holds here too.
///
/// # Errors
/// Those of the endpoints for memberships and 400 `M_BAD_ALIAS`.
pub(crate) async fn may_set(
    api: &Api,
    requester: &Requester,
    room_id: &RoomId,
    (event_type, state_key): (&str, &str),
    content: &CanonicalJsonObject,
) -> Result<(), ApiError> {
    standing::may_set_state(requester, event_type)?;
    match event_type {
        CANONICAL_ALIAS if state_key.is_empty() => check_aliases(api, &requester.user_id, room_id, content).await,
        "m.room.member" => may_set_member(api, requester, room_id, state_key, content).await,
        _ => Ok(()),
    }
}
