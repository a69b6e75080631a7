//! Members at a point of the timeline.

use hearth_schema::Membership;
use hearth_store::Pos;

use super::fixture::{Fixture, user};
use crate::{MembersFilter, Preset};

#[tokio::test]
async fn members_of_the_time_before_the_room_are_those_of_its_beginning() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PublicChat).await;
    let (alice, bob, carol, dan) = (user("alice"), user("bob"), user("carol"), user("dan"));
    let now = || fixture.store.frontier().base();
    let members = async |who: &ruma_common::UserId, at: Pos| -> Vec<String> {
        let filter = MembersFilter { at: Some(at), membership: Some(Membership::Join), ..MembersFilter::default() };
        let events = fixture.rooms.members(who, &room, &filter).await.expect("members");
        let mut names: Vec<_> = events.iter().filter_map(|event| event.state_key().map(str::to_owned)).collect();
        names.sort();
        names
    };
    fixture.change(&room, (&bob, &bob), Membership::Join).await.expect("joined");
    let with_bob = now();
    fixture.change(&room, (&bob, &bob), Membership::Leave).await.expect("left");
    fixture.change(&room, (&carol, &carol), Membership::Join).await.expect("joined");
    let with_carol = now();
    fixture.change(&room, (&dan, &dan), Membership::Join).await.expect("joined");
    let names = |users: &[&ruma_common::OwnedUserId]| users.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(members(&alice, Pos::ZERO).await, names(&[&alice]), "before the room there is nobody to show");
    assert_eq!(members(&alice, with_bob).await, names(&[&alice, &bob]));
    assert_eq!(members(&alice, with_carol).await, names(&[&alice, &carol]));
    assert_eq!(members(&carol, Pos::ZERO).await, names(&[&alice, &carol]), "as she found it");
    assert_eq!(members(&bob, Pos::MAX).await, names(&[&alice]), "bob has left");
    assert_eq!(members(&bob, Pos::ZERO).await, names(&[&alice, &bob]));
}
