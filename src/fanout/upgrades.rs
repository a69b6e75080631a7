//! What users keep of a room follows them into the room that replaces it.
//!
//! Tags, push rules and the list of direct chats belong to accounts, so no use-case of a room can write
//! them. Two things must have happened, in any order and perhaps by hand: the two rooms name each
//! other, and the user has joined the new one. Whichever fact comes last finds the other done.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_accounts::{AccountDataError, Accounts, StorageError};
use hearth_rooms::{RoomEvent, Rooms, Succession};
use hearth_schema::{Change, Membership, RoomNid};
use hearth_store::{Batch, LoggedFact, StoreError, Value, View};
use ruma_common::{OwnedServerName, UserId};

use crate::{ConsumeError, Consumer};

/// The consumer behind room upgrades.
pub struct Upgrades {
    rooms: Rooms,
    accounts: Arc<Accounts>,
    server_name: OwnedServerName,
}

impl Upgrades {
    /// Its name in `Cursors`.
    pub const NAME: &'static str = "upgrades";

    /// Carries what users of `server_name` keep.
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
                        tracing::error!(event_id = %event.event_id(), %error, "a room upgrade is not followed");
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
                // Asked first, because most rooms have replaced none.
                let Some(found) = self.rooms.predecessor(view, event.room).await? else { return Ok(()) };
                if self.has_joined(view, user, event).await? {
                    self.carry(view, user, &found).await?;
                }
                Ok(())
            }
            ("m.room.tombstone", Some("")) => {
                let Some(found) = self.rooms.succession(view, event.room).await? else { return Ok(()) };
                let new = self.rooms.ids().room(&found.new);
                for (user, entry) in self.rooms.current_state_of_type(view, new, "m.room.member").await? {
                    if entry.membership == Some(Membership::Join)
                        && let Some(user) = self.local(&user)
                    {
                        self.carry(view, user, &found).await?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
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

impl Consumer for Upgrades {
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
}
