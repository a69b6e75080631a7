//! Rooms made with users of other servers in them.

use hearth_schema::Membership;
use ruma_common::{OwnedUserId, RoomId};

use super::fixture::{creation, user};
use super::neighbour::{Town, other};
use crate::{CreateRoom, MemberProfile, Preset};

/// Turns of the scheduler in which what is under way must come about.
const TURNS: usize = 1_000_000;

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..TURNS {
        if done().await {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{what} did not come about");
}

async fn membership(town: &Town, room_id: &RoomId, user: &OwnedUserId) -> Option<Membership> {
    let rooms = &town.here.rooms;
    let view = rooms.view().await.expect("a view");
    let entry = rooms.current_entry(&view, rooms.ids().room(room_id), "m.room.member", user.as_str()).await;
    entry.expect("readable").and_then(|entry| entry.membership)
}

fn with_guests(guests: &[OwnedUserId]) -> CreateRoom {
    let invite = guests.iter().map(|guest| (guest.clone(), MemberProfile::default())).collect();
    CreateRoom { invite, ..creation(Preset::PrivateChat) }
}

#[tokio::test]
async fn who_lives_elsewhere_is_invited_though_the_client_has_gone() {
    let town = Town::new();
    let guests: Vec<OwnedUserId> = (0..20).map(|n| other(&format!("guest{n}"))).collect();
    let held = town.neighbour.busy.write().await;
    let rooms = town.here.rooms.clone();
    let client = tokio::spawn({
        let create = with_guests(&guests);
        async move { rooms.create(create).await }
    });
    let asked = || town.neighbour.asked.lock().expect("not poisoned").contains(&"invite");
    until("an invitation", async || asked()).await;
    client.abort();
    assert!(client.await.is_err_and(|error| error.is_cancelled()));
    drop(held);
    let made = town.here.rooms.joined_room_ids(&user("alice")).await.expect("rooms");
    let [room_id] = made.as_slice() else { panic!("{made:?}") };
    for guest in &guests {
        until("an invitation", async || membership(&town, room_id, guest).await == Some(Membership::Invite)).await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_does_not_keep_the_client_from_its_room() {
    let town = Town::new();
    let guest = other("guest");
    let held = town.neighbour.busy.write().await;
    let room_id = town.here.rooms.create(with_guests(std::slice::from_ref(&guest))).await.expect("a room");
    assert_eq!(membership(&town, &room_id, &guest).await, None);
    town.here.say(&room_id, &user("alice"), "hello", "t").await.expect("sent");
    drop(held);
    until("the invitation", async || membership(&town, &room_id, &guest).await == Some(Membership::Invite)).await;
}
