//! The totals of rooms at their newest events, as the unread consumer has counted them.
//!
//! Everybody who is told of an event is told the totals there; whoever has just counted them need not be asked by way
//! of the store.

use hearth_schema::{NidMap, RoomNid, RoomTally};
use hearth_store::Pos;
use parking_lot::Mutex;

/// Rooms whose totals are kept.
const ROOMS: usize = 4_096;

/// The totals at the newest event of each room, and where that is. Only the unread consumer writes them.
#[derive(Debug, Default)]
pub struct RecentTallies(Mutex<NidMap<RoomNid, (Pos, RoomTally)>>);

impl RecentTallies {
    /// The totals of `room` at its event at `pos`. They may be read from there once that event is published as counted.
    pub fn keep(&self, room: RoomNid, pos: Pos, tally: RoomTally) {
        let mut tallies = self.0.lock();
        if tallies.len() >= ROOMS && !tallies.contains_key(&room) {
            tallies.clear();
        }
        tallies.insert(room, (pos, tally));
    }

    /// The event that was counted last in `room`, and the totals there.
    pub fn newest(&self, room: RoomNid) -> Option<(Pos, RoomTally)> {
        self.0.lock().get(&room).copied()
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use hearth_schema::Ids;
    use ruma_common::RoomId;

    use super::*;

    fn room(n: usize) -> RoomNid {
        Ids::new([0; 32]).room(&RoomId::parse(format!("!r{n}:x")).expect("a room ID"))
    }

    #[test]
    fn the_newest_of_each_room_is_kept_and_memory_is_bounded() {
        let tallies = RecentTallies::default();
        let threaded = RoomTally { thread: Some(3), ..RoomTally::default() };
        tallies.keep(room(1), Pos::new(5), RoomTally::default());
        tallies.keep(room(1), Pos::new(7), threaded);
        assert_eq!(tallies.newest(room(1)).map(|(pos, tally)| (pos, tally.thread)), Some((Pos::new(7), Some(3))));
        assert!(tallies.newest(room(2)).is_none());
        for n in 0..=ROOMS {
            tallies.keep(room(n), Pos::new(9), RoomTally::default());
        }
        assert!(tallies.newest(room(ROOMS)).is_some());
        assert!(tallies.0.lock().len() <= ROOMS);
        tallies.clear();
        assert!(tallies.newest(room(ROOMS)).is_none());
    }
}
