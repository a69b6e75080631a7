//! Rooms, and /sync as far as HTTP goes.

use super::*;

async fn join(world: &World, room: &str, by: &Person) {
    world.post(&in_room(room, "join"), by, json!({})).await.ok();
}

async fn say(world: &World, room: &str, by: &Person, txn: &str) -> String {
    let path = in_room(room, &format!("send/m.room.message/{txn}"));
    let sent = world.put(&path, by, json!({"msgtype": "m.text", "body": txn})).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

fn types(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_option_of_create_room_takes_effect() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world
        .create_room(
            &ann,
            json!({
                "name": "Garden", "topic": "Roses", "preset": "public_chat", "visibility": "private",
                "room_alias_name": "garden", "room_version": "11", "invite": [bob.id], "is_direct": true,
                "creation_content": {"m.federate": false},
                "initial_state": [{"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}},
                                  {"type": "x.y", "state_key": "k", "content": {"a": 1}}],
                "power_level_content_override": {"events_default": 10},
            }),
        )
        .await;
    let state = async |key: &str| world.get(&in_room(&room, &format!("state/{key}")), &ann).await.ok();
    assert_eq!(state("m.room.name").await, json!({"name": "Garden"}));
    assert_eq!(state("m.room.topic").await["topic"], "Roses");
    assert_eq!(state("m.room.join_rules").await["join_rule"], "public");
    assert_eq!(state("m.room.canonical_alias").await["alias"], "#garden:hs.test");
    assert_eq!(state("m.room.history_visibility").await["history_visibility"], "joined");
    assert_eq!(state("x.y/k").await, json!({"a": 1}));
    assert_eq!(state("m.room.power_levels").await["events_default"], 10);
    let create = state("m.room.create").await;
    assert_eq!((&create["room_version"], &create["m.federate"]), (&json!("11"), &json!(false)));
    let bobs = state(&format!("m.room.member/{}", pct(&bob.id))).await;
    assert_eq!((&bobs["membership"], &bobs["is_direct"]), (&json!("invite"), &json!(true)));
}

#[tokio::test]
async fn create_room_refuses_what_it_cannot_do() {
    let world = World::new();
    let ann = world.register("ann").await;
    world.create_room(&ann, json!({"room_alias_name": "taken"})).await;
    for (body, wanted) in [
        (json!({"room_alias_name": "taken"}), (400, "M_ROOM_IN_USE")),
        (json!({"room_alias_name": "a b"}), (400, "M_INVALID_PARAM")),
        (json!({"room_alias_name": "a:b"}), (400, "M_INVALID_PARAM")),
        (json!({"room_alias_name": ""}), (400, "M_INVALID_PARAM")),
        (json!({"room_version": "99"}), (400, "M_UNSUPPORTED_ROOM_VERSION")),
        (json!({"room_version": 1}), (400, "M_BAD_JSON")),
        (json!({"preset": "loud_chat"}), (400, "M_BAD_JSON")),
        (json!({"visibility": "secret"}), (400, "M_BAD_JSON")),
        (json!({"invite": ["ann"]}), (400, "M_BAD_JSON")),
        (json!({"invite_3pid": [{"medium": "email"}]}), (400, "M_SERVER_NOT_TRUSTED")),
        (json!({"initial_state": [{"content": {}}]}), (400, "M_BAD_JSON")),
        (json!({"initial_state": [{"type": "x.y"}]}), (400, "M_BAD_JSON")),
        (json!({"creation_content": 5}), (400, "M_BAD_JSON")),
        (json!({"power_level_content_override": {"ban": 1.5}}), (400, "M_BAD_JSON")),
        (json!([]), (400, "M_BAD_JSON")),
    ] {
        assert_eq!(world.post("/createRoom", &ann, body.clone()).await.verdict(), wanted, "{body}");
    }
    let joined = world.get("/joined_rooms", &ann).await.ok();
    assert_eq!(joined["joined_rooms"].as_array().unwrap().len(), 1, "{joined}");
    world.raw(Method::POST, &format!("{CLIENT}/createRoom"), Some(&ann), "").await.ok();
}

#[tokio::test]
async fn memberships_change_as_allowed() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "private_chat"})).await;
    let at = |rest: &str| in_room(&room, rest);
    let target = json!({"user_id": bob.id, "reason": "why not"});
    assert_eq!(world.post(&at("join"), &bob, json!({})).await.verdict(), (403, "M_FORBIDDEN"));
    world.post(&at("invite"), &ann, target.clone()).await.ok();
    world.raw(Method::POST, &format!("{CLIENT}{}", at("join")), Some(&bob), "").await.ok();
    assert_eq!(world.get("/joined_rooms", &bob).await.ok(), json!({"joined_rooms": [room]}));
    assert_eq!(world.post(&at("kick"), &bob, json!({"user_id": ann.id})).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.post(&at("forget"), &bob, json!({})).await.verdict(), (400, "M_UNKNOWN"));
    world.post(&at("kick"), &ann, target.clone()).await.ok();
    let member = at(&format!("state/m.room.member/{}", pct(&bob.id)));
    assert_eq!(world.get(&member, &ann).await.ok(), json!({"membership": "leave", "reason": "why not"}));
    world.post(&at("ban"), &ann, target.clone()).await.ok();
    assert_eq!(world.post(&at("invite"), &ann, target.clone()).await.verdict(), (403, "M_FORBIDDEN"));
    world.post(&at("unban"), &ann, target.clone()).await.ok();
    assert_eq!(world.post(&at("unban"), &ann, target.clone()).await.verdict(), (403, "M_BAD_STATE"));
    world.post(&at("invite"), &ann, target).await.ok();
    world.post(&at("leave"), &bob, json!({})).await.ok();
    world.post(&at("forget"), &bob, json!({})).await.ok();
    for path in ["invite", "kick", "ban", "unban"] {
        assert_eq!(world.post(&at(path), &ann, json!({})).await.verdict(), (400, "M_MISSING_PARAM"), "{path}");
        let wrong = json!({"user_id": "bob"});
        assert_eq!(world.post(&at(path), &ann, wrong).await.verdict(), (400, "M_BAD_JSON"), "{path}");
    }
    let by_mail = json!({"medium": "email", "address": "a@b.c", "id_server": "id.test"});
    assert_eq!(world.post(&at("invite"), &ann, by_mail).await.verdict(), (400, "M_SERVER_NOT_TRUSTED"));
}

