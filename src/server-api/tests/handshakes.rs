//! Ways in and out.

use super::*;

#[tokio::test]
async fn a_server_joins_by_the_template_it_is_given() {
    for version in ["1", "3", "6", "10", "11", "12"] {
        let (world, friend) = (World::new().await, Other::friend());
        let room = world.room_with(version, Preset::PublicChat, &[]).await;
        let user = friend.user("olga");
        let path = format!("{V1}/make_join/{}/{}?ver=1&ver={version}", pct(room.as_str()), pct(user.as_str()));
        let made = friend.get(&world, &path).await.ok();
        assert_eq!(made["room_version"], version);
        let template = &made["event"];
        assert_eq!(template["content"], json!({"membership": "join"}));
        assert_eq!((&template["sender"], &template["state_key"]), (&json!(user), &json!(user)));
        assert!(template.get("signatures").is_none() && template.get("hashes").is_none());
        let ids = |key: &str| -> Vec<OwnedEventId> {
            let list = template[key].as_array().unwrap().iter();
            list.map(|id| id.as_str().or(id[0].as_str()).unwrap().try_into().unwrap()).collect()
        };
        let draft = EventDraft {
            room_id: Some(room.clone()),
            event_type: "m.room.member".into(),
            state_key: Some(user.to_string()),
            sender: user.clone(),
            content: object(template["content"].clone()),
            origin_server_ts: NOW.0,
            prev_events: ids("prev_events"),
            auth_events: ids("auth_events"),
            depth: template["depth"].as_u64().unwrap(),
            redacts: None,
        };
        let join = build(draft, RoomVersion::parse(version).unwrap(), &friend.name, &friend.key).unwrap();
        let answer = friend.hand_in(&world, &format!("{V2}/send_join"), &room, &join).await.ok();
        assert_eq!(answer["members_omitted"], false);
        assert_eq!(answer["servers_in_room"], json!(["hs.test"]));
        assert!(
            types(&answer["state"]).contains(&"m.room.create") && types(&answer["state"]).contains(&"m.room.member")
        );
        // From version 12 on, everything stands on the room's creation without saying so.
        assert_eq!(types(&answer["auth_chain"]).contains(&"m.room.create"), version != "12", "{version}");
        assert!(types(&answer["auth_chain"]).contains(&"m.room.member"), "{version}");
        assert_eq!(world.membership(&room, user.as_str()).await, Some("join"), "{version}");
        // The same once more is as good.
        let again = friend.hand_in(&world, &format!("{V2}/send_join"), &room, &join).await.ok();
        assert_eq!(types(&again["state"]).len(), types(&answer["state"]).len());
    }
}

#[tokio::test]
async fn the_first_version_of_the_answers_is_a_list() {
    let (world, friend) = (World::new().await, Other::friend());
    let room = world.room(Preset::PublicChat).await;
    let user = friend.user("olga");
    let join = friend.member(&world, &room, &user, json!({"membership": "join"})).await;
    let answer = friend.hand_in(&world, &format!("{V1}/send_join"), &room, &join).await.ok();
    assert_eq!(answer[0], 200);
    assert!(types(&answer[1]["state"]).contains(&"m.room.create"));
    let leave = friend.member(&world, &room, &user, json!({"membership": "leave"})).await;
    let answer = friend.hand_in(&world, &format!("{V1}/send_leave"), &room, &leave).await.ok();
    assert_eq!(answer, json!([200, {}]));
    assert_eq!(world.membership(&room, user.as_str()).await, Some("leave"));
}

