//! Ways in and out: `make_join`, `send_join`, `make_leave`, `send_leave`, `make_knock`, `send_knock`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use hearth_rooms::remote::Handshake;
use hearth_rooms::{Accepted, HandshakeRefusal, MadeTemplate, Members, SendError};
use http::StatusCode;
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedUserId};

use crate::error::ApiError;
use crate::params::{Query, Segments};
use crate::signed::Signed;
use crate::stream::{Form, Part};
use crate::{Api, FirstHandshakes, edge, reply, stream};

/// How long a server waits before it tries a busy room again, in milliseconds.
const ROOM_RETRY_MS: u64 = 500;

impl From<HandshakeRefusal> for ApiError {
    fn from(refusal: HandshakeRefusal) -> Self {
        let bad = |errcode, message: String| Self::new(StatusCode::BAD_REQUEST, errcode, message);
        let message = refusal.to_string();
        match refusal {
            HandshakeRefusal::Serve(error) => error.into(),
            HandshakeRefusal::IncompatibleVersion(version) => {
                bad("M_INCOMPATIBLE_ROOM_VERSION", message).with("room_version", version.as_str())
            }
            HandshakeRefusal::CannotAuthorise => bad("M_UNABLE_TO_AUTHORISE_JOIN", message),
            HandshakeRefusal::CannotGrant => bad("M_UNABLE_TO_GRANT_JOIN", message),
            HandshakeRefusal::Forbidden(why) => Self::forbidden(why),
            HandshakeRefusal::Invalid(why) => Self::invalid_param(why),
            HandshakeRefusal::Send(error) => error.into(),
        }
    }
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::UnknownRoom => Self::not_found("the room is not known"),
            SendError::Forbidden(why) => Self::forbidden(why),
            SendError::Locked | SendError::Suspended | SendError::Policy(_) => Self::forbidden(error.to_string()),
            SendError::BadContent(why) | SendError::BadRelation(why) => Self::invalid_param(why),
            SendError::TooLarge => Self::too_large("the event is too large"),
            SendError::UnknownEvent => Self::not_found("the event is not known"),
            SendError::DuplicateAnnotation => Self::invalid_param(error.to_string()),
            SendError::Busy => Self::busy(ROOM_RETRY_MS),
            SendError::Unanswered(why) => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", why),
            SendError::Stopping => Self::stopping(),
            SendError::Full => Self::disk_full(),
            SendError::Store(error) => error.into(),
            SendError::Internal(why) => Self::internal(&why),
        }
    }
}

type InRoom = Segments<(OwnedRoomId, OwnedUserId)>;
type OfEvent = Segments<(OwnedRoomId, OwnedEventId)>;

/// `GET /make_join/{roomId}/{userId}`
pub(crate) async fn make_join(
    State(api): State<Arc<Api>>,
    path: InRoom,
    query: Query,
    signed: Signed,
) -> Result<Response, ApiError> {
    make(&api, Handshake::Join, path, &query, signed).await
}

/// `GET /make_leave/{roomId}/{userId}`
pub(crate) async fn make_leave(
    State(api): State<Arc<Api>>,
    path: InRoom,
    query: Query,
    signed: Signed,
) -> Result<Response, ApiError> {
    make(&api, Handshake::Leave, path, &query, signed).await
}

/// `GET /make_knock/{roomId}/{userId}`
pub(crate) async fn make_knock(
    State(api): State<Arc<Api>>,
    path: InRoom,
    query: Query,
    signed: Signed,
) -> Result<Response, ApiError> {
    make(&api, Handshake::Knock, path, &query, signed).await
}

async fn make(
    api: &Api,
    what: Handshake,
    Segments((room_id, user)): InRoom,
    query: &Query,
    Signed { origin, .. }: Signed,
) -> Result<Response, ApiError> {
    let mut versions: Vec<String> = query.all("ver").map(str::to_owned).collect();
    if versions.is_empty() {
        versions.push("1".to_owned());
    }
    let made = api.rooms.make_template(&origin, what, &room_id, (&user, &versions)).await?;
    let MadeTemplate { room_version, event } = made;
    let mut out = b"{\"event\":".to_vec();
    out.extend_from_slice(&event);
    out.extend_from_slice(format!(",\"room_version\":\"{room_version}\"}}").as_bytes());
    Ok(reply::raw(out))
}

