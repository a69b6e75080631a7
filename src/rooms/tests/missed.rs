//! After a start: what came meanwhile.

use std::sync::atomic::Ordering;

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
