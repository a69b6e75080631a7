//! Damaged rows of rooms that this server is not in.
//!
//! The problem: such a room has no task and no events here, so nothing ever writes its rows again but its user, who
//! answers or leaves. If a damaged row were in the way of that, it would be so for ever. Nothing is judged by what these
//! rows say: servers to ask, and what is shown. So an operator is told of the damage, and the user leaves by the rest; the
//! leave writes the rows anew.

use hearth_event::RoomVersion;
use hearth_schema::{Outside, OutsideState, OutsideStates, Outsides, RoomNid, UserNid};
use hearth_store::{Pos, StoreError, View};
use ruma_common::{OwnedEventId, OwnedServerName, RoomId};

use super::version_of;
use crate::command::MembershipChange;
use crate::gather::damaged;
use crate::intake::Rooms;

/// What is left of a membership in a room that this server is not in.
pub(super) struct Remains {
    pub outside: Outside,
    pub state: OutsideState,
    /// The newest invitation.
    pub invitation: Option<OwnedEventId>,
    /// The newest member event.
    pub event_id: Option<OwnedEventId>,
    pub version: Option<RoomVersion>,
}

impl Rooms {
    /// What can be read of a membership that ends; its row is there.
    ///
    /// # Errors
    /// If the store cannot be read at all.
    pub(super) async fn remains(
        &self,
        view: &View,
        (user, room): (UserNid, RoomNid),
        change: &MembershipChange,
    ) -> Result<Remains, StoreError> {
        let room_id = &change.room_id;
        let explained = |row: Option<_>| row.ok_or_else(|| damaged("Outsides", "a membership is not explained"));
        let outside = view.get::<Outsides>(&(user, room)).await.and_then(explained);
        let described = |row: Option<_>| row.ok_or_else(|| damaged("OutsideStates", "a membership is not described"));
        let state = view.get::<OutsideStates>(&(user, room)).await.and_then(described);
        let mut outside = legible(outside, room_id)?.unwrap_or_else(|| Outside {
            pos: Pos::ZERO,
            membership: change.membership,
            sender: change.target.to_string(),
            invitation: None,
            servers: Vec::new(),
        });
        let state = legible(state, room_id)?.unwrap_or_default();
        let event_id = |keyspace, id: Option<&String>| {
            let parsed = id.map(|id| OwnedEventId::try_from(id.as_str())).transpose();
            Ok(legible(parsed.map_err(|error| damaged(keyspace, error.to_string())), room_id)?.flatten())
        };
        let invitation = event_id("Outsides", outside.invitation.as_ref())?;
        // What is written anew is sound. Of damaged names it was told when they were to be asked.
        outside.invitation = invitation.as_ref().map(ToString::to_string);
        outside.servers.retain(|name| OwnedServerName::try_from(name.as_str()).is_ok());
        Ok(Remains {
            invitation,
            event_id: event_id("OutsideStates", state.event.as_ref().map(|(id, _)| id))?,
            version: legible(version_of(&state), room_id)?,
            outside,
            state,
        })
    }

    /// The servers that brought a membership, as far as they can be read.
    ///
    /// # Errors
    /// If the store cannot be read at all.
    pub(super) async fn bringers(
        &self,
        view: &View,
        (user, room): (UserNid, RoomNid),
        room_id: &RoomId,
    ) -> Result<Vec<OwnedServerName>, StoreError> {
        let outside = legible(view.get::<Outsides>(&(user, room)).await, room_id)?.flatten();
        let names = outside.map(|outside| outside.servers).unwrap_or_default();
        let mut servers = Vec::with_capacity(names.len());
        for name in names {
            let server = OwnedServerName::try_from(name).map_err(|error| damaged("Outsides", error.to_string()));
            servers.extend(legible(server, room_id)?);
        }
        Ok(servers)
    }
}

/// `None`: it is damaged, of which the operator is told.
fn legible<T>(read: Result<T, StoreError>, room_id: &RoomId) -> Result<Option<T>, StoreError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(%error, %room_id, "what is remembered of a room elsewhere is damaged, and left out");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
