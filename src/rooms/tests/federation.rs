//! Events of other servers: order, gaps, forks, verdicts.

use std::sync::atomic::Ordering;

use hearth_event::RoomVersion;
use hearth_schema::{Membership, Verdict};
use ruma_common::{EventId, OwnedEventId, RoomId};
use serde_json::json;

use super::fixture::{message, user};
use super::neighbour::{Town, event, event_after, event_on, name, other, raw, verified};

/// Everything that `sender` says there, by ID.
async fn say(town: &Town, room_id: &RoomId, body: &str) -> OwnedEventId {
    town.there.rooms.send(message(room_id, &other("olga"), body, body)).await.expect("sent").event_id
}

async fn verdict(town: &Town, room_id: &RoomId, id: &EventId) -> Option<Verdict> {
    event(&town.here.rooms, room_id, id).await.map(|event| event.verdict)
}

fn versions() -> impl Iterator<Item = RoomVersion> {
    ["1", "2", "3", "6", "10", "11", "12"].into_iter().map(|name| RoomVersion::parse(name).expect("known"))
}

#[tokio::test]
async fn a_room_of_another_server_is_the_same_room_here() {
    for version in versions() {
        let town = Town::new();
        let room_id = town.shared_room(version).await;
        assert_eq!(town.here.state(&room_id).await, town.there.state(&room_id).await, "version {version}");
        let said = say(&town, &room_id, "hello").await;
        let received = Town::deliver(&town.there, &town.here, &room_id, &[&said]).await;
        assert!(received[0].result.is_ok(), "{received:?}");
        let history = town.here.history(&room_id, &user("alice")).await;
        assert_eq!(history.last().map(String::as_str), Some("hello"), "version {version}");
        // And back.
        let answer = town.here.say(&room_id, &user("alice"), "hi yourself", "1").await.expect("sent").event_id;
        Town::deliver(&town.here, &town.there, &room_id, &[&answer]).await;
        let history = town.there.history(&room_id, &other("olga")).await;
        assert_eq!(history.last().map(String::as_str), Some("hi yourself"), "version {version}");
    }
}

#[tokio::test]
async fn a_gap_is_filled_in_order() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let mut last = None;
    for body in ["one", "two", "three"] {
        last = Some(say(&town, &room_id, body).await);
    }
    Town::deliver(&town.there, &town.here, &room_id, &[&last.expect("sent")]).await;
    let history = town.here.history(&room_id, &user("alice")).await;
    assert_eq!(history[history.len() - 3..], ["one", "two", "three"]);
}

#[tokio::test]
async fn where_the_gap_cannot_be_filled_the_state_is_asked_for() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    town.neighbour.forgetful.store(true, Ordering::Relaxed);
    let topic = town.there.set(&room_id, &other("olga"), ("m.room.topic", ""), json!({ "topic": "new" })).await;
    let topic = topic.expect("set").event_id;
    say(&town, &room_id, "lost").await;
    let last = say(&town, &room_id, "last").await;
    Town::deliver(&town.there, &town.here, &room_id, &[&last]).await;
    let history = town.here.history(&room_id, &user("alice")).await;
    assert_eq!(history.last().map(String::as_str), Some("last"));
    assert!(town.here.state(&room_id).await.iter().any(|(.., id)| *id == topic), "the state came with it");
    assert_eq!(town.here.state(&room_id).await, town.there.state(&room_id).await);
}

