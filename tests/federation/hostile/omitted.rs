//! A ban that the server that lets somebody in does not tell.

use hearth_test_harness::{Asked, Hostile, Reply, Room, now, pct};
use serde_json::{Value, json};

use super::lying::{join, let_in, template};
use super::scene::Scene;
use crate::people::{Person, eventually};

/// Answers what may be asked about the state of `room` and its events.
fn tells(server: &Hostile, room: &Room) {
    let ids = |events: &[Value]| -> Vec<String> { events.iter().map(|event| room.received(event).id).collect() };
    let (state, chain) = (room.state_events(), room.auth_chain());
    server.answer("/state_ids/", Reply::json(&json!({"pdu_ids": ids(&state), "auth_chain_ids": ids(&chain)})));
    server.answer("/state/", Reply::json(&json!({"pdus": state, "auth_chain": chain})));
    server.answer("/get_missing_events/", Reply::json(&json!({"events": []})));
    let (events, name) = (room.events.clone(), server.name().to_owned());
    server.script(move |asked: &Asked| {
        let path = asked.decoded();
        let id = path.strip_prefix("/_matrix/federation/v1/event/")?;
        let event = events.get(id)?.json();
        Some(Reply::json(&json!({"origin": name, "origin_server_ts": now(), "pdus": [event]})))
    });
}

async fn membership(alice: &Person, room: &str, whom: &str) -> Result<Value, String> {
    let path = format!("/rooms/{}/state/m.room.member/{}", pct(room), pct(whom));
    Ok(alice.get(&path).await.expect_status(200)?.body["membership"].clone())
}

#[tokio::test]
async fn a_ban_that_was_left_out_comes_with_what_others_send() {
    let scene = Scene::new().await;
    let (mal, honest) = (&scene.mal, Hostile::start());
    let (mallory, carol) = (mal.user("mallory"), honest.user("carol"));
    for whom in ["somebody", "who joins"] {
        let alice = scene.side().person("alice").await;
        let eve = mal.user("eve");
        let banned = if whom == "somebody" { eve.as_str() } else { alice.id() };
        let mut room = Room::create(mal, &mallory, 11);
        let joined = room.event("m.room.member", Some(&carol), &carol, &json!({"membership": "join"}));
        room.send(&honest, &joined);
        let before = room.clone();
        let ban = room.event("m.room.member", Some(banned), &mallory, &json!({"membership": "ban"}));
        room.send(mal, &ban);
        tells(&honest, &room);

        mal.answer("/make_join/", Reply::json(&template(&before, alice.id(), "join")));
        mal.answer("/send_join/", Reply::json(&let_in(&before, mal)));
        assert_eq!(join(&alice, &room.id, mal).await.status, 200, "the lie is not to be seen");
        assert_eq!(membership(&alice, &room.id, alice.id()).await, Ok(json!("join")));

        // An event that stands on the ban. Its state is asked for, and resolved with what was told.
        let hello = room.message(&carol, "hello");
        let hello = room.send(&honest, &hello);
        let body = json!({"origin": honest.name(), "origin_server_ts": now(), "pdus": [hello.json()], "edus": []});
        let uri = format!("/_matrix/federation/v1/send/{}", pct(&hello.id));
        let answer = honest.put(&scene.name(), &uri, &body).ok().await;
        assert_eq!(answer["pdus"][&hello.id], json!({}), "{answer}");
        eventually(format!("the ban of {whom}"), async || {
            if whom == "who joins" {
                let rooms = alice.get("/joined_rooms").await.expect_status(200)?.body;
                return if rooms.to_string().contains(&room.id) { Err(rooms.to_string()) } else { Ok(()) };
            }
            let shown = membership(&alice, &room.id, banned).await?;
            if shown == "ban" { Ok(()) } else { Err(shown.to_string()) }
        })
        .await;
        let said = alice.try_say(&room.id, "am I in?").await;
        let wanted = if whom == "somebody" { 200 } else { 403 };
        assert_eq!(said.status, wanted, "{whom}: {}", said.text);
    }
    scene.end().await;
}
