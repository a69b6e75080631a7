//! Threads of a room, rules for children, and filters by relation.

use super::relations::{child, ids, redact, say, send};
use super::*;

async fn threads(world: &World, room: &str, by: &Person, rest: &str) -> Answer {
    world
        .raw(Method::GET, &format!("/_matrix/client/v1{}", in_room(room, &format!("threads{rest}"))), Some(by), "")
        .await
}

fn annotation(parent: &str, key: &str) -> Value {
    json!({"m.relates_to": {"event_id": parent, "rel_type": "m.annotation", "key": key}})
}

#[tokio::test]
async fn threads_come_by_their_newest_reply() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let (one, two) = (say(&world, &room, &ann, json!({})).await, say(&world, &room, &ann, json!({})).await);
    assert_eq!(threads(&world, &room, &ann, "").await.ok(), json!({"chunk": []}));
    say(&world, &room, &ann, child(&one, "m.thread")).await;
    let reply = say(&world, &room, &ann, child(&two, "m.thread")).await;
    let list = threads(&world, &room, &ann, "").await.ok();
    assert_eq!(ids(&list), [&*two, &*one]);
    assert_eq!(list["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["latest_event"]["event_id"], reply.as_str());
    assert_eq!(list["next_batch"], Value::Null);
    let newer = say(&world, &room, &ann, child(&one, "m.thread")).await;
    assert_eq!(ids(&threads(&world, &room, &ann, "").await.ok()), [&*one, &*two]);
    redact(&world, &room, &ann, &newer).await;
    assert_eq!(ids(&threads(&world, &room, &ann, "").await.ok()), [&*two, &*one], "back to the reply before");
    redact(&world, &room, &ann, &two).await;
    let list = threads(&world, &room, &ann, "").await.ok();
    assert_eq!((ids(&list), &list["chunk"][0]["content"]), (vec![&*two, &*one], &json!({})), "a redacted root stays");
    redact(&world, &room, &ann, &reply).await;
    assert_eq!(ids(&threads(&world, &room, &ann, "").await.ok()), [&*one], "a thread without replies is none");
}

#[tokio::test]
async fn threads_come_in_pages() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let mut roots = Vec::new();
    for i in 0..7 {
        let top = say(&world, &room, if i == 4 { &bob } else { &ann }, json!({})).await;
        say(&world, &room, if i == 1 { &bob } else { &ann }, child(&top, "m.thread")).await;
        roots.insert(0, top);
    }
    let (mut seen, mut from) = (Vec::new(), String::new());
    loop {
        let page = threads(&world, &room, &ann, &format!("?limit=3{from}")).await.ok();
        assert!(ids(&page).len() <= 3);
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next_batch"].as_str() else { break };
        from = format!("&from={next}");
    }
    assert_eq!(seen, roots);
    let mine = threads(&world, &room, &bob, "?include=participated").await.ok();
    assert_eq!(ids(&mine), [&*roots[2], &*roots[5]]);
    let first = threads(&world, &room, &bob, "?include=participated&limit=1").await.ok();
    let rest = format!("?include=participated&limit=1&from={}", first["next_batch"].as_str().unwrap());
    assert_eq!(ids(&threads(&world, &room, &bob, &rest).await.ok()), [&*roots[5]]);
}

