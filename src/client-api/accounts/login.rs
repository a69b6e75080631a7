//! `/login`, `/logout`, `/logout/all` and `/account/whoami`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{DeviceRequest, LoginError};
use hearth_base::Secret;
use hearth_schema::AccountKind;
use http::{Method, StatusCode};
use ruma_common::{DeviceId, OwnedDeviceId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::refresh::RefreshReply;
use super::services;
use crate::auth::{Authed, Token};
use crate::body::{Json, RawBody};
use crate::discovery::well_known::ClientWellKnown;
use crate::edge::unknown_path;
use crate::error::ApiError;
use crate::limits::ClientAddress;
use crate::params::required;
use crate::services::shown;
use crate::uia::{self, Operation};
use crate::{Api, reply};

/// `GET /login`
pub(crate) async fn flows(State(api): State<Arc<Api>>) -> Response {
    let mut flows = vec![json!({"type": "m.login.password"})];
    if api.accounts.login_token_lifetime().is_some() {
        flows.push(json!({"type": "m.login.token", "get_login_token": true}));
    }
    if !api.accounts.services().is_empty() {
        flows.push(json!({"type": services::TYPE}));
    }
    reply::json(&json!({ "flows": flows }))
}

#[derive(Deserialize)]
pub(crate) struct Body {
    r#type: Option<String>,
    identifier: Option<Identifier>,
    /// Older clients name the user here.
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
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
    token: Token,
    Json(body): Json<Body>,
) -> Result<Response, ApiError> {
    let device = DeviceRequest {
        device_id: body.device_id,
        display_name: body.initial_device_display_name,
        refresh: body.refresh_token.unwrap_or(false),
    };
    let done = match required(body.r#type, "type")?.as_str() {
        "m.login.password" => {
            let user = login_name(body.identifier, body.user)?;
            let password = Secret::new(required(body.password, "password")?);
            let attempt = api.limits.password_attempt(&user, Some(address))?;
            let done = api.accounts.login_password(&user, &password, device).await;
            if !matches!(done, Err(LoginError::Forbidden)) {
                attempt.was_not_wrong();
            }
            done?
        }
        "m.login.token" if api.accounts.login_token_lifetime().is_some() => {
            let token = Secret::new(required(body.token, "token")?);
            match api.accounts.login_token(token.expose(), device).await {
                Err(LoginError::Forbidden) => return Err(ApiError::forbidden("the token is unknown, used or expired")),
                done => done?,
            }
        }
        services::TYPE if !api.accounts.services().is_empty() => {
            let service = shown(&api, &token)?;
            let user = login_name(body.identifier, body.user)?;
            services::login(&api, service, &user, device).await?
        }
        _ => return Err(ApiError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "this login type is not supported")),
    };
    Ok(reply::json(&LoginReply {
        user_id: &done.user_id,
        access_token: done.session.access_token.expose(),
        device_id: &done.session.device_id,
        home_server: done.user_id.server_name().as_str(),
        refresh: RefreshReply::of(&done.session),
        well_known: ClientWellKnown::of(&api.settings),
    }))
}

#[derive(Serialize)]
struct LoginToken<'a> {
    login_token: &'a str,
    expires_in_ms: u64,
}

/// `POST /v1/login/get_token`. The user is asked for the password each time, as the spec demands.
pub(crate) async fn get_token(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    if api.accounts.login_token_lifetime().is_none() {
        return Err(unknown_path().await);
    }
    let operation = Operation { method: Method::POST, path: "/login/get_token" };
    let confirmed = uia::confirm(&api, &requester, operation, &bytes).await?;
    let (token, lifetime) = api.accounts.create_login_token(&requester).await?;
    api.accounts.uia_complete(&confirmed);
    let expires_in_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
    Ok(reply::json(&LoginToken { login_token: token.expose(), expires_in_ms }))
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
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a DeviceId>,
    is_guest: bool,
}

/// `GET /account/whoami`
pub(crate) async fn whoami(Authed(requester): Authed) -> Response {
    let is_guest = requester.standing.kind == AccountKind::Guest;
    reply::json(&WhoAmI { user_id: &requester.user_id, device_id: requester.client.device_id(), is_guest })
}
