//! `GET /rooms/{roomId}/messages`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::{Direction, HistoryQuery};
use hearth_sync::RoomSection;
use ruma_common::OwnedRoomId;

use super::render;
use super::screening::drop_ignored;
use crate::Api;
use crate::auth::Authed;
use crate::error::ApiError;
use crate::params::{Query, Segments};
use crate::reply;
use crate::tokens;

const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 1000;

/// A page of a room's history.
pub(crate) async fn messages(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    query: Query,
) -> Result<Response, ApiError> {
    let direction = query.choice("dir", &[("b", Direction::Backward), ("f", Direction::Forward)])?;
    let mut filter = filter(&query)?;
    if !filter.rooms.contains(room_id.as_str()) {
        filter.events.types = Some(Vec::new());
    }
    let history = HistoryQuery {
        from: tokens::read(&api, &query, "from")?,
        to: tokens::read(&api, &query, "to")?,
        direction: direction.unwrap_or(Direction::Backward),
        limit: limit(&query, &filter)?.max(1),
        room_id,
        filter: filter.events,
    };
    let mut page = api.rooms.messages(&requester.user_id, &history).await?;
    drop_ignored(&api, &requester, &mut page.events).await?;
    let mut body = Vec::with_capacity(render::size(&page.events) + render::size(&page.state) + 128);
    body.extend_from_slice(br#"{"chunk":"#);
    render::array(&api, &requester, &page.events, &mut body).await?;
    if !page.state.is_empty() {
        body.extend_from_slice(br#","state":"#);
        render::array(&api, &requester, &page.state, &mut body).await?;
    }
    // Tokens are made of letters, digits and _: nothing to escape.
    if let Some(end) = page.end {
        body.extend_from_slice(format!(r#","end":"{}""#, tokens::write(&api, end)).as_bytes());
    }
    body.extend_from_slice(format!(r#","start":"{}"}}"#, tokens::write(&api, page.start)).as_bytes());
    Ok(reply::raw(body))
}

/// How many events: the smaller of the parameter and the filter's, at most [`MAX_LIMIT`].
pub(crate) fn limit(query: &Query, filter: &RoomSection) -> Result<usize, ApiError> {
    let asked = query.parse::<u64>("limit")?.map(|limit| usize::try_from(limit).unwrap_or(MAX_LIMIT));
    let limit = [asked, filter.limit].into_iter().flatten().min().unwrap_or(DEFAULT_LIMIT);
    Ok(limit.min(MAX_LIMIT))
}

/// The `RoomEventFilter` in `filter`.
pub(crate) fn filter(query: &Query) -> Result<RoomSection, ApiError> {
    let Some(json) = query.get("filter") else { return Ok(RoomSection::default()) };
    Ok(RoomSection::parse(json)?)
}
