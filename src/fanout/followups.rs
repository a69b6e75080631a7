//! What follows from an event beyond its room: one consumer for all of it, because each costs a cursor.
//!
//! * What users keep of a room follows them into the room that replaces it. Tags, push rules and the
//!   list of direct chats belong to accounts, so no use-case of a room can write them. Two things must
//!   have happened, in any order and perhaps by hand: the two rooms name each other, and the user has
//!   joined the new one. Whichever fact comes last finds the other done.
//! * Guests leave a room that does not let them in any more. Who is a guest is known to accounts only.
//! * Whoever gets into a room after the end of the account leaves it ([`crate::Departures`] sees to those before).

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_accounts::{AccountDataError, Accounts, StorageError};
use hearth_rooms::{RoomEvent, Rooms, Succession};
use hearth_schema::{AccountKind, Change, Membership, RoomNid, Users};
use hearth_store::{Batch, LoggedFact, StoreError, Value, View};
use ruma_common::{OwnedServerName, OwnedUserId, UserId};

use crate::{ConsumeError, Consumer, Habit};

/// Accounts looked at in one round trip.
const PAGE: usize = 256;

/// The consumer behind room upgrades and guest access.
pub struct Followups {
    rooms: Rooms,
    accounts: Arc<Accounts>,
    server_name: OwnedServerName,
}

impl Followups {
    /// Its name in `Cursors`.
    pub const NAME: &'static str = "followups";

    /// For users of `server_name`.
    pub fn new(rooms: Rooms, accounts: Arc<Accounts>, server_name: OwnedServerName) -> Self {
        Self { rooms, accounts, server_name }
    }

    async fn consume_page(&self, view: &View, facts: &[LoggedFact]) -> Result<(), ConsumeError> {
        let mut numbers: HashMap<RoomNid, Vec<u32>> = HashMap::new();
        for fact in facts {
            // Facts and events that are damaged are reported by the unread consumer and by `fsck`.
            if let Ok(Change::Event { event }) = Change::decode(&fact.body) {
                numbers.entry(event.room).or_default().push(event.n);
            }
        }
        for (room, numbers) in numbers {
            for event in self.load(view, room, &numbers).await? {
                match self.event(view, &event).await {
                    // Waiting would not repair the row, and stop everybody else of the lane.
                    Err(ConsumeError::Read(error @ StoreError::Corrupt { .. })) => {
                        tracing::error!(event_id = %event.event_id(), %error, "what follows from an event is left out");
                    }
                    other => other?,
                }
            }
        }
        Ok(())
    }

