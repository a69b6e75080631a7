//! Joining, inviting, leaving, kicking, banning, unbanning, forgetting, and the list of joined rooms.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::Requester;
use hearth_rooms::{AliasTarget, Entry, MemberProfile, MembershipChange, MembershipError, RequesterKind, SendError};
use hearth_schema::{AccountKind, Membership};
use http::StatusCode;
use ruma_common::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, UserId,
};
use serde::{Deserialize, Serialize};

use super::aliases::resolve;
use super::screening::may_invite;
use super::send::content;
use crate::Api;
use crate::accounts::notices;
use crate::auth::Authed;
use crate::body::{Json, OptionalJson, RawBody};
use crate::error::ApiError;
use crate::params::{Query, Segments, invalid, required};
use crate::reply;
use crate::services::is_counted;

/// Servers that a client may name; the rest is left out.
const MAX_VIA: usize = 50;

#[derive(Default, Deserialize)]
pub(crate) struct ReasonBody {
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
pub(crate) struct TargetBody {
    user_id: Option<OwnedUserId>,
    reason: Option<String>,
    id_server: Option<String>,
    medium: Option<String>,
    address: Option<String>,
}

#[derive(Serialize)]
struct RoomReply<'a> {
    room_id: &'a RoomId,
}

/// `{"room_id": …}`
pub(crate) fn room(room_id: &RoomId) -> Response {
    reply::json(&RoomReply { room_id })
}

/// `POST /rooms/{roomId}/join`
pub(crate) async fn join_by_id(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    query: Query,
    RawBody(body): RawBody,
) -> Result<Response, ApiError> {
    let target = AliasTarget { room_id, servers: via(&query)? };
    enter(&api, &requester, target, Membership::Join, &body).await
}

/// `POST /join/{roomIdOrAlias}`. `via` and `server_name` name servers to ask.
pub(crate) async fn join_by_id_or_alias(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_or_alias): Segments<String>,
    query: Query,
    RawBody(body): RawBody,
) -> Result<Response, ApiError> {
    let target = find(&api, room_or_alias, via(&query)?).await?;
    enter(&api, &requester, target, Membership::Join, &body).await
}

/// `POST /knock/{roomIdOrAlias}`
pub(crate) async fn knock(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_or_alias): Segments<String>,
    query: Query,
    RawBody(body): RawBody,
) -> Result<Response, ApiError> {
    let target = find(&api, room_or_alias, via(&query)?).await?;
    enter(&api, &requester, target, Membership::Knock, &body).await
}

/// The servers that the client says are in the room: `via`, and `server_name` as it was called before.
fn via(query: &Query) -> Result<Vec<OwnedServerName>, ApiError> {
    let named = query.all("via").chain(query.all("server_name"));
    let servers = named.map(|name| OwnedServerName::try_from(name).map_err(|_| invalid("via")));
    servers.take(MAX_VIA).collect()
}

/// The room that an ID or an alias means, and servers that are in it: those that the client names and those that the
/// alias's server does.
async fn find(api: &Api, room_or_alias: String, mut via: Vec<OwnedServerName>) -> Result<AliasTarget, ApiError> {
    if !room_or_alias.starts_with('#') {
        let room_id = OwnedRoomId::try_from(room_or_alias).map_err(|_| not_a_room())?;
        return Ok(AliasTarget { room_id, servers: via });
    }
    let alias = <&RoomAliasId>::try_from(room_or_alias.as_str()).map_err(|_| not_a_room())?;
    let target = resolve(api, alias).await?;
    via.extend(target.servers);
    Ok(AliasTarget { servers: via, ..target })
}

fn not_a_room() -> ApiError {
    ApiError::invalid_param("this is neither a room ID nor an alias")
}

/// Joins or knocks. Whoever has the ID of a room may learn that it is not here: asking to enter it
/// without being told would lead nowhere.
async fn enter(
    api: &Api,
    requester: &Requester,
    AliasTarget { room_id, servers: via }: AliasTarget,
    membership: Membership,
    body: &[u8],
) -> Result<Response, ApiError> {
    let (content, user) = (entry_content(body)?, &requester.user_id);
    let profile = profile_of(api, user).await?;
    let change = MembershipChange { profile, ..change(&room_id, user, user, membership) };
    match api.rooms.enter(Entry { change, content, requester: kind_of(requester), via }).await {
        Ok(_) => Ok(room(&room_id)),
        Err(MembershipError::Send(SendError::UnknownRoom)) => Err(ApiError::not_found("there is no such room")),
        Err(other) => Err(other.into()),
    }
}

/// What rooms make of the requester.
pub(crate) fn kind_of(requester: &Requester) -> RequesterKind {
    match requester.standing.kind {
        AccountKind::User => RequesterKind::User,
        AccountKind::Guest => RequesterKind::Guest,
    }
}

/// What a body adds to the member event: `reason`, and whatever else a client finds worth saying.
fn entry_content(body: &[u8]) -> Result<CanonicalJsonObject, ApiError> {
    if body.is_empty() {
        return Ok(CanonicalJsonObject::new());
    }
    let mut content = content(body)?;
    // An invitation through an identity server, which is no part of the content as it comes.
    content.remove("third_party_signed");
    match content.get("reason") {
        Some(CanonicalJsonValue::Null) => drop(content.remove("reason")),
        None | Some(CanonicalJsonValue::String(_)) => {}
        Some(_) => return Err(ApiError::bad_json("\"reason\" must be a string")),
    }
    Ok(content)
}

