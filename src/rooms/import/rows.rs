//! Rows of events of a room that is not here yet, or not here any more.
//!
//! Several local users may be joining the same room through different servers, and each is told all of it. They write
//! beside each other: a chunk takes its numbers and skips what is stored already under a lock that is held for one
//! commit only, so that nobody waits for the other's network.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_event::{Pdu, RoomVersion};
use hearth_schema::{
    CurrentState, EventIds, EventNid, Events, RoomHead, RoomNid, StateId, StateKeyNames, StateKeys, StateNodes,
};
use hearth_store::{Batch, Order, Owner, StoreError, View};
use parking_lot::Mutex;
use ruma_common::EventId;
use tokio::sync::OwnedMutexGuard;

use super::ImportError;
use crate::gather::damaged;
use crate::graph::Graph;
use crate::inbound::{Inbound, Outlier, put_outliers};
use crate::intake::Rooms;

/// Rows that are removed together.
const REMOVED_AT_ONCE: usize = 1024;

/// The next free numbers of a room that has no head, once they are known.
pub(crate) type Numbers = Arc<tokio::sync::Mutex<Option<RoomHead>>>;

/// Rooms that are being joined.
#[derive(Default)]
pub(crate) struct Joins(Mutex<HashMap<RoomNid, Numbers>>);

impl Joins {
    /// Who holds it is alone with the room, for one commit.
    pub(crate) fn of(&self, room: RoomNid) -> Numbers {
        let mut all = self.0.lock();
        all.retain(|_, numbers| Arc::strong_count(numbers) > 1);
        Arc::clone(all.entry(room).or_default())
    }
}

/// What became of the rows that an answer has left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    /// They are gone.
    All,
    /// They are there: the room is here, or somebody else is joining it.
    Nothing,
}

/// Writes events of one room as outliers.
pub(super) struct Writer {
    rooms: Rooms,
    pub room: RoomNid,
    version: RoomVersion,
    numbers: Numbers,
}

impl Writer {
    pub(super) fn new(rooms: &Rooms, join: &Pdu) -> Self {
        let room = rooms.ids().room(join.room_id());
        Self { rooms: rooms.clone(), room, version: join.version(), numbers: rooms.0.joins.of(room) }
    }

    /// What is stored now.
    pub(super) async fn graph(&self) -> Result<Graph, StoreError> {
        Graph::latest(&self.rooms, self.room, self.version).await
    }

    /// Nobody else writes to the room while this is held, unless it is there: then its task does.
    pub(super) async fn alone(&self) -> OwnedMutexGuard<Option<RoomHead>> {
        Arc::clone(&self.numbers).lock_owned().await
    }

    /// Stores those of `outliers` that are not stored yet. They fit one batch.
    pub(super) async fn write(&self, outliers: &[Outlier]) -> Result<(), ImportError> {
        let mut numbers = self.alone().await;
        let graph = self.graph().await?;
        if self.rooms.room(&graph.view, self.room).await?.is_some() {
            drop(numbers);
            self.rooms.post_inbound(self.room, Inbound::Outliers(outliers.to_vec())).await?;
            return Ok(());
        }
        let head = self.head(&graph.view, &mut numbers).await?;
        let mut batch = Batch::new(self.room.lane());
        put_outliers(&graph, &mut batch, head, outliers).await?;
        self.rooms.0.store.commit(batch).await?;
        Ok(())
    }

    /// A head that gives out no number that an earlier join, cut off, has left behind.
    pub(super) async fn head<'a>(
        &self,
        view: &View,
        numbers: &'a mut Option<RoomHead>,
    ) -> Result<&'a mut RoomHead, StoreError> {
        let free = match numbers.take() {
            Some(head) => head,
            None => self.first_free(view).await?,
        };
        Ok(numbers.insert(free))
    }

    async fn first_free(&self, view: &View) -> Result<RoomHead, StoreError> {
        let event = view.page::<Events, _>(&(self.room,), Order::Descending, 1).await?;
        let place = view.page::<StateKeyNames, _>(&(self.room,), Order::Descending, 1).await?;
        Ok(RoomHead {
            generation: 0,
            extremities: Vec::new(),
            state: StateId::EMPTY,
            next_event: event.first().map_or(0, |((_, n), _)| n + 1),
            next_state_key: place.first().map_or(0, |((_, nid), _)| nid.0 + 1),
            joined_members: 0,
            invited_members: 0,
        })
    }

    /// Removes what an answer has left behind that contradicts itself, unless the room is there or somebody else is
    /// joining it: so nothing stays of what a server makes up, and nobody is judged by it.
    pub(super) async fn remove(&self) -> Result<Removed, ImportError> {
        let mut numbers = self.alone().await;
        // One is ours, one is in the list, and one is in the guard.
        if Arc::strong_count(&self.numbers) > 3 {
            return Ok(Removed::Nothing);
        }
        let room = self.room;
        loop {
            let view = self.rooms.view().await?;
            if self.rooms.room(&view, room).await?.is_some() {
                return Ok(Removed::Nothing);
            }
            let page = view.page::<Events, _>(&(room,), Order::Ascending, REMOVED_AT_ONCE).await?;
            let mut batch = Batch::new(room.lane());
            let mut keys = Vec::with_capacity(page.len());
            for ((_, n), event) in &page {
                let id = EventId::parse(&*event.event_id).map_err(|error| damaged("Events", error.to_string()))?;
                keys.push(((room.lane(), self.rooms.ids().event(&id)), *n));
                batch.delete::<Events>(&(room, *n));
            }
            let ids: Vec<_> = keys.iter().map(|(key, _)| *key).collect();
            for ((key, n), row) in keys.iter().zip(view.get_many::<EventIds>(&ids).await?) {
                if row == Some(EventNid { room, n: *n }) {
                    batch.delete::<EventIds>(key);
                }
            }
            let last = page.len() < REMOVED_AT_ONCE;
            if last {
                batch.delete_prefix::<StateKeys, _>(&(room,));
                batch.delete_prefix::<StateKeyNames, _>(&(room,));
                batch.delete_prefix::<StateNodes, _>(&(room,));
                batch.delete_prefix::<CurrentState, _>(&(room,));
            }
            self.rooms.0.store.commit(batch).await?;
            if last {
                *numbers = None;
                return Ok(Removed::All);
            }
        }
    }
}