    async fn load(&self, view: &View, room: RoomNid, numbers: &[u32]) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        match self.rooms.events(view, room, numbers).await {
            Err(StoreError::Corrupt { .. }) if numbers.len() > 1 => {
                let mut found = Vec::new();
                for n in numbers {
                    found.extend(Box::pin(self.load(view, room, &[*n])).await?);
                }
                Ok(found)
            }
            Err(StoreError::Corrupt { .. }) => Ok(Vec::new()),
            found => found,
        }
    }

    async fn event(&self, view: &View, event: &RoomEvent) -> Result<(), ConsumeError> {
        match (event.event_type(), event.state_key()) {
            ("m.room.member", Some(user)) => {
                let Some(user) = self.local(user) else { return Ok(()) };
                if self.must_part(view, user, event.room).await? {
                    return Ok(self.rooms.part(user, event.pdu.room_id(), None).await?);
                }
                // Asked first, because most rooms have replaced none.
                let Some(found) = self.rooms.predecessor(view, event.room).await? else { return Ok(()) };
                if self.has_joined(view, user, event).await? {
                    self.carry(view, user, &found).await?;
                }
                Ok(())
            }
            ("m.room.tombstone", Some("")) => {
                let Some(found) = self.rooms.succession(view, event.room).await? else { return Ok(()) };
                for user in self.local_members(view, self.rooms.ids().room(&found.new)).await? {
                    self.carry(view, &user, &found).await?;
                }
                Ok(())
            }
            ("m.room.guest_access", Some("")) => self.part_from_guests(view, event).await,
            _ => Ok(()),
        }
    }

    async fn local_members(&self, view: &View, room: RoomNid) -> Result<Vec<OwnedUserId>, StoreError> {
        let members = self.rooms.current_state_of_type(view, room, "m.room.member").await?;
        let joined = members.iter().filter(|(_, entry)| entry.membership == Some(Membership::Join));
        Ok(joined.filter_map(|(user, _)| self.local(user)).map(ToOwned::to_owned).collect())
    }

    async fn part_from_guests(&self, view: &View, event: &RoomEvent) -> Result<(), ConsumeError> {
        let now = self.rooms.current_event(view, event.room, "m.room.guest_access", "").await?;
        if now.is_some_and(|event| lets_guests_in(&event)) {
            return Ok(());
        }
        for users in self.local_members(view, event.room).await?.chunks(PAGE) {
            let keys: Vec<_> = users.iter().map(|user| (self.rooms.ids().user(user),)).collect();
            for (user, row) in users.iter().zip(view.get_many::<Users>(&keys).await?) {
                if row.is_some_and(|row| row.kind == AccountKind::Guest) {
                    self.rooms.part(user, event.pdu.room_id(), Some(Membership::Join)).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether it is the user of an account that has ended, and yet has to do with the room: whoever joins or is
    /// invited at the moment of the end may be faster than the leaving that follows from it.
    async fn must_part(&self, view: &View, user: &UserId, room: RoomNid) -> Result<bool, StoreError> {
        let user = self.rooms.ids().user(user);
        if !view.get::<Users>(&(user,)).await?.is_some_and(|row| row.deactivated) {
            return Ok(false);
        }
        let row = self.rooms.membership(view, user, room).await?;
        Ok(row.is_some_and(|row| matches!(row.membership, Membership::Join | Membership::Invite | Membership::Knock)))
    }

    fn local<'a>(&self, user: &'a str) -> Option<&'a UserId> {
        <&UserId>::try_from(user).ok().filter(|user| user.server_name() == self.server_name)
    }

    /// Whether the member event lets the user in, rather than change the profile of who is in.
    async fn has_joined(&self, view: &View, user: &UserId, event: &RoomEvent) -> Result<bool, StoreError> {
        let before = self.rooms.membership_in(view, user, event.room, event.state_before).await?;
        let row = self.rooms.membership(view, self.rooms.ids().user(user), event.room).await?;
        Ok(before != Some(Membership::Join) && row.is_some_and(|row| row.membership == Membership::Join))
    }

    /// Only for who is or was in the old room: others keep nothing of it.
    async fn carry(&self, view: &View, user: &UserId, found: &Succession) -> Result<(), ConsumeError> {
        let old = self.rooms.ids().room(&found.old);
        let row = self.rooms.membership(view, self.rooms.ids().user(user), old).await?;
        if !row.is_some_and(|row| matches!(row.membership, Membership::Join | Membership::Leave)) {
            return Ok(());
        }
        match self.accounts.carry_to_room(user, &found.old, &found.new).await {
            Ok(()) => Ok(()),
            Err(AccountDataError::Storage(StorageError::Store(error))) => Err(error.into()),
            Err(AccountDataError::Storage(error @ (StorageError::Contended | StorageError::Full))) => {
                Err(StoreError::Unavailable(error.to_string().into()).into())
            }
            Err(error) => {
                // The user has as much as users may have: that is the user's to sort out.
                tracing::debug!(user_id = %user, room_id = %found.new, %error, "tags and rules are not carried along");
                Ok(())
            }
        }
    }
}

/// Members write these events, so anything may be in them; guests come in by one word only.
fn lets_guests_in(event: &RoomEvent) -> bool {
    serde_json::from_str::<serde_json::Value>(event.pdu.content().get())
        .is_ok_and(|content| content["guest_access"] == "can_join")
}

impl Consumer for Followups {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn consume<'a>(
        &'a mut self,
        view: &'a View,
        facts: &'a [LoggedFact],
        _: &'a mut Batch,
    ) -> BoxFuture<'a, Result<(), ConsumeError>> {
        self.consume_page(view, facts).boxed()
    }

    fn forget(&mut self) {}

    /// What it does is done by use-cases of their own, and never by the batch.
    fn habit(&self) -> Habit {
        Habit::Sparse
    }
}
