//! `GET /pushers` and `POST /pushers/set`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{NewPusher, PusherInfo, Sharing};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Api;
use crate::auth::Authed;
use crate::body::Json;
use crate::error::ApiError;
use crate::params::required;
use crate::reply;

#[derive(Serialize)]
struct PusherReply {
    app_id: String,
    pushkey: String,
    kind: String,
    app_display_name: String,
    device_display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_tag: Option<String>,
    lang: String,
    data: Map<String, Value>,
}

impl From<PusherInfo> for PusherReply {
    fn from(info: PusherInfo) -> Self {
        let PusherInfo { app_id, pushkey, pusher, data } = info;
        Self {
            app_id,
            pushkey,
            kind: pusher.kind,
            app_display_name: pusher.app_display_name,
            device_display_name: pusher.device_display_name,
            profile_tag: pusher.profile_tag,
            lang: pusher.lang,
            data,
        }
    }
}

#[derive(Serialize)]
struct Pushers {
    pushers: Vec<PusherReply>,
}

/// `GET /pushers`
pub(crate) async fn list(State(api): State<Arc<Api>>, Authed(requester): Authed) -> Result<Response, ApiError> {
    let pushers = api.accounts.pushers(requester.user).await?;
    Ok(reply::json(&Pushers { pushers: pushers.into_iter().map(PusherReply::from).collect() }))
}

#[derive(Deserialize)]
pub(crate) struct SetBody {
    app_id: Option<String>,
    pushkey: Option<String>,
    /// `null` means remove; left out, it is missing.
    #[serde(default, deserialize_with = "present")]
    kind: Option<Value>,
    app_display_name: Option<String>,
    device_display_name: Option<String>,
    profile_tag: Option<String>,
    lang: Option<String>,
    data: Option<Map<String, Value>>,
    append: Option<bool>,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// `POST /pushers/set`
pub(crate) async fn set(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Json(body): Json<SetBody>,
) -> Result<Response, ApiError> {
    let app_id = required(body.app_id, "app_id")?;
    let pushkey = required(body.pushkey, "pushkey")?;
    match required(body.kind, "kind")? {
        Value::Null => api.accounts.remove_pusher(requester.user, &app_id, &pushkey).await?,
        Value::String(kind) if kind == "http" => {
            let new = NewPusher {
                app_id,
                pushkey,
                app_display_name: required(body.app_display_name, "app_display_name")?,
                device_display_name: required(body.device_display_name, "device_display_name")?,
                profile_tag: body.profile_tag,
                lang: required(body.lang, "lang")?,
                data: required(body.data, "data")?,
            };
            if requester.client.device_id().is_none() {
                // A pusher goes with its device.
                return Err(ApiError::missing_param("device_id"));
            }
            let sharing = if body.append == Some(true) { Sharing::Append } else { Sharing::Replace };
            api.accounts.set_pusher(&requester, new, sharing).await?;
        }
        _ => return Err(ApiError::invalid_param("this server has no such kind of pusher")),
    }
    Ok(reply::empty())
}
