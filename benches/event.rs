//! What one event costs: canonical JSON, making it, judging it, resolving the forks around it.
#![expect(clippy::too_many_arguments, reason = "a made event is a list of its fields")]

use std::collections::HashSet;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hearth_event::{
    EventDraft, JsonLimits, Pdu, PublicKeys, RoomVersion, SigningKey, StateMap, build, canonical_json, check,
    check_auth, client_head, parse_canonical_object, resolve,
};
use ruma_common::{CanonicalJsonObject, EventId, OwnedEventId, RoomId, ServerName, UserId};
use serde_json::{Value, json};

const VERSION: RoomVersion = RoomVersion::DEFAULT;
const CREATOR: &str = "@creator:domain";

fn server() -> &'static ServerName {
    <&ServerName>::try_from("domain").expect("a server name")
}

fn key() -> SigningKey {
    SigningKey::from_seed([7; 32], "1").expect("a good version")
}

/// A room of its own making: every event is really built and signed.
struct Room {
    key: SigningKey,
    room_id: Option<String>,
    pdus: Vec<Pdu>,
}

impl Room {
    fn new() -> Self {
        Self { key: key(), room_id: None, pdus: Vec::new() }
    }

    fn draft(
        &self,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        auth: &[&EventId],
    ) -> EventDraft {
        EventDraft {
            room_id: self.room_id.as_ref().map(|id| RoomId::parse(id).expect("a room ID")),
            event_type: kind.to_owned(),
            state_key: state_key.map(str::to_owned),
            sender: UserId::parse(sender).expect("a user ID"),
            content: serde_json::from_value(content).expect("canonical"),
            origin_server_ts: 1_700_000_000_000 + self.pdus.len() as u64,
            prev_events: self.pdus.last().map(|pdu| pdu.event_id().to_owned()).into_iter().collect(),
            auth_events: auth.iter().map(|id| (*id).to_owned()).collect(),
            depth: self.pdus.len() as u64 + 1,
            redacts: None,
        }
    }

    fn add(&mut self, sender: &str, kind: &str, key: &str, content: Value, auth: &[&Pdu]) -> Pdu {
        let auth: Vec<_> = auth.iter().map(|pdu| pdu.event_id()).collect();
        let draft = self.draft(sender, kind, Some(key), content, &auth);
        let pdu = build(draft, VERSION, server(), &self.key).expect("a right event");
        self.room_id.get_or_insert_with(|| pdu.room_id().to_string());
        self.pdus.push(pdu.clone());
        pdu
    }
}

fn message(room: &Room, sender: &str) -> EventDraft {
    let auth: Vec<_> = room.pdus.iter().skip(1).take(2).map(Pdu::event_id).collect();
    room.draft(
        sender,
        "m.room.message",
        None,
        json!({ "msgtype": "m.text", "body": "Hello to everybody in this room" }),
        &auth,
    )
}

/// A room with a creator, power levels of `users` users, and one of these.
fn small_room(users: usize) -> Room {
    let mut room = Room::new();
    room.add(CREATOR, "m.room.create", "", json!({ "room_version": "12" }), &[]);
    let creator = room.add(CREATOR, "m.room.member", CREATOR, json!({ "membership": "join" }), &[]);
    let levels: serde_json::Map<_, _> = (0..users).map(|n| (format!("@user{n}:domain"), json!(n % 100))).collect();
    let levels = json!({ "users": levels, "events": { "m.room.name": 50, "m.room.power_levels": 100 } });
    let levels = room.add(CREATOR, "m.room.power_levels", "", levels, &[&creator]);
    let rules = room.add(CREATOR, "m.room.join_rules", "", json!({ "join_rule": "public" }), &[&creator, &levels]);
    room.add("@user1:domain", "m.room.member", "@user1:domain", json!({ "membership": "join" }), &[&levels, &rules]);
    room
}

fn json_bytes(c: &mut Criterion) {
    let room = small_room(3);
    let pdu = build(message(&room, CREATOR), VERSION, server(), &room.key).expect("a right event");
    let mut group = c.benchmark_group("json");
    group.bench_function("parse an event", |b| {
        b.iter(|| parse_canonical_object(black_box(pdu.json()), JsonLimits::CONTENT));
    });
    let object: CanonicalJsonObject = parse_canonical_object(pdu.json(), JsonLimits::CONTENT).expect("canonical");
    group.bench_function("write an event", |b| b.iter(|| canonical_json(black_box(&object))));
    group.finish();
}

