//! Who gets into rooms and how, and what else rooms refuse or follow up.

use super::*;

async fn join(world: &World, room: &str, by: &Person) -> Answer {
    world.post(&in_room(room, "join"), by, json!({})).await
}

async fn member(world: &World, room: &str, by: &Person, of: &Person) -> Value {
    world.get(&in_room(room, &format!("state/m.room.member/{}", pct(&of.id))), by).await.ok()
}

fn restricted(rule: &str, allow: &Value) -> Value {
    let rules = json!({"join_rule": rule, "allow": allow});
    json!({"preset": "public_chat", "initial_state": [{"type": "m.room.join_rules", "content": rules}]})
}

fn members_of(room: &str) -> Value {
    json!({"type": "m.room_membership", "room_id": room, "via": ["hs.test"]})
}

#[tokio::test]
async fn members_of_the_allowed_room_get_into_a_restricted_one() {
    for (version, rule) in [("8", "restricted"), ("10", "knock_restricted"), ("12", "restricted")] {
        let world = World::new();
        let (ann, bob) = (world.register("ann").await, world.register("bob").await);
        let allowed = world.create_room(&ann, json!({"preset": "public_chat"})).await;
        let mut body = restricted(rule, &json!([members_of(&allowed)]));
        body["room_version"] = version.into();
        let room = world.create_room(&ann, body).await;
        assert_eq!(join(&world, &room, &bob).await.verdict(), (403, "M_FORBIDDEN"), "version {version}");

        join(&world, &allowed, &bob).await.ok();
        join(&world, &room, &bob).await.ok();
        let joined = member(&world, &room, &bob, &bob).await;
        assert_eq!(joined["join_authorised_via_users_server"], ann.id, "version {version}");

        // Who is in needs nobody's word, and cannot make one up.
        let path = in_room(&room, &format!("state/m.room.member/{}", pct(&bob.id)));
        let content = json!({"membership": "join", "displayname": "B", "join_authorised_via_users_server": "unused"});
        world.put(&path, &bob, content).await.ok();
        let now = member(&world, &room, &bob, &bob).await;
        assert_eq!(now, json!({"membership": "join", "displayname": "B"}), "version {version}");

        for left in [&room, &allowed] {
            world.post(&in_room(left, "leave"), &bob, json!({})).await.ok();
        }
        assert_eq!(join(&world, &room, &bob).await.verdict(), (403, "M_FORBIDDEN"), "version {version}");
        let by_state = world.put(&path, &bob, json!({"membership": "join"})).await;
        assert_eq!(by_state.verdict(), (403, "M_FORBIDDEN"), "version {version}");
        world.post(&in_room(&room, "invite"), &ann, json!({"user_id": bob.id})).await.ok();
        join(&world, &room, &bob).await.ok();
    }
}

#[tokio::test]
async fn a_restricted_room_says_why_it_lets_nobody_in() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let allowed = world.create_room(&bob, json!({})).await;
    for (allow, wanted) in [
        (json!(["invalid"]), (403, "M_FORBIDDEN")),
        (json!("invalid"), (403, "M_FORBIDDEN")),
        (json!([{"type": "other", "room_id": allowed}]), (403, "M_FORBIDDEN")),
        (json!([members_of("!far:away.test")]), (400, "M_UNABLE_TO_AUTHORISE_JOIN")),
    ] {
        let room = world.create_room(&ann, restricted("restricted", &allow)).await;
        assert_eq!(join(&world, &room, &bob).await.verdict(), wanted, "{allow}");
    }
    // Nobody is left who may invite.
    let mut body = restricted("restricted", &json!([members_of(&allowed)]));
    body["room_version"] = "11".into();
    let room = world.create_room(&ann, body).await;
    world.post(&in_room(&room, "leave"), &ann, json!({})).await.ok();
    assert_eq!(join(&world, &room, &bob).await.verdict(), (400, "M_UNABLE_TO_GRANT_JOIN"));
}

#[tokio::test]
async fn anybody_who_may_invite_is_good_for_a_restricted_join() {
    let world = World::new();
    let (ann, bob, cat) = (world.register("ann").await, world.register("bob").await, world.register("cat").await);
    let allowed = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let mut body = restricted("restricted", &json!([members_of(&allowed)]));
    body["room_version"] = "11".into();
    body["power_level_content_override"] = json!({"invite": 0});
    let room = world.create_room(&ann, body).await;
    for person in [&bob, &cat] {
        join(&world, &allowed, person).await.ok();
    }
    join(&world, &room, &bob).await.ok();
    world.post(&in_room(&room, "leave"), &ann, json!({})).await.ok();
    join(&world, &room, &cat).await.ok();
    let joined = member(&world, &room, &cat, &cat).await;
    assert_eq!(joined["join_authorised_via_users_server"], bob.id, "no power level of his own");
}

