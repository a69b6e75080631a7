//! Rejections are for ever, so they need a reason that lasts.

use hearth_event::{EventDraft, Pdu, RoomVersion, SigningKey, build};
use hearth_schema::{Membership, Verdict};
use ruma_common::{EventId, OwnedEventId, RoomId, UserId};
use serde_json::json;

use super::fixture::object;
use super::neighbour::{Town, event, event_after, event_on, name, other, raw};
use crate::inbound::Taker;

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
async fn who_tells_half_an_auth_chain_rejects_nothing() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::parse("10").expect("known")).await;
    let eve = other("eve");
    let join = town.there.change(&room_id, (&eve, &eve), Membership::Join).await.expect("join").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&join]).await;
    let join = event(&town.there.rooms, &room_id, &join).await.expect("an event").pdu.clone();
    let content = json!({ "membership": "join", "displayname": "Eve" });
    let prev = [(join.event_id().to_string(), join.depth())];
    let named = event_after(&town.there, &room_id, &eve, ("m.room.member", Some(eve.as_str())), content, &prev).await;
    let said = standing_on(&town, &room_id, &eve, (&named, named.event_id())).await;
    let taker = Taker::new(&town.here.rooms, &room_id, name(1)).await.expect("readable").expect("a room");
    taker.keep(vec![said.clone()]).await.expect("kept");
    assert_eq!(verdict(&town, &room_id, said.event_id()).await, None, "what it stands on was not told");
    for pdu in [&named, &said] {
        send(&town, &room_id, pdu).await;
        assert_eq!(verdict(&town, &room_id, pdu.event_id()).await, Some(Verdict::Accepted));
    }
}

#[tokio::test]
async fn a_room_has_one_create_event_whoever_tells_of_another() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::parse("10").expect("known")).await;
    let eve = other("eve");
    let join = town.there.change(&room_id, (&eve, &eve), Membership::Join).await.expect("join").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&join]).await;
    let before = town.here.state(&room_id).await;
    let draft = EventDraft {
        room_id: Some(room_id.clone()),
        event_type: "m.room.create".to_owned(),
        state_key: Some(String::new()),
        sender: eve.clone(),
        content: object(json!({ "creator": eve, "m.federate": false, "room_version": "10" })),
        origin_server_ts: 1_800_000_000_000,
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 1,
        redacts: None,
    };
    let key = SigningKey::from_seed([4; 32], "test").expect("a valid key");
    let signed = |draft| build(draft, RoomVersion::parse("10").expect("known"), eve.server_name(), &key);
    let create = signed(draft.clone()).expect("an event");
    // As an auth event that was asked for: nothing refuses it before the rules do.
    let taker = Taker::new(&town.here.rooms, &room_id, name(1)).await.expect("readable").expect("a room");
    taker.keep(vec![create.clone()]).await.expect("kept");
    assert_eq!(verdict(&town, &room_id, create.event_id()).await, Some(Verdict::Rejected));
    let draft = EventDraft {
        event_type: "m.room.member".to_owned(),
        state_key: Some(eve.to_string()),
        content: object(json!({ "membership": "join" })),
        prev_events: vec![create.event_id().to_owned()],
        auth_events: vec![create.event_id().to_owned()],
        depth: 2,
        ..draft
    };
    let on_it = signed(draft).expect("an event");
    send(&town, &room_id, &on_it).await;
    assert_eq!(verdict(&town, &room_id, on_it.event_id()).await, None, "the state before it is of no room");
    assert_eq!(town.here.state(&room_id).await, before);
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