fn one_event(c: &mut Criterion) {
    let room = small_room(3);
    let mut group = c.benchmark_group("event");
    let draft = message(&room, CREATOR);
    group.bench_function("build, hash and sign", |b| {
        b.iter_batched(
            || draft.clone(),
            |draft| build(draft, VERSION, server(), &room.key),
            criterion::BatchSize::SmallInput,
        );
    });
    let pdu = build(draft, VERSION, server(), &room.key).expect("a right event");
    let mut keys = PublicKeys::default();
    keys.insert(server(), room.key.key_id(), &room.key.public_key_base64(), u64::MAX).expect("a key");
    group.bench_function("check and verify", |b| {
        b.iter(|| check(black_box(pdu.json()), VERSION).expect("a right event").verify(&keys));
    });
    group.bench_function("read from the store", |b| {
        b.iter(|| Pdu::from_stored(pdu.event_id(), black_box(pdu.json()).clone(), VERSION));
    });
    group.bench_function("form for clients", |b| b.iter(|| client_head(black_box(&pdu))));
    group.finish();
}

fn auth(c: &mut Criterion) {
    let mut group = c.benchmark_group("auth check of a message");
    for users in [3, 1000] {
        let room = small_room(users);
        let pdu = build(message(&room, "@user1:domain"), VERSION, server(), &room.key).expect("a right event");
        let state = |kind: &str, key: &str| room.pdus.iter().find(|pdu| pdu.is_state(kind, key)).cloned();
        group.bench_function(format!("{users} users with a level, state parsed before"), |b| {
            b.iter(|| check_auth(VERSION, black_box(&pdu), &room.pdus[0], &state).expect("allowed"));
        });
        let fresh = |kind: &str, key: &str| {
            let pdu = state(kind, key)?;
            Pdu::from_stored(pdu.event_id(), pdu.json().clone(), VERSION).ok()
        };
        group.bench_function(format!("{users} users with a level, state just read"), |b| {
            b.iter(|| check_auth(VERSION, black_box(&pdu), &room.pdus[0], &fresh).expect("allowed"));
        });
    }
    group.finish();
}

/// Two branches of a room on which `changes` power levels and topics conflict.
fn fork(changes: usize) -> (Room, Vec<StateMap>, Vec<HashSet<OwnedEventId>>) {
    let mut room = small_room(3);
    let base: Vec<Pdu> = room.pdus.clone();
    let mut sets = Vec::new();
    let mut chains = Vec::new();
    for branch in 0..2 {
        let mut state: Vec<Pdu> = base.clone();
        let mut chain: HashSet<OwnedEventId> = base.iter().skip(1).map(|pdu| pdu.event_id().to_owned()).collect();
        for n in 0..changes {
            let (creator, levels) = (state[1].clone(), state[2].clone());
            let content = json!({ "users": { "@user1:domain": n % 50 }, "ban": branch * 10 });
            let levels = room.add(CREATOR, "m.room.power_levels", "", content, &[&creator, &levels]);
            chain.insert(levels.event_id().to_owned());
            state[2] = levels.clone();
            let key = format!("{n}");
            let topic = room.add(CREATOR, "m.room.topic", &key, json!({ "topic": branch }), &[&creator, &levels]);
            state.push(topic);
        }
        let key = |pdu: &Pdu| (pdu.event_type().to_owned(), pdu.state_key().unwrap_or_default().to_owned());
        sets.push(state.iter().map(|pdu| (key(pdu), pdu.event_id().to_owned())).collect());
        chains.push(chain);
    }
    (room, sets, chains)
}

fn resolution(c: &mut Criterion) {
    let mut group = c.benchmark_group("state resolution");
    for changes in [2, 20, 100] {
        let (room, sets, chains) = fork(changes);
        let by_id: std::collections::HashMap<_, _> =
            room.pdus.iter().map(|pdu| (pdu.event_id().to_owned(), pdu.clone())).collect();
        group.bench_function(format!("{changes} power levels and topics on each of two branches"), |b| {
            b.iter(|| resolve(VERSION, &sets, chains.clone(), &|id| by_id.get(id).cloned()).expect("resolves"));
        });
    }
    group.finish();
}

criterion_group!(benches, json_bytes, one_event, auth, resolution);
criterion_main!(benches);
