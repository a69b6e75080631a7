//! Reading: visibility, pages, states of the past.

use std::sync::Arc;
use std::time::Duration;

use hearth_base::Millis;
use hearth_schema::{Membership, ReceiptKind};
use hearth_store::Store;
use hearth_store::memory::MemoryStore;
use serde_json::{Value, json};

use super::fixture::{Fixture, creation, label, object, user};
use crate::{CreateRoom, Direction, InitialState, MembersFilter, NewReceipt, Preset, QueryError, Reader, ReceiptError};

async fn visibility_room(fixture: &Fixture, visibility: &str) -> ruma_common::OwnedRoomId {
    let state = InitialState {
        event_type: "m.room.history_visibility".into(),
        state_key: String::new(),
        content: object(json!({ "history_visibility": visibility })),
    };
    let create = CreateRoom { initial_state: vec![state], ..creation(Preset::PublicChat) };
    fixture.rooms.create(create).await.expect("a room")
}

#[tokio::test]
async fn history_visibility_decides_what_a_member_sees() {
    // Sent: before the invitation, while invited, while joined, after leaving.
    for (visibility, expected) in [
        ("world_readable", vec!["before", "invited", "joined", "after"]),
        ("shared", vec!["before", "invited", "joined"]),
        ("invited", vec!["invited", "joined"]),
        ("joined", vec!["joined"]),
    ] {
        let fixture = Fixture::new();
        let room = visibility_room(&fixture, visibility).await;
        let (alice, bob) = (user("alice"), user("bob"));
        let say = async |body: &str| drop(fixture.say(&room, &alice, body, body).await.expect("sent"));
        say("before").await;
        fixture.change(&room, (&alice, &bob), Membership::Invite).await.expect("invited");
        say("invited").await;
        fixture.change(&room, (&bob, &bob), Membership::Join).await.expect("joined");
        say("joined").await;
        let messages = |history: Vec<String>| -> Vec<String> {
            history.into_iter().filter(|label| !label.starts_with("m.")).collect()
        };
        let until_now: Vec<_> = expected.iter().copied().filter(|body| *body != "after").collect();
        assert_eq!(messages(fixture.history(&room, &bob).await), until_now, "{visibility}, joined");
        fixture.change(&room, (&bob, &bob), Membership::Leave).await.expect("left");
        say("after").await;
        assert_eq!(messages(fixture.history(&room, &bob).await), expected, "{visibility}, left");
        assert_eq!(messages(fixture.history(&room, &alice).await).len(), 4);
    }
}

#[tokio::test]
async fn who_never_was_in_the_room_reads_nothing() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    let (alice, eve) = (user("alice"), user("eve"));
    let sent = fixture.say(&room, &alice, "secret", "t").await.expect("sent");
    assert!(matches!(fixture.rooms.full_state(&eve, &room).await, Err(QueryError::Forbidden)));
    assert!(matches!(fixture.rooms.event(&eve, &room, &sent.event_id).await, Err(QueryError::NotFound)));
    let members = fixture.rooms.members(&eve, &room, &MembersFilter::default()).await;
    assert!(matches!(members, Err(QueryError::Forbidden)));
    // An invitation opens nothing until it is accepted, and turning it down neither.
    fixture.change(&room, (&alice, &eve), Membership::Invite).await.expect("invited");
    assert!(matches!(fixture.rooms.full_state(&eve, &room).await, Err(QueryError::Forbidden)));
    fixture.change(&room, (&eve, &eve), Membership::Leave).await.expect("turned down");
    assert!(matches!(fixture.rooms.full_state(&eve, &room).await, Err(QueryError::Forbidden)));
}

