//! What other servers say, and what they had better not.

use std::time::Duration;

use hearth_accounts::PresenceState;
use hearth_schema::{Membership, Presence as PresenceRows, ReceiptLog, Receipts};
use hearth_store::{Lane, Order, View};
use ruma_common::{EventId, RoomId};
use serde_json::{Value, json};

use super::*;
use crate::testing::{START, World, server, user};

const BOB: &str = "@bob:b.test";
const EVE: &str = "@eve:evil.test";

struct Desk {
    world: World,
    edus: ForeignEdus,
    room_id: OwnedRoomId,
    event_id: ruma_common::OwnedEventId,
}

impl Desk {
    /// A room of alice, ann and bob, with a message.
    async fn new() -> Self {
        let world = World::new();
        let room_id = world.room(&["ann"]).await;
        world.relay(&room_id, BOB, "join").await;
        let event_id = world.say(&room_id, "hello").await;
        let presence = world.accounts.presence().clone();
        let edus = ForeignEdus::new(world.rooms.clone(), presence, world.clock.clone());
        Self { world, edus, room_id, event_id }
    }

    async fn says(&self, origin: &str, edu_type: &str, content: Value) -> Result<(), Dropped> {
        let content = serde_json::value::to_raw_value(&content).expect("JSON");
        self.edus.try_accept(&server(origin), edu_type, &content).await
    }

    fn typing(&self, room_id: &RoomId) -> Vec<OwnedUserId> {
        self.world.rooms.typing().in_room(self.world.rooms.ids().room(room_id)).1
    }

    async fn receipts(&self, room_id: &RoomId) -> Vec<(String, String, String, u64)> {
        let view = View::latest(&*self.world.store).await.expect("a view");
        let room = self.world.rooms.ids().room(room_id);
        let rows = view.page::<Receipts, _>(&(room,), Order::Ascending, 1_000).await.expect("rows");
        let log = view.page::<ReceiptLog, _>(&(room,), Order::Ascending, 1_000).await.expect("rows");
        assert_eq!(rows.len(), log.len());
        rows.into_iter().map(|((_, _, thread, user), row)| (user, thread, row.event_id, row.ts)).collect()
    }

    /// Everything that an EDU may change.
    async fn traces(&self, rooms: &[&RoomId]) -> Vec<String> {
        let mut traces = Vec::new();
        for room_id in rooms {
            traces.extend(self.typing(room_id).iter().map(ToString::to_string));
            traces.extend(self.receipts(room_id).await.iter().map(|receipt| format!("{receipt:?}")));
        }
        let view = View::latest(&*self.world.store).await.expect("a view");
        for lane in Lane::all() {
            let rows = view.page::<PresenceRows, _>(&(lane,), Order::Ascending, 9).await.expect("rows");
            traces.extend(rows.iter().map(|(_, row)| row.user_id.clone()));
        }
        let presence = self.world.accounts.presence();
        traces.extend(presence.since(0, 99, |_| true).iter().map(|(_, sight)| sight.user_id.to_string()));
        traces
    }
}

#[expect(clippy::fn_params_excessive_bools, reason = "what the EDU says, by its own name")]
fn typing_of(room_id: &RoomId, user_id: &str, typing: bool) -> Value {
    json!({ "room_id": room_id, "user_id": user_id, "typing": typing })
}

fn receipt_of(room_id: &RoomId, user_id: &str, event_id: &str) -> Value {
    json!({ room_id.as_str(): { "m.read": { user_id: { "event_ids": [event_id], "data": { "ts": 5 } } } } })
}

fn presence_of(user_id: &str, state: &str) -> Value {
    json!({ "push": [{ "user_id": user_id, "presence": state, "last_active_ago": 1_000, "currently_active": true }] })
}

#[tokio::test]
async fn a_member_types_until_its_server_says_nothing_more() {
    let desk = Desk::new().await;
    desk.says("b.test", "m.typing", typing_of(&desk.room_id, BOB, true)).await.expect("taken");
    assert_eq!(desk.typing(&desk.room_id), [user(BOB)]);
    desk.says("b.test", "m.typing", typing_of(&desk.room_id, BOB, false)).await.expect("taken");
    assert_eq!(desk.typing(&desk.room_id), [] as [OwnedUserId; 0]);
    desk.says("b.test", "m.typing", typing_of(&desk.room_id, BOB, true)).await.expect("taken");
    desk.world.clock.advance(Duration::from_secs(61));
    let over = async {
        while !desk.typing(&desk.room_id).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), over).await.expect("it runs out");
}