#[tokio::test]
async fn members_are_left_out_if_the_server_wants_that() {
    let (world, friend, mallory) = (World::new().await, Other::friend(), Other::mallory());
    let room = world.room(Preset::PublicChat).await;
    for i in 0..8 {
        friend.join(&world, &room, &format!("o{i}")).await;
    }
    let join = mallory.member(&world, &room, &mallory.user("eve"), json!({"membership": "join"})).await;
    let path = format!("{V2}/send_join/{}/{}?omit_members=true", pct(room.as_str()), pct(join.event_id().as_str()));
    let answer = mallory.put(&world, &path, text(&join)).await.ok();
    assert_eq!(answer["members_omitted"], true);
    assert_eq!(answer["servers_in_room"], json!(["hs.test", "other.test"]));
    let state = types(&answer["state"]);
    assert_eq!(state.iter().filter(|kind| **kind == "m.room.member").count(), 5, "those who stand for its name");
    assert!(state.contains(&"m.room.power_levels"));
    // What is in the state is not told again, and what it stands on is complete.
    let id = |event: &Value| event["hashes"]["sha256"].as_str().unwrap().to_owned();
    let told: Vec<String> = answer["state"].as_array().unwrap().iter().map(id).collect();
    assert!(answer["auth_chain"].as_array().unwrap().iter().all(|event| !told.contains(&id(event))));

    world.set(&room, "m.room.name", json!({"name": "A name"})).await;
    let join = mallory.member(&world, &room, &mallory.user("eva"), json!({"membership": "join"})).await;
    let path = format!("{V2}/send_join/{}/{}?omit_members=true", pct(room.as_str()), pct(join.event_id().as_str()));
    let answer = mallory.put(&world, &path, text(&join)).await.ok();
    assert!(!types(&answer["state"]).contains(&"m.room.member"));
}