/// `POST /rooms/{roomId}/invite`
pub(crate) async fn invite(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    Json(body): Json<TargetBody>,
) -> Result<Response, ApiError> {
    if body.user_id.is_none() && (body.id_server.is_some() || body.medium.is_some() || body.address.is_some()) {
        return Err(third_party_invites());
    }
    let target = required(body.user_id, "user_id")?;
    may_invite(&api, &requester.user_id, &target).await?;
    let profile = profile_of(&api, &target).await?;
    let change = change(&room_id, &requester.user_id, &target, Membership::Invite);
    api.rooms.change_membership(MembershipChange { reason: body.reason, profile, ..change }).await?;
    Ok(reply::empty())
}

/// Invitations of e-mail addresses need an identity server, and no identity server is trusted.
pub(crate) fn third_party_invites() -> ApiError {
    let message = "inviting third-party identifiers is not supported";
    ApiError::new(StatusCode::BAD_REQUEST, "M_SERVER_NOT_TRUSTED", message)
}

/// `POST /rooms/{roomId}/leave`
pub(crate) async fn leave(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    OptionalJson(body): OptionalJson<ReasonBody>,
) -> Result<Response, ApiError> {
    notices::may_leave(&api, &requester, &room_id).await?;
    let change = change(&room_id, &requester.user_id, &requester.user_id, Membership::Leave);
    match api.rooms.change_membership(MembershipChange { reason: body.reason, ..change }).await {
        Ok(_) => Ok(reply::empty()),
        Err(MembershipError::Send(SendError::UnknownRoom)) => Err(ApiError::not_found("there is no such room")),
        Err(other) => Err(other.into()),
    }
}

/// `POST /rooms/{roomId}/kick`
pub(crate) async fn kick(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    Json(body): Json<TargetBody>,
) -> Result<Response, ApiError> {
    let target = required(body.user_id, "user_id")?;
    let change = change(&room_id, &requester.user_id, &target, Membership::Leave);
    api.rooms.change_membership(MembershipChange { reason: body.reason, ..change }).await?;
    Ok(reply::empty())
}

/// `POST /rooms/{roomId}/ban`
pub(crate) async fn ban(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    Json(body): Json<TargetBody>,
) -> Result<Response, ApiError> {
    let target = required(body.user_id, "user_id")?;
    let change = change(&room_id, &requester.user_id, &target, Membership::Ban);
    api.rooms.change_membership(MembershipChange { reason: body.reason, ..change }).await?;
    Ok(reply::empty())
}

/// `POST /rooms/{roomId}/unban`
pub(crate) async fn unban(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    Json(body): Json<TargetBody>,
) -> Result<Response, ApiError> {
    let target = required(body.user_id, "user_id")?;
    let change = change(&room_id, &requester.user_id, &target, Membership::Leave);
    let change = MembershipChange { reason: body.reason, only_from: Some(Membership::Ban), ..change };
    api.rooms.change_membership(change).await?;
    Ok(reply::empty())
}

/// `POST /rooms/{roomId}/forget`
pub(crate) async fn forget(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
) -> Result<Response, ApiError> {
    match api.rooms.forget(&requester.user_id, &room_id).await {
        Ok(()) => Ok(reply::empty()),
        Err(MembershipError::NotInState(why)) => Err(ApiError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", why)),
        Err(other) => Err(other.into()),
    }
}

#[derive(Serialize)]
struct JoinedRooms {
    joined_rooms: Vec<OwnedRoomId>,
}

/// `GET /joined_rooms`
pub(crate) async fn joined_rooms(State(api): State<Arc<Api>>, Authed(requester): Authed) -> Result<Response, ApiError> {
    let joined_rooms = api.rooms.joined_room_ids(&requester.user_id).await?;
    Ok(reply::json(&JoinedRooms { joined_rooms }))
}

/// Whether the requester may ask for a member event as a state event, which counts as what it does: who joins by it
/// joins as often as by `/join`.
///
/// # Errors
/// 403 `M_INVITE_BLOCKED` and `M_CANNOT_LEAVE_SERVER_NOTICE_ROOM`, 429 `M_LIMIT_EXCEEDED`
pub(crate) async fn may_set_member(
    api: &Api,
    requester: &Requester,
    room_id: &RoomId,
    state_key: &str,
    content: &CanonicalJsonObject,
) -> Result<(), ApiError> {
    let membership = content.get("membership").and_then(CanonicalJsonValue::as_str).and_then(Membership::parse);
    // What is no membership or no user ID is refused by the auth rules.
    let (Some(membership), Ok(target)) = (membership, <&UserId>::try_from(state_key)) else { return Ok(()) };
    match (membership, target == requester.user_id) {
        (Membership::Invite, _) => {
            if is_counted(requester) {
                api.limits.inviting(requester.user, 1)?;
            }
            may_invite(api, &requester.user_id, target).await
        }
        (Membership::Leave, true) => notices::may_leave(api, requester, room_id).await,
        (Membership::Join | Membership::Knock, true) => {
            // Who is in the room already changes no more than a name.
            match notices::membership(api, room_id, target).await? {
                Some(Membership::Join) => Ok(()),
                _ if !is_counted(requester) => Ok(()),
                _ => api.limits.joining(requester.user),
            }
        }
        _ => Ok(()),
    }
}

fn change(room_id: &RoomId, sender: &UserId, target: &UserId, membership: Membership) -> MembershipChange {
    MembershipChange {
        room_id: room_id.to_owned(),
        sender: sender.to_owned(),
        target: target.to_owned(),
        membership,
        only_from: None,
        reason: None,
        profile: MemberProfile::default(),
        is_direct: None,
    }
}

/// What member events say of `user`: nothing about users of other servers, whose own server knows.
pub(crate) async fn profile_of(api: &Api, user: &UserId) -> Result<MemberProfile, ApiError> {
    let profile = api.accounts.profile(user).await?.unwrap_or_default();
    Ok(MemberProfile { displayname: profile.displayname, avatar_url: profile.avatar_url })
}
