//! The ends of a room: what they are after events that came late, and what happens if they cannot be read.

use std::sync::atomic::Ordering;

use hearth_event::{Pdu, RoomVersion};
use hearth_schema::{Membership, RoomHead, RoomHeads, Verdict};
use hearth_store::{Batch, Owner, StoreError};
use ruma_common::{OwnedEventId, RoomId};
use serde_json::json;

use super::fixture::Fixture;
use super::neighbour::{Town, event, event_after, name, other, raw};
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
    let outcome = taker.fill_gap(&pdu).await;
    assert!(
        matches!(outcome, Err(SendError::Store(StoreError::Corrupt { keyspace: "RoomHeads", .. }))),
        "what is damaged is told: {outcome:?}"
    );
    assert!(town.neighbour.asked.lock().expect("not poisoned").is_empty(), "nobody is asked on a guess");
}

async fn ends(on: &Fixture, room_id: &RoomId) -> Vec<String> {
    head(on, room_id).await.extremities.into_iter().map(|end| end.event_id).collect()
}

async fn say(town: &Town, room_id: &RoomId, body: &str) -> OwnedEventId {
    town.there.say(room_id, &other("olga"), body, body).await.expect("sent").event_id
}

#[tokio::test]
async fn a_gap_that_is_filled_leaves_no_end_before_it() {
    // More than one page of the neighbour, more than one batch, and more than is walked back from an end.
    for missing in [2, 9, 30] {
        let town = Town::new();
        let room_id = town.shared_room(RoomVersion::DEFAULT).await;
        let before = say(&town, &room_id, "before").await;
        Town::deliver(&town.there, &town.here, &room_id, &[&before]).await;
        town.neighbour.forgetful.store(true, Ordering::Relaxed);
        for n in 0..missing {
            say(&town, &room_id, &format!("missing {n}")).await;
        }
        let after = say(&town, &room_id, "after").await;
        Town::deliver(&town.there, &town.here, &room_id, &[&after]).await;
        assert_eq!(ends(&town.here, &room_id).await, [before.as_str(), after.as_str()], "{missing} are missing");
        let (generation, state) = (head(&town.here, &room_id).await.generation, town.here.state(&room_id).await);
        for _ in 0..4 {
            town.here.rooms.heal_all().await.expect("readable");
        }
        assert_eq!(ends(&town.here, &room_id).await, [after.as_str()], "{missing} were missing");
        assert_eq!(town.here.state(&room_id).await, state);
        assert!(head(&town.here, &room_id).await.generation > generation);
        // What is said now follows the one end, in the store as in the memory of the room's task.
        let sent = town.here.say(&room_id, &super::fixture::user("alice"), "now", "1").await.expect("sent").event_id;
        let sent = event(&town.here.rooms, &room_id, &sent).await.expect("stored");
        assert_eq!(sent.pdu.prev_events(), [after]);
    }
}

#[tokio::test]
async fn a_rejected_event_that_fills_a_gap_leaves_no_end_before_it() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let before = say(&town, &room_id, "before").await;
    Town::deliver(&town.there, &town.here, &room_id, &[&before]).await;
    let (olga, mallory) = (other("olga"), other("mallory"));
    let last = event(&town.there.rooms, &room_id, &before).await.expect("an event").pdu.clone();
    let after = |pdu: &Pdu| [(pdu.event_id().to_string(), pdu.depth())];
    let there = &town.there;
    // Not a member, so nothing that she may say; but somebody follows it.
    let (topic, content) = (("m.room.topic", Some("")), json!({ "topic": "mine" }));
    let refused = event_after(there, &room_id, &mallory, topic, content, &after(&last)).await;
    let (message, content) = (("m.room.message", None), json!({ "body": "I follow", "msgtype": "m.text" }));
    let follower = event_after(there, &room_id, &olga, message, content, &after(&refused)).await;
    there.rooms.receive(name(1), vec![raw(&refused), raw(&follower)]).await.expect("received");
    there.settled(&room_id).await;
    // So many that the neighbour tells of it by itself.
    for n in 0..3 {
        say(&town, &room_id, &format!("missing {n}")).await;
    }
    let newest = say(&town, &room_id, "newest").await;
    town.neighbour.forgetful.store(true, Ordering::Relaxed);
    Town::deliver(there, &town.here, &room_id, &[&newest]).await;
    assert_eq!(ends(&town.here, &room_id).await, [before.as_str(), newest.as_str()]);
    town.here.rooms.heal_all().await.expect("readable");
    let filled = event(&town.here.rooms, &room_id, refused.event_id()).await.expect("stored");
    assert_eq!(filled.verdict, Verdict::Rejected);
    assert_eq!(ends(&town.here, &room_id).await, [newest.as_str()]);
}

#[tokio::test]
async fn what_one_server_tells_of_a_gap_does_not_take_the_place_of_what_was_known_before_it() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let (olga, eve) = (other("olga"), other("eve"));
    let join = town.there.change(&room_id, (&eve, &eve), Membership::Join).await.expect("join").event_id;
    let ban = town.there.change(&room_id, (&olga, &eve), Membership::Ban).await.expect("ban").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&join, &ban]).await;
    // Of the ban nothing is told any more.
    town.neighbour.omitted.lock().expect("not poisoned").push(ban.clone());
    town.neighbour.forgetful.store(true, Ordering::Relaxed);
    say(&town, &room_id, "missing 0").await;
    say(&town, &room_id, "missing 1").await;
    let after = say(&town, &room_id, "after").await;
    Town::deliver(&town.there, &town.here, &room_id, &[&after]).await;
    town.here.rooms.heal_all().await.expect("readable");
    let state = town.here.state(&room_id).await;
    assert!(state.iter().any(|(.., id)| *id == ban), "the ban is known");
    assert_eq!(ends(&town.here, &room_id).await, [ban.as_str(), after.as_str()]);
    // An event after both keeps what both say.
    let sent = town.here.say(&room_id, &super::fixture::user("alice"), "now", "1").await.expect("sent").event_id;
    assert_eq!(ends(&town.here, &room_id).await, [sent.as_str()]);
    assert_eq!(town.here.state(&room_id).await, state);
}
