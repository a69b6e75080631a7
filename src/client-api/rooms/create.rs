//! `POST /createRoom`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::Requester;
use hearth_event::{JsonLimits, RoomVersion, parse_canonical_object};
use hearth_rooms::{CreateRoom, InitialState, IsDirect, Preset, RoomVisibility};
use http::StatusCode;
use ruma_common::{CanonicalJsonObject, OwnedRoomAliasId, OwnedUserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::membership::{profile_of, room, third_party_invites};
use super::screening::may_invite;
use crate::Api;
use crate::auth::Authed;
use crate::body::OptionalJson;
use crate::error::ApiError;
use crate::params::invalid;
use crate::services::{is_counted, may_make_alias};

/// How many users one request may invite: each is an event.
const MAX_INVITES: usize = 200;
/// How many events `initial_state` may have.
const MAX_INITIAL_STATE: usize = 200;

#[derive(Default, Deserialize)]
pub(crate) struct Body {
    creation_content: Option<Box<RawValue>>,
    initial_state: Option<Vec<StateEventBody>>,
    invite: Option<Vec<OwnedUserId>>,
    invite_3pid: Option<Vec<serde::de::IgnoredAny>>,
    is_direct: Option<bool>,
    name: Option<String>,
    power_level_content_override: Option<Box<RawValue>>,
    preset: Option<String>,
    room_alias_name: Option<String>,
    room_version: Option<String>,
    topic: Option<String>,
    visibility: Option<String>,
}

#[derive(Deserialize)]
struct StateEventBody {
    content: Option<Box<RawValue>>,
    #[serde(default)]
    state_key: String,
    r#type: Option<String>,
}

/// Creates a room.
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Response, ApiError> {
    if is_counted(&requester) {
        api.limits.inviting(requester.user, body.invite.as_ref().map_or(0, Vec::len))?;
    }
    let command = command(&api, &requester, body).await?;
    let room_id = api.rooms.create(command).await?;
    Ok(room(&room_id))
}

async fn command(api: &Api, requester: &Requester, body: Body) -> Result<CreateRoom, ApiError> {
    let creator = &requester.user_id;
    if body.invite_3pid.is_some_and(|invites| !invites.is_empty()) {
        return Err(third_party_invites());
    }
    let alias = body.room_alias_name.map(|name| alias(api, &name)).transpose()?;
    if let Some(alias) = &alias {
        may_make_alias(api, requester, alias)?;
    }
    let version = body.room_version.as_deref().map(version).transpose()?;
    let preset = body.preset.as_deref().map(preset).transpose()?;
    let visibility = body.visibility.as_deref().map(visibility).transpose()?.unwrap_or_default();
    let initial_state = initial_state(body.initial_state.unwrap_or_default())?;
    let creation_content = body.creation_content.map(|raw| object(&raw)).transpose()?.unwrap_or_default();
    let power_level_content_override = body.power_level_content_override.map(|raw| object(&raw)).transpose()?;
    let invited = body.invite.unwrap_or_default();
    if invited.len() > MAX_INVITES {
        return Err(ApiError::bad_json(format!("at most {MAX_INVITES} users can be invited at once")));
    }
    let mut invite = Vec::with_capacity(invited.len());
    for user in invited {
        may_invite(api, creator, &user).await?;
        let profile = profile_of(api, &user).await?;
        invite.push((user, profile));
    }
    Ok(CreateRoom {
        profile: profile_of(api, creator).await?,
        creator: creator.clone(),
        version,
        preset,
        visibility,
        name: body.name,
        topic: body.topic,
        alias,
        invite,
        is_direct: (body.is_direct == Some(true)).then_some(IsDirect),
        creation_content,
        initial_state,
        power_level_content_override,
    })
}

fn object(raw: &RawValue) -> Result<CanonicalJsonObject, ApiError> {
    Ok(parse_canonical_object(raw.get().as_bytes(), JsonLimits::CONTENT)?)
}

fn initial_state(events: Vec<StateEventBody>) -> Result<Vec<InitialState>, ApiError> {
    if events.len() > MAX_INITIAL_STATE {
        return Err(ApiError::bad_json(format!("\"initial_state\" may have {MAX_INITIAL_STATE} events")));
    }
    let build = |event: StateEventBody| {
        let event_type = event.r#type.ok_or_else(|| ApiError::bad_json("an initial state event has no \"type\""))?;
        let content = event.content.ok_or_else(|| ApiError::bad_json("an initial state event has no \"content\""))?;
        Ok(InitialState { event_type, state_key: event.state_key, content: object(&content)? })
    };
    events.into_iter().map(build).collect()
}

fn alias(api: &Api, name: &str) -> Result<OwnedRoomAliasId, ApiError> {
    let wrong = name.is_empty() || name.contains(':') || name.contains(char::is_whitespace) || name.contains('\0');
    if wrong {
        return Err(invalid("room_alias_name"));
    }
    let alias = format!("#{name}:{}", api.settings.server_name);
    OwnedRoomAliasId::try_from(alias).map_err(|_| invalid("room_alias_name"))
}

pub(crate) fn version(name: &str) -> Result<RoomVersion, ApiError> {
    RoomVersion::parse(name).ok_or_else(|| {
        let message = "this server does not know that room version";
        ApiError::new(StatusCode::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION", message)
    })
}

fn preset(word: &str) -> Result<Preset, ApiError> {
    match word {
        "private_chat" => Ok(Preset::PrivateChat),
        "trusted_private_chat" => Ok(Preset::TrustedPrivateChat),
        "public_chat" => Ok(Preset::PublicChat),
        _ => Err(ApiError::bad_json("\"preset\" is none of the spec's")),
    }
}

fn visibility(word: &str) -> Result<RoomVisibility, ApiError> {
    match word {
        "public" => Ok(RoomVisibility::Public),
        "private" => Ok(RoomVisibility::Private),
        _ => Err(ApiError::bad_json("\"visibility\" must be \"public\" or \"private\"")),
    }
}
