//! Out of everything at once.

use std::collections::BTreeMap;

use hearth_schema::Membership;
use ruma_common::{CanonicalJsonObject, OwnedRoomId, room_id};
use serde_json::json;

use super::*;
use crate::{CreateRoom, Entry, MemberProfile, Preset, RequesterKind, RoomVisibility};

fn own_room() -> CreateRoom {
    CreateRoom {
        creator: bob().to_owned(),
        profile: MemberProfile::default(),
        version: None,
        preset: Some(Preset::PrivateChat),
        visibility: RoomVisibility::Private,
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

async fn memberships(world: &World, rooms: &[OwnedRoomId]) -> BTreeMap<OwnedRoomId, Membership> {
    let mut found = BTreeMap::new();
    for room_id in rooms {
        found.insert(room_id.clone(), world.row(room_id).await.expect("a row").membership);
    }
    found
}

#[tokio::test]
async fn who_parts_from_all_leaves_turns_down_and_takes_back() {
    let world = World::new().await;
    let joined = world.rooms.create(own_room()).await.expect("a room");
    world.invite(&incoming(&invitation(json!({})))).await.expect("taken");
    let asked = room_id!("!knocked:mal.test");
    let mut knock = template("knock");
    knock.event.insert("room_id".into(), CanonicalJsonValue::String(asked.to_string()));
    *world.mal.template.lock() = Some(knock);
    let change = MembershipChange { room_id: asked.to_owned(), ..change(Membership::Knock) };
    let entry = Entry { change, content: CanonicalJsonObject::new(), requester: RequesterKind::User, via: Vec::new() };
    world.rooms.enter(entry).await.expect("knocked");
    let all = [joined, there().to_owned(), asked.to_owned()];
    let before = memberships(&world, &all).await;
    assert_eq!(before.values().filter(|membership| **membership == Membership::Leave).count(), 0);

    // The server that has invited helps no more, which holds nobody back.
    *world.mal.template.lock() = None;
    world.rooms.part_from_all(bob()).await.expect("all are left");
    let after = memberships(&world, &all).await;
    assert_eq!(after, all.clone().into_iter().map(|room_id| (room_id, Membership::Leave)).collect());
    let written = world.store.frontier().base();
    world.rooms.part_from_all(bob()).await.expect("all are left");
    assert_eq!(world.store.frontier().base(), written, "a second time changes nothing");
}
