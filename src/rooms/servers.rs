//! Which servers are in a room.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_schema::{CurrentState, Membership, RoomNid, StateId};
use hearth_store::{Order, StoreError, View};
use parking_lot::Mutex;
use ruma_common::{OwnedServerName, ServerName, UserId};

use crate::intake::Rooms;

/// Rooms whose servers are kept in memory.
const MAX_ROOMS: usize = 4096;
/// Members looked at in one page.
const PAGE: usize = 2048;

/// The servers of a room with joined members, and how many members each has.
pub type RoomServers = BTreeMap<OwnedServerName, u32>;

/// What is known of rooms' servers, each with the state that it is true of.
#[derive(Default)]
pub(crate) struct ServersCache(Mutex<BTreeMap<RoomNid, (StateId, Arc<RoomServers>)>>);

impl Rooms {
    /// The servers that are in the room now, this one included.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn servers(&self, view: &View, room: RoomNid) -> Result<Arc<RoomServers>, StoreError> {
        let state = self.head(view, room).await?.state;
        if let Some((of, servers)) = self.0.servers.0.lock().get(&room)
            && *of == state
        {
            return Ok(Arc::clone(servers));
        }
        let mut servers = RoomServers::new();
        let members = (room, "m.room.member".to_owned());
        view.scan::<CurrentState, _>(&members, Order::Ascending, PAGE, |(_, _, state_key), entry| {
            // Member events with another state key do not pass the auth rules.
            if entry.membership == Some(Membership::Join)
                && let Ok(user) = <&UserId>::try_from(state_key.as_str())
            {
                *servers.entry(user.server_name().to_owned()).or_default() += 1;
            }
            std::ops::ControlFlow::Continue(())
        })
        .await?;
        let servers = Arc::new(servers);
        let mut cache = self.0.servers.0.lock();
        if cache.len() >= MAX_ROOMS {
            cache.clear();
        }
        cache.insert(room, (state, Arc::clone(&servers)));
        Ok(servers)
    }

    /// Whether `server` has a joined member in the room now.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn server_in_room(&self, view: &View, room: RoomNid, server: &ServerName) -> Result<bool, StoreError> {
        Ok(self.servers(view, room).await?.contains_key(server))
    }
}
