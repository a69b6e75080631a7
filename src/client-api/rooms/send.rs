//! `PUT /rooms/{roomId}/send/{eventType}/{txnId}` and `PUT /rooms/{roomId}/redact/{eventId}/{txnId}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::Requester;
use hearth_event::{JsonLimits, parse_canonical_object};
use hearth_rooms::{SendEvent, Transaction};
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use crate::Api;
use crate::auth::Authed;
use crate::body::{OptionalJson, RawBody};
use crate::error::ApiError;
use crate::params::Segments;
use crate::{reply, standing};

#[derive(Serialize)]
struct SentReply<'a> {
    event_id: &'a EventId,
}

/// `{"event_id": …}`
pub(crate) fn sent(event_id: &EventId) -> Response {
    reply::json(&SentReply { event_id })
}

/// The content of an event that a client sends.
pub(crate) fn content(body: &[u8]) -> Result<CanonicalJsonObject, ApiError> {
    Ok(parse_canonical_object(body, JsonLimits::CONTENT)?)
}

/// Sends a message event.
pub(crate) async fn send(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_type, txn)): Segments<(OwnedRoomId, String, String)>,
    RawBody(body): RawBody,
) -> Result<Response, ApiError> {
    let content = content(&body)?;
    let redacts = redacted_event(&event_type, &content)?;
    standing::may_send(&api, &requester, &room_id, redacts.as_deref()).await?;
    let transaction = transaction(&requester, format!("send/{event_type}"), txn);
    let event = SendEvent {
        room_id,
        event_type,
        state_key: None,
        content,
        redacts,
        transaction: Some(transaction),
        sender: requester.user_id,
    };
    let done = api.rooms.send(event).await?;
    Ok(sent(&done.event_id))
}

/// Since v1.18 redactions may also come through `/send`, with `redacts` in their content.
fn redacted_event(event_type: &str, content: &CanonicalJsonObject) -> Result<Option<OwnedEventId>, ApiError> {
    if event_type != "m.room.redaction" {
        return Ok(None);
    }
    let Some(CanonicalJsonValue::String(redacts)) = content.get("redacts") else {
        return Err(ApiError::missing_param("redacts"));
    };
    OwnedEventId::try_from(redacts.as_str())
        .map(Some)
        .map_err(|_| ApiError::invalid_param("\"redacts\" is no event ID"))
}

#[derive(Default, Deserialize)]
pub(crate) struct RedactBody {
    reason: Option<String>,
}

/// Redacts an event.
pub(crate) async fn redact(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_id, txn)): Segments<(OwnedRoomId, OwnedEventId, String)>,
    OptionalJson(body): OptionalJson<RedactBody>,
) -> Result<Response, ApiError> {
    standing::may_send(&api, &requester, &room_id, Some(&event_id)).await?;
    let transaction = transaction(&requester, format!("redact/{event_id}"), txn);
    let reason = body.reason.map(|reason| ("reason".to_owned(), CanonicalJsonValue::String(reason)));
    let event = SendEvent {
        room_id,
        event_type: "m.room.redaction".into(),
        state_key: None,
        content: reason.into_iter().collect(),
        redacts: Some(event_id),
        transaction: Some(transaction),
        sender: requester.user_id,
    };
    let done = api.rooms.send(event).await?;
    Ok(sent(&done.event_id))
}

fn transaction(requester: &Requester, scope: String, id: String) -> Transaction {
    Transaction { device_id: requester.device_id.to_string(), scope, id }
}
