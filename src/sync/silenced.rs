//! What ignored users have said is not unread.
//!
//! The problem: a room's totals are the same for everybody, and whoever ignores somebody is not to be notified of what
//! that one says ([spec](https://spec.matrix.org/v1.19/client-server-api/#ignoring-users)). The answer: who ignores
//! nobody pays nothing. For others the newest of what they have not read is looked at event by event, and what ignored
//! users have sent of it is taken off the counts.

use std::collections::{HashMap, HashSet};

use hearth_schema::{RoomNid, RoomTallies, RoomTally, Tally, Timeline};
use hearth_store::{Order, Pos, StoreError};

use crate::answer::Answer;
use crate::counts::{ReadState, read_to};

/// Events of one room that are looked at, newest first; what is older counts whoever has sent it.
const MAX_LOOKED_AT: usize = 512;

/// What does not count of what somebody has not read.
#[derive(Debug, Default)]
pub(crate) struct Silenced {
    /// Outside threads.
    pub main: Tally,
    /// By root.
    pub threads: HashMap<u32, Tally>,
    /// Positions of events that mention the reader.
    pub mentions: HashSet<Pos>,
}

impl Silenced {
    /// Of all threads together.
    pub(crate) fn all_threads(&self) -> Tally {
        self.threads.values().fold(Tally::default(), |sum, tally| sum.plus(*tally))
    }

    /// Of one thread.
    pub(crate) fn thread(&self, root: u32) -> Tally {
        self.threads.get(&root).copied().unwrap_or_default()
    }
}

impl Answer<'_> {
    /// What does not count of what is unread up to the end of the answer.
    pub(crate) async fn silenced(&self, room: RoomNid, state: &ReadState) -> Result<Silenced, StoreError> {
        if !self.screening.ignores_anybody() {
            return Ok(Silenced::default());
        }
        let counted = self.counted_events(room, state).await?;
        let mentions = state.mentions.iter().map(|(pos, _)| *pos).filter(|pos| *pos <= self.until.pos);
        let mut positions: Vec<Pos> = counted.iter().map(|(pos, ..)| *pos).chain(mentions).collect();
        positions.sort_unstable();
        positions.dedup();
        let unwanted = self.unwanted(room, &positions).await?;
        let counted: Vec<_> = counted.into_iter().filter(|(pos, ..)| unwanted.contains(pos)).collect();
        let mut roots: Vec<u32> = counted.iter().filter_map(|(_, thread, _)| *thread).collect();
        roots.sort_unstable();
        roots.dedup();
        let read = read_to(&self.view, (self.who.user, room), &roots).await?;
        let mut silenced = Silenced::default();
        for (pos, thread, one) in counted {
            match thread {
                None if pos.get() > state.point.main_pos => silenced.main = silenced.main.plus(one),
                Some(of) if read.get(&of).is_none_or(|read| pos > *read) => {
                    let known = silenced.threads.entry(of).or_default();
                    *known = known.plus(one);
                }
                _ => {}
            }
        }
        silenced.mentions = unwanted;
        Ok(silenced)
    }

    /// The newest events that count and come after what is read of all: position, root of the thread, what it counts.
    async fn counted_events(
        &self,
        room: RoomNid,
        state: &ReadState,
    ) -> Result<Vec<(Pos, Option<u32>, Tally)>, StoreError> {
        // One more, because each row has the total up to it.
        let limit = MAX_LOOKED_AT + 1;
        let rows =
            self.view.page_between::<RoomTallies, _>(&(room,), ..=self.until.pos, Order::Descending, limit).await?;
        let total = |tally: &RoomTally| tally.main.plus(tally.threads);
        let before = rows.iter().skip(1).map(|(_, tally)| total(tally));
        // The first of all rows has nothing before it.
        let before = before.chain((rows.len() < limit).then(Tally::default));
        let counted = rows.iter().zip(before).map(|(((_, pos), tally), before)| {
            let one = total(tally).since(before);
            (*pos, tally.thread, one)
        });
        Ok(counted.take_while(|(pos, ..)| *pos > state.point.pos).collect())
    }

    /// The positions of those events that the user does not want to see.
    async fn unwanted(&self, room: RoomNid, positions: &[Pos]) -> Result<HashSet<Pos>, StoreError> {
        let keys: Vec<_> = positions.iter().map(|pos| (room, *pos)).collect();
        let numbers: Vec<u32> = self.view.get_many::<Timeline>(&keys).await?.into_iter().flatten().collect();
        let mut events = self.rooms.events(&self.view, room, &numbers).await?;
        events.retain(|event| self.screening.hides(event.sender(), event.state_key()));
        Ok(events.iter().map(|event| event.pos).collect())
    }
}
