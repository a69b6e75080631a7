//! Relations of relations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hearth_base::{Random as _, SeededRandom};
use ruma_common::{OwnedEventId, OwnedRoomId, RoomId};
use serde_json::json;

use super::fixture::{Fixture, message, object, user};
use super::watched::Watched;
use crate::{Direction, Preset, RelationsQuery, SendEvent};

/// A message that relates to the event `of`.
fn reply(room_id: &RoomId, n: usize, of: Option<&OwnedEventId>) -> SendEvent {
    let mut event = message(room_id, &user("alice"), "m", &n.to_string());
    if let Some(of) = of {
        event.content.extend(object(json!({ "m.relates_to": { "event_id": of, "rel_type": "x.reply" } })));
    }
    event
}

async fn send(fixture: &Fixture, event: SendEvent) -> OwnedEventId {
    fixture.rooms.send(event).await.expect("sent").event_id
}

fn query(room_id: &OwnedRoomId, event_id: &OwnedEventId, direction: Direction) -> RelationsQuery {
    RelationsQuery {
        room_id: room_id.clone(),
        event_id: event_id.clone(),
        rel_type: None,
        event_type: None,
        from: None,
        to: None,
        direction,
        limit: 50,
        recurse: true,
    }
}

/// All descendants as pages give them.
async fn descendants(fixture: &Fixture, mut query: RelationsQuery) -> Vec<OwnedEventId> {
    let mut all = Vec::new();
    loop {
        let page = fixture.rooms.relations(&user("alice"), &query).await.expect("a page");
        all.extend(page.events.iter().map(|event| event.event_id().to_owned()));
        let Some(next) = page.next else { return all };
        query.from = Some(next);
    }
}

#[tokio::test]
async fn all_descendants_of_three_steps_are_found_wherever_they_lie() {
    for seed in 0..3 {
        let (fixture, random) = (Fixture::new(), SeededRandom::new(seed));
        let room_id = fixture.room(Preset::PrivateChat).await;
        let (mut ids, mut of) = (Vec::new(), BTreeMap::new());
        for n in 0..600_usize {
            let mut dice = [0; 2];
            random.fill(&mut dice);
            let [wild, pick] = dice.map(usize::from);
            // Some relate to nothing, many to two events that get more children than a range has rows, the others
            // to one of the newest.
            let parent = match wild {
                _ if n < 20 => None,
                0..30 => None,
                30..100 => Some(1),
                100..150 => Some(12),
                _ => Some(n - 1 - pick % 20),
            };
            ids.push(send(&fixture, reply(&room_id, n, parent.map(|parent| &ids[parent]))).await);
            of.insert(n, parent);
        }
        for root in [0, 1, 3, 12, 15, 19, 300, 599] {
            let mut expected = BTreeSet::new();
            let mut level = BTreeSet::from([root]);
            for _ in 0..3 {
                level = of.iter().filter(|(_, of)| of.is_some_and(|of| level.contains(&of))).map(|(n, _)| *n).collect();
                expected.extend(level.iter().copied());
            }
            let expected: Vec<_> = expected.into_iter().map(|n| ids[n].clone()).collect();
            let forward = descendants(&fixture, query(&room_id, &ids[root], Direction::Forward)).await;
            assert_eq!(forward, expected, "seed {seed}, root {root}");
            let mut backward = descendants(&fixture, query(&room_id, &ids[root], Direction::Backward)).await;
            backward.reverse();
            assert_eq!(backward, expected, "seed {seed}, root {root}");
        }
    }
}

#[tokio::test]
async fn a_long_thread_is_not_searched_reply_by_reply() {
    let store = Arc::new(Watched::default());
    let fixture = Fixture::on(Arc::clone(&store) as _);
    let room_id = fixture.room(Preset::PrivateChat).await;
    let root = send(&fixture, reply(&room_id, 0, None)).await;
    let mut replies = Vec::new();
    for n in 1..=400 {
        replies.push(send(&fixture, reply(&room_id, n, Some(&root))).await);
    }
    for (n, of) in [(401, 3), (402, 200), (403, 399)] {
        send(&fixture, reply(&room_id, n, Some(&replies[of]))).await;
    }
    let ask = |recurse: bool| RelationsQuery { limit: 10, recurse, ..query(&room_id, &root, Direction::Backward) };
    let mut reads = Vec::new();
    for recurse in [false, true, true] {
        store.reads();
        let page = fixture.rooms.relations(&user("alice"), &ask(recurse)).await.expect("a page");
        assert_eq!(page.events.len(), 10);
        reads.push(store.reads());
    }
    assert!(reads[2] < reads[0] + replies.len() / 2, "{reads:?}");
}
