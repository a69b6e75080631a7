//! `/_synapse/admin/v1/send_server_notice`: what the server has to say to a user, in a room that it
//! makes for that ([spec](https://spec.matrix.org/v1.19/client-server-api/#server-notices)).
//!
//! Room, tag and invitation are steps of their own, each of which is left out when it has been done: a
//! request that broke off is finished by the next one.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{AdminError, Requester};
use hearth_rooms::{CreateRoom, MemberProfile, MembershipChange, Preset, RoomVisibility, SendEvent, Transaction};
use hearth_schema::{Membership, UserNid};
use http::StatusCode;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::Map;
use serde_json::value::RawValue;

use crate::Api;
use crate::auth::Authed;
use crate::body::{self, RawBody};
use crate::error::ApiError;
use crate::params::{Segments, required};
use crate::rooms::send::{content, sent};

const TAG: &str = "m.server_notice";

#[derive(Deserialize)]
struct Body {
    user_id: Option<OwnedUserId>,
    content: Option<Box<RawValue>>,
    r#type: Option<String>,
    state_key: Option<String>,
}

/// `POST /_synapse/admin/v1/send_server_notice`
pub(crate) async fn send(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    notify(&api, &requester, &bytes, None).await
}

/// `PUT /_synapse/admin/v1/send_server_notice/{txnId}`
pub(crate) async fn send_once(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(txn): Segments<String>,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    // The event is the server's: the transaction is told from those of other administrators.
    let device_id = format!("{} {}", requester.user_id, requester.client.name());
    let transaction = Transaction { device_id, scope: "send_server_notice".into(), id: txn };
    notify(&api, &requester, &bytes, Some(transaction)).await
}

async fn notify(
    api: &Api,
    requester: &Requester,
    bytes: &[u8],
    transaction: Option<Transaction>,
) -> Result<Response, ApiError> {
    if !requester.standing.admin {
        return Err(AdminError::NotAdmin.into());
    }
    let body: Body = body::parse(bytes, api.settings.json_depth)?;
    let target = required(body.user_id, "user_id")?;
    let content = content(required(body.content, "content")?.get().as_bytes())?;
    let user = api.accounts.check_notice(requester, &target).await?;
    let sender = sender(api)?;
    let room_id = room_of(api, user, &sender).await?;
    api.accounts.set_room_tag(user, &room_id, (TAG, &Map::new())).await?;
    invite(api, &room_id, &sender, &target).await?;
    let event = SendEvent {
        room_id,
        sender,
        event_type: body.r#type.unwrap_or_else(|| "m.room.message".into()),
        state_key: body.state_key,
        content,
        redacts: None,
        origin_server_ts: None,
        transaction,
    };
    let done = api.rooms.send(event).await?;
    Ok(sent(&done.event_id))
}

fn sender(api: &Api) -> Result<OwnedUserId, ApiError> {
    let id = format!("@{}:{}", api.settings.notices.sender, api.settings.server_name);
    UserId::parse(id).map_err(|error| ApiError::internal(&error))
}

/// The room of the user's notices, made if there is none.
async fn room_of(api: &Api, user: UserNid, sender: &UserId) -> Result<OwnedRoomId, ApiError> {
    if let Some(room_id) = api.accounts.notice_room(user).await? {
        return Ok(room_id);
    }
    let room_id = api.rooms.create(new_room(api, sender)).await?;
    // Somebody may have been faster: then this room stays empty, and nobody sees it.
    Ok(api.accounts.claim_notice_room(user, &room_id).await?)
}

/// Only the server speaks there.
fn new_room(api: &Api, sender: &UserId) -> CreateRoom {
    let notices = &api.settings.notices;
    let silent = ("users_default".to_owned(), CanonicalJsonValue::Integer((-10).into()));
    CreateRoom {
        creator: sender.to_owned(),
        profile: MemberProfile { displayname: Some(notices.sender_name.clone()), avatar_url: None },
        version: None,
        preset: Some(Preset::PrivateChat),
        visibility: RoomVisibility::Private,
        name: Some(notices.room_name.clone()),
        topic: None,
        alias: None,
        invite: Vec::new(),
        is_direct: None,
        creation_content: CanonicalJsonObject::new(),
        initial_state: Vec::new(),
        power_level_content_override: Some([silent].into_iter().collect()),
    }
}

/// Invites the user, also again after leaving.
async fn invite(api: &Api, room_id: &RoomId, sender: &UserId, target: &UserId) -> Result<(), ApiError> {
    if matches!(membership(api, room_id, target).await?, Some(Membership::Join | Membership::Invite)) {
        return Ok(());
    }
    let profile = crate::rooms::membership::profile_of(api, target).await?;
    let change = MembershipChange {
        room_id: room_id.to_owned(),
        sender: sender.to_owned(),
        target: target.to_owned(),
        membership: Membership::Invite,
        only_from: None,
        reason: None,
        profile,
        is_direct: None,
    };
    api.rooms.change_membership(change).await?;
    Ok(())
}

/// What `user` is in a room, as far as this server knows.
pub(crate) async fn membership(api: &Api, room_id: &RoomId, user: &UserId) -> Result<Option<Membership>, ApiError> {
    let view = api.rooms.view().await?;
    let (user, room) = (api.rooms.ids().user(user), api.rooms.ids().room(room_id));
    Ok(api.rooms.membership(&view, user, room).await?.map(|row| row.membership))
}

/// Whether the requester may leave a room: nobody rejects the invitation to the server's notices.
///
/// # Errors
/// `M_CANNOT_LEAVE_SERVER_NOTICE_ROOM`
pub(crate) async fn may_leave(api: &Api, requester: &Requester, room_id: &RoomId) -> Result<(), ApiError> {
    let notices = api.accounts.notice_room(requester.user).await?;
    if notices.as_deref() != Some(room_id)
        || membership(api, room_id, &requester.user_id).await? != Some(Membership::Invite)
    {
        return Ok(());
    }
    let message = "the invitation to the server's notices cannot be rejected";
    Err(ApiError::new(StatusCode::FORBIDDEN, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", message))
}
