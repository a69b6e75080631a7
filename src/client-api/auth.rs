//! Who asks: §"Using access tokens".

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use hearth_accounts::{Requester, TokenState};
use hearth_base::Secret;
use http::request::Parts;
use http::{HeaderMap, StatusCode, Uri, header};
use ruma_common::UserId;

use crate::error::ApiError;
use crate::{Api, ClientApiSettings, params, services, standing};

/// The user and device whose access token the request carries, or whom an application service acts as.
pub(crate) struct Authed(pub Requester);

impl FromRequestParts<Arc<Api>> for Authed {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let token = token(&parts.headers, &parts.uri, &api.settings).ok_or_else(missing_token)?;
        if let Some(service) = api.accounts.service(&token) {
            return Box::pin(services::requester(api, service, parts)).await.map(Self);
        }
        match api.accounts.token_state(&token).await? {
            TokenState::Live(requester) => {
                api.limits.authenticated(&parts.method, &parts.extensions, requester.user)?;
                standing::check(requester.standing, parts)?;
                Ok(Self(requester))
            }
            TokenState::Expired => Err(unknown_token("the access token has expired").with("soft_logout", true)),
            TokenState::Unknown => Err(unknown_token("the access token is not known").with("soft_logout", false)),
        }
    }
}

/// The access token that a request carries, unread: of a user, a service or nobody.
pub(crate) struct Token(pub Option<Secret<String>>);

impl FromRequestParts<Arc<Api>> for Token {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Infallible> {
        let token = token(&parts.headers, &parts.uri, &api.settings);
        Ok(Self(token.map(|token| Secret::new(token.into_owned()))))
    }
}

/// What a request shows as its access token, if anything.
pub(crate) fn token<'a>(headers: &'a HeaderMap, uri: &'a Uri, settings: &ClientApiSettings) -> Option<Cow<'a, str>> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| Cow::Borrowed(token.trim()))
    });
    bearer
        .or_else(|| {
            uri.query().filter(|_| settings.query_access_token).and_then(|query| params::find(query, "access_token"))
        })
        .filter(|token| !token.is_empty())
}

/// 401 `M_MISSING_TOKEN`
pub(crate) fn missing_token() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "an access token is required")
}

/// Whether the client may keep what it has and log in again is for the caller to say.
pub(crate) fn unknown_token(message: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", message)
}

/// The user in the path is the requester.
///
/// # Errors
/// `M_FORBIDDEN` if it is somebody else.
pub(crate) fn only_oneself(requester: &Requester, user: &UserId) -> Result<(), ApiError> {
    if requester.user_id == user { Ok(()) } else { Err(ApiError::forbidden("this is another user's")) }
}
