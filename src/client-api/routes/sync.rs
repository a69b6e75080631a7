//! Paths of what clients follow: `/sync`, typing, receipts, threads.

use super::Table;
use super::methods::{get, post, put};
use crate::rooms::{receipts, subscriptions, typing};
use crate::{presence, sliding, sync};

/// Below `/_matrix/client/v3`.
pub(super) fn v3() -> Table {
    vec![
        ("/presence/{user_id}/status", get(presence::get).put(presence::put)),
        ("/sync", get(sync::sync)),
        ("/rooms/{room_id}/typing/{user_id}", put(typing::put)),
        ("/rooms/{room_id}/receipt/{type}/{event_id}", post(receipts::post)),
        ("/rooms/{room_id}/read_markers", post(receipts::read_markers)),
    ]
}

/// Everywhere else.
pub(super) fn elsewhere() -> Table {
    vec![
        (
            "/_matrix/client/unstable/io.element.msc4306/rooms/{room_id}/thread/{root}/subscription",
            get(subscriptions::get).put(subscriptions::put).delete(subscriptions::delete),
        ),
        ("/_matrix/client/unstable/io.element.msc4308/thread_subscriptions", get(sliding::threads)),
        ("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", post(sliding::sync)),
    ]
}
