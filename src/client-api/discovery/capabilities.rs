//! `GET /capabilities`, and two empty lists that clients ask for when they start.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_event::RoomVersion;
use serde_json::json;

use crate::Api;
use crate::auth::Authed;
use crate::reply;

/// What the requester can do here.
pub(crate) async fn get(State(api): State<Arc<Api>>, Authed(requester): Authed) -> Response {
    let available: BTreeMap<_, _> = RoomVersion::all().map(|version| (version.as_str(), "stable")).collect();
    let delays = api.settings.delays;
    let delays = json!({
        "max_delay_ms": u64::try_from(delays.max_delay.as_millis()).unwrap_or(u64::MAX),
        "max_scheduled": delays.max_scheduled,
    });
    let default = api.settings.default_room_version.as_str();
    let login_tokens = api.accounts.login_token_lifetime().is_some();
    let mut capabilities = json!({
        "m.change_password": {"enabled": true},
        "m.room_versions": {"default": default, "available": available},
        "m.delayed_events": delays,
        "org.matrix.msc4140.delayed_events": delays,
        "m.set_displayname": {"enabled": true},
        "m.set_avatar_url": {"enabled": true},
        "m.profile_fields": {"enabled": true},
        "m.3pid_changes": {"enabled": false},
        "m.get_login_token": {"enabled": login_tokens},
        "m.forget_forced_upon_leave": {"enabled": false},
    });
    // The spec leaves it out for everybody else.
    if requester.standing.admin {
        capabilities["m.account_moderation"] = json!({"suspend": true, "lock": true});
    }
    reply::json(&json!({ "capabilities": capabilities }))
}

/// `GET /voip/turnServer`: this server knows no TURN server.
pub(crate) async fn turn_server(_: Authed) -> Response {
    reply::empty()
}

/// `GET /thirdparty/protocols`: this server has no bridges.
pub(crate) async fn protocols(_: Authed) -> Response {
    reply::empty()
}
