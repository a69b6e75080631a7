//! `GET /rooms/{roomId}/members` and `GET /rooms/{roomId}/joined_members`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_rooms::{MembersFilter, RoomEvent};
use hearth_schema::Membership;
use ruma_common::{OwnedRoomId, UserId};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

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

/// What a member event says of its user, as it stands there.
#[derive(Default, Deserialize, Serialize)]
struct JoinedMember<'a> {
    #[serde(borrow, rename(deserialize = "displayname"))]
    display_name: Option<&'a RawValue>,
    #[serde(borrow)]
    avatar_url: Option<&'a RawValue>,
}

impl<'a> JoinedMember<'a> {
    /// Anything may stand in a member event's content; what is no text is no name.
    fn of(event: &'a RoomEvent) -> Self {
        let text = |value: &&RawValue| value.get().starts_with('"');
        let content: Self = serde_json::from_slice(event.pdu.content_json()).unwrap_or_default();
        Self { display_name: content.display_name.filter(text), avatar_url: content.avatar_url.filter(text) }
    }
}

/// Profiles by user ID.
struct Joined(Vec<Arc<RoomEvent>>);

impl Serialize for Joined {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter_map(|event| Some((event.state_key()?, JoinedMember::of(event)))))
    }
}

#[derive(Serialize)]
struct JoinedMembers {
    joined: Joined,
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
    let joined = Joined(api.rooms.joined_members(&user_id, &room_id).await?);
    Ok(reply::json(&JoinedMembers { joined }))
}