#[tokio::test]
async fn rooms_are_joined_by_id_and_by_alias() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let alias = format!("/directory/room/{}", pct("#über/uns:hs.test"));
    assert_eq!(world.open(Method::GET, &alias, json!({})).await.verdict(), (404, "M_NOT_FOUND"));
    world.put(&alias, &ann, json!({"room_id": room})).await.ok();
    assert_eq!(world.put(&alias, &ann, json!({"room_id": room})).await.verdict(), (409, "M_UNKNOWN"));
    let found = world.open(Method::GET, &alias, json!({})).await.ok();
    assert_eq!(found, json!({"room_id": room, "servers": ["hs.test"]}));
    let aliases = world.get(&in_room(&room, "aliases"), &ann).await.ok();
    assert_eq!(aliases, json!({"aliases": ["#über/uns:hs.test"]}));
    let by_alias = format!("/join/{}?via=a.test&server_name=b.test", pct("#über/uns:hs.test"));
    assert_eq!(world.post(&by_alias, &bob, json!({})).await.ok(), json!({"room_id": room}));
    assert_eq!(world.post(&format!("/join/{}", pct(&room)), &bob, json!({})).await.ok(), json!({"room_id": room}));
    let gone = world.raw(Method::DELETE, &format!("{CLIENT}{alias}"), Some(&bob), "").await;
    assert_eq!(gone.verdict(), (403, "M_FORBIDDEN"));
    world.raw(Method::DELETE, &format!("{CLIENT}{alias}"), Some(&ann), "").await.ok();
    for (path, wanted) in [
        (by_alias, (404, "M_NOT_FOUND")),
        ("/join/nonsense".into(), (400, "M_INVALID_PARAM")),
        (format!("/join/{}", pct("!unknown:hs.test")), (404, "M_NOT_FOUND")),
    ] {
        assert_eq!(world.post(&path, &bob, json!({})).await.verdict(), wanted, "{path}");
    }
    let foreign = format!("/directory/room/{}", pct("#x:elsewhere.test"));
    assert_eq!(world.put(&foreign, &ann, json!({"room_id": room})).await.verdict(), (400, "M_INVALID_PARAM"));
    let own = format!("/directory/room/{}", pct("#y:hs.test"));
    assert_eq!(world.put(&own, &ann, json!({})).await.verdict(), (400, "M_MISSING_PARAM"));
}