#[tokio::test]
async fn what_a_client_says_when_it_enters_is_kept() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat", "room_alias_name": "open"})).await;
    let name = format!("/profile/{}/displayname", pct(&bob.id));
    world.put(&name, &bob, json!({"displayname": "bob"})).await.ok();
    let said = json!({"foo": "bar", "reason": "roses", "membership": "ban", "third_party_signed": {"token": "t"}});
    world.post(&format!("/join/{}", pct("#open:hs.test")), &bob, said).await.ok();
    let content = member(&world, &room, &ann, &bob).await;
    assert_eq!(content, json!({"membership": "join", "displayname": "bob", "foo": "bar", "reason": "roses"}));
    for (body, wanted) in [(json!({"reason": 5}), "M_BAD_JSON"), (json!({"a": 1.5}), "M_BAD_JSON")] {
        let answer = world.post(&in_room(&room, "join"), &bob, body.clone()).await;
        assert_eq!(answer.verdict(), (400, wanted), "{body}");
    }
    let knocked = world.create_room(&ann, restricted("knock", &json!([]))).await;
    world.post(&format!("/knock/{}", pct(&knocked)), &bob, json!({"reason": "please", "x": 1})).await.ok();
    let content = member(&world, &knocked, &ann, &bob).await;
    assert_eq!((&content["reason"], &content["x"]), (&json!("please"), &json!(1)));
}

#[tokio::test]
async fn what_no_room_can_hold_is_a_bad_request() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    for version in ["11", "12"] {
        let room = world.create_room(&ann, json!({"room_version": version})).await;
        let body = json!({"room_version": version, "more": 1});
        let answer = world.put(&in_room(&room, "state/m.room.create"), &ann, body).await;
        assert_eq!(answer.verdict(), (400, "M_BAD_JSON"), "version {version}");
    }
    let body = json!({"room_version": "12", "creation_content": {"additional_creators": [bob.id]}});
    let room = world.create_room(&ann, body).await;
    for (user, status) in [(&ann.id, 400), (&bob.id, 400), (&"@cat:hs.test".to_owned(), 200)] {
        let levels = json!({"users": {user: 100}});
        let answer = world.put(&in_room(&room, "state/m.room.power_levels"), &ann, levels).await;
        assert_eq!(answer.status.as_u16(), status, "{user}");
    }
    for (preset, creators) in [
        ("public_chat", json!("not-an-array")),
        ("trusted_private_chat", json!("not-an-array")),
        ("public_chat", json!(["@foo:example.com", 42])),
        ("public_chat", json!(["not-a-user-id"])),
        ("public_chat", json!(["@invalid:dom$ain$.com"])),
    ] {
        let content = json!({"additional_creators": creators});
        let body = json!({"room_version": "12", "preset": preset, "creation_content": content});
        assert_eq!(world.post("/createRoom", &ann, body).await.status.as_u16(), 400, "{creators}");
    }
}

