//! Mail addresses that were invited and turn out to be users of ours.

use hearth_event::RoomVersion;
use ruma_common::{OwnedRoomId, RoomId, UserId};
use serde_json::{Value, json};

use super::exchange::{TOKEN, exchange, identity_key};
use super::fixture::{creation, user};
use super::neighbour::{Town, event, other};
use crate::remote::RemoteError;
use crate::{CreateRoom, ExchangeError, ExchangeIn, HandshakeRefusal, MembershipError, Preset};

/// What the identity server vouches for in a room where olga has invited.
fn bound(room_id: &RoomId, invited: &UserId) -> ExchangeIn {
    ExchangeIn { sender: other("olga"), ..exchange(room_id, invited) }
}

fn offer() -> Value {
    json!({ "display_name": "b...", "public_keys": [{ "public_key": identity_key().public_key_base64() }] })
}

/// A room of the other server in which olga has invited a mail address.
async fn room_elsewhere(town: &Town, version: RoomVersion) -> OwnedRoomId {
    let create = CreateRoom { creator: other("olga"), version: Some(version), ..creation(Preset::PrivateChat) };
    let room_id = town.there.rooms.create(create).await.expect("a room");
    town.there.set(&room_id, &other("olga"), ("m.room.third_party_invite", TOKEN), offer()).await.expect("set");
    room_id
}

fn asked(town: &Town) -> usize {
    let asked = town.neighbour.asked.lock().expect("not poisoned");
    asked.iter().filter(|what| **what == "exchange_third_party_invite").count()
}

/// The invitation of `invited` as the room has it there.
async fn invited(town: &Town, room_id: &RoomId, invited: &UserId) -> Value {
    let state = town.there.state(room_id).await;
    let (.., id) =
        state.iter().find(|(kind, key, _)| kind == "m.room.member" && key == invited.as_str()).expect("there");
    let invited = event(&town.there.rooms, room_id, id).await.expect("an event");
    serde_json::from_slice(invited.pdu.json()).expect("JSON")
}

#[tokio::test]
async fn the_server_of_who_invited_is_asked_once() {
    for version in RoomVersion::all() {
        let town = Town::new();
        let room_id = room_elsewhere(&town, version).await;
        let bob = user("bob");
        town.here.rooms.invite_bound(bound(&room_id, &bob)).await.expect("an invitation");
        let event = invited(&town, &room_id, &bob).await;
        assert_eq!((&event["sender"], &event["content"]["membership"]), (&json!(other("olga")), &json!("invite")));
        assert_eq!(event["content"]["third_party_invite"]["signed"]["mxid"], json!(bob));
        let signers: Vec<&String> = event["signatures"].as_object().expect("an object").keys().collect();
        assert_eq!(signers, ["hearth.test", "other.test"], "version {version}");
        town.here.rooms.invite_bound(bound(&room_id, &bob)).await.expect("nothing to do");
        assert_eq!(invited(&town, &room_id, &bob).await, event, "once");
    }
}

#[tokio::test]
async fn nobody_is_asked_where_it_is_plain_here() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let (alice, bob) = (user("alice"), user("bob"));
    town.here.rooms.invite_bound(bound(&room_id, &alice)).await.expect("she is in the room");
    let unknown = town.here.rooms.invite_bound(bound(&room_id, &bob)).await;
    let forbidden = |result: &Result<(), ExchangeError>| {
        matches!(result, Err(ExchangeError::Refused(HandshakeRefusal::Forbidden(_))))
    };
    assert!(forbidden(&unknown), "the room has no such invitation: {unknown:?}");
    let set = town.there.set(&room_id, &other("olga"), ("m.room.third_party_invite", TOKEN), offer()).await;
    Town::deliver(&town.there, &town.here, &room_id, &[&set.expect("set").event_id]).await;
    let pim = ExchangeIn { sender: other("pim"), ..bound(&room_id, &bob) };
    let pim = town.here.rooms.invite_bound(pim).await;
    assert!(forbidden(&pim), "he has not invited: {pim:?}");
    assert_eq!(asked(&town), 0);
    town.here.rooms.invite_bound(bound(&room_id, &bob)).await.expect("an invitation");
    assert_eq!(asked(&town), 1);
    assert_eq!(invited(&town, &room_id, &bob).await["content"]["third_party_invite"]["display_name"], "b...");
}

#[tokio::test]
async fn whom_no_key_of_the_room_vouches_for_is_not_invited() {
    let town = Town::new();
    let room_id = room_elsewhere(&town, RoomVersion::DEFAULT).await;
    let (bob, carl) = (user("bob"), user("carl"));
    let unsigned = ExchangeIn { signatures: std::collections::BTreeMap::new(), ..bound(&room_id, &bob) };
    let for_another = ExchangeIn { mxid: carl.clone(), user: carl.clone(), ..bound(&room_id, &bob) };
    for wrong in [unsigned, for_another] {
        let refused = town.here.rooms.invite_bound(wrong).await;
        let Err(ExchangeError::Invite(MembershipError::Remote(RemoteError::Refused { .. }))) = refused else {
            panic!("{refused:?}");
        };
    }
    for wrong in [
        ExchangeIn { mxid: carl, ..bound(&room_id, &bob) },
        ExchangeIn { token: "x".repeat(256), ..bound(&room_id, &bob) },
        bound(&room_id, &other("pim")),
    ] {
        let refused = town.here.rooms.invite_bound(wrong).await;
        assert!(matches!(refused, Err(ExchangeError::Refused(HandshakeRefusal::Invalid(_)))), "{refused:?}");
    }
    let members = town.there.state(&room_id).await.into_iter().filter(|(kind, ..)| kind == "m.room.member");
    assert_eq!(members.count(), 1, "olga");
}