#[tokio::test]
async fn whoever_may_not_join_may_knock() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let rules = json!({"type": "m.room.join_rules", "content": {"join_rule": "knock"}});
    let room = world.create_room(&ann, json!({"initial_state": [rules]})).await;
    let knock = format!("/knock/{}?via=hs.test", pct(&room));
    assert_eq!(world.post(&in_room(&room, "join"), &bob, json!({})).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.post(&knock, &bob, json!({"reason": "please"})).await.ok(), json!({"room_id": room}));
    let member = in_room(&room, &format!("state/m.room.member/{}", pct(&bob.id)));
    assert_eq!(world.get(&member, &ann).await.ok(), json!({"membership": "knock", "reason": "please"}));
    let seen = world.get("/sync", &bob).await.ok();
    assert!(seen["rooms"]["knock"][&room].is_object(), "{seen}");
    world.post(&in_room(&room, "invite"), &ann, json!({"user_id": bob.id})).await.ok();
    join(&world, &room, &bob).await;
    let closed = world.create_room(&ann, json!({})).await;
    let answer = world.post(&format!("/knock/{}", pct(&closed)), &bob, json!({})).await;
    assert_eq!(answer.verdict(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn a_transaction_id_is_one_event_for_one_endpoint_and_device() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let first = say(&world, &room, &ann, "a%2Fb%25").await;
    assert_eq!(say(&world, &room, &ann, "a%2Fb%25").await, first);
    assert_ne!(say(&world, &room, &ann, "a%252Fb%25").await, first, "decoded once");
    let body = json!({"type": "m.login.password", "user": "ann", "password": PASSWORD});
    let other_device = person(&world.open(Method::POST, "/login", body).await.ok());
    assert_ne!(say(&world, &room, &other_device, "a%2Fb%25").await, first);
    let sticker = world.put(&in_room(&room, "send/m.sticker/a%2Fb%25"), &ann, json!({})).await.ok();
    assert_ne!(sticker["event_id"], json!(first), "another path");
    let redact = in_room(&room, &format!("redact/{}/a%2Fb%25", pct(&first)));
    let redaction = world.put(&redact, &ann, json!({"reason": "oops"})).await.ok();
    assert_ne!(redaction["event_id"], json!(first), "another endpoint");
    assert_eq!(world.put(&redact, &ann, json!({})).await.ok(), redaction);
    let shown = world.get(&in_room(&room, &format!("event/{}", pct(&first))), &ann).await.ok();
    assert_eq!(shown["content"], json!({}));
    assert_eq!(shown["unsigned"]["redacted_because"]["content"]["reason"], "oops");
    assert_eq!(shown["unsigned"]["transaction_id"], "a/b%");
    assert_eq!(shown["unsigned"]["redacted_because"]["event_id"], redaction["event_id"]);
    let id = redaction["event_id"].as_str().expect("an ID");
    let shown = world.get(&in_room(&room, &format!("event/{}", pct(id))), &ann).await.ok();
    assert_eq!(shown["unsigned"]["transaction_id"], "a/b%", "of the redaction, to who sent it");

    let through_send = in_room(&room, "send/m.room.redaction/r");
    assert_eq!(world.put(&through_send, &ann, json!({})).await.verdict(), (400, "M_MISSING_PARAM"));
    let second = say(&world, &room, &ann, "second").await;
    world.put(&through_send, &ann, json!({"redacts": second})).await.ok();
    let shown = world.get(&in_room(&room, &format!("event/{}", pct(&second))), &ann).await.ok();
    assert_eq!(shown["content"], json!({}));
}

#[tokio::test]
async fn state_is_read_and_set() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    join(&world, &room, &bob).await;
    let at = |rest: &str| in_room(&room, rest);
    for path in ["state/m.room.name", "state/m.room.name/"] {
        world.put(&at(path), &ann, json!({"name": path})).await.ok();
        assert_eq!(world.get(&at("state/m.room.name/"), &ann).await.ok(), json!({"name": path}));
    }
    world.put(&at("state/x.y/a%2Fb"), &ann, json!({"n": 1})).await.ok();
    let event = world.get(&at("state/x.y/a%2Fb?format=event"), &bob).await.ok();
    assert_eq!((&event["state_key"], &event["content"]), (&json!("a/b"), &json!({"n": 1})));
    assert_eq!(world.get(&at("state/x.y/a%2Fb?format=poem"), &bob).await.verdict(), (400, "M_INVALID_PARAM"));
    assert_eq!(world.put(&at("state/m.room.name"), &bob, json!({})).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.get(&at("state/x.y/none"), &bob).await.verdict(), (404, "M_NOT_FOUND"));
    let all = world.get(&at("state"), &bob).await.ok();
    assert!(types(&all).contains(&"x.y"), "{all}");
    for (content, wanted) in [
        (json!({"alias": "#nothing:hs.test"}), (400, "M_BAD_ALIAS")),
        (json!({"alt_aliases": ["#nothing:hs.test"]}), (400, "M_BAD_ALIAS")),
        (json!({"alias": "nothing"}), (400, "M_INVALID_PARAM")),
        (json!({"alias": 5}), (400, "M_BAD_JSON")),
        (json!({"alt_aliases": "x"}), (400, "M_BAD_JSON")),
    ] {
        let answer = world.put(&at("state/m.room.canonical_alias"), &ann, content.clone()).await;
        assert_eq!(answer.verdict(), wanted, "{content}");
    }
    world.put(&at("state/m.room.canonical_alias"), &ann, json!({"alias": ""})).await.ok();
}

