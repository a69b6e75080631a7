//! `POST /rooms/{roomId}/upgrade`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::UpgradeRoom;
use ruma_common::{OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use super::create::version;
use super::membership::profile_of;
use crate::Api;
use crate::auth::Authed;
use crate::body::Json;
use crate::error::ApiError;
use crate::params::{Segments, required};
use crate::reply;

#[derive(Deserialize)]
pub(crate) struct Body {
    new_version: Option<String>,
    additional_creators: Option<Vec<OwnedUserId>>,
}

#[derive(Serialize)]
struct Upgraded {
    replacement_room: OwnedRoomId,
}

/// Replaces a room by one of another version.
pub(crate) async fn upgrade(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    Json(body): Json<Body>,
) -> Result<Response, ApiError> {
    let version = version(&required(body.new_version, "new_version")?)?;
    let profile = profile_of(&api, &requester.user_id).await?;
    let upgrade = UpgradeRoom {
        room_id,
        sender: requester.user_id,
        profile,
        version,
        additional_creators: body.additional_creators.unwrap_or_default(),
    };
    let replacement_room = api.rooms.upgrade(&upgrade).await?;
    Ok(reply::json(&Upgraded { replacement_room }))
}
