//! `PUT /rooms/{roomId}/send/{eventType}/{txnId}` and `PUT /rooms/{roomId}/redact/{eventId}/{txnId}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::Requester;
use hearth_event::{JsonLimits, parse_canonical_object};
use hearth_rooms::{RedactRelated, RelTypes, SendEvent, Transaction};
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use super::delayed;
use crate::Api;
use crate::auth::Authed;
use crate::body::{OptionalJson, RawBody};
use crate::error::ApiError;
use crate::params::{Query, Segments};
use crate::services::timestamp;
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
    query: Query,
    RawBody(body): RawBody,
) -> Result<Response, ApiError> {
    let delay = delayed::wanted(&query)?;
    let origin_server_ts = timestamp(&requester, &query)?;
    let transaction = transaction(&requester, format!("send/{event_type}"), txn);
    if delay.is_some()
        && let Some(answer) = delayed::repeated(&api, &room_id, &requester.user_id, &transaction).await?
    {
        return Ok(answer);
    }
    let content = content(&body)?;
    let redacts = redacted_event(&event_type, &content)?;
    standing::may_send(&api, &requester, &room_id, redacts.as_deref()).await?;
    let event = SendEvent {
        room_id,
        event_type,
        state_key: None,
        content,
        redacts,
        origin_server_ts,
        transaction: Some(transaction),
        sender: requester.user_id,
    };
    if let Some(delay) = delay {
        return delayed::schedule(&api, &event, delay).await;
    }
    let done = api.rooms.send(event).await?;
    api.accounts.presence().acted(requester.user);
    Ok(sent(&done.event_id))
}

/// Since v1.18 redactions may also come through `/send`, with `redacts` in their content.
pub(crate) fn redacted_event(
    event_type: &str,
    content: &CanonicalJsonObject,
) -> Result<Option<OwnedEventId>, ApiError> {
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
    /// MSC3912
    #[serde(alias = "org.matrix.msc3912.with_relations")]
    with_rel_types: Option<Vec<String>>,
}

/// Redacts an event, and what relates to it in the ways that the body names (MSC3912).
pub(crate) async fn redact(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, event_id, txn)): Segments<(OwnedRoomId, OwnedEventId, String)>,
    OptionalJson(body): OptionalJson<RedactBody>,
) -> Result<Response, ApiError> {
    let rel_types = body.with_rel_types.unwrap_or_default();
    // What relates to an event may be others'.
    let own = Some(&*event_id).filter(|_| rel_types.is_empty());
    standing::may_send(&api, &requester, &room_id, own).await?;
    let transaction = transaction(&requester, format!("redact/{event_id}"), txn);
    let reason = body.reason.map(|reason| ("reason".to_owned(), CanonicalJsonValue::String(reason)));
    let content: CanonicalJsonObject = reason.into_iter().collect();
    let event = SendEvent {
        room_id: room_id.clone(),
        event_type: "m.room.redaction".into(),
        state_key: None,
        content: content.clone(),
        redacts: Some(event_id.clone()),
        origin_server_ts: None,
        transaction: Some(transaction),
        sender: requester.user_id.clone(),
    };
    let done = api.rooms.send(event).await?;
    if !rel_types.is_empty() {
        let all = rel_types.iter().any(|rel_type| rel_type == "*");
        let rel_types = if all { RelTypes::All } else { RelTypes::Only(rel_types) };
        let sender = requester.user_id;
        api.rooms.redact_related(&RedactRelated { room_id, sender, event_id, rel_types, content }).await?;
    }
    Ok(sent(&done.event_id))
}

pub(crate) fn transaction(requester: &Requester, scope: String, id: String) -> Transaction {
    Transaction { device_id: requester.client.name().to_string(), scope, id }
}
