//! To whom an event goes.
//!
//! The problem: an event goes to the servers that were in its room when it was sent, and the consumer may see it much
//! later. The answer: it is asked for the servers at the state before the event, which most events of a room share.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hearth_rooms::{RoomEvent, Rooms, ServerAcl};
use hearth_schema::{Membership, RoomNid, Source, StateId, Verdict};
use hearth_store::{StoreError, View};
use ruma_common::{OwnedServerName, UserId};
use serde::Deserialize;

/// Rooms whose recipients are kept.
const MAX_ROOMS: usize = 4096;

/// The other servers in a room that are not kept out.
#[derive(Clone)]
struct Known {
    /// What the rest is true of.
    state: StateId,
    others: Arc<BTreeSet<OwnedServerName>>,
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
        if matches!(event.source, Source::Remote | Source::AfterGap) || event.verdict != Verdict::Accepted {
            return Ok(BTreeSet::new());
        }
        let known = self.at(view, event.room, event.state_before).await?;
        let mut servers = BTreeSet::clone(&known.others);
        if event.event_type() == "m.room.member" && membership(event) != Some(Membership::Invite) {
            let target = event.state_key().and_then(|user| <&UserId>::try_from(user).ok());
            let target = target.map(UserId::server_name).filter(|target| *target != self.server_name);
            let allowed = target.filter(|target| known.acl.as_ref().is_none_or(|acl| acl.allows(target)));
            servers.extend(allowed.map(ToOwned::to_owned));
        }
        if event.source == Source::Relayed {
            // It has the event: it has sent it.
            servers.remove(event.sender().server_name());
        }
        Ok(servers)
    }

    /// The server that `event` brings into the room.
    pub(super) async fn newcomer(
        &mut self,
        view: &View,
        event: &RoomEvent,
    ) -> Result<Option<OwnedServerName>, StoreError> {
        if event.verdict != Verdict::Accepted
            || event.event_type() != "m.room.member"
            || membership(event) != Some(Membership::Join)
        {
            return Ok(None);
        }
        let user = event.state_key().and_then(|user| <&UserId>::try_from(user).ok());
        let Some(server) = user.map(UserId::server_name).filter(|server| *server != self.server_name) else {
            return Ok(None);
        };
        let known = self.at(view, event.room, event.state_before).await?;
        let comes = !known.others.contains(server) && known.acl.is_none_or(|acl| acl.allows(server));
        Ok(comes.then(|| server.to_owned()))
    }

    /// The other servers that are in a room now and are not kept out, for what is not an event.
    pub(super) async fn now_in(
        &mut self,
        view: &View,
        room: RoomNid,
    ) -> Result<Arc<BTreeSet<OwnedServerName>>, StoreError> {
        let state = self.rooms.head(view, room).await?.state;
        Ok(self.at(view, room, state).await?.others)
    }

    async fn at(&mut self, view: &View, room: RoomNid, state: StateId) -> Result<Known, StoreError> {
        if let Some(known) = self.known.get(&room).filter(|known| known.state == state) {
            return Ok(known.clone());
        }
        let servers = self.rooms.servers_at(room, state).await?;
        let mut others: BTreeSet<_> = servers.keys().filter(|server| **server != self.server_name).cloned().collect();
        // In a room of this server alone nobody is to be kept out.
        let acl = if others.is_empty() { None } else { self.rooms.server_acl(view, room, state).await? };
        if let Some(acl) = &acl {
            others.retain(|server| acl.allows(server));
        }
        let known = Known { state, others: Arc::new(others), acl };
        if self.known.len() >= MAX_ROOMS {
            self.known.clear();
        }
        self.known.insert(room, known.clone());
        Ok(known)
    }
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
