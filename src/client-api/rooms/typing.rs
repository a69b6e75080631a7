//! `PUT /rooms/{roomId}/typing/{userId}`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::Typing;
use ruma_common::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use crate::Api;
use crate::auth::{Authed, only_oneself};
use crate::body::Json;
use crate::error::ApiError;
use crate::params::{Segments, required};
use crate::reply;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Nobody types for longer without saying so again.
const MAX_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
pub(crate) struct Body {
    typing: Option<bool>,
    timeout: Option<u64>,
}

/// Starts or stops typing.
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, user_id)): Segments<(OwnedRoomId, OwnedUserId)>,
    Json(body): Json<Body>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user_id)?;
    let typing = if required(body.typing, "typing")? {
        Typing::For(body.timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis).min(MAX_TIMEOUT))
    } else {
        Typing::Stopped
    };
    api.rooms.set_typing(&room_id, &requester.user_id, typing).await?;
    api.accounts.presence().acted(requester.user);
    Ok(reply::empty())
}
