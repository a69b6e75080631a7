//! Running totals: those of the store, and those of the batch in the making.

use std::collections::HashMap;

use hearth_rooms::Rooms;
use hearth_schema::{RoomNid, RoomTallies, RoomTally, Tally, ThreadTallies};
use hearth_store::{Batch, Order, Pos, StoreError, View};

/// Totals by room. Nobody else writes them.
pub(super) struct Tallies {
    /// Keep the newest of each room, also for others.
    rooms: Rooms,
    /// Those of this batch, ascending; its view does not have them.
    fresh: HashMap<RoomNid, Vec<(Pos, RoomTally)>>,
    /// The same for threads, by root.
    fresh_threads: HashMap<(RoomNid, u32), Vec<(Pos, Tally)>>,
}

impl Tallies {
    /// Nothing is known yet, or any more.
    pub(super) fn new(rooms: Rooms) -> Self {
        rooms.recent_tallies().clear();
        Self { rooms, fresh: HashMap::new(), fresh_threads: HashMap::new() }
    }

    /// A new batch begins.
    pub(super) fn begin(&mut self) {
        self.fresh.clear();
        self.fresh_threads.clear();
    }

    /// Counts the event at `pos`: nothing, or `one`.
    pub(super) async fn count(
        &mut self,
        (view, batch): (&View, &mut Batch),
        (room, pos): (RoomNid, Pos),
        thread: Option<u32>,
        one: Option<Tally>,
    ) -> Result<(), StoreError> {
        let mut tally = self.before(view, room, pos).await?;
        if let Some(one) = one {
            match thread {
                None => tally.main = tally.main.plus(one),
                Some(thread) => {
                    tally.threads = tally.threads.plus(one);
                    let of_thread = self.of_thread(view, (room, thread), before(pos)).await?.plus(one);
                    batch.put::<ThreadTallies>(&(room, thread, pos), &of_thread);
                    self.fresh_threads.entry((room, thread)).or_default().push((pos, of_thread));
                }
            }
            tally.thread = thread;
            batch.put::<RoomTallies>(&(room, pos), &tally);
            self.fresh.entry(room).or_default().push((pos, tally));
        }
        self.rooms.recent_tallies().keep(room, pos, tally);
        Ok(())
    }

    /// The room's totals at `pos`.
    pub(super) async fn at(&self, view: &View, room: RoomNid, pos: Pos) -> Result<RoomTally, StoreError> {
        match newest_at(self.fresh.get(&room), pos) {
            Some(tally) => Ok(tally),
            None => stored(view, room, pos).await,
        }
    }

    /// A thread's totals at `pos`.
    pub(super) async fn of_thread(
        &self,
        view: &View,
        (room, thread): (RoomNid, u32),
        pos: Pos,
    ) -> Result<Tally, StoreError> {
        if let Some(tally) = newest_at(self.fresh_threads.get(&(room, thread)), pos) {
            return Ok(tally);
        }
        let rows = view.page_between::<ThreadTallies, _>(&(room, thread), ..=pos, Order::Descending, 1).await?;
        Ok(rows.into_iter().next().map(|(_, tally)| tally).unwrap_or_default())
    }

    async fn before(&self, view: &View, room: RoomNid, pos: Pos) -> Result<RoomTally, StoreError> {
        match self.rooms.recent_tallies().newest(room) {
            Some((newest, tally)) if newest < pos => Ok(tally),
            _ => self.at(view, room, before(pos)).await,
        }
    }
}

const fn before(pos: Pos) -> Pos {
    Pos::new(pos.get().saturating_sub(1))
}

fn newest_at<T: Copy>(fresh: Option<&Vec<(Pos, T)>>, upto: Pos) -> Option<T> {
    fresh?.iter().rev().find(|(at, _)| *at <= upto).map(|(_, tally)| *tally)
}

async fn stored(view: &View, room: RoomNid, upto: Pos) -> Result<RoomTally, StoreError> {
    let rows = view.page_between::<RoomTallies, _>(&(room,), ..=upto, Order::Descending, 1).await?;
    Ok(rows.into_iter().next().map(|(_, tally)| tally).unwrap_or_default())
}
