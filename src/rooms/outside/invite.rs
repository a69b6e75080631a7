//! Invitations from other servers.
//!
//! Whoever asks this server to sign an invitation could ask it to sign anything, so an event gets its signature only
//! after everything about it has been checked: [`GoodInvite`] can be made in no other way.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use hearth_event::{Checked, FormatError, Pdu, PublicKeys, RoomVersion, VerifyError, check, countersign};
use hearth_schema::{Membership, Outside, OutsideState, Outsides, RoomNid, UserNid, UserRoom, Users};
use hearth_store::{CommitError, Order, StoreError, View};
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedUserId, ServerName, UserId};

use super::stripped::{self, Described};
use super::{MAX_TRIES, NewOutside};
use crate::SendError;
use crate::gather::damaged;
use crate::inbound::wishes;
use crate::intake::Rooms;
use crate::plan::membership_of;
use crate::remote::RawPdu;

/// Invitations from other servers that may wait for one user.
const MAX_PENDING: usize = 1000;
/// Those of them that may come from one server.
const MAX_FROM_SERVER: usize = 100;

/// An invitation as another server brings it: unchecked.
#[derive(Clone, Debug)]
pub struct InviteIn {
    /// The room that the request names.
    pub room_id: OwnedRoomId,
    /// The event that the request names.
    pub event_id: OwnedEventId,
    /// The room's version.
    pub version: RoomVersion,
    /// The invitation.
    pub event: RawPdu,
    /// What describes the room.
    pub invite_room_state: Vec<RawPdu>,
}

/// Why an invitation from another server is not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InviteError {
    /// It is not what it has to be (`M_INVALID_PARAM`).
    #[error("{0}")]
    Invalid(String),
    /// There is no such user here, or none who can be invited.
    #[error("there is no such user on this server")]
    UnknownUser,
    /// More invitations wait for the user than may.
    #[error("too many invitations wait for this user")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl From<StoreError> for InviteError {
    fn from(error: StoreError) -> Self {
        Self::Send(error.into())
    }
}

/// An invitation of a local user by a user of the server that sent it, with valid signatures.
#[derive(Clone, Debug)]
pub struct GoodInvite {
    pdu: Pdu,
    user: OwnedUserId,
    state: Vec<String>,
}

impl GoodInvite {
    /// Who invites.
    pub fn sender(&self) -> &UserId {
        self.pdu.sender()
    }

    /// Who is invited.
    pub fn user(&self) -> &UserId {
        &self.user
    }
}

impl Rooms {
    /// Checks an invitation that `origin` wants to be signed. Nothing is signed or stored.
    ///
    /// # Errors
    /// See [`InviteError`].
    pub async fn check_invite(&self, origin: &ServerName, invite: &InviteIn) -> Result<GoodInvite, InviteError> {
        let checked = read(invite)?;
        let described =
            stripped::read(&invite.invite_room_state, invite.version, &invite.room_id).map_err(InviteError::Invalid)?;
        // Verified without any signature: such an event is vouched for by an identity server, and none is trusted.
        if !checked.signers().iter().any(|signer| signer == origin) {
            return Err(invalid("the invitation is not by a user of the server that sent it"));
        }
        let keys = self.keys_for(&checked, &described).await?;
        let verified = checked.verify(&keys).map_err(|error: VerifyError| InviteError::Invalid(error.to_string()))?;
        if verified.redacted_by_hash() {
            return Err(invalid("the content of the invitation was altered"));
        }
        let pdu = verified.into_pdu();
        let user = self.invited_user(origin, invite, &pdu)?;
        let state = stripped::verified(described, &keys, &invite.room_id).map_err(InviteError::Invalid)?;
        let view = self.view().await?;
        let room = self.ids().room(&invite.room_id);
        if self.is_resident(&view, room).await? {
            self.may_invite_here(&view, room, pdu.sender()).await?;
        }
        let account = view.get::<Users>(&(self.ids().user(&user),)).await?;
        if account.is_none_or(|account| account.deactivated) {
            return Err(InviteError::UnknownUser);
        }
        Ok(GoodInvite { pdu, user, state })
    }

    /// Whether somebody of another server may ask for an invitation to a room that this server is in: what it signs for
    /// nobody else would take.
    async fn may_invite_here(&self, view: &View, room: RoomNid, sender: &UserId) -> Result<(), InviteError> {
        if !self.acl_allows(view, room, sender.server_name()).await? {
            return Err(SendError::Forbidden("the room keeps out your server".into()).into());
        }
        let member = self.current_entry(view, room, "m.room.member", sender.as_str()).await?;
        if member.is_none_or(|member| member.membership != Some(Membership::Join)) {
            return Err(SendError::Forbidden("who invites is not in the room".into()).into());
        }
        Ok(())
    }