#[tokio::test]
async fn two_sides_of_a_partition_agree_when_it_heals() {
    for version in versions() {
        let town = Town::new();
        let room_id = town.shared_room(version).await;
        let (olga, alice) = (other("olga"), user("alice"));
        let levels = json!({ "users": { olga.as_str(): 100, alice.as_str(): 50 }, "invite": 0 });
        let levels =
            if version.as_str() == "12" { json!({ "users": { alice.as_str(): 50 }, "invite": 0 }) } else { levels };
        let set = town.there.set(&room_id, &olga, ("m.room.power_levels", ""), levels).await.expect("set");
        Town::deliver(&town.there, &town.here, &room_id, &[&set.event_id]).await;
        let bob = user("bob");
        town.join(&room_id, &bob).await;
        // Both change the topic, one side bans the other's user.
        let mut here = Vec::new();
        let mut there = Vec::new();
        let topic = |topic: &str| json!({ "topic": topic });
        here.push(
            town.here.set(&room_id, &alice, ("m.room.topic", ""), topic("of alice")).await.expect("set").event_id,
        );
        there
            .push(town.there.set(&room_id, &olga, ("m.room.topic", ""), topic("of olga")).await.expect("set").event_id);
        there.push(town.there.change(&room_id, (&olga, &alice), Membership::Ban).await.expect("ban").event_id);
        here.push(
            town.here
                .set(&room_id, &alice, ("m.room.name", ""), json!({ "name": "mine" }))
                .await
                .expect("set")
                .event_id,
        );
        let ids = |ids: &[OwnedEventId]| ids.to_vec();
        for id in ids(&there) {
            Town::deliver(&town.there, &town.here, &room_id, &[&id]).await;
        }
        for id in ids(&here) {
            Town::deliver(&town.here, &town.there, &room_id, &[&id]).await;
        }
        // What a server refuses by its current state counts again once somebody has built on both sides.
        let both = town.here.say(&room_id, &bob, "peace", "1").await.expect("sent").event_id;
        Town::deliver(&town.here, &town.there, &room_id, &[&both]).await;
        assert_eq!(town.here.state(&room_id).await, town.there.state(&room_id).await, "version {version}");
        let banned = town.here.state(&room_id).await;
        assert!(
            banned.iter().any(|(kind, key, id)| kind == "m.room.member" && key == alice.as_str() && there.contains(id))
        );
    }
}

#[tokio::test]
async fn who_was_banned_cannot_speak_from_before_the_ban() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let (olga, alice) = (other("olga"), user("alice"));
    // A second user of the other server, who will be banned and goes on from where it was in the room.
    let eve = other("eve");
    let join = town.there.change(&room_id, (&eve, &eve), Membership::Join).await.expect("join").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&join]).await;
    let depth = event(&town.there.rooms, &room_id, &join).await.expect("an event").pdu.depth();
    let late = event_after(
        &town.there,
        &room_id,
        &eve,
        ("m.room.message", None),
        json!({ "body": "late" }),
        &[(join.to_string(), depth)],
    )
    .await;
    let ban = town.there.change(&room_id, (&olga, &eve), Membership::Ban).await.expect("ban").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&ban]).await;
    town.here.rooms.receive(name(1), vec![raw(&late)]).await.expect("received");
    town.here.settled(&room_id).await;
    assert_eq!(verdict(&town, &room_id, late.event_id()).await, Some(Verdict::SoftFailed));
    assert!(!town.here.history(&room_id, &alice).await.contains(&"late".to_owned()));
    // It is no end of the room: what is said next does not follow it.
    let next = town.here.say(&room_id, &alice, "next", "1").await.expect("sent").event_id;
    let next = event(&town.here.rooms, &room_id, &next).await.expect("an event");
    assert!(!next.pdu.prev_events().iter().any(|id| id == late.event_id()));
}

#[tokio::test]
async fn what_the_rules_forbid_is_kept_and_not_shown() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let before = town.here.state(&room_id).await;
    let stranger = other("stranger");
    let forged = event_on(&town.there, &room_id, &stranger, ("m.room.topic", Some("")), json!({ "topic": "x" })).await;
    let received = town.here.rooms.receive(name(1), vec![raw(&forged)]).await.expect("received");
    assert!(received[0].result.is_ok(), "a rejected event is an event that came");
    town.here.settled(&room_id).await;
    assert_eq!(verdict(&town, &room_id, forged.event_id()).await, Some(Verdict::Rejected));
    assert_eq!(town.here.state(&room_id).await, before);
    assert!(town.here.rooms.enter_handshake(name(1), verified(&forged).await).await.is_err());
}

