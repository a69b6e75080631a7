//! The directory and summaries.

use super::*;

fn names(page: &Value) -> Vec<&str> {
    page["chunk"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap_or("-")).collect()
}

async fn published(world: &World, by: &Person, name: &str, members: &[&Person]) -> String {
    let body = json!({"preset": "public_chat", "visibility": "public", "name": name, "topic": format!("about {name}")});
    let room = world.create_room(by, body).await;
    for member in members {
        world.post(&in_room(&room, "join"), member, json!({})).await.ok();
    }
    room
}

#[tokio::test]
async fn the_directory_lists_published_rooms_largest_first_in_pages() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let small = published(&world, &ann, "Small", &[]).await;
    published(&world, &ann, "Large", &[&bob]).await;
    world.create_room(&ann, json!({"name": "Hidden"})).await;
    let whole = world.open(Method::GET, "/publicRooms", json!({})).await.ok();
    assert_eq!(names(&whole), ["Large", "Small"]);
    assert_eq!(whole["total_room_count_estimate"], 2);
    let room = &whole["chunk"][1];
    assert_eq!(room["room_id"], json!(small));
    assert_eq!((&room["num_joined_members"], &room["join_rule"]), (&json!(1), &json!("public")));
    assert_eq!((&room["world_readable"], &room["guest_can_join"]), (&json!(false), &json!(false)));
    assert_eq!(room["topic"], "about Small");

    let first = world.get("/publicRooms?limit=1", &ann).await.ok();
    assert_eq!(names(&first), ["Large"]);
    assert_eq!(first["prev_batch"], Value::Null);
    let next = pct(first["next_batch"].as_str().unwrap());
    let second = world.get(&format!("/publicRooms?limit=1&since={next}"), &ann).await.ok();
    assert_eq!(names(&second), ["Small"]);
    assert_eq!(second["next_batch"], Value::Null);
    let back = pct(second["prev_batch"].as_str().unwrap());
    assert_eq!(names(&world.get(&format!("/publicRooms?limit=1&since={back}"), &ann).await.ok()), ["Large"]);
    for wrong in ["since=zzz", "limit=-1"] {
        let answer = world.get(&format!("/publicRooms?{wrong}"), &ann).await;
        assert_eq!(answer.verdict(), (400, "M_INVALID_PARAM"), "{wrong}");
    }
    let elsewhere = world.get("/publicRooms?server=other.test", &ann).await;
    assert_eq!(elsewhere.verdict(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn the_directory_is_searched_by_words_and_types() {
    let world = World::new();
    let ann = world.register("ann").await;
    published(&world, &ann, "Gardens", &[]).await;
    let space = json!({"visibility": "public", "name": "Space", "creation_content": {"type": "m.space"}});
    world.create_room(&ann, space).await;
    let find = async |filter: Value| world.post("/publicRooms", &ann, json!({"filter": filter})).await.ok();
    assert_eq!(names(&find(json!({"generic_search_term": "GARDEN"})).await), ["Gardens"]);
    assert_eq!(names(&find(json!({"generic_search_term": "about g"})).await), ["Gardens"], "in the topic");
    assert!(names(&find(json!({"generic_search_term": "nowhere"})).await).is_empty());
    assert_eq!(names(&find(json!({"room_types": ["m.space"]})).await), ["Space"]);
    assert_eq!(names(&find(json!({"room_types": [null]})).await), ["Gardens"]);
    assert_eq!(names(&find(json!({})).await).len(), 2);
    let open = world.open(Method::POST, "/publicRooms", json!({})).await;
    assert_eq!(open.verdict(), (401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn who_may_set_the_alias_publishes_the_room() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let path = format!("/directory/list/room/{}", pct(&room));
    assert_eq!(world.open(Method::GET, &path, json!({})).await.ok()["visibility"], "private");
    assert_eq!(world.put(&path, &bob, json!({})).await.verdict(), (403, "M_FORBIDDEN"), "not in it");
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    assert_eq!(world.put(&path, &bob, json!({})).await.verdict(), (403, "M_FORBIDDEN"), "no power");
    world.put(&path, &ann, json!({})).await.ok();
    assert_eq!(world.get(&path, &ann).await.ok()["visibility"], "public");
    assert_eq!(world.put(&path, &ann, json!({"visibility": "odd"})).await.verdict(), (400, "M_BAD_JSON"));
    world.put(&path, &ann, json!({"visibility": "private"})).await.ok();
    assert!(names(&world.get("/publicRooms", &ann).await.ok()).is_empty());
    let unknown = "/directory/list/room/!nowhere:hs.test";
    assert_eq!(world.get(unknown, &ann).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(world.put(unknown, &ann, json!({})).await.verdict(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn a_summary_is_for_who_could_come_in() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let closed = world.create_room(&ann, json!({"name": "Closed"})).await;
    let open = json!({"preset": "public_chat", "name": "Open", "room_alias_name": "open"});
    world.create_room(&ann, open).await;
    let restricted = json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": closed}]});
    let rules = json!([{"type": "m.room.join_rules", "content": restricted}]);
    let part = world.create_room(&ann, json!({"name": "Part", "initial_state": rules})).await;
    let summary = async |room: &str, by: &Person| {
        world.raw(Method::GET, &format!("/_matrix/client/v1/room_summary/{}", pct(room)), Some(by), "").await
    };
    let shown = summary("#open:hs.test", &bob).await.ok();
    assert_eq!((&shown["name"], &shown["room_version"]), (&json!("Open"), &json!("12")));
    assert_eq!(shown["membership"], Value::Null);
    assert_eq!(summary("#open:hs.test", &ann).await.ok()["membership"], "join");
    assert_eq!(summary(&closed, &bob).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(summary(&part, &bob).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(summary("#none:hs.test", &bob).await.verdict(), (404, "M_NOT_FOUND"));
    world.post(&in_room(&closed, "invite"), &ann, json!({"user_id": bob.id})).await.ok();
    assert_eq!(summary(&closed, &bob).await.ok()["membership"], "invite");
    world.post(&in_room(&closed, "join"), &bob, json!({})).await.ok();
    let shown = summary(&part, &bob).await.ok();
    assert_eq!((&shown["join_rule"], &shown["allowed_room_ids"]), (&json!("restricted"), &json!([closed])));
}

#[tokio::test]
async fn the_event_nearest_to_a_time_is_named() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({})).await;
    let find = async |query: &str, by: &Person| {
        let path = format!("/_matrix/client/v1{}", in_room(&room, &format!("timestamp_to_event?{query}")));
        world.raw(Method::GET, &path, Some(by), "").await
    };
    let first = find("ts=5&dir=f", &ann).await.ok();
    let shown = world.get(&in_room(&room, &format!("event/{}", pct(first["event_id"].as_str().unwrap()))), &ann).await;
    let shown = shown.ok();
    assert_eq!(shown["type"], "m.room.create");
    assert_eq!(shown["origin_server_ts"], first["origin_server_ts"]);
    assert_eq!(find("ts=5&dir=b", &ann).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(find("ts=5", &ann).await.verdict(), (400, "M_MISSING_PARAM"));
    assert_eq!(find("dir=f", &ann).await.verdict(), (400, "M_MISSING_PARAM"));
    assert_eq!(find("ts=soon&dir=f", &ann).await.verdict(), (400, "M_INVALID_PARAM"));
    assert_eq!(find("ts=5&dir=f", &bob).await.verdict(), (403, "M_FORBIDDEN"));
}
