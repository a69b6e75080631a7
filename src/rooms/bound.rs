//! Invitations that waited for a mail address until it was bound to a user of ours.
//!
//! An identity server tells which invitations waited, and has signed for each whom they are for. Nobody has to believe it:
//! the keys that count are in the state of the room. If one of our users had invited, the invitation is made here, and the
//! auth rules ask for the signature. Otherwise only the server of who invited can sign it; it is asked, and asks back.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#third-party-invites>

use hearth_schema::Membership;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue};

use crate::command::SendEvent;
use crate::exchange::{ExchangeError, ExchangeIn, content, display_name};
use crate::intake::Rooms;
use crate::remote::ExchangeOut;
use crate::{HandshakeRefusal, MembershipError, ServeError};

impl Rooms {
    /// Sees to it that a user of ours is invited who has been vouched for. Who is in the room or invited already stays so.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind>
    ///
    /// # Errors
    /// See [`ExchangeError`]: also [`MembershipError::Remote`] if the server of who has invited did not do it.
    pub async fn invite_bound(&self, bound: ExchangeIn) -> Result<(), ExchangeError> {
        let invalid = |why: &str| Err(HandshakeRefusal::Invalid(why.to_owned()).into());
        if !self.is_local(&bound.user) {
            return invalid("the invited user is not of this server");
        }
        bound.check()?;
        if self.is_local(&bound.sender) { self.invite_bound_here(bound).await } else { self.ask_to_invite(bound).await }
    }

    async fn invite_bound_here(&self, bound: ExchangeIn) -> Result<(), ExchangeError> {
        let graph = self.admit(&self.0.signer.server_name, &bound.room_id).await?;
        let Some(offer) = self.offer(&graph, &bound).await? else { return Ok(()) };
        let content = content(&display_name(&offer)?, &bound);
        let event = SendEvent {
            room_id: bound.room_id,
            sender: bound.sender,
            event_type: "m.room.member".into(),
            state_key: Some(bound.user.to_string()),
            content,
            redacts: None,
            origin_server_ts: None,
            transaction: None,
        };
        self.send(event).await.map_err(MembershipError::from)?;
        Ok(())
    }

    /// Has the server of who has invited do it.
    async fn ask_to_invite(&self, bound: ExchangeIn) -> Result<(), ExchangeError> {
        let view = self.view().await?;
        let (user, room) = (self.ids().user(&bound.user), self.ids().room(&bound.room_id));
        let row = self.membership(&view, user, room).await?;
        if row.is_some_and(|row| matches!(row.membership, Membership::Join | Membership::Invite)) {
            return Ok(());
        }
        // What is plain here need not be asked elsewhere.
        let name = match self.admit(&self.0.signer.server_name, &bound.room_id).await {
            Ok(graph) => match self.offer(&graph, &bound).await? {
                Some(offer) => display_name(&offer)?,
                None => return Ok(()),
            },
            Err(ServeError::UnknownRoom) => String::new(),
            Err(error) => return Err(error.into()),
        };
        let wanted = ExchangeOut { room_id: bound.room_id.clone(), event: wanted(&name, &bound) };
        let server = bound.sender.server_name();
        self.0.remote.exchange_third_party_invite(server, &wanted).await.map_err(MembershipError::from)?;
        Ok(())
    }
}

/// What the other server is asked to make an event of.
fn wanted(name: &str, bound: &ExchangeIn) -> CanonicalJsonObject {
    let text = |text: &str| CanonicalJsonValue::String(text.to_owned());
    CanonicalJsonObject::from([
        ("type".to_owned(), text("m.room.member")),
        ("room_id".to_owned(), text(bound.room_id.as_str())),
        ("sender".to_owned(), text(bound.sender.as_str())),
        ("state_key".to_owned(), text(bound.user.as_str())),
        ("content".to_owned(), CanonicalJsonValue::Object(content(name, bound))),
    ])
}
