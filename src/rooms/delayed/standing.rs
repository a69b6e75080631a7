//! Whether the sender of a delayed event may send it still.
//!
//! The problem: who has scheduled an event may have lost the right to send by the time it is due, and nobody looks at
//! an access token then. So the account is looked at instead, as it is just before the event is sent.

use hearth_schema::{User, UserNid, Users};
use hearth_store::{StoreError, View};
use ruma_common::OwnedEventId;

use crate::SendError;
use crate::command::SendEvent;
use crate::intake::Rooms;

/// What the account of a sender lets become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// It may be sent.
    MaySend,
    /// As when it is sent by hand, the account is locked.
    Locked,
    /// Likewise, it is suspended.
    Suspended,
    /// There will never be anybody again who wants it sent.
    Gone,
}

impl Sender {
    /// The refusal, if it is one that may end.
    pub(super) const fn refusal(self) -> Option<SendError> {
        match self {
            Self::Locked => Some(SendError::Locked),
            Self::Suspended => Some(SendError::Suspended),
            Self::MaySend | Self::Gone => None,
        }
    }
}

impl Rooms {
    /// Whether `user` may send `event` now.
    pub(super) async fn standing_of(
        &self,
        view: &View,
        user: UserNid,
        event: &SendEvent,
    ) -> Result<Sender, StoreError> {
        // Without a row it is no account of this server's, and the room's rules alone decide.
        let Some(row) = view.get::<Users>(&(user,)).await? else { return Ok(Sender::MaySend) };
        Ok(match row {
            User { deactivated: true, .. } => Sender::Gone,
            User { moderation, .. } if moderation.locked => Sender::Locked,
            User { moderation, .. } if moderation.suspended && !self.takes_back_own(view, event).await? => {
                Sender::Suspended
            }
            _ => Sender::MaySend,
        })
    }

    /// Whether the event redacts one of the same sender, which suspended users may do.
    async fn takes_back_own(&self, view: &View, event: &SendEvent) -> Result<bool, StoreError> {
        let Some(redacts): Option<&OwnedEventId> = event.redacts.as_ref() else { return Ok(false) };
        let redacted = self.event_in_room(view, self.ids().room(&event.room_id), redacts).await?;
        Ok(redacted.is_some_and(|redacted| redacted.sender() == event.sender))
    }
}
