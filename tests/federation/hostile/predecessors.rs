//! Rooms that say they have taken the place of others.

use hearth_test_harness::{Reply, Room, pct};
use serde_json::{Value, json};

use super::lying::{join, let_in, template};
use super::scene::Scene;
use crate::people::{Person, eventually};

async fn tags(person: &Person, room: &str) -> Value {
    let path = format!("/user/{}/rooms/{}/tags", pct(person.id()), pct(room));
    person.get(&path).await.expect_status(200).expect("tags").body["tags"].clone()
}

async fn push_rules(person: &Person) -> Value {
    person.get("/pushrules/").await.expect_status(200).expect("push rules").body["global"]["room"].clone()
}

#[tokio::test]
async fn a_room_takes_nothing_from_one_that_does_not_name_it() {
    let scene = Scene::new().await;
    let mal = &scene.mal;
    let alice = scene.side().person("alice").await;
    let (name, side) = (alice.id()[1..].split(':').next().expect("a name").to_owned(), scene.name());
    let body = json!({"preset": "public_chat", "room_version": "11", "room_alias_name": name, "visibility": "public"});
    let old = alice.create(&body).await;
    let alias = format!("#{name}:{side}");
    alice.put(&format!("/user/{}/rooms/{}/tags/u.work", pct(alice.id()), pct(&old)), &json!({"order": 0.5})).await;
    alice.put(&format!("/pushrules/global/room/{}", pct(&old)), &json!({"actions": []})).await;
    let rules = push_rules(&alice).await;

    let claims = |_: &str| json!({"predecessor": {"room_id": old, "event_id": "$last"}});
    let thief = Room::create_with(mal, &mal.user("mallory"), 11, claims);
    mal.answer("/make_join/", Reply::json(&template(&thief, alice.id(), "join")));
    mal.answer("/send_join/", Reply::json(&let_in(&thief, mal)));
    assert_eq!(join(&alice, &thief.id, mal).await.status, 200);

    // A successor that the room does name gets what it is due: by then the other has been looked at, too.
    let upgraded = alice.post(&format!("/rooms/{}/upgrade", pct(&old)), &json!({"new_version": "12"})).await;
    let new =
        upgraded.expect_status(200).expect("upgraded").body["replacement_room"].as_str().expect("an ID").to_owned();
    eventually("the tags go along", async || {
        let tags = tags(&alice, &new).await;
        if tags["u.work"].is_object() { Ok(()) } else { Err(tags.to_string()) }
    })
    .await;
    eventually("the push rule goes along", async || {
        let rules = push_rules(&alice).await;
        if rules.to_string().contains(&new) { Ok(()) } else { Err(rules.to_string()) }
    })
    .await;

    assert_eq!(tags(&alice, &thief.id).await, json!({}));
    assert!(!push_rules(&alice).await.to_string().contains(&thief.id), "before it was {rules}");
    let found =
        alice.get(&format!("/directory/room/{}", pct(&alias))).await.expect_status(200).expect("the alias").body;
    assert_eq!(found["room_id"], new, "the alias has gone to the real one");
    let listed = alice.get(&format!("/directory/list/room/{}", pct(&thief.id))).await;
    assert!(listed.status == 404 || listed.body["visibility"] == "private", "{}", listed.text);
    scene.end().await;
}

#[tokio::test]
async fn rooms_that_replace_themselves_or_each_other_lead_nowhere() {
    let scene = Scene::new().await;
    let mal = &scene.mal;
    let alice = scene.side().person("alice").await;
    let mallory = mal.user("mallory");
    let mut circle: Vec<Room> = Vec::new();
    // The first replaces itself, each further one the one before it; at the end the first is named as the last's.
    for n in 0..10 {
        let before = circle.last().map(|room| room.id.clone());
        let claims =
            |own: &str| json!({"predecessor": {"room_id": before.as_deref().unwrap_or(own), "event_id": "$x"}});
        circle.push(Room::create_with(mal, &mallory, 11, claims));
        assert_eq!(circle.len(), n + 1);
    }
    let ids: Vec<String> = circle.iter().map(|room| room.id.clone()).collect();
    for (n, room) in circle.iter_mut().enumerate() {
        let next = if n == 0 { &ids[0] } else { &ids[(n + 1) % ids.len()] };
        let tombstone =
            room.event("m.room.tombstone", Some(""), &mallory, &json!({"body": "gone", "replacement_room": next}));
        room.send(mal, &tombstone);
        mal.answer("/make_join/", Reply::json(&template(room, alice.id(), "join")));
        mal.answer("/send_join/", Reply::json(&let_in(room, mal)));
        assert_eq!(join(&alice, &room.id, mal).await.status, 200, "room {n}");
        alice
            .put(&format!("/user/{}/rooms/{}/tags/u.work", pct(alice.id()), pct(&room.id)), &json!({"order": 0.1}))
            .await;
    }
    // Whatever follows from it is done some time, and the server answers as ever.
    let own = alice.create_public("11").await;
    let said = alice.say(&own, "still here").await;
    alice.sees(&own, &said).await;
    let mut since = String::new();
    alice.syncs_since(&mut since, "her message", |sync| sync.to_string().contains(&said).then_some(())).await;
    scene.end().await;
}