    /// Signs a checked invitation and, unless this server is in the room, keeps it for its user, who is shown it. The
    /// same invitation again is signed again and changes nothing.
    ///
    /// # Errors
    /// See [`InviteError`].
    pub async fn take_invite(&self, invite: GoodInvite) -> Result<Pdu, InviteError> {
        let own = &self.0.signer;
        let signed = countersign(&invite.pdu, &own.server_name, &own.key)
            .map_err(|error| InviteError::Invalid(error.to_string()))?;
        for _ in 0..MAX_TRIES {
            match self.keep_invite(&invite, &signed).await {
                Ok(()) => return Ok(signed),
                Err(InviteError::Send(SendError::Busy)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(SendError::Busy.into())
    }

    async fn keep_invite(&self, invite: &GoodInvite, signed: &Pdu) -> Result<(), InviteError> {
        let view = self.view().await?;
        let (user, room) = (self.ids().user(&invite.user), self.ids().room(signed.room_id()));
        // The room's own servers send the event to this one as well, and then it is judged there.
        if self.is_resident(&view, room).await? {
            return Ok(());
        }
        let before = self.membership(&view, user, room).await?;
        let known = view.get::<Outsides>(&(user, room)).await?;
        let event_id = signed.event_id().as_str();
        if known.as_ref().is_some_and(|known| known.invitation.as_deref() == Some(event_id)) {
            return Ok(());
        }
        if !before.as_ref().is_some_and(super::is_pending) {
            self.has_place_for(&view, user, signed.sender().server_name()).await?;
        }
        self.store_invite(before.as_ref(), invite, signed).await
    }

    async fn store_invite(
        &self,
        before: Option<&UserRoom>,
        invite: &GoodInvite,
        signed: &Pdu,
    ) -> Result<(), InviteError> {
        let outside = Outside {
            pos: hearth_store::Pos::ZERO,
            membership: Membership::Invite,
            sender: signed.sender().to_string(),
            invitation: Some(signed.event_id().to_string()),
            servers: vec![signed.sender().server_name().to_string()],
        };
        let state = OutsideState {
            version: signed.version().as_str().to_owned(),
            event: Some((signed.event_id().to_string(), signed.json().to_vec())),
            events: invite.state.clone(),
        };
        let new = NewOutside { user: &invite.user, room_id: signed.room_id(), outside, state };
        match self.keep_outside(before, new).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict(_)) => Err(SendError::Busy.into()),
            Err(error) => Err(SendError::from(error).into()),
        }
    }

    async fn has_place_for(&self, view: &View, user: UserNid, origin: &ServerName) -> Result<(), InviteError> {
        let (mut pending, mut from_server) = (0, 0);
        let mut broken = None;
        view.scan::<Outsides, _>(&(user,), Order::Ascending, 512, |_, outside| {
            if outside.membership == Membership::Invite {
                pending += 1;
                match <&UserId>::try_from(outside.sender.as_str()) {
                    Ok(sender) => from_server += usize::from(sender.server_name() == origin),
                    Err(error) => broken = Some(damaged("Outsides", error.to_string())),
                }
            }
            std::ops::ControlFlow::Continue(())
        })
        .await?;
        if let Some(error) = broken {
            return Err(error.into());
        }
        if pending >= MAX_PENDING || from_server >= MAX_FROM_SERVER {
            return Err(InviteError::TooMany);
        }
        Ok(())
    }

    fn invited_user(&self, origin: &ServerName, invite: &InviteIn, pdu: &Pdu) -> Result<OwnedUserId, InviteError> {
        if pdu.room_id() != invite.room_id {
            return Err(invalid("the invitation is to another room than the request says"));
        }
        if pdu.event_type() != "m.room.member" || membership_of(pdu) != Some(Membership::Invite) {
            return Err(invalid("the event is no invitation"));
        }
        if pdu.sender().server_name() != origin {
            return Err(invalid("the invitation is not by a user of the server that sent it"));
        }
        let user = pdu.state_key().and_then(|key| <&UserId>::try_from(key).ok());
        let user = user.filter(|user| user.server_name() == self.0.signer.server_name);
        user.map(ToOwned::to_owned).ok_or_else(|| invalid("the invited user is not a user of this server"))
    }

    /// The keys that the invitation and what describes its room were signed with.
    async fn keys_for(&self, invitation: &Checked, described: &Described) -> Result<PublicKeys, StoreError> {
        let described = match described {
            Described::Whole(events) => events.as_slice(),
            Described::Told(_) => &[],
        };
        let mut wanted = wishes(std::iter::once(invitation).chain(described.iter().map(|(event, _)| event)));
        let own = &self.0.signer;
        wanted.retain(|wish| wish.server != own.server_name);
        let mut keys = self.0.remote.keys(&wanted).await?;
        if let Err(error) = keys.insert(&own.server_name, own.key.key_id(), &own.key.public_key_base64(), u64::MAX) {
            tracing::error!(%error, "this server's own key cannot be used");
        }
        Ok(keys)
    }
}

/// The form of the event, and that it is the one that the request names.
fn read(invite: &InviteIn) -> Result<Checked, InviteError> {
    let checked = check(invite.event.get().as_bytes(), invite.version)
        .map_err(|error: FormatError| InviteError::Invalid(error.to_string()))?;
    if checked.event_id() != invite.event_id {
        return Err(invalid("the invitation has another ID than the request says"));
    }
    Ok(checked)
}

fn invalid(why: &str) -> InviteError {
    InviteError::Invalid(why.to_owned())
}
