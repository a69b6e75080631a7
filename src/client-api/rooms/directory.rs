//! `/publicRooms` and `/directory/list/room/{roomId}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::{DirectoryPage, DirectoryQuery, DirectoryToken, RoomVisibility};
use ruma_common::{OwnedRoomId, OwnedServerName};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::summary::Shown;
use crate::Api;
use crate::auth::Authed;
use crate::body::{Json, OptionalJson};
use crate::elsewhere::public_rooms;
use crate::error::ApiError;
use crate::params::{Query, Segments, invalid};
use crate::reply;

/// Rooms that another server is asked for at once.
const MAX_ELSEWHERE: u64 = 100;

/// `GET /publicRooms`: open to everybody.
pub(crate) async fn list(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    let limit = query.parse::<u64>("limit")?;
    let since = query.get("since");
    if let Some(server) = elsewhere(&api, &query)? {
        let asked = page_elsewhere(limit, since);
        return Ok(reply::json(&public_rooms(&api, &server, &asked, None).await?));
    }
    answer(&api, DirectoryQuery { limit: limited(limit), since: token(since)?, ..DirectoryQuery::default() }).await
}

#[derive(Default, Deserialize, Serialize)]
pub(crate) struct SearchBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<Filter>,
}

#[derive(Default, Deserialize, Serialize)]
struct Filter {
    #[serde(skip_serializing_if = "Option::is_none")]
    generic_search_term: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_types: Option<Vec<Option<String>>>,
}

/// `POST /publicRooms`
pub(crate) async fn search(
    State(api): State<Arc<Api>>,
    _: Authed,
    query: Query,
    OptionalJson(body): OptionalJson<SearchBody>,
) -> Result<Response, ApiError> {
    if let Some(server) = elsewhere(&api, &query)? {
        let body = SearchBody { limit: Some(limited_elsewhere(body.limit)), ..body };
        let body = serde_json::to_vec(&body).map_err(|error| ApiError::internal(&error))?;
        return Ok(reply::json(&public_rooms(&api, &server, "", Some(body.into())).await?));
    }
    let filter = body.filter.unwrap_or_default();
    let query = DirectoryQuery {
        limit: limited(body.limit),
        since: token(body.since.as_deref())?,
        search: filter.generic_search_term.filter(|term| !term.is_empty()),
        room_types: filter.room_types,
    };
    answer(&api, query).await
}

/// The other server whose directory is asked for.
fn elsewhere(api: &Api, query: &Query) -> Result<Option<OwnedServerName>, ApiError> {
    let server = query.get("server").filter(|server| *server != api.settings.server_name.as_str());
    server.map(|server| OwnedServerName::try_from(server).map_err(|_| invalid("server"))).transpose()
}

/// The query that asks another server for a page.
fn page_elsewhere(limit: Option<u64>, since: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &limited_elsewhere(limit).to_string());
    query.extend_pairs(since.map(|since| ("since", since)));
    query.finish()
}

/// Rooms that another server is asked for at once.
fn limited_elsewhere(limit: Option<u64>) -> u64 {
    limit.unwrap_or(MAX_ELSEWHERE).min(MAX_ELSEWHERE)
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
