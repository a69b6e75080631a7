//! Room upgrades.

use super::*;

async fn state(world: &World, room: &str, by: &Person, key: &str) -> Value {
    world.get(&in_room(room, &format!("state/{key}")), by).await.ok()
}

async fn set(world: &World, room: &str, by: &Person, key: &str, content: Value) {
    world.put(&in_room(room, &format!("state/{key}")), by, content).await.ok();
}

async fn upgrade(world: &World, room: &str, by: &Person, body: Value) -> String {
    let answer = world.post(&in_room(room, "upgrade"), by, body).await.ok();
    answer["replacement_room"].as_str().unwrap().to_owned()
}

async fn join(world: &World, room: &str, by: &Person) {
    world.post(&in_room(room, "join"), by, json!({})).await.ok();
}

#[tokio::test]
async fn an_upgrade_carries_the_room_along() {
    let world = World::new();
    let (ann, bob, eve) = (world.register("ann").await, world.register("bob").await, world.register("eve").await);
    let old = world
        .create_room(
            &ann,
            json!({
                "room_version": "10", "preset": "public_chat", "visibility": "public", "name": "Garden",
                "topic": "Roses", "room_alias_name": "garden", "creation_content": {"type": "x.plot"},
                "initial_state": [{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}},
                                  {"type": "x.private", "content": {"a": 1}}],
            }),
        )
        .await;
    join(&world, &old, &bob).await;
    let levels = json!({"users": {(&ann.id): 100, (&bob.id): 50}, "events": {"m.room.name": 60}});
    set(&world, &old, &ann, "m.room.power_levels", levels).await;
    world.post(&in_room(&old, "ban"), &ann, json!({"user_id": eve.id, "reason": "spam"})).await.ok();

    let new = upgrade(&world, &old, &ann, json!({"new_version": "11"})).await;
    let create = state(&world, &new, &ann, "m.room.create").await;
    assert_eq!((&create["room_version"], &create["type"]), (&json!("11"), &json!("x.plot")));
    assert_eq!(create["predecessor"]["room_id"], old);
    assert!(create["predecessor"]["event_id"].as_str().unwrap().starts_with('$'), "{create}");
    let tombstone = state(&world, &old, &ann, "m.room.tombstone").await;
    assert_eq!(tombstone["replacement_room"], new);
    for key in ["m.room.name", "m.room.topic", "m.room.join_rules", "m.room.history_visibility", "m.room.encryption"] {
        assert_eq!(state(&world, &new, &ann, key).await, state(&world, &old, &ann, key).await, "{key}");
    }
    assert_eq!(world.get(&in_room(&new, "state/x.private"), &ann).await.verdict(), (404, "M_NOT_FOUND"));
    let levels = state(&world, &new, &ann, "m.room.power_levels").await;
    let wanted = json!({"users": {(&ann.id): 100, (&bob.id): 50}, "events": {"m.room.name": 60}});
    assert_eq!(levels, wanted);
    let eves = state(&world, &new, &ann, &format!("m.room.member/{}", pct(&eve.id))).await;
    assert_eq!(eves, json!({"membership": "ban", "reason": "spam"}));

    // What led to the old room leads to the new one.
    let alias = world.get(&format!("/directory/room/{}", pct("#garden:hs.test")), &bob).await.ok();
    assert_eq!(alias["room_id"], new);
    assert_eq!(world.get(&in_room(&old, "aliases"), &ann).await.ok(), json!({"aliases": []}));
    assert_eq!(world.get(&in_room(&new, "aliases"), &ann).await.ok(), json!({"aliases": ["#garden:hs.test"]}));
    assert_eq!(state(&world, &new, &ann, "m.room.canonical_alias").await, json!({"alias": "#garden:hs.test"}));
    assert_eq!(state(&world, &old, &ann, "m.room.canonical_alias").await, json!({}));
    let listing = async |room: &str| {
        world.get(&format!("/directory/list/room/{}", pct(room)), &ann).await.ok()["visibility"].clone()
    };
    assert_eq!((listing(&old).await, listing(&new).await), (json!("private"), json!("public")));

    // The old room is closed to all but moderators.
    let levels = state(&world, &old, &ann, "m.room.power_levels").await;
    assert_eq!((&levels["events_default"], &levels["invite"]), (&json!(50), &json!(50)));
    join(&world, &new, &bob).await;
    assert_eq!(world.post(&in_room(&new, "join"), &eve, json!({})).await.verdict(), (403, "M_FORBIDDEN"));

    // Asking again gives the same room; asking for another version another one.
    assert_eq!(upgrade(&world, &old, &ann, json!({"new_version": "11"})).await, new);
    assert_ne!(upgrade(&world, &old, &ann, json!({"new_version": "9"})).await, new);
}

