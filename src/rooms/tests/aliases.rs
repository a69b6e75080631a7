//! Aliases that several want at once.

use futures::future::join_all;
use ruma_common::{OwnedRoomAliasId, OwnedRoomId};

use super::fixture::{Fixture, creation, user};
use crate::{AliasBy, AliasError, CreateError, CreateRoom, Preset, Rooms};

fn alias(name: &str) -> OwnedRoomAliasId {
    OwnedRoomAliasId::try_from(format!("#{name}:hearth.test")).expect("a valid alias")
}

async fn target(rooms: &Rooms, name: &str) -> Option<OwnedRoomId> {
    rooms.resolve_alias(&alias(name)).await.expect("readable").map(|target| target.room_id)
}

#[tokio::test]
async fn of_rooms_that_are_made_with_one_alias_at_once_one_gets_it() {
    for seed in 0..20 {
        let fixture = Fixture::on_chaos(seed);
        let (alice, other) = (user("alice"), fixture.room(Preset::PrivateChat).await);
        let create = || CreateRoom { alias: Some(alias("one")), ..creation(Preset::PrivateChat) };
        let made = join_all((0..6).map(|_| fixture.rooms.create(create())));
        let one = alias("one");
        let put = fixture.rooms.create_alias(&one, &other, AliasBy::User(&alice));
        let (made, put) = futures::join!(made, put);
        let mut winners = Vec::new();
        for result in made {
            match result {
                Ok(room_id) => winners.push(room_id),
                Err(CreateError::AliasInUse) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        match put {
            Ok(()) => winners.push(other.clone()),
            Err(AliasError::Taken) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
        let [winner] = winners.as_slice() else { panic!("seed {seed}: {winners:?}") };
        assert_eq!(target(&fixture.rooms, "one").await.as_ref(), Some(winner), "seed {seed}");
        assert_eq!(fixture.rooms.room_aliases(&alice, winner).await.expect("aliases"), [alias("one")], "seed {seed}");
        let rest = fixture.rooms.joined_room_ids(&alice).await.expect("rooms");
        for room_id in rest.iter().filter(|room_id| *room_id != winner) {
            let left = fixture.rooms.room_aliases(&alice, room_id).await.expect("aliases");
            assert_eq!(left, [] as [OwnedRoomAliasId; 0], "seed {seed}");
        }
    }
}

#[tokio::test]
async fn an_alias_that_points_elsewhere_by_now_is_not_removed_with_an_old_view() {
    let fixture = Fixture::new();
    let (alice, rooms) = (user("alice"), &fixture.rooms);
    let (one, two) = (fixture.room(Preset::PrivateChat).await, fixture.room(Preset::PrivateChat).await);
    rooms.create_alias(&alias("a"), &one, AliasBy::User(&alice)).await.expect("made");
    let view = rooms.view().await.expect("a view");
    let key = rooms.ids().alias(&alias("a"));
    let before = view.get::<hearth_schema::Aliases>(&(key,)).await.expect("readable").expect("a row");
    let nid = rooms.ids().room(&one);
    rooms.move_alias(&alias("a"), nid, &two).await.expect("moved");
    let refused = rooms.drop_alias(&alias("a"), &before, nid).await;
    assert!(matches!(refused, Err(hearth_store::CommitError::Conflict(_))), "{refused:?}");
    assert_eq!(target(rooms, "a").await, Some(two));
    rooms.delete_alias(&alias("a"), AliasBy::User(&alice)).await.expect("removed");
    assert_eq!(target(rooms, "a").await, None);
}
