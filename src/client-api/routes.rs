//! Which path leads where. A path that is not here is unknown, to the letter.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post, put};

use crate::accounts::{account, account_data, devices, filter, login, profile, push_rules, register};
use crate::discovery::{capabilities, versions, well_known};
use crate::rooms::{aliases, create, event, members, membership, messages, receipts, send, state, typing};
use crate::{Api, edge, sync};

/// Older clients and the protocol's test suite still use the first stable names, which mean the same.
const PREFIXES: [&str; 2] = ["/_matrix/client/v3", "/_matrix/client/r0"];

type Table = Vec<(&'static str, MethodRouter<Arc<Api>>)>;

/// Every endpoint, and answers for all other paths.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    let mut router = Router::new()
        .route("/.well-known/matrix/client", get(well_known::get))
        .route("/_matrix/client/versions", get(versions::get))
        .route("/_matrix/client/v1/register/m.login.registration_token/validity", get(register::token_validity));
    for (path, methods) in [accounts(), user_data(), room_commands(), room_queries()].into_iter().flatten() {
        for prefix in PREFIXES {
            router = router.route(&format!("{prefix}{path}"), methods.clone());
        }
    }
    router
        .fallback(edge::unknown_path)
        .method_not_allowed_fallback(edge::unknown_method)
        .layer(from_fn_with_state(api.clone(), edge::edge))
        .with_state(api)
}

fn accounts() -> Table {
    vec![
        ("/account/deactivate", post(account::deactivate)),
        ("/account/password", post(account::password)),
        ("/account/whoami", get(login::whoami)),
        ("/capabilities", get(capabilities::get)),
        ("/delete_devices", post(devices::delete_many)),
        ("/devices", get(devices::list)),
        ("/devices/{device_id}", get(devices::get).put(devices::put).delete(devices::delete)),
        ("/login", get(login::flows).post(login::login)),
        ("/logout", post(login::logout)),
        ("/logout/all", post(login::logout_all)),
        ("/register", post(register::register)),
        ("/register/available", get(register::available)),
        ("/thirdparty/protocols", get(capabilities::protocols)),
        ("/voip/turnServer", get(capabilities::turn_server)),
    ]
}

fn user_data() -> Table {
    let account_data_of_room = get(account_data::get_of_room).put(account_data::put_of_room);
    let rule = get(push_rules::get_rule).put(push_rules::put_rule).delete(push_rules::delete_rule);
    vec![
        ("/profile/{user_id}", get(profile::get)),
        ("/profile/{user_id}/{field}", get(profile::get_field).put(profile::put_field).delete(profile::delete_field)),
        ("/pushrules/", get(push_rules::get_all)),
        ("/pushrules/global/", get(push_rules::get_global)),
        ("/pushrules/global/{kind}/{rule_id}", rule),
        (
            "/pushrules/global/{kind}/{rule_id}/{attribute}",
            get(push_rules::get_attribute).put(push_rules::put_attribute),
        ),
        ("/sync", get(sync::sync)),
        ("/user/{user_id}/account_data/{type}", get(account_data::get_global).put(account_data::put_global)),
        ("/user/{user_id}/filter", post(filter::post)),
        ("/user/{user_id}/filter/{filter_id}", get(filter::get)),
        ("/user/{user_id}/rooms/{room_id}/account_data/{type}", account_data_of_room),
    ]
}

fn room_commands() -> Table {
    vec![
        ("/createRoom", post(create::create)),
        ("/directory/room/{alias}", get(aliases::resolve).put(aliases::create).delete(aliases::delete)),
        ("/join/{room}", post(membership::join_by_id_or_alias)),
        ("/knock/{room}", post(membership::knock)),
        ("/rooms/{room_id}/ban", post(membership::ban)),
        ("/rooms/{room_id}/forget", post(membership::forget)),
        ("/rooms/{room_id}/invite", post(membership::invite)),
        ("/rooms/{room_id}/join", post(membership::join_by_id)),
        ("/rooms/{room_id}/kick", post(membership::kick)),
        ("/rooms/{room_id}/leave", post(membership::leave)),
        ("/rooms/{room_id}/read_markers", post(receipts::read_markers)),
        ("/rooms/{room_id}/receipt/{type}/{event_id}", post(receipts::post)),
        ("/rooms/{room_id}/redact/{event_id}/{txn}", put(send::redact)),
        ("/rooms/{room_id}/send/{type}/{txn}", put(send::send)),
        ("/rooms/{room_id}/typing/{user_id}", put(typing::put)),
        ("/rooms/{room_id}/unban", post(membership::unban)),
    ]
}

fn room_queries() -> Table {
    let empty_key = get(state::get_with_empty_key).put(state::put_with_empty_key);
    vec![
        ("/joined_rooms", get(membership::joined_rooms)),
        ("/rooms/{room_id}/aliases", get(aliases::of_room)),
        ("/rooms/{room_id}/context/{event_id}", get(event::context)),
        ("/rooms/{room_id}/event/{event_id}", get(event::get)),
        ("/rooms/{room_id}/joined_members", get(members::joined_members)),
        ("/rooms/{room_id}/members", get(members::members)),
        ("/rooms/{room_id}/messages", get(messages::messages)),
        ("/rooms/{room_id}/state", get(state::get_all)),
        ("/rooms/{room_id}/state/{type}", empty_key.clone()),
        ("/rooms/{room_id}/state/{type}/", empty_key),
        ("/rooms/{room_id}/state/{type}/{state_key}", get(state::get).put(state::put)),
    ]
}

/// Every path with its parameters in braces, for tests.
#[cfg(test)]
pub(crate) fn paths() -> Vec<String> {
    let tables = [accounts(), user_data(), room_commands(), room_queries()];
    tables.into_iter().flatten().map(|(path, _)| format!("{}{path}", PREFIXES[0])).collect()
}