#[tokio::test]
async fn history_is_paged_both_ways_without_gap_or_repetition() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let mut sent = Vec::new();
    for i in 0..25 {
        sent.push(say(&world, &room, &ann, &format!("t{i}")).await);
    }
    let page = async |dir: &str, from: &str| {
        let path = in_room(&room, &format!("messages?dir={dir}&limit=7{from}"));
        world.get(&path, &ann).await.ok()
    };
    for dir in ["b", "f"] {
        let (mut seen, mut from) = (Vec::new(), String::new());
        for _ in 0..20 {
            let got = page(dir, &from).await;
            let events = got["chunk"].as_array().unwrap();
            seen.extend(events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()));
            let Some(end) = got["end"].as_str() else { break };
            from = format!("&from={end}");
        }
        if dir == "b" {
            seen.reverse();
        }
        assert_eq!(seen.split_off(seen.len() - 25), sent, "{dir}");
        assert!(!seen.is_empty(), "the room's first events come too");
    }
    let filter = pct(&json!({"types": ["m.room.create"]}).to_string());
    let found = page("b", &format!("&filter={filter}")).await;
    assert_eq!(types(&found["chunk"]), ["m.room.create"]);
    let elsewhere = pct(&json!({"rooms": ["!other:hs.test"]}).to_string());
    assert_eq!(page("b", &format!("&filter={elsewhere}")).await["chunk"], json!([]));
    for query in ["?dir=x", "?dir=b&limit=x", "?dir=b&limit=-1", "?dir=b&from=x", "?dir=b&to=h1_9_1", "?dir=b&filter=5"]
    {
        let answer = world.get(&in_room(&room, &format!("messages{query}")), &ann).await;
        assert_eq!(answer.status.as_u16(), 400, "{query}");
    }
}

