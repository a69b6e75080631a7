//! What locked and suspended users and guests may ask for.
//!
//! One place decides it by route, before any endpoint is reached, so that an endpoint that is added
//! later is closed to guests and open to suspended users until somebody writes it down here.

use hearth_accounts::{Requester, Standing};
use hearth_schema::AccountKind;
use http::request::Parts;
use http::{Method, StatusCode};
use ruma_common::{EventId, RoomId};

use crate::error::ApiError;
use crate::{Api, routes};

/// Routes by method and path, with `{}` for each parameter; without prefix those below
/// [`routes::PREFIXES`].
pub(crate) type Routes = &'static [(Method, &'static str)];

/// All that a locked account may do
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#account-locking)).
const LOCKED: Routes = &[(Method::POST, "/logout"), (Method::POST, "/logout/all")];

/// All that guests may do, of names in profiles only the display name
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#guest-access)).
const GUESTS: Routes = &[
    (Method::GET, "/rooms/{}/state"),
    (Method::GET, "/rooms/{}/context/{}"),
    (Method::GET, "/rooms/{}/event/{}"),
    (Method::GET, "/rooms/{}/state/{}"),
    (Method::GET, "/rooms/{}/state/{}/"),
    (Method::GET, "/rooms/{}/state/{}/{}"),
    (Method::GET, "/rooms/{}/messages"),
    (Method::GET, "/rooms/{}/members"),
    (Method::GET, "/rooms/{}/initialSync"),
    (Method::GET, "/sync"),
    (Method::GET, "/events"),
    (Method::GET, "/_matrix/client/v1/media/download/{}/{}"),
    (Method::GET, "/_matrix/client/v1/media/download/{}/{}/{}"),
    (Method::GET, "/_matrix/client/v1/media/thumbnail/{}/{}"),
    (Method::POST, "/rooms/{}/join"),
    (Method::POST, "/rooms/{}/leave"),
    (Method::PUT, "/rooms/{}/send/{}/{}"),
    (Method::PUT, "/rooms/{}/state/{}"),
    (Method::PUT, "/rooms/{}/state/{}/"),
    (Method::PUT, "/rooms/{}/state/{}/{}"),
    (Method::PUT, "/sendToDevice/{}/{}"),
    (Method::PUT, "/profile/{}/{}"),
    (Method::DELETE, "/profile/{}/{}"),
    (Method::GET, "/devices"),
    (Method::GET, "/devices/{}"),
    (Method::PUT, "/devices/{}"),
    (Method::GET, "/account/whoami"),
    (Method::POST, "/keys/upload"),
    (Method::POST, "/keys/query"),
    (Method::POST, "/keys/claim"),
];

/// What suspended users may not do, beside sending and redacting ([`may_send`])
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#account-suspension)).
const NOT_SUSPENDED: Routes = &[
    (Method::POST, "/createRoom"),
    (Method::POST, "/join/{}"),
    (Method::POST, "/knock/{}"),
    (Method::POST, "/rooms/{}/join"),
    (Method::POST, "/rooms/{}/invite"),
    (Method::POST, "/rooms/{}/kick"),
    (Method::POST, "/rooms/{}/ban"),
    (Method::POST, "/rooms/{}/unban"),
    (Method::POST, "/rooms/{}/upgrade"),
    (Method::PUT, "/rooms/{}/state/{}"),
    (Method::PUT, "/rooms/{}/state/{}/"),
    (Method::PUT, "/rooms/{}/state/{}/{}"),
    (Method::PUT, "/rooms/{}/typing/{}"),
    (Method::PUT, "/rooms/{}/delayed_event/{}/{}"),
    (Method::PUT, "/_matrix/client/unstable/org.matrix.msc4140/rooms/{}/delayed_event/{}/{}"),
    (Method::PUT, "/profile/{}/{}"),
    (Method::DELETE, "/profile/{}/{}"),
    (Method::PUT, "/directory/room/{}"),
    (Method::DELETE, "/directory/room/{}"),
    (Method::PUT, "/directory/list/room/{}"),
];

