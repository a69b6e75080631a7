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
        let verdict = if let Some(n) = stay.n {
            let invitation = self.rooms.events(&self.view, room, &[n]).await?;
            invitation.first().map(|event| self.screening.invite_from(event.sender()))
        } else {
            let outside = self.rooms.outside_room(&self.view, (self.who.user, room), stay.pos).await?;
            outside.map(|outside| self.screening.invite_from(&outside.sender))
        };
        Ok(verdict.is_some_and(|verdict| verdict != InviteVerdict::Welcome))
    }
}
