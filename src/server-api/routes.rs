//! Which path leads where. A path that is not here is unknown, to the letter.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, any, get, post, put};

use crate::{Api, binding, edge, events, exchange, handshakes, invite, keys, public_rooms, query, send};

/// Paths, with their parameters in braces, and what answers them.
type Table = Vec<(&'static str, MethodRouter<Arc<Api>>)>;

/// All that other servers may ask for.
fn table() -> Table {
    vec![
        ("/_matrix/key/v2/server", get(keys::server)),
        ("/_matrix/key/v2/query", post(keys::query_many)),
        ("/_matrix/key/v2/query/{server}", get(keys::query_one)),
        ("/_matrix/federation/v1/version", get(query::version)),
        ("/_matrix/federation/v1/send/{txn}", put(send::send)),
        ("/_matrix/federation/v1/event/{event_id}", get(events::event)),
        ("/_matrix/federation/v1/state/{room_id}", get(events::state)),
        ("/_matrix/federation/v1/state_ids/{room_id}", get(events::state_ids)),
        ("/_matrix/federation/v1/event_auth/{room_id}/{event_id}", get(events::event_auth)),
        ("/_matrix/federation/v1/backfill/{room_id}", get(events::backfill)),
        ("/_matrix/federation/v1/get_missing_events/{room_id}", post(events::get_missing_events)),
        ("/_matrix/federation/v1/timestamp_to_event/{room_id}", get(events::timestamp_to_event)),
        ("/_matrix/federation/v1/make_join/{room_id}/{user_id}", get(handshakes::make_join)),
        ("/_matrix/federation/v1/make_leave/{room_id}/{user_id}", get(handshakes::make_leave)),
        ("/_matrix/federation/v1/make_knock/{room_id}/{user_id}", get(handshakes::make_knock)),
        ("/_matrix/federation/v1/send_join/{room_id}/{event_id}", put(handshakes::send_join_v1)),
        ("/_matrix/federation/v2/send_join/{room_id}/{event_id}", put(handshakes::send_join)),
        ("/_matrix/federation/v1/send_leave/{room_id}/{event_id}", put(handshakes::send_leave_v1)),
        ("/_matrix/federation/v2/send_leave/{room_id}/{event_id}", put(handshakes::send_leave)),
        ("/_matrix/federation/v1/send_knock/{room_id}/{event_id}", put(handshakes::send_knock)),
        ("/_matrix/federation/v1/invite/{room_id}/{event_id}", put(invite::invite_v1)),
        ("/_matrix/federation/v2/invite/{room_id}/{event_id}", put(invite::invite)),
        ("/_matrix/federation/v1/exchange_third_party_invite/{room_id}", put(exchange::exchange)),
        ("/_matrix/federation/v1/3pid/onbind", put(binding::on_bind)),
        ("/_matrix/federation/v1/publicRooms", get(public_rooms::list).post(public_rooms::search)),
        ("/_matrix/federation/v1/query/directory", get(query::directory)),
        ("/_matrix/federation/v1/query/profile", get(query::profile)),
        ("/_matrix/federation/v1/query/{type}", get(query::unknown)),
    ]
}

/// Every endpoint, and answers for all other paths of other servers.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    let mut router = Router::new();
    for (path, methods) in table() {
        router = router.route(path, methods.fallback(edge::unknown_method));
    }
    router
        .route("/_matrix/federation/{*rest}", any(edge::unknown_path))
        .route("/_matrix/key/{*rest}", any(edge::unknown_path))
        .layer(from_fn_with_state(api.clone(), edge::edge))
        .with_state(api)
}

/// Every path with its parameters in braces, for tests.
#[cfg(test)]
pub(crate) fn paths() -> Vec<&'static str> {
    table().into_iter().map(|(path, _)| path).collect()
}
