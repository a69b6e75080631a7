//! `/_synapse/admin/v1/register`: accounts made by whoever knows the operator's secret. Unknown, like
//! any other path, where no secret is set.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{Admin, SharedSecretError, SharedSecretRequest};
use hearth_base::Secret;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::register;
use crate::body::Json;
use crate::edge::unknown_path;
use crate::error::ApiError;
use crate::params::required;
use crate::{Api, reply};

/// `GET /_synapse/admin/v1/register`
pub(crate) async fn nonce(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    match api.accounts.shared_secret_nonce() {
        Some(nonce) => Ok(reply::json(&json!({ "nonce": nonce }))),
        None => Err(unknown_path().await),
    }
}

#[derive(Deserialize)]
pub(crate) struct Body {
    nonce: Option<String>,
    username: Option<String>,
    password: Option<String>,
    displayname: Option<String>,
    admin: Option<bool>,
    user_type: Option<String>,
    inhibit_login: Option<bool>,
    mac: Option<String>,
}

/// `POST /_synapse/admin/v1/register`
pub(crate) async fn register(State(api): State<Arc<Api>>, Json(body): Json<Body>) -> Result<Response, ApiError> {
    let request = SharedSecretRequest {
        nonce: required(body.nonce, "nonce")?,
        localpart: required(body.username, "username")?,
        password: Secret::new(required(body.password, "password")?),
        admin: if body.admin == Some(true) { Admin::Yes } else { Admin::No },
        user_type: body.user_type,
        displayname: body.displayname,
        inhibit_login: body.inhibit_login.unwrap_or(false),
        mac: required(body.mac, "mac")?,
    };
    match api.accounts.register_with_secret(request).await {
        Ok(done) => Ok(register::registered(&done)),
        Err(SharedSecretError::Disabled) => Err(unknown_path().await),
        Err(SharedSecretError::UnknownNonce) => {
            Err(ApiError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "the nonce is unknown, used or too old"))
        }
        Err(SharedSecretError::WrongMac) => Err(ApiError::forbidden("the HMAC is wrong")),
        Err(SharedSecretError::BadValue(why)) => Err(ApiError::invalid_param(why)),
        Err(SharedSecretError::Register(error)) => Err(error.into()),
    }
}
