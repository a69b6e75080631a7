//! What clients want to know of other servers.

use bytes::Bytes;
use hearth_rooms::remote::RemoteError;
use http::Method;
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::path::{federation_path as path, with_query};
use crate::{Outgoing, Peers};

/// Bytes of a page of the public rooms, and of a page of a space.
const MAX_PAGE: usize = 8 << 20;
/// Bytes of a profile.
const MAX_PROFILE: usize = 128 << 10;
/// Servers that are said to know an alias.
const MAX_SERVERS: usize = 100;

/// Where an alias leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryAnswer {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that are in it, 100 at the most.
    pub servers: Vec<OwnedServerName>,
}

/// The event nearest to a time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TimestampAnswer {
    /// The event.
    pub event_id: OwnedEventId,
    /// Its time in milliseconds.
    pub origin_server_ts: u64,
}

/// Where to look from a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// To what came later.
    Forward,
    /// To what came earlier.
    Backward,
}

/// Which children of a space are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// All.
    All,
    /// Those that the space suggests.
    Suggested,
}

impl Peers {
    /// `GET query/profile`: all fields, or one.
    ///
    /// # Errors
    /// If there is no usable answer.
    pub async fn profile(&self, user: &UserId, field: Option<&str>) -> Result<Map<String, Value>, RemoteError> {
        let field = field.map(|field| ("field", field));
        let query = with_query(path("v1/query/profile", &[]), [("user_id", user.as_str())].into_iter().chain(field));
        self.json(Outgoing { max_bytes: MAX_PROFILE, ..self.get(user.server_name(), query) }).await
    }

    /// `GET query/directory`.
    ///
    /// # Errors
    /// If there is no usable answer.
    pub async fn directory(&self, alias: &RoomAliasId) -> Result<DirectoryAnswer, RemoteError> {
        #[derive(Deserialize)]
        struct Answer {
            room_id: OwnedRoomId,
            #[serde(default)]
            servers: Vec<String>,
        }
        let query = with_query(path("v1/query/directory", &[]), [("room_alias", alias.as_str())]);
        let answer: Answer = self.json(self.get(alias.server_name(), query)).await?;
        // One name that nobody can have is no reason not to join by the others.
        let servers = answer.servers.into_iter().filter_map(|name| ServerName::parse(name).ok());
        Ok(DirectoryAnswer { room_id: answer.room_id, servers: servers.take(MAX_SERVERS).collect() })
    }

    /// `GET publicRooms` with `query` (encoded, without `?`), or `POST publicRooms` if there is a body: the answer's
    /// object.
    ///
    /// # Errors
    /// If there is no usable answer.
    pub async fn public_rooms(
        &self,
        server: &ServerName,
        query: &str,
        body: Option<Bytes>,
    ) -> Result<Map<String, Value>, RemoteError> {
        let path = path("v1/publicRooms", &[]);
        let path = if query.is_empty() { path } else { format!("{path}?{query}") };
        let request = match body {
            Some(body) => self.with_body(Method::POST, server, path, body),
            None => self.get(server, path),
        };
        self.json(Outgoing { max_bytes: MAX_PAGE, ..request }).await
    }

    /// `GET timestamp_to_event`.
    ///
    /// # Errors
    /// If there is no usable answer.
    pub async fn timestamp_to_event(
        &self,
        server: &ServerName,
        room: &RoomId,
        ts: u64,
        look: Look,
    ) -> Result<TimestampAnswer, RemoteError> {
        let (ts, dir) = (ts.to_string(), if look == Look::Forward { "f" } else { "b" });
        let path = path("v1/timestamp_to_event", &[room.as_str()]);
        self.json(self.get(server, with_query(path, [("ts", ts.as_str()), ("dir", dir)]))).await
    }

    /// `GET hierarchy`: the answer's object.
    ///
    /// # Errors
    /// If there is no usable answer.
    pub async fn hierarchy(
        &self,
        server: &ServerName,
        room: &RoomId,
        children: Children,
    ) -> Result<Map<String, Value>, RemoteError> {
        let suggested = if children == Children::Suggested { "true" } else { "false" };
        let path = with_query(path("v1/hierarchy", &[room.as_str()]), [("suggested_only", suggested)]);
        self.json(Outgoing { max_bytes: MAX_PAGE, ..self.get(server, path) }).await
    }
}
