//! Children of events.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Transaction ids that no test has twice.
static NEXT: AtomicU64 = AtomicU64::new(0);

const RELATIONS: &str = "/_matrix/client/v1";

/// Sends an event with a content that has a body besides.
pub(super) async fn send(world: &World, room: &str, by: &Person, kind: &str, mut content: Value) -> Answer {
    let txn = NEXT.fetch_add(1, Ordering::Relaxed);
    content["body"] = json!("b");
    content["msgtype"] = json!("m.text");
    world.put(&in_room(room, &format!("send/{kind}/{txn}")), by, content).await
}

/// Sends a message and gives its ID.
pub(super) async fn say(world: &World, room: &str, by: &Person, content: Value) -> String {
    send(world, room, by, MESSAGE, content).await.ok()["event_id"].as_str().unwrap().to_owned()
}

/// The content of a child.
pub(super) fn child(parent: &str, rel_type: &str) -> Value {
    json!({"m.relates_to": {"event_id": parent, "rel_type": rel_type}})
}

pub(super) async fn redact(world: &World, room: &str, by: &Person, event_id: &str) {
    let txn = NEXT.fetch_add(1, Ordering::Relaxed);
    world.put(&in_room(room, &format!("redact/{}/{txn}", pct(event_id))), by, json!({})).await.ok();
}

async fn relate(world: &World, room: &str, by: &Person, parent: &str, (kind, rel_type): (&str, &str)) -> String {
    let sent = send(world, room, by, kind, child(parent, rel_type)).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

async fn children(world: &World, room: &str, by: &Person, rest: &str) -> Answer {
    let path = format!("{RELATIONS}{}", in_room(room, &format!("relations/{rest}")));
    world.raw(Method::GET, &path, Some(by), "").await
}

pub(super) fn ids(answer: &Value) -> Vec<&str> {
    answer["chunk"].as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap()).collect()
}

pub(super) const MESSAGE: &str = "m.room.message";

#[tokio::test]
async fn children_come_by_relation_and_type_newest_first() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let top = say(&world, &room, &ann, json!({})).await;
    let first = relate(&world, &room, &ann, &top, (MESSAGE, "m.thread")).await;
    let second = relate(&world, &room, &ann, &top, ("m.sticker", "m.thread")).await;
    let edit = relate(&world, &room, &ann, &top, (MESSAGE, "m.replace")).await;
    let top = pct(&top);

    let all = children(&world, &room, &ann, &top).await.ok();
    assert_eq!(ids(&all), [&*edit, &*second, &*first]);
    assert_eq!(all["next_batch"], Value::Null);
    assert_eq!(all["recursion_depth"], Value::Null);
    let thread = children(&world, &room, &ann, &format!("{top}/m.thread")).await.ok();
    assert_eq!(ids(&thread), [&*second, &*first]);
    let stickers = children(&world, &room, &ann, &format!("{top}/m.thread/m.sticker")).await.ok();
    assert_eq!(ids(&stickers), [&*second]);
    let forward = children(&world, &room, &ann, &format!("{top}?dir=f")).await.ok();
    assert_eq!(ids(&forward), [&*first, &*second, &*edit]);
    assert_eq!(children(&world, &room, &ann, &format!("{top}?dir=x")).await.verdict(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn children_come_in_pages_either_way() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let top = say(&world, &room, &ann, json!({})).await;
    let mut sent = Vec::new();
    for _ in 0..5 {
        sent.push(relate(&world, &room, &ann, &top, (MESSAGE, "m.thread")).await);
    }
    for direction in ["b", "f"] {
        let (mut seen, mut from) = (Vec::new(), String::new());
        loop {
            let rest = format!("{}?dir={direction}&limit=2&from={from}", pct(&top));
            let page = children(&world, &room, &ann, &rest).await.ok();
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            let Some(next) = page["next_batch"].as_str() else { break };
            next.clone_into(&mut from);
        }
        if direction == "b" {
            seen.reverse();
        }
        assert_eq!(seen, sent, "{direction}");
    }
}

#[tokio::test]
async fn relations_of_relations_are_followed_if_asked_for() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let top = say(&world, &room, &ann, json!({})).await;
    let reply = relate(&world, &room, &ann, &top, (MESSAGE, "m.thread")).await;
    let like = relate(&world, &room, &ann, &reply, ("m.reaction", "m.annotation")).await;
    let plain = children(&world, &room, &ann, &pct(&top)).await.ok();
    assert_eq!(ids(&plain), [&*reply]);
    let deep = children(&world, &room, &ann, &format!("{}?recurse=true", pct(&top))).await.ok();
    assert_eq!(ids(&deep), [&*like, &*reply]);
    assert_eq!(deep["recursion_depth"], 2);
    let annotations = children(&world, &room, &ann, &format!("{}/m.annotation?recurse=true", pct(&top))).await.ok();
    assert_eq!(ids(&annotations), [&*like]);
}

#[tokio::test]
async fn what_is_redacted_or_not_visible_is_no_child() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let history = json!([{"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}]);
    let room = world.create_room(&ann, json!({"preset": "public_chat", "initial_state": history})).await;
    let top = say(&world, &room, &ann, json!({})).await;
    assert_eq!(children(&world, &room, &bob, &pct(&top)).await.verdict(), (404, "M_NOT_FOUND"));
    let hidden = relate(&world, &room, &ann, &top, (MESSAGE, "m.thread")).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    assert_eq!(children(&world, &room, &bob, &pct(&top)).await.verdict(), (404, "M_NOT_FOUND"), "before the join");
    let shown = say(&world, &room, &ann, json!({})).await;
    relate(&world, &room, &ann, &shown, (MESSAGE, "m.thread")).await;
    assert_eq!(ids(&children(&world, &room, &bob, &pct(&shown)).await.ok()).len(), 1);

    world.put(&in_room(&room, &format!("redact/{}/r", pct(&hidden))), &ann, json!({})).await.ok();
    assert!(ids(&children(&world, &room, &ann, &pct(&top)).await.ok()).is_empty());
    assert_eq!(children(&world, &room, &ann, "$nothing").await.verdict(), (404, "M_NOT_FOUND"));
}
