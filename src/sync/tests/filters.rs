//! What filters choose and leave out.

use hearth_accounts::NewAccountData;
use hearth_rooms::NewReceipt;
use hearth_schema::ReceiptKind;
use serde_json::{Value, json};

use crate::SyncRequest;
use crate::testing::*;

#[tokio::test]
async fn a_timeline_of_nothing_leaves_everything_to_the_state() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let filter = r#"{"room":{"timeline":{"limit":0}}}"#;
    let first = world.now(&bob, None, filter).await;
    let room = joined(&first, &room_id);
    assert_eq!(room["timeline"]["events"], json!([]));
    assert_eq!(room["timeline"]["limited"], true);
    assert_eq!(state(room).len(), 7, "{:?}", state(room));
    world.event(&room_id, &alice, ("m.room.topic", Some("")), json!({"topic": "new"})).await;
    world.say(&room_id, &alice, "hello").await;
    let second = world.now(&bob, Some(&next(&first)), filter).await;
    let room = joined(&second, &room_id);
    assert_eq!((&room["timeline"]["events"], &room["timeline"]["limited"]), (&json!([]), &json!(true)));
    assert_eq!(state(room), ["m.room.topic/"]);
    assert_eq!(room["unread_notifications"]["notification_count"], 1);
    assert!(world.now(&bob, Some(&next(&second)), filter).await["rooms"].is_null());
    let prev = room["timeline"]["prev_batch"].as_str().expect("prev_batch");
    let from = crate::PageToken::parse(prev, world.sync.incarnation()).expect("a token").pos;
    let view = world.rooms.view().await.expect("a view");
    let before = (hearth_store::Pos::ZERO, from);
    let page = world.rooms.timeline(&view, world.rooms.ids().room(&room_id), before, 1).await.expect("a page");
    assert!(page.events[0].pdu.content().get().contains("hello"));
}

#[tokio::test]
async fn events_have_the_fields_that_were_asked_for() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room_id = world.room(&alice, &[]).await;
    let since = next(&world.now(&alice, None, "{}").await);
    let content = json!({"body": "hello", "msgtype": "m.text", "m.new_content": {"body": "new", "x": 1}});
    world.event(&room_id, &alice, ("m.room.message", None), content).await;
    world.event(&room_id, &alice, ("org.other", None), json!({"a": 1})).await;
    let filter = r#"{"event_fields":["type","content.body","content.m\\.new_content.body"]}"#;
    let news = world.now(&alice, Some(&since), filter).await;
    let expected = json!([
        {"type": "m.room.message", "content": {"body": "hello", "m.new_content": {"body": "new"}}},
        {"type": "org.other"}
    ]);
    assert_eq!(joined(&news, &room_id)["timeline"]["events"], expected);
    for format in ["client", "federation"] {
        let filter = format!(
            r#"{{"event_format":"{format}","event_fields":["state_key","sender"],"room":{{"timeline":{{"limit":1}}}}}}"#
        );
        let all = world.now(&alice, None, &filter).await;
        let room = joined(&all, &room_id);
        assert_eq!(room["timeline"]["events"], json!([{"sender": alice.user_id}]), "{format}");
        let events = room["state"]["events"].as_array().expect("events");
        assert_eq!(events.len(), 6);
        assert!(events.iter().all(|e| e.as_object().is_some_and(|e| e.len() == 2 && e.contains_key("state_key"))));
    }
    // Stored filters are the same.
    let id = world.accounts.store_filter(alice.user, filter).await.expect("a filter");
    assert_eq!(joined(&world.now(&alice, Some(&since), &id).await, &room_id)["timeline"]["events"], expected);
}

#[tokio::test]
async fn each_section_has_its_own_choice_of_rooms_and_events() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (one, two) = (world.room(&alice, &[&bob]).await, world.room(&alice, &[&bob]).await);
    let mut since = None;
    for room_id in [&one, &two] {
        let read = world.say(room_id, &bob, "text").await;
        since = Some(next(&world.now(&alice, None, "{}").await));
        let image = json!({"msgtype": "m.image", "body": "image", "url": "mxc://hearth.test/a"});
        world.event(room_id, &bob, ("m.room.message", None), image).await;
        let receipt = NewReceipt {
            room_id: room_id.clone(),
            user_id: bob.user_id.clone(),
            kind: ReceiptKind::Read,
            thread: None,
            event_id: read.as_str().try_into().expect("an event ID"),
        };
        world.rooms.set_receipt(&receipt).await.expect("a receipt");
        let item = NewAccountData { room: Some(room_id.clone()), kind: "m.tag".into(), json: r#"{"a":1}"#.into() };
        world.accounts.set_account_data(alice.user, item).await.expect("stored");
    }
    let chosen = async |section: &str, choice: &str, since: Option<&str>| -> [Value; 2] {
        let filter = format!(r#"{{"room":{{"{section}":{choice}}}}}"#);
        let answer = world.now(&alice, since, &filter).await;
        [&one, &two].map(|room_id| joined(&answer, room_id)[section]["events"].clone())
    };
    let len = |events: &Value| events.as_array().expect("events").len();
    for section in ["timeline", "ephemeral", "account_data"] {
        let [first, second] = chosen(section, &format!(r#"{{"rooms":["{one}"]}}"#), None).await;
        assert!(len(&first) > 0 && len(&second) == 0, "{section}");
        let [first, second] =
            chosen(section, &format!(r#"{{"rooms":["{one}","{two}"],"not_rooms":["{one}"]}}"#), None).await;
        assert!(len(&first) == 0 && len(&second) > 0, "{section}");
        let [first, second] = chosen(section, r#"{"types":["m.*"],"not_types":["*"]}"#, None).await;
        assert!(len(&first) == 0 && len(&second) == 0, "{section}");
    }
    let [first, _] = chosen("state", &format!(r#"{{"not_rooms":["{one}"]}}"#), None).await;
    assert_eq!(len(&first), 0);
    let filter = |url: bool| format!(r#"{{"contains_url":{url},"types":["m.room.message"]}}"#);
    for (url, body) in [(true, "image"), (false, "text")] {
        let [first, second] = chosen("timeline", &filter(url), None).await;
        assert_eq!((&first[0]["content"]["body"], &second[0]["content"]["body"]), (&json!(body), &json!(body)));
        assert_eq!(len(&first) + len(&second), 2);
    }
    let senders = format!(r#"{{"senders":["{}"],"not_senders":["{}"]}}"#, bob.user_id, alice.user_id);
    let [first, _] = chosen("timeline", &senders, None).await;
    assert_eq!(len(&first), 3, "a join and two messages: {first}");
    // In an answer with news a room of which nothing is wanted is absent.
    let none = r#"{"room":{"timeline":{"types":[]},"state":{"types":[]},"ephemeral":{"types":[]},"account_data":{"types":[]}}}"#;
    let since = since.expect("a token");
    assert!(world.now(&alice, Some(&since), none).await["rooms"].is_null());
    let rooms = format!(r#"{{"room":{{"rooms":["{one}","{two}"],"not_rooms":["{two}"]}}}}"#);
    let request = SyncRequest { filter: Some(&rooms), full_state: true, since: Some(&since), ..SyncRequest::default() };
    let answer = world.ask(&alice, &request).await;
    assert_eq!(answer["rooms"]["join"].as_object().map(serde_json::Map::len), Some(1));
}
