//! `POST /rooms/{roomId}/receipt/{receiptType}/{eventId}` and `POST /rooms/{roomId}/read_markers`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{NewAccountData, Requester};
use hearth_rooms::{NewReceipt, QueryError, ReceiptThread};
use hearth_schema::ReceiptKind;
use hearth_store::Pos;
use ruma_common::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::Api;
use crate::auth::Authed;
use crate::body::{Json, OptionalJson};
use crate::error::ApiError;
use crate::params::{Segments, invalid};
use crate::reply;

const FULLY_READ: &str = "m.fully_read";

/// How often the read marker is tried again because another device was faster.
const ATTEMPTS: usize = 16;
/// How long a client waits before it tries again, in milliseconds.
const RETRY_MS: u64 = 100;

#[derive(Default, Deserialize)]
pub(crate) struct ReceiptBody {
    /// Anything: what is no thread is refused by its name.
    #[serde(default, deserialize_with = "present")]
    thread_id: Option<Value>,
}

/// `null` is there, too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Sets a receipt, or the read marker.
pub(crate) async fn post(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((room_id, receipt_type, event_id)): Segments<(OwnedRoomId, String, OwnedEventId)>,
    OptionalJson(body): OptionalJson<ReceiptBody>,
) -> Result<Response, ApiError> {
    let kind = match receipt_type.as_str() {
        "m.read" => Some(ReceiptKind::Read),
        "m.read.private" => Some(ReceiptKind::ReadPrivate),
        FULLY_READ => None,
        _ => return Err(ApiError::invalid_param("this receipt type does not exist")),
    };
    let thread = thread(body.thread_id, kind)?;
    match kind {
        Some(kind) => {
            let receipt = NewReceipt { room_id, user_id: requester.user_id, kind, thread, event_id };
            api.rooms.set_receipt(&receipt).await?;
        }
        None => move_marker(&api, &requester, &room_id, &event_id).await?,
    }
    Ok(reply::empty())
}

/// A thread root's event ID, or `main`.
fn thread(thread: Option<Value>, kind: Option<ReceiptKind>) -> Result<Option<ReceiptThread>, ApiError> {
    let Some(thread) = thread else { return Ok(None) };
    match thread.as_str() {
        _ if kind.is_none() => Err(invalid("thread_id")),
        Some("main") => Ok(Some(ReceiptThread::Main)),
        Some(root) => {
            EventId::parse(root).map(|root| Some(ReceiptThread::Root(root))).map_err(|_| invalid("thread_id"))
        }
        None => Err(invalid("thread_id")),
    }
}

#[derive(Deserialize)]
pub(crate) struct MarkersBody {
    #[serde(rename = "m.fully_read")]
    fully_read: Option<OwnedEventId>,
    #[serde(rename = "m.read")]
    read: Option<OwnedEventId>,
    #[serde(rename = "m.read.private")]
    read_private: Option<OwnedEventId>,
}

/// Sets the read marker and receipts together.
pub(crate) async fn read_markers(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    Json(body): Json<MarkersBody>,
) -> Result<Response, ApiError> {
    if let Some(event_id) = &body.fully_read {
        // Nothing is stored if anything is wrong.
        api.rooms.event(&requester.user_id, &room_id, event_id).await?;
    }
    let receipts = [(ReceiptKind::Read, body.read), (ReceiptKind::ReadPrivate, body.read_private)];
    let receipts = receipts.into_iter().filter_map(|(kind, event_id)| {
        let (room_id, user_id) = (room_id.clone(), requester.user_id.clone());
        event_id.map(|event_id| NewReceipt { room_id, user_id, kind, thread: None, event_id })
    });
    api.rooms.set_receipts(&receipts.collect::<Vec<_>>()).await?;
    if let Some(event_id) = body.fully_read {
        move_marker(&api, &requester, &room_id, &event_id).await?;
    }
    Ok(reply::empty())
}

/// The content of `m.fully_read`.
#[derive(Deserialize)]
struct Marker {
    event_id: OwnedEventId,
}

/// Moves the read marker forwards. It lives in the room's account data.
async fn move_marker(api: &Api, requester: &Requester, room_id: &RoomId, event_id: &EventId) -> Result<(), ApiError> {
    let event = api.rooms.event(&requester.user_id, room_id, event_id).await?;
    for _ in 0..ATTEMPTS {
        let old = api.accounts.account_data(requester.user, Some(room_id), FULLY_READ).await?;
        if let Some(old) = &old
            && is_behind(api, requester, (room_id, old), event.pos).await?
        {
            return Ok(());
        }
        let json = serde_json::json!({"event_id": event_id}).to_string();
        let data = NewAccountData { room: Some(room_id.to_owned()), kind: FULLY_READ.into(), json };
        if api.accounts.replace_account_data(requester.user, data, old.as_deref()).await? {
            return Ok(());
        }
    }
    Err(ApiError::busy(RETRY_MS))
}

/// Whether `pos` is not ahead of the marker `old`. A marker that does not read as one, or whose event
/// is gone, cannot hold a new one back.
async fn is_behind(
    api: &Api,
    requester: &Requester,
    (room_id, old): (&RoomId, &str),
    pos: Pos,
) -> Result<bool, ApiError> {
    let Ok(old) = serde_json::from_str::<Marker>(old) else { return Ok(false) };
    match api.rooms.event(&requester.user_id, room_id, &old.event_id).await {
        Ok(old) => Ok(old.pos >= pos),
        Err(QueryError::NotFound) => Ok(false),
        Err(other) => Err(other.into()),
    }
}
