//! Events of other servers on their way into a room.

use hearth_event::Verified;
use hearth_schema::StateId;
use hearth_store::{Pos, StoreError};
use ruma_common::{OwnedEventId, ServerName};

use crate::SendError;
use crate::intake::Rooms;
use crate::remote::RawPdu;

/// What became of one PDU of a transaction.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its ID, if it has the form of an event.
    pub event_id: OwnedEventId,
    /// Why it was not taken, in words for the other server.
    pub result: Result<(), String>,
}

/// An event of another server that is in the room now.
#[derive(Clone, Debug)]
pub struct Entered {
    /// Its position; `Pos::ZERO` if it was known before.
    pub pos: Pos,
    /// The room's state before it.
    pub state_before: StateId,
}

impl Rooms {
    /// Takes the PDUs of a transaction: checked, verified and durably staged when it returns; judged by the rooms' tasks
    /// afterwards. `result` has an entry for each PDU that has an ID.
    ///
    /// # Errors
    /// If the store fails; a bad PDU is only its own entry.
    pub async fn receive(&self, origin: &ServerName, pdus: Vec<RawPdu>) -> Result<Vec<Received>, StoreError> {
        let _ = (origin, pdus);
        Err(StoreError::Unavailable("not yet".into()))
    }

    /// Puts a member event of another server, made from a template of ours, into the room; it is passed on to the other
    /// servers. The caller has checked that the event is what was asked for.
    ///
    /// # Errors
    /// [`SendError::Forbidden`] if the auth rules say no, also by the current state; the store's errors.
    pub async fn enter_handshake(&self, origin: &ServerName, event: Verified) -> Result<Entered, SendError> {
        let _ = (origin, event);
        Err(SendError::Internal("not yet".into()))
    }
}
