//! Reading: visibility, pages, states of the past.

use hearth_base::Millis;
use hearth_schema::{Membership, ReceiptKind};
use serde_json::{Value, json};

use super::fixture::{Fixture, creation, label, object, user};
use crate::{CreateRoom, InitialState, MembersFilter, NewReceipt, Preset, QueryError, Reader, ReceiptError};

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
        ("world_readable", vec!["before", "invited", "joined"]),
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
        assert_eq!(messages(fixture.history(&room, &bob).await), expected, "{visibility}, joined");
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
        let reader = Reader { user_id: &alice, device_id, now: Millis(1_700_000_000_500) };
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
