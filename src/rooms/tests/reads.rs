//! What resolving a fork reads of the store, in rooms of growing size (P10).

use std::sync::Arc;

use hearth_event::RoomVersion;
use hearth_schema::{Membership, StateId};
use hearth_store::Store;
use ruma_common::{OwnedEventId, RoomId};
use serde_json::json;

use super::fixture::{Fixture, creation, user};
use super::neighbour::{Town, event_after, event_on, name, other, raw, verified};
use super::watched::Watched;
use crate::graph::Graph;
use crate::remote::NoRemote;
use crate::{CreateRoom, Preset};

/// Rows that may be read for one fork: places, trie nodes on the way to them, events and what those stand on.
const MAX_READS: usize = 300;

/// Two topics of another server's user, each after the same end of the room.
async fn fork(town: &Town, room_id: &RoomId) -> [OwnedEventId; 2] {
    let view = town.here.rooms.view().await.expect("a view");
    let head = town.here.rooms.head(&view, town.here.rooms.ids().room(room_id)).await.expect("a head");
    let ends: Vec<_> = head.extremities.iter().map(|end| (end.event_id.clone(), end.depth)).collect();
    let (mut ids, mut pdus) = (Vec::new(), Vec::new());
    for topic in ["one", "two"] {
        let topic = json!({ "topic": topic });
        let pdu = event_after(&town.here, room_id, &other("olga"), ("m.room.topic", Some("")), topic, &ends).await;
        ids.push(pdu.event_id().to_owned());
        pdus.push(raw(&pdu));
    }
    let received = town.here.rooms.receive(name(1), pdus).await.expect("received");
    assert!(received.iter().all(|one| one.result.is_ok()), "{received:?}");
    town.here.settled(room_id).await;
    ids.try_into().expect("two")
}

/// Rows read for the fork by a server that remembers nothing, in a room of so many members.
async fn reads_with(members: usize) -> usize {
    let store = Arc::new(Watched::default());
    let town = Town::on(Arc::clone(&store) as _);
    let version = RoomVersion::DEFAULT;
    let create = CreateRoom { version: Some(version), ..creation(Preset::PublicChat) };
    let room_id = town.here.rooms.create(create).await.expect("a room");
    let (alice, olga) = (user("alice"), other("olga"));
    let join = json!({ "membership": "join" });
    let join = event_on(&town.here, &room_id, &olga, ("m.room.member", Some(olga.as_str())), join).await;
    town.here.rooms.enter_handshake(name(1), verified(&join).await).await.expect("a join");
    let levels = json!({ "users": { olga.as_str(): 50 } });
    town.here.set(&room_id, &alice, ("m.room.power_levels", ""), levels).await.expect("set");
    for n in 0..members {
        let member = user(&format!("member{n}"));
        town.here.change(&room_id, (&member, &member), Membership::Join).await.expect("joined");
    }
    let ids = fork(&town, &room_id).await;

    let fresh = Fixture::named("hearth.test", [3; 32], Arc::clone(&store) as Arc<dyn Store>, Arc::new(NoRemote));
    let room = fresh.rooms.ids().room(&room_id);
    let graph = Graph::latest(&fresh.rooms, room, version).await.expect("a view");
    let head = fresh.rooms.head(&graph.view, room).await.expect("a head");
    assert_eq!((head.extremities.len(), head.joined_members), (2, u32::try_from(members).expect("few") + 2));
    store.reads();
    let mut roots: Vec<StateId> = Vec::new();
    for event in graph.find(&ids).await.expect("readable").into_values() {
        roots.push(graph.state_after(&event).await.expect("a state").0);
    }
    roots.sort_unstable();
    let resolved = graph.resolve(roots).await.expect("resolved");
    let reads = store.reads();
    assert_eq!(resolved, head.state, "that is what the room has");
    reads
}

#[tokio::test]
async fn a_fork_of_two_topics_is_resolved_without_reading_the_members() {
    let mut reads = Vec::new();
    for members in [100, 1_000, 5_000] {
        reads.push(reads_with(members).await);
    }
    assert!(reads.iter().all(|reads| *reads <= MAX_READS), "{reads:?}");
    // The trie has a level more for sixteen times as many places; nothing else grows.
    assert!(reads[2] <= 2 * reads[0], "{reads:?}");
}
