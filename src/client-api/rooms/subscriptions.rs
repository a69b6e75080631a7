//! Threads that a user follows, as MSC4306 proposes them:
//! `/_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::{Reason, SubscriptionError, ThreadOf};
use hearth_schema::Subscription;
use http::StatusCode;
use ruma_common::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::json;

use crate::Api;
use crate::auth::Authed;
use crate::body::Json;
use crate::error::ApiError;
use crate::params::Segments;
use crate::reply;

type Path = Segments<(OwnedRoomId, OwnedEventId)>;

#[derive(Deserialize)]
pub(crate) struct Body {
    /// The event that caused it; absent: the user wanted it.
    automatic: Option<OwnedEventId>,
}

/// `PUT`
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, root)): Path,
    Json(body): Json<Body>,
) -> Result<Response, ApiError> {
    let thread = ThreadOf { user_id: &requester.user_id, room_id: &room_id, root: &root };
    let why = body.automatic.as_deref().map_or(Reason::Manual, Reason::Automatic);
    api.rooms.subscribe_to_thread(thread, why).await?;
    Ok(reply::empty())
}

/// `DELETE`
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, root)): Path,
) -> Result<Response, ApiError> {
    let thread = ThreadOf { user_id: &requester.user_id, room_id: &room_id, root: &root };
    api.rooms.unsubscribe_from_thread(thread).await?;
    Ok(reply::empty())
}

/// `GET`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, root)): Path,
) -> Result<Response, ApiError> {
    let thread = ThreadOf { user_id: &requester.user_id, room_id: &room_id, root: &root };
    let found = api.rooms.thread_subscription(thread).await?;
    let found = found.ok_or_else(|| ApiError::not_found("you are not subscribed to this thread"))?;
    Ok(reply::json(&json!({ "automatic": found == Subscription::Automatic })))
}

impl From<SubscriptionError> for ApiError {
    fn from(error: SubscriptionError) -> Self {
        let message = error.to_string();
        match error {
            SubscriptionError::NotFound => Self::not_found(message),
            SubscriptionError::NotInThread => {
                Self::new(StatusCode::BAD_REQUEST, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", message)
            }
            SubscriptionError::Conflict => {
                Self::new(StatusCode::CONFLICT, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION", message)
            }
            SubscriptionError::TooMany => Self::new(StatusCode::BAD_REQUEST, "M_RESOURCE_LIMIT_EXCEEDED", message),
            SubscriptionError::Store(error) => error.into(),
        }
    }
}
