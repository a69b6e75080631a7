//! `PUT /3pid/onbind`: a mail address that was invited turns out to be a user of ours.
//!
//! An identity server asks, and of all servers only those have no signature that this one knows. So anybody can say
//! anything here, and what is said is worth what the rooms make of it: [`Rooms::invite_bound`].
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind>
//!
//! [`Rooms::invite_bound`]: hearth_rooms::Rooms::invite_bound

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use futures::StreamExt as _;
use hearth_accounts::InviteVerdict;
use hearth_rooms::remote::RemoteError;
use hearth_rooms::{ExchangeError, ExchangeIn, MembershipError};
use http::StatusCode;
use ruma_common::{OwnedRoomId, OwnedUserId, UserId};
use serde::Deserialize;

use crate::error::ApiError;
use crate::exchange::Vouched;
use crate::limits::Caller;
use crate::{Api, body, reply};

/// Invitations in one request.
const MAX_INVITES: usize = 50;
/// Rooms that are seen to at the same time.
const AT_ONCE: usize = 4;
/// Bytes of a request: as many invitations of the largest sizes, about.
const MAX_BYTES: usize = 256 << 10;
/// Bytes of a mail address, with some to spare.
const MAX_ADDRESS: usize = 512;
/// Kinds of addresses.
const MEDIA: [&str; 2] = ["email", "msisdn"];

#[derive(Deserialize)]
struct Body {
    medium: String,
    address: String,
    mxid: OwnedUserId,
    invites: Vec<Invite>,
}

#[derive(Deserialize)]
struct Invite {
    medium: String,
    address: String,
    mxid: OwnedUserId,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    signed: Vouched,
}

/// What is asked for: whom to invite, and to which rooms. Several may have invited the same address to one room.
struct Bound {
    user: OwnedUserId,
    rooms: BTreeMap<OwnedRoomId, Vec<ExchangeIn>>,
}

/// `PUT /3pid/onbind`. Every room is tried; if one of them does not have its invitation afterwards, that is told, first of
/// all what may pass: then the same request again does what is left.
pub(crate) async fn on_bind(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    api.limits.bindings(caller, 1)?;
    let limit = MAX_BYTES.min(api.settings.max_body_bytes);
    let body = body::read(request.into_body(), limit, &api).await?;
    let Bound { user, rooms } = read(&body)?;
    is_ours(&api, &user).await?;
    api.limits.bindings(caller, rooms.values().map(Vec::len).sum())?;
    let inviting = rooms.into_values().map(|invites| invite_to_room(&api, invites));
    let done: Vec<Result<(), ApiError>> = futures::stream::iter(inviting).buffer_unordered(AT_ONCE).collect().await;
    match done.into_iter().filter_map(Result::err).reduce(telling) {
        Some(error) => Err(error),
        None => Ok(reply::empty()),
    }
}

fn read(bytes: &[u8]) -> Result<Bound, ApiError> {
    let Body { medium, address, mxid: user, invites } = body::parse(bytes)?;
    if !MEDIA.contains(&medium.as_str()) {
        return Err(ApiError::invalid_param("such addresses are not known here"));
    }
    if address.is_empty() || address.len() > MAX_ADDRESS {
        return Err(ApiError::invalid_param("that is no address"));
    }
    if invites.len() > MAX_INVITES {
        return Err(ApiError::invalid_param(format!("at most {MAX_INVITES} invites can be told at once")));
    }
    let mut rooms: BTreeMap<OwnedRoomId, Vec<ExchangeIn>> = BTreeMap::new();
    for invite in invites {
        // How an address is spelt may have changed since it was invited.
        if invite.medium != medium || !invite.address.eq_ignore_ascii_case(&address) {
            return Err(ApiError::invalid_param("an invite is for another address"));
        }
        if invite.mxid != user {
            return Err(ApiError::invalid_param("an invite is for another user"));
        }
        let Vouched { mxid, token, signatures } = invite.signed;
        let (room_id, sender) = (invite.room_id, invite.sender);
        let bound = ExchangeIn { room_id: room_id.clone(), sender, user: user.clone(), mxid, token, signatures };
        rooms.entry(room_id).or_default().push(bound);
    }
    Ok(Bound { user, rooms })
}

async fn is_ours(api: &Api, user: &UserId) -> Result<(), ApiError> {
    if user.server_name() != api.rooms.server_name() {
        return Err(ApiError::invalid_param("the user is not of this server"));
    }
    let account = api.accounts.account(api.rooms.ids().user(user)).await?;
    match account {
        Some(account) if !account.deactivated => Ok(()),
        _ => Err(ApiError::not_found("there is no such user")),
    }
}

/// One of several invitations to a room is enough.
async fn invite_to_room(api: &Api, invites: Vec<ExchangeIn>) -> Result<(), ApiError> {
    let mut failed = Vec::new();
    for bound in invites {
        let room_id = bound.room_id.clone();
        match invite(api, bound).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::info!(%room_id, ?error, "a bound third-party invite led to no invitation");
                failed.push(error);
            }
        }
    }
    failed.into_iter().reduce(telling).map_or(Ok(()), Err)
}

/// Which of two failures is told.
fn telling(first: ApiError, next: ApiError) -> ApiError {
    if !first.may_pass() && next.may_pass() { next } else { first }
}

async fn invite(api: &Api, bound: ExchangeIn) -> Result<(), ApiError> {
    let screening = api.accounts.screening(api.rooms.ids().user(&bound.user)).await?;
    match screening.invite_from(&bound.sender) {
        // Whoever is ignored is not told.
        InviteVerdict::Welcome | InviteVerdict::Hidden => {}
        InviteVerdict::Blocked => {
            let message = format!("{} does not take this invitation", bound.user);
            return Err(ApiError::new(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED", message));
        }
    }
    api.rooms.invite_bound(bound).await.map_err(refused)
}

fn refused(error: ExchangeError) -> ApiError {
    match error {
        ExchangeError::Invite(MembershipError::Remote(RemoteError::Refused {
            status: 400..=428 | 430..=499, ..
        })) => ApiError::forbidden("the server of who invites refused to do so"),
        ExchangeError::Invite(MembershipError::Remote(error)) => {
            let message = format!("the server of who invites could not be asked: {error}");
            ApiError::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message)
        }
        error => error.into(),
    }
}
