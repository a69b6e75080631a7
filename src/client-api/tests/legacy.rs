//! `/initialSync`, `/events` and their like.

use super::*;

async fn say(world: &World, room: &str, by: &Person, body: &str) -> String {
    let path = in_room(room, &format!("send/m.room.message/{body}"));
    let sent = world.put(&path, by, json!({"msgtype": "m.text", "body": body})).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

fn bodies(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

#[tokio::test]
async fn a_room_can_be_had_in_one_answer() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat", "visibility": "public"})).await;
    for body in ["one", "two", "three"] {
        say(&world, &room, &ann, body).await;
    }
    let tag = format!("/user/{}/rooms/{}/tags/work", pct(&ann.id), pct(&room));
    world.put(&tag, &ann, json!({"order": 0.5})).await.ok();
    let path = in_room(&room, "initialSync?limit=2");
    let info = world.get(&path, &ann).await.ok();
    assert_eq!(
        (&info["room_id"], &info["membership"], &info["visibility"]),
        (&json!(room), &json!("join"), &json!("public"))
    );
    assert_eq!(bodies(&info["messages"]["chunk"]), ["two", "three"]);
    assert_eq!(info["account_data"], json!([{"type": "m.tag", "content": {"tags": {"work": {"order": 0.5}}}}]));
    assert!(info["state"].as_array().unwrap().iter().any(|event| event["type"] == "m.room.create"), "{info}");
    let start = info["messages"]["start"].as_str().unwrap();
    let earlier = world.get(&in_room(&room, &format!("messages?dir=b&limit=1&from={start}")), &ann).await.ok();
    assert_eq!(bodies(&earlier["chunk"]), ["one"]);
    assert_eq!(world.get(&path, &bob).await.verdict(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn what_ignored_users_say_is_in_no_answer() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    say(&world, &room, &ann, "own").await;
    say(&world, &room, &bob, "unheard").await;
    let ignored = format!("/user/{}/account_data/m.ignored_user_list", pct(&ann.id));
    world.put(&ignored, &ann, json!({"ignored_users": {&bob.id: {}}})).await.ok();
    let info = world.get(&in_room(&room, "initialSync"), &ann).await.ok();
    assert_eq!(bodies(&info["messages"]["chunk"]), ["own"]);
    let chunk = info["messages"]["chunk"].as_array().unwrap();
    assert!(chunk.iter().any(|event| event["state_key"] == json!(bob.id)), "state is shown: {info}");
    let all = world.get("/initialSync", &ann).await.ok();
    assert_eq!(bodies(&all["rooms"][0]["messages"]["chunk"]), ["own"]);
}

#[tokio::test]
async fn who_peeks_has_no_membership() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let visibility = json!({"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}});
    let room = world.create_room(&ann, json!({"initial_state": [visibility]})).await;
    say(&world, &room, &ann, "open").await;
    let info = world.get(&in_room(&room, "initialSync"), &bob).await.ok();
    assert_eq!((bodies(&info["messages"]["chunk"]), info.get("membership")), (vec!["open"], None));
}

#[tokio::test]
async fn the_old_stream_begins_where_the_first_answer_ends() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"name": "Garden"})).await;
    let theirs = world.create_room(&bob, json!({"invite": [ann.id]})).await;
    let gone = world.create_room(&ann, json!({})).await;
    world.post(&in_room(&gone, "leave"), &ann, json!({})).await.ok();
    say(&world, &room, &ann, "first").await;

    let all = world.get("/initialSync?limit=1", &ann).await.ok();
    assert_eq!(all["presence"], json!([]));
    let rooms = all["rooms"].as_array().unwrap();
    let find = |id: &str| rooms.iter().find(|info| info["room_id"] == id);
    let joined = find(&room).unwrap();
    assert_eq!(joined["membership"], "join");
    assert_eq!(bodies(&joined["messages"]["chunk"]), ["first"]);
    assert_eq!(joined["messages"]["chunk"][0]["room_id"], room);
    let state = joined["state"].as_array().unwrap();
    assert!(state.iter().any(|event| event["content"]["name"] == "Garden"), "{joined}");
    let invited = find(&theirs).unwrap();
    assert_eq!(
        (&invited["membership"], &invited["invite"]["content"]["membership"]),
        (&json!("invite"), &json!("invite"))
    );
    assert!(find(&gone).is_none());
    let archived = world.get("/initialSync?archived=true", &ann).await.ok();
    let left = archived["rooms"].as_array().unwrap().iter().find(|info| info["room_id"] == gone.as_str());
    assert_eq!(left.unwrap()["membership"], "leave");

    let end = all["end"].as_str().unwrap();
    let id = say(&world, &room, &ann, "second").await;
    let news = world.get(&format!("/events?from={end}"), &ann).await.ok();
    assert_eq!((&news["start"], bodies(&news["chunk"])), (&json!(end), vec!["second"]));
    assert_eq!(news["chunk"][0]["room_id"], room);
    let end = news["end"].as_str().unwrap();
    assert_eq!(world.get(&format!("/events?from={end}"), &ann).await.ok()["chunk"], json!([]));
    assert_eq!(world.get("/events?from=x", &ann).await.verdict(), (400, "M_INVALID_PARAM"));
    let elsewhere = format!("/events?room_id={}", pct(&theirs));
    assert_eq!(world.get(&elsewhere, &ann).await.verdict(), (403, "M_FORBIDDEN"));

    let one = world.get(&format!("/events/{}", pct(&id)), &ann).await.ok();
    assert_eq!((&one["event_id"], &one["room_id"]), (&json!(id), &json!(room)));
    assert_eq!(world.get(&format!("/events/{}", pct(&id)), &bob).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(world.get("/events/%24none", &ann).await.verdict(), (404, "M_NOT_FOUND"));
}
