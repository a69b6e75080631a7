//! Joining, talking, and what is seen of others.

use hearth_test_harness::pct;
use serde_json::json;

use crate::pair::Pair;
use crate::people::{Person, Side, agree, eventually, sees_history};

#[tokio::test]
async fn a_room_is_joined_by_its_alias_and_talked_in() {
    let pair = Pair::new().await;
    for (here, there) in pair.both_ways() {
        talk(&here, &there).await;
    }
}

async fn talk(here: &Side, there: &Side) {
    let (alice, bob) = (here.person("alice").await, there.person("bob").await);
    let local = format!("talk-{}", alice.user.name);
    let room = alice.create(&json!({"preset": "public_chat", "room_alias_name": local, "name": "Talk"})).await;
    bob.join(&format!("#{local}:{}", here.name), here).await;
    alice.sees_membership(&room, &bob, "join").await;

    let hello = alice.say(&room, "hello").await;
    assert_eq!(bob.sees(&room, &hello).await["content"]["body"], "hello");
    let answer = bob.say(&room, "hello to you").await;
    let seen = alice.sees(&room, &answer).await;
    assert_eq!((&seen["content"]["body"], &seen["sender"]), (&json!("hello to you"), &json!(bob.id())));

    let topic = alice.set_state(&room, "m.room.topic", "", &json!({"topic": "manners"})).await;
    bob.sees(&room, &topic).await;
    let levels = json!({"users": {alice.id(): 100, bob.id(): 50}, "state_default": 50});
    // From version 12 on, creators have no place in the levels.
    let levels = if creators_are_above(&alice, &room).await {
        json!({"users": {bob.id(): 50}, "state_default": 50})
    } else {
        levels
    };
    let levels = alice.set_state(&room, "m.room.power_levels", "", &levels).await;
    bob.sees(&room, &levels).await;
    let name = bob.set_state(&room, "m.room.name", "", &json!({"name": "Polite talk"})).await;
    alice.sees(&room, &name).await;

    let redaction = alice.redact(&room, &answer).await;
    bob.sees(&room, &redaction).await;
    bob.sees_redacted(&room, &answer).await;
    bob.redact(&room, &hello).await;
    alice.sees_redacted(&room, &hello).await;
    let state = agree(&room, &alice, &bob).await;
    assert_eq!(state[&("m.room.name".to_owned(), String::new())], name);
}

async fn creators_are_above(creator: &Person, room: &str) -> bool {
    let create = creator.get(&format!("/rooms/{}/state/m.room.create", pct(room))).await.body;
    create["room_version"] == "12"
}

#[tokio::test]
async fn typing_receipts_and_presence_cross() {
    let pair = Pair::new().await;
    for (here, there) in pair.both_ways() {
        let (alice, bob) = (here.person("alice").await, there.person("bob").await);
        let room = alice.create_public("10").await;
        bob.join(&room, &here).await;
        let message = alice.say(&room, "read this").await;
        bob.sees(&room, &message).await;

        // Who comes when it is over is not told of its end.
        let mut since = bob.syncs("a token", |sync| Some(crate::people::field(sync, "next_batch"))).await;
        let typing = format!("/rooms/{}/typing/{}", pct(&room), pct(alice.id()));
        alice.put(&typing, &json!({"typing": true, "timeout": 60000})).await;
        bob.notices(&mut since, &room, |event| {
            event["type"] == "m.typing" && event["content"]["user_ids"] == json!([alice.id()])
        })
        .await;
        alice.put(&typing, &json!({"typing": false})).await;
        bob.notices(&mut since, &room, |event| {
            event["type"] == "m.typing" && event["content"]["user_ids"] == json!([])
        })
        .await;

        let path = format!("/rooms/{}/receipt/m.read/{}", pct(&room), pct(&message));
        bob.post(&path, &json!({})).await.expect_status(200).expect("receipts are taken");
        let read = |event: &serde_json::Value| event["content"][&message]["m.read"][bob.id()]["ts"].is_number();
        alice.notices(&mut String::new(), &room, read).await;

        let status = json!({"presence": "online", "status_msg": "counting sheep"});
        alice.put(&format!("/presence/{}/status", pct(alice.id())), &status).await;
        bob.syncs("presence", |sync| {
            let events = sync["presence"]["events"].as_array()?;
            events
                .iter()
                .any(|event| event["sender"] == alice.id() && event["content"]["status_msg"] == "counting sheep")
                .then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn history_is_fetched_when_somebody_scrolls_back() {
    let pair = Pair::new().await;
    for (here, there) in pair.both_ways() {
        let (alice, bob) = (here.person("alice").await, there.person("bob").await);
        let room = alice.create_public("11").await;
        let mut sent = Vec::new();
        for number in 0..60 {
            sent.push(alice.say(&room, &format!("message {number}")).await);
        }
        bob.join(&room, &here).await;
        sees_history(&bob, &room, &sent).await;
    }
}

#[tokio::test]
async fn rooms_aliases_and_profiles_are_looked_up() {
    let pair = Pair::new().await;
    for (here, there) in pair.both_ways() {
        let (alice, bob) = (here.person("alice").await, there.person("bob").await);
        alice.put(&format!("/profile/{}/displayname", pct(alice.id())), &json!({"displayname": "Alice A."})).await;
        let local = format!("known-{}", alice.user.name);
        let body = json!({"preset": "public_chat", "visibility": "public", "room_alias_name": local, "name": local});
        let room = alice.create(&body).await;

        eventually("the profile", async || {
            let profile = bob.get(&format!("/profile/{}", pct(alice.id()))).await.expect_status(200)?.body;
            if profile["displayname"] == "Alice A." { Ok(()) } else { Err(profile.to_string()) }
        })
        .await;
        let nobody = bob.get(&format!("/profile/{}", pct(&format!("@nobody:{}", here.name)))).await;
        assert_eq!((nobody.status, nobody.errcode()), (404, "M_NOT_FOUND"));

        let alias = format!("#{local}:{}", here.name);
        let found = bob.get(&format!("/directory/room/{}", pct(&alias))).await.expect_status(200).expect("the alias");
        assert_eq!(found.body["room_id"], room.as_str());
        assert_eq!(found.body["servers"], json!([here.name]));
        let nowhere = bob.get(&format!("/directory/room/{}", pct(&format!("#nowhere:{}", here.name)))).await;
        assert_eq!((nowhere.status, nowhere.errcode()), (404, "M_NOT_FOUND"));

        eventually("the room in the other server's directory", async || {
            let body = json!({"limit": 50, "filter": {"generic_search_term": local}});
            let rooms =
                bob.post(&format!("/publicRooms?server={}", pct(&here.name)), &body).await.expect_status(200)?;
            let listed = rooms.body["chunk"].as_array().is_some_and(|chunk| {
                chunk
                    .iter()
                    .any(|entry| entry["room_id"] == room.as_str() && entry["canonical_alias"] == alias.as_str())
            });
            if listed { Ok(()) } else { Err(rooms.text) }
        })
        .await;
    }
}
