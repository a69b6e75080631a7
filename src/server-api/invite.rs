//! Invitations of local users: `PUT /invite`, v2 and v1.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::InviteVerdict;
use hearth_event::{Pdu, RoomVersion};
use hearth_rooms::remote::RawPdu;
use hearth_rooms::{InviteError, InviteIn};
use http::StatusCode;
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::params::Segments;
use crate::signed::Signed;
use crate::{Api, body, reply};

#[derive(Deserialize)]
struct Body {
    room_version: Option<String>,
    event: Option<Box<RawValue>>,
    #[serde(default)]
    invite_room_state: Vec<RawPdu>,
}

/// What an invitation of v1 has in its event.
#[derive(Default, Deserialize)]
struct Outline {
    #[serde(default)]
    unsigned: Unsigned,
}

#[derive(Default, Deserialize)]
struct Unsigned {
    #[serde(default)]
    invite_room_state: Vec<RawPdu>,
}

type Named = (OwnedRoomId, OwnedEventId);

/// `PUT /v2/invite/{roomId}/{eventId}`
pub(crate) async fn invite(
    State(api): State<Arc<Api>>,
    Segments(named): Segments<Named>,
    Signed { origin, body }: Signed,
) -> Result<Response, ApiError> {
    let signed = take(&api, &origin, &read(named, &body)?).await?;
    let mut out = b"{\"event\":".to_vec();
    out.extend_from_slice(signed.json());
    out.push(b'}');
    Ok(reply::raw(out))
}

/// `PUT /v1/invite/{roomId}/{eventId}`: the event itself, of a room of version 1 or 2, which look alike.
pub(crate) async fn invite_v1(
    State(api): State<Arc<Api>>,
    Segments(named): Segments<Named>,
    Signed { origin, body }: Signed,
) -> Result<Response, ApiError> {
    let signed = take(&api, &origin, &read_v1(named, &body)?).await?;
    let mut out = b"[200,{\"event\":".to_vec();
    out.extend_from_slice(signed.json());
    out.extend_from_slice(b"}]");
    Ok(reply::raw(out))
}

fn read((room_id, event_id): Named, bytes: &[u8]) -> Result<InviteIn, ApiError> {
    let Body { room_version, event, invite_room_state } = body::parse(bytes)?;
    let name = room_version.ok_or_else(|| ApiError::missing_param("room_version"))?;
    let event = event.ok_or_else(|| ApiError::missing_param("event"))?;
    let version = RoomVersion::parse(&name).ok_or_else(|| incompatible(&name))?;
    Ok(InviteIn { room_id, event_id, version, event, invite_room_state })
}

fn read_v1((room_id, event_id): Named, bytes: &[u8]) -> Result<InviteIn, ApiError> {
    let outline: Outline = body::parse(bytes)?;
    let event: Box<RawValue> =
        serde_json::from_slice(bytes).map_err(|_| ApiError::not_json("the body is not a JSON object"))?;
    let version = RoomVersion::parse("1").ok_or_else(|| incompatible("1"))?;
    Ok(InviteIn { room_id, event_id, version, event, invite_room_state: outline.unsigned.invite_room_state })
}

async fn take(api: &Api, origin: &OwnedServerName, invite: &InviteIn) -> Result<Pdu, ApiError> {
    let good = api.rooms.check_invite(origin, invite).await?;
    let screening = api.accounts.screening(api.rooms.ids().user(good.user())).await?;
    match screening.invite_from(good.sender()) {
        // Whoever is ignored is not told.
        InviteVerdict::Welcome | InviteVerdict::Hidden => {}
        InviteVerdict::Blocked => {
            let message = format!("{} does not take invitations", good.user());
            return Err(ApiError::new(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED", message));
        }
    }
    Ok(api.rooms.take_invite(good).await?)
}

fn incompatible(version: &str) -> ApiError {
    let message = "this server does not know the room's version";
    ApiError::new(StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION", message).with("room_version", version)
}

impl From<InviteError> for ApiError {
    fn from(error: InviteError) -> Self {
        match error {
            InviteError::Invalid(why) => Self::invalid_param(why),
            // 404 would say that there is no such endpoint, and make the other server try the older one.
            InviteError::UnknownUser | InviteError::TooMany => Self::forbidden(error.to_string()),
            InviteError::Send(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma_common::{event_id, room_id};
    use serde_json::{Value, json};

    use super::*;

    fn named() -> Named {
        (room_id!("!a:x").to_owned(), event_id!("$e").to_owned())
    }

    async fn verdict(error: ApiError) -> (u16, Value) {
        use axum::response::IntoResponse as _;
        use http_body_util::BodyExt as _;
        let (parts, body) = error.into_response().into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        (parts.status.as_u16(), serde_json::from_slice(&body).expect("JSON"))
    }

    #[test]
    fn both_forms_name_the_event_and_what_describes_the_room() {
        let (event, state) = (json!({ "type": "m.room.member" }), json!({ "type": "m.room.name" }));
        let new = json!({ "room_version": "10", "event": event, "invite_room_state": [state] });
        let invite = read(named(), new.to_string().as_bytes()).expect("an invitation");
        assert_eq!((invite.version.as_str(), invite.event.get()), ("10", event.to_string().as_str()));
        assert_eq!(invite.invite_room_state[0].get(), state.to_string());
        let old = json!({ "type": "m.room.member", "unsigned": { "invite_room_state": [state] } });
        let invite = read_v1(named(), old.to_string().as_bytes()).expect("an invitation");
        assert_eq!((invite.version.as_str(), invite.event.get()), ("1", old.to_string().as_str()));
        assert_eq!(invite.invite_room_state.len(), 1);
        let bare = read_v1(named(), b"{}").expect("an invitation, as far as this can tell");
        assert_eq!(bare.invite_room_state.len(), 0);
    }

    #[tokio::test]
    async fn what_is_no_invitation_is_a_bad_request() {
        for (body, errcode) in [
            (json!({ "event": {} }), "M_MISSING_PARAM"),
            (json!({ "room_version": "10" }), "M_MISSING_PARAM"),
            (json!({ "room_version": "org.x", "event": {} }), "M_INCOMPATIBLE_ROOM_VERSION"),
            (json!({ "room_version": 10, "event": {} }), "M_BAD_JSON"),
            (json!({ "room_version": "10", "event": {}, "invite_room_state": {} }), "M_BAD_JSON"),
            (json!([]), "M_NOT_JSON"),
        ] {
            let (status, error) = verdict(read(named(), body.to_string().as_bytes()).expect_err("no")).await;
            assert_eq!((status, error["errcode"].as_str()), (400, Some(errcode)), "{body}");
        }
        let unknown = read(named(), br#"{"room_version":"x","event":{}}"#).expect_err("no");
        assert_eq!(verdict(unknown).await.1["room_version"], "x");
    }
}
