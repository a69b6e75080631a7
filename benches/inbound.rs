//! Transactions of 50 events of another server: checked, verified, staged, judged and stored, on RocksDB.
//!
//! `one room`: each event follows the one before it, so that one transaction is one batch. `four rooms`: four such streams at once.

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::future::{BoxFuture, join_all};
use hearth_base::{SeededRandom, SystemClock};
use hearth_event::{EventDraft, Pdu, PublicKeys, RoomVersion, SigningKey, build, check};
use hearth_rooms::remote::*;
use hearth_rooms::{CreateRoom, MemberProfile, Preset, RoomSettings, RoomVisibility, Rooms, RoomsParts};
use hearth_schema::Ids;
use hearth_store::{Store, StoreError};
use hearth_store_rocks::{Identity, RocksOptions, RocksStore};
use ruma_common::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, UserId,
};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Events of one transaction.
const PDUS: usize = 50;

fn name(text: &str) -> OwnedServerName {
    text.try_into().expect("a valid name")
}

fn there() -> SigningKey {
    SigningKey::from_seed([4; 32], "test").expect("a valid key")
}

/// Only its keys are known.
struct Silent;

impl Remote for Silent {
    fn keys<'a>(&'a self, _: &'a [KeyWish]) -> BoxFuture<'a, Result<PublicKeys, StoreError>> {
        let mut keys = PublicKeys::default();
        let key = there();
        keys.insert(&name("there.test"), key.key_id(), &key.public_key_base64(), u64::MAX).expect("a key");
        Box::pin(async { Ok(keys) })
    }
}

fn object(value: serde_json::Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        other => panic!("no object: {other:?}"),
    }
}

/// A room that `@eva:there.test` is in, and the end of what she says.
#[derive(Clone)]
struct Stream {
    rooms: Rooms,
    room_id: OwnedRoomId,
    eva: OwnedUserId,
    auth_events: Vec<OwnedEventId>,
    last: (OwnedEventId, u64),
}

impl Stream {
    async fn open(rooms: &Rooms, owner: &str) -> Self {
        let room_id = rooms.create(creation(owner)).await.expect("a room");
        let view = rooms.view().await.expect("a view");
        let room = rooms.ids().room(&room_id);
        let head = rooms.head(&view, room).await.expect("a head");
        let end = head.extremities.first().expect("an end");
        let eva = OwnedUserId::try_from("@eva:there.test").expect("a valid ID");
        let mut auth_events = Vec::new();
        for kind in ["m.room.power_levels", "m.room.join_rules"] {
            let event = rooms.current_event(&view, room, kind, "").await.expect("readable").expect("set");
            auth_events.push(event.event_id().to_owned());
        }
        let mut stream = Self {
            rooms: rooms.clone(),
            room_id,
            eva,
            auth_events,
            last: (OwnedEventId::try_from(end.event_id.as_str()).expect("an ID"), end.depth),
        };
        let state_key = stream.eva.to_string();
        let join = stream.next("m.room.member", Some(state_key), json!({ "membership": "join" }));
        let mut keys = PublicKeys::default();
        let key = there();
        keys.insert(&name("there.test"), key.key_id(), &key.public_key_base64(), u64::MAX).expect("a key");
        let verified = check(join.json(), join.version()).expect("a form").verify(&keys).expect("signed");
        rooms.enter_handshake(&name("there.test"), verified).await.expect("a join");
        stream.auth_events = vec![stream.auth_events[0].clone(), join.event_id().to_owned()];
        stream
    }

    fn next(&mut self, kind: &str, state_key: Option<String>, content: serde_json::Value) -> Pdu {
        let draft = EventDraft {
            room_id: Some(self.room_id.clone()),
            event_type: kind.to_owned(),
            state_key,
            sender: self.eva.clone(),
            content: object(content),
            origin_server_ts: 1_700_000_000_000,
            prev_events: vec![self.last.0.clone()],
            auth_events: self.auth_events.clone(),
            depth: self.last.1 + 1,
            redacts: None,
        };
        let pdu = build(draft, RoomVersion::DEFAULT, &name("there.test"), &there()).expect("an event");
        self.last = (pdu.event_id().to_owned(), pdu.depth());
        pdu
    }

