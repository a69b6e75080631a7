//! Upgrades on a store that misbehaves, with many bans, and guests at the door.

use hearth_event::RoomVersion;
use hearth_schema::Membership;
use ruma_common::{CanonicalJsonObject, OwnedRoomId, RoomAliasId, RoomId};
use serde_json::{Value, json};

use super::fixture::{Fixture, change, creation, object, user};
use crate::{Entry, MemberProfile, MembershipError, Preset, RequesterKind, SendError, SendEvent, UpgradeRoom};

fn upgrade(room_id: &RoomId, version: &str) -> UpgradeRoom {
    UpgradeRoom {
        room_id: room_id.to_owned(),
        sender: user("alice"),
        profile: MemberProfile::default(),
        version: RoomVersion::parse(version).expect("a version"),
        additional_creators: Vec::new(),
    }
}

async fn content(fixture: &Fixture, room_id: &RoomId, event_type: &str) -> Value {
    let event = fixture.rooms.state_event(&user("alice"), room_id, event_type, "").await.expect("an event");
    serde_json::from_str(event.pdu.content().get()).expect("JSON")
}

/// Tries until the store lets it happen.
async fn insist(fixture: &Fixture, command: &UpgradeRoom) -> OwnedRoomId {
    for _ in 0..200 {
        if let Ok(new) = fixture.rooms.upgrade(command).await {
            return new;
        }
    }
    panic!("the upgrade never succeeds");
}

#[tokio::test]
async fn an_upgrade_that_failed_on_its_way_is_gone_on_with() {
    for seed in 0..10 {
        let fixture = Fixture::on_chaos(seed);
        let alias = RoomAliasId::parse("#garden:hearth.test").expect("an alias");
        let old = loop {
            let create = crate::CreateRoom { alias: Some(alias.clone()), ..creation(Preset::PublicChat) };
            match fixture.rooms.create(create).await {
                Ok(room) => break room,
                // The answer to a commit that took the alias was lost.
                Err(_) => drop(fixture.rooms.delete_alias(&alias, crate::AliasBy::User(&user("alice"))).await),
            }
        };
        let new = insist(&fixture, &upgrade(&old, "11")).await;
        assert_eq!(content(&fixture, &old, "m.room.tombstone").await["replacement_room"], new.as_str(), "seed {seed}");
        let target = fixture.rooms.resolve_alias(&alias).await.expect("a read").expect("an alias");
        assert_eq!(target.room_id, new, "seed {seed}");
        let aliases = fixture.rooms.room_aliases(&user("alice"), &new).await.expect("a read");
        assert_eq!(aliases, [alias], "seed {seed}");
        assert_eq!(content(&fixture, &old, "m.room.power_levels").await["events_default"], 50, "seed {seed}");
        assert_eq!(insist(&fixture, &upgrade(&old, "11")).await, new, "seed {seed}");
    }
}

#[tokio::test]
async fn every_ban_is_in_force_before_the_old_room_names_the_new() {
    let fixture = Fixture::new();
    let old = fixture.room(Preset::PublicChat).await;
    let (alice, banned) = (user("alice"), 410);
    for i in 0..banned {
        let target = user(&format!("spam{i}"));
        fixture.change(&old, (&alice, &target), Membership::Ban).await.expect("a ban");
    }
    let new = fixture.rooms.upgrade(&upgrade(&old, "12")).await.expect("a room");
    for i in 0..banned {
        let target = user(&format!("spam{i}"));
        let refused = fixture.change(&new, (&target, &target), Membership::Join).await;
        assert!(matches!(refused, Err(MembershipError::Send(SendError::Forbidden(_)))), "{target}: {refused:?}");
    }
}

#[tokio::test]
async fn guests_get_in_only_where_guests_may() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PublicChat).await;
    let (alice, guest) = (user("alice"), user("guest"));
    let enter = async |requester| {
        let change = change(&room, (&guest, &guest), Membership::Join);
        fixture.rooms.enter(Entry { change, content: CanonicalJsonObject::new(), requester, via: Vec::new() }).await
    };
    let access = async |value: &str| {
        let event = SendEvent {
            room_id: room.clone(),
            sender: alice.clone(),
            event_type: "m.room.guest_access".into(),
            state_key: Some(String::new()),
            content: object(json!({ "guest_access": value })),
            redacts: None,
            origin_server_ts: None,
            transaction: None,
        };
        fixture.rooms.send(event).await.expect("an event");
    };
    let refused = enter(RequesterKind::Guest).await;
    assert!(matches!(refused, Err(MembershipError::Send(SendError::Forbidden(_)))), "{refused:?}");
    access("can_join").await;
    enter(RequesterKind::Guest).await.expect("a join");
    fixture.change(&room, (&guest, &guest), Membership::Leave).await.expect("a leave");
    access("forbidden").await;
    let refused = enter(RequesterKind::Guest).await;
    assert!(matches!(refused, Err(MembershipError::Send(SendError::Forbidden(_)))), "{refused:?}");
    enter(RequesterKind::User).await.expect("a join");
}
