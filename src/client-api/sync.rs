//! `GET /sync`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use hearth_sync::{Filter, FilterError, SyncError, SyncRequest, TokenError, UseStateAfter};
use http::StatusCode;

use crate::Api;
use crate::auth::{Authed, unknown_token};
use crate::error::ApiError;
use crate::params::{Query, invalid};
use crate::presence::STATES;
use crate::reply;

/// Before it was specified, by MSC4222.
const UNSTABLE_STATE_AFTER: &str = "org.matrix.msc4222.use_state_after";
const BOOLEANS: [(&str, bool); 2] = [("true", true), ("false", false)];

/// What is new, or all of it.
pub(crate) async fn sync(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    query: Query,
) -> Result<Response, ApiError> {
    let request = SyncRequest {
        since: query.get("since").filter(|since| !since.is_empty()),
        filter: query.get("filter").filter(|filter| !filter.is_empty()),
        full_state: query.choice("full_state", &BOOLEANS)?.unwrap_or(false),
        use_state_after: use_state_after(&query)?,
        set_presence: query.choice("set_presence", &STATES)?.unwrap_or_default(),
        timeout: query.parse("timeout")?.map_or(Duration::ZERO, Duration::from_millis),
    };
    Ok(reply::raw(api.sync.sync(&requester, &request).await?))
}

/// Who asks in both ways gets the specified one.
fn use_state_after(query: &Query) -> Result<UseStateAfter, ApiError> {
    let [stable, unstable] = ["use_state_after", UNSTABLE_STATE_AFTER].map(|name| query.choice(name, &BOOLEANS));
    Ok(match (stable?, unstable?) {
        (Some(true), _) => UseStateAfter::Yes,
        (_, Some(true)) => UseStateAfter::Unstable,
        _ => UseStateAfter::No,
    })
}

/// Refuses text that is no filter.
pub(crate) fn check_filter(json: &str) -> Result<(), ApiError> {
    Filter::parse(json)?;
    Ok(())
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        match error {
            // The details name types of ours, not of the specification.
            FilterError::Malformed(_) => Self::bad_json("the filter is not valid"),
            FilterError::TooLong => Self::too_large("the filter is too long"),
        }
    }
}

impl From<SyncError> for ApiError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Token(TokenError::Malformed) => invalid("since"),
            SyncError::Token(TokenError::UnknownPos) => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN_POS", "\"since\" is of another life of this server")
            }
            SyncError::Filter(error) => error.into(),
            SyncError::UnknownFilter => invalid("filter"),
            SyncError::SessionEnded => unknown_token("the session has ended").with("soft_logout", false),
            SyncError::Store(error) => error.into(),
        }
    }
}
