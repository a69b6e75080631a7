//! One batch of the unread consumer.

use std::collections::HashMap;

use hearth_event::PowerLevels;
use hearth_rooms::{RoomEvent, Rooms, SentBy};
use hearth_schema::{
    CurrentState, Highlights, Ids, Membership, Mention, ReadPoint, ReceiptLog, Receipts, RoomNid, Tally, ThreadRead,
    UserNid, UserRooms,
};
use hearth_store::{Batch, Pos, StoreError, View};
use ruma_common::{EventId, OwnedServerName, UserId};

use super::readers::Readers;
use super::tally::Tallies;
use crate::notify::{Notification, notification};

/// A user in a room.
pub(super) type InRoom = (UserNid, RoomNid);

/// One batch in the making.
pub(super) struct Page<'a> {
    rooms: &'a Rooms,
    server_name: &'a OwnedServerName,
    pub(super) tallies: &'a mut Tallies,
    pub(super) readers: &'a mut Readers,
    pub(super) view: &'a View,
    pub(super) batch: &'a mut Batch,
    /// Read points that this batch moves.
    pub(super) read: HashMap<InRoom, ReadPoint>,
    /// The same in threads; `None`: one that is no longer needed.
    pub(super) threads: HashMap<InRoom, HashMap<u32, Option<ThreadRead>>>,
}

impl<'a> Page<'a> {
    pub(super) fn new(
        (rooms, server_name): (&'a Rooms, &'a OwnedServerName),
        (tallies, readers): (&'a mut Tallies, &'a mut Readers),
        view: &'a View,
        batch: &'a mut Batch,
    ) -> Self {
        Self { rooms, server_name, tallies, readers, view, batch, read: HashMap::new(), threads: HashMap::new() }
    }

    fn ids(&self) -> &Ids {
        self.rooms.ids()
    }

    pub(super) async fn event(&mut self, event: &RoomEvent) -> Result<(), StoreError> {
        let found = notification(event.event_type(), event.state_key(), event.pdu.content().get());
        let everybody = found.highlights || (found.mentions_room && self.may_mention_room(event).await?);
        let thread = self.thread(event).await?;
        let one = Tally { notifying: 1, highlighting: u64::from(everybody) };
        let one = Some(one).filter(|_| found.notifies || everybody);
        self.tallies.count((self.view, &mut *self.batch), (event.room, event.pos), thread, one).await?;
        self.mention(event, &found, thread).await?;
        if event.sender().server_name() == self.server_name {
            self.sent(event, thread).await?;
        }
        Ok(())
    }

