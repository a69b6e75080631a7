//! `GET /room_summary/{roomIdOrAlias}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::RoomOverview;
use ruma_common::{OwnedRoomId, OwnedRoomOrAliasId};
use serde::Serialize;

use crate::Api;
use crate::auth::Authed;
use crate::error::ApiError;
use crate::params::Segments;
use crate::reply;

/// `PublishedRoomsChunk`, and what a summary has besides.
#[derive(Serialize)]
pub(crate) struct Shown {
    room_id: OwnedRoomId,
    num_joined_members: u32,
    world_readable: bool,
    guest_can_join: bool,
    join_rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    canonical_alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_type: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_room_ids: Vec<OwnedRoomId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<&'static str>,
}

impl Shown {
    /// A room of the directory.
    pub(crate) fn in_directory(room: RoomOverview) -> Self {
        let whole = Self::whole(room, None);
        Self { allowed_room_ids: Vec::new(), encryption: None, room_version: None, ..whole }
    }

    fn whole(room: RoomOverview, membership: Option<&'static str>) -> Self {
        Self {
            room_id: room.room_id,
            num_joined_members: room.joined_members,
            world_readable: room.world_readable,
            guest_can_join: room.guest_can_join,
            join_rule: room.join_rule,
            name: room.name,
            topic: room.topic,
            canonical_alias: room.canonical_alias,
            avatar_url: room.avatar_url,
            room_type: room.room_type,
            allowed_room_ids: room.allowed_room_ids,
            encryption: room.encryption,
            room_version: Some(room.room_version),
            membership,
        }
    }
}

/// What a room looks like from outside.
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room): Segments<OwnedRoomOrAliasId>,
) -> Result<Response, ApiError> {
    let unknown = || ApiError::not_found("there is no such room, or none for you");
    let room_id = match OwnedRoomId::try_from(room) {
        Ok(room_id) => room_id,
        Err(alias) => api.rooms.resolve_alias(&alias).await?.ok_or_else(unknown)?.room_id,
    };
    let summary = api.rooms.summary(&requester.user_id, &room_id).await?;
    let membership = summary.membership.map(hearth_schema::Membership::as_str);
    Ok(reply::json(&Shown::whole(summary.overview, membership)))
}
