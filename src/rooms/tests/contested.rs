//! Joins during which something else writes what the last batch stands on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hearth_event::RoomVersion;
use hearth_schema::Membership;

use super::fixture::user;
use super::neighbour::{Town, answer_before, event_on, name, verified};
use super::watched::Watched;
use crate::SendError;
use crate::import::ImportError;

#[tokio::test]
async fn a_join_is_tried_again_when_something_else_wrote_meanwhile() {
    let store = Arc::new(Watched::default());
    let town = Town::on(Arc::clone(&store) as _);
    store.conflicts.store(3, Ordering::Relaxed);
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    assert_eq!(store.conflicts.load(Ordering::Relaxed), 0, "the join has met all of them");
    assert_eq!(town.here.state(&room_id).await, town.there.state(&room_id).await);
    let alice = user("alice");
    let joins = town.here.history(&room_id, &alice).await;
    assert_eq!(joins.iter().filter(|entry| *entry == "m.room.member").count(), 1, "{joins:?}");

    // And who comes back to a room that is here.
    town.here.change(&room_id, (&alice, &alice), Membership::Leave).await.expect("left");
    store.conflicts.store(12, Ordering::Relaxed);
    town.join(&room_id, &alice).await;
    assert_eq!(store.conflicts.load(Ordering::Relaxed), 0);
    assert_eq!(town.here.state(&room_id).await, town.there.state(&room_id).await);
    town.here.say(&room_id, &alice, "back", "1").await.expect("sent");
}

#[tokio::test]
async fn a_join_that_never_gets_through_says_so_and_the_next_one_uses_what_it_has_stored() {
    let store = Arc::new(Watched::default());
    let town = Town::on(Arc::clone(&store) as _);
    let bob = user("bob");
    let room_id = {
        let other_room = town.shared_room(RoomVersion::DEFAULT).await;
        town.here.say(&other_room, &user("alice"), "elsewhere", "1").await.expect("sent");
        let creator = super::neighbour::other("olga");
        let create = crate::CreateRoom { creator, ..super::fixture::creation(crate::Preset::PublicChat) };
        town.there.rooms.create(create).await.expect("a room")
    };
    let content = serde_json::json!({ "membership": "join" });
    let join = event_on(&town.there, &room_id, &bob, ("m.room.member", Some(bob.as_str())), content).await;
    town.there.rooms.enter_handshake(name(0), verified(&join).await).await.expect("a join");
    let answer = answer_before(&town.there.rooms, &room_id, join.event_id()).await;
    store.conflicts.store(u32::MAX, Ordering::Relaxed);
    let busy = town.here.rooms.import(name(1), join.clone(), answer).await;
    assert!(matches!(busy, Err(ImportError::Here(SendError::Busy))), "{busy:?}");
    let view = town.here.rooms.view().await.expect("a view");
    let room = town.here.rooms.ids().room(&room_id);
    assert!(town.here.rooms.room(&view, room).await.expect("readable").is_none(), "nothing is half there");
    store.conflicts.store(0, Ordering::Relaxed);
    let answer = answer_before(&town.there.rooms, &room_id, join.event_id()).await;
    town.here.rooms.import(name(1), join, answer).await.expect("an import");
    assert_eq!(town.here.state(&room_id).await, town.there.state(&room_id).await);
    town.here.say(&room_id, &bob, "here", "1").await.expect("sent");
}
