//! `POST /refresh`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{RefreshError, Session};
use serde::{Deserialize, Serialize};

use crate::Api;
use crate::auth::unknown_token;
use crate::body::Json;
use crate::error::ApiError;
use crate::params::required;
use crate::reply;

/// What the answer to a log-in says of refreshing.
#[derive(Serialize)]
pub(crate) struct RefreshReply<'a> {
    refresh_token: &'a str,
    expires_in_ms: u64,
}

impl<'a> RefreshReply<'a> {
    /// `None` if the session's access token does not expire.
    pub(crate) fn of(session: &'a Session) -> Option<Self> {
        let refresh = session.refresh.as_ref()?;
        let expires_in_ms = u64::try_from(refresh.expires_in.as_millis()).unwrap_or(u64::MAX);
        Some(Self { refresh_token: refresh.token.expose(), expires_in_ms })
    }
}

#[derive(Deserialize)]
pub(crate) struct Body {
    refresh_token: Option<String>,
}

#[derive(Serialize)]
struct Refreshed<'a> {
    access_token: &'a str,
    #[serde(flatten)]
    refresh: Option<RefreshReply<'a>>,
}

/// `POST /refresh`
pub(crate) async fn refresh(State(api): State<Arc<Api>>, Json(body): Json<Body>) -> Result<Response, ApiError> {
    let session = api.accounts.refresh(&required(body.refresh_token, "refresh_token")?).await?;
    let refreshed = Refreshed { access_token: session.access_token.expose(), refresh: RefreshReply::of(&session) };
    Ok(reply::json(&refreshed))
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Unknown => unknown_token("the refresh token is not known").with("soft_logout", false),
            RefreshError::Spent => unknown_token("the refresh token has already been used").with("soft_logout", true),
            RefreshError::Locked => crate::standing::locked(),
            RefreshError::Storage(error) => error.into(),
        }
    }
}
