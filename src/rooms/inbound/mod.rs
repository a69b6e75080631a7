//! Events of other servers on their way into a room.
//!
//! ```text
//! raw ─admit─▶ Verified ─staged─▶ Inbox ─take─▶ Prepared ─enter─▶ the room
//!   check, keys, signatures      durable   gaps, auth events,   the room's task: soft failure,
//!                                          state before, rules  ends, current state, one batch
//! ```
//!
//! Events that just go on from the room's end go there straight from the inbox, many in one batch: see [`run`].
//!
//! Only the last arrow needs the room's task; everything before it reads what never changes, and may wait for the
//! network. One worker for each room keeps the order of arrival; what waits for a server that does not answer lets others pass:
//! see [`worker`].

mod admit;
mod asking;
mod backfill;
mod baseless;
mod desk;
mod ends;
mod enter;
mod extras;
mod fetch;
mod heal;
mod inbox;
mod judge;
mod missed;
mod outliers;
mod past;
mod run;
mod take;
mod walk;
mod worker;

use hearth_event::{Pdu, PolicyServer, Verified};
use hearth_schema::{RoomNid, Source, StateId, UserNid};
use hearth_store::Pos;
use ruma_common::{OwnedEventId, ServerName};
use tokio::sync::oneshot;

pub(crate) use crate::SendError;
use crate::command::Transaction;
use crate::intake::{Mail, Rooms};
pub(crate) use admit::{Admitted, admit, wishes};
pub(crate) use backfill::{Backfilled, Pasts};
pub(crate) use baseless::Baseless;
pub(crate) use desk::Workers;
#[cfg(test)]
pub(crate) use desk::limits;
pub(crate) use heal::{OpenGap, WithoutGaps};
pub(crate) use judge::by_auth_events;
#[cfg(test)]
pub(crate) use judge::sorted;
pub(crate) use outliers::put as put_outliers;
pub(crate) use run::RunRequest;
pub(crate) use take::Taker;

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

/// What a room's task is asked to write.
#[derive(Debug)]
pub(crate) enum Inbound {
    Event(Box<Prepared>),
    Outliers(Vec<Outlier>),
    Past(Past),
}

/// Events that came to light late. They are stored as outliers, with the state before them.
#[derive(Debug)]
pub(crate) struct Past {
    /// Oldest first.
    pub numbers: Vec<u32>,
    /// They come right before this.
    pub before: Pos,
    /// The gap that they fill, by the position of the event after it; otherwise they are older than everything here.
    pub gap: Option<Pos>,
}

/// The same, with who waits for it.
#[derive(Debug)]
pub(crate) struct InboundRequest {
    pub what: Inbound,
    pub reply: oneshot::Sender<Result<Taken, SendError>>,
}

/// An event that has been judged as far as that needs no head.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub pdu: Pdu,
    pub source: Source,
    /// Stored.
    pub state_before: StateId,
    /// Why its auth events or the state before it do not allow it.
    pub rejected: Option<String>,
    /// Its row in the inbox, which goes with the same batch.
    pub inbox: Option<Pos>,
    pub soft_fail: SoftFail,
    pub ends: Ends,
    pub unsigned: WithoutSignature,
    /// Of a local event: its sender and the transaction.
    pub transaction: Option<(UserNid, Transaction)>,
}

/// What becomes of an event that lacks the signature of the room's policy server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WithoutSignature {
    /// Nothing yet: the policy server is to be asked, see [`Taken::Unsigned`].
    Ask,
    /// It is soft-failed: the policy server was asked. What must not be kept is refused.
    Settle,
}

/// What became of an event that the room's task was given.
#[derive(Debug)]
pub(crate) enum Taken {
    In(Entered),
    /// It lacks this policy server's signature, and nothing is stored.
    Unsigned(PolicyServer),
}

/// What becomes of an event that the current state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SoftFail {
    /// It is kept and not shown.
    Keep,
    /// It is refused, and nothing is stored.
    Refuse,
}

/// What becomes of the room's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The event takes the place of those that it follows.
    Follow,
    /// The event is the only end: nobody here knew the room for a while.
    Replace,
}

/// An event that is known through others only.
#[derive(Clone, Debug)]
pub(crate) struct Outlier {
    pub pdu: Pdu,
    pub rejected: Option<String>,
    /// The state before it, where that is known; stored.
    pub state_before: StateId,
}

impl Rooms {
    /// Has the room's task write something.
    pub(crate) async fn post_inbound(&self, room: RoomNid, what: Inbound) -> Result<Entered, SendError> {
        match self.post_new(room, what).await? {
            Taken::In(entered) => Ok(entered),
            Taken::Unsigned(_) => {
                Err(SendError::Internal("nobody is asked to sign what is known through others".into()))
            }
        }
    }

    /// The same for what a policy server may have to sign.
    pub(crate) async fn post_new(&self, room: RoomNid, what: Inbound) -> Result<Taken, SendError> {
        let (reply, answer) = oneshot::channel();
        self.post(room, Mail::Inbound(InboundRequest { what, reply })).await?;
        answer.await.map_err(|_| SendError::Stopping)?
    }

    /// Puts a member event of another server, made from a template of ours, into the room; it is passed on to the other
    /// servers. The caller has checked that the event is what was asked for.
    ///
    /// # Errors
    /// [`SendError::Forbidden`] if the auth rules say no, also by the current state; the store's errors.
    pub async fn enter_handshake(&self, origin: &ServerName, event: Verified) -> Result<Entered, SendError> {
        Ok(self.enter_for(origin, event).await?.1)
    }

    /// The same; gives the event as it is in the room, with the signature of the room's policy server.
    pub(crate) async fn enter_for(&self, origin: &ServerName, event: Verified) -> Result<(Pdu, Entered), SendError> {
        let pdu = event.into_pdu();
        let taker = Taker::new(self, pdu.room_id(), origin).await?.ok_or(SendError::UnknownRoom)?;
        taker.take_strictly(pdu, Source::Relayed).await
    }

    /// Puts an event of ours into the room that another server has signed too: an invitation, or a join through it.
    ///
    /// # Errors
    /// As [`Rooms::enter_handshake`].
    pub(crate) async fn enter_countersigned(&self, via: &ServerName, pdu: Pdu) -> Result<Entered, SendError> {
        let taker = Taker::new(self, pdu.room_id(), via).await?.ok_or(SendError::UnknownRoom)?;
        Ok(taker.take_strictly(pdu, Source::Local).await?.1)
    }
}