#[tokio::test]
async fn an_event_is_shown_with_what_is_around_it() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({})).await;
    let mut sent = Vec::new();
    for i in 0..9 {
        sent.push(say(&world, &room, &ann, &format!("t{i}")).await);
    }
    let context = async |event: &str, limit: u8| {
        world.get(&in_room(&room, &format!("context/{}?limit={limit}", pct(event))), &ann).await.ok()
    };
    let ids = |events: &Value| -> Vec<String> {
        events.as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    };
    let around = context(&sent[4], 4).await;
    assert_eq!(around["event"]["event_id"], json!(sent[4]));
    assert_eq!(ids(&around["events_before"]), [sent[3].clone(), sent[2].clone()]);
    assert_eq!(ids(&around["events_after"]), [sent[5].clone(), sent[6].clone()]);
    assert!(types(&around["state"]).contains(&"m.room.create"));
    for (dir, token, next) in [("b", "start", &sent[1]), ("f", "end", &sent[7])] {
        let path = format!("messages?dir={dir}&limit=1&from={}", around[token].as_str().unwrap());
        let page = world.get(&in_room(&room, &path), &ann).await.ok();
        assert_eq!(page["chunk"][0]["event_id"], json!(next), "{dir}");
    }
    let alone = context(&sent[8], 0).await;
    assert_eq!((&alone["events_before"], &alone["events_after"]), (&json!([]), &json!([])));
    for path in [format!("event/{}", pct(&sent[4])), format!("context/{}", pct(&sent[4])), "event/$none".into()] {
        assert_eq!(world.get(&in_room(&room, &path), &bob).await.verdict(), (404, "M_NOT_FOUND"), "{path}");
    }
}

