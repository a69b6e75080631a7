//! History visibility on every path by which events are read.
//!
//! One room in which people come and go while the topic and other things change, for every history visibility and
//! every change of it; everybody reads it by every endpoint, and a model of the specification's text says what
//! that may show. What an event says is searched for in the whole text of each answer, so nothing comes out in a
//! corner that no test thought of.

mod children;
mod model;
mod room;
mod rows;
mod sliding;

use std::collections::BTreeMap;

use super::*;
use room::{Case, READERS, Stage, When};
use rows::{ROWS, Reading};

const VISIBILITIES: [&str; 4] = ["world_readable", "shared", "invited", "joined"];

/// Endpoints that show nothing of any event, with the reason; `*` stands for any end.
const SHOWS_NO_EVENTS: &[(&str, &str)] = &[
    ("/.well-known/matrix/*", "about the server"),
    ("/_synapse/admin/v1/register", "a number that is used once"),
    ("/_matrix/client/v1/admin/*", "of users, for administrators"),
    ("/_matrix/client/v3/admin/whois/{user_id}", "of users, for administrators"),
    ("/_matrix/client/versions", "about the server"),
    ("/_matrix/client/v3/capabilities", "about the server"),
    ("/_matrix/client/v3/thirdparty/*", "about the server"),
    ("/_matrix/client/v3/voip/turnServer", "about the server"),
    ("/_matrix/client/v3/login", "about the server"),
    ("/_matrix/client/v3/register/available", "about the server"),
    ("/_matrix/client/v1/register/m.login.registration_token/validity", "about the server"),
    ("/_matrix/client/v3/account/*", "the user's own"),
    ("/_matrix/client/v3/devices*", "the user's own"),
    ("/_matrix/client/v3/pushers", "the user's own"),
    ("/_matrix/client/v3/pushrules/*", "the user's own"),
    ("/_matrix/client/v3/presence/*", "who is online, of those who share a room"),
    ("/_matrix/client/v3/user/*", "the user's own"),
    ("/_matrix/client/v3/joined_rooms", "the user's own memberships"),
    ("/_matrix/client/v1/mutual_rooms", "memberships in rooms of both"),
    ("/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms", "memberships in rooms of both"),
    ("/_matrix/client/v1/delayed_events/{delay_id}", "the user's own, before it is sent"),
    ("/_matrix/client/unstable/org.matrix.msc4140/delayed_events*", "the user's own, before they are sent"),
    ("/_matrix/client/v3/profile/*", "of users, for all"),
    ("/_matrix/client/unstable/io.element.msc4306/rooms/{room_id}/thread/{root}/subscription", "the user's own"),
    ("/_matrix/client/unstable/io.element.msc4308/thread_subscriptions", "the user's own"),
    ("/_matrix/federation/v1/openid/userinfo", "of the token's user"),
    ("/_matrix/client/v3/directory/room/{alias}", "aliases are for all"),
    ("/_matrix/client/v3/directory/list/room/{room_id}", "whether a room is published is for all"),
    ("/_matrix/client/v3/rooms/{room_id}/aliases", "aliases are no events"),
];

