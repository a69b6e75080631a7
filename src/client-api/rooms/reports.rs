//! `POST /rooms/{roomId}/report`, `POST /rooms/{roomId}/report/{eventId}` and
//! `POST /users/{userId}/report`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{ReportError, Reported, StorageError};
use hearth_schema::Membership;
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use super::errors::hidden;
use crate::Api;
use crate::auth::Authed;
use crate::body::{Json, OptionalJson};
use crate::error::ApiError;
use crate::params::{Segments, required};
use crate::reply;

#[derive(Default, Deserialize)]
pub(crate) struct Body {
    reason: Option<String>,
}

/// Reports a room; whoever reports it need not be in it.
pub(crate) async fn room(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    Json(body): Json<Body>,
) -> Result<Response, ApiError> {
    let reason = required(body.reason, "reason")?;
    let view = api.rooms.view().await?;
    if api.rooms.room(&view, api.rooms.ids().room(&room_id)).await?.is_none() {
        return Err(ApiError::not_found("there is no such room"));
    }
    api.accounts.report(&requester, Reported::Room(room_id), reason).await?;
    Ok(reply::empty())
}

/// Reports an event that the requester can see in a room that it is in.
pub(crate) async fn event(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_id)): Segments<(OwnedRoomId, OwnedEventId)>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Response, ApiError> {
    let view = api.rooms.view().await?;
    let standing = api.rooms.membership(&view, requester.user, api.rooms.ids().room(&room_id)).await?;
    if standing.is_none_or(|row| row.membership != Membership::Join) {
        return Err(ApiError::not_found("there is no such event, or you are not in the room"));
    }
    let event = api.rooms.event(&requester.user_id, &room_id, &event_id).await.map_err(hidden)?;
    let sender = event.sender().to_owned();
    let subject = Reported::Event { room_id, event_id, sender };
    api.accounts.report(&requester, subject, body.reason.unwrap_or_default()).await?;
    Ok(reply::empty())
}

/// Reports a user; whoever reports it need not share a room with it.
pub(crate) async fn user(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(user_id): Segments<OwnedUserId>,
    Json(body): Json<Body>,
) -> Result<Response, ApiError> {
    let reason = required(body.reason, "reason")?;
    if api.accounts.profile(&user_id).await?.is_none() {
        return Err(ApiError::not_found("there is no such user here"));
    }
    api.accounts.report(&requester, Reported::User(user_id), reason).await?;
    Ok(reply::empty())
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::ReasonTooLong => Self::too_large(error.to_string()),
            ReportError::Storage(StorageError::Full) => Self::disk_full(),
            ReportError::Storage(error) => error.into(),
        }
    }
}
