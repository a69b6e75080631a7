//! `/user/{userId}/rooms/{roomId}/tags`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use ruma_common::{OwnedRoomId, OwnedUserId};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Api;
use crate::auth::{Authed, only_oneself};
use crate::body::Json;
use crate::error::ApiError;
use crate::params::Segments;
use crate::reply;

#[derive(Serialize)]
struct Tags {
    tags: Map<String, Value>,
}

/// `GET /user/{userId}/rooms/{roomId}/tags`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, room_id)): Segments<(OwnedUserId, OwnedRoomId)>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    let tags = api.accounts.room_tags(requester.user, &room_id).await?;
    Ok(reply::json(&Tags { tags }))
}

/// `PUT /user/{userId}/rooms/{roomId}/tags/{tag}`
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, room_id, tag)): Segments<(OwnedUserId, OwnedRoomId, String)>,
    Json(content): Json<Map<String, Value>>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    api.accounts.set_room_tag(requester.user, &room_id, (&tag, &content)).await?;
    Ok(reply::empty())
}

/// `DELETE /user/{userId}/rooms/{roomId}/tags/{tag}`. A tag that is not there is no error.
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, room_id, tag)): Segments<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    api.accounts.remove_room_tag(requester.user, &room_id, &tag).await?;
    Ok(reply::empty())
}
