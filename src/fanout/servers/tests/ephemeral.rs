//! Typing, receipts and presence on their way out.

use std::time::Duration;

use hearth_accounts::PresenceState;
use hearth_rooms::{NewReceipt, ReceiptThread, Typing};
use hearth_schema::ReceiptKind;
use ruma_common::{EventId, RoomId};
use serde_json::json;

use super::*;
use crate::testing::{START, user};

const BOB: &str = "@bob:b.test";
const B: &str = "b.test";

async fn with_bob() -> (Desk, ruma_common::OwnedRoomId) {
    let desk = Desk::new();
    let room_id = desk.world.room(&["ann"]).await;
    desk.world.relay(&room_id, BOB, "join").await;
    (desk, room_id)
}

async fn read(desk: &Desk, room_id: &RoomId, event_id: &EventId, kind: ReceiptKind, thread: Option<ReceiptThread>) {
    let receipt =
        NewReceipt { room_id: room_id.to_owned(), user_id: user("ann"), kind, thread, event_id: event_id.to_owned() };
    desk.world.rooms.set_receipt(&receipt).await.expect("a receipt");
}

async fn edus(desk: &mut Desk) -> Vec<Value> {
    desk.world.clock.advance(Duration::from_secs(5));
    desk.deliver(B).await.iter().flat_map(Arrived::edus).collect()
}

#[tokio::test]
async fn public_receipts_leave_and_private_ones_do_not() {
    let (mut desk, room_id) = with_bob().await;
    let first = desk.world.say(&room_id, "1").await;
    let second = desk.world.say(&room_id, "2").await;
    read(&desk, &room_id, &second, ReceiptKind::ReadPrivate, None).await;
    assert_eq!(edus(&mut desk).await, Vec::<Value>::new());
    read(&desk, &room_id, &first, ReceiptKind::Read, None).await;
    read(&desk, &room_id, &second, ReceiptKind::Read, Some(ReceiptThread::Main)).await;
    let receipt = |event_id: &EventId, data: Value| {
        json!({ "edu_type": "m.receipt", "content": { room_id.as_str(): { "m.read": {
            "@ann:hearth.test": { "event_ids": [event_id], "data": data },
        } } } })
    };
    let ts = START + 5_000;
    let expected = [receipt(&first, json!({ "ts": ts })), receipt(&second, json!({ "ts": ts, "thread_id": "main" }))];
    assert_eq!(edus(&mut desk).await, expected);
    assert_eq!(desk.rows(B).await, (0, false, None), "what has no events is not stored");
}

#[tokio::test]
async fn receipts_wait_for_who_does_not_answer_and_typing_does_not() {
    let (mut desk, room_id) = with_bob().await;
    let first = desk.world.say(&room_id, "1").await;
    edus(&mut desk).await;
    let mut ephemeral = Ephemeral::new(desk.outbound.clone());
    let nid = desk.world.rooms.ids().room(&room_id);
    desk.world.rooms.set_typing(&room_id, &user("ann"), Typing::For(Duration::from_secs(30))).await.expect("typing");
    ephemeral.typing_changed(nid).await;
    read(&desk, &room_id, &first, ReceiptKind::Read, None).await;
    *desk.script.mood.lock() = Mood::Down;
    assert_eq!(edus(&mut desk).await.len(), 2);
    *desk.script.mood.lock() = Mood::Well;
    desk.world.clock.advance(Duration::from_secs(120));
    let found: Vec<_> = edus(&mut desk).await.iter().map(|edu| edu["edu_type"].clone()).collect();
    assert_eq!(found, ["m.receipt"]);
}

#[tokio::test]
async fn receipts_outlive_a_transaction_that_is_made_smaller() {
    let (mut desk, room_id) = with_bob().await;
    let first = desk.world.say(&room_id, "1").await;
    edus(&mut desk).await;
    desk.world.say(&room_id, "poison").await;
    read(&desk, &room_id, &first, ReceiptKind::Read, None).await;
    *desk.script.mood.lock() = Mood::Picky("poison");
    let refused = edus(&mut desk).await;
    assert_eq!(refused.len(), 1, "the receipt came with the event that is refused: {refused:?}");
    desk.world.clock.advance(Duration::from_secs(120));
    let again = edus(&mut desk).await;
    assert_eq!(again, refused, "and once more without it");
    assert_eq!(edus(&mut desk).await, Vec::<Value>::new());
}

