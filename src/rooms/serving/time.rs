//! `timestamp_to_event`

use std::ops::Bound;
use std::sync::Arc;

use hearth_base::Millis;
use hearth_schema::{RoomNid, Timeline, Verdict};
use hearth_store::{Order, Pos, StoreError, View};
use ruma_common::{OwnedEventId, RoomId, ServerName};

use super::ServeError;
use super::sight::Sight;
use crate::intake::Rooms;
use crate::query::{Direction, RoomEvent, fits, nearest};

/// Events looked at from where the time should be.
const LOOKED_AT: usize = 500;

fn shown(event: &RoomEvent) -> EventAtTime {
    EventAtTime { event_id: event.event_id().to_owned(), origin_server_ts: Millis(event.pdu.origin_server_ts()) }
}

/// An event, and when it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventAtTime {
    /// The event.
    pub event_id: OwnedEventId,
    /// `origin_server_ts`
    pub origin_server_ts: Millis,
}

impl Rooms {
    /// The first event that `origin` may see, at `time` or farther in `direction`.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid>
    ///
    /// # Errors
    /// [`ServeError::UnknownEvent`] if there is none; see [`ServeError`].
    pub async fn event_at_time_for_server(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        time: Millis,
        direction: Direction,
    ) -> Result<EventAtTime, ServeError> {
        let graph = self.admit_member(origin, room_id).await?;
        let (view, room) = (&graph.view, graph.room);
        let (stretch, order) = match direction {
            Direction::Forward => {
                let from = self.last_before(view, room, time.0).await?;
                ((Bound::Excluded(from), Bound::Unbounded), Order::Ascending)
            }
            Direction::Backward => {
                let from = self.last_before(view, room, time.0.saturating_add(1)).await?;
                ((Bound::Unbounded, Bound::Included(from)), Order::Descending)
            }
        };
        let rows = view.page_between::<Timeline, _>(&(room,), stretch, order, LOOKED_AT).await?;
        let mut sight = Sight::of(&graph, origin);
        for event in self.rows_at_time(view, room, rows, (time, direction)).await? {
            if sight.sees(&event).await? {
                return Ok(shown(&event));
            }
        }
        // As for users: what says another time than that of its place.
        let rows = view.page::<Timeline, _>(&(room,), Order::Descending, LOOKED_AT).await?;
        let mut seen = Vec::new();
        for event in self.rows_at_time(view, room, rows, (time, direction)).await? {
            if sight.sees(&event).await? {
                seen.push(event);
            }
        }
        let found = nearest(&seen, |event| event.pdu.origin_server_ts(), time, direction);
        found.map(|event| shown(&event)).ok_or(ServeError::UnknownEvent)
    }

    /// The events of `rows` that everybody accepts and that are at that time or farther.
    async fn rows_at_time(
        &self,
        view: &View,
        room: RoomNid,
        rows: Vec<((RoomNid, Pos), u32)>,
        (time, direction): (Millis, Direction),
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let numbers: Vec<u32> = rows.into_iter().map(|(_, n)| n).collect();
        let mut events = self.events(view, room, &numbers).await?;
        let fit = |event: &Arc<RoomEvent>| fits(event.pdu.origin_server_ts(), time, direction);
        events.retain(|event| event.verdict == Verdict::Accepted && fit(event));
        Ok(events)
    }
}
