//! `/register`, `/register/available` and `/register/m.login.registration_token/validity`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use hearth_accounts::{DeviceRequest, NewAccount, Registered, Requester};
use hearth_base::Secret;
use hearth_schema::AccountKind;
use ruma_common::{DeviceId, OwnedDeviceId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::refresh::RefreshReply;
use super::services;
use crate::auth::Token;
use crate::body::OptionalJson;
use crate::error::ApiError;
use crate::params::{Query, required};
use crate::services::shown;
use crate::{Api, reply, uia};

#[derive(Default, Deserialize)]
pub(crate) struct Body {
    auth: Option<Value>,
    /// Application services say that they are one.
    r#type: Option<String>,
    username: Option<String>,
    password: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    inhibit_login: Option<bool>,
    /// The client can refresh its access token.
    refresh_token: Option<bool>,
    /// A guest registers and keeps the account.
    guest_access_token: Option<String>,
}

#[derive(Serialize)]
struct RegisterReply<'a> {
    user_id: &'a UserId,
    home_server: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a DeviceId>,
    #[serde(flatten)]
    refresh: Option<RefreshReply<'a>>,
}

/// `POST /register`
pub(crate) async fn register(
    State(api): State<Arc<Api>>,
    query: Query,
    token: Token,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Response, ApiError> {
    if kind(&query)? == AccountKind::Guest {
        let done = api.accounts.register_guest(body.initial_device_display_name).await?;
        return Ok(registered(&done));
    }
    if body.r#type.as_deref() == Some(services::TYPE) {
        return services::register(&api, shown(&api, &token)?, account(body, None, None)).await;
    }
    let guest = guest(&api, &body).await?;
    // The spec wants to hear of a bad name before any stage is asked for.
    if let (Some(username), None) = (&body.username, &guest) {
        api.accounts.is_available(username).await?;
    }
    let confirmed = uia::confirm_registration(&api, body.auth.as_ref()).await?;
    let mut body = body;
    let password = Secret::new(required(body.password.take(), "password")?);
    let account = account(body, Some(password), confirmed.registration_token.clone());
    let done = match &guest {
        None => api.accounts.register(account).await?,
        Some(guest) => api.accounts.upgrade_guest(guest, account).await?,
    };
    api.accounts.uia_complete(&confirmed);
    Ok(registered(&done))
}

/// What somebody asks for who registers.
fn account(body: Body, password: Option<Secret<String>>, registration_token: Option<String>) -> NewAccount {
    NewAccount {
        localpart: body.username,
        password,
        device: DeviceRequest {
            device_id: body.device_id,
            display_name: body.initial_device_display_name,
            refresh: body.refresh_token.unwrap_or(false),
        },
        inhibit_login: body.inhibit_login.unwrap_or(false),
        registration_token,
    }
}

/// The answer to a registration.
pub(crate) fn registered(done: &Registered) -> Response {
    reply::json(&RegisterReply {
        user_id: &done.user_id,
        home_server: done.user_id.server_name().as_str(),
        access_token: done.session.as_ref().map(|session| session.access_token.expose().as_str()),
        device_id: done.session.as_ref().map(|session| &*session.device_id),
        refresh: done.session.as_ref().and_then(RefreshReply::of),
    })
}

fn kind(query: &Query) -> Result<AccountKind, ApiError> {
    let kinds = [("user", AccountKind::User), ("guest", AccountKind::Guest)];
    Ok(query.choice("kind", &kinds)?.unwrap_or(AccountKind::User))
}

/// The guest who wants to become a user, if it is one.
async fn guest(api: &Api, body: &Body) -> Result<Option<Requester>, ApiError> {
    let Some(token) = &body.guest_access_token else { return Ok(None) };
    let guest = api.accounts.guest(token, body.username.as_deref()).await?;
    let wrong = || ApiError::forbidden("\"guest_access_token\" is not that of a guest called \"username\"");
    guest.ok_or_else(wrong).map(Some)
}

/// `GET /register/available`
pub(crate) async fn available(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    api.accounts.is_available(query.required("username")?).await?;
    Ok(reply::raw(Bytes::from_static(br#"{"available":true}"#)))
}

#[derive(Serialize)]
struct Validity {
    valid: bool,
}

/// `GET /register/m.login.registration_token/validity`
pub(crate) async fn token_validity(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    let valid = api.accounts.registration_token_is_valid(query.required("token")?).await?;
    Ok(reply::json(&Validity { valid }))
}
