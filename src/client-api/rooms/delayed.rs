//! Delayed events ([MSC4140](https://github.com/matrix-org/matrix-spec-proposals/pull/4140)):
//! `PUT /rooms/{roomId}/delayed_event/{eventType}/{txnId}`, `/delayed_events/…`, and the parameter
//! `org.matrix.msc4140.delay` of `send` and `state`.
//!
//! Below the unstable prefix whoever knows a delay id may cancel, restart and send, as clients and
//! call servers still expect there; below the stable one only its owner.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::{Delayed, DelayedAction, DelayedError, SendError, SendEvent};
use hearth_schema::{DelayedEvent, DelayedOutcome, Finalised};
use http::StatusCode;
use ruma_common::{OwnedRoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::send::{content, redacted_event, transaction};
use super::state::may_set;
use crate::Api;
use crate::auth::Authed;
use crate::body::RawBody;
use crate::error::ApiError;
use crate::params::{Query, Segments, invalid, required};
use crate::reply;

/// The parameter of `send` and `state` that delays an event.
const DELAY: &str = "org.matrix.msc4140.delay";

#[derive(Serialize)]
struct Scheduled<'a> {
    delay_id: &'a str,
}

/// How long a request to send wants its event to be delayed.
pub(crate) fn wanted(query: &Query) -> Result<Option<Duration>, ApiError> {
    query.parse::<u64>(DELAY)?.map(delay).transpose()
}

fn delay(millis: u64) -> Result<Duration, ApiError> {
    if millis == 0 { Err(invalid("delay_ms")) } else { Ok(Duration::from_millis(millis)) }
}

/// The answer that the same request got before, whatever its body is now.
pub(crate) async fn repeated(
    api: &Api,
    room_id: &OwnedRoomId,
    sender: &UserId,
    transaction: &hearth_rooms::Transaction,
) -> Result<Option<Response>, ApiError> {
    let known = api.rooms.scheduled_before(room_id, sender, transaction).await?;
    Ok(known.map(|delay_id| reply::json(&Scheduled { delay_id: &delay_id })))
}

/// Has `event` sent after `delay`, with the time of then.
pub(crate) async fn schedule(api: &Api, event: &SendEvent, delay: Duration) -> Result<Response, ApiError> {
    if event.origin_server_ts.is_some() {
        return Err(ApiError::invalid_param("\"ts\" is not for delayed events"));
    }
    let delay_id = api.rooms.schedule(event, delay, api.settings.delays).await?;
    Ok(reply::json(&Scheduled { delay_id: &delay_id }))
}

#[derive(Deserialize)]
struct DelayedBody {
    delay_ms: Option<u64>,
    state_key: Option<String>,
    content: Option<Box<RawValue>>,
}

/// `PUT /rooms/{roomId}/delayed_event/{eventType}/{txnId}`
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_type, txn)): Segments<(OwnedRoomId, String, String)>,
    RawBody(body): RawBody,
) -> Result<Response, ApiError> {
    let transaction = transaction(&requester, format!("delayed_event/{event_type}"), txn);
    if let Some(answer) = repeated(&api, &room_id, &requester.user_id, &transaction).await? {
        return Ok(answer);
    }
    let asked: DelayedBody = crate::body::parse(&body, api.settings.json_depth)?;
    let delay = delay(required(asked.delay_ms, "delay_ms")?)?;
    let content = content(required(asked.content, "content")?.get().as_bytes())?;
    let redacts = match &asked.state_key {
        None => redacted_event(&event_type, &content)?,
        Some(state_key) => {
            may_set(&api, &requester, &room_id, (&event_type, state_key), &content).await?;
            None
        }
    };
    let (state_key, sender) = (asked.state_key, requester.user_id);
    let event = SendEvent {
        room_id,
        sender,
        event_type,
        state_key,
        content,
        redacts,
        origin_server_ts: None,
        transaction: Some(transaction),
    };
    schedule(&api, &event, delay).await
}

/// `POST /delayed_events/{delayId}/cancel`, `…/restart` and `…/send`, by their owner.
pub(crate) async fn cancel(api: State<Arc<Api>>, by: Authed, id: Segments<String>) -> Result<Response, ApiError> {
    manage(&api, &id.0, DelayedAction::Cancel, Some(&by.0.user_id)).await
}

pub(crate) async fn restart(api: State<Arc<Api>>, by: Authed, id: Segments<String>) -> Result<Response, ApiError> {
    manage(&api, &id.0, DelayedAction::Restart, Some(&by.0.user_id)).await
}

pub(crate) async fn send(api: State<Arc<Api>>, by: Authed, id: Segments<String>) -> Result<Response, ApiError> {
    manage(&api, &id.0, DelayedAction::Send, Some(&by.0.user_id)).await
}

