//! What the reader does not want to see: messages of ignored users, and unwanted invitations.

use std::sync::Arc;

use hearth_accounts::InviteVerdict;
use hearth_rooms::RoomEvent;
use hearth_schema::RoomNid;
use hearth_store::StoreError;

use crate::answer::Answer;
use crate::stay::Stay;

impl Answer<'_> {
    /// Leaves out the events of ignored users, but not their state events.
    pub(crate) fn drop_ignored(&self, events: &mut Vec<Arc<RoomEvent>>) {
        events.retain(|event| !self.screening.hides(event.sender(), event.state_key()));
    }

    /// Whether the invitation that `stay` stands for is not to be shown.
    pub(crate) async fn is_unwanted(&self, room: RoomNid, stay: &Stay) -> Result<bool, StoreError> {
        let invitation = self.rooms.events(&self.view, room, &[stay.n]).await?;
        let verdict = invitation.first().map(|event| self.screening.invite_from(event.sender()));
        Ok(verdict.is_some_and(|verdict| verdict != InviteVerdict::Welcome))
    }
}
