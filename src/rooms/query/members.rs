//! States and members of rooms, as a user may read them.

use std::collections::HashSet;
use std::sync::Arc;

use hearth_schema::{Membership, RoomNid, StateId};
use hearth_store::{Pos, StoreError, View};
use ruma_common::{OwnedUserId, RoomId, UserId};

use super::event::RoomEvent;
use super::history::Access;
use crate::QueryError;
use crate::gather::damaged;
use crate::intake::Rooms;
use crate::plan::membership_of;

/// Changes of one user's membership that are followed back to a point of the timeline.
const MAX_CHANGES: usize = 100;

/// Which members are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersFilter {
    /// These.
    pub membership: Option<Membership>,
    /// All but these. With `membership`, one of both is enough.
    pub not_membership: Option<Membership>,
    /// At this point of the timeline instead of now.
    pub at: Option<Pos>,
}

impl MembersFilter {
    /// Spec: <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers>
    fn wants(&self, has: Option<Membership>) -> bool {
        match (self.membership, self.not_membership) {
            (None, None) => true,
            (Some(only), None) => has == Some(only),
            (None, Some(not)) => has != Some(not),
            (Some(only), Some(not)) => has == Some(only) || has != Some(not),
        }
    }
}

impl Rooms {
    /// One entry of the state: the current one for members and in rooms that everybody may read, that
    /// of the leave for who has left.
    ///
    /// # Errors
    /// [`QueryError::Forbidden`] or [`QueryError::NotFound`].
    pub async fn state_event(
        &self,
        user: &UserId,
        room_id: &RoomId,
        event_type: &str,
        state_key: &str,
    ) -> Result<Arc<RoomEvent>, QueryError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        let n = match self.access(&view, user, room).await? {
            Access::Joined | Access::Peeking => {
                self.current_entry(&view, room, event_type, state_key).await?.map(|entry| entry.n)
            }
            Access::Until(n, _) if event_type == "m.room.member" && state_key == user.as_str() => Some(n),
            Access::Until(n, _) => {
                let before = self.state_before(&view, room, n).await?;
                self.state_lookup(&view, room, before, &[(event_type, state_key)]).await?.into_iter().next().flatten()
            }
        };
        let n = n.ok_or(QueryError::NotFound)?;
        self.events(&view, room, &[n]).await?.pop().ok_or(QueryError::NotFound)
    }

    /// The whole state, likewise.
    ///
    /// # Errors
    /// [`QueryError::Forbidden`].
    pub async fn full_state(&self, user: &UserId, room_id: &RoomId) -> Result<Vec<Arc<RoomEvent>>, QueryError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        match self.access(&view, user, room).await? {
            Access::Joined | Access::Peeking => {
                let numbers: Vec<u32> = self.current(&view, room).await?.numbers().collect();
                Ok(self.events(&view, room, &numbers).await?)
            }
            Access::Until(n, _) => {
                let before = self.state_before(&view, room, n).await?;
                let mut numbers = self.state_at(&view, room, before).await?;
                numbers.push(n);
                let mut events = self.events(&view, room, &numbers).await?;
                let own = |event: &RoomEvent| {
                    event.event_type() == "m.room.member" && event.state_key() == Some(user.as_str())
                };
                events.retain(|event| event.n == n || !own(event));
                Ok(events)
            }
        }
    }

    /// The state with `event` in it, which `user` sees; where the event is all that the user may see of its time,
    /// the state that the user may ask for.
    ///
    /// # Errors
    /// [`QueryError::Forbidden`].
    pub async fn state_with(
        &self,
        user: &UserId,
        room_id: &RoomId,
        event: &Arc<RoomEvent>,
    ) -> Result<Vec<Arc<RoomEvent>>, QueryError> {
        let view = self.view().await?;
        if !self.shows_state_around(&view, user, event).await? {
            return self.full_state(user, room_id).await;
        }
        let numbers = self.state_at(&view, event.room, event.state_before).await?;
        let mut state = self.events(&view, event.room, &numbers).await?;
        if event.state_key().is_some() {
            state.retain(|other| (other.event_type(), other.state_key()) != (event.event_type(), event.state_key()));
            state.push(Arc::clone(event));
        }
        state.sort_unstable_by_key(|event| event.n);
        Ok(state)
    }

    /// Member events.
    ///
    /// # Errors
    /// [`QueryError::Forbidden`].
    pub async fn members(
        &self,
        user: &UserId,
        room_id: &RoomId,
        filter: &MembersFilter,
    ) -> Result<Vec<Arc<RoomEvent>>, QueryError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        let access = self.access(&view, user, room).await?;
        let wanted = |membership| filter.wants(membership);
        if matches!((access, filter.at), (Access::Joined | Access::Peeking, None)) {
            let current = self.current(&view, room).await?;
            let members = current.of_type("m.room.member").map(|(_, entry)| entry);
            let numbers: Vec<u32> = members.filter(|entry| wanted(entry.membership)).map(|entry| entry.n).collect();
            return Ok(self.events(&view, room, &numbers).await?);
        }
        let last = match access {
            Access::Joined | Access::Peeking => Pos::MAX,
            Access::Until(_, last) => last,
        };
        let mut at = filter.at.map_or(last, |at| at.min(last));
        let mut state = self.state_after(&view, room, at).await?;
        if state == StateId::EMPTY {
            // A timeline that begins with the room begins with its members.
            at = self.first_join_after(&view, user, room, at).await?;
            state = self.state_after(&view, room, at).await?;
        }
        // A time that the user may not look back to is no time: the newest is what there is.
        if at < last && !self.shows_state(&view, user, room, state, at).await? {
            at = last;
            state = self.state_after(&view, room, at).await?;
        }
        let mut events = self.member_events(&view, room, state).await?;
        events.retain(|event| wanted(membership_of(&event.pdu)));
        Ok(events)
    }

    /// Where `user` first joined after `at`; `at` itself for who never did.
    async fn first_join_after(&self, view: &View, user: &UserId, room: RoomNid, at: Pos) -> Result<Pos, StoreError> {
        let row = self.membership(view, self.ids().user(user), room).await?;
        let (mut joined, mut next) = (at, row.and_then(|row| row.n));
        for _ in 0..MAX_CHANGES {
            let Some(n) = next else { break };
            let Some(event) = self.events(view, room, &[n]).await?.pop() else { break };
            if event.pos > at && membership_of(&event.pdu) == Some(Membership::Join) {
                joined = event.pos;
            }
            next = event.replaces_state;
        }
        Ok(joined)
    }

    /// The member events of those who are joined now. Only members may ask.
    ///
    /// # Errors
    /// [`QueryError::Forbidden`].
    pub async fn joined_members(&self, user: &UserId, room_id: &RoomId) -> Result<Vec<Arc<RoomEvent>>, QueryError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        if self.access(&view, user, room).await? != Access::Joined {
            return Err(QueryError::Forbidden);
        }
        let current = self.current(&view, room).await?;
        let members = current.of_type("m.room.member").map(|(_, entry)| entry);
        let joined = members.filter(|entry| entry.membership == Some(Membership::Join));
        let numbers: Vec<u32> = joined.map(|entry| entry.n).collect();
        Ok(self.events(&view, room, &numbers).await?)
    }

    /// A user who is joined now and for whom `is_one` holds; `None`: there is none, or no such room here.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn joined_user(
        &self,
        room_id: &RoomId,
        is_one: impl Fn(&UserId) -> bool + Send,
    ) -> Result<Option<OwnedUserId>, StoreError> {
        let (view, room) = (self.view().await?, self.ids().room(room_id));
        if self.room(&view, room).await?.is_none() {
            return Ok(None);
        }
        let current = self.current(&view, room).await?;
        let mut joined =
            current.of_type("m.room.member").filter(|(_, entry)| entry.membership == Some(Membership::Join));
        // What is no user ID is nobody.
        Ok(joined.find_map(|(key, _)| match <&UserId>::try_from(key) {
            Ok(user) if is_one(user) => Some(user.to_owned()),
            _ => None,
        }))
    }

    /// Member events of those who sent `events`, for lazy loading: the current ones, or those of the leave.
    pub(crate) async fn members_of_senders(
        &self,
        view: &View,
        room: RoomNid,
        access: Access,
        events: &[Arc<RoomEvent>],
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let senders: HashSet<&str> = events.iter().map(|event| event.sender().as_str()).collect();
        if let Access::Until(_, last) = access {
            let state = self.state_after(view, room, last).await?;
            let keys: Vec<_> = senders.iter().map(|sender| ("m.room.member", *sender)).collect();
            let found = self.state_lookup(view, room, state, &keys).await?;
            let numbers: Vec<u32> = found.into_iter().flatten().collect();
            return self.events(view, room, &numbers).await;
        }
        let keys: Vec<_> = senders.iter().map(|s| (room, "m.room.member".to_owned(), (*s).to_owned())).collect();
        let entries = view.get_many::<hearth_schema::CurrentState>(&keys).await?;
        let numbers: Vec<u32> = entries.into_iter().flatten().map(|entry| entry.n).collect();
        self.events(view, room, &numbers).await
    }

    async fn member_events(
        &self,
        view: &View,
        room: RoomNid,
        state: StateId,
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let numbers = self.state_at(view, room, state).await?;
        let mut events = self.events(view, room, &numbers).await?;
        events.retain(|event| event.event_type() == "m.room.member");
        Ok(events)
    }

    async fn state_before(&self, view: &View, room: RoomNid, n: u32) -> Result<StateId, StoreError> {
        let events = self.events(view, room, &[n]).await?;
        events.first().map(|event| event.state_before).ok_or_else(|| damaged("Events", "no event"))
    }
}
