//! What other servers are served: events and states of rooms that they are in, and their way in and out.
//!
//! Every question is about a room, and begins at [`Rooms::admit`] or [`Rooms::admit_reader`], where the room's access
//! control list may keep a server out. Of what a room is now, one that nobody of this server is in is as good as
//! unknown. Of what was up to then, servers that were in it are still told: whoever gets our leave may need what came
//! before it. An event is always looked up in the room that the server has been let into, so one of another room looks
//! like one that does not exist.

mod aliases;
mod event;
mod handshake;
mod history;
mod sight;
mod state;
mod template;
mod time;
mod transactions;
mod walk;

use hearth_event::RoomVersion;
use hearth_store::StoreError;
use ruma_common::{OwnedRoomId, RoomId, ServerName};

pub use handshake::{Accepted, Members};
pub use history::MissingQuery;
pub(crate) use state::StateAnswers;
pub use state::{ServedEvent, ServedEvents, ServedState};
pub use template::{HandshakeRefusal, MadeTemplate};
pub use time::EventAtTime;
pub use transactions::{EarlierTransaction, TransactionPlace};

use crate::gather::damaged;
use crate::graph::Graph;
use crate::intake::Rooms;

/// Why another server is not told something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no such room here, or nobody of this server is in it.
    #[error("the room is not known")]
    UnknownRoom,
    /// The room's access control list keeps the server out.
    #[error("the room's access control list denies your server")]
    Denied,
    /// The server has no user in the room.
    #[error("your server is not in the room")]
    NotInRoom,
    /// There is no such event in the room, or none for this server.
    #[error("the event is not known in this room")]
    UnknownEvent,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Rooms {
    /// The room, if this server is in it and lets `origin` take part.
    pub(crate) async fn admit(&self, origin: &ServerName, room_id: &RoomId) -> Result<Graph, ServeError> {
        let graph = self.open_to(origin, room_id).await?;
        if !self.server_in_room(&graph.view, graph.room, &self.0.signer.server_name).await? {
            return Err(ServeError::UnknownRoom);
        }
        Ok(graph)
    }

    /// The same, if `origin` is in the room too.
    pub(crate) async fn admit_member(&self, origin: &ServerName, room_id: &RoomId) -> Result<Graph, ServeError> {
        within(self.admit(origin, room_id).await?, origin).await
    }

    /// The room if `origin` is in it, as far as this server knows: if it is in the room no more, up to its leave.
    pub(crate) async fn admit_reader(&self, origin: &ServerName, room_id: &RoomId) -> Result<Graph, ServeError> {
        within(self.open_to(origin, room_id).await?, origin).await
    }

    /// The room as far as this server knows it, unless its access control list keeps `origin` out.
    pub(crate) async fn open_to(&self, origin: &ServerName, room_id: &RoomId) -> Result<Graph, ServeError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        let meta = self.room(&view, room).await?.ok_or(ServeError::UnknownRoom)?;
        let version = RoomVersion::parse(&meta.version);
        let version = version.ok_or_else(|| damaged("Rooms", format!("version {}", meta.version)))?;
        if !self.acl_allows(&view, room, origin).await? {
            return Err(ServeError::Denied);
        }
        Ok(Graph { rooms: self.clone(), view, room, version })
    }

    /// This server.
    pub fn server_name(&self) -> &ServerName {
        &self.0.signer.server_name
    }
}

/// The room, if `origin` is in it.
async fn within(graph: Graph, origin: &ServerName) -> Result<Graph, ServeError> {
    if !graph.rooms.server_in_room(&graph.view, graph.room, origin).await? {
        return Err(ServeError::NotInRoom);
    }
    Ok(graph)
}

/// The room's ID as it is stored.
pub(crate) async fn room_id_of(graph: &Graph) -> Result<OwnedRoomId, StoreError> {
    let meta = graph.rooms.room(&graph.view, graph.room).await?.ok_or_else(|| damaged("Rooms", "a room has no row"))?;
    OwnedRoomId::try_from(meta.room_id.as_str()).map_err(|error| damaged("Rooms", error.to_string()))
}
