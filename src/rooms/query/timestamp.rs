//! The event nearest to a point in time: `GET /rooms/{roomId}/timestamp_to_event`.

use std::cmp::Reverse;
use std::ops::Bound;
use std::sync::Arc;

use hearth_base::Millis;
use hearth_schema::{RoomNid, Timeline};
use hearth_store::{Order, Pos, StoreError, View};
use ruma_common::{OwnedRoomId, UserId};

use super::event::RoomEvent;
use super::history::{Direction, EventFilter, HistoryQuery};
use crate::QueryError;
use crate::inbound::Backfilled;
use crate::intake::Rooms;

/// Pages of older history that one request fetches.
const MAX_BACKFILLS: usize = 10;
/// Events looked at from where the time should be.
const LOOKED_AT: usize = 500;

/// Whether an event of `at` is at `time` or farther in `direction`.
pub(crate) const fn fits(at: u64, time: Millis, direction: Direction) -> bool {
    match direction {
        Direction::Forward => at >= time.0,
        Direction::Backward => at <= time.0,
    }
}

/// The event nearest to `time` in `direction` among `newest`, which are the newest first. Of several that
/// say the same time, the one that comes first in `direction`.
pub(crate) fn nearest<T: Clone>(newest: &[T], at: impl Fn(&T) -> u64, time: Millis, direction: Direction) -> Option<T> {
    let fitting = newest.iter().filter(|event| fits(at(event), time, direction));
    // `min_by_key` gives the first of equals.
    let found = match direction {
        Direction::Forward => fitting.rev().min_by_key(|event| at(event)),
        Direction::Backward => fitting.min_by_key(|event| Reverse(at(event))),
    };
    found.cloned()
}

impl Rooms {
    /// The first event that `user` may see, at `time` or farther in `direction`.
    ///
    /// Timelines are in the order of arrival. Where clocks disagree with that order, the event found is
    /// one of those nearby. Where that finds none, the newest events are looked at: an application service
    /// may have sent one that says another time than that of its place.
    ///
    /// # Errors
    /// [`QueryError::NotFound`] if there is none, [`QueryError::Forbidden`] for who may not read the room.
    pub async fn event_at_time(
        &self,
        user: &UserId,
        room_id: OwnedRoomId,
        time: Millis,
        direction: Direction,
    ) -> Result<Arc<RoomEvent>, QueryError> {
        let room = self.ids().room(&room_id);
        self.access(&self.view().await?, user, room).await?;
        self.reach_back(room, time).await?;
        let view = self.view().await?;
        let from = match direction {
            Direction::Forward => self.last_before(&view, room, time.0).await?,
            Direction::Backward => self.last_before(&view, room, time.0.saturating_add(1)).await?,
        };
        let filter = EventFilter::default();
        let query = HistoryQuery { room_id, from: Some(from), to: None, direction, limit: LOOKED_AT, filter };
        let page = self.messages(user, &query).await?;
        let at = |event: &Arc<RoomEvent>| event.pdu.origin_server_ts();
        if let Some(found) = page.events.into_iter().find(|event| fits(at(event), time, direction)) {
            return Ok(found);
        }
        let newest = HistoryQuery { from: None, direction: Direction::Backward, ..query };
        let page = self.messages(user, &newest).await?;
        nearest(&page.events, at, time, direction).ok_or(QueryError::NotFound)
    }

    /// Fetches history of other servers until the timeline goes back to `time`, or so far as one request may go.
    async fn reach_back(&self, room: RoomNid, time: Millis) -> Result<(), QueryError> {
        for _ in 0..MAX_BACKFILLS {
            let view = self.view().await?;
            let rows = view.page::<Timeline, _>(&(room,), Order::Ascending, 1).await?;
            let Some((_, oldest)) = rows.first() else { return Ok(()) };
            let oldest = self.events(&view, room, &[*oldest]).await?;
            if oldest.iter().any(|event| event.pdu.origin_server_ts() < time.0)
                || self.older(room).await? == Backfilled::Nothing
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The position of the last event before `time`, found by halving; `Pos::ZERO`: none is.
    pub(crate) async fn last_before(&self, view: &View, room: RoomNid, time: u64) -> Result<Pos, StoreError> {
        let (mut low, mut high) = (Pos::ZERO, view.frontier().base());
        // Everything up to `low` is earlier, nothing behind `high` is.
        while low < high {
            let middle = Pos::new(low.get() + (high.get() - low.get()) / 2);
            let behind = (Bound::Excluded(middle), Bound::Included(high));
            let rows = view.page_between::<Timeline, _>(&(room,), behind, Order::Ascending, 1).await?;
            let found = match rows.first() {
                Some(((_, pos), n)) => self.events(view, room, &[*n]).await?.pop().map(|event| (*pos, event)),
                None => None,
            };
            match found {
                Some((pos, event)) if event.pdu.origin_server_ts() < time => low = pos,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}
