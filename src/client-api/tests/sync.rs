//! `/sync` as clients ask for it.

use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn state_after_comes_under_the_name_that_was_asked_for() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let unstable = "org.matrix.msc4222.use_state_after";
    for (query, key) in [
        ("".to_owned(), "state"),
        ("use_state_after=false".to_owned(), "state"),
        ("use_state_after=true".to_owned(), "state_after"),
        (format!("{unstable}=true"), "org.matrix.msc4222.state_after"),
        (format!("use_state_after=true&{unstable}=true"), "state_after"),
    ] {
        let seen = world.get(&format!("/sync?{query}"), &ann).await.ok();
        let keys = seen["rooms"]["join"][&room].as_object().unwrap().keys().filter(|key| key.contains("state"));
        assert_eq!(keys.collect::<Vec<_>>(), [key], "{query}");
    }
    let odd = world.get(&format!("/sync?{unstable}=maybe"), &ann).await;
    assert_eq!(odd.verdict(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn filters_that_cannot_be_used_are_refused_wherever_they_are_taken() {
    let world = World::new();
    let ann = world.register("ann").await;
    for filter in [
        json!({"event_fields": "type"}),
        json!({"event_format": "xml"}),
        json!({"room": {"timeline": {"rooms": ["not_a_room_id"]}}}),
        json!({"room": {"timeline": {"senders": ["not_a_sender_id"]}}}),
        json!({"room": {"rooms": ["not_a_room_id"]}}),
        json!({"presence": {"types": 5}}),
        json!({"account_data": {"limit": "ten"}}),
        json!({"room": {"include_leave": "yes"}}),
    ] {
        let inline = world.get(&format!("/sync?filter={}", pct(&filter.to_string())), &ann).await;
        assert_eq!(inline.verdict(), (400, "M_BAD_JSON"), "{filter}");
        let stored = world.post(&format!("/user/{}/filter", pct(&ann.id)), &ann, filter.clone()).await;
        assert_eq!(stored.verdict(), (400, "M_BAD_JSON"), "{filter}");
    }
    assert_eq!(world.get("/sync?filter=7", &ann).await.verdict(), (400, "M_INVALID_PARAM"));
    world.get("/sync?filter=", &ann).await.ok();
    let wanted = json!({"event_fields": ["type"], "room": {"timeline": {"limit": 1}}});
    let stored = world.post(&format!("/user/{}/filter", pct(&ann.id)), &ann, wanted).await.ok();
    let room = world.create_room(&ann, json!({})).await;
    let seen = world.get(&format!("/sync?filter={}", stored["filter_id"].as_str().unwrap()), &ann).await.ok();
    let events = &seen["rooms"]["join"][&room]["timeline"]["events"];
    assert_eq!(events.as_array().map(Vec::len), Some(1));
    assert_eq!(events[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["type"]);
}

#[tokio::test]
async fn a_log_out_ends_the_poll_with_401() {
    let world = World::new();
    let ann = world.register("ann").await;
    world.create_room(&ann, json!({})).await;
    let since = world.get("/sync", &ann).await.ok()["next_batch"].as_str().unwrap().to_owned();
    let path = format!("/sync?since={since}&timeout=30000");
    let log_out = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.post("/logout", &ann, json!({})).await.ok();
    };
    let both = async { tokio::join!(world.get(&path, &ann), log_out) };
    let (ended, ()) = timeout(Duration::from_secs(5), both).await.expect("at once");
    assert_eq!(ended.verdict(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(ended.body["soft_logout"], json!(false));
}

#[tokio::test]
async fn each_event_says_what_its_reader_was_then() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.put(&in_room(&room, "send/m.room.message/1"), &ann, json!({"body": "before"})).await.ok();
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    world.put(&in_room(&room, "send/m.room.message/2"), &ann, json!({"body": "after"})).await.ok();
    let seen = world.get("/sync", &bob).await.ok();
    let events = seen["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap();
    let own = events.iter().position(|event| event["state_key"] == json!(bob.id)).unwrap();
    assert!(own > 0 && own + 2 == events.len());
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event["unsigned"]["membership"], if i < own { "leave" } else { "join" }, "{event}");
    }
}

#[tokio::test]
async fn the_first_timeline_leads_to_the_members_of_its_beginning() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let seen = world.get("/sync", &ann).await.ok();
    let prev = seen["rooms"]["join"][&room]["timeline"]["prev_batch"].as_str().unwrap().to_owned();
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let members = world.get(&in_room(&room, &format!("members?at={prev}")), &ann).await.ok();
    let chunk = members["chunk"].as_array().unwrap();
    assert_eq!(chunk.iter().map(|event| &event["state_key"]).collect::<Vec<_>>(), [&json!(ann.id)]);
}

#[tokio::test]
async fn the_state_around_an_event_obeys_the_filter() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let sent = world.put(&in_room(&room, "send/m.room.message/1"), &ann, json!({"body": "hello"})).await.ok();
    let state = async |filter: Value| -> Vec<String> {
        let path =
            format!("context/{}?limit=0&filter={}", pct(sent["event_id"].as_str().unwrap()), pct(&filter.to_string()));
        let got = world.get(&in_room(&room, &path), &ann).await.ok();
        let key =
            |event: &Value| format!("{} {}", event["type"].as_str().unwrap(), event["state_key"].as_str().unwrap());
        got["state"].as_array().unwrap().iter().map(key).collect()
    };
    let members =
        |state: Vec<String>| state.into_iter().filter(|key| key.starts_with("m.room.member ")).collect::<Vec<_>>();
    assert_eq!(members(state(json!({})).await).len(), 2);
    let lazy = state(json!({"lazy_load_members": true})).await;
    assert!(lazy.contains(&"m.room.create ".to_owned()));
    assert_eq!(members(lazy), [format!("m.room.member {}", ann.id)]);
    assert_eq!(state(json!({"types": ["m.room.create"]})).await, ["m.room.create "]);
}
