//! Which events a user may see: the one place that decides it (client-server API, "Room history
//! visibility").

use std::collections::HashMap;
use std::sync::Arc;

use hearth_schema::{Membership, RoomNid, StateId, StateKeyNid, UserRoom, Verdict};
use hearth_store::{Pos, StoreError, View};
use ruma_common::UserId;

use crate::gather::damaged;
use crate::intake::Rooms;
use crate::plan::membership_of;
use crate::query::RoomEvent;

/// Changes of one user's membership that are followed into the past; before them, the user counts as never in.
const MAX_CHANGES: usize = 100;

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
    pub(crate) fn of(event: Option<&RoomEvent>) -> Self {
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
    ///
    /// An invitation alone opens nothing: "in all cases except `world_readable`, a user needs to join".
    #[expect(clippy::fn_params_excessive_bools, reason = "the one fact about the user that the state does not hold")]
    const fn shows(self, joined_since: bool) -> bool {
        match (self.visibility, self.membership) {
            (Visibility::WorldReadable, _) | (_, Some(Membership::Join)) => true,
            (Visibility::Shared, _) | (Visibility::Invited, Some(Membership::Invite)) => joined_since,
            (Visibility::Invited | Visibility::Joined, _) => false,
        }
    }

    /// The same after `event`: a change of visibility or membership is judged by what it leads to as well, so that a
    /// join is shown to who joins and the end of `world_readable` to who was reading.
    fn with(self, event: &RoomEvent, user: &UserId) -> Self {
        let sets_visibility = event.event_type() == "m.room.history_visibility" && event.state_key() == Some("");
        Self {
            visibility: if sets_visibility { Visibility::of(Some(event)) } else { self.visibility },
            membership: if is_member_event_of(event, user) { membership_of(&event.pdu) } else { self.membership },
        }
    }
}

fn is_member_event_of(event: &RoomEvent, user: &UserId) -> bool {
    event.event_type() == "m.room.member" && event.state_key() == Some(user.as_str())
}

impl Rooms {
    /// Those of `events`, all of one room and in timeline order, that `user` may see.
    ///
    /// Nothing after a leave or ban is shown unless the room was world readable then; the events of
    /// the user's own membership are always shown. Events of erased users may be shown pruned. What the
    /// user may see at all, and up to where, is for the caller to know.
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
        let joined = current.as_ref().filter(|row| row.membership == Membership::Join);
        if joined.is_some() && self.always_shared(view, room).await? {
            return Ok(events);
        }
        let until = self.joined_until(view, room, current.as_ref()).await?;
        let mut known: HashMap<StateId, Standing> = HashMap::new();
        let mut shown = Vec::with_capacity(events.len());
        for event in events {
            if joined.is_some_and(|row| event.pos >= row.pos) {
                shown.push(event);
                continue;
            }
            let before = self.standing(view, user, room, event.state_before, &mut known).await?;
            let joined_since = until.is_some_and(|until| event.pos <= until);
            let after = before.with(&event, user);
            if before.shows(joined_since) || after.shows(joined_since) || is_member_event_of(&event, user) {
                shown.push(event);
            }
        }
        Ok(shown)
    }

    /// Whether `user` may see every event of the room: joined, and nothing was ever hidden from members.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) async fn hides_nothing(&self, view: &View, user: &UserId, room: RoomNid) -> Result<bool, StoreError> {
        let row = self.membership(view, self.ids().user(user), room).await?;
        let joined = row.is_some_and(|row| row.membership == Membership::Join);
        Ok(joined && self.always_shared(view, room).await?)
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
        // Of an event that came with the state of a joined room nobody here knows what was before it.
        let unchanged = event.is_some_and(|event| event.verdict == Verdict::Accepted && event.replaces_state.is_none());
        Ok(unchanged
            && matches!(Visibility::of(event.map(|event| &**event)), Visibility::Shared | Visibility::WorldReadable))
    }

    /// Up to where the user, whose newest membership is `row`, was in the room, or will be; `None`: never.
    async fn joined_until(
        &self,
        view: &View,
        room: RoomNid,
        row: Option<&UserRoom>,
    ) -> Result<Option<Pos>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        if row.membership == Membership::Join {
            return Ok(Some(Pos::MAX));
        }
        // In a room that this server was not in, nobody of it saw anything.
        let Some(n) = row.n else { return Ok(None) };
        let mut newer = self.one_event(view, room, n).await?;
        for _ in 0..MAX_CHANGES {
            let Some(previous) = newer.replaces_state else { return Ok(None) };
            let previous = self.one_event(view, room, previous).await?;
            if membership_of(&previous.pdu) == Some(Membership::Join) {
                return Ok(Some(newer.pos));
            }
            newer = previous;
        }
        Ok(None)
    }

    async fn one_event(&self, view: &View, room: RoomNid, n: u32) -> Result<Arc<RoomEvent>, StoreError> {
        self.events(view, room, &[n]).await?.pop().ok_or_else(|| damaged("Events", "no event"))
    }

    /// Whether the rules show `user` what was sent in the state `at`, which was the room's after `pos`, and so that
    /// state.
    #[expect(clippy::too_many_arguments, reason = "the receiver counts; what is left names different things")]
    pub(crate) async fn shows_state(
        &self,
        view: &View,
        user: &UserId,
        room: RoomNid,
        at: StateId,
        pos: Pos,
    ) -> Result<bool, StoreError> {
        let row = self.membership(view, self.ids().user(user), room).await?;
        let until = self.joined_until(view, room, row.as_ref()).await?;
        let standing = self.standing(view, user, room, at, &mut HashMap::new()).await?;
        Ok(standing.shows(until.is_some_and(|until| pos <= until)))
    }

    /// Whether the rules show `user` the state around `event`, which the user sees perhaps only as the own membership.
    pub(crate) async fn shows_state_around(
        &self,
        view: &View,
        user: &UserId,
        event: &RoomEvent,
    ) -> Result<bool, StoreError> {
        if !is_member_event_of(event, user) {
            return Ok(true);
        }
        let row = self.membership(view, self.ids().user(user), event.room).await?;
        let until = self.joined_until(view, event.room, row.as_ref()).await?;
        let joined_since = until.is_some_and(|until| event.pos <= until);
        let before = self.standing(view, user, event.room, event.state_before, &mut HashMap::new()).await?;
        Ok(before.shows(joined_since) || before.with(event, user).shows(joined_since))
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
        match self.state_place(view, room, "m.room.member", user.as_str()).await? {
            None => Ok(None),
            Some(place) => self.membership_at_place(view, room, state, place).await,
        }
    }

    /// The same for the user whose member events have the place `place` in the room's states.
    pub(crate) async fn membership_at_place(
        &self,
        view: &View,
        room: RoomNid,
        state: StateId,
        place: StateKeyNid,
    ) -> Result<Option<Membership>, StoreError> {
        let Some(n) = self.state_number(view, room, state, place).await? else { return Ok(None) };
        Ok(membership_of(&self.one_event(view, room, n).await?.pdu))
    }
}
