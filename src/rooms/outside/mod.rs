//! Rooms that a local user has to do with although this server is not in them: invited from elsewhere, knocking, or no
//! longer so.
//!
//! Such a room has no events here, so there is nothing for its task to do: what is known lives in the user's lane. The
//! user's row of the room has no event number then, which tells every reader to look here.

mod damage;
mod handshake;
mod invite;
mod rescind;
mod stripped;

use hearth_event::{Pdu, RoomVersion, client_head_without_room};
use hearth_schema::{
    Change, Membership, Outside, OutsideState, OutsideStates, Outsides, RoomNid, UserNid, UserRoom, UserRoomLog,
    UserRooms,
};
use hearth_store::{Batch, CommitError, Owner, Pos, StoreError, View};
use ruma_common::{EventId, OwnedServerName, OwnedUserId, RoomId, UserId};

pub use invite::{GoodInvite, InviteError, InviteIn};
pub(crate) use stripped::describing;

use crate::gather::damaged;
use crate::intake::Rooms;

/// How often a row is written again because something else changed it.
const MAX_TRIES: u32 = 8;
/// Servers that are remembered for a room.
const MAX_SERVERS: usize = 10;

/// What is shown of a room that this server is not in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideRoom {
    /// Who made the membership what it is.
    pub sender: OwnedUserId,
    /// What describes the room, in JSON as clients are shown it.
    pub events: Vec<String>,
    /// The member event as in the answer of `/sync`, if there is one.
    pub event: Option<Vec<u8>>,
    /// The member event in its stripped form.
    pub stripped: Option<Vec<u8>>,
}

/// A membership to be stored.
pub(crate) struct NewOutside<'a> {
    pub user: &'a UserId,
    pub room_id: &'a RoomId,
    /// Its position counts for nothing.
    pub outside: Outside,
    pub state: OutsideState,
}

