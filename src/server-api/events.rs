//! Events and states: `event`, `state`, `state_ids`, `event_auth`, `backfill`, `get_missing_events`,
//! `timestamp_to_event`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use hearth_base::Millis;
use hearth_rooms::{Direction, MissingQuery, ServeError, ServedState};
use ruma_common::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::params::{Query, Segments, invalid};
use crate::signed::Signed;
use crate::stream::{Form, Part};
use crate::{Api, body, reply, stream};

/// Events that are given if nothing is said, §"get_missing_events".
const DEFAULT_MISSING: u64 = 10;

impl From<ServeError> for ApiError {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::UnknownRoom => Self::not_found("the room is not known"),
            ServeError::Denied | ServeError::NotInRoom => Self::forbidden(error.to_string()),
            ServeError::UnknownEvent => Self::not_found("the event is not known"),
            ServeError::Store(error) => error.into(),
        }
    }
}

/// A transaction with these PDUs in it.
fn transaction(api: &Api, pdus: &[Bytes]) -> Response {
    let mut out = b"{\"origin\":".to_vec();
    reply::write_string(api.rooms.server_name().as_str(), &mut out);
    out.extend_from_slice(b",\"origin_server_ts\":");
    out.extend_from_slice(api.clock.now().0.to_string().as_bytes());
    out.extend_from_slice(b",\"pdus\":");
    out.extend_from_slice(&reply::list(pdus));
    out.push(b'}');
    reply::raw(out)
}

/// `GET /event/{eventId}`
pub(crate) async fn event(
    State(api): State<Arc<Api>>,
    Segments(event_id): Segments<OwnedEventId>,
    Signed { origin, .. }: Signed,
) -> Result<Response, ApiError> {
    let event = api.rooms.event_for_server(&origin, &event_id).await?;
    Ok(transaction(&api, &[event.json().clone()]))
}

fn event_id_of(query: &Query) -> Result<OwnedEventId, ApiError> {
    query.required("event_id")?.try_into().map_err(|_| invalid("event_id"))
}

/// `GET /state/{roomId}`
pub(crate) async fn state(
    State(api): State<Arc<Api>>,
    Segments(room_id): Segments<OwnedRoomId>,
    query: Query,
    Signed { origin, .. }: Signed,
) -> Result<Response, ApiError> {
    let state = api.rooms.state_for_server(&origin, &room_id, &event_id_of(&query)?).await?;
    Ok(both(state, ("auth_chain", "pdus"), Form::Pdu))
}

/// `GET /state_ids/{roomId}`
pub(crate) async fn state_ids(
    State(api): State<Arc<Api>>,
    Segments(room_id): Segments<OwnedRoomId>,
    query: Query,
    Signed { origin, .. }: Signed,
) -> Result<Response, ApiError> {
    let state = api.rooms.state_for_server(&origin, &room_id, &event_id_of(&query)?).await?;
    Ok(both(state, ("auth_chain_ids", "pdu_ids"), Form::Id))
}

fn both(state: ServedState, (auth_chain, pdus): (&str, &str), form: Form) -> Response {
    stream::answer(vec![
        Part::text(format!("{{\"{auth_chain}\":[")),
        Part::Events(state.auth_chain, form),
        Part::text(format!("],\"{pdus}\":[")),
        Part::Events(state.state, form),
        Part::text("]}"),
    ])
}

/// `GET /event_auth/{roomId}/{eventId}`
pub(crate) async fn event_auth(
    State(api): State<Arc<Api>>,
    Segments((room_id, event_id)): Segments<(OwnedRoomId, OwnedEventId)>,
    Signed { origin, .. }: Signed,
) -> Result<Response, ApiError> {
    let chain = api.rooms.event_auth_for_server(&origin, &room_id, &event_id).await?;
    Ok(stream::answer(vec![Part::text("{\"auth_chain\":["), Part::Events(chain, Form::Pdu), Part::text("]}")]))
}

/// `GET /backfill/{roomId}`
pub(crate) async fn backfill(
    State(api): State<Arc<Api>>,
    Segments(room_id): Segments<OwnedRoomId>,
    query: Query,
    Signed { origin, .. }: Signed,
) -> Result<Response, ApiError> {
    let from: Result<Vec<OwnedEventId>, _> = query.all("v").map(OwnedEventId::try_from).collect();
    let from = from.map_err(|_| invalid("v"))?;
    if from.is_empty() {
        return Err(ApiError::missing_param("v"));
    }
    let limit = query.parse::<u64>("limit")?.ok_or_else(|| ApiError::missing_param("limit"))?;
    let events = api.rooms.backfill_for_server(&origin, &room_id, &from, count(limit)).await?;
    Ok(transaction(&api, &events))
}

/// What is not in this machine's range is more than there is.
fn count(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[derive(Deserialize)]
struct Missing {
    latest_events: Vec<OwnedEventId>,
    earliest_events: Vec<OwnedEventId>,
    limit: Option<u64>,
    min_depth: Option<i64>,
}

/// `POST /get_missing_events/{roomId}`
pub(crate) async fn get_missing_events(
    State(api): State<Arc<Api>>,
    Segments(room_id): Segments<OwnedRoomId>,
    Signed { origin, body }: Signed,
) -> Result<Response, ApiError> {
    let Missing { latest_events, earliest_events, limit, min_depth } = body::parse(&body)?;
    let query = MissingQuery {
        latest: latest_events,
        earliest: earliest_events,
        limit: count(limit.unwrap_or(DEFAULT_MISSING)),
        // Nothing is less deep than 0.
        min_depth: u64::try_from(min_depth.unwrap_or(0)).unwrap_or(0),
    };
    let events = api.rooms.missing_for_server(&origin, &room_id, &query).await?;
    let mut out = b"{\"events\":".to_vec();
    out.extend_from_slice(&reply::list(&events));
    out.push(b'}');
    Ok(reply::raw(out))
}

#[derive(Serialize)]
struct AtTime {
    event_id: OwnedEventId,
    origin_server_ts: u64,
}

/// `GET /timestamp_to_event/{roomId}`
pub(crate) async fn timestamp_to_event(
    State(api): State<Arc<Api>>,
    Segments(room_id): Segments<OwnedRoomId>,
    query: Query,
    Signed { origin, .. }: Signed,
) -> Result<Response, ApiError> {
    let time = query.parse("ts")?.map(Millis).ok_or_else(|| ApiError::missing_param("ts"))?;
    let direction = query.choice("dir", &[("f", Direction::Forward), ("b", Direction::Backward)])?;
    let direction = direction.ok_or_else(|| ApiError::missing_param("dir"))?;
    let found = api.rooms.event_at_time_for_server(&origin, &room_id, time, direction).await?;
    Ok(reply::json(&AtTime { event_id: found.event_id, origin_server_ts: found.origin_server_ts.0 }))
}
