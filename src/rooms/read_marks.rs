//! Since when it is known what users have read, so that readers can remember it.
//!
//! The problem: everybody who is told of an event is told how much they have not read. What a user
//! has read changes with few of these events, but to find out takes reads from the store. The answer:
//! whoever writes read points and mentions marks the user, the room and the position of the change
//! here *before* the change can be seen. A reader that remembers what it read when everything up to
//! position *p* had been counted may use it as long as the mark is not above *p*.
//!
//! Memory is bounded: marks that must be forgotten leave the newest of them as mark of everybody,
//! which costs a read and is never wrong.

use std::collections::HashMap;

use hearth_schema::{RoomNid, UserNid};
use hearth_store::{LANES, Owner, Pos};
use parking_lot::Mutex;

/// Marks kept, by lane of the user.
const MARKS: usize = 2_048;

/// Positions of the newest changes of what users have read, and of what mentions them.
#[derive(Debug)]
pub struct ReadMarks(Vec<Mutex<Marks>>);

#[derive(Debug, Default)]
struct Marks {
    of: HashMap<(UserNid, RoomNid), Pos>,
    /// For everybody.
    all: Pos,
}

impl Default for ReadMarks {
    fn default() -> Self {
        Self((0..LANES).map(|_| Mutex::default()).collect())
    }
}

impl ReadMarks {
    /// The fact at `pos` changes what `user` has read in `room`, or mentions the user. Must come
    /// before what follows from that fact is published as counted.
    pub fn raise(&self, user: UserNid, room: RoomNid, pos: Pos) {
        let mut marks = self.shard(user).lock();
        if marks.of.len() >= MARKS {
            let newest = marks.of.values().copied().max().unwrap_or_default();
            marks.all = marks.all.max(newest);
            marks.of.clear();
        }
        let mark = marks.of.entry((user, room)).or_default();
        *mark = pos.max(*mark);
    }

    /// What was read when everything up to this position had been counted, or later, is still true.
    pub fn newest(&self, user: UserNid, room: RoomNid) -> Pos {
        let marks = self.shard(user).lock();
        marks.of.get(&(user, room)).map_or(marks.all, |mark| marks.all.max(*mark))
    }

    fn shard(&self, user: UserNid) -> &Mutex<Marks> {
        &self.0[usize::from(user.lane().number())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_schema::Ids;
    use proptest::prelude::*;
    use ruma_common::{RoomId, UserId};

    fn user(n: usize) -> UserNid {
        Ids::new([0; 32]).user(&UserId::parse(format!("@u{n}:x")).expect("a user ID"))
    }

    fn room(n: usize) -> RoomNid {
        Ids::new([0; 32]).room(&RoomId::parse(format!("!r{n}:x")).expect("a room ID"))
    }

    #[test]
    fn a_mark_concerns_one_user_in_one_room_and_never_falls() {
        let marks = ReadMarks::default();
        marks.raise(user(1), room(1), Pos::new(7));
        marks.raise(user(1), room(1), Pos::new(5));
        assert_eq!(marks.newest(user(1), room(1)), Pos::new(7));
        assert_eq!(marks.newest(user(1), room(2)), Pos::ZERO);
        assert_eq!(marks.newest(user(2), room(1)), Pos::ZERO);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        /// Forgetting may say that something changed later than it did, never earlier.
        #[test]
        fn memory_is_bounded_and_no_change_is_lost(users in 1..40_usize, changes in 1..3_usize) {
            let marks = ReadMarks::default();
            let rooms = changes * MARKS / users.min(8) + 10;
            let mut expected = HashMap::new();
            for n in 0..users.min(8) * rooms {
                let key = (user(n % users), room(n % rooms));
                let pos = Pos::new(n as u64 + 1);
                marks.raise(key.0, key.1, pos);
                expected.insert(key, pos);
            }
            prop_assert!(marks.0.iter().all(|shard| shard.lock().of.len() <= MARKS));
            for ((user, room), pos) in expected {
                prop_assert!(marks.newest(user, room) >= pos);
            }
        }
    }
}
