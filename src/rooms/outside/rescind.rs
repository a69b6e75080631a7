//! Invitations and knocks that other servers take back.

use hearth_event::check;
use hearth_schema::{Membership, Outside, OutsideState};
use hearth_store::CommitError;
use ruma_common::{RoomId, ServerName, UserId};

use super::{MAX_TRIES, NewOutside, is_pending, version_of};
use crate::SendError;
use crate::inbound::wishes;
use crate::intake::Rooms;
use crate::plan::membership_of;
use crate::remote::RawPdu;

/// What can be seen of an event before anything about it is known.
#[derive(serde::Deserialize)]
struct Outline {
    r#type: String,
    room_id: String,
    state_key: String,
}

impl Rooms {
    /// Looks through PDUs of a room that this server is not in: if one is the leave or ban by which the user who invited
    /// a local one takes the invitation back, the user is shown that. A knock is ended by whoever of the servers that
    /// were to pass it on.
    ///
    /// # Errors
    /// If the store fails.
    pub(crate) async fn rescinded(&self, origin: &ServerName, events: &[RawPdu]) -> Result<(), SendError> {
        for event in events {
            if self.may_be_rescinded(origin, event).await? {
                tracing::debug!(%origin, "an invitation or a knock was taken back");
            }
        }
        Ok(())
    }

    async fn may_be_rescinded(&self, origin: &ServerName, event: &RawPdu) -> Result<bool, SendError> {
        let Ok(outline) = serde_json::from_str::<Outline>(event.get()) else { return Ok(false) };
        let (user, room_id) =
            (<&UserId>::try_from(outline.state_key.as_str()), <&RoomId>::try_from(outline.room_id.as_str()));
        let (Ok(user), Ok(room_id)) = (user, room_id) else { return Ok(false) };
        if outline.r#type != "m.room.member" || user.server_name() != self.0.signer.server_name {
            return Ok(false);
        }
        for _ in 0..MAX_TRIES {
            match self.rescind(origin, event, (user, room_id)).await {
                Err(SendError::Busy) => {}
                other => return other,
            }
        }
        Err(SendError::Busy)
    }

    async fn rescind(
        &self,
        origin: &ServerName,
        event: &RawPdu,
        (user, room_id): (&UserId, &RoomId),
    ) -> Result<bool, SendError> {
        let view = self.view().await?;
        let (nid, room) = (self.ids().user(user), self.ids().room(room_id));
        let row = self.membership(&view, nid, room).await?;
        let Some(row) = row.filter(is_pending) else { return Ok(false) };
        let (outside, state) = self.outside(&view, nid, room).await?;
        let version = version_of(&state)?;
        let Ok(checked) = check(event.get().as_bytes(), version) else { return Ok(false) };
        let keys = self.0.remote.keys(&wishes(std::iter::once(&checked))).await?;
        let Ok(verified) = checked.verify(&keys) else { return Ok(false) };
        let pdu = verified.into_pdu();
        let sender = pdu.sender();
        let may = match row.membership {
            Membership::Invite => sender.as_str() == outside.sender,
            _ => sender.server_name() == origin && outside.servers.iter().any(|server| server == origin.as_str()),
        };
        let ended = pdu.is_state("m.room.member", user.as_str())
            && pdu.room_id() == room_id
            && matches!(membership_of(&pdu), Some(Membership::Leave | Membership::Ban));
        if !ended || !may || sender == user {
            return Ok(false);
        }
        let membership = membership_of(&pdu).unwrap_or(Membership::Leave);
        let outside = Outside { membership, sender: sender.to_string(), ..outside };
        let event = Some((pdu.event_id().to_string(), pdu.json().to_vec()));
        let new = NewOutside { user, room_id, outside, state: OutsideState { event, ..state } };
        match self.keep_outside(Some(&row), new).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(_)) => Err(SendError::Busy),
            Err(error) => Err(error.into()),
        }
    }
}
