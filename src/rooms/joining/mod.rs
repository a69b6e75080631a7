//! Getting into rooms that this server is not in, and which way leads there.

mod asking;
mod race;

use hearth_event::RoomVersion;
use hearth_schema::Membership;
use hearth_store::View;
use ruma_common::{CanonicalJsonObject, OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};

use crate::command::{Entry, MemberProfile, MembershipChange, RequesterKind, Sent};
use crate::handshake::{self, HandshakeError, Wish};
use crate::intake::Rooms;
use crate::membership::{Additions, content};
use crate::outside::is_pending;
use crate::remote::{Handshake, RemoteError, Template};
use crate::{MembershipError, SendError};
#[cfg(test)]
pub(crate) use race::JoinPatience;

/// A local user joins a room through other servers.
#[derive(Clone, Debug)]
pub struct RemoteJoin {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The user, a local one.
    pub user: OwnedUserId,
    /// Servers that are said to be in the room, the best first, at most 20, without this one.
    pub candidates: Vec<OwnedServerName>,
    /// What the member event says of the user.
    pub profile: MemberProfile,
    /// What else the client wants in the content of the member event.
    pub content: CanonicalJsonObject,
    /// `reason` of the member event.
    pub reason: Option<String>,
}

/// Why a user did not get into a room through other servers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JoinError {
    /// There is nobody to ask.
    #[error("no server is known that is in the room")]
    NoServers,
    /// None of the servers let the user in; this is what the most telling of them said.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// As when sending an event.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl From<JoinError> for MembershipError {
    fn from(error: JoinError) -> Self {
        match error {
            // Nobody is asked: for this server there is no such room.
            JoinError::NoServers | JoinError::Remote(RemoteError::Off) => Self::Send(SendError::UnknownRoom),
            JoinError::Remote(error) => Self::Remote(error),
            JoinError::Send(error) => Self::Send(error),
        }
    }
}

/// How a change of membership comes about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In this server's own part of the room.
    Here,
    /// A user of another server is invited.
    Invite,
    /// Through one of these servers.
    Elsewhere(Vec<OwnedServerName>),
}

impl Rooms {
    /// Asks `via` for a template and makes the event of our own that it leads to.
    pub(crate) async fn own_event(
        &self,
        what: Handshake,
        via: &ServerName,
        (change, additions): (&MembershipChange, &Additions),
        version: Option<RoomVersion>,
    ) -> Result<hearth_event::Pdu, RemoteError> {
        let template = self.0.remote.make(via, what, &change.room_id, &change.target).await?;
        self.event_by(what, (via, &template), (change, additions), version)
    }

    fn event_by(
        &self,
        what: Handshake,
        (via, template): (&ServerName, &Template),
        (change, additions): (&MembershipChange, &Additions),
        version: Option<RoomVersion>,
    ) -> Result<hearth_event::Pdu, RemoteError> {
        let wish = Wish {
            what,
            via,
            room_id: &change.room_id,
            user: &change.target,
            version,
            content: content(change, additions),
            now: self.0.clock.now(),
        };
        let invalid = |error: HandshakeError| RemoteError::Invalid { server: via.to_owned(), why: error.to_string() };
        handshake::signed(template, wish, &self.0.signer).map_err(invalid)
    }

    /// Which way leads to what `entry` asks for.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) async fn way(&self, entry: &Entry) -> Result<Way, MembershipError> {
        let change = &entry.change;
        let own = change.sender == change.target;
        if change.membership == Membership::Invite && !self.is_local(&change.target) {
            return Ok(Way::Invite);
        }
        if !own || change.only_from.is_some() {
            return Ok(Way::Here);
        }
        let view = self.view().await?;
        let room = self.ids().room(&change.room_id);
        match change.membership {
            Membership::Leave => {
                let row = self.membership(&view, self.ids().user(&change.target), room).await?;
                if !row.as_ref().is_some_and(is_pending) {
                    return Ok(Way::Here);
                }
                // The room may have come here since, with the invitation.
                let here = self.is_resident(&view, room).await?
                    && self.current_entry(&view, room, "m.room.member", change.target.as_str()).await?.is_some();
                if here {
                    return Ok(Way::Here);
                }
                Ok(Way::Elsewhere(self.candidates(&view, (&change.target, &change.room_id), &entry.via).await?))
            }
            Membership::Join | Membership::Knock => {
                let servers = self.candidates(&view, (&change.target, &change.room_id), &entry.via).await?;
                if servers.is_empty() || !self.must_go_elsewhere(&view, change).await? {
                    return Ok(Way::Here);
                }
                if entry.requester == RequesterKind::Guest {
                    return Err(SendError::Forbidden("guests may not join this room".into()).into());
                }
                Ok(Way::Elsewhere(servers))
            }
            _ => Ok(Way::Here),
        }
    }

    /// Whether other servers have to let the user in: this one is not in the room, or nobody of it can vouch for the
    /// user in a restricted one.
    async fn must_go_elsewhere(&self, view: &View, change: &MembershipChange) -> Result<bool, MembershipError> {
        if !self.is_resident(view, self.ids().room(&change.room_id)).await? {
            return Ok(true);
        }
        if change.membership != Membership::Join {
            return Ok(false);
        }
        match self.authoriser(&change.room_id, &change.target).await {
            Ok(_) => Ok(false),
            Err(MembershipError::CannotAuthorise | MembershipError::CannotGrant) => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn is_local(&self, user: &ruma_common::UserId) -> bool {
        user.server_name() == self.0.signer.server_name
    }

    /// Joins, knocks or leaves with the help of one of `candidates`.
    pub(crate) async fn enter_elsewhere(
        &self,
        change: MembershipChange,
        additions: Additions,
        candidates: Vec<OwnedServerName>,
    ) -> Result<Sent, MembershipError> {
        match change.membership {
            Membership::Join => {
                let MembershipChange { room_id, target: user, profile, reason, .. } = change;
                let content = additions.content;
                let join = RemoteJoin { room_id, user, candidates, profile, content, reason };
                Ok(self.join_remote(join).await?)
            }
            Membership::Knock => self.knock_elsewhere(&change, &additions, &candidates).await,
            _ => self.leave_elsewhere(&change, &additions, &candidates).await,
        }
    }
}

/// Which of two failures says more: a refusal says more than silence, and one of the room's rules more than any other.
/// That a server cannot let anybody in says little of the room: others could.
pub(crate) fn more_telling(known: Option<RemoteError>, new: RemoteError) -> RemoteError {
    let rank = |error: &RemoteError| match error {
        RemoteError::Refused { status: 403, .. } => 6,
        RemoteError::Refused { status: 400, errcode, .. } => match errcode.as_str() {
            "M_UNABLE_TO_AUTHORISE_JOIN" | "M_UNABLE_TO_GRANT_JOIN" => 4,
            "M_INCOMPATIBLE_ROOM_VERSION" => 5,
            _ => 3,
        },
        RemoteError::Refused { .. } => 2,
        RemoteError::Invalid { .. } => 1,
        RemoteError::Unreachable { .. } | RemoteError::Off => 0,
    };
    match known {
        Some(known) if rank(&known) >= rank(&new) => known,
        _ => new,
    }
}
