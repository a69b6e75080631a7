//! `event`: one event, wherever it is.

use std::sync::Arc;

use bytes::Bytes;
use hearth_event::Pdu;
use hearth_schema::{EventIds, Verdict};
use hearth_store::{Lane, StoreError};
use ruma_common::{EventId, OwnedRoomId, ServerName};

use super::ServeError;
use super::sight::Sight;
use crate::gather::damaged;
use crate::graph::{Graph, has_state};
use crate::intake::Rooms;
use crate::query::RoomEvent;
use crate::visibility::Visibility;

impl Rooms {
    /// An event that `origin` may see, with its room; one that it may see a part of is redacted.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid>
    ///
    /// # Errors
    /// [`ServeError::UnknownEvent`] if there is none, or none for this server.
    pub async fn event_for_server(&self, origin: &ServerName, event_id: &EventId) -> Result<Pdu, ServeError> {
        let view = self.view().await?;
        let name = self.ids().event(event_id);
        let keys: Vec<_> = Lane::all().map(|lane| (lane, name)).collect();
        // An ID may be known in several rooms only if somebody has made them alike on purpose.
        for found in view.get_many::<EventIds>(&keys).await?.into_iter().flatten() {
            let meta = self.room(&view, found.room).await?;
            let meta = meta.ok_or_else(|| damaged("Rooms", "a room with events has no row"))?;
            let room_id = OwnedRoomId::try_from(meta.room_id.as_str());
            let room_id = room_id.map_err(|error| damaged("Rooms", error.to_string()))?;
            // Whoever may not ask about the room must not learn that the event is in it.
            let graph = match self.open_to(origin, &room_id).await {
                Ok(graph) => graph,
                Err(ServeError::Store(error)) => return Err(error.into()),
                Err(_) => continue,
            };
            if let Some(event) = shown(&graph, origin, event_id).await? {
                return Ok(event.pdu.clone());
            }
        }
        Err(ServeError::UnknownEvent)
    }
}

/// The event as `origin` is shown it, if it is.
async fn shown(graph: &Graph, origin: &ServerName, event_id: &EventId) -> Result<Option<Arc<RoomEvent>>, StoreError> {
    let Some(event) = find(graph, event_id).await? else { return Ok(None) };
    if graph.rooms.server_in_room(&graph.view, graph.room, origin).await? {
        return Ok(Sight::of(graph, origin).show(vec![event]).await?.pop());
    }
    // Whoever is outside sees what everybody could read.
    if !has_state(&event) {
        return Ok(None);
    }
    let place = [("m.room.history_visibility".to_owned(), String::new())];
    let visibility = graph.at(event.state_before, &place).await?;
    let visibility = Visibility::of(visibility.first().and_then(Option::as_deref));
    let erased = graph.rooms.erased_at(&graph.view, event.sender()).await?;
    Ok(Some(event).filter(|_| visibility == Visibility::WorldReadable && erased.is_none()))
}

/// An event of the room that was not rejected. Of those that are known from states and auth chains alone, state events:
/// whoever is in the room needs them to judge others.
pub(super) async fn find(graph: &Graph, event_id: &EventId) -> Result<Option<Arc<RoomEvent>>, StoreError> {
    let event = graph.find(&[event_id.to_owned()]).await?.into_values().next();
    Ok(event.filter(|event| match event.verdict {
        Verdict::Accepted | Verdict::SoftFailed => true,
        Verdict::Outlier => event.state_key().is_some(),
        Verdict::Rejected => false,
    }))
}

/// The JSON of events, in their order.
pub(super) fn json(events: &[Arc<RoomEvent>]) -> Vec<Bytes> {
    events.iter().map(|event| Bytes::clone(event.pdu.json())).collect()
}
