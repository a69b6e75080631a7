//! After a start: what came meanwhile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hearth_event::RoomVersion;
use ruma_common::RoomId;
use tokio_util::sync::CancellationToken;

use super::fixture::{message, user};
use super::neighbour::{Town, other};
use crate::Preset;

async fn say(town: &Town, room_id: &RoomId, body: &str) {
    town.there.rooms.send(message(room_id, &other("olga"), body, body)).await.expect("sent");
}

async fn catch_up(town: &Town, room_id: &RoomId) {
    town.here.rooms.clone().run_catching_up(CancellationToken::new()).await;
    town.here.settled(room_id).await;
}

fn asked(town: &Town) -> Vec<&'static str> {
    std::mem::take(&mut *town.neighbour.asked.lock().expect("not poisoned"))
}

#[tokio::test]
async fn what_was_missed_is_fetched_without_a_word_of_the_others() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let quiet = town.shared_room(RoomVersion::DEFAULT).await;
    for body in ["one", "two", "three"] {
        say(&town, &room_id, body).await;
    }
    asked(&town);
    catch_up(&town, &room_id).await;
    let history = town.here.history(&room_id, &user("alice")).await;
    assert_eq!(history[history.len() - 3..], ["one", "two", "three"]);
    assert_eq!(town.here.state(&quiet).await, town.there.state(&quiet).await);
    let first = asked(&town);
    assert_eq!(first.iter().filter(|question| **question == "event_before").count(), 2, "{first:?}");
    assert_eq!(first.iter().filter(|question| **question == "event").count(), 1, "nothing new there: {first:?}");
    catch_up(&town, &room_id).await;
    assert_eq!(asked(&town), ["event_before", "event_before"], "there is nothing left");
    assert_eq!(town.here.history(&room_id, &user("alice")).await, history);
}

#[tokio::test]
async fn a_leave_comes_with_what_its_server_had_said_before() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let alice = user("alice");
    town.here.rooms.send(message(&room_id, &alice, "last words", "1")).await.expect("sent");
    let left = town.here.change(&room_id, (&alice, &alice), hearth_schema::Membership::Leave).await.expect("left");
    let received = Town::deliver(&town.here, &town.there, &room_id, &[&left.event_id]).await;
    assert_eq!(received[0].result, Ok(()));
    assert_eq!(town.there.state(&room_id).await, town.here.state(&room_id).await);
    let history = town.there.history(&room_id, &other("olga")).await;
    assert!(history.contains(&"last words".to_owned()), "{history:?}");
}

#[tokio::test]
async fn only_rooms_that_both_are_in_are_asked_about() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let alice = user("alice");
    town.here.change(&room_id, (&alice, &alice), hearth_schema::Membership::Leave).await.expect("left");
    let own = town.here.room(Preset::PublicChat).await;
    asked(&town);
    catch_up(&town, &own).await;
    assert!(asked(&town).is_empty());
}

#[tokio::test]
async fn who_cannot_tell_is_left_alone() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    town.neighbour.old.store(true, Ordering::Relaxed);
    say(&town, &room_id, "one").await;
    asked(&town);
    catch_up(&town, &room_id).await;
    assert_eq!(asked(&town), ["event_before"], "once: it would not know later");
    assert!(!town.here.history(&room_id, &user("alice")).await.contains(&"one".to_owned()));
}

#[tokio::test]
async fn what_a_peer_has_kept_comes_before_the_newest() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    // More than is fetched before one event.
    let mut kept = Vec::new();
    for n in 0..250 {
        let body = format!("kept {n}");
        kept.push(town.there.rooms.send(message(&room_id, &other("olga"), &body, &body)).await.expect("sent").event_id);
    }
    let sending = async {
        for some in kept.chunks(50) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let some: Vec<_> = some.iter().map(|id| &**id).collect();
            Town::deliver(&town.there, &town.here, &room_id, &some).await;
        }
    };
    tokio::join!(catch_up(&town, &room_id), sending);
    let here = town.here.history(&room_id, &user("alice")).await;
    let expected: Vec<_> = (0..250).map(|n| format!("kept {n}")).collect();
    assert_eq!(here[here.len() - expected.len()..], expected);
    let asked = asked(&town);
    assert!(!asked.contains(&"event") && !asked.contains(&"missing_events"), "it all came by itself: {asked:?}");
}