#[tokio::test]
async fn threads_are_for_those_who_may_see_them() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let history = json!([{"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}]);
    let room = world.create_room(&ann, json!({"preset": "public_chat", "initial_state": history})).await;
    let hidden = say(&world, &room, &ann, json!({})).await;
    assert_eq!(threads(&world, &room, &bob, "").await.verdict(), (403, "M_FORBIDDEN"));
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let (shown, later) = (say(&world, &room, &ann, json!({})).await, say(&world, &room, &ann, json!({})).await);
    say(&world, &room, &ann, child(&shown, "m.thread")).await;
    say(&world, &room, &ann, child(&hidden, "m.thread")).await;
    assert_eq!(ids(&threads(&world, &room, &bob, "").await.ok()), [&*shown]);
    world.post(&in_room(&room, "leave"), &bob, json!({})).await.ok();
    say(&world, &room, &ann, child(&later, "m.thread")).await;
    assert_eq!(ids(&threads(&world, &room, &bob, "").await.ok()), [&*shown], "no reply that may be seen");
    assert_eq!(ids(&threads(&world, &room, &ann, "").await.ok()), [&*later, &*hidden, &*shown]);
    for wrong in ["?include=some", "?limit=0", "?limit=x", "?from=nowhere"] {
        assert_eq!(threads(&world, &room, &ann, wrong).await.verdict(), (400, "M_INVALID_PARAM"), "{wrong}");
    }
    let list = json!({"ignored_users": {ann.id.as_str(): {}}});
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let top = say(&world, &room, &ann, json!({})).await;
    say(&world, &room, &bob, child(&top, "m.thread")).await;
    world.put(&format!("/user/{}/account_data/m.ignored_user_list", pct(&bob.id)), &bob, list).await.ok();
    let list = threads(&world, &room, &bob, "").await.ok();
    assert_eq!((ids(&list), &list["chunk"][0]["content"]), (vec![&*top], &json!({})), "an ignored root is redacted");
}

#[tokio::test]
async fn a_child_starts_no_thread() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let top = say(&world, &room, &ann, json!({})).await;
    let reply = say(&world, &room, &ann, child(&top, "m.thread")).await;
    let refused = send(&world, &room, &ann, "m.room.message", child(&reply, "m.thread")).await;
    assert_eq!(refused.verdict(), (400, "M_UNKNOWN"));
    let rich = say(&world, &room, &ann, json!({"m.relates_to": {"m.in_reply_to": {"event_id": top}}})).await;
    send(&world, &room, &ann, "m.room.message", child(&rich, "m.thread")).await.ok();
}

#[tokio::test]
async fn nobody_annotates_twice_with_the_same_key() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let top = say(&world, &room, &ann, json!({})).await;
    let other = say(&world, &room, &ann, json!({})).await;
    let like = send(&world, &room, &ann, "m.reaction", annotation(&top, "+")).await.ok();
    let again = send(&world, &room, &ann, "m.reaction", annotation(&top, "+")).await;
    assert_eq!(again.verdict(), (400, "M_DUPLICATE_ANNOTATION"));
    send(&world, &room, &ann, "m.reaction", annotation(&top, "-")).await.ok();
    send(&world, &room, &ann, "m.reaction", annotation(&other, "+")).await.ok();
    send(&world, &room, &ann, "org.example.vote", annotation(&top, "+")).await.ok();
    send(&world, &room, &bob, "m.reaction", annotation(&top, "+")).await.ok();
    redact(&world, &room, &ann, like["event_id"].as_str().unwrap()).await;
    send(&world, &room, &ann, "m.reaction", annotation(&top, "+")).await.ok();
    let again = send(&world, &room, &ann, "m.reaction", annotation(&top, "+")).await;
    assert_eq!(again.verdict(), (400, "M_DUPLICATE_ANNOTATION"));

    let many = (0..8).map(|_| send(&world, &room, &ann, "m.reaction", annotation(&top, "!")));
    let answers = futures::future::join_all(many).await;
    let taken = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(taken, 1, "of those sent at once, one");
}

#[tokio::test]
async fn history_can_be_filtered_by_relation() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let since = world.get("/sync", &ann).await.ok()["next_batch"].as_str().unwrap().to_owned();
    let plain = say(&world, &room, &ann, json!({})).await;
    let reply = say(&world, &room, &bob, child(&plain, "m.thread")).await;
    let note = say(&world, &room, &ann, child(&reply, "m.reference")).await;
    let cases = [
        (json!({"org.matrix.msc3874.rel_types": ["m.thread"]}), vec![&*reply]),
        (json!({"org.matrix.msc3874.rel_types": ["m.thread", "m.reference"]}), vec![&*reply, &*note]),
        (json!({"org.matrix.msc3874.not_rel_types": ["m.thread"]}), vec![&*plain, &*note]),
        (json!({"org.matrix.msc3874.not_rel_types": ["m.thread", "m.reference"]}), vec![&*plain]),
        (json!({"related_by_rel_types": ["m.thread"]}), vec![&*plain]),
        (json!({"related_by_rel_types": ["m.reference", "m.thread"]}), vec![&*plain, &*reply]),
        (json!({"related_by_senders": [bob.id]}), vec![&*plain]),
        (json!({"related_by_senders": [ann.id]}), vec![&*reply]),
        (json!({"related_by_senders": [ann.id], "related_by_rel_types": ["m.thread"]}), vec![]),
        (json!({"related_by_senders": [ann.id], "related_by_rel_types": ["m.reference"]}), vec![&*reply]),
    ];
    for (filter, expected) in cases {
        let query = pct(&filter.to_string());
        let page = world.get(&in_room(&room, &format!("messages?dir=f&from={since}&filter={query}")), &ann).await.ok();
        assert_eq!(ids(&page), expected, "{filter}");
        let query = pct(&json!({"room": {"timeline": filter}}).to_string());
        let news = world.get(&format!("/sync?since={since}&filter={query}"), &ann).await.ok();
        let timeline = news["rooms"]["join"][&room]["timeline"]["events"].as_array().cloned().unwrap_or_default();
        assert_eq!(ids(&json!({"chunk": timeline})), expected, "{filter} in /sync");
    }
    let wrong = pct(&json!({"related_by_senders": ["nobody"]}).to_string());
    assert_eq!(world.get(&in_room(&room, &format!("messages?filter={wrong}")), &ann).await.status.as_u16(), 400);
    redact(&world, &room, &bob, &reply).await;
    let query = pct(&json!({"related_by_rel_types": ["m.thread"]}).to_string());
    let page = world.get(&in_room(&room, &format!("messages?dir=f&from={since}&filter={query}")), &ann).await.ok();
    assert!(ids(&page).is_empty(), "what is redacted relates to nothing");
}
