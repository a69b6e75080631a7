//! `GET /mutual_rooms`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use ruma_common::{OwnedRoomId, OwnedUserId};
use serde::Serialize;

use crate::Api;
use crate::auth::Authed;
use crate::error::ApiError;
use crate::params::{Query, invalid};
use crate::reply;

#[derive(Serialize)]
struct Page {
    joined: Vec<OwnedRoomId>,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<OwnedRoomId>,
}

/// Rooms that the requester shares with another user.
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    query: Query,
) -> Result<Response, ApiError> {
    let other = query.required("user_id")?;
    let other = OwnedUserId::try_from(other).map_err(|_| invalid("user_id"))?;
    if other == requester.user_id {
        return Err(ApiError::invalid_param("one shares every room with oneself"));
    }
    // A token is the last room of the page before.
    let from = query.get("from").map(OwnedRoomId::try_from).transpose().map_err(|_| invalid("from"))?;
    let from = from.as_ref().map(|room| room.as_str());
    let page = api.rooms.mutual_rooms(&requester.user_id, &other, from).await?;
    Ok(reply::json(&Page { joined: page.joined, count: page.count, next_batch: page.next }))
}
