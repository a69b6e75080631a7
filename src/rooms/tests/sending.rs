//! Sending: order, repetition, refusal, redaction.

use std::collections::HashSet;

use hearth_event::RoomVersion;
use hearth_schema::Membership;
use serde_json::json;

use super::fixture::{Fixture, creation, message, object, user};
use crate::{CreateError, CreateRoom, Preset, SendError, SendEvent};

#[tokio::test]
async fn what_was_sent_is_there_in_order_also_after_a_restart() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    for n in 0..5 {
        fixture.say(&room, &user("alice"), &format!("message {n}"), &format!("t{n}")).await.expect("sent");
    }
    let fixture = fixture.restarted().await;
    fixture.say(&room, &user("alice"), "message 5", "t5").await.expect("sent");
    let history = fixture.history(&room, &user("alice")).await;
    let expected: Vec<String> = (0..6).map(|n| format!("message {n}")).collect();
    assert_eq!(history[history.len() - 6..], expected);
    assert_eq!(history[0], "m.room.create");
}

#[tokio::test]
async fn the_same_transaction_gives_the_same_event_also_after_a_restart() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    let first = fixture.say(&room, &user("alice"), "once", "t").await.expect("sent");
    let again = fixture.say(&room, &user("alice"), "once", "t").await.expect("sent");
    assert_eq!(again.event_id, first.event_id);
    let fixture = fixture.restarted().await;
    let later = fixture.say(&room, &user("alice"), "once", "t").await.expect("sent");
    assert_eq!(later.event_id, first.event_id);
    let shown = fixture.history(&room, &user("alice")).await;
    assert_eq!(shown.iter().filter(|label| *label == "once").count(), 1);
}

#[tokio::test]
async fn many_senders_at_once_lose_and_double_nothing_on_a_store_that_misbehaves() {
    for seed in 0..6 {
        let fixture = Fixture::on_chaos(seed);
        let room = fixture.room(Preset::PublicChat).await;
        let sends = (0..120).map(|n| {
            // Every third transaction is sent twice at the same time.
            let txn = format!("t{}", if n % 3 == 0 { n } else { n - n % 3 });
            fixture.rooms.send(message(&room, &user("alice"), &txn, &txn))
        });
        let results = futures::future::join_all(sends).await;
        let ids: HashSet<_> = results.into_iter().map(|sent| sent.expect("sent").event_id).collect();
        assert_eq!(ids.len(), 40, "seed {seed}");
        let history = fixture.history(&room, &user("alice")).await;
        let mut bodies: Vec<_> = history.into_iter().filter(|label| !label.starts_with("m.")).collect();
        assert_eq!(bodies.len(), 40, "seed {seed}");
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), 40, "seed {seed}");
    }
}

#[tokio::test]
async fn who_is_not_in_the_room_cannot_send_and_nothing_is_stored() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    let before = fixture.store.frontier();
    let refused = fixture.say(&room, &user("eve"), "let me in", "t").await;
    assert!(matches!(refused, Err(SendError::Forbidden(_))), "{refused:?}");
    let nowhere = ruma_common::RoomId::parse("!nowhere:hearth.test").expect("valid");
    assert!(matches!(fixture.say(&nowhere, &user("alice"), "hello?", "t").await, Err(SendError::UnknownRoom)));
    assert_eq!(fixture.store.frontier(), before);
}