impl Rooms {
    /// What is shown of a room that this server is not in, if the user's membership there still is the one that began
    /// at `at`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn outside_room(
        &self,
        view: &View,
        (user, room): (UserNid, RoomNid),
        at: Pos,
    ) -> Result<Option<OutsideRoom>, StoreError> {
        let row = view.get::<UserRooms>(&(user, room)).await?;
        let Some(row) = row.filter(|row| row.pos == at && row.n.is_none() && !row.forgotten) else { return Ok(None) };
        let (outside, state) = self.outside(view, user, room).await?;
        let sender = OwnedUserId::try_from(outside.sender).map_err(|error| damaged("Outsides", error.to_string()))?;
        let pdu = member_event(&state)?;
        let event = pdu.as_ref().map(|pdu| {
            let mut json = client_head_without_room(pdu).to_vec();
            json.push(b'}');
            json
        });
        debug_assert_eq!(row.membership, outside.membership);
        let stripped = pdu.as_ref().map(|pdu| stripped::of_pdu(pdu).into_bytes());
        Ok(Some(OutsideRoom { sender, events: state.events, event, stripped }))
    }

    /// The rows of a room of which the user's row says that they exist.
    pub(crate) async fn outside(
        &self,
        view: &View,
        user: UserNid,
        room: RoomNid,
    ) -> Result<(Outside, OutsideState), StoreError> {
        let mut reads = view.reads();
        let (outside, state) = (reads.get::<Outsides>(&(user, room)), reads.get::<OutsideStates>(&(user, room)));
        let mut found = reads.run().await?;
        let outside = found.take(outside)?.ok_or_else(|| damaged("Outsides", "a membership is not explained"))?;
        let state = found.take(state)?.ok_or_else(|| damaged("OutsideStates", "a membership is not described"))?;
        Ok((outside, state))
    }

    /// Stores a membership in a room that this server is not in, unless the user's row is no longer `before`.
    pub(crate) async fn keep_outside(
        &self,
        before: Option<&UserRoom>,
        new: NewOutside<'_>,
    ) -> Result<Pos, CommitError> {
        let key = (self.ids().user(new.user), self.ids().room(new.room_id));
        let mut batch = Batch::new(key.0.lane());
        let pos = batch.next_pos();
        let row = UserRoom {
            pos,
            room_id: new.room_id.to_string(),
            membership: new.outside.membership,
            n: None,
            own: new.outside.sender == new.user.as_str(),
            forgotten: false,
        };
        batch.check::<UserRooms>(&key, before);
        batch.put::<UserRooms>(&key, &row);
        batch.put::<UserRoomLog>(&(key.0, pos), &key.1);
        batch.put::<Outsides>(&key, &Outside { pos, ..new.outside });
        batch.put::<OutsideStates>(&key, &new.state);
        batch.fact(pos, Change::Outside { user: key.0, room: key.1 }.to_bytes());
        Ok(self.0.store.commit(batch).await?.resolve(pos))
    }

    /// Whether this server is in the room: one of its users has joined it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn is_resident(&self, view: &View, room: RoomNid) -> Result<bool, StoreError> {
        if self.room(view, room).await?.is_none() {
            return Ok(false);
        }
        self.server_in_room(view, room, &self.0.signer.server_name).await
    }

    /// Servers to ask about a room that the user has to do with, the best first: those that the client names, those
    /// that brought the membership, those that were in the room, and the one that its ID names. Not this one.
    pub(crate) async fn candidates(
        &self,
        view: &View,
        (user, room_id): (&UserId, &RoomId),
        via: &[OwnedServerName],
    ) -> Result<Vec<OwnedServerName>, StoreError> {
        let (user, room) = (self.ids().user(user), self.ids().room(room_id));
        let mut all: Vec<OwnedServerName> = via.to_vec();
        all.extend(self.bringers(view, (user, room), room_id).await?);
        // Who is in the room is known while this server is; what it remembers of another time is a guess.
        let known = self.room(view, room).await?.is_some();
        if known && (all.is_empty() || self.is_resident(view, room).await?) {
            let servers = self.servers(view, room).await?;
            let mut servers: Vec<_> = servers.iter().collect();
            servers.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
            all.extend(servers.into_iter().take(MAX_SERVERS).map(|(server, _)| server.clone()));
        }
        // The server that a room is named after may have left it long ago: it is a guess where nobody says better.
        if all.is_empty() {
            all.extend(room_id.server_name().map(ToOwned::to_owned));
        }
        Ok(distinct(all, &self.0.signer.server_name, MAX_CANDIDATES))
    }
}

/// Servers that are asked at the most.
const MAX_CANDIDATES: usize = 20;

/// At most `most` of `servers` in their order, none twice and not `own`.
fn distinct(servers: Vec<OwnedServerName>, own: &ruma_common::ServerName, most: usize) -> Vec<OwnedServerName> {
    let mut out: Vec<OwnedServerName> = Vec::new();
    for server in servers {
        if out.len() < most && server != own && !out.contains(&server) {
            out.push(server);
        }
    }
    out
}

/// The member event of a room that this server is not in.
fn member_event(state: &OutsideState) -> Result<Option<Pdu>, StoreError> {
    let broken = |why: String| damaged("OutsideStates", why);
    let Some((event_id, json)) = &state.event else { return Ok(None) };
    let version = version_of(state)?;
    let event_id = <&EventId>::try_from(event_id.as_str()).map_err(|error| broken(error.to_string()))?;
    let pdu = Pdu::from_stored(event_id, json.clone().into(), version).map_err(|error| broken(error.to_string()))?;
    Ok(Some(pdu))
}

fn version_of(state: &OutsideState) -> Result<RoomVersion, StoreError> {
    RoomVersion::parse(&state.version).ok_or_else(|| damaged("OutsideStates", format!("version {}", state.version)))
}

/// A row is stored for an invitation or a knock, as opposed to what became of one.
pub(crate) fn is_pending(row: &UserRoom) -> bool {
    row.n.is_none() && matches!(row.membership, Membership::Invite | Membership::Knock)
}

#[cfg(test)]
mod tests;
