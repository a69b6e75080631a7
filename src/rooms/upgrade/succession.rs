//! Which room took the place of which.

use hearth_schema::RoomNid;
use hearth_store::{StoreError, View};
use ruma_common::OwnedRoomId;
use serde_json::Value;

use crate::intake::Rooms;
use crate::query::RoomEvent;

/// A room that another has replaced. Both say so: whoever may say it of one room alone could have the
/// other's members followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    /// The room that was replaced.
    pub old: OwnedRoomId,
    /// The room that replaces it.
    pub new: OwnedRoomId,
}

impl Rooms {
    /// How `room` has replaced another.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn predecessor(&self, view: &View, room: RoomNid) -> Result<Option<Succession>, StoreError> {
        let Some(old) = self.names(view, room, "m.room.create").await? else { return Ok(None) };
        self.succession(view, self.ids().room(&old)).await.map(|found| found.filter(|found| found.old == old))
    }

    /// How `room` was replaced by another.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn succession(&self, view: &View, room: RoomNid) -> Result<Option<Succession>, StoreError> {
        let Some(new) = self.names(view, room, "m.room.tombstone").await? else { return Ok(None) };
        let Some(old) = self.names(view, self.ids().room(&new), "m.room.create").await? else { return Ok(None) };
        Ok((self.ids().room(&old) == room && old != new).then_some(Succession { old, new }))
    }

    /// The other room that the state event of this type names.
    async fn names(&self, view: &View, room: RoomNid, event_type: &str) -> Result<Option<OwnedRoomId>, StoreError> {
        let event = self.current_event(view, room, event_type, "").await?;
        Ok(event.and_then(|event| other_room(&event)))
    }
}

/// Members write these events, so anything may be in them; what is no room ID names no room.
fn other_room(event: &RoomEvent) -> Option<OwnedRoomId> {
    let content: Value = serde_json::from_str(event.pdu.content().get()).ok()?;
    let id = match event.event_type() {
        "m.room.create" => content.get("predecessor")?.get("room_id")?,
        _ => content.get("replacement_room")?,
    };
    OwnedRoomId::try_from(id.as_str()?).ok()
}