#[tokio::test]
async fn a_redaction_takes_the_content_away_and_only_who_may_can_redact() {
    for version in RoomVersion::all() {
        let fixture = Fixture::new();
        let create = CreateRoom { version: Some(version), ..creation(Preset::PublicChat) };
        let room = fixture.rooms.create(create).await.expect("a room");
        let (alice, bob) = (user("alice"), user("bob"));
        fixture.change(&room, (&bob, &bob), Membership::Join).await.expect("joined");
        let secret = fixture.say(&room, &alice, "secret", "t1").await.expect("sent");
        let redaction = |sender: &ruma_common::UserId| SendEvent {
            event_type: "m.room.redaction".into(),
            content: object(json!({ "reason": "oops" })),
            redacts: Some(secret.event_id.clone()),
            origin_server_ts: None,
            ..message(&room, sender, "", &format!("redact{sender}"))
        };
        let refused = fixture.rooms.send(redaction(&bob)).await;
        assert!(matches!(refused, Err(SendError::Forbidden(_))), "{version:?} {refused:?}");
        fixture.rooms.send(redaction(&alice)).await.expect("redacted");
        let shown = fixture.rooms.event(&bob, &room, &secret.event_id).await.expect("still there");
        assert!(!shown.pdu.json().windows(6).any(|part| part == b"secret"), "{version:?}");
        assert!(shown.redacted_by.is_some());
        let fixture = fixture.restarted().await;
        let shown = fixture.rooms.event(&bob, &room, &secret.event_id).await.expect("still there");
        assert!(!shown.pdu.json().windows(6).any(|part| part == b"secret"), "{version:?}");
        // The room goes on after a refusal in between.
        fixture.say(&room, &bob, "fine", "t9").await.expect("sent");
    }
}

#[tokio::test]
async fn every_preset_works_in_every_room_version() {
    for version in RoomVersion::all() {
        for preset in [Preset::PrivateChat, Preset::TrustedPrivateChat, Preset::PublicChat] {
            let fixture = Fixture::new();
            let bob = user("bob");
            let create = CreateRoom {
                version: Some(version),
                name: Some("Name".into()),
                topic: Some("Topic".into()),
                alias: Some("#room:hearth.test".try_into().expect("valid")),
                invite: vec![(bob.clone(), crate::MemberProfile::default())],
                ..creation(preset)
            };
            let room = fixture.rooms.create(create).await.expect("a room");
            fixture.change(&room, (&bob, &bob), Membership::Join).await.expect("joined");
            fixture.say(&room, &bob, "hello", "t").await.expect("sent");
            let state = fixture.rooms.full_state(&bob, &room).await.expect("state");
            // A public room says nothing of guests.
            let expected = if preset == Preset::PublicChat { 9 } else { 10 };
            assert_eq!(state.len(), expected, "{version:?} {preset:?}");
            let target = fixture.rooms.resolve_alias("#room:hearth.test".try_into().expect("valid")).await;
            assert_eq!(target.expect("readable").expect("known").room_id, room);
        }
    }
}

#[tokio::test]
async fn contradictory_power_levels_refuse_the_room_as_a_whole() {
    let fixture = Fixture::new();
    let before = fixture.store.frontier();
    let create = CreateRoom {
        alias: Some("#room:hearth.test".try_into().expect("valid")),
        power_level_content_override: Some(object(json!({ "users": { "@alice:hearth.test": 100 } }))),
        ..creation(Preset::PrivateChat)
    };
    // Version 12 does not let the creator be listed.
    let refused = fixture.rooms.create(create).await;
    assert!(matches!(refused, Err(CreateError::InvalidRoomState(_))), "{refused:?}");
    assert_eq!(fixture.store.frontier(), before);
}

#[tokio::test]
async fn an_alias_can_be_taken_once() {
    let fixture = Fixture::new();
    let create =
        || CreateRoom { alias: Some("#one:hearth.test".try_into().expect("valid")), ..creation(Preset::PrivateChat) };
    fixture.rooms.create(create()).await.expect("a room");
    assert!(matches!(fixture.rooms.create(create()).await, Err(CreateError::AliasInUse)));
}

#[tokio::test]
async fn the_same_state_again_is_the_same_event() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    let topic = |text: &str| SendEvent {
        origin_server_ts: None,
        event_type: "m.room.topic".into(),
        state_key: Some(String::new()),
        content: object(json!({ "topic": text })),
        transaction: None,
        ..message(&room, &user("alice"), "", "")
    };
    let first = fixture.rooms.send(topic("one")).await.expect("sent");
    let same = fixture.rooms.send(topic("one")).await.expect("sent");
    assert_eq!(first.event_id, same.event_id);
    let other = fixture.rooms.send(topic("two")).await.expect("sent");
    let shown = fixture.rooms.event(&user("alice"), &room, &other.event_id).await.expect("there");
    assert!(shown.replaces_state.is_some());
}
