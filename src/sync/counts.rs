//! Unread counts, as the unread consumer keeps them (see `hearth_fanout`).
//!
//! What a user has read is remembered between answers, so that a message to many who wait costs no
//! look at the read point of each; [`hearth_rooms::ReadMarks`] says for how long.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use hearth_schema::{
    Highlights, NidMap, ReadPoint, ReadPoints, RoomNid, RoomTallies, RoomTally, Tally, ThreadReads, UserNid,
};
use hearth_store::{Order, Pos, StoreError, View};
use parking_lot::Mutex;

use crate::answer::Answer;
use crate::filter::ThreadCounts;
use crate::json::{self, Parts};
use crate::live::LiveRoom;

/// Mentions looked at, beyond the room's read point.
const MAX_MENTIONS: usize = 256;
/// Rooms of one user whose state of reading is remembered.
const MAX_ROOMS: usize = 512;

/// What is unread of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub notifications: u64,
    pub highlights: u64,
}

/// `unread_notifications` and `unread_thread_notifications`
#[derive(Debug, Default)]
pub(crate) struct RoomCounts {
    room: Counts,
    /// By event ID of the root, if they are wanted.
    threads: Vec<(String, Counts)>,
}

/// A mention: its position, and the root of its thread.
pub(crate) type UnreadMention = (Pos, Option<u32>);

/// What a user has read of a room.
#[derive(Debug)]
pub(crate) struct ReadState {
    pub point: ReadPoint,
    /// Unread mentions, oldest first.
    pub mentions: Vec<UnreadMention>,
}

/// States of reading of one user.
#[derive(Default)]
pub(crate) struct ReadStates(Mutex<NidMap<RoomNid, Remembered>>);

struct Remembered {
    state: Arc<ReadState>,
    /// Everything up to here had been counted when the state was read.
    counted: Pos,
}

impl ReadStates {
    /// The state if it was read when `mark` had been counted.
    fn get(&self, room: RoomNid, mark: Pos) -> Option<Arc<ReadState>> {
        self.0.lock().get(&room).filter(|known| known.counted >= mark).map(|known| Arc::clone(&known.state))
    }

    fn keep(&self, room: RoomNid, state: Arc<ReadState>, counted: Pos) {
        let mut states = self.0.lock();
        if states.len() >= MAX_ROOMS {
            states.clear();
        }
        if states.get(&room).is_none_or(|known| known.counted <= counted) {
            states.insert(room, Remembered { state, counted });
        }
    }
}

impl Counts {
    /// `mentions` are those of single users, which no tally has. Nor has a tally an event that only
    /// mentions somebody (an edit, say).
    pub(crate) fn new(unread: Tally, mentions: usize) -> Self {
        let highlights = unread.highlighting + u64::try_from(mentions).unwrap_or(u64::MAX);
        Self { notifications: unread.notifying.max(highlights), highlights }
    }

    fn plus(self, other: Self) -> Self {
        Self { notifications: self.notifications + other.notifications, highlights: self.highlights + other.highlights }
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"highlight_count\":");
        json::number(self.highlights, out);
        out.extend_from_slice(b",\"notification_count\":");
        json::number(self.notifications, out);
        out.push(b'}');
    }
}

impl RoomCounts {
    /// Notifications and highlights of the room.
    pub(crate) const fn total(&self) -> (u64, u64) {
        (self.room.notifications, self.room.highlights)
    }

    /// Appends the members of the room's object, from the comma on.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"unread_notifications\":");
        self.room.write(out);
        if self.threads.is_empty() {
            return;
        }
        out.extend_from_slice(b",\"unread_thread_notifications\":");
        let mut object = Parts::open(b'{', out);
        for (root, counts) in &self.threads {
            counts.write(object.key(root, out));
        }
        out.push(b'}');
    }
}