#[tokio::test]
async fn a_removed_alias_leaves_the_canonical_alias_where_its_remover_may() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    join(&world, &room, &bob).await.ok();
    let alias = |name: &str| format!("/directory/room/{}", pct(&format!("#{name}:hs.test")));
    for (name, by) in [("main", &ann), ("other", &ann), ("bobs", &bob)] {
        world.put(&alias(name), by, json!({"room_id": room})).await.ok();
    }
    let canonical = in_room(&room, "state/m.room.canonical_alias");
    let claims = json!({"alias": "#main:hs.test", "alt_aliases": ["#other:hs.test", "#bobs:hs.test"]});
    world.put(&canonical, &ann, claims.clone()).await.ok();

    let delete = async |name: &str, by: &Person| {
        world.raw(Method::DELETE, &format!("{CLIENT}{}", alias(name)), Some(by), "").await
    };
    assert_eq!(delete("main", &bob).await.verdict(), (403, "M_FORBIDDEN"));
    delete("bobs", &bob).await.ok();
    assert_eq!(world.get(&canonical, &ann).await.ok(), claims, "bob may not change it");
    delete("main", &ann).await.ok();
    let left = json!({"alt_aliases": ["#other:hs.test", "#bobs:hs.test"]});
    assert_eq!(world.get(&canonical, &ann).await.ok(), left);
    world.put(&alias("only"), &ann, json!({"room_id": room})).await.ok();
    world.put(&canonical, &ann, json!({"alias": "#only:hs.test"})).await.ok();
    delete("only", &ann).await.ok();
    assert_eq!(world.get(&canonical, &ann).await.ok(), json!({}));
    assert_eq!(delete("only", &ann).await.verdict(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn a_redaction_takes_related_events_with_it() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    join(&world, &room, &bob).await.ok();
    let send = async |by: &Person, txn: &str, relation: Value| {
        let mut content = json!({"msgtype": "m.text", "body": txn});
        if !relation.is_null() {
            content["m.relates_to"] = relation;
        }
        let sent = world.put(&in_room(&room, &format!("send/m.room.message/{txn}")), by, content).await.ok();
        sent["event_id"].as_str().unwrap().to_owned()
    };
    let redacted = async |event: &str| {
        let event = world.get(&in_room(&room, &format!("event/{}", pct(event))), &ann).await.ok();
        event["unsigned"].get("redacted_because").is_some()
    };
    let related = async |parent: &str, by: &Person, tag: &str| {
        let edit = send(by, &format!("e{tag}"), json!({"rel_type": "m.replace", "event_id": parent})).await;
        let reply = send(by, &format!("t{tag}"), json!({"rel_type": "m.thread", "event_id": parent})).await;
        (edit, reply)
    };
    // Bob may redact his own only, Ann everybody's.
    let bobs = send(&bob, "b", Value::Null).await;
    let ((his_edit, _), (her_edit, _)) = (related(&bobs, &bob, "1").await, related(&bobs, &ann, "2").await);
    let path = in_room(&room, &format!("redact/{}/r1", pct(&bobs)));
    let body = json!({"reason": "typo", "org.matrix.msc3912.with_relations": ["m.replace"]});
    world.put(&path, &bob, body.clone()).await.ok();
    assert!(redacted(&bobs).await && redacted(&his_edit).await && !redacted(&her_edit).await);
    world.put(&path, &bob, body).await.ok();

    let anns = send(&ann, "a", Value::Null).await;
    let (edit, reply) = related(&anns, &bob, "3").await;
    let path = in_room(&room, &format!("redact/{}/r2", pct(&anns)));
    world.put(&path, &ann, json!({"with_rel_types": ["m.thread"]})).await.ok();
    assert!(redacted(&anns).await && redacted(&reply).await && !redacted(&edit).await);
    let path = in_room(&room, &format!("redact/{}/r3", pct(&anns)));
    world.put(&path, &ann, json!({"with_rel_types": ["*"]})).await.ok();
    assert!(redacted(&edit).await);
    assert_eq!(world.put(&path, &ann, json!({"with_rel_types": "*"})).await.verdict(), (400, "M_BAD_JSON"));
}

#[tokio::test]
async fn mutual_rooms_are_those_that_both_have_joined() {
    let world = World::new();
    let (ann, bob, cat) = (world.register("ann").await, world.register("bob").await, world.register("cat").await);
    let shared = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let invited = world.create_room(&ann, json!({"invite": [bob.id]})).await;
    let left = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    for room in [&shared, &left] {
        join(&world, room, &bob).await.ok();
    }
    world.post(&in_room(&left, "leave"), &bob, json!({})).await.ok();
    let ask = async |base: &str, query: &str| {
        world.raw(Method::GET, &format!("/_matrix/client/{base}?{query}"), Some(&ann), "").await
    };
    for base in ["v1/mutual_rooms", "unstable/uk.half-shot.msc2666/user/mutual_rooms"] {
        let answer = ask(base, &format!("user_id={}", pct(&bob.id))).await.ok();
        assert_eq!(answer, json!({"joined": [shared], "count": 1}), "not {invited}");
    }
    let base = "v1/mutual_rooms";
    assert_eq!(ask(base, &format!("user_id={}", pct(&cat.id))).await.ok(), json!({"joined": [], "count": 0}));
    assert_eq!(ask(base, "user_id=%40ghost%3Ahs.test").await.ok(), json!({"joined": [], "count": 0}));
    let beyond = format!("user_id={}&from=!{}", pct(&bob.id), "~".repeat(9));
    assert_eq!(ask(base, &beyond).await.ok(), json!({"joined": [], "count": 1}));
    for (query, wanted) in [
        (String::new(), "M_MISSING_PARAM"),
        ("user_id=bob".to_owned(), "M_INVALID_PARAM"),
        (format!("user_id={}", pct(&ann.id)), "M_INVALID_PARAM"),
        (format!("user_id={}&from=x", pct(&bob.id)), "M_INVALID_PARAM"),
    ] {
        assert_eq!(ask(base, &query).await.verdict(), (400, wanted), "{query}");
    }
}

#[tokio::test]
async fn members_at_a_token_from_before_the_room_are_its_first() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let sync = world.get("/sync", &ann).await.ok();
    let before = sync["rooms"]["join"][&room]["timeline"]["prev_batch"].as_str().unwrap().to_owned();
    join(&world, &room, &bob).await.ok();
    let members = world.get(&in_room(&room, &format!("members?at={before}")), &ann).await.ok();
    let names: Vec<_> = members["chunk"].as_array().unwrap().iter().map(|event| &event["state_key"]).collect();
    assert_eq!(names, [&ann.id]);
    let now = world.get(&in_room(&room, "members"), &ann).await.ok();
    assert_eq!(now["chunk"].as_array().unwrap().len(), 2);
}