/// Endpoints that take `POST` and show nothing of any event, with the reason.
const WRITES: &[(&str, &str)] = &[
    ("/_synapse/admin/v1/*", "for administrators"),
    ("/_matrix/client/v1/login/get_token", "a token"),
    ("/_matrix/client/v1/delayed_events/{delay_id}/*", "of the user's own events, which it does not show"),
    ("/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}/*", "likewise"),
    ("/_matrix/client/v3/account/*", "the user's own"),
    ("/_matrix/client/v3/createRoom", "a room ID"),
    ("/_matrix/client/v3/delete_devices", "the user's own"),
    ("/_matrix/client/v3/join/{room}", "a room ID"),
    ("/_matrix/client/v3/knock/{room}", "a room ID"),
    ("/_matrix/client/v3/login", "a token"),
    ("/_matrix/client/v3/logout*", "nothing"),
    ("/_matrix/client/v3/pushers/set", "nothing"),
    ("/_matrix/client/v3/refresh", "a token"),
    ("/_matrix/client/v3/register", "a token"),
    ("/_matrix/client/v3/rooms/{room_id}/ban", "nothing"),
    ("/_matrix/client/v3/rooms/{room_id}/forget", "nothing"),
    ("/_matrix/client/v3/rooms/{room_id}/invite", "nothing"),
    ("/_matrix/client/v3/rooms/{room_id}/join", "a room ID"),
    ("/_matrix/client/v3/rooms/{room_id}/kick", "nothing"),
    ("/_matrix/client/v3/rooms/{room_id}/leave", "nothing"),
    ("/_matrix/client/v3/rooms/{room_id}/read_markers", "nothing"),
    ("/_matrix/client/v3/rooms/{room_id}/receipt/{type}/{event_id}", "nothing"),
    ("/_matrix/client/v3/rooms/{room_id}/report*", "nothing"),
    ("/_matrix/client/v3/rooms/{room_id}/unban", "nothing"),
    ("/_matrix/client/v3/rooms/{room_id}/upgrade", "a room ID"),
    ("/_matrix/client/v3/user/{user_id}/filter", "the user's own"),
    ("/_matrix/client/v3/user/{user_id}/openid/request_token", "a token"),
    ("/_matrix/client/v3/users/{user_id}/report", "nothing"),
];

/// Every reader by every endpoint, in rooms whose visibility is `first`, and then any other.
async fn read_all(first: &'static str) {
    let mut cases = vec![Case { first, second: None }];
    for when in [When::BeforeLeaving, When::BeforeComing, When::AtTheEnd] {
        let others = VISIBILITIES.into_iter().filter(|second| *second != first);
        cases.extend(others.map(|second| Case { first, second: Some((when, second)) }));
    }
    // By what is wrong: the first case of it, and how many there are.
    let mut problems: BTreeMap<String, (Case, usize)> = BTreeMap::new();
    for case in cases {
        let stage = Stage::play(case).await;
        for name in READERS {
            let reading = Reading::new(&stage, name);
            for (route, check) in ROWS {
                for problem in reading.check(*check).await {
                    problems.entry(format!("{route}: {problem}")).or_insert((case, 0)).1 += 1;
                }
            }
        }
    }
    let lines =
        problems.iter().map(|(problem, (case, times))| format!("{problem}\n    {times} times, first in {case:?}"));
    let lines: Vec<String> = lines.collect();
    assert!(lines.is_empty(), "{} problems\n{}", lines.len(), lines.join("\n"));
}

#[tokio::test]
async fn world_readable_rooms_show_what_they_may() {
    read_all("world_readable").await;
}

#[tokio::test]
async fn shared_rooms_show_what_they_may() {
    read_all("shared").await;
}

#[tokio::test]
async fn invited_rooms_show_what_they_may() {
    read_all("invited").await;
}

#[tokio::test]
async fn joined_rooms_show_what_they_may() {
    read_all("joined").await;
}

/// A new endpoint is put into one of the tables, or this fails.
#[tokio::test]
async fn every_endpoint_that_reads_is_judged() {
    let world = World::new();
    let covers = |pattern: &str, path: &str| match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => pattern == path,
    };
    let paths = crate::routes::paths();
    let mut wrong = Vec::new();
    for path in &paths {
        let methods = super::coverage::methods(&world, path).await;
        let row = ROWS.iter().any(|(route, _)| route == path);
        for (method, silent, name) in [("GET", SHOWS_NO_EVENTS, "SHOWS_NO_EVENTS"), ("POST", WRITES, "WRITES")] {
            let has = methods.iter().any(|known| known == method);
            let silent = silent.iter().any(|(pattern, _)| covers(pattern, path));
            if has && row == silent {
                wrong.push(format!("{method} {path} must be in ROWS or in {name}"));
            }
        }
    }
    let known = |pattern: &str| paths.iter().any(|path| covers(pattern, path));
    let silent = SHOWS_NO_EVENTS.iter().chain(WRITES).map(|(pattern, _)| *pattern);
    let gone = ROWS.iter().map(|(route, _)| *route).chain(silent);
    wrong.extend(gone.filter(|pattern| !known(pattern)).map(|pattern| format!("{pattern} is no endpoint")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
