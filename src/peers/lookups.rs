//! What clients want to know of other servers.

use bytes::Bytes;
use hearth_rooms::remote::RemoteError;
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId};
use serde_json::{Map, Value};

use crate::Peers;

/// Where an alias leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryAnswer {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that are in it, 100 at the most.
    pub servers: Vec<OwnedServerName>,
}

/// The event nearest to a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampAnswer {
    /// The event.
    pub event_id: OwnedEventId,
    /// Its time in milliseconds.
    pub origin_server_ts: u64,
}

#[expect(clippy::unused_async, clippy::unused_async_trait_impl, reason = "no network yet")]
impl Peers {
    /// `GET query/profile`: all fields, or one.
    ///
    /// # Errors
    /// If there is no usable answer.
    pub async fn profile(&self, user: &UserId, field: Option<&str>) -> Result<Map<String, Value>, RemoteError> {
        let _ = (user, field);
        Err(RemoteError::Off)
    }

    /// `GET query/directory`.
    ///
    /// # Errors
    /// If there is no usable answer.
    pub async fn directory(&self, alias: &RoomAliasId) -> Result<DirectoryAnswer, RemoteError> {
        let _ = alias;
        Err(RemoteError::Off)
    }

    /// `GET publicRooms` with `query` (without `?`), or `POST publicRooms` if there is a body: the answer's object.
    ///
    /// # Errors
    /// If there is no usable answer.
    pub async fn public_rooms(
        &self,
        server: &ServerName,
        query: &str,
        body: Option<Bytes>,
    ) -> Result<Map<String, Value>, RemoteError> {
        let _ = (server, query, body);
        Err(RemoteError::Off)
    }

    /// `GET timestamp_to_event`; `dir` is `f` or `b`.
    ///
    /// # Errors
    /// If there is no usable answer.
    pub async fn timestamp_to_event(
        &self,
        server: &ServerName,
        room: &RoomId,
        ts: u64,
        dir: char,
    ) -> Result<TimestampAnswer, RemoteError> {
        let _ = (server, room, ts, dir);
        Err(RemoteError::Off)
    }
}
