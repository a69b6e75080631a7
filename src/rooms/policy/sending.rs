//! Events of local users in a room that uses a policy server.
//!
//! The room's task has built, signed and judged the event as ever, and stops there. What one user sends to a room goes
//! its way one after the other, so that it keeps its order and a repeated request finds what the first has come to. The
//! event enters the room like one of another server: where the room's end is by then does not matter to it.

use hearth_event::Pdu;
use hearth_schema::RoomNid;
use hearth_store::View;
use ruma_common::RoomId;

use super::asking::Asker;
use super::has_passed;
use crate::command::{SendEvent, Sent};
use crate::inbound::Taker;
use crate::intake::{Ask, Rooms, Told};
use crate::{MembershipError, SendError};

/// An event that the room's task would take with the policy server's signature.
#[derive(Debug)]
pub(crate) struct Unsigned {
    /// What it was made for.
    pub ask: Ask,
    pub event: Pdu,
}

impl Rooms {
    /// Does what `unsigned` was made for, with the policy server's signature. Durable when it returns.
    pub(crate) async fn send_policed(&self, room_id: &RoomId, unsigned: Unsigned) -> Result<Sent, MembershipError> {
        let (room, sender) = (self.ids().room(room_id), self.ids().user(unsigned.event.sender()));
        let _turn = self.0.policing.turn(room, sender).await;
        // Made again: whoever was before may have done the same.
        let Unsigned { ask, event } = match self.tell(room_id, unsigned.ask).await? {
            Told::Sent(sent) => return Ok(sent),
            Told::Unsigned(unsigned) => *unsigned,
        };
        let transaction = match ask {
            Ask::Event(SendEvent { transaction, .. }) => transaction.map(|transaction| (sender, transaction)),
            Ask::Membership(..) => None,
        };
        let own = &self.0.signer.server_name;
        let taker = Taker::new(self, room_id, own).await?.ok_or(SendError::UnknownRoom)?;
        let event_id = event.event_id().to_owned();
        let entered = taker.take_own(event, transaction).await?;
        Ok(Sent { event_id, pos: entered.pos })
    }

    /// `event`, which others are about to see before it is in the room, with the policy server's signature if the room
    /// uses one.
    pub(crate) async fn policed(&self, view: &View, room: RoomNid, event: Pdu) -> Result<Pdu, SendError> {
        match self.policy_in(view, room).await? {
            Some(server) if !has_passed(&server, &event)? => {
                Ok(self.policy_signed(&server, &event, Asker::Somebody).await?)
            }
            _ => Ok(event),
        }
    }
}