#[tokio::test]
async fn templates_are_for_who_may_and_knows_the_version() {
    let (world, friend) = (World::new().await, Other::friend());
    let (open, closed) = (world.room(Preset::PublicChat).await, world.room(Preset::PrivateChat).await);
    let path = |what: &str, room: &RoomId, user: &str, ver: &str| {
        format!("{V1}/{what}/{}/{}{ver}", pct(room.as_str()), pct(user))
    };
    let olga = "@olga:other.test";
    let answer = friend.get(&world, &path("make_join", &open, olga, "?ver=10&ver=11")).await;
    assert_eq!(answer.verdict(), (400, "M_INCOMPATIBLE_ROOM_VERSION"));
    assert_eq!(answer.body["room_version"], "12");
    let unsaid = friend.get(&world, &path("make_join", &open, olga, "")).await;
    assert_eq!(unsaid.verdict(), (400, "M_INCOMPATIBLE_ROOM_VERSION"), "nothing said means version 1");
    let forbidden = (403, "M_FORBIDDEN");
    for (what, room, user) in [
        ("make_join", &closed, olga),
        ("make_join", &open, "@olga:mal.test"),
        ("make_join", &open, "@alice:hs.test"),
        ("make_leave", &open, olga),
        ("make_knock", &open, olga),
        ("make_knock", &closed, olga),
    ] {
        let answer = friend.get(&world, &path(what, room, user, "?ver=12")).await;
        assert_eq!(answer.verdict(), forbidden, "{what} {user}: {}", answer.body);
    }
    let nowhere = OwnedRoomId::try_from("!nowhere:hs.test").unwrap();
    assert_eq!(friend.get(&world, &path("make_join", &nowhere, olga, "?ver=12")).await.verdict(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn nothing_but_the_membership_asked_for_gets_in() {
    let (world, friend, mallory) = (World::new().await, Other::friend(), Other::mallory());
    let (room, other_room) = (world.room(Preset::PublicChat).await, world.room(Preset::PublicChat).await);
    friend.join(&world, &room, "olga").await;
    let (olga, otto, eve) = (friend.user("olga"), friend.user("otto"), mallory.user("eve"));
    let invalid = (400, "M_INVALID_PARAM");
    let message = friend.event(&world, (&room, &olga), ("m.room.message", None), json!({"body": "x"})).await;
    let no_state = friend.event(&world, (&room, &olga), ("m.room.name", Some("")), json!({"name": "x"})).await;
    let mut wrong: Vec<(&str, &str, Pdu)> =
        vec![("v2/send_join", "a message", message.clone()), ("v2/send_leave", "a message", message)];
    wrong.push(("v2/send_join", "other state", no_state));
    for membership in ["leave", "invite", "knock", "ban"] {
        let event = friend.member(&world, &room, &otto, json!({"membership": membership})).await;
        wrong.push(("v1/send_join", membership, event.clone()));
        wrong.push(("v2/send_join", membership, event));
    }
    let join = friend.member(&world, &room, &otto, json!({"membership": "join"})).await;
    wrong.push(("v2/send_leave", "join", join.clone()));
    wrong.push(("v1/send_knock", "join", join.clone()));
    let of = async |key: &str| {
        friend.event(&world, (&room, &otto), ("m.room.member", Some(key)), json!({"membership": "join"})).await
    };
    wrong.push(("v2/send_join", "another state key", of("@eve:other.test").await));
    wrong.push(("v2/send_join", "a state key of ours", of("@alice:hs.test").await));
    wrong.push((
        "v2/send_join",
        "a user of another server",
        mallory.member(&world, &room, &eve, json!({"membership": "join"})).await,
    ));
    let elsewhere = friend.member(&world, &other_room, &otto, json!({"membership": "join"})).await;
    wrong.push(("v2/send_join", "another room", elsewhere));
    for (endpoint, why, event) in wrong {
        let endpoint = format!("/_matrix/federation/{endpoint}");
        let answer = friend.hand_in(&world, &endpoint, &room, &event).await;
        assert_eq!(answer.verdict(), invalid, "{endpoint} {why}: {}", answer.body);
    }
    // Another ID than the event's, an altered event, and no event.
    let path = |id: &EventId| format!("{V2}/send_join/{}/{}", pct(room.as_str()), pct(id.as_str()));
    let other_id = OwnedEventId::try_from("$0123456789012345678901234567890123456789012").unwrap();
    assert_eq!(friend.put(&world, &path(&other_id), text(&join)).await.verdict(), invalid);
    let unsigned = text(&join).replace("other.test\":{\"ed25519:1\":\"", "other.test\":{\"ed25519:1\":\"AAAA");
    assert_eq!(friend.put(&world, &path(join.event_id()), &unsigned).await.verdict(), invalid);
    assert_eq!(friend.put(&world, &path(join.event_id()), "{}").await.verdict(), invalid);
    for user in [&otto, &eve] {
        assert_eq!(world.membership(&room, user.as_str()).await, None);
        assert_eq!(world.membership(&other_room, user.as_str()).await, None);
    }
}

#[tokio::test]
async fn who_is_banned_stays_out_whatever_the_template_said() {
    let (world, friend) = (World::new().await, Other::friend());
    let room = world.room(Preset::PublicChat).await;
    let olga = friend.user("olga");
    let join = friend.member(&world, &room, &olga, json!({"membership": "join"})).await;
    world.event(&room, ("m.room.member", Some(olga.as_str())), json!({"membership": "ban"})).await;
    let answer = friend.hand_in(&world, &format!("{V2}/send_join"), &room, &join).await;
    assert_eq!(answer.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.membership(&room, olga.as_str()).await, Some("ban"));
}

#[tokio::test]
async fn whoever_knocks_is_shown_the_room_and_can_go_again() {
    let (world, friend) = (World::new().await, Other::friend());
    let state = [("m.room.join_rules", json!({"join_rule": "knock"})), ("m.room.name", json!({"name": "Behind"}))];
    let room = world.room_with("12", Preset::PrivateChat, &state).await;
    let olga = friend.user("olga");
    let path = format!("{V1}/make_knock/{}/{}?ver=12", pct(room.as_str()), pct(olga.as_str()));
    assert_eq!(friend.get(&world, &path).await.ok()["event"]["content"]["membership"], "knock");
    let knock = friend.member(&world, &room, &olga, json!({"membership": "knock", "reason": "please"})).await;
    let shown = friend.hand_in(&world, &format!("{V1}/send_knock"), &room, &knock).await.ok();
    let shown = types(&shown["knock_room_state"]);
    assert_eq!(shown, ["m.room.create", "m.room.join_rules", "m.room.name"]);
    assert_eq!(world.membership(&room, olga.as_str()).await, Some("knock"));
    let path = format!("{V1}/make_leave/{}/{}", pct(room.as_str()), pct(olga.as_str()));
    assert_eq!(friend.get(&world, &path).await.ok()["event"]["content"], json!({"membership": "leave"}));
    let leave = friend.member(&world, &room, &olga, json!({"membership": "leave"})).await;
    assert_eq!(friend.hand_in(&world, &format!("{V2}/send_leave"), &room, &leave).await.ok(), json!({}));
    assert_eq!(world.membership(&room, olga.as_str()).await, Some("leave"));
}

/// A space of alice's, and a room whose members are the space's.
async fn restricted(world: &World) -> (OwnedRoomId, OwnedRoomId) {
    let space = world.room(Preset::PublicChat).await;
    let allow = json!([{"type": "m.room_membership", "room_id": space}]);
    let state = [("m.room.join_rules", json!({"join_rule": "restricted", "allow": allow}))];
    let room = world.room_with("10", Preset::PrivateChat, &state).await;
    (space, room)
}

#[tokio::test]
async fn members_of_the_allowed_room_join_on_the_word_of_one_of_ours() {
    let (world, friend) = (World::new().await, Other::friend());
    let (space, room) = restricted(&world).await;
    let olga = friend.user("olga");
    let path = format!("{V1}/make_join/{}/{}?ver=10", pct(room.as_str()), pct(olga.as_str()));
    assert_eq!(friend.get(&world, &path).await.verdict(), (403, "M_FORBIDDEN"));
    let content = json!({"membership": "join", "join_authorised_via_users_server": "@alice:hs.test"});
    let early = friend.member(&world, &room, &olga, content.clone()).await;
    let answer = friend.hand_in(&world, &format!("{V2}/send_join"), &room, &early).await;
    assert_eq!(answer.verdict(), (403, "M_FORBIDDEN"), "not a member of the space");

    friend.join(&world, &space, "olga").await;
    let made = friend.get(&world, &path).await.ok();
    assert_eq!(made["event"]["content"], content);
    // On the word of somebody who cannot give it, or of nobody.
    for by in ["@nobody:hs.test", "@olga:other.test"] {
        let content = json!({"membership": "join", "join_authorised_via_users_server": by});
        let join = friend.member(&world, &room, &olga, content).await;
        let answer = friend.hand_in(&world, &format!("{V2}/send_join"), &room, &join).await;
        assert!(matches!(answer.status.as_u16(), 400 | 403), "{by}: {}", answer.body);
    }
    let bare = friend.member(&world, &room, &olga, json!({"membership": "join"})).await;
    let answer = friend.hand_in(&world, &format!("{V2}/send_join"), &room, &bare).await;
    assert_eq!(answer.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.membership(&room, olga.as_str()).await, None);

    let join = friend.member(&world, &room, &olga, content).await;
    let answer = friend.hand_in(&world, &format!("{V2}/send_join"), &room, &join).await.ok();
    let signers: Vec<&String> = answer["event"]["signatures"].as_object().unwrap().keys().collect();
    assert_eq!(signers, ["hs.test", "other.test"]);
    assert_eq!(world.membership(&room, olga.as_str()).await, Some("join"));
}

#[tokio::test]
async fn a_server_that_cannot_tell_or_grant_says_so() {
    let (world, friend) = (World::new().await, Other::friend());
    let allow = json!([{"type": "m.room_membership", "room_id": "!elsewhere:far.test"}]);
    let state = [("m.room.join_rules", json!({"join_rule": "restricted", "allow": allow}))];
    let unknown = world.room_with("10", Preset::PrivateChat, &state).await;
    let path = |room: &RoomId| format!("{V1}/make_join/{}/{}?ver=10", pct(room.as_str()), pct("@olga:other.test"));
    assert_eq!(friend.get(&world, &path(&unknown)).await.verdict(), (400, "M_UNABLE_TO_AUTHORISE_JOIN"));

    let (space, room) = restricted(&world).await;
    friend.join(&world, &space, "olga").await;
    let levels = json!({"invite": 100, "users": {"@alice:hs.test": 99}, "state_default": 50});
    world.set(&room, "m.room.power_levels", levels).await;
    assert_eq!(friend.get(&world, &path(&room)).await.verdict(), (400, "M_UNABLE_TO_GRANT_JOIN"));
    let content = json!({"membership": "join", "join_authorised_via_users_server": "@alice:hs.test"});
    let join = friend.member(&world, &room, &friend.user("olga"), content).await;
    let answer = friend.hand_in(&world, &format!("{V2}/send_join"), &room, &join).await;
    assert_eq!(answer.verdict(), (400, "M_UNABLE_TO_GRANT_JOIN"), "nothing is signed");
}

/// In a room that anybody may join, nobody's word is asked for, and so none is given.
#[tokio::test]
async fn nothing_is_signed_for_a_room_that_asks_for_no_word() {
    let (world, friend) = (World::new().await, Other::friend());
    let room = world.room_with("10", Preset::PublicChat, &[]).await;
    let content = json!({"membership": "join", "join_authorised_via_users_server": "@alice:hs.test"});
    let join = friend.member(&world, &room, &friend.user("olga"), content).await;
    let answer = friend.hand_in(&world, &format!("{V2}/send_join"), &room, &join).await;
    assert_eq!(answer.verdict(), (400, "M_UNABLE_TO_GRANT_JOIN"));
    assert_eq!(world.membership(&room, "@olga:other.test").await, None);
}
