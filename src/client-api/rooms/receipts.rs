//! `POST /rooms/{roomId}/receipt/{receiptType}/{eventId}` and `POST /rooms/{roomId}/read_markers`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{NewAccountData, Requester};
use hearth_rooms::{NewReceipt, QueryError};
use hearth_schema::ReceiptKind;
use ruma_common::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use serde::Deserialize;

use crate::Api;
use crate::auth::Authed;
use crate::body::{Json, OptionalJson};
use crate::error::ApiError;
use crate::params::{Segments, invalid};
use crate::reply;

const FULLY_READ: &str = "m.fully_read";

#[derive(Default, Deserialize)]
pub(crate) struct ReceiptBody {
    thread_id: Option<String>,
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
fn thread(thread: Option<String>, kind: Option<ReceiptKind>) -> Result<Option<String>, ApiError> {
    let Some(thread) = thread else { return Ok(None) };
    let named = thread == "main" || <&EventId>::try_from(thread.as_str()).is_ok();
    if kind.is_none() || !named {
        return Err(invalid("thread_id"));
    }
    Ok(Some(thread))
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
    for (kind, event_id) in [(ReceiptKind::Read, body.read), (ReceiptKind::ReadPrivate, body.read_private)] {
        let Some(event_id) = event_id else { continue };
        let (room_id, user_id) = (room_id.clone(), requester.user_id.clone());
        api.rooms.set_receipt(&NewReceipt { room_id, user_id, kind, thread: None, event_id }).await?;
    }
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
    let user = &requester.user_id;
    let event = api.rooms.event(user, room_id, event_id).await?;
    if let Some(old) = api.accounts.account_data(requester.user, Some(room_id), FULLY_READ).await? {
        // A marker that does not read as one, or whose event is gone, cannot hold the new one back.
        if let Ok(old) = serde_json::from_str::<Marker>(&old) {
            match api.rooms.event(user, room_id, &old.event_id).await {
                Ok(old) if old.pos >= event.pos => return Ok(()),
                Ok(_) | Err(QueryError::NotFound) => {}
                Err(other) => return Err(other.into()),
            }
        }
    }
    let json = serde_json::json!({"event_id": event_id}).to_string();
    let data = NewAccountData { room: Some(room_id.to_owned()), kind: FULLY_READ.into(), json };
    api.accounts.set_account_data(requester.user, data).await?;
    Ok(())
}
