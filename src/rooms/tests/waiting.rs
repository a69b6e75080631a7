//! Events whose predecessors cannot be asked for at the moment, and what others notice of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hearth_event::{Pdu, RoomVersion};
use hearth_schema::{Inbox, Source, StagedEvent, Verdict};
use hearth_store::{Order, Owner};
use ruma_common::{EventId, OwnedEventId, RoomId, ServerName, server_name};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::fixture::{Fixture, message, user};
use super::neighbour::{Town, event, event_after, name, other, raw};
use crate::SendError;
use crate::inbound::{Taker, limits};

async fn say(town: &Town, room_id: &RoomId, body: &str) -> OwnedEventId {
    town.there.rooms.send(message(room_id, &other("olga"), body, body)).await.expect("sent").event_id
}

async fn verdict(on: &Fixture, room_id: &RoomId, id: &EventId) -> Option<Verdict> {
    event(&on.rooms, room_id, id).await.map(|event| event.verdict)
}

async fn is_accepted(on: &Fixture, room_id: &RoomId, id: &EventId) {
    let accepted = async {
        while verdict(on, room_id, id).await != Some(Verdict::Accepted) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), accepted).await.expect("it is taken in the end");
}

async fn inbox(on: &Fixture, room_id: &RoomId) -> Vec<StagedEvent> {
    let (view, room) = (on.rooms.view().await.expect("a view"), on.rooms.ids().room(room_id));
    let rows = view.page::<Inbox, _>(&(room.lane(), room), Order::Ascending, 2_000).await.expect("readable");
    rows.into_iter().map(|(_, row)| row).collect()
}

/// How often others were asked for what is missing.
fn questions(town: &Town) -> usize {
    std::mem::take(&mut *town.neighbour.asked.lock().expect("not poisoned"))
        .into_iter()
        .filter(|asked| *asked != "keys")
        .count()
}

fn mute(town: &Town) {
    town.neighbour.mute.store(true, Ordering::Relaxed);
}

fn unmute(town: &Town) {
    town.neighbour.mute.store(false, Ordering::Relaxed);
}

fn hear(on: &Fixture, server: &ServerName) {
    on.rooms.0.workers.heard_from(Some(server), hearth_base::Clock::now(&*on.clock));
}

/// A message after one that nobody has.
async fn after_nothing(town: &Town, room_id: &RoomId, n: usize) -> Pdu {
    let prev = [(format!("${n:0>43}"), 5)];
    let content = json!({ "msgtype": "m.text", "body": format!("{n}") });
    event_after(&town.there, room_id, &other("olga"), ("m.room.message", None), content, &prev).await
}

#[tokio::test]
async fn what_cannot_be_asked_for_now_is_asked_for_when_its_server_is_back() {
    let town = Town::new();
    mute(&town);
    let mut all = Vec::new();
    for _ in 0..3 {
        let room_id = town.shared_room(RoomVersion::DEFAULT).await;
        say(&town, &room_id, "missed").await;
        let newest = say(&town, &room_id, "newest").await;
        let received = Town::deliver(&town.there, &town.here, &room_id, &[&newest]).await;
        assert!(received[0].result.is_ok(), "{received:?}");
        assert_eq!(verdict(&town.here, &room_id, &newest).await, None);
        all.push((room_id, newest));
    }
    unmute(&town);
    town.here.clock.advance(Duration::from_secs(6));
    hear(&town.here, name(1));
    for (room_id, newest) in all {
        is_accepted(&town.here, &room_id, &newest).await;
        let history = town.here.history(&room_id, &user("alice")).await;
        assert_eq!(history[history.len() - 2..], ["missed", "newest"]);
        assert!(inbox(&town.here, &room_id).await.is_empty());
    }
}

#[tokio::test]
async fn others_go_on_while_an_event_waits_and_what_follows_it_asks_nothing() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let (view, room) = (town.there.rooms.view().await.expect("a view"), town.there.rooms.ids().room(&room_id));
    let head = town.there.rooms.head(&view, room).await.expect("a head");
    let end = head.extremities.first().map(|end| (end.event_id.clone(), end.depth)).expect("an end");
    say(&town, &room_id, "missed").await;
    let waiting = say(&town, &room_id, "waiting").await;
    mute(&town);
    questions(&town);
    Town::deliver(&town.there, &town.here, &room_id, &[&waiting]).await;
    assert!(questions(&town) > 0);
    let following = say(&town, &room_id, "following").await;
    Town::deliver(&town.there, &town.here, &room_id, &[&following]).await;
    assert_eq!(questions(&town), 0, "it is known that nobody answers");
    assert_eq!(inbox(&town.here, &room_id).await.len(), 2);
    // Another server's event, which lacks nothing.
    let content = json!({ "msgtype": "m.text", "body": "passing by" });
    let passing = event_after(&town.there, &room_id, &other("olga"), ("m.room.message", None), content, &[end]).await;
    town.here.rooms.receive(server_name!("third.test"), vec![raw(&passing)]).await.expect("received");
    town.here.settled(&room_id).await;
    assert_eq!(verdict(&town.here, &room_id, passing.event_id()).await, Some(Verdict::Accepted));
    // What was missed comes by itself: nobody has to be asked for what waits.
    let missed = event(&town.there.rooms, &room_id, &waiting).await.expect("there").pdu.prev_events()[0].clone();
    Town::deliver(&town.there, &town.here, &room_id, &[&missed]).await;
    is_accepted(&town.here, &room_id, &following).await;
    assert_eq!(verdict(&town.here, &room_id, &waiting).await, Some(Verdict::Accepted));
    assert_eq!(questions(&town), 0);
}