impl Answer<'_> {
    /// What the user has not read of a room, up to the end of the answer.
    pub(crate) async fn counts(&self, room: RoomNid, live: Option<&LiveRoom>) -> Result<RoomCounts, StoreError> {
        // Without a read point the user has not joined as far as anything was counted.
        let Some(state) = self.read_state(room).await? else { return Ok(RoomCounts::default()) };
        let upto = self.until.pos;
        let tally = tally(&self.view, room, live, upto).await?;
        let silenced = self.silenced(room, &state).await?;
        let mut mentions = state.mentions.clone();
        mentions.retain(|(pos, _)| *pos <= upto && !silenced.mentions.contains(pos));
        let (in_threads, in_main): (Vec<_>, Vec<_>) = mentions.into_iter().partition(|(_, thread)| thread.is_some());
        let main = Counts::new(tally.main.since(state.point.main).since(silenced.main), in_main.len());
        let unread = tally.threads.since(state.point.threads);
        let threads = Counts::new(unread.since(silenced.all_threads()), in_threads.len());
        match self.scope.filter.timeline.thread_counts {
            ThreadCounts::Together => Ok(RoomCounts { room: main.plus(threads), threads: Vec::new() }),
            ThreadCounts::Apart if threads == Counts::default() => Ok(RoomCounts { room: main, threads: Vec::new() }),
            ThreadCounts::Apart => {
                let threads = self.thread_counts(room, &state.point, (unread, &in_threads, &silenced)).await?;
                Ok(RoomCounts { room: main, threads })
            }
        }
    }

    async fn read_state(&self, room: RoomNid) -> Result<Option<Arc<ReadState>>, StoreError> {
        let user = self.who.user;
        let mark = self.rooms.read_marks().newest(user, room);
        if let Some(known) = self.user.read_states.get(room, mark) {
            return Ok(Some(known));
        }
        let Some(state) = read_state(&self.view, user, room).await?.map(Arc::new) else { return Ok(None) };
        self.user.read_states.keep(room, Arc::clone(&state), self.counted);
        Ok(Some(state))
    }
}

async fn read_state(view: &View, user: UserNid, room: RoomNid) -> Result<Option<ReadState>, StoreError> {
    let Some(point) = view.get::<ReadPoints>(&(user, room)).await? else { return Ok(None) };
    let after = (Bound::Excluded(point.pos), Bound::Unbounded);
    let rows = view.page_between::<Highlights, _>(&(user, room), after, Order::Ascending, MAX_MENTIONS).await?;
    let mut mentions: Vec<_> = rows.into_iter().map(|((_, _, pos), mention)| (pos, mention.thread)).collect();
    let mut roots: Vec<u32> = mentions.iter().filter_map(|(_, thread)| *thread).collect();
    roots.sort_unstable();
    roots.dedup();
    let read = read_to(view, (user, room), &roots).await?;
    mentions.retain(|(pos, thread)| match thread {
        None => pos.get() > point.main_pos,
        Some(thread) => read.get(thread).is_none_or(|read| pos > read),
    });
    Ok(Some(ReadState { point, mentions }))
}

/// How far the user has read in these threads, where that is further than nothing.
pub(crate) async fn read_to(
    view: &View,
    (user, room): (UserNid, RoomNid),
    roots: &[u32],
) -> Result<HashMap<u32, Pos>, StoreError> {
    if roots.is_empty() {
        return Ok(HashMap::new());
    }
    let keys: Vec<_> = roots.iter().map(|root| (user, room, *root)).collect();
    let rows = view.get_many::<ThreadReads>(&keys).await?;
    Ok(roots.iter().zip(rows).filter_map(|(root, row)| row.map(|row| (*root, row.pos))).collect())
}

/// The room's totals at `upto`. Everybody who is told of an event needs the same, so it is read once.
async fn tally(view: &View, room: RoomNid, live: Option<&LiveRoom>, upto: Pos) -> Result<RoomTally, StoreError> {
    // The notifier has seen every event up to `upto`: none lies between the newest and it.
    let newest = live.and_then(|live| live.newest_event(upto).map(|newest| (live, newest)));
    if let Some(known) = newest.and_then(|(live, newest)| live.tally(newest)) {
        return Ok(known);
    }
    let found = view.page_between::<RoomTallies, _>(&(room,), ..=upto, Order::Descending, 1).await?;
    let tally = found.into_iter().next().map(|(_, tally)| tally).unwrap_or_default();
    if let Some((live, newest)) = newest {
        live.keep_tally(newest, tally);
    }
    Ok(tally)
}