#[tokio::test]
async fn version_12_knows_creators_instead_of_levels() {
    let world = World::new();
    let (ann, bob, cat) = (world.register("ann").await, world.register("bob").await, world.register("cat").await);
    let old = world.create_room(&ann, json!({"room_version": "11", "preset": "public_chat"})).await;
    for person in [&bob, &cat] {
        join(&world, &old, person).await;
    }
    let levels = json!({"users": {(&ann.id): 100, (&bob.id): 100, (&cat.id): 50}});
    set(&world, &old, &ann, "m.room.power_levels", levels).await;
    let body = json!({"new_version": "12", "additional_creators": [bob.id, ann.id, bob.id]});
    let new = upgrade(&world, &old, &ann, body).await;
    let create = state(&world, &new, &ann, "m.room.create").await;
    assert_eq!(create["additional_creators"], json!([bob.id]));
    assert_eq!(create["predecessor"], json!({"room_id": old}), "no event ID from version 12 on");
    assert_eq!(state(&world, &new, &ann, "m.room.power_levels").await["users"], json!({(&cat.id): 50}));
    join(&world, &new, &bob).await;
    set(&world, &new, &bob, "m.room.name", json!({"name": "Bob's"})).await;

    // Neither creator is carried into the next room, and who asks for it need not be one.
    set(&world, &new, &ann, "m.room.power_levels", json!({"users": {(&cat.id): 150}})).await;
    join(&world, &new, &cat).await;
    let next = upgrade(&world, &new, &cat, json!({"new_version": "12"})).await;
    assert_eq!(state(&world, &next, &cat, "m.room.power_levels").await["users"], json!({}));
    let create = state(&world, &next, &cat, "m.room.create").await;
    assert_eq!(create.get("additional_creators"), None);

    // Back to a version that has no creators, they are admins.
    let back = upgrade(&world, &next, &cat, json!({"new_version": "11"})).await;
    assert_eq!(state(&world, &back, &cat, "m.room.power_levels").await["users"], json!({(&cat.id): 100}));
}

