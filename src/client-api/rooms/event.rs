//! `GET /rooms/{roomId}/event/{eventId}`, `GET /rooms/{roomId}/context/{eventId}` and
//! `GET /rooms/{roomId}/timestamp_to_event`.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_base::Millis;
use hearth_rooms::{Direction, EventFilter, HistoryPage, HistoryQuery, RoomEvent};
use hearth_store::Pos;
use ruma_common::{EventId, OwnedEventId, OwnedRoomId};
use serde::Serialize;

use super::errors::hidden;
use super::messages::{filter, limit};
use super::render;
use crate::Api;
use crate::auth::Authed;
use crate::error::ApiError;
use crate::params::{Query, Segments, required};
use crate::reply;
use crate::tokens;

/// One event.
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_id)): Segments<(OwnedRoomId, OwnedEventId)>,
) -> Result<Response, ApiError> {
    let event = api.rooms.event(&requester.user_id, &room_id, &event_id).await.map_err(hidden)?;
    Ok(reply::raw(render::one(&api, &requester, &event).await?))
}

#[derive(Serialize)]
struct Nearest<'a> {
    event_id: &'a EventId,
    origin_server_ts: u64,
}

/// The event nearest to a point in time.
pub(crate) async fn at_time(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    query: Query,
) -> Result<Response, ApiError> {
    let time = required(query.parse::<u64>("ts")?, "ts")?;
    let directions = [("b", Direction::Backward), ("f", Direction::Forward)];
    let direction = required(query.choice("dir", &directions)?, "dir")?;
    let event = api.rooms.event_at_time(&requester.user_id, room_id, Millis(time), direction).await?;
    Ok(reply::json(&Nearest { event_id: event.event_id(), origin_server_ts: event.pdu.origin_server_ts() }))
}

/// An event and what was said around it.
pub(crate) async fn context(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_id)): Segments<(OwnedRoomId, OwnedEventId)>,
    query: Query,
) -> Result<Response, ApiError> {
    let section = filter(&query)?;
    let (limit, filter) = (limit(&query, &section)?, section.events);
    let user = &requester.user_id;
    let event = api.rooms.event(user, &room_id, &event_id).await.map_err(hidden)?;
    // Backward reads up to and including `from`, so the event itself is left out.
    let earlier = Pos::new(event.pos.get().saturating_sub(1));
    let ask = |direction, from, limit| HistoryQuery {
        room_id: room_id.clone(),
        from: Some(from),
        to: None,
        direction,
        limit,
        filter: filter.clone(),
    };
    let before = match limit / 2 {
        0 => nothing(earlier),
        limit => api.rooms.messages(user, &ask(Direction::Backward, earlier, limit)).await?,
    };
    let after = match limit.div_ceil(2) {
        0 => nothing(event.pos),
        limit => api.rooms.messages(user, &ask(Direction::Forward, event.pos, limit)).await?,
    };
    let state = api.rooms.state_with(user, &room_id, after.events.last().unwrap_or(&event)).await?;
    let parts = [("events_before", before.events.as_slice()), ("events_after", after.events.as_slice())];
    let shown = [std::slice::from_ref(&event), &before.events, &after.events];
    let state = wanted_state(state, &filter, shown);
    let mut body = br#"{"event":"#.to_vec();
    body.extend_from_slice(&render::one(&api, &requester, &event).await?);
    body.extend_from_slice(br#","state":"#);
    render::array(&api, &requester, &state, &mut body).await?;
    body.push(b',');
    for (name, events) in parts {
        body.extend_from_slice(format!("\"{name}\":").as_bytes());
        render::array(&api, &requester, events, &mut body).await?;
        body.push(b',');
    }
    let (start, end) = (tokens::write(&api, start_of(&before)), tokens::write(&api, end_of(&after)));
    body.extend_from_slice(format!(r#""start":"{start}","end":"{end}"}}"#).as_bytes());
    Ok(reply::raw(body))
}

/// What the filter leaves of the state: with lazy loading, of the members those who sent what is `shown`.
fn wanted_state(
    mut state: Vec<Arc<RoomEvent>>,
    filter: &EventFilter,
    shown: [&[Arc<RoomEvent>]; 3],
) -> Vec<Arc<RoomEvent>> {
    state.retain(|event| filter.matches(event));
    if filter.lazy_load_members.is_some() {
        let senders: HashSet<&str> = shown.into_iter().flatten().map(|event| event.sender().as_str()).collect();
        let is_sender = |event: &RoomEvent| event.state_key().is_some_and(|key| senders.contains(key));
        state.retain(|event| event.event_type() != "m.room.member" || is_sender(event));
    }
    state
}

/// Reading backwards from here gives what comes before `page`, even if that is nothing yet.
fn start_of(page: &HistoryPage) -> Pos {
    let before_last = || page.events.last().map(|event| Pos::new(event.pos.get().saturating_sub(1)));
    page.end.or_else(before_last).unwrap_or(page.start)
}

/// Reading forwards from here gives what comes after `page`.
fn end_of(page: &HistoryPage) -> Pos {
    page.end.or_else(|| page.events.last().map(|event| event.pos)).unwrap_or(page.start)
}

const fn nothing(at: Pos) -> HistoryPage {
    HistoryPage { events: Vec::new(), start: at, end: None, state: Vec::new() }
}
