//! Inviting users of other servers.

use hearth_schema::Membership;
use ruma_common::CanonicalJsonObject;
use serde_json::Value;

use super::*;
use crate::{CreateRoom, MembershipError, Preset, SendEvent};

fn alice() -> OwnedUserId {
    user_id!("@alice:hearth.test").to_owned()
}

fn invite_mallory(room_id: &RoomId) -> MembershipChange {
    let (sender, target) = (alice(), mallory().to_owned());
    MembershipChange { room_id: room_id.to_owned(), sender, target, ..change(Membership::Invite) }
}

fn creation(creator: &UserId, version: RoomVersion) -> CreateRoom {
    CreateRoom {
        creator: creator.to_owned(),
        profile: crate::MemberProfile::default(),
        version: Some(version),
        preset: Some(Preset::PrivateChat),
        visibility: crate::RoomVisibility::Private,
        name: None,
        topic: None,
        alias: None,
        invite: Vec::new(),
        is_direct: None,
        creation_content: CanonicalJsonObject::new(),
        initial_state: Vec::new(),
        power_level_content_override: None,
    }
}

async fn member(world: &World, room_id: &RoomId) -> Option<Value> {
    let view = world.rooms.view().await.expect("a view");
    let room = world.rooms.ids().room(room_id);
    let event = world.rooms.current_event(&view, room, "m.room.member", mallory().as_str()).await.expect("readable");
    event.map(|event| serde_json::from_slice(event.pdu.json()).expect("JSON"))
}

#[tokio::test]
async fn an_invitation_enters_the_room_with_both_signatures() {
    let world = World::new().await;
    for name in ["1", "6", "10", "12"] {
        let room_id = world.rooms.create(creation(&alice(), version(name))).await.expect("a room");
        let sent = world.rooms.change_membership(invite_mallory(&room_id)).await.expect("invited");
        let event = member(&world, &room_id).await.expect("a member event");
        let signers: Vec<_> = event["signatures"].as_object().expect("signatures").keys().collect();
        assert_eq!(signers, ["hearth.test", "mal.test"], "version {name}");
        assert_eq!(world.mal.sent.lock().last().expect("asked").event_id(), sent.event_id);
        let described: Vec<Value> =
            world.mal.described.lock().iter().map(|raw| serde_json::from_str(raw.get()).expect("JSON")).collect();
        assert_eq!(described[0]["type"], "m.room.create");
        assert!(described.iter().all(|event| event["signatures"].is_object()), "whole events");
        assert!(described.iter().any(|event| event["type"] == "m.room.member"), "who invites");
    }
}

#[tokio::test]
async fn a_server_that_signs_anything_else_is_not_believed() {
    let world = World::new().await;
    let room_id = world.rooms.create(creation(&alice(), version("10"))).await.expect("a room");
    for signs in [Signs::Nothing, Signs::AnotherEvent, Signs::WithAnotherKey] {
        *world.mal.signs.lock() = signs;
        let refused = world.rooms.change_membership(invite_mallory(&room_id)).await;
        let invalid = matches!(refused, Err(MembershipError::Remote(RemoteError::Invalid { .. })));
        assert!(invalid, "{signs:?}: {refused:?}");
        assert_eq!(member(&world, &room_id).await, None);
    }
}

#[tokio::test]
async fn who_may_not_invite_asks_nobody() {
    let world = World::new().await;
    let room_id = world.rooms.create(creation(&alice(), version("10"))).await.expect("a room");
    let by_stranger = MembershipChange { sender: bob().to_owned(), ..invite_mallory(&room_id) };
    let refused = world.rooms.change_membership(by_stranger).await;
    assert!(matches!(refused, Err(MembershipError::Send(_))), "{refused:?}");
    assert_eq!(world.mal.sent.lock().len(), 0);
}

#[tokio::test]
async fn new_rooms_and_state_events_invite_too() {
    let world = World::new().await;
    let invite = vec![(mallory().to_owned(), crate::MemberProfile::default())];
    let create = CreateRoom { invite, ..creation(&alice(), version("11")) };
    let room_id = world.rooms.create(create.clone()).await.expect("a room");
    assert_eq!(member(&world, &room_id).await.expect("a member event")["content"]["membership"], "invite");
    *world.mal.signs.lock() = Signs::Nothing;
    let room_id = world.rooms.create(create).await.expect("the room is there all the same");
    assert_eq!(member(&world, &room_id).await, None);
    *world.mal.signs.lock() = Signs::Invitation;
    let mut content = CanonicalJsonObject::new();
    content.insert("membership".into(), CanonicalJsonValue::String("invite".into()));
    let event = SendEvent {
        room_id: room_id.clone(),
        sender: alice(),
        event_type: "m.room.member".into(),
        state_key: Some(mallory().to_string()),
        content,
        redacts: None,
        origin_server_ts: None,
        transaction: None,
    };
    world.rooms.send(event).await.expect("invited");
    assert!(member(&world, &room_id).await.is_some());
}
