//! Events that come again, by another way or at another time.

use std::sync::atomic::Ordering;

use hearth_event::RoomVersion;
use hearth_schema::{Membership, Verdict};
use ruma_common::{EventId, RoomId};
use serde_json::json;

use super::neighbour::{Town, event, event_on, name, other, raw, verified};
use crate::SendError;

async fn verdict(town: &Town, room_id: &RoomId, id: &EventId) -> Option<Verdict> {
    event(&town.here.rooms, room_id, id).await.map(|event| event.verdict)
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_no_reason_to_refuse_an_event() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let said = town.there.say(&room_id, &other("olga"), "hello", "1").await.expect("sent").event_id;
    let pdu = event(&town.there.rooms, &room_id, &said).await.expect("an event").pdu.clone();
    town.neighbour.broken.store(1, Ordering::Relaxed);
    let failed = town.here.rooms.receive(name(1), vec![raw(&pdu)]).await;
    assert!(matches!(failed, Err(SendError::Store(_))), "its server has to send it again: {failed:?}");
    assert_eq!(verdict(&town, &room_id, &said).await, None);
    let received = Town::deliver(&town.there, &town.here, &room_id, &[&said]).await;
    assert!(received[0].result.is_ok(), "{received:?}");
    assert_eq!(verdict(&town, &room_id, &said).await, Some(Verdict::Accepted));
}

#[tokio::test]
async fn a_join_that_was_soft_failed_is_refused_until_it_may() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let (olga, bob) = (other("olga"), other("bob"));
    let member = ("m.room.member", Some(bob.as_str()));
    let join = event_on(&town.there, &room_id, &bob, member, json!({ "membership": "join" })).await;
    let ban = town.there.change(&room_id, (&olga, &bob), Membership::Ban).await.expect("banned").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&ban]).await;
    town.here.rooms.receive(name(1), vec![raw(&join)]).await.expect("received");
    town.here.settled(&room_id).await;
    assert_eq!(verdict(&town, &room_id, join.event_id()).await, Some(Verdict::SoftFailed));
    let enter = async || town.here.rooms.enter_handshake(name(1), verified(&join).await).await;
    let refused = enter().await;
    assert!(matches!(refused, Err(SendError::Forbidden(_))), "{refused:?}");
    assert_eq!(verdict(&town, &room_id, join.event_id()).await, Some(Verdict::SoftFailed));
    let unban = ("m.room.member", bob.as_str());
    let unban = town.there.set(&room_id, &olga, unban, json!({ "membership": "leave" })).await.expect("sent").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&unban]).await;
    let entered = enter().await.expect("nothing keeps him out any more");
    assert_eq!(verdict(&town, &room_id, join.event_id()).await, Some(Verdict::Accepted));
    let state = town.here.state(&room_id).await;
    let here = state.iter().find(|(kind, key, _)| kind == "m.room.member" && *key == bob.as_str());
    assert_eq!(here.map(|(.., id)| id.as_str()), Some(join.event_id().as_str()));
    assert!(entered.pos > hearth_store::Pos::ZERO);
    assert_eq!(enter().await.expect("he is in").pos, hearth_store::Pos::ZERO, "nothing is new");
}
