//! Simplified sliding sync (MSC4186), and the threads that a user follows (MSC4308).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use hearth_sync::{PageToken, SlidingBody, SlidingError, SlidingRequest, ThreadPage};
use http::StatusCode;

use crate::Api;
use crate::auth::{Authed, unknown_token};
use crate::body::OptionalJson;
use crate::error::ApiError;
use crate::params::{Query, invalid};
use crate::presence::STATES;
use crate::reply;

/// Decisions about threads in one answer, when the client does not say.
const THREADS: usize = 100;

/// `POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync`. What the query says goes before the body:
/// the proposal has moved these parameters from there.
pub(crate) async fn sync(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    query: Query,
    OptionalJson(body): OptionalJson<SlidingBody>,
) -> Result<Response, ApiError> {
    let set_presence = match (query.choice("set_presence", &STATES)?, &body.set_presence) {
        (Some(state), _) => Some(state),
        (None, None) => None,
        (None, Some(word)) => {
            let state = STATES.iter().find(|(known, _)| known == word).map(|(_, state)| *state);
            Some(state.ok_or_else(|| invalid("set_presence"))?)
        }
    };
    let pos = query.get("pos").or(body.pos.as_deref());
    let request = SlidingRequest {
        pos: pos.filter(|pos| !pos.is_empty()),
        timeout: query.parse("timeout")?.or(body.timeout).map_or(Duration::ZERO, Duration::from_millis),
        set_presence: set_presence.unwrap_or_default(),
        body: &body,
    };
    Ok(reply::raw(api.sync.slide(&requester, &request).await?))
}

/// `GET /_matrix/client/unstable/io.element.msc4308/thread_subscriptions`
pub(crate) async fn threads(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    query: Query,
) -> Result<Response, ApiError> {
    // There is one direction.
    query.choice("dir", &[("b", ())])?;
    let token = |name| -> Result<Option<PageToken>, ApiError> {
        let parse = |text| PageToken::parse(text, api.sync.incarnation()).map_err(|_| invalid(name));
        query.get(name).map(parse).transpose()
    };
    let limit = query.parse("limit")?.unwrap_or(THREADS);
    if limit == 0 {
        return Err(invalid("limit"));
    }
    let page = ThreadPage { from: token("from")?, to: token("to")?, limit };
    Ok(reply::raw(api.sync.thread_subscriptions(&requester, &page).await?))
}

impl From<SlidingError> for ApiError {
    fn from(error: SlidingError) -> Self {
        match error {
            SlidingError::UnknownPos => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN_POS", "the position is not known: begin anew")
            }
            SlidingError::Invalid(name) => invalid(name),
            SlidingError::SessionEnded => unknown_token("the session has ended").with("soft_logout", false),
            SlidingError::Store(error) => error.into(),
        }
    }
}
