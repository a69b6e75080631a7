//! Unread counts of single threads, for clients that ask for them.
//!
//! A room may have thousands of threads, of which few have something unread, mostly the newest. So
//! the room's tallies are walked backwards, each of which names its thread, until everything that is
//! unread in threads has been found.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;

use hearth_schema::{ReadPoint, RoomNid, RoomTallies, Tally, ThreadReads, ThreadTallies};
use hearth_store::{Order, Pos, StoreError};

use crate::answer::Answer;
use crate::counts::{Counts, UnreadMention};
use crate::silenced::Silenced;

/// Rows of the walk read at a time.
const PAGE: usize = 128;
/// Pages of the walk. Unread threads behind them are not shown one by one.
const MAX_PAGES: usize = 32;

impl Answer<'_> {
    /// Threads with something unread, by event ID of their roots; `unread` is what is unread of all by anybody, and
    /// `unread_mentions` are the mentions in threads that count.
    pub(crate) async fn thread_counts(
        &self,
        room: RoomNid,
        point: &ReadPoint,
        (unread, unread_mentions, silenced): (Tally, &[UnreadMention], &Silenced),
    ) -> Result<Vec<(String, Counts)>, StoreError> {
        let mut mentions: HashMap<u32, usize> = HashMap::new();
        for root in unread_mentions.iter().filter_map(|(_, thread)| *thread) {
            *mentions.entry(root).or_default() += 1;
        }
        let mut found = HashMap::new();
        let mut seen: HashSet<u32> = mentions.keys().copied().collect();
        self.add_unread(room, point, seen.iter().copied().collect(), &mut found).await?;
        let mut upto = self.until.pos;
        for _ in 0..MAX_PAGES {
            if sum(&found) == unread || upto <= point.pos {
                break;
            }
            let window = (Bound::Excluded(point.pos), Bound::Included(upto));
            let rows = self.view.page_between::<RoomTallies, _>(&(room,), window, Order::Descending, PAGE).await?;
            let new = rows.iter().filter_map(|(_, tally)| tally.thread).filter(|root| seen.insert(*root)).collect();
            self.add_unread(room, point, new, &mut found).await?;
            match rows.last() {
                Some(((_, last), _)) if rows.len() == PAGE => upto = Pos::new(last.get().saturating_sub(1)),
                _ => break,
            }
        }
        for (root, tally) in &mut found {
            *tally = tally.since(silenced.thread(*root));
        }
        self.by_event_id(room, &found, &mentions).await
    }

    /// What is unread of the threads with these roots.
    async fn add_unread(
        &self,
        room: RoomNid,
        point: &ReadPoint,
        roots: Vec<u32>,
        found: &mut HashMap<u32, Tally>,
    ) -> Result<(), StoreError> {
        if roots.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = roots.iter().map(|root| (self.who.user, room, *root)).collect();
        let rows = self.view.get_many::<ThreadReads>(&keys).await?;
        for (root, read) in roots.into_iter().zip(rows) {
            let read = match read.filter(|read| read.pos > point.pos) {
                Some(read) => read.tally,
                None => self.thread_tally(room, root, point.pos).await?,
            };
            found.insert(root, self.thread_tally(room, root, self.until.pos).await?.since(read));
        }
        Ok(())
    }

    async fn thread_tally(&self, room: RoomNid, thread: u32, upto: Pos) -> Result<Tally, StoreError> {
        let rows = self.view.page_between::<ThreadTallies, _>(&(room, thread), ..=upto, Order::Descending, 1).await?;
        Ok(rows.into_iter().next().map(|(_, tally)| tally).unwrap_or_default())
    }

    async fn by_event_id(
        &self,
        room: RoomNid,
        found: &HashMap<u32, Tally>,
        mentions: &HashMap<u32, usize>,
    ) -> Result<Vec<(String, Counts)>, StoreError> {
        let of = |root: &u32| {
            let mentions = mentions.get(root).copied().unwrap_or(0);
            Counts::new(found.get(root).copied().unwrap_or_default(), mentions)
        };
        let unread: Vec<u32> = found.keys().filter(|root| of(root) != Counts::default()).copied().collect();
        let roots = self.rooms.events(&self.view, room, &unread).await?;
        Ok(roots.iter().map(|root| (root.event_id().to_string(), of(&root.n))).collect())
    }
}

fn sum(found: &HashMap<u32, Tally>) -> Tally {
    found.values().fold(Tally::default(), |sum, tally| sum.plus(*tally))
}
