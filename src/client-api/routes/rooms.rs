//! Paths of rooms.

use super::Table;
use super::methods::{get, post, put};
use crate::rooms::{
    aliases, create, delayed, directory, event, legacy, members, membership, messages, mutual, relations, reports,
    send, state, summary, threads, upgrade,
};

/// Below `/_matrix/client/v3`.
pub(super) fn v3() -> Table {
    [commands(), queries()].concat()
}

/// Everywhere else.
pub(super) fn elsewhere() -> Table {
    let mut all = delayed_events();
    all.extend(queries_of_v1());
    all
}

fn queries_of_v1() -> Table {
    vec![
        ("/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms", get(mutual::get)),
        ("/_matrix/client/v1/mutual_rooms", get(mutual::get)),
        ("/_matrix/client/v1/room_summary/{room}", get(summary::get)),
        ("/_matrix/client/v1/rooms/{room_id}/timestamp_to_event", get(event::at_time)),
        ("/_matrix/client/v1/rooms/{room_id}/relations/{event_id}", get(relations::of_event)),
        ("/_matrix/client/v1/rooms/{room_id}/relations/{event_id}/{rel_type}", get(relations::with_relation)),
        ("/_matrix/client/v1/rooms/{room_id}/relations/{event_id}/{rel_type}/{event_type}", get(relations::with_type)),
        ("/_matrix/client/v1/rooms/{room_id}/threads", get(threads::list)),
    ]
}

fn delayed_events() -> Table {
    vec![
        ("/_matrix/client/v1/delayed_events/{delay_id}", get(delayed::get)),
        ("/_matrix/client/v1/delayed_events/{delay_id}/cancel", post(delayed::cancel)),
        ("/_matrix/client/v1/delayed_events/{delay_id}/restart", post(delayed::restart)),
        ("/_matrix/client/v1/delayed_events/{delay_id}/send", post(delayed::send)),
        ("/_matrix/client/unstable/org.matrix.msc4140/delayed_events", get(delayed::list)),
        ("/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}", get(delayed::get_unstable)),
        ("/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}/cancel", post(delayed::cancel_by_id)),
        ("/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}/restart", post(delayed::restart_by_id)),
        ("/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}/send", post(delayed::send_by_id)),
        ("/_matrix/client/unstable/org.matrix.msc4140/rooms/{room_id}/delayed_event/{type}/{txn}", put(delayed::put)),
    ]
}

fn commands() -> Table {
    vec![
        ("/createRoom", post(create::create)),
        ("/directory/list/room/{room_id}", get(directory::visibility).put(directory::set_visibility)),
        ("/directory/room/{alias}", get(aliases::get).put(aliases::create).delete(aliases::delete)),
        ("/join/{room}", post(membership::join_by_id_or_alias)),
        ("/knock/{room}", post(membership::knock)),
        ("/rooms/{room_id}/ban", post(membership::ban)),
        ("/rooms/{room_id}/delayed_event/{type}/{txn}", put(delayed::put)),
        ("/rooms/{room_id}/forget", post(membership::forget)),
        ("/rooms/{room_id}/invite", post(membership::invite)),
        ("/rooms/{room_id}/join", post(membership::join_by_id)),
        ("/rooms/{room_id}/kick", post(membership::kick)),
        ("/rooms/{room_id}/leave", post(membership::leave)),
        ("/rooms/{room_id}/redact/{event_id}/{txn}", put(send::redact)),
        ("/rooms/{room_id}/report", post(reports::room)),
        ("/rooms/{room_id}/report/{event_id}", post(reports::event)),
        ("/rooms/{room_id}/send/{type}/{txn}", put(send::send)),
        ("/rooms/{room_id}/unban", post(membership::unban)),
        ("/rooms/{room_id}/upgrade", post(upgrade::upgrade)),
        ("/users/{user_id}/report", post(reports::user)),
    ]
}

fn queries() -> Table {
    let empty_key = get(state::get_with_empty_key).put(state::put_with_empty_key);
    vec![
        ("/events", get(legacy::events)),
        ("/events/{event_id}", get(legacy::event)),
        ("/initialSync", get(legacy::initial_sync)),
        ("/joined_rooms", get(membership::joined_rooms)),
        ("/publicRooms", get(directory::list).post(directory::search)),
        ("/rooms/{room_id}/aliases", get(aliases::of_room)),
        ("/rooms/{room_id}/context/{event_id}", get(event::context)),
        ("/rooms/{room_id}/event/{event_id}", get(event::get)),
        ("/rooms/{room_id}/initialSync", get(legacy::room_initial_sync)),
        ("/rooms/{room_id}/joined_members", get(members::joined_members)),
        ("/rooms/{room_id}/members", get(members::members)),
        ("/rooms/{room_id}/messages", get(messages::messages)),
        ("/rooms/{room_id}/state", get(state::get_all)),
        ("/rooms/{room_id}/state/{type}", empty_key.clone()),
        ("/rooms/{room_id}/state/{type}/", empty_key),
        ("/rooms/{room_id}/state/{type}/{state_key}", get(state::get).put(state::put)),
    ]
}
