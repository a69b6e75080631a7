//! Events and states of rooms.

use super::*;

#[tokio::test]
async fn a_member_reads_events_states_and_what_they_stand_on() {
    let (world, friend) = (World::new().await, Other::friend());
    let room = world.room_with("11", Preset::PublicChat, &[]).await;
    friend.join(&world, &room, "olga").await;
    let said = world.say(&room, "hello").await;
    let event = friend.get(&world, &format!("{V1}/event/{}", pct(said.as_str()))).await.ok();
    assert_eq!(event["origin"], "hs.test");
    assert_eq!(event["pdus"][0]["content"]["body"], "hello");
    assert!(event["pdus"][0]["signatures"]["hs.test"].is_object() && event["pdus"][0].get("unsigned").is_none());

    let state = friend.get(&world, &about("state", &room, &said)).await.ok();
    let mut kinds = types(&state["pdus"]);
    kinds.sort_unstable();
    let expected = [
        "m.room.create",
        "m.room.history_visibility",
        "m.room.join_rules",
        "m.room.member",
        "m.room.member",
        "m.room.power_levels",
    ];
    assert_eq!(kinds.iter().filter(|kind| expected.contains(kind)).count(), expected.len(), "{kinds:?}");
    assert!(types(&state["auth_chain"]).contains(&"m.room.create"));

    let ids = friend.get(&world, &about("state_ids", &room, &said)).await.ok();
    assert_eq!(ids["pdu_ids"].as_array().unwrap().len(), kinds.len());
    assert_eq!(ids["auth_chain_ids"].as_array().unwrap().len(), state["auth_chain"].as_array().unwrap().len());
    let path = format!("{V1}/event_auth/{}/{}", pct(room.as_str()), pct(said.as_str()));
    let chain = friend.get(&world, &path).await.ok();
    let mut chain = types(&chain["auth_chain"]);
    chain.sort_unstable();
    assert_eq!(chain, ["m.room.create", "m.room.member", "m.room.power_levels"]);
}

