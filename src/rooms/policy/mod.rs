//! Policy servers: who else has a say in what a room lets in.
//!
//! The current state of a room may name a server that is asked about each new event. If it recommends the event it signs
//! it, and every server of the room looks for that signature: what lacks it is soft-failed, and a local user's event is
//! not sent at all.
//!
//! Only the room's task knows the current state, and it must not wait for a network. So it is the task that decides
//! whether an event may pass, and it alone: of one that lacks the signature it says so and does nothing else. Whoever
//! wanted the event in the room asks the policy server, beside the task, and comes again with the signature, on which
//! the task looks as if for the first time. A room that names no policy server costs a look at its state in memory.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>

mod asking;
mod sending;

use std::sync::Arc;

use hearth_event::{CountersignError, POLICY_TYPE, Pdu, PolicyServer};
use hearth_schema::RoomNid;
use hearth_store::View;
use ruma_common::OwnedServerName;

use crate::SendError;
use crate::gather::gather;
use crate::intake::Rooms;
use crate::plan::Need;
use crate::remote::PolicyRefusal;
use crate::task::RoomTask;

pub(crate) use asking::{Asker, Policing};
pub(crate) use sending::Unsigned;

/// Why the policy server of a room has not signed an event.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PolicyError {
    /// It does not want to.
    #[error("{}", .0.error)]
    Refused(PolicyRefusal),
    /// It does not answer.
    #[error("the policy server of the room cannot be reached: {0}")]
    Unreachable(String),
    /// It, or the room, says something that makes no signature.
    #[error("the policy server of the room, {server}, cannot be used: {why}")]
    Useless {
        /// Which server.
        server: OwnedServerName,
        /// What is wrong.
        why: String,
    },
}

/// What the current state says of a policy server.
#[derive(Clone, Debug)]
pub(crate) enum Policy {
    /// Nothing.
    Unnamed,
    /// It names none that could be used, or one that has no member in the room.
    Unused,
    /// Every event needs the signature of this one.
    By(PolicyServer),
    /// It names one, and more is planned than is stored: who is in the room is not known before that is.
    Unsettled,
}

impl Policy {
    /// The policy server whose signature `event` lacks.
    pub(crate) fn lacking(&self, event: &Pdu) -> Result<Option<&PolicyServer>, SendError> {
        match self {
            Self::By(server) => Ok((!has_passed(server, event)?).then_some(server)),
            Self::Unnamed | Self::Unused => Ok(None),
            Self::Unsettled => {
                Err(SendError::Internal("nothing is judged before it is known who is in the room".into()))
            }
        }
    }

    /// Whether something else may be true after `event`.
    pub(crate) fn may_change_after(&self, event: &Pdu) -> bool {
        event.is_state(POLICY_TYPE, "")
            || event.event_type() == "m.room.member" && event.state_key().is_some() && !matches!(self, Self::Unnamed)
    }
}

/// Whether `event` carries what it needs in a room that uses `server`.
fn has_passed(server: &PolicyServer, event: &Pdu) -> Result<bool, SendError> {
    Ok(!PolicyServer::is_for(event) || server.has_signed(event).map_err(|error| unreadable(&error))?)
}

/// The event was read before: it is ours, or has been checked.
fn unreadable(error: &CountersignError) -> SendError {
    SendError::Internal(format!("an event cannot be signed: {error}"))
}

impl RoomTask {
    /// What the current state says. What is in memory of a room that names no policy server is all that is looked at.
    pub(crate) async fn policy(&mut self, view: &View) -> Result<Policy, SendError> {
        let place = (POLICY_TYPE.to_owned(), String::new());
        let settled = self.is_settled();
        let planner = self.with_planner(view).await?;
        if !planner.slots.contains_key(&place) {
            gather(view, planner, Need::Slots(vec![place.clone()])).await?;
        }
        let Some(event) = planner.slots.get(&place).and_then(|slot| slot.pdu.as_ref()) else {
            return Ok(Policy::Unnamed);
        };
        let Some(server) = PolicyServer::of(event) else { return Ok(Policy::Unused) };
        if !settled {
            return Ok(Policy::Unsettled);
        }
        let state = planner.head.state;
        let servers = Rooms(Arc::clone(&self.rooms)).servers_at(self.room, state).await?;
        Ok(if servers.contains_key(server.via()) { Policy::By(server) } else { Policy::Unused })
    }
}

impl Rooms {
    /// The policy server that the room uses as it is in `view`.
    async fn policy_in(&self, view: &View, room: RoomNid) -> Result<Option<PolicyServer>, SendError> {
        let event = self.current_event(view, room, POLICY_TYPE, "").await?;
        let Some(server) = event.and_then(|event| PolicyServer::of(&event.pdu)) else { return Ok(None) };
        Ok(self.server_in_room(view, room, server.via()).await?.then_some(server))
    }
}