#[tokio::test]
async fn anybody_reads_a_world_readable_room_while_it_is_one() {
    let fixture = Fixture::new();
    let room = visibility_room(&fixture, "shared").await;
    let (alice, eve) = (user("alice"), user("eve"));
    let make = async |visibility: &str| {
        let event = crate::SendEvent {
            origin_server_ts: None,
            event_type: "m.room.history_visibility".into(),
            state_key: Some(String::new()),
            content: object(json!({ "history_visibility": visibility })),
            transaction: None,
            ..super::fixture::message(&room, &alice, "", "")
        };
        fixture.rooms.send(event).await.expect("sent");
    };
    let hidden = fixture.say(&room, &alice, "hidden", "t1").await.expect("sent");
    assert!(matches!(fixture.rooms.full_state(&eve, &room).await, Err(QueryError::Forbidden)));
    make("world_readable").await;
    let open = fixture.say(&room, &alice, "open", "t2").await.expect("sent");
    let seen = fixture.history(&room, &eve).await;
    assert!(seen.contains(&"open".to_owned()) && !seen.contains(&"hidden".to_owned()), "{seen:?}");
    fixture.rooms.event(&eve, &room, &open.event_id).await.expect("open to all");
    assert!(matches!(fixture.rooms.event(&eve, &room, &hidden.event_id).await, Err(QueryError::NotFound)));
    assert!(!fixture.rooms.full_state(&eve, &room).await.expect("open to all").is_empty());
    fixture.rooms.members(&eve, &room, &MembersFilter::default()).await.expect("open to all");
    assert!(matches!(fixture.rooms.joined_members(&eve, &room).await, Err(QueryError::Forbidden)), "members only");
    make("shared").await;
    assert!(matches!(fixture.rooms.full_state(&eve, &room).await, Err(QueryError::Forbidden)));
    assert!(matches!(fixture.rooms.event(&eve, &room, &open.event_id).await, Err(QueryError::NotFound)));
}

#[tokio::test]
async fn the_event_nearest_to_a_time_is_found_either_way() {
    let fixture = Fixture::new();
    let (room, other) = (fixture.room(Preset::PrivateChat).await, fixture.room(Preset::PrivateChat).await);
    let alice = user("alice");
    let start = 1_700_000_000_000;
    for minute in 1..=50 {
        fixture.clock.advance(Duration::from_secs(60));
        for (room, kind) in [(&other, "o"), (&room, "r")] {
            let body = format!("{kind}{minute}");
            fixture.say(room, &alice, &body, &body).await.expect("sent");
        }
    }
    let find = async |minutes: f64, direction: Direction| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
        let time = Millis(start + (minutes * 60_000.0) as u64);
        fixture.rooms.event_at_time(&alice, room.clone(), time, direction).await.map(|event| label(&event))
    };
    for minute in [1.0, 2.0, 25.0, 49.0, 50.0] {
        for direction in [Direction::Forward, Direction::Backward] {
            assert_eq!(find(minute, direction).await.expect("found"), format!("r{minute}"), "{direction:?}");
        }
    }
    assert_eq!(find(7.5, Direction::Forward).await.expect("found"), "r8");
    assert_eq!(find(7.5, Direction::Backward).await.expect("found"), "r7");
    assert_eq!(find(900.0, Direction::Backward).await.expect("found"), "r50");
    assert!(matches!(find(50.1, Direction::Forward).await, Err(QueryError::NotFound)));
    let before = fixture.rooms.event_at_time(&alice, room.clone(), Millis(start - 1), Direction::Backward).await;
    assert!(matches!(before, Err(QueryError::NotFound)));
    let stranger = fixture.rooms.event_at_time(&user("eve"), room, Millis(start), Direction::Forward).await;
    assert!(matches!(stranger, Err(QueryError::Forbidden)));
}

#[tokio::test]
async fn an_event_of_another_room_is_not_found_through_this_one() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.room(Preset::PrivateChat).await, fixture.room(Preset::PrivateChat).await);
    let sent = fixture.say(&one, &user("alice"), "here", "t").await.expect("sent");
    assert!(matches!(fixture.rooms.event(&user("alice"), &two, &sent.event_id).await, Err(QueryError::NotFound)));
}

#[tokio::test]
async fn who_has_left_reads_the_state_of_the_leave() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PublicChat).await;
    let (alice, bob) = (user("alice"), user("bob"));
    let topic = async |text: &str| {
        let event = crate::SendEvent {
            origin_server_ts: None,
            event_type: "m.room.topic".into(),
            state_key: Some(String::new()),
            content: object(json!({ "topic": text })),
            transaction: None,
            ..super::fixture::message(&room, &alice, "", "")
        };
        fixture.rooms.send(event).await.expect("sent");
    };
    topic("old").await;
    fixture.change(&room, (&bob, &bob), Membership::Join).await.expect("joined");
    fixture.change(&room, (&bob, &bob), Membership::Leave).await.expect("left");
    topic("new").await;
    let shown = fixture.rooms.state_event(&bob, &room, "m.room.topic", "").await.expect("a topic");
    assert!(shown.pdu.content().get().contains("old"));
    let own = fixture.rooms.state_event(&bob, &room, "m.room.member", bob.as_str()).await.expect("a member event");
    assert!(own.pdu.content().get().contains("leave"));
    let all = fixture.rooms.full_state(&bob, &room).await.expect("state");
    assert_eq!(all.iter().filter(|event| event.state_key() == Some(bob.as_str())).count(), 1);
    let members = fixture.rooms.members(&bob, &room, &MembersFilter::default()).await.expect("members");
    assert_eq!(members.len(), 2);
}

