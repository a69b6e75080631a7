//! What the server sends for a user who is away.

use std::time::Duration;

use hearth_rooms::{DelayLimits, DelayedAction, SendEvent};
use hearth_schema::{Highlights, ReadPoint, ReadPoints, Tally};
use hearth_store::{Order, Owner as _, Store};
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, RoomId};
use serde_json::json;

use super::*;
use crate::Follower;
use crate::testing::{World, server_name, user};

fn of_bob(room_id: &RoomId) -> SendEvent {
    let content = [("msgtype", "m.text"), ("body", "gone")];
    let content = content.map(|(key, text)| (key.to_owned(), CanonicalJsonValue::String(text.to_owned())));
    SendEvent {
        room_id: room_id.to_owned(),
        sender: user("bob"),
        event_type: "m.room.message".into(),
        state_key: None,
        content: CanonicalJsonObject::from(content),
        redacts: None,
        origin_server_ts: None,
        transaction: None,
    }
}

/// Where bob has read to, and how many mentions are kept for him.
async fn state_of_bob(world: &World, room_id: &RoomId) -> (ReadPoint, usize) {
    let view = world.rooms.view().await.expect("a view");
    let key = (world.rooms.ids().user(&user("bob")), world.rooms.ids().room(room_id));
    let point = view.get::<ReadPoints>(&key).await.expect("readable").expect("bob has joined");
    let mentions = view.page::<Highlights, _>(&key, Order::Ascending, 99).await.expect("readable");
    (point, mentions.len())
}

#[tokio::test]
async fn what_this_batch_has_counted_stays_counted_though_memory_is_full() {
    let world = World::new();
    let room_id = world.room(&[]).await;
    let (room, view) = (world.rooms.ids().room(&room_id), world.rooms.view().await.expect("a view"));
    let mut tallies = Tallies::new(world.rooms.clone());
    let mut batch = Batch::new(room.lane());
    tallies.begin();
    for n in 1..=3 {
        let pos = Pos::new(view.frontier().base().get() + n);
        let one = Some(Tally { notifying: 1, highlighting: 0 });
        tallies.count((&view, &mut batch), (room, pos), None, one).await.expect("counted");
        // As if very many rooms had come in between.
        world.rooms.recent_tallies().clear();
        assert_eq!(tallies.at(&view, room, pos).await.expect("readable").main.notifying, n);
    }
}

#[tokio::test]
async fn what_the_server_sends_for_who_is_away_reads_nothing() {
    let world = World::new();
    let room_id = world.room(&["bob"]).await;
    let delay = Duration::from_secs(60);
    let delay_id = world.rooms.schedule(&of_bob(&room_id), delay, DelayLimits::default()).await.expect("scheduled");
    let mention = json!({ "msgtype": "m.text", "body": "bob?", "m.mentions": { "user_ids": [user("bob")] } });
    world.send(&room_id, ("m.room.message", None), mention).await;
    let store: Arc<dyn Store> = Arc::clone(&world.store);
    let mut follower = Follower::new(store, Unread::new(world.rooms.clone(), server_name()));
    follower.catch_up().await.expect("counted");
    let before = state_of_bob(&world, &room_id).await;
    assert_eq!(before.1, 1);

    world.rooms.manage_delayed(&delay_id, DelayedAction::Send, None).await.expect("sent");
    follower.catch_up().await.expect("counted");
    assert_eq!(state_of_bob(&world, &room_id).await, before);

    world.rooms.send(of_bob(&room_id)).await.expect("sent by bob");
    follower.catch_up().await.expect("counted");
    let (point, mentions) = state_of_bob(&world, &room_id).await;
    assert!(point.main_pos > before.0.main_pos);
    assert_eq!(mentions, 0, "who speaks has read them");
}

#[tokio::test]
async fn who_had_no_mentions_may_get_some() {
    let world = World::new();
    let room_id = world.room(&["bob"]).await;
    let store: Arc<dyn Store> = Arc::clone(&world.store);
    let mut follower = Follower::new(store, Unread::new(world.rooms.clone(), server_name()));
    let mention = json!({ "msgtype": "m.text", "body": "bob?", "m.mentions": { "user_ids": [user("bob")] } });
    world.rooms.send(of_bob(&room_id)).await.expect("sent by bob");
    follower.catch_up().await.expect("counted");
    for _ in 0..2 {
        world.send(&room_id, ("m.room.message", None), mention.clone()).await;
        follower.catch_up().await.expect("counted");
        assert_eq!(state_of_bob(&world, &room_id).await.1, 1);
        world.rooms.send(of_bob(&room_id)).await.expect("sent by bob");
        follower.catch_up().await.expect("counted");
        assert_eq!(state_of_bob(&world, &room_id).await.1, 0);
    }
    // In one batch: it is removed with the next.
    world.send(&room_id, ("m.room.message", None), mention).await;
    world.rooms.send(of_bob(&room_id)).await.expect("sent by bob");
    follower.catch_up().await.expect("counted");
    world.rooms.send(of_bob(&room_id)).await.expect("sent by bob");
    follower.catch_up().await.expect("counted");
    assert_eq!(state_of_bob(&world, &room_id).await.1, 0);
}
