//! `/user/{userId}/openid/request_token`, and the question of the service that was shown the token.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::OPENID_LIFETIME;
use ruma_common::{OwnedUserId, UserId};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::auth::{Authed, only_oneself, unknown_token};
use crate::body::OptionalJson;
use crate::error::ApiError;
use crate::params::{Query, Segments};
use crate::{Api, reply};

#[derive(Serialize)]
struct Requested<'a> {
    access_token: &'a str,
    token_type: &'static str,
    matrix_server_name: &'a str,
    /// Seconds.
    expires_in: u64,
}

/// `POST /user/{userId}/openid/request_token`
pub(crate) async fn request_token(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(user): Segments<OwnedUserId>,
    OptionalJson(_): OptionalJson<Map<String, Value>>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    let token = api.accounts.openid_token(&user);
    Ok(reply::json(&Requested {
        access_token: token.expose(),
        token_type: "Bearer",
        matrix_server_name: api.settings.server_name.as_str(),
        expires_in: OPENID_LIFETIME.as_secs(),
    }))
}

#[derive(Serialize)]
struct UserInfo<'a> {
    sub: &'a UserId,
}

/// `GET /_matrix/federation/v1/openid/userinfo`. Any service asks it, not only servers.
pub(crate) async fn userinfo(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    let user = api.accounts.openid_user(query.required("access_token")?).await?;
    let user = user.ok_or_else(|| unknown_token("the token is not known or has expired"))?;
    Ok(reply::json(&UserInfo { sub: &user }))
}
