//! Ignored users and unwanted invitations.

use super::*;

async fn ignore(world: &World, by: &Person, users: &[&Person]) {
    let users: serde_json::Map<_, _> = users.iter().map(|user| (user.id.clone(), json!({}))).collect();
    set(world, by, "m.ignored_user_list", json!({"ignored_users": users})).await.ok();
}

async fn set(world: &World, by: &Person, kind: &str, content: Value) -> Answer {
    world.put(&format!("/user/{}/account_data/{kind}", pct(&by.id)), by, content).await
}

async fn sync(world: &World, by: &Person, since: Option<&Value>) -> Value {
    let since = since.map_or_else(String::new, |token| format!("?since={}", token.as_str().unwrap()));
    world.get(&format!("/sync{since}"), by).await.ok()
}

async fn say(world: &World, by: &Person, room: &str, text: &str) -> String {
    let path = in_room(room, &format!("send/m.room.message/{text}"));
    let sent = world.put(&path, by, json!({"msgtype": "m.text", "body": text})).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

fn bodies(events: &Value) -> Vec<&str> {
    events
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(|event| event["content"]["body"].as_str())
        .collect()
}

/// Ann and Bob in a room, and Bob has a topic's power.
async fn room_of_two(world: &World) -> (Person, Person, String) {
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let levels = json!({"state_default": 0});
    let body = json!({"preset": "public_chat", "power_level_content_override": levels});
    let room = world.create_room(&ann, body).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    (ann, bob, room)
}

#[tokio::test]
async fn messages_of_ignored_users_are_left_out_of_sync_and_their_state_is_not() {
    let world = World::new();
    let (ann, bob, room) = room_of_two(&world).await;
    let start = sync(&world, &ann, None).await;
    ignore(&world, &ann, &[&bob]).await;
    say(&world, &bob, &room, "unheard").await;
    world.put(&in_room(&room, "state/m.room.topic"), &bob, json!({"topic": "seen"})).await.ok();
    say(&world, &ann, &room, "own").await;
    let answer = sync(&world, &ann, Some(&start["next_batch"])).await;
    let timeline = &answer["rooms"]["join"][&room]["timeline"]["events"];
    assert_eq!(bodies(timeline), ["own"]);
    assert!(timeline.as_array().unwrap().iter().any(|event| event["content"]["topic"] == "seen"), "{timeline}");

    // What was missed stays so in this stream, what comes is shown, and a fresh one has everything.
    ignore(&world, &ann, &[]).await;
    say(&world, &bob, &room, "heard").await;
    let news = sync(&world, &ann, Some(&answer["next_batch"])).await;
    assert_eq!(bodies(&news["rooms"]["join"][&room]["timeline"]["events"]), ["heard"]);
    let fresh = sync(&world, &ann, None).await;
    assert_eq!(bodies(&fresh["rooms"]["join"][&room]["timeline"]["events"]), ["unheard", "own", "heard"]);
}

#[tokio::test]
async fn a_poll_is_not_answered_for_an_ignored_message_alone() {
    let world = World::new();
    let (ann, bob, room) = room_of_two(&world).await;
    ignore(&world, &ann, &[&bob]).await;
    let start = sync(&world, &ann, None).await;
    say(&world, &bob, &room, "unheard").await;
    let answer = sync(&world, &ann, Some(&start["next_batch"])).await;
    assert_eq!(answer["rooms"], Value::Null, "{answer}");
}

#[tokio::test]
async fn history_context_and_relations_leave_ignored_users_out_and_end() {
    let world = World::new();
    let (ann, bob, room) = room_of_two(&world).await;
    let parent = say(&world, &ann, &room, "parent").await;
    let child = json!({"body": "child", "m.relates_to": {"rel_type": "m.thread", "event_id": parent}});
    world.put(&in_room(&room, "send/m.room.message/child"), &bob, child).await.ok();
    ignore(&world, &ann, &[&bob]).await;
    let path = format!("/_matrix/client/v1{}", in_room(&room, &format!("relations/{}", pct(&parent))));
    let children = world.raw(Method::GET, &path, Some(&ann), "").await.ok();
    assert_eq!(children["chunk"], json!([]));
    let context = world.get(&in_room(&room, &format!("context/{}", pct(&parent))), &ann).await.ok();
    assert_eq!(context["events_after"], json!([]));
    for n in 0..30 {
        say(&world, &bob, &room, &format!("noise{n}")).await;
    }
    let (mut from, mut seen) = (String::new(), Vec::new());
    for _ in 0..30 {
        let page = world.get(&in_room(&room, &format!("messages?dir=b&limit=5{from}")), &ann).await.ok();
        seen.extend(bodies(&page["chunk"]).into_iter().map(str::to_owned));
        let Some(end) = page["end"].as_str() else { break };
        from = format!("&from={end}");
    }
    assert_eq!(seen, ["parent"]);
    let page = world.get(&in_room(&room, "messages?dir=b&limit=100"), &bob).await.ok();
    assert_eq!(bodies(&page["chunk"]).len(), 32, "others see everything");
}

#[tokio::test]
async fn nobody_ignores_oneself() {
    let world = World::new();
    let ann = world.register("ann").await;
    let itself = json!({"ignored_users": {&ann.id: {}}});
    assert_eq!(set(&world, &ann, "m.ignored_user_list", itself).await.verdict(), (400, "M_INVALID_PARAM"));
    set(&world, &ann, "m.ignored_user_list", json!({"ignored_users": {"@other:hs.test": {}}})).await.ok();
    set(&world, &ann, "m.ignored_user_list", json!({"ignored_users": "odd"})).await.ok();
    sync(&world, &ann, None).await;
}

#[tokio::test]
async fn invitations_of_ignored_users_are_not_shown_until_they_are_heard_again() {
    let world = World::new();
    let (ann, bob, eve) = (world.register("ann").await, world.register("bob").await, world.register("eve").await);
    ignore(&world, &ann, &[&bob]).await;
    let start = sync(&world, &ann, None).await;
    let unwanted = world.create_room(&bob, json!({"invite": [ann.id]})).await;
    let wanted = world.create_room(&eve, json!({"invite": [ann.id]})).await;
    for answer in [sync(&world, &ann, Some(&start["next_batch"])).await, sync(&world, &ann, None).await] {
        let invites = answer["rooms"]["invite"].as_object().unwrap();
        assert_eq!(invites.keys().collect::<Vec<_>>(), [&wanted], "{answer}");
    }
    ignore(&world, &ann, &[]).await;
    let answer = sync(&world, &ann, None).await;
    assert!(answer["rooms"]["invite"].get(&unwanted).is_some(), "{answer}");
}

#[tokio::test]
async fn who_blocks_invitations_gets_none_on_any_way() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&bob, json!({})).await;
    let before = world.create_room(&bob, json!({"invite": [ann.id]})).await;
    let blocked = (403, "M_INVITE_BLOCKED");
    set(&world, &ann, "m.invite_permission_config", json!({"default_action": "block"})).await.ok();
    let invite = async || world.post(&in_room(&room, "invite"), &bob, json!({"user_id": ann.id})).await;
    assert_eq!(invite().await.verdict(), blocked);
    assert_eq!(world.post("/createRoom", &bob, json!({"invite": [ann.id]})).await.verdict(), blocked);
    let path = in_room(&room, &format!("state/m.room.member/{}", pct(&ann.id)));
    assert_eq!(world.put(&path, &bob, json!({"membership": "invite"})).await.verdict(), blocked);
    let answer = sync(&world, &ann, None).await;
    assert_eq!(answer["rooms"]["invite"], Value::Null, "nor are earlier ones shown: {answer}");
    let state = world.get(&in_room(&before, "members"), &bob).await.ok();
    assert!(state["chunk"].as_array().unwrap().iter().any(|event| event["state_key"] == json!(ann.id)));
    set(&world, &ann, "m.invite_permission_config", json!({"default_action": "allow"})).await.ok();
    invite().await.ok();
    let answer = sync(&world, &ann, None).await;
    assert_eq!(answer["rooms"]["invite"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn invitations_are_filtered_by_lists_of_users_and_servers() {
    let world = World::new();
    let (ann, bob, eve) = (world.register("ann").await, world.register("bob").await, world.register("eve").await);
    let kind = "org.matrix.msc4155.invite_permission_config";
    let invite = async |by: &Person| {
        let room = world.create_room(by, json!({})).await;
        world.post(&in_room(&room, "invite"), by, json!({"user_id": ann.id})).await
    };
    set(&world, &ann, kind, json!({"blocked_servers": ["hs*"], "allowed_users": [bob.id]})).await.ok();
    assert_eq!(invite(&eve).await.verdict(), (403, "M_INVITE_BLOCKED"));
    invite(&bob).await.ok();
    assert_eq!(sync(&world, &ann, None).await["rooms"]["invite"].as_object().unwrap().len(), 1);
    set(&world, &ann, kind, json!({"ignored_users": ["@?ob:*", "@eve:hs.test"]})).await.ok();
    invite(&eve).await.ok();
    assert_eq!(sync(&world, &ann, None).await["rooms"]["invite"], Value::Null);
}

/// `notification_count` and `highlight_count` of a room and of its threads, by `/sync` and by sliding sync.
async fn unread(world: &World, by: &Person, room: &str) -> (Value, Value) {
    let filter = pct(r#"{"room":{"timeline":{"unread_thread_notifications":true}}}"#);
    let answer = world.get(&format!("/sync?filter={filter}"), by).await.ok();
    let told = &answer["rooms"]["join"][room];
    let apart = json!([told["unread_notifications"], told["unread_thread_notifications"]]);
    let path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
    let body = json!({"room_subscriptions": {room: {"timeline_limit": 1}}}).to_string();
    let answer = world.raw(Method::POST, path, Some(by), body).await.ok();
    let told = &answer["rooms"][room];
    (apart, json!([told["notification_count"], told["highlight_count"]]))
}

#[tokio::test]
async fn what_ignored_users_say_is_not_unread() {
    let world = World::new();
    let (ann, bob, room) = room_of_two(&world).await;
    let eve = world.register("eve").await;
    world.post(&in_room(&room, "join"), &eve, json!({})).await.ok();
    let top = say(&world, &ann, &room, "top").await;
    let mut sent = 0;
    let mut tell = async |by: &Person, content: Value| {
        sent += 1;
        let path = in_room(&room, &format!("send/m.room.message/n{sent}"));
        world.put(&path, by, content).await.ok()["event_id"].as_str().unwrap().to_owned()
    };
    let mention = json!({"user_ids": [ann.id]});
    let thread = json!({"rel_type": "m.thread", "event_id": top});
    for by in [&bob, &eve] {
        tell(by, json!({"msgtype": "m.text", "body": "a"})).await;
        tell(by, json!({"msgtype": "m.text", "body": "b", "m.mentions": mention})).await;
        tell(by, json!({"msgtype": "m.text", "body": "c", "m.relates_to": thread})).await;
        tell(by, json!({"msgtype": "m.text", "body": "d", "m.relates_to": thread, "m.mentions": mention})).await;
    }
    let counts = |main: [u64; 2], of_thread: [u64; 2]| {
        let object = |[all, loud]: [u64; 2]| json!({"notification_count": all, "highlight_count": loud});
        let sum = [main[0] + of_thread[0], main[1] + of_thread[1]];
        let threads = if of_thread == [0, 0] { Value::Null } else { json!({top.as_str(): object(of_thread)}) };
        (json!([object(main), threads]), json!(sum))
    };
    assert_eq!(unread(&world, &ann, &room).await, counts([4, 2], [4, 2]), "of both");
    ignore(&world, &ann, &[&bob]).await;
    assert_eq!(unread(&world, &ann, &room).await, counts([2, 1], [2, 1]), "of Eve");
    assert_eq!(unread(&world, &eve, &room).await.0[0]["notification_count"], json!(0), "who has spoken last has read");
    let read = tell(&eve, json!({"msgtype": "m.text", "body": "e"})).await;
    let receipt = in_room(&room, &format!("receipt/m.read/{}", pct(&read)));
    world.post(&receipt, &ann, json!({"thread_id": "main"})).await.ok();
    assert_eq!(unread(&world, &ann, &room).await, counts([0, 0], [2, 1]), "what was read is taken off once");
    tell(&bob, json!({"msgtype": "m.text", "body": "f", "m.mentions": mention})).await;
    assert_eq!(unread(&world, &ann, &room).await, counts([0, 0], [2, 1]), "and what comes does not count");
    ignore(&world, &ann, &[&bob, &eve]).await;
    assert_eq!(unread(&world, &ann, &room).await, counts([0, 0], [0, 0]));
    ignore(&world, &ann, &[]).await;
    assert_eq!(unread(&world, &ann, &room).await, counts([1, 1], [4, 2]), "who is heard again is heard");
}
