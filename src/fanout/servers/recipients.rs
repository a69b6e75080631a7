//! To whom an event goes.
//!
//! The problem: an event goes to the servers that were in its room when it was sent, and the consumer may see it much
//! later. The answer: the servers at one state of a room are kept in memory, and those at another follow from what the
//! two states differ in. For most events the two are the same.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hearth_rooms::{RoomEvent, RoomServers, Rooms, ServerAcl};
use hearth_schema::{Membership, RoomNid, Source, StateId, Verdict};
use hearth_store::{StoreError, View};
use ruma_common::{OwnedServerName, ServerName, UserId};
use serde::Deserialize;

/// Rooms whose servers are kept.
const MAX_ROOMS: usize = 4096;
/// Events read at a time.
const PAGE: usize = 256;

/// What is known of one room.
#[derive(Clone)]
struct Known {
    /// What the rest is true of.
    state: StateId,
    servers: Arc<RoomServers>,
    acl: Option<Arc<ServerAcl>>,
}

/// Finds the servers that an event goes to.
pub(super) struct Recipients {
    rooms: Rooms,
    server_name: OwnedServerName,
    known: HashMap<RoomNid, Known>,
}

impl Recipients {
    pub(super) fn new(rooms: Rooms, server_name: OwnedServerName) -> Self {
        Self { rooms, server_name, known: HashMap::new() }
    }

    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// The servers that this one has to send `event` to.
    ///
    /// The servers in the room before it: so a leave, kick or ban reaches those who go, and a new list of servers that
    /// are kept out reaches those whom it keeps out. Also the server of who is kicked, banned, let in or no longer
    /// invited, who may never have been in the room; an invitation has reached it in another way.
    pub(super) async fn of(&mut self, view: &View, event: &RoomEvent) -> Result<BTreeSet<OwnedServerName>, StoreError> {
        if event.source == Source::Remote || event.verdict != Verdict::Accepted {
            return Ok(BTreeSet::new());
        }
        let known = self.at(view, event.room, event.state_before).await?;
        let mut servers: BTreeSet<OwnedServerName> = known.servers.keys().cloned().collect();
        if event.event_type() == "m.room.member" && membership(event) != Some(Membership::Invite) {
            let target = event.state_key().and_then(|user| <&UserId>::try_from(user).ok());
            servers.extend(target.map(|user| user.server_name().to_owned()));
        }
        servers.remove(&self.server_name);
        if event.source == Source::Relayed {
            // It has the event: it has sent it.
            servers.remove(event.sender().server_name());
        }
        if let Some(acl) = known.acl {
            servers.retain(|server| acl.allows(server));
        }
        Ok(servers)
    }

    async fn at(&mut self, view: &View, room: RoomNid, state: StateId) -> Result<Known, StoreError> {
        let mut known = match self.known.get(&room) {
            Some(known) => known.clone(),
            None => self.now(view, room).await?,
        };
        if known.state != state {
            known = self.moved(view, room, known, state).await?;
        }
        if self.known.len() >= MAX_ROOMS {
            self.known.clear();
        }
        self.known.insert(room, known.clone());
        Ok(known)
    }

    async fn now(&self, view: &View, room: RoomNid) -> Result<Known, StoreError> {
        let state = self.rooms.head(view, room).await?.state;
        let servers = self.rooms.servers(view, room).await?;
        let acl = self.acl(view, room, state, &servers).await?;
        Ok(Known { state, servers, acl })
    }

    /// What is true of `state`, from what is true of another.
    async fn moved(&self, view: &View, room: RoomNid, from: Known, state: StateId) -> Result<Known, StoreError> {
        let mut servers = RoomServers::clone(&from.servers);
        let differences = self.rooms.state_diff(view, room, from.state, state).await?;
        for differences in differences.chunks(PAGE) {
            let gone = differences.iter().filter_map(|(_, before, _)| *before);
            for server in self.joined(view, room, gone.collect()).await? {
                if let Some(members) = servers.get_mut(&server) {
                    *members -= 1;
                    if *members == 0 {
                        servers.remove(&server);
                    }
                }
            }
        }
        for differences in differences.chunks(PAGE) {
            let come = differences.iter().filter_map(|(_, _, after)| *after);
            for server in self.joined(view, room, come.collect()).await? {
                *servers.entry(server).or_default() += 1;
            }
        }
        let servers = Arc::new(servers);
        let acl = self.acl(view, room, state, &servers).await?;
        Ok(Known { state, servers, acl })
    }

    /// The servers of those whom the member events among `numbers` let in.
    async fn joined(&self, view: &View, room: RoomNid, numbers: Vec<u32>) -> Result<Vec<OwnedServerName>, StoreError> {
        let events = self.rooms.events(view, room, &numbers).await?;
        let members = events
            .iter()
            .filter(|event| event.event_type() == "m.room.member" && membership(event) == Some(Membership::Join));
        // Member events with another state key do not pass the auth rules.
        let users = members.filter_map(|event| <&UserId>::try_from(event.state_key()?).ok());
        Ok(users.map(|user| user.server_name().to_owned()).collect())
    }

    /// Not looked for where nobody is to be kept out.
    async fn acl(
        &self,
        view: &View,
        room: RoomNid,
        state: StateId,
        servers: &RoomServers,
    ) -> Result<Option<Arc<ServerAcl>>, StoreError> {
        if servers.keys().all(|server| *server == self.server_name) {
            return Ok(None);
        }
        self.rooms.server_acl(view, room, state).await
    }
}

/// The other servers that are in a room now and are not kept out, for what is not an event.
pub(super) async fn in_room_now(
    rooms: &Rooms,
    view: &View,
    room: RoomNid,
    own: &ServerName,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let servers = rooms.servers(view, room).await?;
    let mut others: Vec<_> = servers.keys().filter(|server| *server != own).cloned().collect();
    if !others.is_empty() {
        let state = rooms.head(view, room).await?.state;
        if let Some(acl) = rooms.server_acl(view, room, state).await? {
            others.retain(|server| acl.allows(server));
        }
    }
    Ok(others)
}

fn membership(event: &RoomEvent) -> Option<Membership> {
    #[derive(Deserialize)]
    struct Content {
        membership: String,
    }
    // The auth rules let no member event pass whose membership is no word of theirs.
    let content: Content = serde_json::from_slice(event.pdu.content_json()).ok()?;
    Membership::parse(&content.membership)
}
