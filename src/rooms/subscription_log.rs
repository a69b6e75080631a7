//! What users have decided about threads, newest first (MSC4308).
//!
//! Each decision has one row in a log by its position, which the next decision about the same thread takes
//! away: so a client that was gone for long is told once of each thread, and the newest first.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use hearth_schema::{RoomNid, Subscription, ThreadSubscriptionLog, ThreadSubscriptions, UserNid};
use hearth_store::{Order, Pos, StoreError, View};
use ruma_common::{OwnedEventId, OwnedRoomId};

use crate::RoomEvent;
use crate::intake::Rooms;

/// A user's newest decision about a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadChange {
    /// The thread's room.
    pub room_id: OwnedRoomId,
    /// The event that the thread's events relate to.
    pub root: OwnedEventId,
    /// What was decided.
    pub subscription: Subscription,
    /// When: larger is newer.
    pub pos: Pos,
}

/// Decisions of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadChanges {
    /// Newest first.
    pub changes: Vec<ThreadChange>,
    /// There are more, all at or below this position.
    pub more: Option<Pos>,
}

impl Rooms {
    /// The newest `limit` decisions of `user` about threads at positions in `(after, upto]`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn thread_changes(
        &self,
        view: &View,
        user: UserNid,
        (after, upto): (Pos, Pos),
        limit: usize,
    ) -> Result<ThreadChanges, StoreError> {
        if after >= upto || limit == 0 {
            return Ok(ThreadChanges::default());
        }
        let window = (Bound::Excluded(after), Bound::Included(upto));
        let mut log =
            view.page_between::<ThreadSubscriptionLog, _>(&(user,), window, Order::Descending, limit + 1).await?;
        let complete = log.len() <= limit;
        log.truncate(limit);
        let more = log.last().filter(|_| !complete).map(|((_, last), _)| Pos::new(last.get().saturating_sub(1)));
        let keys: Vec<_> = log.iter().map(|(_, top)| (user, top.room, top.n)).collect();
        let rows = view.get_many::<ThreadSubscriptions>(&keys).await?;
        let roots = self.roots(view, &keys).await?;
        let mut changes = Vec::with_capacity(log.len());
        for (((_, pos), _), ((_, room, n), row)) in log.iter().zip(keys.into_iter().zip(rows)) {
            let row = row.filter(|row| row.pos == *pos).ok_or_else(|| damaged("a decision is logged but absent"))?;
            let top = roots.get(&(room, n)).ok_or_else(|| damaged("the root of a thread is absent"))?;
            changes.push(ThreadChange {
                room_id: top.pdu.room_id().to_owned(),
                root: top.event_id().to_owned(),
                subscription: row.subscription,
                pos: *pos,
            });
        }
        Ok(ThreadChanges { changes, more })
    }

    /// The roots of the threads, one round trip for each room.
    async fn roots(
        &self,
        view: &View,
        keys: &[(UserNid, RoomNid, u32)],
    ) -> Result<HashMap<(RoomNid, u32), Arc<RoomEvent>>, StoreError> {
        let mut by_room: HashMap<RoomNid, Vec<u32>> = HashMap::new();
        for (_, room, n) in keys {
            by_room.entry(*room).or_default().push(*n);
        }
        let mut roots = HashMap::with_capacity(keys.len());
        for (room, numbers) in by_room {
            let events = self.events(view, room, &numbers).await?;
            roots.extend(events.into_iter().map(|event| ((room, event.n), event)));
        }
        Ok(roots)
    }
}

fn damaged(detail: &'static str) -> StoreError {
    StoreError::Corrupt { keyspace: "ThreadSubscriptionLog", detail: detail.into() }
}
