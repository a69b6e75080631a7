//! `GET /rooms/{roomId}/members` and `GET /rooms/{roomId}/joined_members`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::MembersFilter;
use hearth_schema::Membership;
use ruma_common::{OwnedRoomId, UserId};
use serde::Serialize;

use super::render;
use crate::Api;
use crate::auth::Authed;
use crate::error::ApiError;
use crate::params::{Query, Segments};
use crate::reply;
use crate::tokens;

const MEMBERSHIPS: [(&str, Membership); 5] = [
    ("join", Membership::Join),
    ("invite", Membership::Invite),
    ("leave", Membership::Leave),
    ("ban", Membership::Ban),
    ("knock", Membership::Knock),
];

/// Member events, now or `at` a point of the timeline.
pub(crate) async fn members(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
    query: Query,
) -> Result<Response, ApiError> {
    let filter = MembersFilter {
        membership: query.choice("membership", &MEMBERSHIPS)?,
        not_membership: query.choice("not_membership", &MEMBERSHIPS)?,
        at: tokens::read(&api, &query, "at")?,
    };
    let events = api.rooms.members(&requester.user_id, &room_id, &filter).await?;
    let mut body = Vec::with_capacity(render::size(&events) + 16);
    body.extend_from_slice(br#"{"chunk":"#);
    render::array(&api, &requester, &events, &mut body).await?;
    body.push(b'}');
    Ok(reply::raw(body))
}

#[derive(Serialize)]
struct JoinedMember {
    display_name: Option<String>,
    avatar_url: Option<String>,
}

#[derive(Serialize)]
struct JoinedMembers {
    joined: BTreeMap<String, JoinedMember>,
}

/// Joined members with their profiles. A service sees them if any of its users is one.
pub(crate) async fn joined_members(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(room_id): Segments<OwnedRoomId>,
) -> Result<Response, ApiError> {
    let user_id = match requester.client.service() {
        None => requester.user_id,
        Some(service) => {
            let has = |user: &UserId| api.accounts.is_local(user) && service.has_user(user);
            api.rooms.joined_user(&room_id, has).await?.unwrap_or(requester.user_id)
        }
    };
    let members = api.rooms.joined_members(&user_id, &room_id).await?;
    let joined = members.into_iter().map(|member| {
        let shown = JoinedMember { display_name: member.displayname, avatar_url: member.avatar_url };
        (member.user_id.to_string(), shown)
    });
    Ok(reply::json(&JoinedMembers { joined: joined.collect() }))
}