    /// An event whose relations cannot be read is counted outside threads.
    async fn thread(&self, event: &RoomEvent) -> Result<Option<u32>, StoreError> {
        match self.rooms.thread_of(self.view, event).await {
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(room = ?event.room, n = event.n, %error, "a related event is damaged");
                Ok(None)
            }
            other => other,
        }
    }

    /// Whoever joins has read everything, whoever speaks what comes before in the same thread. Other
    /// changes of membership and of the profile, which goes to every room at once, say nothing. Nor does a delayed
    /// event, although it counts as unread for its own sender then, if it is one that notifies: that is one too many,
    /// and what would be lost are mentions.
    async fn sent(&mut self, event: &RoomEvent, thread: Option<u32>) -> Result<(), StoreError> {
        let reader = (self.ids().user(event.sender()), event.room);
        if event.event_type() == "m.room.member" {
            if self.is_join(event).await? {
                self.raise_mark(reader, event.pos);
                self.read_all(reader, event.pos).await?;
            }
            return Ok(());
        }
        // Whoever has it sent by the server need not be there to read anything.
        if event.sent_by.as_ref().is_some_and(SentBy::is_delayed) {
            return Ok(());
        }
        self.raise_mark(reader, event.pos);
        match thread {
            None => self.read_main(reader, event.pos).await,
            Some(root) => self.read_thread(reader, root, event.pos).await,
        }
    }

    async fn is_join(&self, event: &RoomEvent) -> Result<bool, StoreError> {
        if event.state_key() != Some(event.sender().as_str()) || membership(event) != Some(Membership::Join) {
            return Ok(false);
        }
        let Some(previous) = event.replaces_state else { return Ok(true) };
        let previous = self.rooms.events(self.view, event.room, &[previous]).await?;
        Ok(!previous.iter().any(|event| membership(event) == Some(Membership::Join)))
    }

    async fn may_mention_room(&self, event: &RoomEvent) -> Result<bool, StoreError> {
        let slot = |event_type: &str| (event.room, event_type.to_owned(), String::new());
        let keys = [slot("m.room.create"), slot("m.room.power_levels")];
        let entries = self.view.get_many::<CurrentState>(&keys).await?;
        let numbers: Vec<u32> = entries.into_iter().flatten().map(|entry| entry.n).collect();
        let events = self.rooms.events(self.view, event.room, &numbers).await?;
        let find = |event_type: &str| events.iter().find(|event| event.event_type() == event_type);
        let Some(create) = find("m.room.create") else { return Ok(false) };
        let levels =
            PowerLevels::of(create.pdu.version(), &create.pdu, find("m.room.power_levels").map(|event| &event.pdu));
        Ok(levels.user(event.sender()) >= levels.notify_room())
    }

    async fn mention(
        &mut self,
        event: &RoomEvent,
        found: &Notification,
        thread: Option<u32>,
    ) -> Result<(), StoreError> {
        let local = |user: &&UserId| user.server_name() == self.server_name && *user != event.sender();
        let users: Vec<UserNid> =
            found.mentions.iter().map(AsRef::as_ref).filter(local).map(|user| self.ids().user(user)).collect();
        if users.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = users.iter().map(|user| (*user, event.room)).collect();
        let rows = self.view.get_many::<UserRooms>(&keys).await?;
        for (user, row) in users.into_iter().zip(rows) {
            if row.is_some_and(|row| row.membership == Membership::Join) {
                self.raise_mark((user, event.room), event.pos);
                self.readers.mention((user, event.room));
                self.batch.put_elsewhere::<Highlights>(&(user, event.room, event.pos), &Mention { thread });
            }
        }
        Ok(())
    }

    /// A receipt is read from its row, by the log row at the fact's position. Without that row it has
    /// moved on since, and a later fact says so.
    pub(super) async fn receipt(&mut self, room: RoomNid, user: UserNid, pos: Pos) -> Result<(), StoreError> {
        let Some(name) = self.view.get::<ReceiptLog>(&(room, pos)).await? else { return Ok(()) };
        let local = UserId::parse(name.user_id.as_str()).is_ok_and(|id| id.server_name() == self.server_name);
        if !local {
            return Ok(());
        }
        let key = (room, name.kind, name.thread, name.user_id);
        let Some(receipt) = self.view.get::<Receipts>(&key).await? else { return Ok(()) };
        self.raise_mark((user, room), pos);
        let (reader, read_to) = ((user, room), Pos::new(receipt.event_pos));
        match key.2.as_str() {
            "" => self.read_all(reader, read_to).await,
            "main" => self.read_main(reader, read_to).await,
            thread => {
                // Receipts are checked when they come in; of a thread that is not there nothing is read.
                let Ok(thread) = <&EventId>::try_from(thread) else { return Ok(()) };
                match self.rooms.event_in_room(self.view, room, thread).await? {
                    Some(event) => self.read_thread(reader, event.n, read_to).await,
                    None => Ok(()),
                }
            }
        }
    }

    fn raise_mark(&self, (user, room): InRoom, pos: Pos) {
        self.rooms.read_marks().raise(user, room, pos);
    }
}

fn membership(event: &RoomEvent) -> Option<Membership> {
    #[derive(serde::Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        membership: std::borrow::Cow<'a, str>,
    }
    let content = serde_json::from_str::<Content<'_>>(event.pdu.content().get()).ok()?;
    Membership::parse(&content.membership)
}