/// The same by whoever knows the delay id. No bucket of a user counts these requests, but each event
/// was counted when it was scheduled and is sent once, and all requests count for their address.
pub(crate) async fn cancel_by_id(api: State<Arc<Api>>, id: Segments<String>) -> Result<Response, ApiError> {
    manage(&api, &id.0, DelayedAction::Cancel, None).await
}

pub(crate) async fn restart_by_id(api: State<Arc<Api>>, id: Segments<String>) -> Result<Response, ApiError> {
    manage(&api, &id.0, DelayedAction::Restart, None).await
}

pub(crate) async fn send_by_id(api: State<Arc<Api>>, id: Segments<String>) -> Result<Response, ApiError> {
    manage(&api, &id.0, DelayedAction::Send, None).await
}

async fn manage(api: &Api, id: &str, action: DelayedAction, by: Option<&UserId>) -> Result<Response, ApiError> {
    api.rooms.manage_delayed(id, action, by).await?;
    Ok(reply::empty())
}

/// One delayed event.
#[derive(Serialize)]
struct Shown {
    delay_id: String,
    room_id: String,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<String>,
    delay_ms: u64,
    delayed_since_ts: u64,
    content: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finalised: Option<Value>,
    #[serde(flatten)]
    older: Option<OlderNames>,
}

/// What clients that know only earlier texts of the proposal look for.
#[derive(Serialize)]
struct OlderNames {
    delay: u64,
    running_since: u64,
}

/// Which names an answer uses.
#[derive(Clone, Copy)]
enum Names {
    Final,
    FinalAndOlder,
}

fn shown(Delayed { delay_id, event }: Delayed, names: Names) -> Result<Shown, ApiError> {
    let DelayedEvent { room_id, event_type, state_key, content, delay_ms, since, finalised, .. } = event;
    Ok(Shown {
        delay_id,
        room_id,
        event_type,
        state_key,
        delay_ms,
        delayed_since_ts: since,
        content: RawValue::from_string(content).map_err(|error| ApiError::internal(&error))?,
        finalised: finalised.map(outcome),
        older: match names {
            Names::Final => None,
            Names::FinalAndOlder => Some(OlderNames { delay: delay_ms, running_since: since }),
        },
    })
}

fn outcome(Finalised { at, outcome }: Finalised) -> Value {
    match outcome {
        DelayedOutcome::Cancelled => json!({"finalised_ts": at}),
        DelayedOutcome::Sent { event_id } => json!({"finalised_ts": at, "event_id": event_id}),
        DelayedOutcome::Failed { why, message } => {
            let error = ApiError::from(SendError::from((why, message)));
            json!({"finalised_ts": at, "error": error.standard()})
        }
    }
}

/// `GET /delayed_events/{delayId}`
pub(crate) async fn get(api: State<Arc<Api>>, by: Authed, id: Segments<String>) -> Result<Response, ApiError> {
    one(&api, &by, &id.0, Names::Final).await
}

/// The same below the unstable prefix.
pub(crate) async fn get_unstable(api: State<Arc<Api>>, by: Authed, id: Segments<String>) -> Result<Response, ApiError> {
    one(&api, &by, &id.0, Names::FinalAndOlder).await
}

async fn one(api: &Api, Authed(requester): &Authed, id: &str, names: Names) -> Result<Response, ApiError> {
    let event = api.rooms.delayed_event(&requester.user_id, id).await?;
    Ok(reply::json(&shown(event, names)?))
}

#[derive(Serialize)]
struct List {
    delayed_events: Vec<Shown>,
}

/// `GET /delayed_events` below the unstable prefix: what is scheduled, the next first. (The stable
/// path is that of a later proposal.)
pub(crate) async fn list(State(api): State<Arc<Api>>, Authed(requester): Authed) -> Result<Response, ApiError> {
    let events = api.rooms.scheduled_events(&requester.user_id).await?;
    let events = events.into_iter().map(|event| shown(event, Names::FinalAndOlder)).collect::<Result<_, _>>()?;
    Ok(reply::json(&List { delayed_events: events }))
}

impl From<DelayedError> for ApiError {
    fn from(error: DelayedError) -> Self {
        match error {
            DelayedError::NotFound => Self::not_found("there is no such delayed event"),
            DelayedError::Forbidden(why) => Self::forbidden(why),
            DelayedError::TooMany { next_in } => Self::limit_exceeded(next_in),
            DelayedError::Finalised(how) => Self::new(StatusCode::CONFLICT, "M_UNKNOWN", how),
            DelayedError::Send(error) => error.into(),
        }
    }
}
