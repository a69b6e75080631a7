//! Scrolling back over gaps: what is missing is fetched before what is below it is shown.

use hearth_schema::RoomNid;
use hearth_store::{Pos, StoreError, View};

use super::history::Direction;
use crate::inbound::{Backfilled, OpenGap};
use crate::intake::Rooms;
use crate::{QueryError, SendError};

/// How often one page asks other servers for what is missing.
const MAX_TRIES: usize = 2;

/// The gaps that a page may come to.
pub(super) struct GapsAhead {
    open: Vec<OpenGap>,
    /// Gaps of which nobody could tell more.
    given_up: Vec<Pos>,
    tries: usize,
}

impl GapsAhead {
    /// Only who goes back looks for what is missing: forward is read what is here.
    pub(super) async fn of(
        rooms: &Rooms,
        view: &View,
        room: RoomNid,
        direction: Direction,
    ) -> Result<Self, StoreError> {
        let open = match direction {
            Direction::Backward => rooms.open_gaps(view, room).await?,
            Direction::Forward => Vec::new(),
        };
        Ok(Self { open, given_up: Vec::new(), tries: 0 })
    }

    /// The first gap that one comes to who goes back from `at` to `to`. Where it begins one has to stop
    /// ([`OpenGap::lowest`]); perhaps that is above `at` already.
    pub(super) fn next(&self, at: Pos, to: Option<Pos>) -> Option<OpenGap> {
        let ahead = self.open.iter().filter(|gap| gap.floor() <= at && !self.given_up.contains(&gap.at));
        let next = ahead.max_by_key(|gap| gap.at).copied();
        next.filter(|gap| to.is_none_or(|to| before(gap.lowest()) > to))
    }

    /// Whether this page may ask other servers once more.
    pub(super) const fn may_try(&self) -> bool {
        self.tries < MAX_TRIES
    }

    /// Fetches a part of what is missing; gives a view that has it.
    pub(super) async fn fill(&mut self, rooms: &Rooms, room: RoomNid, gap: OpenGap) -> Result<View, QueryError> {
        self.tries += 1;
        match rooms.heal(room, gap.at).await {
            Ok(Backfilled::More) => {}
            Ok(Backfilled::Nothing) => self.given_up.push(gap.at),
            Err(SendError::Store(error)) => return Err(error.into()),
            // What is here can be read all the same.
            Err(error) => {
                tracing::warn!(%error, "a gap was not filled");
                self.given_up.push(gap.at);
            }
        }
        let view = rooms.view().await?;
        self.open = rooms.open_gaps(&view, room).await?;
        Ok(view)
    }
}

/// The position right before.
pub(super) fn before(pos: Pos) -> Pos {
    Pos::new(pos.get().saturating_sub(1))
}
