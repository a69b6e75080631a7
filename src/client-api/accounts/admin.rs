//! Endpoints for administrators of this server: who is somebody, locking, suspending.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{AdminError, Measure};
use http::StatusCode;
use ruma_common::OwnedUserId;
use serde::Deserialize;
use serde_json::{Map, json};

use crate::auth::Authed;
use crate::body::Json;
use crate::error::ApiError;
use crate::params::{Segments, required};
use crate::{Api, reply};

/// `GET /admin/whois/{userId}`
pub(crate) async fn whois(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(user): Segments<OwnedUserId>,
) -> Result<Response, ApiError> {
    let devices = api.accounts.whois(&requester, &user).await?;
    // One session a device; where it connected from is not recorded.
    let sessions = json!({ "sessions": [{ "connections": [] }] });
    let devices = devices.into_iter().map(|device| (device.device_id.to_string(), sessions.clone()));
    Ok(reply::json(&json!({ "user_id": user, "devices": devices.collect::<Map<_, _>>() })))
}

/// `GET /v1/admin/lock/{userId}`
pub(crate) async fn is_locked(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(user): Segments<OwnedUserId>,
) -> Result<Response, ApiError> {
    let moderation = api.accounts.moderation(&requester, &user).await?;
    Ok(reply::json(&json!({ "locked": moderation.locked })))
}

/// `GET /v1/admin/suspend/{userId}`
pub(crate) async fn is_suspended(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(user): Segments<OwnedUserId>,
) -> Result<Response, ApiError> {
    let moderation = api.accounts.moderation(&requester, &user).await?;
    Ok(reply::json(&json!({ "suspended": moderation.suspended })))
}

#[derive(Deserialize)]
pub(crate) struct LockBody {
    locked: Option<bool>,
}

/// `PUT /v1/admin/lock/{userId}`
pub(crate) async fn lock(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(user): Segments<OwnedUserId>,
    Json(body): Json<LockBody>,
) -> Result<Response, ApiError> {
    let measure = if required(body.locked, "locked")? { Measure::Lock } else { Measure::Unlock };
    let moderation = api.accounts.moderate(&requester, &user, measure).await?;
    Ok(reply::json(&json!({ "locked": moderation.locked })))
}

#[derive(Deserialize)]
pub(crate) struct SuspendBody {
    suspended: Option<bool>,
}

/// `PUT /v1/admin/suspend/{userId}`
pub(crate) async fn suspend(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(user): Segments<OwnedUserId>,
    Json(body): Json<SuspendBody>,
) -> Result<Response, ApiError> {
    let measure = if required(body.suspended, "suspended")? { Measure::Suspend } else { Measure::Unsuspend };
    let moderation = api.accounts.moderate(&requester, &user, measure).await?;
    Ok(reply::json(&json!({ "suspended": moderation.suspended })))
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::NotAdmin | AdminError::Oneself | AdminError::OtherAdmin => Self::forbidden(error.to_string()),
            AdminError::NotLocal => Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", error.to_string()),
            AdminError::NoAccount => Self::not_found(error.to_string()),
            AdminError::Storage(error) => error.into(),
        }
    }
}