#[tokio::test]
async fn a_redaction_may_come_before_what_it_redacts() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let said = say(&town, &room_id, "secret").await;
    let original = raw(&event(&town.there.rooms, &room_id, &said).await.expect("an event").pdu);
    let mut redaction = message(&room_id, &other("olga"), "", "r");
    redaction.event_type = "m.room.redaction".into();
    redaction.redacts = Some(said.clone());
    let redaction = town.there.rooms.send(redaction).await.expect("sent").event_id;
    town.neighbour.forgetful.store(true, Ordering::Relaxed);
    let redaction = raw(&event(&town.there.rooms, &room_id, &redaction).await.expect("an event").pdu);
    town.here.rooms.receive(name(1), vec![redaction]).await.expect("received");
    town.here.settled(&room_id).await;
    town.here.rooms.receive(name(1), vec![original]).await.expect("received");
    town.here.settled(&room_id).await;
    let found = event(&town.here.rooms, &room_id, &said).await.expect("an event");
    assert!(!found.pdu.content().get().contains("secret"), "{}", found.pdu.content().get());
    assert!(!town.here.history(&room_id, &user("alice")).await.contains(&"secret".to_owned()));
}

#[tokio::test]
async fn a_room_that_nobody_here_is_in_takes_nothing() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let alice = user("alice");
    town.here.change(&room_id, (&alice, &alice), Membership::Leave).await.expect("left");
    let said = say(&town, &room_id, "anybody there?").await;
    let received = Town::deliver(&town.there, &town.here, &room_id, &[&said]).await;
    assert!(received[0].result.is_err());
    assert_eq!(verdict(&town, &room_id, &said).await, None);
}

#[tokio::test]
async fn who_comes_back_finds_the_room_as_it_is_now() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let alice = user("alice");
    let left = town.here.change(&room_id, (&alice, &alice), Membership::Leave).await.expect("left").event_id;
    Town::deliver(&town.here, &town.there, &room_id, &[&left]).await;
    for n in 0..3 {
        town.there.set(&room_id, &other("olga"), ("m.room.topic", ""), json!({ "topic": n })).await.expect("set");
    }
    town.join(&room_id, &alice).await;
    assert_eq!(town.here.state(&room_id).await, town.there.state(&room_id).await);
    let said = say(&town, &room_id, "welcome back").await;
    Town::deliver(&town.there, &town.here, &room_id, &[&said]).await;
    assert_eq!(town.here.history(&room_id, &alice).await.last().map(String::as_str), Some("welcome back"));
}

#[tokio::test]
async fn scrolling_back_fetches_what_was_before_the_join() {
    let town = Town::new();
    let create = crate::CreateRoom { creator: other("olga"), ..super::fixture::creation(crate::Preset::PublicChat) };
    let room_id = town.there.rooms.create(create).await.expect("a room");
    for n in 0..10 {
        say(&town, &room_id, &format!("old {n}")).await;
    }
    town.join(&room_id, &user("alice")).await;
    say(&town, &room_id, "unseen").await;
    let query = |from| crate::HistoryQuery {
        room_id: room_id.clone(),
        from,
        to: None,
        direction: crate::Direction::Backward,
        limit: 5,
        filter: crate::EventFilter::default(),
    };
    let (mut shown, mut from) = (Vec::new(), None);
    loop {
        let page = town.here.rooms.messages(&user("alice"), &query(from)).await.expect("a page");
        shown.extend(page.events.iter().map(|event| super::fixture::label(event)));
        match page.end {
            Some(end) => from = Some(end),
            None => break,
        }
    }
    shown.reverse();
    let there = town.there.history(&room_id, &other("olga")).await;
    assert_eq!(shown, there[..there.len() - 1], "everything up to the join, in order");
    assert_eq!(town.here.history(&room_id, &user("alice")).await, shown, "and it stays");
}

#[tokio::test]
async fn jumping_to_a_date_before_the_join_fetches_what_was_then() {
    let town = Town::new();
    let create = crate::CreateRoom { creator: other("olga"), ..super::fixture::creation(crate::Preset::PublicChat) };
    let room_id = town.there.rooms.create(create).await.expect("a room");
    town.there.clock.advance(std::time::Duration::from_millis(100));
    let said = say(&town, &room_id, "long ago").await;
    town.join(&room_id, &user("alice")).await;
    for (time, direction) in [(50, crate::Direction::Forward), (150, crate::Direction::Backward)] {
        let time = hearth_base::Millis(1_700_000_000_000 + time);
        let found = town.here.rooms.event_at_time(&user("alice"), room_id.clone(), time, direction).await;
        assert_eq!(found.expect("found").event_id(), said);
    }
}
