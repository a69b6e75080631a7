//! Third-party invitations that become invitations of users.
//!
//! Somebody was invited by a mail address: the room's state has an `m.room.third_party_invite` event with the public keys
//! of an identity server. Later the address turns out to be that of a user of another server, and the identity server
//! signs who it is. That user's server asks ours, whose user has invited, for an invitation. Of what it sends us nothing is
//! signed as it is: the event is ours, made of the names, the token and the signatures, and the auth rules say whether a key
//! of the room's state has signed them.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#third-party-invites>

use std::collections::BTreeMap;

use hearth_event::MAX_FIELD_BYTES;
use hearth_schema::Membership;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedUserId, ServerName};

use crate::command::SendEvent;
use crate::graph::Graph;
use crate::intake::Rooms;
use crate::query::RoomEvent;
use crate::{HandshakeRefusal, MembershipError, ServeError};

const OFFER: &str = "m.room.third_party_invite";
/// Servers, and keys of each, whose signatures are passed on.
const MAX_SIGNATURES: usize = 8;
/// Bytes of a signature in base64, and some to spare.
const MAX_SIGNATURE_BYTES: usize = 128;

/// By server name and key ID.
pub type Signatures = BTreeMap<String, BTreeMap<String, String>>;

/// What another server asks for, and what an identity server has signed for it.
#[derive(Clone, Debug)]
pub struct ExchangeIn {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who has invited.
    pub sender: OwnedUserId,
    /// Who is invited: a user of the asking server.
    pub user: OwnedUserId,
    /// For whom the identity server has signed.
    pub mxid: OwnedUserId,
    /// The state key of the room's `m.room.third_party_invite` event.
    pub token: String,
    /// The identity server's signatures over `mxid` and `token`.
    pub signatures: Signatures,
}