#[tokio::test]
async fn an_upgrade_is_refused_whole() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let path = in_room(&room, "upgrade");
    for (by, body, wanted) in [
        (&ann, json!({"new_version": "99"}), (400, "M_UNSUPPORTED_ROOM_VERSION")),
        (&ann, json!({}), (400, "M_MISSING_PARAM")),
        (&ann, json!({"new_version": 12}), (400, "M_BAD_JSON")),
        (&ann, json!({"new_version": "12", "additional_creators": ["bob"]}), (400, "M_BAD_JSON")),
        (&bob, json!({"new_version": "12"}), (403, "M_FORBIDDEN")),
    ] {
        assert_eq!(world.post(&path, by, body.clone()).await.verdict(), wanted, "{body}");
    }
    join(&world, &room, &bob).await;
    assert_eq!(world.post(&path, &bob, json!({"new_version": "12"})).await.verdict(), (403, "M_FORBIDDEN"));
    let unknown = in_room("!nowhere:hs.test", "upgrade");
    assert_eq!(world.post(&unknown, &ann, json!({"new_version": "12"})).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.get("/joined_rooms", &bob).await.ok(), json!({"joined_rooms": [room]}));
    assert_eq!(world.get(&in_room(&room, "state/m.room.tombstone"), &ann).await.verdict(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn a_space_keeps_its_rooms() {
    let world = World::new();
    let ann = world.register("ann").await;
    let space = world.create_room(&ann, json!({"creation_content": {"type": "m.space"}})).await;
    for (child, content) in [("!in:hs.test", json!({"via": ["hs.test"]})), ("!out:hs.test", json!({}))] {
        set(&world, &space, &ann, &format!("m.space.child/{}", pct(child)), content).await;
    }
    let new = upgrade(&world, &space, &ann, json!({"new_version": "12"})).await;
    let child = async |id: &str| world.get(&in_room(&new, &format!("state/m.space.child/{}", pct(id))), &ann).await;
    assert_eq!(child("!in:hs.test").await.ok(), json!({"via": ["hs.test"]}));
    assert_eq!(child("!out:hs.test").await.verdict(), (404, "M_NOT_FOUND"));
}

/// What somebody keeps of a room: its tags, whether a direct chat is one, ids of the rules about rooms.
async fn kept(world: &World, by: &Person, room: &str) -> Value {
    let base = format!("/user/{}", pct(&by.id));
    let tags = world.get(&format!("{base}/rooms/{}/tags", pct(room)), by).await.ok();
    let direct = world.get(&format!("{base}/account_data/m.direct"), by).await.ok();
    let rules = world.get("/pushrules/", by).await.ok();
    let rule = rules["global"]["room"].as_array().unwrap().iter().find(|rule| rule["rule_id"] == room).cloned();
    json!({"tags": tags["tags"], "direct": direct["@cat:hs.test"], "actions": rule.map(|rule| rule["actions"].clone())})
}

async fn keep(world: &World, by: &Person, room: &str) {
    let base = format!("/user/{}", pct(&by.id));
    world.put(&format!("{base}/rooms/{}/tags/work", pct(room)), by, json!({"order": 0.5})).await.ok();
    world.put(&format!("{base}/account_data/m.direct"), by, json!({"@cat:hs.test": [room]})).await.ok();
    world.put(&format!("/pushrules/global/room/{}", pct(room)), by, json!({"actions": []})).await.ok();
}

async fn until_kept(world: &World, by: &Person, (old, new): (&str, &str)) {
    let wanted = json!({"tags": {"work": {"order": 0.5}}, "direct": [old, new], "actions": []});
    for _ in 0..200 {
        if kept(world, by, new).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} has {}", by.id, kept(world, by, new).await);
}

#[tokio::test]
async fn what_users_keep_of_a_room_follows_them() {
    let world = World::new();
    let (ann, bob, eve) = (world.register("ann").await, world.register("bob").await, world.register("eve").await);
    for by_hand in [false, true] {
        let old = world.create_room(&ann, json!({"preset": "public_chat", "room_version": "10"})).await;
        join(&world, &old, &bob).await;
        for person in [&ann, &bob, &eve] {
            keep(&world, person, &old).await;
        }
        let new = if by_hand {
            let content = json!({"predecessor": {"room_id": old}});
            let new = world.create_room(&ann, json!({"preset": "public_chat", "creation_content": content})).await;
            set(&world, &old, &ann, "m.room.tombstone", json!({"body": "moved", "replacement_room": new})).await;
            new
        } else {
            upgrade(&world, &old, &ann, json!({"new_version": "12"})).await
        };
        join(&world, &new, &eve).await;
        join(&world, &new, &bob).await;
        until_kept(&world, &ann, (&old, &new)).await;
        until_kept(&world, &bob, (&old, &new)).await;
        // Eve was never in the old room, whatever she noted about it.
        assert_eq!(kept(&world, &eve, &new).await, json!({"tags": {}, "direct": [old], "actions": null}));
    }
}

#[tokio::test]
async fn nobody_is_followed_into_a_room_that_the_old_one_does_not_name() {
    let world = World::new();
    let (ann, eve) = (world.register("ann").await, world.register("eve").await);
    let old = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    keep(&world, &ann, &old).await;
    let content = json!({"predecessor": {"room_id": old}});
    let trap = world.create_room(&eve, json!({"preset": "public_chat", "creation_content": content})).await;
    join(&world, &trap, &ann).await;
    // The consumer is behind this by now, or the next upgrade would not be carried.
    let new = upgrade(&world, &old, &ann, json!({"new_version": "12"})).await;
    for _ in 0..200 {
        if kept(&world, &ann, &new).await["actions"] == json!([]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(kept(&world, &ann, &trap).await["tags"], json!({}));
    let direct = world.get(&format!("/user/{}/account_data/m.direct", pct(&ann.id)), &ann).await.ok();
    assert_eq!(direct, json!({"@cat:hs.test": [old, new]}));
}
