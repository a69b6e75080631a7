//! Unread counts, as the unread consumer keeps them (see `hearth_fanout`).

use std::ops::Bound;

use hearth_schema::{Highlights, ReadPoints, RoomNid, RoomTallies, RoomTally, UserNid};
use hearth_store::{Order, Pos, StoreError, View};

use crate::json;
use crate::live::LiveRoom;

/// Mentions counted at the most.
const MAX_MENTIONS: usize = 100;

/// `unread_notifications`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub notifications: u64,
    pub highlights: u64,
}

impl Counts {
    /// What `user` has not read of `room`, up to `upto`.
    pub(crate) async fn read(
        view: &View,
        user: UserNid,
        room: RoomNid,
        live: Option<&LiveRoom>,
        upto: Pos,
    ) -> Result<Self, StoreError> {
        // Without a read point the user has not joined as far as anything was counted.
        let Some(read) = view.get::<ReadPoints>(&(user, room)).await? else { return Ok(Self::default()) };
        let tally = tally(view, room, live, upto).await?;
        let notifications = tally.notifying.saturating_sub(read.tally.notifying);
        let for_all = tally.highlighting.saturating_sub(read.tally.highlighting);
        let after = (Bound::Excluded(read.pos), Bound::Included(upto));
        let mentions =
            view.page_between::<Highlights, _>(&(user, room), after, Order::Ascending, MAX_MENTIONS).await?.len();
        let highlights = for_all + u64::try_from(mentions).unwrap_or(0);
        // An event that only mentions somebody (in an edit, say) is in no tally.
        Ok(Self { notifications: notifications.max(highlights), highlights })
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"highlight_count\":");
        json::number(self.highlights, out);
        out.extend_from_slice(b",\"notification_count\":");
        json::number(self.notifications, out);
        out.push(b'}');
    }
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