#[tokio::test]
async fn receipts_of_members_are_stored_and_move_forward_only() {
    let desk = Desk::new().await;
    let second = desk.world.say(&desk.room_id, "again").await;
    let root = &desk.event_id;
    let related = json!({ "msgtype": "m.text", "body": "in a thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    let reply = desk.world.send(&desk.room_id, ("m.room.message", None), related).await;
    let said = json!({ desk.room_id.as_str(): { "m.read": {
        BOB: { "event_ids": [second], "data": { "ts": START * 2 } },
        "@alice:hearth.test": { "event_ids": [second], "data": { "ts": 6 } },
    } } });
    desk.says("b.test", "m.receipt", said).await.expect("what is left is taken");
    let in_thread = json!({ desk.room_id.as_str(): { "m.read": {
        BOB: { "event_ids": [reply], "data": { "ts": 7, "thread_id": root } },
    } } });
    desk.says("b.test", "m.receipt", in_thread).await.expect("taken");
    desk.says("b.test", "m.receipt", receipt_of(&desk.room_id, BOB, desk.event_id.as_str())).await.expect("no news");
    let expected = [
        (BOB.to_owned(), String::new(), second.to_string(), START),
        (BOB.to_owned(), root.to_string(), reply.to_string(), 7),
    ];
    assert_eq!(desk.receipts(&desk.room_id).await, expected, "no time is in the future");
    let elsewhere = json!({ desk.room_id.as_str(): { "m.read": {
        BOB: { "event_ids": [reply], "data": { "ts": 7, "thread_id": "main" } },
    } } });
    let dropped = desk.says("b.test", "m.receipt", elsewhere).await;
    assert_eq!(dropped, Err(Dropped::Ignored(Ignored::NotInThread)));
}

#[tokio::test]
async fn of_several_events_the_newest_that_is_known_is_read() {
    let desk = Desk::new().await;
    let second = desk.world.say(&desk.room_id, "again").await;
    desk.world.say(&desk.room_id, "unread").await;
    // What is no ID, what is not known, and rooms of which nothing can be believed, are passed over.
    let said = json!({ "!odd:b.test": 7, "!other:b.test": [], desk.room_id.as_str(): {
        "m.read": { BOB: { "event_ids": ["$unknown", second, 7, desk.event_id, "x"], "data": { "ts": 5 } } },
        "m.other": 7,
    } });
    desk.says("b.test", "m.receipt", said).await.expect("taken");
    let expected = [(BOB.to_owned(), String::new(), second.to_string(), 5)];
    assert_eq!(desk.receipts(&desk.room_id).await, expected);
    let many: Vec<String> = (0..100).map(|n| format!("$unknown{n}")).chain([desk.event_id.to_string()]).collect();
    let said = json!({ desk.room_id.as_str(): { "m.read": { BOB: { "event_ids": many, "data": { "ts": 6 } } } } });
    let content = serde_json::value::to_raw_value(&said).expect("JSON");
    let bound = bind(&server("b.test"), "m.receipt", &content).expect("a receipt");
    assert!(bound.items() < 100, "{}", bound.items());
}

#[tokio::test]
async fn presence_of_another_servers_user_is_kept_in_memory() {
    let desk = Desk::new().await;
    let mut content = presence_of(BOB, "online");
    content["push"][0]["status_msg"] = json!("é".repeat(1_000));
    desk.says("b.test", "m.presence", content).await.expect("taken");
    let nid = desk.world.rooms.ids().user(&user(BOB));
    let sight = desk.world.accounts.presence().sight(nid).expect("known");
    assert_eq!((sight.state, sight.currently_active), (PresenceState::Online, true));
    assert_eq!(sight.last_active, Some(Millis(START - 1_000)));
    assert_eq!(sight.status_msg.expect("a text").len(), 1_024);
}

/// Row B3: each must leave no trace.
#[tokio::test]
async fn what_a_server_may_not_say_leaves_no_trace() {
    let desk = Desk::new().await;
    let (room, event) = (&*desk.room_id, desk.event_id.as_str());
    let private = desk.world.room(&[]).await;
    let left = desk.world.room(&[]).await;
    desk.world.relay(&left, BOB, "join").await;
    desk.world.relay(&left, BOB, "leave").await;
    let private_event = desk.world.say(&private, "quiet").await;
    let unknown = RoomId::parse("!unknown:b.test").expect("an ID");
    let ignored = |why| Err(Dropped::Ignored(why));
    let foreign = Err(Dropped::ForeignSender);
    let read = |kind: &str| json!({ room.as_str(): { kind: { BOB: { "event_ids": [event], "data": { "ts": 5 } } } } });
    let cases: Vec<(&str, &str, Value, Result<(), Dropped>)> = vec![
        // Another server's user, and ours.
        ("evil.test", "m.typing", typing_of(room, BOB, true), foreign),
        ("evil.test", "m.typing", typing_of(room, "@ann:hearth.test", true), foreign),
        ("evil.test", "m.receipt", receipt_of(room, BOB, event), foreign),
        ("evil.test", "m.receipt", receipt_of(room, "@ann:hearth.test", event), foreign),
        ("evil.test", "m.presence", presence_of(BOB, "online"), foreign),
        ("evil.test", "m.presence", presence_of("@ann:hearth.test", "online"), foreign),
        ("b.test:8448", "m.typing", typing_of(room, BOB, true), foreign),
        // A server that is not in the room, a user who is not, a room that is not here.
        ("evil.test", "m.typing", typing_of(room, EVE, true), ignored(Ignored::NotInRoom)),
        ("evil.test", "m.receipt", receipt_of(room, EVE, event), ignored(Ignored::NotInRoom)),
        ("b.test", "m.typing", typing_of(room, "@other:b.test", true), ignored(Ignored::NotJoined)),
        ("b.test", "m.receipt", receipt_of(room, "@other:b.test", event), ignored(Ignored::NotJoined)),
        ("b.test", "m.typing", typing_of(&private, BOB, true), ignored(Ignored::NotInRoom)),
        ("b.test", "m.receipt", receipt_of(&private, BOB, private_event.as_str()), ignored(Ignored::NotInRoom)),
        ("b.test", "m.typing", typing_of(&left, BOB, true), ignored(Ignored::NotInRoom)),
        ("b.test", "m.typing", typing_of(&unknown, BOB, true), ignored(Ignored::UnknownRoom)),
        ("b.test", "m.receipt", receipt_of(&unknown, BOB, event), ignored(Ignored::UnknownRoom)),
        // What servers do not tell each other.
        ("b.test", "m.receipt", read("m.read.private"), Err(Dropped::Private)),
        ("b.test", "m.receipt", read("m.fully_read"), Err(Dropped::Private)),
        // What is not here yet.
        (
            "b.test",
            "m.direct_to_device",
            json!({ "messages": { "@ann:hearth.test": { "*": {} } } }),
            Err(Dropped::NotYet),
        ),
        ("b.test", "m.device_list_update", json!({ "user_id": "@ann:hearth.test" }), Err(Dropped::NotYet)),
        ("b.test", "m.signing_key_update", json!({ "user_id": "@ann:hearth.test" }), Err(Dropped::NotYet)),
        ("b.test", "org.example.edu", json!({}), Err(Dropped::UnknownType)),
        // Nonsense.
        ("b.test", "m.typing", json!({ "room_id": room, "user_id": BOB, "typing": "yes" }), Err(Dropped::Malformed)),
        ("b.test", "m.typing", json!([]), Err(Dropped::Malformed)),
        ("b.test", "m.receipt", json!({ room.as_str(): { "m.read": [] } }), Err(Dropped::Malformed)),
        (
            "b.test",
            "m.receipt",
            json!({ room.as_str(): { "m.read": { BOB: { "event_ids": [event] } } } }),
            Err(Dropped::Malformed),
        ),
        (
            "b.test",
            "m.receipt",
            json!({ room.as_str(): { "m.read": { BOB: { "event_ids": [7, "x"], "data": { "ts": 5 } } } } }),
            Err(Dropped::Malformed),
        ),
        ("b.test", "m.presence", json!({ "push": [7, null, {}] }), Err(Dropped::Malformed)),
        ("b.test", "m.presence", presence_of(BOB, "dancing"), Err(Dropped::Malformed)),
        ("b.test", "m.presence", json!({ "push": "x".repeat(70_000) }), Err(Dropped::Malformed)),
    ];
    for (origin, edu_type, content, expected) in cases {
        assert_eq!(desk.says(origin, edu_type, content.clone()).await, expected, "{origin} {edu_type} {content}");
        assert_eq!(desk.traces(&[room, &private, &left]).await, [""; 0], "{origin} {edu_type} {content}");
    }
}

#[tokio::test]
async fn a_server_that_is_kept_out_is_not_listened_to() {
    let desk = Desk::new().await;
    let acl = json!({ "allow": ["*"], "deny": ["b.test"] });
    desk.world.send(&desk.room_id, ("m.room.server_acl", Some("")), acl).await;
    let kept_out = Err(Dropped::Ignored(Ignored::KeptOut));
    assert_eq!(desk.says("b.test", "m.typing", typing_of(&desk.room_id, BOB, true)).await, kept_out);
    let receipt = receipt_of(&desk.room_id, BOB, desk.event_id.as_str());
    assert_eq!(desk.says("b.test", "m.receipt", receipt).await, kept_out);
    assert_eq!(desk.traces(&[&desk.room_id]).await, [""; 0]);
}

#[tokio::test]
async fn a_room_that_everybody_here_has_left_is_not_listened_to() {
    let desk = Desk::new().await;
    for name in ["alice", "ann"] {
        desk.world.change(&desk.room_id, name, name, Membership::Leave).await;
    }
    let dropped = desk.says("b.test", "m.typing", typing_of(&desk.room_id, BOB, true)).await;
    assert_eq!(dropped, Err(Dropped::Ignored(Ignored::UnknownRoom)));
    assert_eq!(desk.traces(&[&desk.room_id]).await, [""; 0]);
}

#[tokio::test]
async fn a_receipt_waits_a_moment_for_its_event() {
    let desk = Desk::new().await;
    let unknown = EventId::parse("$unknown").expect("an ID");
    for _ in 0..3 {
        let receipt = receipt_of(&desk.room_id, BOB, unknown.as_str());
        desk.says("b.test", "m.receipt", receipt).await.expect("it may come yet");
    }
    assert_eq!(desk.edus.0.early.lock().receipts.len(), 1);
    desk.world.clock.advance(Duration::from_secs(10));
    desk.edus.look_again().await;
    assert_eq!(desk.edus.0.early.lock().receipts.len(), 1);
    // The event comes: what waits for it is as if it had come afterwards.
    let event_id = desk.world.say(&desk.room_id, "late").await;
    for (_, receipt) in desk.edus.0.early.lock().receipts.values_mut() {
        receipt.event_ids = vec![event_id.clone()];
    }
    desk.edus.look_again().await;
    assert_eq!(desk.receipts(&desk.room_id).await.len(), 1);
    desk.says("b.test", "m.receipt", receipt_of(&desk.room_id, BOB, unknown.as_str())).await.expect("it may come yet");
    desk.world.clock.advance(Duration::from_secs(30));
    desk.edus.look_again().await;
    assert_eq!(desk.edus.0.early.lock().receipts.len(), 0, "not for ever");
}

/// Row B4, as far as it needs no network: what is beyond a server's rate costs no memory and no row.
#[tokio::test]
async fn a_flood_is_dropped_and_leaves_others_alone() {
    let desk = Desk::new().await;
    let mut dropped = 0;
    for n in 0..5_000 {
        let said = presence_of(&format!("@u{n}:evil.test"), "online");
        dropped += usize::from(desk.says("evil.test", "m.presence", said).await == Err(Dropped::Flood));
    }
    assert_eq!(dropped, 3_000);
    let push: Vec<_> = (0..600).map(|n| presence_of(&format!("@v{n}:c.test"), "online")["push"][0].clone()).collect();
    for _ in 0..3 {
        desk.says("c.test", "m.presence", json!({ "push": push })).await.expect("taken");
    }
    let many = json!({ "push": push });
    assert_eq!(desk.says("c.test", "m.presence", many).await, Err(Dropped::Flood), "each user counts");
    desk.says("b.test", "m.typing", typing_of(&desk.room_id, BOB, true)).await.expect("taken");
    for n in 0..600 {
        let receipt = receipt_of(&desk.room_id, BOB, &format!("$unknown{n}"));
        let mut receipt = receipt;
        receipt[desk.room_id.as_str()]["m.read"][BOB]["data"]["thread_id"] = json!(format!("$thread{n}"));
        let said = desk.says("b.test", "m.receipt", receipt).await;
        assert_eq!(said.is_ok(), n < 500, "{n}");
    }
}