#[tokio::test]
async fn the_sending_device_alone_is_shown_its_transaction_id() {
    let fixture = Fixture::new();
    let room_id = fixture.room(Preset::PrivateChat).await;
    let alice = user("alice");
    let sent = fixture.say(&room_id, &alice, "hi", "txn1").await.expect("sent");
    let fixture = fixture.restarted().await;
    let room = fixture.rooms.ids().room(&room_id);
    let event = fixture.rooms.event(&alice, &room_id, &sent.event_id).await.expect("there");
    for (device_id, expected) in [("DEVICE", json!("txn1")), ("OTHER", Value::Null)] {
        let reader = Reader { user_id: &alice, device_id, now: Millis(1_700_000_000_500), standing: None };
        let view = fixture.rooms.view().await.expect("a view");
        let mut out = Vec::new();
        fixture.rooms.render(&view, &reader, room, std::slice::from_ref(&event), &mut out).await.expect("rendered");
        let shown: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(shown["unsigned"]["transaction_id"], expected);
        assert_eq!(shown["unsigned"]["age"], json!(500));
        assert_eq!(shown["unsigned"]["membership"], json!("join"));
        assert_eq!(shown["event_id"], json!(sent.event_id));
        assert_eq!(shown["room_id"], json!(room_id));
        assert_eq!(shown["content"]["body"], json!("hi"));
    }
    assert_eq!(label(&event), "hi");
}

#[tokio::test]
async fn receipts_never_move_backwards() {
    let fixture = Fixture::new();
    let room_id = fixture.room(Preset::PrivateChat).await;
    let alice = user("alice");
    let first = fixture.say(&room_id, &alice, "1", "t1").await.expect("sent");
    let second = fixture.say(&room_id, &alice, "2", "t2").await.expect("sent");
    let receipt = |event_id: &ruma_common::EventId| NewReceipt {
        room_id: room_id.clone(),
        user_id: alice.clone(),
        kind: ReceiptKind::Read,
        thread: None,
        event_id: event_id.to_owned(),
    };
    fixture.rooms.set_receipt(&receipt(&second.event_id)).await.expect("stored");
    let after = fixture.store.frontier();
    fixture.rooms.set_receipt(&receipt(&first.event_id)).await.expect("ignored");
    assert_eq!(fixture.store.frontier(), after);
    let stranger = NewReceipt { user_id: user("eve"), ..receipt(&first.event_id) };
    assert!(matches!(fixture.rooms.set_receipt(&stranger).await, Err(ReceiptError::NotJoined)));
}

#[tokio::test]
async fn events_read_as_a_range_are_those_that_were_asked_for() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let fixture = Fixture::on(Arc::clone(&store));
    let room_id = fixture.room(Preset::PublicChat).await;
    for n in 0..30 {
        fixture.say(&room_id, &user("alice"), "hello", &n.to_string()).await.expect("sent");
    }
    let (view, room) = (fixture.rooms.view().await.expect("a view"), fixture.rooms.ids().room(&room_id));
    let newest = fixture.rooms.head(&view, room).await.expect("a head").next_event - 1;
    for numbers in [
        (0..=newest).collect::<Vec<_>>(),
        (3..20).rev().collect(),
        // One twice, and one left out.
        (5..15).chain([7, 16, 17, 18]).collect(),
        vec![1, newest],
        Vec::new(),
    ] {
        // Nothing is in its memory.
        let other = Fixture::on(Arc::clone(&store));
        let found = other.rooms.events(&view, room, &numbers).await.expect("readable");
        assert_eq!(found.iter().map(|event| event.n).collect::<Vec<_>>(), numbers);
        for event in found {
            let one = fixture.rooms.events(&view, room, &[event.n]).await.expect("readable");
            assert_eq!(one[0].event_id(), event.event_id());
        }
    }
    let beyond: Vec<u32> = (newest - 8..newest + 2).collect();
    assert!(Fixture::on(store).rooms.events(&view, room, &beyond).await.is_err(), "one is absent");
}
