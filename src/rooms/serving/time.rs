//! `timestamp_to_event`

use std::ops::Bound;

use hearth_base::Millis;
use hearth_schema::{Timeline, Verdict};
use hearth_store::Order;
use ruma_common::{OwnedEventId, RoomId, ServerName};

use super::ServeError;
use super::sight::Sight;
use crate::intake::Rooms;
use crate::query::Direction;

/// Events looked at from where the time should be.
const LOOKED_AT: usize = 500;

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
        let numbers: Vec<u32> = rows.into_iter().map(|(_, n)| n).collect();
        let mut sight = Sight::of(&graph, origin);
        for event in self.events(view, room, &numbers).await? {
            let at = event.pdu.origin_server_ts();
            let fits = match direction {
                Direction::Forward => at >= time.0,
                Direction::Backward => at <= time.0,
            };
            if fits && event.verdict == Verdict::Accepted && sight.sees(&event).await? {
                let event_id = event.event_id().to_owned();
                return Ok(EventAtTime { event_id, origin_server_ts: Millis(at) });
            }
        }
        Err(ServeError::UnknownEvent)
    }
}