#[tokio::test]
async fn what_waits_is_still_there_after_a_restart() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    say(&town, &room_id, "missed").await;
    let newest = say(&town, &room_id, "newest").await;
    mute(&town);
    Town::deliver(&town.there, &town.here, &room_id, &[&newest]).await;
    town.here.shutdown.cancel();
    town.here.rooms.join().await;
    unmute(&town);
    let (store, neighbour) = (Arc::clone(&town.here.store), Arc::clone(&town.neighbour));
    let again = Fixture::named("hearth.test", [3; 32], store, neighbour as _);
    questions(&town);
    again.rooms.resume_inbound().await.expect("it starts");
    again.settled(&room_id).await;
    assert_eq!(questions(&town), 0, "not yet");
    again.clock.advance(Duration::from_secs(60));
    again.rooms.resume_inbound().await.expect("awake");
    is_accepted(&again, &room_id, &newest).await;
}

#[tokio::test]
async fn an_event_waits_for_half_a_day_and_no_longer() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    mute(&town);
    let pdu = after_nothing(&town, &room_id, 1).await;
    town.here.rooms.receive(name(1), vec![raw(&pdu)]).await.expect("received");
    town.here.settled(&room_id).await;
    let mut tries = Vec::new();
    for _ in 0..20 {
        let Some(row) = inbox(&town.here, &room_id).await.pop() else { break };
        tries.push(row.wait.expect("it was tried").tries);
        town.here.clock.advance(Duration::from_secs(2 * 60 * 60));
        town.here.rooms.resume_inbound().await.expect("awake");
        let is_tried_again = async {
            while inbox(&town.here, &room_id).await.pop() == Some(row.clone()) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), is_tried_again).await.expect("it is tried again");
    }
    assert_eq!(tries, [1, 2, 3, 4, 5, 6]);
    assert_eq!(verdict(&town.here, &room_id, pdu.event_id()).await, None);
}

#[tokio::test]
async fn a_server_that_stalls_is_given_up_in_time_to_ask_another() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    say(&town, &room_id, "missed").await;
    let newest = say(&town, &room_id, "newest").await;
    let newest = event(&town.there.rooms, &room_id, &newest).await.expect("there").pdu.clone();
    let stalling = server_name!("stalling.test");
    town.neighbour.stalling.lock().expect("not poisoned").insert(stalling.to_string());
    let taker = Taker::new(&town.here.rooms, &room_id, stalling).await.expect("readable").expect("a room");
    let taker = Taker { deadline: Instant::now() + Duration::from_secs(4), ..taker };
    taker.take_strictly(newest.clone(), Source::Remote).await.expect("another server tells");
    assert_eq!(verdict(&town.here, &room_id, newest.event_id()).await, Some(Verdict::Accepted));
    assert_eq!(*town.neighbour.given_up.lock().expect("not poisoned"), [stalling], "it is to be left alone");
}

#[tokio::test]
async fn who_sends_more_than_can_be_judged_has_to_come_again() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let elsewhere = town.shared_room(RoomVersion::DEFAULT).await;
    mute(&town);
    let (of_server, _) = limits();
    let mut pdus = Vec::with_capacity(of_server);
    for n in 0..of_server {
        pdus.push(raw(&after_nothing(&town, &room_id, n).await));
    }
    for some in pdus.chunks(50) {
        town.here.rooms.receive(name(1), some.to_vec()).await.expect("received");
    }
    town.here.settled(&room_id).await;
    let more = say(&town, &elsewhere, "more").await;
    let more = raw(&event(&town.there.rooms, &elsewhere, &more).await.expect("there").pdu);
    let again = vec![pdus[0].clone(), more.clone()];
    let refused = town.here.rooms.receive(name(1), again).await.map(drop);
    assert!(matches!(refused, Err(SendError::Busy)), "{refused:?}");
    assert!(inbox(&town.here, &elsewhere).await.is_empty(), "nothing of it was taken");
    town.here.rooms.receive(name(1), vec![more]).await.expect("another room");
    town.here.rooms.receive(server_name!("third.test"), vec![pdus[0].clone()]).await.expect("another server");
    town.here.settled(&room_id).await;
    assert_eq!(inbox(&town.here, &room_id).await.len(), of_server + 1);
}