/// Whether an account with this standing may make this request.
///
/// # Errors
/// `M_USER_LOCKED`, `M_GUEST_ACCESS_FORBIDDEN` or `M_USER_SUSPENDED`.
pub(crate) fn check(standing: Standing, parts: &Parts) -> Result<(), ApiError> {
    let Standing { kind, moderation, admin: _ } = standing;
    let route = || routes::behind_prefix(&parts.extensions);
    if moderation.locked && !names(LOCKED, &parts.method, route()) {
        return Err(locked());
    }
    if kind == AccountKind::Guest && !(names(GUESTS, &parts.method, route()) && is_for_guests(route(), parts)) {
        return Err(no_guests());
    }
    if moderation.suspended && names(NOT_SUSPENDED, &parts.method, route()) {
        return Err(suspended());
    }
    Ok(())
}

/// 401 `M_USER_LOCKED`: the client keeps what it has.
pub(crate) fn locked() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "M_USER_LOCKED", "this account has been locked").with("soft_logout", true)
}

/// 403 `M_USER_SUSPENDED`
pub(crate) fn suspended() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "M_USER_SUSPENDED", "you cannot do this while your account is suspended")
}

/// Whether the requester may send an event that is no state, or redact the event `redacts`. Suspended
/// users may redact what they sent themselves.
///
/// # Errors
/// `M_USER_SUSPENDED`
pub(crate) async fn may_send(
    api: &Api,
    requester: &Requester,
    room_id: &RoomId,
    redacts: Option<&EventId>,
) -> Result<(), ApiError> {
    if !requester.standing.moderation.suspended {
        return Ok(());
    }
    let redacts = redacts.ok_or_else(suspended)?;
    let view = api.rooms.view().await?;
    let event = api.rooms.event_in_room(&view, api.rooms.ids().room(room_id), redacts).await?;
    match event {
        Some(event) if event.sender() == requester.user_id => Ok(()),
        _ => Err(suspended()),
    }
}

/// Whether the requester may send a state event of this type. A guest's membership is changed by the
/// endpoints for that, which look at `m.room.guest_access`.
///
/// # Errors
/// `M_GUEST_ACCESS_FORBIDDEN`
pub(crate) fn may_set_state(requester: &Requester, event_type: &str) -> Result<(), ApiError> {
    if requester.standing.kind == AccountKind::Guest && event_type == "m.room.member" {
        return Err(no_guests());
    }
    Ok(())
}

fn no_guests() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN", "guests may not do this")
}

/// Guests change no more of their profile than the display name.
fn is_for_guests(route: &str, parts: &Parts) -> bool {
    !route.starts_with("/profile/") || parts.uri.path().ends_with("/displayname")
}

/// Whether one of `routes` is this one.
pub(crate) fn names(routes: Routes, method: &Method, route: &str) -> bool {
    routes.iter().any(|(with, path)| with == method && same_route(path, route))
}

/// Parameters may have any name.
fn same_route(path: &str, route: &str) -> bool {
    let (mut left, mut right) = (path.split('/'), route.split('/'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some("{}"), Some(parameter)) if parameter.starts_with('{') => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_may_have_any_name_and_nothing_else() {
        assert!(same_route("/rooms/{}/state", "/rooms/{room_id}/state"));
        assert!(same_route("/sync", "/sync"));
        for other in ["/rooms/{room_id}/state/", "/rooms/x/state", "/rooms/{room_id}", "/rooms/{room_id}/states", ""] {
            assert!(!same_route("/rooms/{}/state", other), "{other}");
        }
    }

    #[test]
    fn every_route_that_suspended_users_may_not_use_is_written_as_the_router_has_it() {
        let paths = routes::paths();
        let has = |path: &str| {
            let whole = if path.starts_with("/_") { path.to_owned() } else { format!("{}{path}", routes::PREFIXES[0]) };
            paths.iter().any(|known| same_route(&whole, known))
        };
        // Upgrades of rooms may come later.
        for (_, path) in LOCKED.iter().chain(NOT_SUSPENDED).filter(|(_, path)| !path.ends_with("/upgrade")) {
            assert!(has(path), "{path}");
        }
    }
}
