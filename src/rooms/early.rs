//! Redactions that come before what they redact.
//!
//! A redaction takes effect if its sender has the power to redact, or is of the server of who sent the redacted event
//! ([spec](https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions)). The first is known when the redaction comes, the
//! second only when the event does. So an event that is waited for has a row for each server whose users have redacted it,
//! and one for those with power. Nobody's redaction takes the place of one that counts for more, and two look-ups find the
//! one that takes effect, however many there are.

use hearth_event::{Pdu, PowerLevels};
use hearth_schema::{EventKey, Ids, PendingRedactions, RoomNid};
use hearth_store::{Batch, StoreError, View};
use ruma_common::UserId;

/// In the place of a server's name: events of all servers are redacted.
const ALL: &str = "";

/// Rows that may hold a redaction which takes effect on one event.
pub(crate) const KEYS: usize = 2;

/// Whose events a redaction takes effect on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Everybody's: its sender has the power to redact.
    All,
    /// Those of users of its sender's server.
    OwnServer,
}

impl Reach {
    /// With the power levels before the redaction of `sender`.
    pub(crate) fn of(levels: &PowerLevels, sender: &UserId) -> Self {
        if levels.user(sender) >= levels.redact() { Self::All } else { Self::OwnServer }
    }
}

/// A redaction of an event that has not come yet.
#[derive(Clone, Debug)]
pub(crate) struct Early {
    target: EventKey,
    whose: String,
}

impl Early {
    /// A redaction of `target` by `sender`.
    pub(crate) fn new(target: EventKey, sender: &UserId, reach: Reach) -> Self {
        let whose = match reach {
            Reach::All => ALL.to_owned(),
            Reach::OwnServer => sender.server_name().to_string(),
        };
        Self { target, whose }
    }

    /// Adds the row; `n` is the redaction.
    pub(crate) fn persist(&self, batch: &mut Batch, room: RoomNid, n: u32) {
        batch.put::<PendingRedactions>(&(room, self.target, self.whose.clone()), &n);
    }
}

/// Where redactions that take effect on `pdu` are found, those with power first.
pub(crate) fn keys_for(ids: &Ids, room: RoomNid, pdu: &Pdu) -> [(RoomNid, EventKey, String); KEYS] {
    let event = ids.event(pdu.event_id());
    [ALL, pdu.sender().server_name().as_str()].map(|whose| (room, event, whose.to_owned()))
}

/// The redaction that was here before `pdu` and takes effect on it.
pub(crate) async fn redaction_of(view: &View, ids: &Ids, room: RoomNid, pdu: &Pdu) -> Result<Option<u32>, StoreError> {
    let found = view.get_many::<PendingRedactions>(&keys_for(ids, room, pdu)).await?;
    Ok(found.into_iter().flatten().next())
}
