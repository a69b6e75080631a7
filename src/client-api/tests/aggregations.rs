//! What is shown of an event's children with the event.

use super::relations::{MESSAGE, child, ids, redact, say, send};
use super::*;

/// `unsigned.m.relations` of an event, as one reader is shown it.
async fn bundle(world: &World, room: &str, by: &Person, event_id: &str) -> Value {
    let event = world.get(&in_room(room, &format!("event/{}", pct(event_id))), by).await.ok();
    event["unsigned"]["m.relations"].clone()
}

fn edit_of(parent: &str) -> Value {
    let mut content = child(parent, "m.replace");
    content["m.new_content"] = json!({"body": "new", "msgtype": "m.text"});
    content
}

async fn public_room(world: &World, by: &Person, visibility: &str) -> String {
    let history = json!([{"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}]);
    world.create_room(by, json!({"preset": "public_chat", "initial_state": history})).await
}

#[tokio::test]
async fn the_latest_valid_edit_comes_with_the_event_wherever_it_is_read() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let top = say(&world, &room, &ann, json!({})).await;
    assert_eq!(bundle(&world, &room, &ann, &top).await, Value::Null);
    say(&world, &room, &ann, edit_of(&top)).await;
    // Of edits of the same millisecond the one with the greater ID would count.
    world.clock.advance(Duration::from_millis(1));
    let second = say(&world, &room, &ann, edit_of(&top)).await;

    let place = pct(&top);
    let event = world.get(&in_room(&room, &format!("event/{place}")), &ann).await.ok();
    assert_eq!(event["content"]["body"], "b", "the content stays as it was");
    let shown = &event["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(shown["event_id"], second.as_str());
    assert_eq!(shown["content"]["m.new_content"]["body"], "new");
    assert_eq!(shown["type"], MESSAGE);
    assert_eq!(shown["room_id"], room.as_str());

    let find = |list: &Value| {
        let list = list.as_array().unwrap();
        let event = list.iter().find(|event| event["event_id"] == top.as_str()).unwrap();
        event["unsigned"]["m.relations"]["m.replace"]["event_id"].as_str().unwrap().to_owned()
    };
    let page = world.get(&in_room(&room, "messages?dir=b"), &ann).await.ok();
    assert_eq!(find(&page["chunk"]), second);
    let context = world.get(&in_room(&room, &format!("context/{place}?limit=0")), &ann).await.ok();
    assert_eq!(context["event"]["unsigned"]["m.relations"]["m.replace"]["event_id"], second.as_str());
    let context = world.get(&in_room(&room, &format!("context/{}?limit=6", pct(&second))), &ann).await.ok();
    assert_eq!(find(&context["events_before"]), second);
    let wish = pct(r#"{"room":{"timeline":{"limit":3}}}"#);
    let first = world.get(&format!("/sync?filter={wish}"), &ann).await.ok();
    assert_eq!(find(&first["rooms"]["join"][&room]["timeline"]["events"]), second, "a gap is before it");
    let wish = pct(r#"{"room":{"timeline":{"limit":100}}}"#);
    let first = world.get(&format!("/sync?filter={wish}"), &ann).await.ok();
    let all = first["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap();
    assert!(all.iter().all(|event| event["unsigned"]["m.relations"].is_null()), "the client has every child");
}

#[tokio::test]
async fn edits_that_are_not_valid_are_ignored() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let top = say(&world, &room, &ann, json!({})).await;
    say(&world, &room, &bob, edit_of(&top)).await;
    send(&world, &room, &ann, "m.sticker", edit_of(&top)).await.ok();
    say(&world, &room, &ann, child(&top, "m.replace")).await;
    assert_eq!(bundle(&world, &room, &ann, &top).await, Value::Null);
    let edit = say(&world, &room, &ann, edit_of(&top)).await;
    say(&world, &room, &ann, edit_of(&edit)).await;
    assert_eq!(bundle(&world, &room, &ann, &edit).await, Value::Null, "an edit of an edit");
    assert_eq!(bundle(&world, &room, &bob, &top).await["m.replace"]["event_id"], edit.as_str());

    let secret = send(&world, &room, &ann, "m.room.encrypted", json!({"ciphertext": "x"})).await.ok();
    let secret = secret["event_id"].as_str().unwrap();
    let hidden = send(&world, &room, &ann, "m.room.encrypted", child(secret, "m.replace")).await.ok();
    assert_eq!(bundle(&world, &room, &bob, secret).await["m.replace"]["event_id"], hidden["event_id"]);

    let name = world.put(&in_room(&room, "state/m.room.name"), &ann, json!({"name": "n"})).await.ok();
    let name = name["event_id"].as_str().unwrap();
    say(&world, &room, &ann, child(name, "m.reference")).await;
    assert_eq!(bundle(&world, &room, &ann, name).await, Value::Null, "state has no aggregations");
}

#[tokio::test]
async fn a_redacted_edit_uncovers_the_one_before() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let top = say(&world, &room, &ann, json!({})).await;
    let first = say(&world, &room, &ann, edit_of(&top)).await;
    world.clock.advance(Duration::from_millis(1));
    let second = say(&world, &room, &ann, edit_of(&top)).await;
    redact(&world, &room, &ann, &second).await;
    assert_eq!(bundle(&world, &room, &ann, &top).await["m.replace"]["event_id"], first.as_str());
    redact(&world, &room, &ann, &first).await;
    assert_eq!(bundle(&world, &room, &ann, &top).await, Value::Null);
    say(&world, &room, &ann, edit_of(&top)).await;
    assert!(bundle(&world, &room, &ann, &top).await["m.replace"].is_object());
    redact(&world, &room, &ann, &top).await;
    assert_eq!(bundle(&world, &room, &ann, &top).await, Value::Null, "nothing is left of a redacted event");
}

#[tokio::test]
async fn a_thread_is_summed_up_in_its_root() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let top = say(&world, &room, &ann, json!({})).await;
    let reply = say(&world, &room, &ann, child(&top, "m.thread")).await;
    let last = say(&world, &room, &ann, child(&top, "m.thread")).await;
    let edit = say(&world, &room, &ann, edit_of(&last)).await;

    let thread = bundle(&world, &room, &bob, &top).await["m.thread"].clone();
    assert_eq!((&thread["count"], &thread["current_user_participated"]), (&json!(2), &json!(false)));
    assert_eq!(thread["latest_event"]["event_id"], last.as_str());
    let inner = &thread["latest_event"]["unsigned"]["m.relations"]["m.replace"]["event_id"];
    assert_eq!(*inner, edit.as_str(), "children of the latest reply too");
    assert_eq!(bundle(&world, &room, &ann, &top).await["m.thread"]["current_user_participated"], true);

    let own = say(&world, &room, &bob, child(&top, "m.thread")).await;
    let thread = bundle(&world, &room, &bob, &top).await["m.thread"].clone();
    assert_eq!((&thread["count"], &thread["current_user_participated"]), (&json!(3), &json!(true)));
    assert_eq!(thread["latest_event"]["event_id"], own.as_str());

    redact(&world, &room, &bob, &own).await;
    let thread = bundle(&world, &room, &bob, &top).await["m.thread"].clone();
    assert_eq!((&thread["count"], &thread["current_user_participated"]), (&json!(2), &json!(false)));
    assert_eq!(thread["latest_event"]["event_id"], last.as_str());
    redact(&world, &room, &ann, &reply).await;
    assert_eq!(bundle(&world, &room, &bob, &top).await["m.thread"]["count"], 1);
    redact(&world, &room, &ann, &top).await;
    assert_eq!(bundle(&world, &room, &bob, &top).await["m.thread"]["count"], 1, "a redacted root keeps its thread");
    redact(&world, &room, &ann, &last).await;
    assert_eq!(bundle(&world, &room, &bob, &top).await, Value::Null);
}

#[tokio::test]
async fn replies_of_one_moment_are_all_counted() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let top = say(&world, &room, &ann, json!({})).await;
    let replies = (0..30).map(|_| say(&world, &room, &ann, child(&top, "m.thread")));
    let replies = futures::future::join_all(replies).await;
    let thread = bundle(&world, &room, &ann, &top).await["m.thread"].clone();
    assert_eq!(thread["count"], 30);
    let children = format!("/_matrix/client/v1{}", in_room(&room, &format!("relations/{}?limit=100", pct(&top))));
    let children = world.raw(Method::GET, &children, Some(&ann), "").await.ok();
    assert_eq!(ids(&children).len(), replies.len());
    assert_eq!(thread["latest_event"]["event_id"], children["chunk"][0]["event_id"]);
}

#[tokio::test]
async fn references_are_listed_oldest_first() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let top = say(&world, &room, &ann, json!({})).await;
    let first = say(&world, &room, &ann, child(&top, "m.reference")).await;
    let second = send(&world, &room, &ann, "org.matrix.msc3381.poll.response", child(&top, "m.reference")).await.ok();
    let expected = json!({"m.reference": {"chunk": [{"event_id": first}, {"event_id": second["event_id"]}]}});
    assert_eq!(bundle(&world, &room, &ann, &top).await, expected);
    redact(&world, &room, &ann, &first).await;
    let expected = json!({"m.reference": {"chunk": [{"event_id": second["event_id"]}]}});
    assert_eq!(bundle(&world, &room, &ann, &top).await, expected);
    send(&world, &room, &ann, "m.reaction", child(&top, "m.annotation")).await.ok();
    assert_eq!(bundle(&world, &room, &ann, &top).await, expected, "annotations are not aggregated");
}

#[tokio::test]
async fn what_a_reader_may_not_see_is_not_bundled() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = public_room(&world, &ann, "joined").await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let top = say(&world, &room, &ann, json!({})).await;
    let edit = say(&world, &room, &ann, edit_of(&top)).await;
    let reply = say(&world, &room, &ann, child(&top, "m.thread")).await;
    let note = say(&world, &room, &ann, child(&top, "m.reference")).await;
    world.post(&in_room(&room, "leave"), &bob, json!({})).await.ok();
    for rel_type in ["m.thread", "m.reference"] {
        say(&world, &room, &ann, child(&top, rel_type)).await;
    }
    say(&world, &room, &ann, edit_of(&top)).await;

    let seen = bundle(&world, &room, &bob, &top).await;
    assert_eq!(seen["m.replace"]["event_id"], edit.as_str());
    assert_eq!(seen["m.thread"]["latest_event"]["event_id"], reply.as_str());
    assert_eq!(seen["m.thread"]["count"], 1);
    assert_eq!(seen["m.reference"], json!({"chunk": [{"event_id": note}]}));
    assert_eq!(bundle(&world, &room, &ann, &top).await["m.thread"]["count"], 2);
}

#[tokio::test]
async fn children_of_ignored_users_do_not_count() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let top = say(&world, &room, &ann, json!({})).await;
    let reply = say(&world, &room, &ann, child(&top, "m.thread")).await;
    say(&world, &room, &bob, child(&top, "m.thread")).await;
    say(&world, &room, &bob, child(&top, "m.reference")).await;
    let list = json!({"ignored_users": {bob.id.as_str(): {}}});
    world.put(&format!("/user/{}/account_data/m.ignored_user_list", pct(&ann.id)), &ann, list).await.ok();
    let seen = bundle(&world, &room, &ann, &top).await;
    assert_eq!(seen["m.thread"]["count"], 1);
    assert_eq!(seen["m.thread"]["latest_event"]["event_id"], reply.as_str());
    assert_eq!(seen["m.reference"], Value::Null);
    assert_eq!(bundle(&world, &room, &bob, &top).await["m.thread"]["count"], 2);
}
