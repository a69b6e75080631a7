//! Rejections are for ever, so they need a reason that lasts.

use hearth_event::{EventDraft, Pdu, RoomVersion, SigningKey, build};
use hearth_schema::{Membership, Verdict};
use ruma_common::{EventId, OwnedEventId, RoomId, UserId};
use serde_json::json;

use super::fixture::object;
use super::neighbour::{Town, event, event_after, event_on, name, other, raw};

async fn send(town: &Town, room_id: &RoomId, pdu: &Pdu) {
    town.here.rooms.receive(name(1), vec![raw(pdu)]).await.expect("received");
    town.here.settled(room_id).await;
}

async fn verdict(town: &Town, room_id: &RoomId, id: &EventId) -> Option<Verdict> {
    event(&town.here.rooms, room_id, id).await.map(|event| event.verdict)
}

/// A message of `sender` after `prev`, which stands on `pillar` besides the room's power levels and creation.
async fn standing_on(town: &Town, room_id: &RoomId, sender: &UserId, (prev, pillar): (&Pdu, &EventId)) -> Pdu {
    let mut auth_events: Vec<OwnedEventId> = Vec::new();
    for (kind, _, id) in town.there.state(room_id).await {
        if kind == "m.room.create" || kind == "m.room.power_levels" {
            auth_events.push(id);
        }
    }
    auth_events.push(pillar.to_owned());
    let draft = EventDraft {
        room_id: Some(room_id.to_owned()),
        event_type: "m.room.message".to_owned(),
        state_key: None,
        sender: sender.to_owned(),
        content: object(json!({ "body": "hello", "msgtype": "m.text" })),
        origin_server_ts: 1_700_000_000_900,
        prev_events: vec![prev.event_id().to_owned()],
        auth_events,
        depth: prev.depth() + 1,
        redacts: None,
    };
    let key = SigningKey::from_seed([4; 32], "test").expect("a valid key");
    build(draft, prev.version(), sender.server_name(), &key).expect("an event")
}

#[tokio::test]
async fn who_lacks_auth_events_judges_when_they_are_here() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::parse("10").expect("known")).await;
    let eve = other("eve");
    let join = town.there.change(&room_id, (&eve, &eve), Membership::Join).await.expect("join").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&join]).await;
    let join = event(&town.there.rooms, &room_id, &join).await.expect("an event").pdu.clone();
    let member = ("m.room.member", Some(eve.as_str()));
    let content = json!({ "membership": "join", "displayname": "Eve" });
    let prev = [(join.event_id().to_string(), join.depth())];
    // Nobody tells of it yet.
    let named = event_after(&town.there, &room_id, &eve, member, content, &prev).await;
    let said = standing_on(&town, &room_id, &eve, (&join, named.event_id())).await;
    send(&town, &room_id, &said).await;
    assert_eq!(verdict(&town, &room_id, said.event_id()).await, None, "not judged");
    send(&town, &room_id, &named).await;
    assert_eq!(verdict(&town, &room_id, named.event_id()).await, Some(Verdict::Accepted));
    send(&town, &room_id, &said).await;
    assert_eq!(verdict(&town, &room_id, said.event_id()).await, Some(Verdict::Accepted));
}

#[tokio::test]
async fn who_stands_on_what_was_rejected_is_rejected_for_ever() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::parse("10").expect("known")).await;
    let (eve, mallory) = (other("eve"), other("mallory"));
    let join = town.there.change(&room_id, (&eve, &eve), Membership::Join).await.expect("join").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&join]).await;
    let join = event(&town.there.rooms, &room_id, &join).await.expect("an event").pdu.clone();
    // Not a member, so nothing that she may say.
    let forged = event_on(&town.there, &room_id, &mallory, ("m.room.topic", Some("")), json!({ "topic": "x" })).await;
    send(&town, &room_id, &forged).await;
    assert_eq!(verdict(&town, &room_id, forged.event_id()).await, Some(Verdict::Rejected));
    let said = standing_on(&town, &room_id, &eve, (&join, forged.event_id())).await;
    for _ in 0..2 {
        send(&town, &room_id, &said).await;
        assert_eq!(verdict(&town, &room_id, said.event_id()).await, Some(Verdict::Rejected));
    }
}

#[tokio::test]
async fn what_was_let_go_because_nobody_told_what_came_before_is_taken_when_it_comes_again() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::parse("10").expect("known")).await;
    let olga = other("olga");
    // Both are made elsewhere: the neighbour does not know them, and cannot be asked.
    let message = ("m.room.message", None);
    let first = event_on(&town.there, &room_id, &olga, message, json!({ "body": "first" })).await;
    let prev = [(first.event_id().to_string(), first.depth())];
    let second = event_after(&town.there, &room_id, &olga, message, json!({ "body": "second" }), &prev).await;
    send(&town, &room_id, &second).await;
    assert_eq!(verdict(&town, &room_id, second.event_id()).await, None);
    send(&town, &room_id, &first).await;
    send(&town, &room_id, &second).await;
    for pdu in [&first, &second] {
        assert_eq!(verdict(&town, &room_id, pdu.event_id()).await, Some(Verdict::Accepted));
    }
}
