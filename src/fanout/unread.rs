//! Unread counts at a cost that does not depend on how many members a room has.
//!
//! The problem: a room of 2 000 members must not write 2 000 rows for a message. The answer: a room
//! has running totals by timeline position (`RoomTallies`); a user has the totals at the point up to
//! which they have read (`ReadPoints`); a count is the difference of two. Only a mention of single
//! users writes a row for each of them (`Highlights`).
//!
//! A read point moves forward with receipts, with what the user sends, and with joining. All rows
//! are functions of the log, so consuming a fact again changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_event::PowerLevels;
use hearth_rooms::{RoomEvent, Rooms};
use hearth_schema::{
    Change, CurrentState, Highlights, Ids, Membership, ReadPoint, ReadPoints, ReceiptLog, Receipts, RoomNid,
    RoomTallies, RoomTally, UserNid, UserRooms,
};
use hearth_store::{Batch, LoggedFact, Order, Pos, StoreError, Value, View};
use ruma_common::{OwnedServerName, UserId};

use crate::notify::{Notification, notification};
use crate::{ConsumeError, Consumer};

/// Rooms whose newest tally is kept in memory.
const TALLIES: usize = 4096;
/// Read highlights removed with one receipt; the next receipt removes more.
const FORGOTTEN_HIGHLIGHTS: usize = 64;

/// The consumer behind `unread_notifications`.
pub struct Unread {
    rooms: Rooms,
    server_name: OwnedServerName,
    /// Newest tally by room. Nobody else writes them.
    newest: HashMap<RoomNid, (Pos, RoomTally)>,
}

impl Unread {
    /// Its name in `Cursors`.
    pub const NAME: &'static str = "unread";

    /// Counts for the users of `server_name`.
    pub fn new(rooms: Rooms, server_name: OwnedServerName) -> Self {
        Self { rooms, server_name, newest: HashMap::new() }
    }

    async fn consume_page(&mut self, view: &View, facts: &[LoggedFact], batch: &mut Batch) -> Result<(), ConsumeError> {
        if self.newest.len() > TALLIES {
            self.newest.clear();
        }
        let changes = decode(facts);
        let events = self.load(view, &changes).await?;
        let mut page = Page {
            rooms: &self.rooms,
            server_name: &self.server_name,
            newest: &mut self.newest,
            view,
            batch,
            fresh: HashMap::new(),
            read: HashMap::new(),
        };
        for (pos, change) in &changes {
            match change {
                Change::Event { event } => {
                    // An event that could not be read has been reported; it counts for nobody.
                    if let Some(event) = events.get(&(event.room, event.n)) {
                        page.event(event).await?;
                    }
                }
                Change::Receipt { room, user } => page.receipt(*room, *user, *pos).await?,
                Change::AccountData { .. } => {}
            }
        }
        page.finish();
        Ok(())
    }

