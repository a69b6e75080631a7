//! `GET /rooms/{roomId}/threads`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::{ThreadsInclude, ThreadsQuery};
use hearth_sync::RoomSection;
use ruma_common::OwnedRoomId;

use super::messages::limit;
use super::render;
use crate::Api;
use crate::auth::Authed;
use crate::error::ApiError;
use crate::params::{Query, Segments, invalid};
use crate::reply;
use crate::tokens;

/// The threads of a room, the one with the newest reply first.
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    query: Query,
) -> Result<Response, ApiError> {
    let choices = [("all", ThreadsInclude::All), ("participated", ThreadsInclude::Participated)];
    let ask = ThreadsQuery {
        room_id,
        include: query.choice("include", &choices)?.unwrap_or_default(),
        from: tokens::read(&api, &query, "from")?,
        limit: limit(&query, &RoomSection::default())?,
    };
    if ask.limit == 0 {
        return Err(invalid("limit"));
    }
    let page = api.rooms.threads(&requester.user_id, &ask).await?;
    let mut body = Vec::with_capacity(render::size(&page.roots) + 128);
    body.extend_from_slice(br#"{"chunk":"#);
    render::array(&api, &requester, &page.roots, &mut body).await?;
    // Tokens are made of letters, digits and _: nothing to escape.
    if let Some(next) = page.next {
        body.extend_from_slice(format!(r#","next_batch":"{}""#, tokens::write(&api, next)).as_bytes());
    }
    body.push(b'}');
    Ok(reply::raw(body))
}
