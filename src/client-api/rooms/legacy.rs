//! What clients used before `/sync`, and the specification still has: `/initialSync`, `/events`,
//! `/rooms/{roomId}/initialSync` and `/events/{eventId}`.
//!
//! The first two are answers of `/sync` in another shape.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::Requester;
use hearth_rooms::{Direction, EventFilter, HistoryQuery};
use hearth_sync::{SyncRequest, UseStateAfter};
use ruma_common::{OwnedEventId, OwnedRoomId, RoomId};
use serde_json::{Value, json};

use super::errors::hidden;
use super::render;
use super::screening::drop_ignored;
use crate::Api;
use crate::auth::Authed;
use crate::error::ApiError;
use crate::params::{Query, Segments};
use crate::reply;
use crate::tokens;

const BOOLEANS: [(&str, bool); 2] = [("true", true), ("false", false)];
/// Messages of each room.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 1000;

/// `GET /events/{eventId}`: an event of any room that the user may see it in.
pub(crate) async fn event(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(event_id): Segments<OwnedEventId>,
) -> Result<Response, ApiError> {
    let event = api.rooms.event_anywhere(&requester.user_id, &event_id).await.map_err(hidden)?;
    Ok(reply::raw(render::one(&api, &requester, &event).await?))
}

/// `GET /rooms/{roomId}/initialSync`
pub(crate) async fn room_initial_sync(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    query: Query,
) -> Result<Response, ApiError> {
    let history = HistoryQuery {
        room_id: room_id.clone(),
        from: None,
        to: None,
        direction: Direction::Backward,
        limit: limit(&query)?.max(1),
        filter: EventFilter::default(),
    };
    let mut page = api.rooms.messages(&requester.user_id, &history).await?;
    drop_ignored(&api, &requester, &mut page.events).await?;
    page.events.reverse();
    let state = api.rooms.full_state(&requester.user_id, &room_id).await?;
    let listed = api.rooms.is_listed(&room_id).await?;
    let view = api.rooms.view().await?;
    let row = api.rooms.membership(&view, requester.user, api.rooms.ids().room(&room_id)).await?;

    let mut body = Vec::with_capacity(render::size(&page.events) + render::size(&state) + 512);
    body.extend_from_slice(br#"{"messages":{"chunk":"#);
    render::array(&api, &requester, &page.events, &mut body).await?;
    if let Some(before) = page.end {
        body.extend_from_slice(format!(r#","start":"{}""#, tokens::write(&api, before)).as_bytes());
    }
    body.extend_from_slice(format!(r#","end":"{}"}},"state":"#, tokens::write(&api, page.start)).as_bytes());
    render::array(&api, &requester, &state, &mut body).await?;
    let rest = json!({
        "room_id": room_id,
        "visibility": if listed { "public" } else { "private" },
        "account_data": room_account_data(&api, &requester, &room_id).await?,
    });
    let mut rest = rest.to_string();
    if let Some(row) = row {
        // A membership is one word.
        rest.insert_str(1, &format!(r#""membership":"{}","#, row.membership.as_str()));
    }
    body.push(b',');
    body.extend_from_slice(&rest.as_bytes()[1..]);
    Ok(reply::raw(body))
}

async fn room_account_data(
    api: &Api,
    requester: &Requester,
    room_id: &RoomId,
) -> Result<Vec<serde_json::Map<String, Value>>, ApiError> {
    let items = api.accounts.all_account_data(requester.user).await?;
    let mut out = Vec::new();
    for item in items.into_iter().filter(|item| item.room == room_id.as_str()) {
        let content: Value =
            serde_json::from_str(&item.json).map_err(|error| ApiError::internal(&format!("account data: {error}")))?;
        out.push(serde_json::Map::from_iter([("type".to_owned(), item.kind.into()), ("content".to_owned(), content)]));
    }
    Ok(out)
}

/// `GET /initialSync`
pub(crate) async fn initial_sync(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    query: Query,
) -> Result<Response, ApiError> {
    let archived = query.choice("archived", &BOOLEANS)?.unwrap_or(false);
    let filter = json!({ "room": { "timeline": { "limit": limit(&query)? }, "include_leave": archived } });
    let mut answer = sync(&api, &requester, None, Duration::ZERO, &filter).await?;
    let end = answer["next_batch"].take();
    let mut rooms = Vec::new();
    for section in ["join", "leave", "invite"] {
        for (room_id, mut room) in object(answer["rooms"][section].take()) {
            rooms.push(if section == "invite" {
                invited(&room_id, &requester, &room)
            } else {
                room_info(&api, &room_id, section, &mut room, &end).await?
            });
        }
    }
    let answer = json!({
        "end": end,
        "rooms": rooms,
        "presence": events_in(&mut answer["presence"]),
        "account_data": events_in(&mut answer["account_data"]),
    });
    Ok(reply::json(&answer))
}

async fn room_info(
    api: &Api,
    room_id: &str,
    membership: &str,
    room: &mut Value,
    end: &Value,
) -> Result<Value, ApiError> {
    let id = <&RoomId>::try_from(room_id).map_err(|error| ApiError::internal(&error.to_string()))?;
    let listed = api.rooms.is_listed(id).await?;
    let state_key = if room.get("state_after").is_some() { "state_after" } else { "state" };
    let mut info = json!({
        "room_id": room_id,
        "membership": membership,
        "visibility": if listed { "public" } else { "private" },
        "state": with_room(events_in(&mut room[state_key]), room_id),
        "account_data": events_in(&mut room["account_data"]),
        "messages": { "end": end },
    });
    let start = room["timeline"]["prev_batch"].take();
    if !start.is_null() {
        info["messages"]["start"] = start;
    }
    info["messages"]["chunk"] = with_room(events_in(&mut room["timeline"]), room_id).into();
    Ok(info)
}

/// A room that the user is invited to, with the invitation.
fn invited(room_id: &str, requester: &Requester, room: &Value) -> Value {
    let events = room["invite_state"]["events"].as_array();
    let invitation = events
        .into_iter()
        .flatten()
        .find(|event| event["type"] == "m.room.member" && event["state_key"] == requester.user_id.as_str());
    json!({ "room_id": room_id, "membership": "invite", "invite": invitation })
}

/// `GET /events`: what has happened in the user's rooms since `from`, or happens until the timeout.
pub(crate) async fn events(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    query: Query,
) -> Result<Response, ApiError> {
    let timeout = query.parse("timeout")?.map_or(Duration::ZERO, Duration::from_millis);
    let mut filter = json!({ "room": { "timeline": { "limit": MAX_LIMIT } } });
    if let Some(room_id) = query.get("room_id") {
        let room_id = <&RoomId>::try_from(room_id).map_err(|_| crate::params::invalid("room_id"))?;
        if !api.rooms.joined_room_ids(&requester.user_id).await?.iter().any(|joined| joined == room_id) {
            return Err(ApiError::forbidden("you are not in this room"));
        }
        filter["room"]["rooms"] = json!([room_id]);
    }
    let from = if let Some(from) = query.get("from").filter(|from| !from.is_empty()) {
        from.to_owned()
    } else {
        let nothing = json!({ "room": { "rooms": [] } });
        let answer = sync(&api, &requester, None, Duration::ZERO, &nothing).await?;
        let token = answer["next_batch"].as_str();
        token.ok_or_else(|| ApiError::internal(&"an answer of /sync has no next_batch"))?.to_owned()
    };
    let mut answer = sync(&api, &requester, Some(&from), timeout, &filter).await?;
    let mut chunk = Vec::new();
    for section in ["join", "leave", "invite"] {
        for (room_id, mut room) in object(answer["rooms"][section].take()) {
            let part = if section == "invite" { "invite_state" } else { "timeline" };
            chunk.extend(with_room(events_in(&mut room[part]), &room_id));
        }
    }
    chunk.append(&mut events_in(&mut answer["presence"]));
    Ok(reply::json(&json!({ "start": from, "end": answer["next_batch"], "chunk": chunk })))
}

/// An answer of `/sync`, to be read.
async fn sync(
    api: &Api,
    requester: &Requester,
    since: Option<&str>,
    timeout: Duration,
    filter: &Value,
) -> Result<Value, ApiError> {
    let filter = filter.to_string();
    let request = SyncRequest {
        since,
        filter: Some(&filter),
        use_state_after: UseStateAfter::Yes,
        timeout,
        ..SyncRequest::default()
    };
    let answer = api.sync.sync(requester, &request).await?;
    serde_json::from_slice(&answer).map_err(|error| ApiError::internal(&format!("an answer of /sync: {error}")))
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    if let Value::Object(object) = value { object } else { serde_json::Map::new() }
}

/// The list of events in a section of the answer, which may be absent.
fn events_in(section: &mut Value) -> Vec<Value> {
    match section.get_mut("events").map(Value::take) {
        Some(Value::Array(events)) => events,
        _ => Vec::new(),
    }
}

fn with_room(mut events: Vec<Value>, room_id: &str) -> Vec<Value> {
    for event in &mut events {
        event["room_id"] = room_id.into();
    }
    events
}

/// `limit`, at most [`MAX_LIMIT`].
fn limit(query: &Query) -> Result<usize, ApiError> {
    let asked = query.parse::<u64>("limit")?;
    Ok(asked.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(MAX_LIMIT)).min(MAX_LIMIT))
}
