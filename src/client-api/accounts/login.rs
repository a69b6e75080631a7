//! `/login`, `/logout`, `/logout/all` and `/account/whoami`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use hearth_accounts::{DeviceRequest, LoginError};
use hearth_base::Secret;
use http::StatusCode;
use ruma_common::{DeviceId, OwnedDeviceId, UserId};
use serde::{Deserialize, Serialize};

use super::refresh::RefreshReply;
use crate::Api;
use crate::auth::Authed;
use crate::body::Json;
use crate::discovery::well_known::ClientWellKnown;
use crate::error::ApiError;
use crate::limits::ClientAddress;
use crate::params::required;
use crate::reply;

/// `GET /login`
pub(crate) async fn flows() -> Response {
    reply::raw(Bytes::from_static(br#"{"flows":[{"type":"m.login.password"}]}"#))
}

#[derive(Deserialize)]
pub(crate) struct Body {
    r#type: Option<String>,
    identifier: Option<Identifier>,
    /// Older clients name the user here.
    user: Option<String>,
    password: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    /// The client can refresh its access token.
    refresh_token: Option<bool>,
}

#[derive(Deserialize)]
pub(crate) struct Identifier {
    r#type: Option<String>,
    user: Option<String>,
}

#[derive(Serialize)]
struct LoginReply<'a> {
    user_id: &'a UserId,
    access_token: &'a str,
    device_id: &'a DeviceId,
    home_server: &'a str,
    #[serde(flatten)]
    refresh: Option<RefreshReply<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    well_known: Option<ClientWellKnown<'a>>,
}

/// `POST /login`
pub(crate) async fn login(
    State(api): State<Arc<Api>>,
    Extension(address): Extension<ClientAddress>,
    Json(body): Json<Body>,
) -> Result<Response, ApiError> {
    if required(body.r#type, "type")? != "m.login.password" {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "this login type is not supported"));
    }
    let user = login_name(body.identifier, body.user)?;
    let password = Secret::new(required(body.password, "password")?);
    let device = DeviceRequest {
        device_id: body.device_id,
        display_name: body.initial_device_display_name,
        refresh: body.refresh_token.unwrap_or(false),
    };
    let attempt = api.limits.password_attempt(&user, Some(address))?;
    let done = api.accounts.login_password(&user, &password, device).await;
    if !matches!(done, Err(LoginError::Forbidden)) {
        attempt.was_not_wrong();
    }
    let done = done?;
    Ok(reply::json(&LoginReply {
        user_id: &done.user_id,
        access_token: done.session.access_token.expose(),
        device_id: &done.session.device_id,
        home_server: done.user_id.server_name().as_str(),
        refresh: RefreshReply::of(&done.session),
        well_known: ClientWellKnown::of(&api.settings),
    }))
}

/// The localpart or user ID that somebody logs in with.
pub(crate) fn login_name(identifier: Option<Identifier>, user: Option<String>) -> Result<String, ApiError> {
    let Some(identifier) = identifier else { return required(user, "identifier") };
    match required(identifier.r#type, "identifier.type")?.as_str() {
        "m.id.user" => required(identifier.user, "identifier.user"),
        _ => Err(ApiError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "this kind of identifier is not supported")),
    }
}

/// `POST /logout`
pub(crate) async fn logout(State(api): State<Arc<Api>>, Authed(requester): Authed) -> Result<Response, ApiError> {
    api.accounts.logout(&requester).await?;
    Ok(reply::empty())
}

/// `POST /logout/all`
pub(crate) async fn logout_all(State(api): State<Arc<Api>>, Authed(requester): Authed) -> Result<Response, ApiError> {
    api.accounts.logout_all(requester.user).await?;
    Ok(reply::empty())
}

#[derive(Serialize)]
struct WhoAmI<'a> {
    user_id: &'a UserId,
    device_id: &'a DeviceId,
    is_guest: bool,
}

/// `GET /account/whoami`
pub(crate) async fn whoami(Authed(requester): Authed) -> Response {
    reply::json(&WhoAmI { user_id: &requester.user_id, device_id: &requester.device_id, is_guest: false })
}
