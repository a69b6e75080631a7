//! Events that come again, by another way or at another time.

use std::sync::atomic::Ordering;

use hearth_event::RoomVersion;
use hearth_schema::Verdict;
use ruma_common::{EventId, RoomId};

use super::neighbour::{Town, event, name, other, raw};
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
