//! `/presence/{userId}/status`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::PresenceState;
use hearth_sync::{PresenceError, SetPresenceError};
use ruma_common::OwnedUserId;
use serde::Deserialize;

use crate::Api;
use crate::auth::{Authed, only_oneself};
use crate::body::Json;
use crate::error::ApiError;
use crate::params::{Segments, required};
use crate::reply;

/// The specification's words.
pub(crate) const STATES: [(&str, PresenceState); 3] = [
    ("online", PresenceState::Online),
    ("unavailable", PresenceState::Unavailable),
    ("offline", PresenceState::Offline),
];

#[derive(Deserialize)]
pub(crate) struct Body {
    presence: Option<String>,
    status_msg: Option<String>,
}

/// Sets one's own presence.
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(user): Segments<OwnedUserId>,
    Json(body): Json<Body>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    let word = required(body.presence, "presence")?;
    let state = STATES.iter().find(|(known, _)| *known == word).map(|(_, state)| *state);
    let state = state.ok_or_else(|| ApiError::bad_json("\"presence\" is none of the spec's"))?;
    api.sync.set_presence(&requester, state, body.status_msg).await?;
    Ok(reply::empty())
}

/// The presence of somebody with whom the requester shares a room.
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(user): Segments<OwnedUserId>,
) -> Result<Response, ApiError> {
    Ok(reply::raw(api.sync.presence_of(&requester, &user).await?))
}

impl From<PresenceError> for ApiError {
    fn from(error: PresenceError) -> Self {
        match error {
            PresenceError::Forbidden => Self::forbidden(error.to_string()),
            PresenceError::Off => Self::not_found(error.to_string()),
            PresenceError::Store(error) => error.into(),
        }
    }
}

impl From<SetPresenceError> for ApiError {
    fn from(error: SetPresenceError) -> Self {
        match error {
            SetPresenceError::StatusTooLong(error) => Self::too_large(error.to_string()),
            SetPresenceError::Store(error) => error.into(),
        }
    }
}
