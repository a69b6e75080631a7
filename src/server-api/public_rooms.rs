//! `/publicRooms`: the directory, if the operator shows it to other servers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::{DirectoryPage, DirectoryQuery, DirectoryToken, RoomOverview};
use ruma_common::OwnedRoomId;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::params::{Query, invalid};
use crate::signed::Signed;
use crate::{Api, PublicRooms, body, reply};

/// `GET /publicRooms`
pub(crate) async fn list(State(api): State<Arc<Api>>, query: Query, _: Signed) -> Result<Response, ApiError> {
    let since = token(query.get("since"))?;
    let limit = limited(query.parse::<u64>("limit")?);
    answer(&api, DirectoryQuery { limit, since, ..DirectoryQuery::default() }).await
}

#[derive(Deserialize)]
struct Search {
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
pub(crate) async fn search(State(api): State<Arc<Api>>, Signed { body, .. }: Signed) -> Result<Response, ApiError> {
    let Search { limit, since, filter } = body::parse(&body)?;
    let filter = filter.unwrap_or_default();
    let query = DirectoryQuery {
        limit: limited(limit),
        since: token(since.as_deref())?,
        search: filter.generic_search_term.filter(|term| !term.is_empty()),
        room_types: filter.room_types,
    };
    answer(&api, query).await
}

/// 0 means no limit here.
fn limited(limit: Option<u64>) -> Option<usize> {
    limit.filter(|limit| *limit > 0).map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
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

/// `PublishedRoomsChunk`
#[derive(Serialize)]
struct Shown {
    room_id: OwnedRoomId,
    num_joined_members: u32,
    world_readable: bool,
    guest_can_join: bool,
    join_rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    canonical_alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_type: Option<String>,
}

impl From<RoomOverview> for Shown {
    fn from(room: RoomOverview) -> Self {
        Self {
            room_id: room.room_id,
            num_joined_members: room.joined_members,
            world_readable: room.world_readable,
            guest_can_join: room.guest_can_join,
            join_rule: room.join_rule,
            name: room.name,
            topic: room.topic,
            canonical_alias: room.canonical_alias,
            avatar_url: room.avatar_url,
            room_type: room.room_type,
        }
    }
}

async fn answer(api: &Api, query: DirectoryQuery) -> Result<Response, ApiError> {
    if api.settings.public_rooms == PublicRooms::Closed {
        return Err(ApiError::forbidden("this server's directory is not open to other servers"));
    }
    let DirectoryPage { rooms, next, previous, total } = api.rooms.directory(&query).await?;
    Ok(reply::json(&Page {
        chunk: rooms.into_iter().map(Shown::from).collect(),
        next_batch: next.as_ref().map(write),
        prev_batch: previous.as_ref().map(write),
        total_room_count_estimate: total,
    }))
}
