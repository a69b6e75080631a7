//! Events of other servers that just go on from the room's end, and a worker that does not give up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use hearth_event::RoomVersion;
use hearth_schema::{Aggregates, Membership, Source, Verdict};
use hearth_store::memory::MemoryStore;
use hearth_store::{
    Batch, CommitError, Committed, Frontier, Lane, Limits, LoggedFact, Pos, Snapshot, Store, StoreError, chaos,
};
use ruma_common::{EventId, OwnedEventId, RoomId};
use serde_json::{Value, json};

use super::fixture::{message, object, user};
use super::neighbour::{Town, event, event_on, name, other, raw};

/// A message that relates to another one.
async fn relate(town: &Town, room_id: &RoomId, body: &str, relation: Value) -> OwnedEventId {
    let mut event = message(room_id, &other("olga"), body, body);
    event.content.extend(object(json!({ "m.relates_to": relation, "m.new_content": { "body": body } })));
    town.there.rooms.send(event).await.expect("sent").event_id
}

/// A conversation of all kinds of events there, by ID.
async fn conversation(town: &Town, room_id: &RoomId) -> Vec<OwnedEventId> {
    let olga = other("olga");
    let mut ids = Vec::new();
    let say = |body: String| {
        let (there, olga) = (&town.there, &olga);
        async move { there.say(room_id, olga, &body, &body).await.expect("sent").event_id }
    };
    for n in 0..20 {
        ids.push(say(format!("one {n}")).await);
    }
    ids.push(relate(town, room_id, "edited", json!({ "rel_type": "m.replace", "event_id": ids[3] })).await);
    for n in 0..3 {
        let thread = json!({ "rel_type": "m.thread", "event_id": ids[4] });
        ids.push(relate(town, room_id, &format!("in the thread {n}"), thread).await);
    }
    // What is related to comes right before.
    ids.push(say("just said".into()).await);
    let reference = json!({ "rel_type": "m.reference", "event_id": ids[ids.len() - 1] });
    ids.push(relate(town, room_id, "about that", reference).await);
    ids.push(
        town.there.set(room_id, &olga, ("m.room.topic", ""), json!({ "topic": "news" })).await.expect("set").event_id,
    );
    let guest = other("guest");
    ids.push(town.there.change(room_id, (&guest, &guest), Membership::Join).await.expect("joined").event_id);
    ids.push(town.there.say(room_id, &guest, "hi", "hi").await.expect("sent").event_id);
    let mut redaction = message(room_id, &olga, "", "r");
    redaction.event_type = "m.room.redaction".into();
    redaction.redacts = Some(ids[5].clone());
    ids.push(town.there.rooms.send(redaction).await.expect("sent").event_id);
    ids.push(town.there.change(room_id, (&olga, &guest), Membership::Ban).await.expect("banned").event_id);
    let kicked = town.there.change(room_id, (&olga, &user("carl")), Membership::Leave).await;
    ids.push(kicked.expect("kicked").event_id);
    for n in 0..20 {
        ids.push(say(format!("two {n}")).await);
    }
    ids
}

async fn aggregates(on: &super::fixture::Fixture, room_id: &RoomId, id: &EventId) -> Option<(u32, u32, bool)> {
    let n = event(&on.rooms, room_id, id).await.expect("an event").n;
    let view = on.rooms.view().await.expect("a view");
    let row = view.get::<Aggregates>(&(on.rooms.ids().room(room_id), n)).await.expect("readable")?;
    Some((row.references, row.thread.map_or(0, |thread| thread.replies), row.edit.is_some()))
}

async fn arrives_whole(town: Town) {
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let carl = user("carl");
    let joined = town.here.change(&room_id, (&carl, &carl), Membership::Join).await.expect("joined").event_id;
    Town::deliver(&town.here, &town.there, &room_id, &[&joined]).await;
    let ids = conversation(&town, &room_id).await;
    let all: Vec<&EventId> = ids.iter().map(|id| &**id).collect();
    let received = Town::deliver(&town.there, &town.here, &room_id, &all).await;
    assert!(received.iter().all(|one| one.result.is_ok()), "{received:?}");
    let there = town.there.history(&room_id, &other("olga")).await;
    let here = town.here.history(&room_id, &user("alice")).await;
    assert_eq!(here[here.len() - ids.len()..], there[there.len() - ids.len()..]);
    assert_eq!(town.here.state(&room_id).await, town.there.state(&room_id).await);
    for id in &ids {
        let (here, there) = (event(&town.here.rooms, &room_id, id).await, event(&town.there.rooms, &room_id, id).await);
        let (here, there) = (here.expect("here"), there.expect("there"));
        assert_eq!((here.verdict, here.source), (Verdict::Accepted, Source::Remote));
        assert_eq!(here.redacted_by.is_some(), there.redacted_by.is_some());
        assert_eq!(aggregates(&town.here, &room_id, id).await, aggregates(&town.there, &room_id, id).await, "{id}");
    }
    let asked = town.neighbour.asked.lock().expect("not poisoned").clone();
    assert!(asked.iter().all(|asked| *asked == "keys"), "nothing had to be fetched: {asked:?}");
    // The same again changes nothing, and the room can go on from here.
    Town::deliver(&town.there, &town.here, &room_id, &all).await;
    assert_eq!(town.here.history(&room_id, &user("alice")).await, here);
    let again = town.here.change(&room_id, (&carl, &carl), Membership::Join).await;
    again.expect("who was thrown out of a public room may come back");
}

