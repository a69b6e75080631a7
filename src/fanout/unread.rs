//! Unread counts at a cost that does not depend on how many members a room has.
//!
//! The problem: a room of 2 000 members must not write 2 000 rows for a message. The answer: a room
//! has running totals by timeline position (`RoomTallies`); a user has the totals at the point up to
//! which they have read (`ReadPoints`); a count is the difference of two. Only a mention of single
//! users writes a row for each of them (`Highlights`).
//!
//! Threads are counted apart (`ThreadTallies`), and have read points of their own (`ThreadReads`) as
//! far as a user has read them beyond the room's. What is read of all threads is summed up in the
//! user's read point, so that a room's counts need no look at its threads.
//!
//! A read point moves forward with receipts, with what the user sends (the user, not the server
//! when a delayed event is due), and with joining. All rows
//! are functions of the log, so consuming a fact again changes nothing.

mod page;
mod readers;
mod reading;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_rooms::{RoomEvent, Rooms};
use hearth_schema::{Change, RoomNid};
use hearth_store::{Batch, LoggedFact, Pos, StoreError, Value, View};
use ruma_common::OwnedServerName;

use self::page::Page;
use self::readers::Readers;
use self::tally::Tallies;
use crate::{ConsumeError, Consumer};

/// The consumer behind `unread_notifications`.
pub struct Unread {
    rooms: Rooms,
    server_name: OwnedServerName,
    tallies: Tallies,
    readers: Readers,
}

impl Unread {
    /// Its name in `Cursors`.
    pub const NAME: &'static str = "unread";

    /// Counts for the users of `server_name`.
    pub fn new(rooms: Rooms, server_name: OwnedServerName) -> Self {
        Self { tallies: Tallies::new(rooms.clone()), rooms, server_name, readers: Readers::default() }
    }

    async fn consume_page(&mut self, view: &View, facts: &[LoggedFact], batch: &mut Batch) -> Result<(), ConsumeError> {
        self.tallies.begin();
        self.readers.begin();
        let changes = decode(facts);
        let events = self.load(view, &changes).await?;
        let known = (&mut self.tallies, &mut self.readers);
        let mut page = Page::new((&self.rooms, &self.server_name), known, view, batch);
        for (pos, change) in &changes {
            match change {
                Change::Event { event } => {
                    // An event that could not be read has been reported; it counts for nobody.
                    if let Some(event) = events.get(&(event.room, event.n)) {
                        page.event(event).await?;
                    }
                }
                Change::Receipt { room, user } => page.receipt(*room, *user, *pos).await?,
                Change::AccountData { .. }
                | Change::Outside { .. }
                | Change::ThreadSubscription { .. }
                | Change::Deactivated { .. } => {}
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
        self.tallies = Tallies::new(self.rooms.clone());
        self.readers = Readers::default();
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
