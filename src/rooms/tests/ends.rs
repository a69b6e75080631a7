//! The ends of a room: what they are after events that came late, and what happens if they cannot be read.

use hearth_event::RoomVersion;
use hearth_schema::{RoomHead, RoomHeads};
use hearth_store::{Batch, Owner, StoreError};
use ruma_common::RoomId;

use super::fixture::Fixture;
use super::neighbour::{Town, event, name, other};
use crate::SendError;
use crate::inbound::Taker;

async fn head(on: &Fixture, room_id: &RoomId) -> RoomHead {
    let view = on.rooms.view().await.expect("a view");
    on.rooms.head(&view, on.rooms.ids().room(room_id)).await.expect("a head")
}

#[tokio::test]
async fn a_damaged_end_is_an_error_and_not_an_end_fewer() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let olga = other("olga");
    town.there.say(&room_id, &olga, "missing", "1").await.expect("sent");
    let newest = town.there.say(&room_id, &olga, "newest", "2").await.expect("sent").event_id;
    let mut damaged = head(&town.here, &room_id).await;
    damaged.extremities[0].event_id = "no event ID".to_owned();
    let room = town.here.rooms.ids().room(&room_id);
    let mut batch = Batch::new(room.lane());
    batch.put::<RoomHeads>(&(room,), &damaged);
    town.here.rooms.0.store.commit(batch).await.expect("a commit");
    town.neighbour.asked.lock().expect("not poisoned").clear();

    let pdu = event(&town.there.rooms, &room_id, &newest).await.expect("an event").pdu.clone();
    let taker = Taker::new(&town.here.rooms, &room_id, name(1)).await.expect("readable").expect("a room");
    let taken = taker.fill_gap(&pdu).await;
    assert!(
        matches!(taken, Err(SendError::Store(StoreError::Corrupt { keyspace: "RoomHeads", .. }))),
        "what is damaged is told: {taken:?}"
    );
    assert!(town.neighbour.asked.lock().expect("not poisoned").is_empty(), "nobody is asked on a guess");
}