    fn transaction(&mut self) -> Vec<RawPdu> {
        let body = "Lorem ipsum dolor sit amet, consectetur adipiscing elit.";
        let raw = |pdu: &Pdu| String::from_utf8(pdu.json().to_vec()).expect("text");
        (0..PDUS)
            .map(|n| self.next("m.room.message", None, json!({ "msgtype": "m.text", "body": body, "n": n })))
            .map(|pdu| RawValue::from_string(raw(&pdu)).expect("JSON"))
            .collect()
    }

    /// Sends transactions one after the other, as a server does: the next one when the one before has been taken. Waits
    /// until the last event is in the room.
    async fn deliver(&self, transactions: Vec<Vec<RawPdu>>, last: &EventId) {
        for pdus in transactions {
            let received = self.rooms.receive(&name("there.test"), pdus).await.expect("received");
            assert!(received.iter().all(|one| one.result.is_ok()), "{received:?}");
        }
        let room = self.rooms.ids().room(&self.room_id);
        loop {
            let view = self.rooms.view().await.expect("a view");
            if self.rooms.event_in_room(&view, room, last).await.expect("readable").is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

fn creation(owner: &str) -> CreateRoom {
    CreateRoom {
        creator: <&UserId>::try_from(owner).expect("a valid ID").to_owned(),
        profile: MemberProfile::default(),
        version: None,
        preset: Some(Preset::PublicChat),
        visibility: RoomVisibility::Private,
        name: None,
        topic: None,
        alias: None,
        invite: Vec::new(),
        is_direct: None,
        creation_content: CanonicalJsonObject::new(),
        initial_state: Vec::new(),
        power_level_content_override: None,
    }
}

fn transactions(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let identity = Identity { server_name: "hearth.test".into(), schema_version: 1, compat_version: 1 };
    let store = RocksStore::open(directory.path(), &RocksOptions::new([5; 32]), hearth_schema::ALL, &identity);
    let store = store.expect("a new store");
    let rooms = {
        let _runtime = runtime.enter();
        Rooms::new(RoomsParts {
            store: Arc::new(store) as Arc<dyn Store>,
            ids: Ids::new([5; 32]),
            clock: Arc::new(SystemClock),
            random: Arc::new(SeededRandom::new(1)),
            server_name: name("hearth.test"),
            signing_key: Arc::new(SigningKey::from_seed([3; 32], "test").expect("a valid key")),
            settings: RoomSettings { default_version: RoomVersion::DEFAULT },
            remote: Arc::new(Silent),
            shutdown: CancellationToken::new(),
        })
    };
    let mut group = c.benchmark_group("inbound");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    for (label, count) in [("one room", 1), ("four rooms", 4)] {
        let mut streams: Vec<Stream> = runtime.block_on(async {
            let mut streams = Vec::new();
            for n in 0..count {
                streams.push(Stream::open(&rooms, &format!("@owner{count}{n}:hearth.test")).await);
            }
            streams
        });
        group.throughput(Throughput::Elements((PDUS * count) as u64));
        group.bench_function(label, |b| {
            b.iter_custom(|rounds| {
                // The other server's work does not count.
                let sent = streams.iter_mut().map(|stream| (0..rounds).map(|_| stream.transaction()).collect());
                let sent: Vec<Vec<_>> = sent.collect();
                let began = std::time::Instant::now();
                // Each on a task of its own, as requests are.
                let all = streams.iter().zip(sent).map(|(stream, sent)| {
                    let stream = stream.clone();
                    runtime.spawn(async move { stream.deliver(sent, &stream.last.0).await })
                });
                for delivered in runtime.block_on(join_all(all.collect::<Vec<_>>())) {
                    delivered.expect("delivered");
                }
                began.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, transactions);
criterion_main!(benches);
