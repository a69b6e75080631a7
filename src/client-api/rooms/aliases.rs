//! `/directory/room/{roomAlias}` and `/rooms/{roomId}/aliases`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::Requester;
use hearth_peers::DirectoryAnswer;
use hearth_rooms::{AliasBy, AliasTarget};
use ruma_common::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName, RoomAliasId};
use serde::{Deserialize, Serialize};

use crate::Api;
use crate::auth::Authed;
use crate::body::Json;
use crate::error::ApiError;
use crate::params::{Segments, required};
use crate::reply;
use crate::services::{has_alias, may_make_alias, may_remove_alias};

#[derive(Serialize)]
struct Target {
    room_id: OwnedRoomId,
    servers: Vec<OwnedServerName>,
}

/// `GET /directory/room/{roomAlias}`: open to everybody.
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Segments(alias): Segments<OwnedRoomAliasId>,
) -> Result<Response, ApiError> {
    let target = resolve(&api, &alias).await?;
    Ok(reply::json(&Target { room_id: target.room_id, servers: target.servers }))
}

/// Where an alias of any server leads.
///
/// # Errors
/// 404 if there is none, 502 if its server does not tell.
pub(crate) async fn resolve(api: &Api, alias: &RoomAliasId) -> Result<AliasTarget, ApiError> {
    if alias.server_name() == api.settings.server_name {
        let target = api.rooms.resolve_alias(alias).await?;
        return target.ok_or_else(|| ApiError::not_found("there is no such alias"));
    }
    let DirectoryAnswer { room_id, servers } = api.elsewhere.directory(alias).await?;
    Ok(AliasTarget { room_id, servers })
}

#[derive(Deserialize)]
pub(crate) struct CreateBody {
    room_id: Option<OwnedRoomId>,
}

/// `PUT /directory/room/{roomAlias}`
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(alias): Segments<OwnedRoomAliasId>,
    Json(body): Json<CreateBody>,
) -> Result<Response, ApiError> {
    let room_id = required(body.room_id, "room_id")?;
    may_make_alias(&api, &requester, &alias)?;
    api.rooms.create_alias(&alias, &room_id, by(&requester, &alias)).await?;
    Ok(reply::empty())
}

fn by<'a>(requester: &'a Requester, alias: &RoomAliasId) -> AliasBy<'a> {
    if has_alias(requester, alias) { AliasBy::Owner(&requester.user_id) } else { AliasBy::User(&requester.user_id) }
}

/// `DELETE /directory/room/{roomAlias}`
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(alias): Segments<OwnedRoomAliasId>,
) -> Result<Response, ApiError> {
    may_remove_alias(&api, &requester, &alias)?;
    api.rooms.delete_alias(&alias, by(&requester, &alias)).await?;
    Ok(reply::empty())
}

#[derive(Serialize)]
struct Aliases {
    aliases: Vec<OwnedRoomAliasId>,
}

/// `GET /rooms/{roomId}/aliases`
pub(crate) async fn of_room(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
) -> Result<Response, ApiError> {
    let aliases = api.rooms.room_aliases(&requester.user_id, &room_id).await?;
    Ok(reply::json(&Aliases { aliases }))
}