#[tokio::test]
async fn an_event_of_another_room_is_as_absent_as_none() {
    let (world, friend) = (World::new().await, Other::friend());
    let (theirs, secret) = (world.room(Preset::PublicChat).await, world.room(Preset::PrivateChat).await);
    friend.join(&world, &theirs, "olga").await;
    let hidden = world.say(&secret, "secret").await;
    let none = OwnedEventId::try_from("$0123456789012345678901234567890123456789012").unwrap();
    let body = |answer: Answer| (answer.status, answer.body);
    for endpoint in ["state", "state_ids"] {
        let foreign = friend.get(&world, &about(endpoint, &theirs, &hidden)).await;
        assert_eq!(foreign.verdict(), (404, "M_NOT_FOUND"), "{endpoint}");
        assert_eq!(body(foreign), body(friend.get(&world, &about(endpoint, &theirs, &none)).await), "{endpoint}");
    }
    for path in [format!("{V1}/event"), format!("{V1}/event_auth/{}", pct(theirs.as_str()))] {
        let foreign = friend.get(&world, &format!("{path}/{}", pct(hidden.as_str()))).await;
        assert_eq!(foreign.verdict(), (404, "M_NOT_FOUND"), "{path}");
        assert_eq!(body(foreign), body(friend.get(&world, &format!("{path}/{}", pct(none.as_str()))).await), "{path}");
    }
    // Walks neither begin nor end in another room.
    let path = format!("{V1}/backfill/{}?limit=50&v={}", pct(theirs.as_str()), pct(hidden.as_str()));
    assert_eq!(friend.get(&world, &path).await.ok()["pdus"], json!([]));
    let path = format!("{V1}/get_missing_events/{}", pct(theirs.as_str()));
    let missing = json!({"latest_events": [hidden], "earliest_events": []});
    assert_eq!(friend.post(&world, &path, missing).await.ok()["events"], json!([]));
    // Through the room itself a server that is not in it learns no more.
    assert_eq!(friend.get(&world, &about("state", &secret, &hidden)).await.verdict(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn of_a_room_that_was_left_what_was_is_served_to_those_who_were_there() {
    let (world, friend, stranger) = (World::new().await, Other::friend(), Other::mallory());
    let room = world.room_with("11", Preset::PublicChat, &[]).await;
    friend.join(&world, &room, "olga").await;
    let said = world.say(&room, "hello").await;
    let left = world.leave(&room).await;
    let paths = [
        format!("{V1}/event/{}", pct(said.as_str())),
        about("state", &room, &said),
        about("state_ids", &room, &left),
        format!("{V1}/event_auth/{}/{}", pct(room.as_str()), pct(left.as_str())),
        format!("{V1}/backfill/{}?limit=5&v={}", pct(room.as_str()), pct(left.as_str())),
    ];
    for path in &paths {
        friend.get(&world, path).await.ok();
        assert_ne!(stranger.get(&world, path).await.verdict().0, 200, "{path}");
    }
    let path = format!("{V1}/get_missing_events/{}", pct(room.as_str()));
    let missing = json!({"latest_events": [left], "earliest_events": [], "limit": 1});
    let found = friend.post(&world, &path, missing).await.ok();
    assert_eq!(found["events"][0]["content"]["body"], "hello");
    // What the room is now, this server does not know.
    let path = format!("{V1}/timestamp_to_event/{}?ts=0&dir=f", pct(room.as_str()));
    assert_eq!(friend.get(&world, &path).await.verdict(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn walks_are_as_long_as_they_may_be_and_no_longer() {
    let (world, friend) = (World::new().await, Other::friend());
    let room = world.room(Preset::PublicChat).await;
    friend.join(&world, &room, "olga").await;
    let mut said = Vec::new();
    for i in 0..130 {
        said.push(world.say(&room, &format!("{i}")).await);
    }
    let last = said.last().unwrap();
    let backfill = |limit: u64| format!("{V1}/backfill/{}?limit={limit}&v={}", pct(room.as_str()), pct(last.as_str()));
    let page = friend.get(&world, &backfill(1_000_000_000)).await.ok();
    let bodies: Vec<&str> =
        page["pdus"].as_array().unwrap().iter().filter_map(|e| e["content"]["body"].as_str()).collect();
    let expected: Vec<String> = (30..130).rev().map(|i| i.to_string()).collect();
    assert_eq!(bodies, expected, "newest first, a hundred of them");
    assert_eq!(friend.get(&world, &backfill(2)).await.ok()["pdus"].as_array().unwrap().len(), 2);
    assert_eq!(friend.get(&world, &format!("{V1}/backfill/{}?limit=5", pct(room.as_str()))).await.verdict().0, 400);

    let path = format!("{V1}/get_missing_events/{}", pct(room.as_str()));
    let ask = |limit: u64, min_depth: u64| json!({"latest_events": [last], "earliest_events": [said[100]], "limit": limit, "min_depth": min_depth});
    let found = friend.post(&world, &path, ask(1_000_000_000, 0)).await.ok();
    let bodies: Vec<&str> =
        found["events"].as_array().unwrap().iter().map(|e| e["content"]["body"].as_str().unwrap()).collect();
    let expected: Vec<String> = (109..129).map(|i| i.to_string()).collect();
    assert_eq!(bodies, expected, "oldest first, twenty of them, without the ends");
    let near = json!({"latest_events": [last], "earliest_events": [said[125]]});
    assert_eq!(friend.post(&world, &path, near).await.ok()["events"].as_array().unwrap().len(), 3);
    let depth = found["events"][17]["depth"].as_u64().unwrap();
    assert_eq!(friend.post(&world, &path, ask(20, depth)).await.ok()["events"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn what_was_said_before_a_server_came_is_shown_by_the_rooms_rule() {
    for (visibility, shown) in [("world_readable", true), ("shared", true), ("invited", false), ("joined", false)] {
        let (world, friend) = (World::new().await, Other::friend());
        let state = [("m.room.history_visibility", json!({"history_visibility": visibility}))];
        let room = world.room_with("12", Preset::PublicChat, &state).await;
        let before = world.say(&room, "before").await;
        friend.join(&world, &room, "olga").await;
        let after = world.say(&room, "after").await;
        let body = async |event: &EventId| {
            let answer = friend.get(&world, &format!("{V1}/event/{}", pct(event.as_str()))).await.ok();
            answer["pdus"][0]["content"]["body"].as_str().map(str::to_owned)
        };
        assert_eq!(body(&before).await, shown.then(|| "before".to_owned()), "{visibility}");
        assert_eq!(body(&after).await.as_deref(), Some("after"), "{visibility}");
        let path = format!("{V1}/backfill/{}?limit=9&v={}", pct(room.as_str()), pct(after.as_str()));
        let page = friend.get(&world, &path).await.ok().to_string();
        assert_eq!(page.contains("before"), shown, "{visibility}");
        assert!(page.contains("after"), "{visibility}");
        // Outside, only what everybody may read.
        let outside = Other::mallory().get(&world, &format!("{V1}/event/{}", pct(before.as_str()))).await;
        let expected = if visibility == "world_readable" { 200 } else { 404 };
        assert_eq!(outside.status.as_u16(), expected, "{visibility}");
    }
}

#[tokio::test]
async fn a_server_that_the_room_keeps_out_gets_nothing() {
    let (world, mallory) = (World::new().await, Other::mallory());
    let room = world.room(Preset::PublicChat).await;
    mallory.join(&world, &room, "eve").await;
    let said = world.say(&room, "hello").await;
    let user = mallory.user("eve2");
    let join = mallory.member(&world, &room, &user, json!({"membership": "join"})).await;
    world.set(&room, "m.room.server_acl", json!({"allow": ["*"], "deny": ["MAL.*"]})).await;
    let in_room = pct(room.as_str());
    let denied = (403, "M_FORBIDDEN");
    let event = pct(said.as_str());
    for path in [
        about("state", &room, &said),
        about("state_ids", &room, &said),
        format!("{V1}/event_auth/{in_room}/{event}"),
        format!("{V1}/backfill/{in_room}?limit=5&v={event}"),
        format!("{V1}/timestamp_to_event/{in_room}?ts=0&dir=f"),
        format!("{V1}/make_join/{in_room}/{}?ver=12", pct(user.as_str())),
        format!("{V1}/make_leave/{in_room}/{}", pct(mallory.user("eve").as_str())),
        format!("{V1}/make_knock/{in_room}/{}?ver=12", pct(user.as_str())),
    ] {
        assert_eq!(mallory.get(&world, &path).await.verdict(), denied, "{path}");
    }
    let missing = json!({"latest_events": [said], "earliest_events": []});
    assert_eq!(mallory.post(&world, &format!("{V1}/get_missing_events/{in_room}"), missing).await.verdict(), denied);
    for endpoint in ["v1/send_join", "v2/send_join", "v1/send_leave", "v2/send_leave", "v1/send_knock"] {
        let endpoint = format!("/_matrix/federation/{endpoint}");
        assert_eq!(mallory.hand_in(&world, &endpoint, &room, &join).await.verdict(), denied, "{endpoint}");
    }
    assert_eq!(mallory.get(&world, &format!("{V1}/event/{event}")).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(world.membership(&room, user.as_str()).await, None);
    // A list that lets nobody in is none that lets everybody in.
    world.set(&room, "m.room.server_acl", json!({"deny": []})).await;
    assert_eq!(mallory.get(&world, &about("state", &room, &said)).await.verdict(), denied);
    world.set(&room, "m.room.server_acl", json!({"allow": ["*"]})).await;
    assert_eq!(mallory.get(&world, &about("state", &room, &said)).await.verdict(), (200, ""));
}

#[tokio::test]
async fn a_room_that_everybody_here_has_left_lets_nobody_in() {
    let (world, friend) = (World::new().await, Other::friend());
    let room = world.room(Preset::PublicChat).await;
    friend.join(&world, &room, "olga").await;
    let user = friend.user("otto");
    let join = friend.member(&world, &room, &user, json!({"membership": "join"})).await;
    world.leave(&room).await;
    let unknown = (404, "M_NOT_FOUND");
    let path = format!("{V1}/make_join/{}/{}?ver=12", pct(room.as_str()), pct(user.as_str()));
    assert_eq!(friend.get(&world, &path).await.verdict(), unknown);
    assert_eq!(friend.hand_in(&world, &format!("{V2}/send_join"), &room, &join).await.verdict(), unknown);
    assert_eq!(world.membership(&room, user.as_str()).await, None);
}

#[tokio::test]
async fn the_event_nearest_to_a_time_is_named() {
    let (world, friend) = (World::new().await, Other::friend());
    let room = world.room(Preset::PublicChat).await;
    friend.join(&world, &room, "olga").await;
    let mut said = Vec::new();
    for _ in 0..3 {
        world.clock.advance(std::time::Duration::from_secs(10));
        said.push((world.clock.now().0, world.say(&room, "x").await));
    }
    let path = |ts: u64, dir: &str| format!("{V1}/timestamp_to_event/{}?ts={ts}&dir={dir}", pct(room.as_str()));
    let (time, event) = &said[1];
    for (ts, dir) in [(time - 5_000, "f"), (*time, "f"), (*time, "b"), (time + 5_000, "b")] {
        let found = friend.get(&world, &path(ts, dir)).await.ok();
        assert_eq!(found, json!({"event_id": event, "origin_server_ts": time}), "{ts} {dir}");
    }
    assert_eq!(friend.get(&world, &path(said[2].0 + 1, "f")).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(friend.get(&world, &path(1, "x")).await.verdict(), (400, "M_INVALID_PARAM"));
}
