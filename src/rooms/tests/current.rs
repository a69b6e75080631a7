//! Lists of the current state that are kept.

use hearth_schema::{Membership, RoomNid};
use hearth_store::View;

use super::fixture::{Fixture, user};
use crate::{MembersFilter, Preset};

/// State keys of the member events.
async fn members(fixture: &Fixture, view: &View, room: RoomNid) -> Vec<String> {
    let current = fixture.rooms.current(view, room).await.expect("a state");
    current.of_type("m.room.member").map(|(state_key, _)| state_key.to_owned()).collect()
}

#[tokio::test]
async fn a_list_is_true_in_the_view_that_it_is_asked_for_in() {
    let fixture = Fixture::new();
    let room_id = fixture.room(Preset::PublicChat).await;
    let (alice, bob) = (user("alice"), user("bob"));
    let room = fixture.rooms.ids().room(&room_id);
    let before = fixture.rooms.view().await.expect("a view");
    assert_eq!(members(&fixture, &before, room).await, [alice.as_str()]);
    fixture.change(&room_id, (&bob, &bob), Membership::Join).await.expect("joined");
    let after = fixture.rooms.view().await.expect("a view");
    for _ in 0..2 {
        assert_eq!(members(&fixture, &after, room).await, [alice.as_str(), bob.as_str()]);
        assert_eq!(members(&fixture, &before, room).await, [alice.as_str()]);
    }
    let shown = fixture.rooms.members(&alice, &room_id, &MembersFilter::default()).await.expect("members");
    assert_eq!(shown.len(), 2);
    let all = fixture.rooms.full_state(&alice, &room_id).await.expect("a state");
    let listed = fixture.rooms.current(&after, room).await.expect("a state");
    assert_eq!(all.iter().map(|event| event.n).collect::<Vec<_>>(), listed.numbers().collect::<Vec<_>>());
    for event in &all {
        let found = listed.get(event.event_type(), event.state_key().unwrap_or_default());
        assert_eq!(found.map(|entry| entry.n), Some(event.n));
    }
}

#[tokio::test]
async fn only_small_states_are_listed_for_a_few_entries() {
    let fixture = Fixture::new();
    let room_id = fixture.room(Preset::PublicChat).await;
    let room = fixture.rooms.ids().room(&room_id);
    let if_small = async |view: &View| {
        let head = fixture.rooms.head(view, room).await.expect("a head");
        fixture.rooms.current_if_small(view, room, &head).await.expect("read")
    };
    let view = fixture.rooms.view().await.expect("a view");
    let small = if_small(&view).await.expect("a new room has a small state");
    assert_eq!(small.numbers().count(), fixture.rooms.current(&view, room).await.expect("a state").numbers().count());
    // Members who have left are not counted by the head, but are in the state.
    for n in 0..70 {
        let member = user(&format!("member{n}"));
        for membership in [Membership::Join, Membership::Leave] {
            fixture.change(&room_id, (&member, &member), membership).await.expect("changed");
        }
    }
    let view = fixture.rooms.view().await.expect("a view");
    assert!(if_small(&view).await.is_none());
    fixture.rooms.current(&view, room).await.expect("a state");
    let known = if_small(&view).await.expect("what is known is as good");
    assert!(known.get("m.room.member", "@member69:hearth.test").is_some());
}