#[tokio::test]
async fn a_run_of_events_arrives_whole() {
    arrives_whole(Town::new()).await;
}

#[tokio::test]
async fn a_run_of_events_arrives_whole_on_a_bad_day() {
    for seed in 0..8 {
        let rates = chaos::ChaosRates { conflict: 20, expired: 0, ..chaos::ChaosRates::default() };
        arrives_whole(Town::on(Arc::new(chaos::ChaosStore::with_rates(MemoryStore::new(), seed, rates)))).await;
    }
}

#[tokio::test]
async fn what_the_rules_forbid_in_the_middle_of_a_run_is_rejected_and_the_rest_goes_on() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let before = town.here.state(&room_id).await;
    let olga = other("olga");
    let first = town.there.say(&room_id, &olga, "first", "1").await.expect("sent").event_id;
    let first = event(&town.there.rooms, &room_id, &first).await.expect("an event");
    let stranger = other("stranger");
    let forged = event_on(&town.there, &room_id, &stranger, ("m.room.topic", Some("")), json!({ "topic": "x" })).await;
    let ends = vec![(forged.event_id().to_string(), forged.depth())];
    let said = json!({ "msgtype": "m.text", "body": "last" });
    let last = super::neighbour::event_after(&town.there, &room_id, &olga, ("m.room.message", None), said, &ends).await;
    let pdus = vec![raw(&first.pdu), raw(&forged), raw(&last)];
    town.here.rooms.receive(name(1), pdus).await.expect("received");
    town.here.settled(&room_id).await;
    let found = event(&town.here.rooms, &room_id, forged.event_id()).await.expect("kept");
    assert_eq!(found.verdict, Verdict::Rejected);
    assert_eq!(town.here.state(&room_id).await, before);
    let history = town.here.history(&room_id, &user("alice")).await;
    assert_eq!(history[history.len() - 2..], ["first", "last"]);
}

#[tokio::test]
async fn a_state_is_not_believed_while_parts_of_it_cannot_be_had() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let before = town.here.state(&room_id).await;
    town.neighbour.forgetful.store(true, Ordering::Relaxed);
    let olga = other("olga");
    town.there.set(&room_id, &olga, ("m.room.topic", ""), json!({ "topic": "new" })).await.expect("set");
    town.there.say(&room_id, &olga, "lost", "1").await.expect("sent");
    let last = town.there.say(&room_id, &olga, "last", "2").await.expect("sent").event_id;
    // It says which events the state has, and then falls silent.
    town.neighbour.silent.store(true, Ordering::Relaxed);
    Town::deliver(&town.there, &town.here, &room_id, &[&last]).await;
    assert_eq!(town.here.state(&room_id).await, before);
    assert!(event(&town.here.rooms, &room_id, &last).await.is_none(), "nothing was built on half a state");
    town.neighbour.silent.store(false, Ordering::Relaxed);
    let again = town.there.say(&room_id, &olga, "again", "3").await.expect("sent").event_id;
    Town::deliver(&town.there, &town.here, &room_id, &[&again]).await;
    // Both wait for it to speak again.
    town.here.clock.advance(std::time::Duration::from_secs(60));
    town.here.rooms.resume_inbound().await.expect("awake");
    while event(&town.here.rooms, &room_id, &again).await.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(town.here.state(&room_id).await, town.there.state(&room_id).await);
    let history = town.here.history(&room_id, &user("alice")).await;
    assert_eq!(history.last().map(String::as_str), Some("again"));
}

/// A store that cannot be read for a while.
struct Moody {
    inner: MemoryStore,
    /// How often it fails after the next commit.
    next: AtomicU32,
    /// How often it fails now.
    bad: AtomicU32,
}

fn count_down(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

impl Store for Moody {
    fn snapshot(&self, min: &Frontier) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        if count_down(&self.bad) {
            return async { Err(StoreError::Unavailable("not now".into())) }.boxed();
        }
        self.inner.snapshot(min)
    }
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, CommitError>> {
        self.bad.fetch_add(self.next.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.inner.commit(batch)
    }
    fn tail(&self, lane: Lane, from: Pos, limit: usize) -> BoxFuture<'_, Result<Vec<LoggedFact>, StoreError>> {
        self.inner.tail(lane, from, limit)
    }
    fn watch(&self) -> BoxStream<'static, Lane> {
        self.inner.watch().boxed()
    }
    fn frontier(&self) -> Frontier {
        self.inner.frontier()
    }
    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

#[tokio::test]
async fn a_worker_goes_on_when_the_store_can_be_read_again() {
    let store = Arc::new(Moody { inner: MemoryStore::new(), next: AtomicU32::new(0), bad: AtomicU32::new(0) });
    let town = Town::on(Arc::clone(&store) as _);
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let said = town.there.say(&room_id, &other("olga"), "hello", "1").await.expect("sent").event_id;
    let pdu = raw(&event(&town.there.rooms, &room_id, &said).await.expect("an event").pdu);
    // The transaction is taken, then nothing can be read, then everything.
    store.next.store(1, Ordering::Relaxed);
    town.here.rooms.receive(name(1), vec![pdu]).await.expect("received");
    while store.bad.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    town.here.settled(&room_id).await;
    let history = town.here.history(&room_id, &user("alice")).await;
    assert_eq!(history.last().map(String::as_str), Some("hello"));
}
