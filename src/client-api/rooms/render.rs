//! Events as clients see them.

use std::sync::Arc;

use hearth_accounts::Requester;
use hearth_rooms::{Reader, RoomEvent};

use crate::Api;
use crate::error::ApiError;

/// Bytes of `unsigned` and punctuation that an event takes besides its own, about.
const EXTRAS: usize = 160;

/// About how many bytes `events` take as JSON.
pub(crate) fn size(events: &[Arc<RoomEvent>]) -> usize {
    events.iter().map(|event| event.head.len() + EXTRAS).sum::<usize>() + 2
}

/// Appends `events`, all of one room, as a JSON array.
pub(crate) async fn array(
    api: &Api,
    requester: &Requester,
    events: &[Arc<RoomEvent>],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    out.push(b'[');
    objects(api, requester, events, out).await?;
    out.push(b']');
    Ok(())
}

/// One event as a JSON object.
pub(crate) async fn one(api: &Api, requester: &Requester, event: &Arc<RoomEvent>) -> Result<Vec<u8>, ApiError> {
    let events = std::slice::from_ref(event);
    let mut out = Vec::with_capacity(size(events));
    objects(api, requester, events, &mut out).await?;
    Ok(out)
}

async fn objects(
    api: &Api,
    requester: &Requester,
    events: &[Arc<RoomEvent>],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let Some(first) = events.first() else { return Ok(()) };
    let (user_id, device_id) = (&requester.user_id, requester.client.name().as_str());
    let reader = Reader { user_id, device_id, now: api.clock.now(), standing: None };
    let view = api.rooms.view().await?;
    Ok(api.rooms.render(&view, &reader, first.room, events, out).await?)
}
