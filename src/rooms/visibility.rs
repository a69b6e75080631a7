//! Which events a user may see: the one place that decides it (client-server API, "Room history
//! visibility").

use std::collections::HashMap;
use std::sync::Arc;

use hearth_schema::{Membership, RoomNid, StateId};
use hearth_store::{StoreError, View};
use ruma_common::UserId;

use crate::intake::Rooms;
use crate::plan::membership_of;
use crate::query::RoomEvent;

/// `m.room.history_visibility`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    WorldReadable,
    Shared,
    Invited,
    Joined,
}

impl Visibility {
    /// Absent or unknown counts as `shared`.
    fn of(event: Option<&RoomEvent>) -> Self {
        #[derive(serde::Deserialize)]
        struct Content {
            history_visibility: String,
        }
        let content = event.map(|event| serde_json::from_str::<Content>(event.pdu.content().get()));
        match content {
            Some(Ok(content)) => match content.history_visibility.as_str() {
                "world_readable" => Self::WorldReadable,
                "invited" => Self::Invited,
                "joined" => Self::Joined,
                _ => Self::Shared,
            },
            _ => Self::Shared,
        }
    }
}

/// What matters about one state snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    visibility: Visibility,
    membership: Option<Membership>,
}

impl Standing {
    /// Whether an event sent in this state is visible to a user who is, or was later, `joined`.
    #[expect(clippy::fn_params_excessive_bools, reason = "the one fact about the user that the state does not hold")]
    const fn shows(self, joined_since: bool) -> bool {
        match (self.visibility, self.membership) {
            (Visibility::WorldReadable, _)
            | (_, Some(Membership::Join))
            | (Visibility::Invited, Some(Membership::Invite)) => true,
            (Visibility::Shared, _) => joined_since,
            (Visibility::Invited | Visibility::Joined, _) => false,
        }
    }
}

impl Rooms {
    /// Those of `events`, all of one room and in timeline order, that `user` may see.
    ///
    /// Nothing after a leave or ban is shown unless the room was world readable then; the events of
    /// the user's own membership are always shown. Events of erased users may be shown pruned.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn visible(
        &self,
        view: &View,
        user: &UserId,
        room: RoomNid,
        events: Vec<Arc<RoomEvent>>,
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let shown = self.visible_by_history(view, user, room, events).await?;
        self.prune_erased(view, user, room, shown).await
    }

    async fn visible_by_history(
        &self,
        view: &View,
        user: &UserId,
        room: RoomNid,
        events: Vec<Arc<RoomEvent>>,
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let current = self.membership(view, self.ids().user(user), room).await?;
        let joined_now = current.as_ref().is_some_and(|row| row.membership == Membership::Join);
        if joined_now && self.always_shared(view, room).await? {
            return Ok(events);
        }
        // "shared" shows history to whoever joined at any later point, up to the leave.
        let until = match &current {
            None => None,
            Some(row) if row.membership == Membership::Join => Some(hearth_store::Pos::MAX),
            Some(row) => self.was_joined_before(view, room, row.n).await?.then_some(row.pos),
        };
        let mut known: HashMap<StateId, Standing> = HashMap::new();
        let mut shown = Vec::with_capacity(events.len());
        for event in events {
            let own = event.event_type() == "m.room.member" && event.state_key() == Some(user.as_str());
            let before = self.standing(view, user, room, event.state_before, &mut known).await?;
            let joined_since = until.is_some_and(|until| event.pos <= until);
            // A change of visibility or membership is judged by what it leads to as well, so that a
            // join is shown to who joins and the end of `world_readable` to who was reading.
            let after = Standing {
                visibility: if event.event_type() == "m.room.history_visibility" && event.state_key() == Some("") {
                    Visibility::of(Some(&event))
                } else {
                    before.visibility
                },
                membership: if own { membership_of(&event.pdu) } else { before.membership },
            };
            if before.shows(joined_since) || after.shows(joined_since) || own {
                shown.push(event);
            }
        }
        Ok(shown)
    }

    /// Whether everybody may read what is sent to the room now.
    pub(crate) async fn world_readable(&self, view: &View, room: RoomNid) -> Result<bool, StoreError> {
        let entry = self.current_entry(view, room, "m.room.history_visibility", "").await?;
        let Some(entry) = entry else { return Ok(false) };
        let events = self.events(view, room, &[entry.n]).await?;
        Ok(Visibility::of(events.first().map(|event| &**event)) == Visibility::WorldReadable)
    }

    /// The room has had one visibility for ever, and it is one that hides nothing from its members.
    async fn always_shared(&self, view: &View, room: RoomNid) -> Result<bool, StoreError> {
        let entry = self.current_entry(view, room, "m.room.history_visibility", "").await?;
        let Some(entry) = entry else { return Ok(true) };
        let events = self.events(view, room, &[entry.n]).await?;
        let event = events.first();
        let unchanged = event.is_some_and(|event| event.replaces_state.is_none());
        Ok(unchanged
            && matches!(Visibility::of(event.map(|event| &**event)), Visibility::Shared | Visibility::WorldReadable))
    }

    /// Whether the membership event `n` ended a membership that was `join`.
    async fn was_joined_before(&self, view: &View, room: RoomNid, n: u32) -> Result<bool, StoreError> {
        let events = self.events(view, room, &[n]).await?;
        let Some(previous) = events.first().and_then(|event| event.replaces_state) else { return Ok(false) };
        let previous = self.events(view, room, &[previous]).await?;
        Ok(previous.first().and_then(|event| membership_of(&event.pdu)) == Some(Membership::Join))
    }

    #[expect(clippy::too_many_arguments, reason = "the receiver counts; what is left names different things")]
    async fn standing(
        &self,
        view: &View,
        user: &UserId,
        room: RoomNid,
        state: StateId,
        known: &mut HashMap<StateId, Standing>,
    ) -> Result<Standing, StoreError> {
        if let Some(standing) = known.get(&state) {
            return Ok(*standing);
        }
        let keys = [("m.room.history_visibility", ""), ("m.room.member", user.as_str())];
        let found = self.state_lookup(view, room, state, &keys).await?;
        let numbers: Vec<u32> = found.iter().copied().flatten().collect();
        let mut events = self.events(view, room, &numbers).await?.into_iter();
        let mut next = |found: &Option<u32>| found.and_then(|_| events.next());
        let (visibility, member) = (next(&found[0]), next(&found[1]));
        let standing = Standing {
            visibility: Visibility::of(visibility.as_deref()),
            membership: member.and_then(|event| membership_of(&event.pdu)),
        };
        known.insert(state, standing);
        Ok(standing)
    }

    /// The user's membership in a snapshot, for `unsigned.membership`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn membership_in(
        &self,
        view: &View,
        user: &UserId,
        room: RoomNid,
        state: StateId,
    ) -> Result<Option<Membership>, StoreError> {
        let found = self.state_lookup(view, room, state, &[("m.room.member", user.as_str())]).await?;
        let Some(Some(n)) = found.first().copied() else { return Ok(None) };
        let events = self.events(view, room, &[n]).await?;
        Ok(events.first().and_then(|event| membership_of(&event.pdu)))
    }
}
