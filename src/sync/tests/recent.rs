//! Many who wait for one message, with tokens of different age: what one has read is not read again.

use std::sync::Arc;

use hearth_rooms::SendEvent;
use hearth_schema::Membership;
use serde_json::json;

use super::counting::{CountingStore, reads_of_news};
use crate::testing::*;

const ALL: &str = r#"{"room":{"timeline":{"limit":100}}}"#;
const ONE: &str = r#"{"room":{"timeline":{"limit":1}}}"#;

#[tokio::test]
async fn everybody_is_given_what_came_after_the_own_token() {
    let world = World::new();
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let room_id = world.room(&alice, &[&bob, &carol]).await;
    let mut tokens = Vec::new();
    for n in 0..5 {
        tokens.push(next(&world.now(&bob, None, ALL).await));
        world.say(&room_id, &alice, &n.to_string()).await;
    }
    let expected = |from: usize| (from..5).map(|n| n.to_string()).collect::<Vec<_>>();
    // What has come by since they are here is in memory; whoever has an older token reads the store.
    for from in [2, 3, 4, 2, 0, 1, 4] {
        for who in [&bob, &carol] {
            let answer = world.now(who, Some(&tokens[from]), ALL).await;
            let room = joined(&answer, &room_id);
            assert_eq!(bodies(room), expected(from), "from {from}");
            assert_eq!(room["timeline"]["limited"], false, "from {from}");
        }
    }
    let answer = world.now(&carol, Some(&tokens[1]), ONE).await;
    let room = joined(&answer, &room_id);
    assert_eq!(bodies(room), ["4"]);
    assert_eq!(room["timeline"]["limited"], true, "a shorter limit holds for what is remembered, too");
    world.say(&room_id, &alice, "5").await;
    let answer = world.now(&bob, Some(&tokens[4]), ALL).await;
    assert_eq!(bodies(joined(&answer, &room_id)), ["4", "5"], "what is remembered ends with the next message");
}

#[tokio::test]
async fn who_waits_for_a_message_reads_nothing_of_the_store() {
    let store = CountingStore::default();
    let reads = Arc::clone(&store.reads);
    let world = World::on(Arc::new(store));
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let room_id = world.room(&alice, &[&bob, &carol]).await;
    // What does not change with a message is read by the first answer.
    for who in [&bob, &carol] {
        reads_of_news(&world, &reads, who, (&room_id, &alice)).await;
    }
    for who in [&bob, &carol] {
        assert_eq!(reads_of_news(&world, &reads, who, (&room_id, &alice)).await, 0);
    }
}

#[tokio::test]
async fn what_is_remembered_is_shown_redacted() {
    let world = World::new();
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let room_id = world.room(&alice, &[&bob, &carol]).await;
    let since = next(&world.now(&bob, None, ALL).await);
    let event_id = world.say(&room_id, &alice, "secret").await;
    assert_eq!(bodies(joined(&world.now(&bob, Some(&since), ALL).await, &room_id)), ["secret"]);
    let redaction = SendEvent {
        room_id: room_id.clone(),
        sender: alice.user_id.clone(),
        event_type: "m.room.redaction".into(),
        state_key: None,
        content: object(json!({ "redacts": event_id })),
        redacts: Some(event_id.as_str().try_into().expect("an event ID")),
        origin_server_ts: None,
        transaction: None,
    };
    world.rooms.send(redaction).await.expect("sent");
    for who in [&carol, &bob] {
        let answer = world.now(who, Some(&since), ALL).await;
        assert_eq!(bodies(joined(&answer, &room_id)), ["m.room.message", "m.room.redaction"]);
    }
}

#[tokio::test]
async fn who_comes_back_is_told_the_membership_at_each_event() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    world.say(&room_id, &alice, "before").await;
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    world.say(&room_id, &alice, "in").await;
    world.change(&room_id, &bob, &bob, Membership::Leave).await;
    world.say(&room_id, &alice, "out").await;
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    world.say(&room_id, &alice, "again").await;
    let answer = world.now(&bob, None, ALL).await;
    let events = joined(&answer, &room_id)["timeline"]["events"].as_array().expect("events").clone();
    let memberships: Vec<_> = events
        .iter()
        .filter_map(|event| Some((event["content"]["body"].as_str()?, event["unsigned"]["membership"].as_str()?)))
        .collect();
    assert_eq!(memberships, [("before", "leave"), ("in", "join"), ("out", "leave"), ("again", "join")]);
}
