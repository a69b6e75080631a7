//! `PUT /exchange_third_party_invite`: a mail address that was invited turns out to be a user of the asking server.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#third-party-invites>

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::remote::RemoteError;
use hearth_rooms::{ExchangeError, ExchangeIn, MembershipError, Signatures};
use http::StatusCode;
use ruma_common::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use crate::error::ApiError;
use crate::params::Segments;
use crate::signed::Signed;
use crate::{Api, body, reply};

/// The event as the other server would like it. Everything else that it says is not read.
#[derive(Deserialize)]
struct Body {
    r#type: String,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    state_key: OwnedUserId,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: String,
    third_party_invite: ThirdPartyInvite,
}

#[derive(Deserialize)]
struct ThirdPartyInvite {
    signed: Vouched,
}

/// What an identity server has signed.
#[derive(Deserialize)]
pub(crate) struct Vouched {
    pub mxid: OwnedUserId,
    pub token: String,
    pub signatures: Signatures,
}

/// `PUT /exchange_third_party_invite/{roomId}`
pub(crate) async fn exchange(
    State(api): State<Arc<Api>>,
    Segments(room_id): Segments<OwnedRoomId>,
    Signed { origin, body }: Signed,
) -> Result<Response, ApiError> {
    let exchange = read(room_id, &body)?;
    api.rooms.exchange_third_party_invite(&origin, exchange).await?;
    Ok(reply::empty())
}

fn read(room_id: OwnedRoomId, bytes: &[u8]) -> Result<ExchangeIn, ApiError> {
    let body: Body = body::parse(bytes)?;
    if body.r#type != "m.room.member" || body.content.membership != "invite" {
        return Err(ApiError::invalid_param("only an invitation can be had here"));
    }
    if body.room_id != room_id {
        return Err(ApiError::invalid_param("the event is of another room than the path says"));
    }
    let Vouched { mxid, token, signatures } = body.content.third_party_invite.signed;
    Ok(ExchangeIn { room_id, sender: body.sender, user: body.state_key, mxid, token, signatures })
}

impl From<ExchangeError> for ApiError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Refused(refusal) => refusal.into(),
            ExchangeError::Invite(error) => error.into(),
        }
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::Send(error) => error.into(),
            MembershipError::Remote(RemoteError::Unreachable { .. } | RemoteError::Off) => {
                Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", "the invited user's server did not answer")
            }
            // What that server says no to is what the asking one wanted.
            MembershipError::Remote(RemoteError::Refused { .. } | RemoteError::Invalid { .. })
            | MembershipError::NotInState(_)
            | MembershipError::CannotAuthorise
            | MembershipError::CannotGrant => Self::forbidden(error.to_string()),
        }
    }
}