/// Why nobody is invited.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The room is not here or does not allow it, or the request contradicts itself.
    #[error(transparent)]
    Refused(#[from] HandshakeRefusal),
    /// The invited user's server did not take the invitation.
    #[error(transparent)]
    Invite(#[from] MembershipError),
}

impl From<ServeError> for ExchangeError {
    fn from(error: ServeError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<hearth_store::StoreError> for ExchangeError {
    fn from(error: hearth_store::StoreError) -> Self {
        Self::Refused(error.into())
    }
}

impl Rooms {
    /// Invites a user of `origin` whom one of our users has invited by a third-party identifier. Somebody who is in the
    /// room or invited already stays so.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid>
    ///
    /// # Errors
    /// See [`ExchangeError`]; nothing is signed then, unless the invited user's server has been asked.
    pub async fn exchange_third_party_invite(
        &self,
        origin: &ServerName,
        exchange: ExchangeIn,
    ) -> Result<(), ExchangeError> {
        if exchange.user.server_name() != origin {
            return Err(HandshakeRefusal::Invalid("the invited user is not of your server".into()).into());
        }
        if !self.is_local(&exchange.sender) {
            return Err(HandshakeRefusal::Invalid("the sender is not of this server".into()).into());
        }
        exchange.check()?;
        let graph = self.admit(origin, &exchange.room_id).await?;
        let Some(offer) = self.offer(&graph, &exchange).await? else { return Ok(()) };
        let event = SendEvent {
            room_id: exchange.room_id.clone(),
            sender: exchange.sender.clone(),
            event_type: "m.room.member".into(),
            state_key: Some(exchange.user.to_string()),
            content: content(&display_name(&offer)?, &exchange),
            redacts: None,
            origin_server_ts: None,
            transaction: None,
        };
        self.invite_by_event(event, exchange.user).await?;
        Ok(())
    }

    /// The invitation by a third-party identifier; `None`: there is nothing left to do.
    pub(crate) async fn offer(
        &self,
        graph: &Graph,
        exchange: &ExchangeIn,
    ) -> Result<Option<std::sync::Arc<RoomEvent>>, ExchangeError> {
        let forbidden = |why: &str| HandshakeRefusal::Forbidden(why.to_owned());
        let (view, room) = (&graph.view, graph.room);
        let offer = self.current_event(view, room, OFFER, &exchange.token).await?;
        let offer = offer.ok_or_else(|| forbidden("the room has no such third-party invite"))?;
        if offer.pdu.sender() != exchange.sender {
            return Err(forbidden("the third-party invite was made by another user").into());
        }
        // The rules ask neither: but it is our user's name that would be put to it.
        let there = self.current_entry(view, room, "m.room.member", exchange.sender.as_str()).await?;
        let levels = self.power_levels(view, room).await?;
        let joined = there.is_some_and(|entry| entry.membership == Some(Membership::Join));
        if !joined || levels.user(&exchange.sender) < levels.invite() {
            return Err(forbidden("who made the third-party invite may not invite any more").into());
        }
        let now = self.current_entry(view, room, "m.room.member", exchange.user.as_str()).await?;
        let settled = now.is_some_and(|entry| matches!(entry.membership, Some(Membership::Join | Membership::Invite)));
        Ok((!settled).then_some(offer))
    }
}

impl ExchangeIn {
    /// Whether it is of one piece.
    pub(crate) fn check(&self) -> Result<(), HandshakeRefusal> {
        let wrong = if self.mxid != self.user {
            "the third-party invite is for another user"
        } else if self.token.len() > MAX_FIELD_BYTES {
            "the token is too long"
        } else if !are_bounded(&self.signatures) {
            "the signatures are too many or too long"
        } else {
            return Ok(());
        };
        Err(HandshakeRefusal::Invalid(wrong.into()))
    }
}

fn are_bounded(signatures: &Signatures) -> bool {
    let by_key = |keys: &BTreeMap<String, String>| {
        let short = |(id, text): (&String, &String)| id.len() <= MAX_FIELD_BYTES && text.len() <= MAX_SIGNATURE_BYTES;
        keys.len() <= MAX_SIGNATURES && keys.iter().all(short)
    };
    let by_server = signatures.iter().all(|(server, keys)| server.len() <= MAX_FIELD_BYTES && by_key(keys));
    signatures.len() <= MAX_SIGNATURES && by_server
}

/// The name to show for who was invited, as whoever invited has written it.
pub(crate) fn display_name(offer: &RoomEvent) -> Result<String, HandshakeRefusal> {
    #[derive(serde::Deserialize)]
    struct Offered {
        display_name: Option<String>,
    }
    // Whoever wrote the event could say anything in it.
    let offered: Offered = serde_json::from_str(offer.pdu.content().get())
        .map_err(|_| HandshakeRefusal::Forbidden("the third-party invite cannot be read".into()))?;
    Ok(offered.display_name.unwrap_or_default())
}

/// What the member event says.
pub(crate) fn content(name: &str, exchange: &ExchangeIn) -> CanonicalJsonObject {
    let text = |text: &str| CanonicalJsonValue::String(text.to_owned());
    let signatures = exchange.signatures.iter().map(|(server, keys)| {
        let keys = keys.iter().map(|(id, signature)| (id.clone(), text(signature)));
        (server.clone(), CanonicalJsonValue::Object(keys.collect()))
    });
    let signed = CanonicalJsonObject::from([
        ("mxid".to_owned(), text(exchange.mxid.as_str())),
        ("token".to_owned(), text(&exchange.token)),
        ("signatures".to_owned(), CanonicalJsonValue::Object(signatures.collect())),
    ]);
    let invite = CanonicalJsonObject::from([
        ("display_name".to_owned(), text(name)),
        ("signed".to_owned(), CanonicalJsonValue::Object(signed)),
    ]);
    CanonicalJsonObject::from([
        ("membership".to_owned(), text("invite")),
        ("third_party_invite".to_owned(), CanonicalJsonValue::Object(invite)),
    ])
}
