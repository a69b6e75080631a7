//! `/publicRooms` and `/directory/list/room/{roomId}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::{DirectoryPage, DirectoryQuery, DirectoryToken, RoomVisibility};
use ruma_common::OwnedRoomId;
use serde::{Deserialize, Serialize};

use super::summary::Shown;
use crate::Api;
use crate::auth::Authed;
use crate::body::{Json, OptionalJson};
use crate::error::ApiError;
use crate::params::{Query, Segments, invalid};
use crate::reply;

/// `GET /publicRooms`: open to everybody.
pub(crate) async fn list(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    only_here(&api, &query)?;
    let limit = query.parse::<u64>("limit")?;
    let since = query.get("since");
    answer(&api, DirectoryQuery { limit: limited(limit), since: token(since)?, ..DirectoryQuery::default() }).await
}

#[derive(Default, Deserialize)]
pub(crate) struct SearchBody {
    limit: Option<u64>,
    since: Option<String>,
    filter: Option<Filter>,
}

#[derive(Default, Deserialize)]
struct Filter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

/// `POST /publicRooms`
pub(crate) async fn search(
    State(api): State<Arc<Api>>,
    _: Authed,
    query: Query,
    OptionalJson(body): OptionalJson<SearchBody>,
) -> Result<Response, ApiError> {
    only_here(&api, &query)?;
    let filter = body.filter.unwrap_or_default();
    let query = DirectoryQuery {
        limit: limited(body.limit),
        since: token(body.since.as_deref())?,
        search: filter.generic_search_term.filter(|term| !term.is_empty()),
        room_types: filter.room_types,
    };
    answer(&api, query).await
}

/// The directory of another server is reached through federation only.
fn only_here(api: &Api, query: &Query) -> Result<(), ApiError> {
    match query.get("server") {
        Some(server) if server != api.settings.server_name.as_str() => {
            Err(ApiError::not_found("this server does not federate"))
        }
        _ => Ok(()),
    }
}

fn limited(limit: Option<u64>) -> Option<usize> {
    limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// A token is `f` or `b`, members, `_`, room ID.
fn token(text: Option<&str>) -> Result<Option<DirectoryToken>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let read = || {
        let backward = text.starts_with('b');
        let rest = text.strip_prefix(if backward { 'b' } else { 'f' })?;
        let (members, room_id) = rest.split_once('_')?;
        Some(DirectoryToken { backward, members: members.parse().ok()?, room_id: room_id.to_owned() })
    };
    read().map(Some).ok_or_else(|| invalid("since"))
}

fn write(token: &DirectoryToken) -> String {
    format!("{}{}_{}", if token.backward { 'b' } else { 'f' }, token.members, token.room_id)
}

#[derive(Serialize)]
struct Page {
    chunk: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    total_room_count_estimate: usize,
}

async fn answer(api: &Api, query: DirectoryQuery) -> Result<Response, ApiError> {
    let DirectoryPage { rooms, next, previous, total } = api.rooms.directory(&query).await?;
    Ok(reply::json(&Page {
        chunk: rooms.into_iter().map(Shown::in_directory).collect(),
        next_batch: next.as_ref().map(write),
        prev_batch: previous.as_ref().map(write),
        total_room_count_estimate: total,
    }))
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Visibility {
    Private,
    Public,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct Listing {
    visibility: Option<Visibility>,
}

/// `GET /directory/list/room/{roomId}`: open to everybody.
pub(crate) async fn visibility(
    State(api): State<Arc<Api>>,
    Segments(room_id): Segments<OwnedRoomId>,
) -> Result<Response, ApiError> {
    let listed = api.rooms.is_listed(&room_id).await?;
    let visibility = Some(if listed { Visibility::Public } else { Visibility::Private });
    Ok(reply::json(&Listing { visibility }))
}

/// `PUT /directory/list/room/{roomId}`
pub(crate) async fn set_visibility(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    Json(body): Json<Listing>,
) -> Result<Response, ApiError> {
    let visibility = match body.visibility {
        None | Some(Visibility::Public) => RoomVisibility::Public,
        Some(Visibility::Private) => RoomVisibility::Private,
    };
    api.rooms.set_listed(&requester.user_id, &room_id, visibility).await?;
    Ok(reply::empty())
}
