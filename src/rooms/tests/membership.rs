//! Memberships: who may, what is already so, what counts.

use hearth_schema::Membership;

use super::fixture::{Fixture, change, user};
use crate::{MembershipChange, MembershipError, Preset, SendError};

#[tokio::test]
async fn inviting_joining_leaving_and_banning_follow_the_rules() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    let (alice, bob, eve) = (user("alice"), user("bob"), user("eve"));
    let refused = fixture.change(&room, (&bob, &bob), Membership::Join).await;
    assert!(matches!(refused, Err(MembershipError::Send(SendError::Forbidden(_)))), "{refused:?}");
    fixture.change(&room, (&alice, &bob), Membership::Invite).await.expect("invited");
    fixture.change(&room, (&bob, &bob), Membership::Join).await.expect("joined");
    let again = fixture.change(&room, (&bob, &bob), Membership::Join).await.expect("still joined");
    assert_eq!(again.pos, hearth_store::Pos::ZERO);
    let refused = fixture.change(&room, (&bob, &alice), Membership::Leave).await;
    assert!(matches!(refused, Err(MembershipError::Send(SendError::Forbidden(_)))), "{refused:?}");
    fixture.change(&room, (&alice, &bob), Membership::Ban).await.expect("banned");
    let refused = fixture.change(&room, (&alice, &bob), Membership::Invite).await;
    assert!(matches!(refused, Err(MembershipError::Send(SendError::Forbidden(_)))), "{refused:?}");
    let unban = |target| MembershipChange {
        only_from: Some(Membership::Ban),
        ..change(&room, (&alice, target), Membership::Leave)
    };
    fixture.rooms.change_membership(unban(&bob)).await.expect("unbanned");
    let refused = fixture.change(&room, (&alice, &bob), Membership::Leave).await;
    assert!(matches!(refused, Err(MembershipError::Send(SendError::Forbidden(_)))), "nobody to kick: {refused:?}");
    assert!(matches!(fixture.rooms.change_membership(unban(&eve)).await, Err(MembershipError::NotInState(_))));
    let view = fixture.rooms.view().await.expect("a view");
    let head = fixture.rooms.head(&view, fixture.rooms.ids().room(&room)).await.expect("a head");
    assert_eq!((head.joined_members, head.invited_members), (1, 0));
}

#[tokio::test]
async fn nobody_invites_a_user_who_would_never_hear_of_it() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    let far = ruma_common::OwnedUserId::try_from("@bob:elsewhere.test").expect("valid");
    let refused = fixture.change(&room, (&user("alice"), &far), Membership::Invite).await;
    assert!(matches!(refused, Err(MembershipError::Send(SendError::Forbidden(_)))), "{refused:?}");
}

#[tokio::test]
async fn a_profile_change_reaches_every_joined_room() {
    let fixture = Fixture::new();
    let alice = user("alice");
    let (one, two) = (fixture.room(Preset::PrivateChat).await, fixture.room(Preset::PublicChat).await);
    let profile = crate::MemberProfile { displayname: Some("Alicia".into()), avatar_url: None };
    fixture.rooms.update_profile(&alice, &profile).await.expect("updated");
    for room in [one, two] {
        let members = fixture.rooms.joined_members(&alice, &room).await.expect("members");
        let content: serde_json::Value = serde_json::from_slice(members[0].pdu.content_json()).expect("JSON");
        assert_eq!(content["displayname"], "Alicia");
    }
}

#[tokio::test]
async fn a_room_is_forgotten_only_after_leaving() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PublicChat).await;
    let alice = user("alice");
    assert!(matches!(fixture.rooms.forget(&alice, &room).await, Err(MembershipError::NotInState(_))));
    fixture.change(&room, (&alice, &alice), Membership::Leave).await.expect("left");
    fixture.rooms.forget(&alice, &room).await.expect("forgotten");
    assert!(fixture.rooms.full_state(&alice, &room).await.is_err());
}