/// `PUT /v2/send_join/{roomId}/{eventId}`
pub(crate) async fn send_join(
    State(api): State<Arc<Api>>,
    Segments((room_id, event_id)): OfEvent,
    query: Query,
    Signed { origin, body }: Signed,
) -> Result<Response, ApiError> {
    let omit = query.choice("omit_members", &[("true", Members::Omit), ("false", Members::All)])?;
    let members = omit.unwrap_or(Members::All);
    let accepted = api.rooms.accept_join(&origin, (&room_id, &event_id), &body, members).await?;
    Ok(stream::answer(joined(accepted)))
}

/// `PUT /v1/send_join/{roomId}/{eventId}`, of before r0.1.4 of the specification: the same in a list behind its status.
pub(crate) async fn send_join_v1(
    State(api): State<Arc<Api>>,
    Segments((room_id, event_id)): OfEvent,
    Signed { origin, body }: Signed,
) -> Result<Response, ApiError> {
    check_first(&api)?;
    let accepted = api.rooms.accept_join(&origin, (&room_id, &event_id), &body, Members::All).await?;
    let mut parts = vec![Part::text("[200,")];
    parts.extend(joined(accepted));
    parts.push(Part::text("]"));
    Ok(stream::answer(parts))
}

/// Whether the endpoints of the first version are there.
fn check_first(api: &Api) -> Result<(), ApiError> {
    match api.settings.first_handshakes {
        FirstHandshakes::Served => Ok(()),
        FirstHandshakes::Unknown => Err(edge::unknown()),
    }
}

fn joined(accepted: Accepted) -> Vec<Part> {
    let Accepted { event, state, members, servers } = accepted;
    let omitted = members == Members::Omit;
    let servers: Vec<Bytes> = servers
        .iter()
        .map(|server| {
            let mut name = Vec::new();
            reply::write_string(server.as_str(), &mut name);
            name.into()
        })
        .collect();
    let mut head = format!("{{\"members_omitted\":{omitted},\"servers_in_room\":").into_bytes();
    head.extend_from_slice(&reply::list(&servers));
    head.extend_from_slice(b",\"event\":");
    head.extend_from_slice(&event);
    head.extend_from_slice(b",\"auth_chain\":[");
    vec![
        Part::text(head),
        Part::Events(state.auth_chain, Form::Pdu),
        Part::text("],\"state\":["),
        Part::Events(state.state, Form::Pdu),
        Part::text("]}"),
    ]
}

/// `PUT /v2/send_leave/{roomId}/{eventId}`
pub(crate) async fn send_leave(
    State(api): State<Arc<Api>>,
    Segments((room_id, event_id)): OfEvent,
    Signed { origin, body }: Signed,
) -> Result<Response, ApiError> {
    api.rooms.accept_leave(&origin, (&room_id, &event_id), &body).await?;
    Ok(reply::empty())
}

/// `PUT /v1/send_leave/{roomId}/{eventId}`
pub(crate) async fn send_leave_v1(
    State(api): State<Arc<Api>>,
    Segments((room_id, event_id)): OfEvent,
    Signed { origin, body }: Signed,
) -> Result<Response, ApiError> {
    check_first(&api)?;
    api.rooms.accept_leave(&origin, (&room_id, &event_id), &body).await?;
    Ok(reply::raw(Bytes::from_static(b"[200,{}]")))
}

/// `PUT /v1/send_knock/{roomId}/{eventId}`
pub(crate) async fn send_knock(
    State(api): State<Arc<Api>>,
    Segments((room_id, event_id)): OfEvent,
    Signed { origin, body }: Signed,
) -> Result<Response, ApiError> {
    let shown = api.rooms.accept_knock(&origin, (&room_id, &event_id), &body).await?;
    let mut out = b"{\"knock_room_state\":".to_vec();
    out.extend_from_slice(&reply::list(&shown));
    out.push(b'}');
    Ok(reply::raw(out))
}
