//! Damaged rows of an invitation do not hold anybody to it.

use hearth_schema::{Membership, Outside, OutsideState, OutsideStates, Outsides};
use hearth_store::{Op, StoreError};
use serde_json::json;

use super::*;

/// What is done to the rows of Bob's invitation.
type Damage = fn(&mut Outside, &mut OutsideState);

const DAMAGES: [(&str, Damage); 5] = [
    ("a server to ask", |outside, _| outside.servers = vec!["no server".into(), "mal.test".into()]),
    ("the invitation", |outside, _| outside.invitation = Some("no event".into())),
    ("the room's version", |_, state| state.version = "ancient".into()),
    ("the event's ID", |_, state| state.event.as_mut().expect("an event").0 = "no event".into()),
    ("all that names an event", |outside, state| {
        (outside.invitation, state.event) = (Some("no event".into()), Some(("no event".into(), Vec::new())));
    }),
];

/// Bytes that are no value.
fn garble(batch: &mut Batch) {
    for op in &mut batch.ops {
        let Op::Put { value, value_holes, .. } = op else { continue };
        (*value, *value_holes) = (vec![0xFF; 3], Vec::new());
    }
}

impl World {
    async fn invited(&self) {
        self.invite(&incoming(&invitation(json!({})))).await.expect("taken");
    }

    fn key(&self) -> (hearth_schema::UserNid, hearth_schema::RoomNid) {
        (self.rooms.ids().user(bob()), self.rooms.ids().room(there()))
    }

    async fn damage(&self, damage: impl FnOnce(&mut Outside, &mut OutsideState)) {
        let (key, view) = (self.key(), self.rooms.view().await.expect("a view"));
        let (mut outside, mut state) = self.rooms.outside(&view, key.0, key.1).await.expect("readable");
        damage(&mut outside, &mut state);
        let mut batch = Batch::new(key.0.lane());
        batch.put::<Outsides>(&key, &outside);
        batch.put::<OutsideStates>(&key, &state);
        self.store.commit(batch).await.expect("stored");
    }

    async fn leaves(&self, what: &str) {
        let left = self.rooms.change_membership(change(Membership::Leave)).await;
        left.unwrap_or_else(|error| panic!("{what}: {error}"));
        let row = self.row(there()).await.expect("a row");
        assert_eq!((row.membership, row.own), (Membership::Leave, true), "{what}");
        // What is written anew is sound.
        let view = self.rooms.view().await.expect("a view");
        let shown = self.rooms.outside_room(&view, self.key(), row.pos).await.expect("readable").expect("outside");
        let event: Value = serde_json::from_slice(&shown.event.expect("an event")).expect("JSON");
        assert_eq!(event["content"]["membership"], "leave", "{what}");
    }
}

#[tokio::test]
async fn who_is_invited_leaves_whatever_is_damaged_with_and_without_help() {
    for (what, damage) in DAMAGES {
        for helpful in [Some(template("leave")), None] {
            let world = World::new().await;
            world.invited().await;
            world.damage(damage).await;
            world.mal.template.lock().clone_from(&helpful);
            world.leaves(what).await;
            assert_eq!(world.mal.sent.lock().len(), usize::from(helpful.is_some()), "{what}: mal.test was told");
        }
    }
}

#[tokio::test]
async fn who_is_invited_leaves_though_nothing_can_be_read_or_is_there() {
    for garbled in [true, false] {
        let world = World::new().await;
        world.invited().await;
        let key = world.key();
        let mut batch = Batch::new(key.0.lane());
        if garbled {
            let view = world.rooms.view().await.expect("a view");
            let (outside, state) = world.rooms.outside(&view, key.0, key.1).await.expect("readable");
            batch.put::<Outsides>(&key, &outside);
            batch.put::<OutsideStates>(&key, &state);
            garble(&mut batch);
        } else {
            batch.delete::<Outsides>(&key);
            batch.delete::<OutsideStates>(&key);
        }
        world.store.commit(batch).await.expect("stored");
        let view = world.rooms.view().await.expect("a view");
        let row = world.row(there()).await.expect("a row");
        let shown = world.rooms.outside_room(&view, key, row.pos).await;
        assert!(matches!(shown, Err(StoreError::Corrupt { .. })), "who reads it is told: {shown:?}");
        world.leaves("everything").await;
    }
}
