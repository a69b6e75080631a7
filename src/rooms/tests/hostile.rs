//! What hurts others must not hurt a room: damaged rows, forks without end, chains that bite their tails.

use std::collections::{BTreeMap, HashMap};

use hearth_event::RoomVersion;
use hearth_schema::{Inbox, StagedEvent, Verdict};
use hearth_store::{Batch, Owner};
use ruma_common::{EventId, OwnedEventId, RoomId};
use serde_json::json;

use super::fixture::user;
use super::neighbour::{Town, event, event_after, name, other, raw};
use crate::inbound::sorted;
use crate::remote::{JoinPart, join_parts};

/// The ends of the room there, as what an event may come after.
async fn ends(on: &super::fixture::Fixture, room_id: &RoomId) -> Vec<(String, u64)> {
    let view = on.rooms.view().await.expect("a view");
    let head = on.rooms.head(&view, on.rooms.ids().room(room_id)).await.expect("a head");
    head.extremities.iter().map(|end| (end.event_id.clone(), end.depth)).collect()
}

async fn stage(town: &Town, room: hearth_schema::RoomNid, staged: &StagedEvent) {
    let mut batch = Batch::new(room.lane());
    let pos = batch.next_pos();
    batch.put::<Inbox>(&(room.lane(), room, pos), staged);
    town.here.rooms.0.store.commit(batch).await.expect("a commit");
}

#[tokio::test]
async fn a_damaged_row_of_the_inbox_holds_up_nothing_behind_it() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let room = town.here.rooms.ids().room(&room_id);
    let good = town.there.say(&room_id, &other("olga"), "good", "1").await.expect("sent").event_id;
    let pdu = event(&town.there.rooms, &room_id, &good).await.expect("an event").pdu.clone();
    let sound = StagedEvent {
        origin: "other.test".to_owned(),
        event_id: good.to_string(),
        json: pdu.json().to_vec(),
        wait: None,
    };
    let text = String::from_utf8(sound.json.clone()).expect("text");
    for damaged in [
        StagedEvent { origin: "no server".to_owned(), ..sound.clone() },
        StagedEvent { event_id: "no ID".to_owned(), ..sound.clone() },
        StagedEvent { json: b"{".to_vec(), ..sound.clone() },
        StagedEvent { json: text.replace("\"depth\":", "\"depth\":-").into_bytes(), ..sound.clone() },
        StagedEvent { json: Vec::new(), ..sound.clone() },
    ] {
        stage(&town, room, &damaged).await;
    }
    stage(&town, room, &sound).await;
    // A room that is not here, as after a restore that lost some.
    stage(&town, town.here.rooms.ids().room(ruma_common::room_id!("!gone:other.test")), &sound).await;
    town.here.rooms.resume_inbound().await.expect("it starts");
    town.here.settled(&room_id).await;
    let history = town.here.history(&room_id, &user("alice")).await;
    assert_eq!(history.last().map(String::as_str), Some("good"));
}

#[tokio::test]
async fn a_room_has_so_many_ends_and_no_more() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let before = ends(&town.there, &room_id).await;
    let mut siblings: Vec<OwnedEventId> = Vec::new();
    for page in 0..5 {
        let mut pdus = Vec::new();
        for n in 0..50 {
            let content = json!({ "msgtype": "m.text", "body": format!("{page} {n}") });
            let pdu =
                event_after(&town.there, &room_id, &other("olga"), ("m.room.message", None), content, &before).await;
            siblings.push(pdu.event_id().to_owned());
            pdus.push(raw(&pdu));
        }
        let received = town.here.rooms.receive(name(1), pdus).await.expect("received");
        assert!(received.iter().all(|one| one.result.is_ok()), "{received:?}");
        town.here.settled(&room_id).await;
    }
    assert_eq!(ends(&town.here, &room_id).await.len(), 200);
    let mut verdicts: BTreeMap<&str, usize> = BTreeMap::new();
    for id in &siblings {
        let known = event(&town.here.rooms, &room_id, id).await.expect("every one is known");
        *verdicts.entry(if known.verdict == Verdict::Accepted { "shown" } else { "kept back" }).or_default() += 1;
    }
    assert_eq!(verdicts, BTreeMap::from([("kept back", 50), ("shown", 200)]));
    // Each event of ours takes up to twenty of them together.
    for (n, left) in [(1, 181), (2, 162)] {
        let sent = town.here.say(&room_id, &user("alice"), "still here", &n.to_string()).await.expect("sent").event_id;
        let sent = event(&town.here.rooms, &room_id, &sent).await.expect("stored");
        assert_eq!(sent.pdu.prev_events().len(), 20);
        assert_eq!(ends(&town.here, &room_id).await.len(), left);
    }
    // What others say on one of the ends is taken as ever, and brings back what was kept.
    let on = vec![(siblings[249].to_string(), before[0].1 + 1), (siblings[240].to_string(), before[0].1 + 1)];
    let content = json!({ "msgtype": "m.text", "body": "together" });
    let pdu = event_after(&town.there, &room_id, &other("olga"), ("m.room.message", None), content, &on).await;
    town.here.rooms.receive(name(1), vec![raw(&pdu)]).await.expect("received");
    town.here.settled(&room_id).await;
    assert_eq!(event(&town.here.rooms, &room_id, pdu.event_id()).await.expect("stored").verdict, Verdict::Accepted);
}

/// In rooms of version 1 and 2 a server chooses the IDs of its events, so a chain of auth events may be a circle.
#[tokio::test]
async fn auth_events_in_a_circle_are_sorted_once_and_found_wrong() {
    for version in ["1", "2"] {
        let version = RoomVersion::parse(version).expect("known");
        let town = Town::new();
        let room_id = town.shared_room(version).await;
        let olga = other("olga");
        let view = town.there.rooms.view().await.expect("a view");
        let room = town.there.rooms.ids().room(&room_id);
        let mut circle: HashMap<OwnedEventId, hearth_event::Pdu> = HashMap::new();
        let ids: Vec<OwnedEventId> =
            (0..3).map(|n| EventId::parse(format!("$circle{n}:other.test")).expect("an ID")).collect();
        let create = town.there.rooms.current_event(&view, room, "m.room.create", "").await.expect("readable");
        let create = create.expect("a room has one");
        for (n, id) in ids.iter().enumerate() {
            let next = &ids[(n + 1) % ids.len()];
            let text = String::from_utf8(create.pdu.json().to_vec()).expect("text");
            let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            json["event_id"] = json!(id);
            json["type"] = json!("m.room.topic");
            json["auth_events"] = json!([[next, {"sha256": "x"}]]);
            json["prev_events"] = json!([[next, {"sha256": "x"}]]);
            json["sender"] = json!(olga);
            let pdu = hearth_event::Pdu::from_stored(id, json.to_string().into_bytes().into(), version);
            circle.insert(id.clone(), pdu.expect("it has the form of an event"));
        }
        let found = sorted(&circle);
        let mut found: Vec<_> = found.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        found.sort();
        assert_eq!(found, ids, "each once");
        // An answer to a join that consists of them alone is no room.
        let told = join_parts(vec![JoinPart::State(circle.values().map(raw).collect())]);
        let elsewhere = Town::new();
        let alice = user("alice");
        let join = super::neighbour::event_on(
            &town.there,
            &room_id,
            &alice,
            ("m.room.member", Some(alice.as_str())),
            json!({ "membership": "join" }),
        );
        let refused = elsewhere.here.rooms.import(name(1), join.await, told).await;
        let refused = refused.expect_err("no room").to_string();
        assert!(refused.contains("no create event"), "{refused}");
    }
}