#[tokio::test]
async fn members_are_listed_to_members() {
    let world = World::new();
    let (ann, bob, cyd) = (world.register("ann").await, world.register("bob").await, world.register("cyd").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat", "invite": [cyd.id]})).await;
    let before = say(&world, &room, &ann, "before").await;
    let at = world.get(&in_room(&room, &format!("context/{}?limit=0", pct(&before))), &ann).await.ok()["end"].clone();
    join(&world, &room, &bob).await;
    let members = async |query: &str| {
        let got = world.get(&in_room(&room, &format!("members{query}")), &ann).await.ok();
        let mut names: Vec<_> =
            got["chunk"].as_array().unwrap().iter().map(|e| e["state_key"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(members("").await, [ann.id.clone(), bob.id.clone(), cyd.id.clone()]);
    assert_eq!(members("?membership=join").await, [ann.id.clone(), bob.id.clone()]);
    assert_eq!(members("?not_membership=join").await.concat(), cyd.id);
    // Both together are an "or".
    assert_eq!(members("?membership=join&not_membership=leave").await.len(), 3);
    assert_eq!(members("?membership=join&not_membership=join").await.len(), 3);
    assert_eq!(members("?membership=leave&not_membership=invite").await, [ann.id.clone(), bob.id.clone()]);
    assert_eq!(members(&format!("?at={}", at.as_str().unwrap())).await, [ann.id.clone(), cyd.id.clone()]);
    let odd = world.get(&in_room(&room, "members?membership=odd"), &ann).await;
    assert_eq!(odd.verdict(), (400, "M_INVALID_PARAM"));
    let joined = world.get(&in_room(&room, "joined_members"), &bob).await.ok();
    assert_eq!(joined["joined"].as_object().unwrap().len(), 2);
    assert_eq!(world.get(&in_room(&room, "joined_members"), &cyd).await.verdict(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn joined_members_have_the_names_of_their_member_events() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    join(&world, &room, &bob).await;
    let said = |user: &Person| in_room(&room, &format!("state/m.room.member/{}", pct(&user.id)));
    let name = "A \"quoted\" name,\n\u{e9}\\";
    let content = json!({"membership": "join", "displayname": name, "avatar_url": "mxc://hs.test/a"});
    world.put(&said(&ann), &ann, content).await.ok();
    let content = json!({"membership": "join", "displayname": {"no": "text"}, "avatar_url": 5});
    world.put(&said(&bob), &bob, content).await.ok();
    let joined = world.get(&in_room(&room, "joined_members"), &bob).await.ok();
    let expected = json!({"joined": {
        &ann.id: {"display_name": name, "avatar_url": "mxc://hs.test/a"},
        &bob.id: {"display_name": null, "avatar_url": null},
    }});
    assert_eq!(joined, expected);
}

#[tokio::test]
async fn typing_and_receipts_reach_others_by_sync() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    join(&world, &room, &bob).await;
    let (first, second) = (say(&world, &room, &ann, "1").await, say(&world, &room, &ann, "2").await);
    let typing = |who: &Person| in_room(&room, &format!("typing/{}", pct(&who.id)));
    world.put(&typing(&bob), &bob, json!({"typing": true, "timeout": 20_000})).await.ok();
    world.post(&in_room(&room, &format!("receipt/m.read/{}", pct(&first))), &bob, json!({})).await.ok();
    let seen = world.get("/sync", &ann).await.ok();
    let ephemeral = seen["rooms"]["join"][&room]["ephemeral"]["events"].to_string();
    assert!(ephemeral.contains("m.typing") && ephemeral.contains(&first), "{ephemeral}");

    assert_eq!(world.put(&typing(&ann), &bob, json!({"typing": true})).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.put(&typing(&bob), &bob, json!({})).await.verdict(), (400, "M_MISSING_PARAM"));
    let receipt = |kind: &str, event: &str| in_room(&room, &format!("receipt/{kind}/{}", pct(event)));
    for (path, body, wanted) in [
        (receipt("m.odd", &first), json!({}), (400, "M_INVALID_PARAM")),
        (receipt("m.read", &first), json!({"thread_id": ""}), (400, "M_INVALID_PARAM")),
        (receipt("m.read", &first), json!({"thread_id": 5}), (400, "M_INVALID_PARAM")),
        (receipt("m.read", &first), json!({"thread_id": null}), (400, "M_INVALID_PARAM")),
        (receipt("m.read", &first), json!({"thread_id": first}), (400, "M_INVALID_PARAM")),
        (receipt("m.fully_read", &first), json!({"thread_id": "main"}), (400, "M_INVALID_PARAM")),
        (receipt("m.read", "$unknown"), json!({}), (404, "M_NOT_FOUND")),
        (receipt("m.fully_read", "$unknown"), json!({}), (404, "M_NOT_FOUND")),
    ] {
        assert_eq!(world.post(&path, &bob, body).await.verdict(), wanted, "{path}");
    }
    world.post(&receipt("m.read", &second), &bob, json!({"thread_id": "main"})).await.ok();

    let marker = format!("/user/{}/rooms/{}/account_data/m.fully_read", pct(&bob.id), pct(&room));
    let markers = json!({"m.fully_read": second, "m.read": second, "m.read.private": second});
    world.post(&in_room(&room, "read_markers"), &bob, markers).await.ok();
    assert_eq!(world.get(&marker, &bob).await.ok(), json!({"event_id": second}));
    world.post(&receipt("m.fully_read", &first), &bob, json!({})).await.ok();
    assert_eq!(world.get(&marker, &bob).await.ok(), json!({"event_id": second}), "never backwards");
}

#[tokio::test]
async fn sync_answers_and_refuses() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let first = world.get("/sync", &ann).await.ok();
    assert!(first["rooms"]["join"][&room].is_object(), "{first}");
    let since = first["next_batch"].as_str().unwrap();
    let path = format!("/sync?since={since}&timeout=10000&set_presence=offline");
    let (news, event) = tokio::join!(world.get(&path, &ann), say(&world, &room, &ann, "news"));
    let news = news.ok();
    assert_eq!(news["rooms"]["join"][&room]["timeline"]["events"][0]["event_id"], json!(event), "{news}");
    for (query, errcode) in [
        ("?since=nonsense", "M_INVALID_PARAM"),
        ("?since=h1_7_1_1_1", "M_UNKNOWN_POS"),
        ("?timeout=soon", "M_INVALID_PARAM"),
        ("?full_state=maybe", "M_INVALID_PARAM"),
    ] {
        assert_eq!(world.get(&format!("/sync{query}"), &ann).await.verdict(), (400, errcode), "{query}");
    }
    world.get("/sync?since=&full_state=true", &ann).await.ok();
}
