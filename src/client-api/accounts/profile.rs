//! `/profile/{userId}…`. A change of the name or the avatar travels into every room of the user.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{Profile, Requester};
use hearth_rooms::MemberProfile;
use hearth_store::StoreError;
use ruma_common::{OwnedUserId, UserId};
use serde_json::{Map, Value};

use crate::Api;
use crate::auth::{Authed, only_oneself};
use crate::body::Json;
use crate::elsewhere;
use crate::error::ApiError;
use crate::params::Segments;
use crate::reply;

/// A field of profiles.
enum Field {
    Displayname,
    AvatarUrl,
    /// A time zone, or what only clients know the meaning of.
    Other(String),
}

impl Field {
    fn of(name: &str) -> Self {
        match name {
            "displayname" => Self::Displayname,
            "avatar_url" => Self::AvatarUrl,
            _ => Self::Other(name.to_owned()),
        }
    }
}

/// The profile as JSON.
async fn profile(api: &Api, user: &UserId) -> Result<Map<String, Value>, ApiError> {
    if user.server_name() != api.settings.server_name {
        return elsewhere::profile(api, user).await;
    }
    let profile = api.accounts.profile(user).await?;
    let Profile { displayname, avatar_url, fields } =
        profile.ok_or_else(|| ApiError::not_found("there is no such profile"))?;
    let mut all = Map::new();
    for (name, json) in fields {
        let value = serde_json::from_str(&json).map_err(|error| StoreError::Corrupt {
            keyspace: "Profiles",
            detail: format!("{name} of {user}: {error}").into(),
        })?;
        all.insert(name, value);
    }
    for (name, value) in [("displayname", displayname), ("avatar_url", avatar_url)] {
        if let Some(value) = value {
            all.insert(name.to_owned(), value.into());
        }
    }
    Ok(all)
}

/// `GET /profile/{userId}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Segments(user): Segments<OwnedUserId>,
) -> Result<Response, ApiError> {
    Ok(reply::json(&profile(&api, &user).await?))
}

/// `GET /profile/{userId}/{keyName}`
pub(crate) async fn get_field(
    State(api): State<Arc<Api>>,
    Segments((user, name)): Segments<(OwnedUserId, String)>,
) -> Result<Response, ApiError> {
    let value = profile(&api, &user).await?.remove(&name);
    let value = value.ok_or_else(|| ApiError::not_found("this profile field is not set"))?;
    Ok(reply::json(&Map::from_iter([(name, value)])))
}

/// `PUT /profile/{userId}/{keyName}`
pub(crate) async fn put_field(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, name)): Segments<(OwnedUserId, String)>,
    Json(mut body): Json<Map<String, Value>>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    let value = body.remove(&name).ok_or_else(|| ApiError::missing_param(&name))?;
    set(&api, &requester, &name, Some(value)).await
}

/// `DELETE /profile/{userId}/{keyName}`
pub(crate) async fn delete_field(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, name)): Segments<(OwnedUserId, String)>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    set(&api, &requester, &name, None).await
}

async fn set(api: &Api, requester: &Requester, name: &str, value: Option<Value>) -> Result<Response, ApiError> {
    let user = requester.user;
    let change = match Field::of(name) {
        Field::Displayname => api.accounts.set_displayname(user, text(name, value)?).await?,
        Field::AvatarUrl => api.accounts.set_avatar_url(user, text(name, value)?).await?,
        Field::Other(name) => {
            if name == "m.tz" && value.as_ref().is_some_and(|value| !value.is_string()) {
                return Err(ApiError::bad_json("\"m.tz\" must be a string"));
            }
            api.accounts.set_profile_field(user, &name, value.map(|value| value.to_string())).await?;
            return Ok(reply::empty());
        }
    };
    // Also when nothing changed: an earlier request may have broken off between the two steps, and a
    // room that knows already is left alone.
    let profile = MemberProfile { displayname: change.after.displayname, avatar_url: change.after.avatar_url };
    api.rooms.update_profile(&requester.user_id, &profile).await?;
    Ok(reply::empty())
}

/// A value that must be a string. Clients of the older versions say `null` to take a field away.
fn text(name: &str, value: Option<Value>) -> Result<Option<String>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(Some(value)),
        Some(_) => Err(ApiError::bad_json(format!("\"{name}\" must be a string"))),
    }
}