#[tokio::test]
async fn typing_is_told_when_it_begins_when_it_goes_on_and_when_it_ends() {
    let (mut desk, room_id) = with_bob().await;
    let nid = desk.world.rooms.ids().room(&room_id);
    let mut ephemeral = Ephemeral::new(desk.outbound.clone());
    let edu = |typing: bool| {
        let content = json!({ "room_id": room_id, "user_id": "@ann:hearth.test", "typing": typing });
        json!({ "edu_type": "m.typing", "content": content })
    };
    let long = Typing::For(Duration::from_secs(100));
    desk.world.rooms.set_typing(&room_id, &user("ann"), long).await.expect("typing");
    ephemeral.typing_changed(nid).await;
    ephemeral.typing_changed(nid).await;
    assert_eq!(edus(&mut desk).await, [edu(true)]);
    ephemeral.tick().await;
    assert_eq!(edus(&mut desk).await, Vec::<Value>::new());
    desk.world.clock.advance(Duration::from_secs(30));
    ephemeral.tick().await;
    assert_eq!(edus(&mut desk).await, [edu(true)]);
    desk.world.rooms.set_typing(&room_id, &user("ann"), Typing::Stopped).await.expect("typing");
    ephemeral.typing_changed(nid).await;
    assert_eq!(edus(&mut desk).await, [edu(false)]);
}

#[tokio::test]
async fn presence_goes_to_servers_that_share_a_room_and_only_the_newest() {
    let (mut desk, _) = with_bob().await;
    let presence = desk.world.accounts.presence().clone();
    let mut ephemeral = Ephemeral::new(desk.outbound.clone());
    let (ann, stranger) = (desk.world.device("ann").await, desk.world.device("stranger").await);
    presence.set(&stranger, PresenceState::Online, None).expect("set");
    presence.set(&ann, PresenceState::Online, None).expect("set");
    presence.set(&ann, PresenceState::Online, Some("here".into())).expect("set");
    ephemeral.tick().await;
    let found = edus(&mut desk).await;
    let push = json!([{ "user_id": "@ann:hearth.test", "presence": "online", "last_active_ago": 5_000,
        "currently_active": true, "status_msg": "here" }]);
    assert_eq!(found, [json!({ "edu_type": "m.presence", "content": { "push": push } })]);
    ephemeral.tick().await;
    assert_eq!(edus(&mut desk).await, Vec::<Value>::new(), "once is enough");
    let kept = Desk::at(World::new(), OutboundSettings { presence: PresenceOut::Kept, ..Default::default() });
    let room_id = kept.world.room(&["ann"]).await;
    kept.world.relay(&room_id, BOB, "join").await;
    let mut ephemeral = Ephemeral::new(kept.outbound.clone());
    let ann = kept.world.device("ann").await;
    kept.world.accounts.presence().set(&ann, PresenceState::Online, None).expect("set");
    ephemeral.tick().await;
    assert_eq!(kept.outbound.destination(&server(B)).edus_ready_at(kept.world.now()), None);
}

#[tokio::test]
async fn a_server_that_comes_is_told_who_is_there() {
    let mut desk = Desk::new();
    let presence = desk.world.accounts.presence().clone();
    let (ann, stranger) = (desk.world.device("ann").await, desk.world.device("stranger").await);
    presence.set(&ann, PresenceState::Online, None).expect("set");
    presence.set(&stranger, PresenceState::Online, None).expect("set");
    let room_id = desk.world.room(&["ann"]).await;
    desk.world.relay(&room_id, BOB, "join").await;
    let users = |edus: Vec<Value>| {
        let push = edus.into_iter().flat_map(|edu| edu["content"]["push"].as_array().expect("a list").clone());
        push.map(|update| update["user_id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(users(edus(&mut desk).await), ["@ann:hearth.test"]);
    desk.world.relay(&room_id, "@other:b.test", "join").await;
    assert_eq!(users(edus(&mut desk).await), Vec::<Value>::new(), "it has been told");
}
