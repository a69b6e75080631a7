//! Which servers are in a room.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_schema::{CurrentState, Membership, RoomNid, StateId};
use hearth_store::{Order, StoreError, View};
use parking_lot::Mutex;
use ruma_common::{OwnedServerName, ServerName, UserId};

use crate::intake::Rooms;
use crate::plan::membership_of;

/// Rooms whose servers are kept in memory.
const MAX_ROOMS: usize = 4096;
/// Members looked at in one page.
const PAGE: usize = 2048;
/// Events looked at in one page.
const EVENTS: usize = 256;

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
        self.servers_at(room, state).await
    }

    /// The servers that are in a state of the room, this one included. Members are counted once: from one state to
    /// another only what differs is looked at.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn servers_at(&self, room: RoomNid, state: StateId) -> Result<Arc<RoomServers>, StoreError> {
        let known = self.0.servers.0.lock().get(&room).cloned();
        if let Some((of, servers)) = &known
            && *of == state
        {
            return Ok(Arc::clone(servers));
        }
        // Not a view of the caller's: somebody else may have remembered a state that is newer.
        let view = self.view().await?;
        let (of, servers) = match known {
            Some(known) => known,
            None => (self.head(&view, room).await?.state, Arc::new(self.count_servers(&view, room).await?)),
        };
        let servers = if of == state { servers } else { self.servers_moved(&view, room, (of, servers), state).await? };
        let mut cache = self.0.servers.0.lock();
        if cache.len() >= MAX_ROOMS {
            cache.clear();
        }
        cache.insert(room, (state, Arc::clone(&servers)));
        Ok(servers)
    }

    async fn count_servers(&self, view: &View, room: RoomNid) -> Result<RoomServers, StoreError> {
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
        Ok(servers)
    }

    /// The servers of a state, from those of another.
    async fn servers_moved(
        &self,
        view: &View,
        room: RoomNid,
        (of, servers): (StateId, Arc<RoomServers>),
        state: StateId,
    ) -> Result<Arc<RoomServers>, StoreError> {
        let differences = self.state_diff(view, room, of, state).await?;
        let mut servers = RoomServers::clone(&servers);
        for differences in differences.chunks(EVENTS) {
            let gone = differences.iter().filter_map(|(_, before, _)| *before);
            for server in self.servers_let_in(view, room, gone.collect()).await? {
                if let Some(members) = servers.get_mut(&server) {
                    *members -= 1;
                    if *members == 0 {
                        servers.remove(&server);
                    }
                }
            }
        }
        for differences in differences.chunks(EVENTS) {
            let come = differences.iter().filter_map(|(_, _, after)| *after);
            for server in self.servers_let_in(view, room, come.collect()).await? {
                *servers.entry(server).or_default() += 1;
            }
        }
        Ok(Arc::new(servers))
    }

    /// The servers of those whom the member events among `numbers` let in.
    async fn servers_let_in(
        &self,
        view: &View,
        room: RoomNid,
        numbers: Vec<u32>,
    ) -> Result<Vec<OwnedServerName>, StoreError> {
        let events = self.events(view, room, &numbers).await?;
        let joined = events.iter().filter(|event| {
            event.event_type() == "m.room.member" && membership_of(&event.pdu) == Some(Membership::Join)
        });
        let users = joined.filter_map(|event| <&UserId>::try_from(event.state_key()?).ok());
        Ok(users.map(|user| user.server_name().to_owned()).collect())
    }

    /// Whether `server` has a joined member in the room now.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn server_in_room(&self, view: &View, room: RoomNid, server: &ServerName) -> Result<bool, StoreError> {
        Ok(self.servers(view, room).await?.contains_key(server))
    }
}
