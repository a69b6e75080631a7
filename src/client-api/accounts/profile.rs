//! `/profile/{userId}…`. A change travels into every room of the user.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{Profile, Requester};
use hearth_rooms::MemberProfile;
use ruma_common::{OwnedUserId, UserId};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Api;
use crate::auth::{Authed, only_oneself};
use crate::body::Json;
use crate::error::ApiError;
use crate::params::Segments;
use crate::reply;

/// A field of profiles; others are not kept, which the capability `m.profile_fields` says.
#[derive(Clone, Copy)]
enum Field {
    Displayname,
    AvatarUrl,
}

impl Field {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "displayname" => Some(Self::Displayname),
            "avatar_url" => Some(Self::AvatarUrl),
            _ => None,
        }
    }

    fn of(self, profile: Profile) -> Option<String> {
        match self {
            Self::Displayname => profile.displayname,
            Self::AvatarUrl => profile.avatar_url,
        }
    }
}

#[derive(Serialize)]
struct ProfileReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    displayname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
}

async fn profile(api: &Api, user: &UserId) -> Result<Profile, ApiError> {
    let profile = api.accounts.profile(user).await?;
    profile.ok_or_else(|| ApiError::not_found("there is no such profile"))
}

/// `GET /profile/{userId}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Segments(user): Segments<OwnedUserId>,
) -> Result<Response, ApiError> {
    let Profile { displayname, avatar_url } = profile(&api, &user).await?;
    Ok(reply::json(&ProfileReply { displayname, avatar_url }))
}

/// `GET /profile/{userId}/{keyName}`
pub(crate) async fn get_field(
    State(api): State<Arc<Api>>,
    Segments((user, name)): Segments<(OwnedUserId, String)>,
) -> Result<Response, ApiError> {
    let profile = profile(&api, &user).await?;
    let field = Field::parse(&name).ok_or_else(|| ApiError::not_found("there is no such profile field"))?;
    let value = field.of(profile).ok_or_else(|| ApiError::not_found("this profile field is not set"))?;
    Ok(reply::json(&Map::from_iter([(name, Value::String(value))])))
}

/// `PUT /profile/{userId}/{keyName}`
pub(crate) async fn put_field(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, name)): Segments<(OwnedUserId, String)>,
    Json(mut body): Json<Map<String, Value>>,
) -> Result<Response, ApiError> {
    let field = writable(&requester, &user, &name)?;
    let value = match body.remove(&name) {
        None => return Err(ApiError::missing_param(&name)),
        // Clients of the older versions say `null` to take a field away.
        Some(Value::Null) => None,
        Some(Value::String(value)) => Some(value),
        Some(_) => return Err(ApiError::bad_json(format!("\"{name}\" must be a string"))),
    };
    set(&api, &requester, field, value).await
}

/// `DELETE /profile/{userId}/{keyName}`
pub(crate) async fn delete_field(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, name)): Segments<(OwnedUserId, String)>,
) -> Result<Response, ApiError> {
    let field = writable(&requester, &user, &name)?;
    set(&api, &requester, field, None).await
}

fn writable(requester: &Requester, user: &UserId, name: &str) -> Result<Field, ApiError> {
    only_oneself(requester, user)?;
    Field::parse(name).ok_or_else(|| ApiError::forbidden("this server keeps no such profile field"))
}

async fn set(api: &Api, requester: &Requester, field: Field, value: Option<String>) -> Result<Response, ApiError> {
    let change = match field {
        Field::Displayname => api.accounts.set_displayname(requester.user, value).await?,
        Field::AvatarUrl => api.accounts.set_avatar_url(requester.user, value).await?,
    };
    // Also when nothing changed: an earlier request may have broken off between the two steps, and a
    // room that knows already is left alone.
    let profile = MemberProfile { displayname: change.after.displayname, avatar_url: change.after.avatar_url };
    api.rooms.update_profile(&requester.user_id, &profile).await?;
    Ok(reply::empty())
}
