//! `POST /account/password`, `POST /account/deactivate` and `GET /account/3pid`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use hearth_accounts::{Erase, LogoutDevices};
use hearth_base::Secret;
use http::Method;
use serde::Deserialize;

use crate::auth::Authed;
use crate::body::{self, RawBody};
use crate::error::ApiError;
use crate::params::required;
use crate::uia::{self, Operation};
use crate::{Api, reply};

#[derive(Deserialize)]
struct PasswordBody {
    new_password: Option<String>,
    logout_devices: Option<bool>,
}

/// `POST /account/password`
pub(crate) async fn password(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    let body: PasswordBody = body::parse(&bytes, api.settings.json_depth)?;
    let new = Secret::new(required(body.new_password, "new_password")?);
    let operation = Operation { method: Method::POST, path: "/account/password" };
    let confirmed = uia::confirm(&api, &requester, operation, &bytes).await?;
    let logout = match body.logout_devices {
        None | Some(true) => LogoutDevices::Others(requester.client.name().to_owned()),
        Some(false) => LogoutDevices::None,
    };
    api.accounts.change_password(requester.user, &new, logout).await?;
    api.accounts.uia_complete(&confirmed);
    Ok(reply::empty())
}

/// `GET /account/3pid`: no addresses are kept here, as the capability `m.3pid_changes` says.
pub(crate) async fn third_party_ids(_: Authed) -> Response {
    reply::raw(Bytes::from_static(br#"{"threepids":[]}"#))
}

#[derive(Default, Deserialize)]
struct DeactivateBody {
    erase: Option<bool>,
}

/// `POST /account/deactivate`
pub(crate) async fn deactivate(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    let body: DeactivateBody =
        if bytes.is_empty() { DeactivateBody::default() } else { body::parse(&bytes, api.settings.json_depth)? };
    let operation = Operation { method: Method::POST, path: "/account/deactivate" };
    let confirmed = uia::confirm(&api, &requester, operation, &bytes).await?;
    let erase = if body.erase == Some(true) { Erase::Yes } else { Erase::No };
    api.accounts.deactivate(requester.user, erase).await?;
    api.accounts.uia_complete(&confirmed);
    // The rooms are left whether or not anybody waits for it. What others are shown should change at once, and will
    // in any case.
    if erase == Erase::Yes
        && let Err(error) = api.rooms.note_erased(&requester.user_id).await
    {
        tracing::warn!(user_id = %requester.user_id, %error, "an erased user is shown for a moment longer");
    }
    // There are never any third-party identifiers to be unbound: that is a success.
    Ok(reply::raw(Bytes::from_static(br#"{"id_server_unbind_result":"success"}"#)))
}