    /// The events that `changes` speak of, a room's in one round trip.
    async fn load(
        &self,
        view: &View,
        changes: &[(Pos, Change)],
    ) -> Result<HashMap<(RoomNid, u32), Arc<RoomEvent>>, StoreError> {
        let mut numbers: HashMap<RoomNid, Vec<u32>> = HashMap::new();
        for (_, change) in changes {
            if let Change::Event { event } = change {
                numbers.entry(event.room).or_default().push(event.n);
            }
        }
        let mut found = HashMap::new();
        for (room, numbers) in numbers {
            match self.rooms.events(view, room, &numbers).await {
                Ok(events) => found.extend(events.into_iter().map(|event| ((room, event.n), event))),
                Err(StoreError::Corrupt { .. }) => self.load_singly(view, room, &numbers, &mut found).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// One damaged row must not stop the counts of a whole lane for good.
    async fn load_singly(
        &self,
        view: &View,
        room: RoomNid,
        numbers: &[u32],
        found: &mut HashMap<(RoomNid, u32), Arc<RoomEvent>>,
    ) -> Result<(), StoreError> {
        for n in numbers {
            match self.rooms.events(view, room, &[*n]).await {
                Ok(events) => found.extend(events.into_iter().map(|event| ((room, event.n), event))),
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(?room, n, %error, "an event is damaged and does not count as unread");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Consumer for Unread {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn consume<'a>(
        &'a mut self,
        view: &'a View,
        facts: &'a [LoggedFact],
        batch: &'a mut Batch,
    ) -> BoxFuture<'a, Result<(), ConsumeError>> {
        self.consume_page(view, facts, batch).boxed()
    }

    fn forget(&mut self) {
        self.newest.clear();
    }
}

fn decode(facts: &[LoggedFact]) -> Vec<(Pos, Change)> {
    let mut changes = Vec::with_capacity(facts.len());
    for fact in facts {
        match Change::decode(&fact.body) {
            Ok(change) => changes.push((fact.pos, change)),
            // Waiting would stop the lane for ever, and nobody can repair the row meanwhile.
            Err(error) => tracing::error!(pos = fact.pos.get(), %error, "a fact of the change log is damaged"),
        }
    }
    changes
}

/// One batch in the making.
struct Page<'a> {
    rooms: &'a Rooms,
    server_name: &'a OwnedServerName,
    newest: &'a mut HashMap<RoomNid, (Pos, RoomTally)>,
    view: &'a View,
    batch: &'a mut Batch,
    /// Tallies of this batch, ascending; the view does not have them.
    fresh: HashMap<RoomNid, Vec<(Pos, RoomTally)>>,
    /// Read points that this batch moves.
    read: HashMap<(UserNid, RoomNid), ReadPoint>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moved {
    Yes,
    No,
}

impl Page<'_> {
    fn ids(&self) -> &Ids {
        self.rooms.ids()
    }

    async fn event(&mut self, event: &RoomEvent) -> Result<(), StoreError> {
        let found = notification(event.event_type(), event.state_key(), event.pdu.content().get());
        let everybody = found.highlights || (found.mentions_room && self.may_mention_room(event).await?);
        let mut tally = self.tally_before(event.room, event.pos).await?;
        if found.notifies || everybody {
            tally.notifying += 1;
            tally.highlighting += u64::from(everybody);
            self.batch.put::<RoomTallies>(&(event.room, event.pos), &tally);
            self.fresh.entry(event.room).or_default().push((event.pos, tally));
        }
        self.newest.insert(event.room, (event.pos, tally));
        self.mention(event, &found).await?;
        if event.sender().server_name() == self.server_name && self.is_read_by_sender(event).await? {
            let sender = self.ids().user(event.sender());
            self.advance(sender, event.room, event.pos, tally).await?;
        }
        Ok(())
    }

    /// Whoever speaks in a room has read it; whoever joins begins there. A change of profile, which
    /// goes to every room at once, says nothing.
    async fn is_read_by_sender(&self, event: &RoomEvent) -> Result<bool, StoreError> {
        if event.event_type() != "m.room.member" {
            return Ok(true);
        }
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

    async fn mention(&mut self, event: &RoomEvent, found: &Notification) -> Result<(), StoreError> {
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
                self.batch.put_elsewhere::<Highlights>(&(user, event.room, event.pos), &());
            }
        }
        Ok(())
    }

    /// A receipt is read from its row, by the log row at the fact's position. Without that row it has
    /// moved on since, and a later fact says so.
    async fn receipt(&mut self, room: RoomNid, user: UserNid, pos: Pos) -> Result<(), StoreError> {
        let Some(name) = self.view.get::<ReceiptLog>(&(room, pos)).await? else { return Ok(()) };
        let local = UserId::parse(name.user_id.as_str()).is_ok_and(|id| id.server_name() == self.server_name);
        if !local {
            return Ok(());
        }
        let key = (room, name.kind, name.thread, name.user_id);
        let Some(receipt) = self.view.get::<Receipts>(&key).await? else { return Ok(()) };
        // A receipt for a thread other than the main one says nothing of the room.
        if !(key.2.is_empty() || key.2 == "main") {
            return Ok(());
        }
        let read_to = Pos::new(receipt.event_pos);
        let tally = self.tally_at(room, read_to).await?;
        if self.advance(user, room, read_to, tally).await? == Moved::Yes {
            let range = ..=read_to;
            let read = self
                .view
                .page_between::<Highlights, _>(&(user, room), range, Order::Ascending, FORGOTTEN_HIGHLIGHTS)
                .await?;
            for (key, ()) in read {
                self.batch.delete_elsewhere::<Highlights>(&key);
            }
        }
        Ok(())
    }

    /// Moves a read point, never backwards.
    async fn advance(&mut self, user: UserNid, room: RoomNid, pos: Pos, tally: RoomTally) -> Result<Moved, StoreError> {
        let known = match self.read.get(&(user, room)) {
            Some(point) => Some(*point),
            None => self.view.get::<ReadPoints>(&(user, room)).await?,
        };
        if known.is_some_and(|point| point.pos >= pos) {
            return Ok(Moved::No);
        }
        self.read.insert((user, room), ReadPoint { pos, tally });
        Ok(Moved::Yes)
    }

    async fn tally_before(&self, room: RoomNid, pos: Pos) -> Result<RoomTally, StoreError> {
        match self.newest.get(&room) {
            Some((newest, tally)) if *newest < pos => Ok(*tally),
            _ => self.stored_tally(room, Pos::new(pos.get().saturating_sub(1))).await,
        }
    }

    async fn tally_at(&self, room: RoomNid, pos: Pos) -> Result<RoomTally, StoreError> {
        let fresh = self.fresh.get(&room).and_then(|fresh| fresh.iter().rev().find(|(at, _)| *at <= pos));
        match fresh {
            Some((_, tally)) => Ok(*tally),
            None => self.stored_tally(room, pos).await,
        }
    }

    async fn stored_tally(&self, room: RoomNid, upto: Pos) -> Result<RoomTally, StoreError> {
        let rows = self.view.page_between::<RoomTallies, _>(&(room,), ..=upto, Order::Descending, 1).await?;
        Ok(rows.into_iter().next().map(|(_, tally)| tally).unwrap_or_default())
    }

    fn finish(self) {
        for (key, point) in self.read {
            self.batch.put_elsewhere::<ReadPoints>(&key, &point);
        }
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
