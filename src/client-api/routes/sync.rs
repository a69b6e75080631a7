//! Paths of what clients follow: `/sync`, typing, receipts.

use axum::routing::{get, post, put};

use super::Table;
use crate::rooms::{receipts, typing};
use crate::{presence, sync};

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
