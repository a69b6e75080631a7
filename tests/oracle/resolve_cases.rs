//! Questions about state resolution: rooms that fork.

use std::collections::BTreeMap;

use hearth_event::{Pdu, RoomVersion, StateMap, check_auth};
use hearth_test_dag::Recipe;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use crate::Case;
use crate::world::{CREATOR, Draft, USERS, World};

/// The end of a branch: its last event and the state after it.
#[derive(Clone)]
struct Tip {
    last: String,
    state: StateMap,
}

pub(crate) fn resolve(version: RoomVersion, rng: &mut StdRng) -> Case {
    let mut world = World::new(version, rng);
    let mut tips = vec![start(&mut world)];
    for _ in 0..world.rng.random_range(4..40) {
        step(&mut world, &mut tips);
    }
    let mut sets: Vec<StateMap> = Vec::new();
    for _ in 0..world.rng.random_range(2..5) {
        let index = world.rng.random_range(0..tips.len());
        sets.push(tips[index].state.clone());
    }
    let chains = sets.iter().map(|set| world.auth_chain(set)).collect();
    let ours = match hearth_event::resolve(version, &sets, chains, &|id| world.pdu(id)) {
        Ok(state) => {
            let entries = state.into_iter().map(|((kind, key), id)| (format!("{kind}\0{key}"), json!(id)));
            json!({ "state": entries.collect::<Map<String, Value>>() })
        }
        Err(error) => json!({ "err": error.to_string() }),
    };
    let request = json!({
        "op": "resolve", "room_version": version.as_str(), "room_id": world.room_id, "events": world.raw,
        "state_sets": sets.iter().map(ids).collect::<Vec<_>>(), "rejected": [],
    });
    Case { request, ours }
}

fn ids(set: &StateMap) -> Vec<String> {
    set.values().map(ToString::to_string).collect()
}

/// A room as the properties of `tests/dag` have them: with merges, refused events and all that is checked on the way in.
pub(crate) fn room(version: RoomVersion, rng: &mut StdRng) -> Case {
    let seed: [u8; 32] = rng.random();
    let seeded = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), seeded);
    let drawn = hearth_test_dag::rooms().new_tree(&mut runner).expect("every draw is a recipe").current();
    let dag = Recipe { version, ..drawn }.room();
    let count = rng.random_range(2..5);
    let sets: Vec<StateMap> = (0..count).map(|_| dag.events[rng.random_range(0..dag.events.len())].after()).collect();
    let entries = dag.resolve(&sets).into_iter().map(|((kind, key), id)| (format!("{kind}\0{key}"), json!(id)));
    let ours = json!({ "state": entries.collect::<Map<String, Value>>() });
    let read = |pdu: &Pdu| serde_json::from_slice(pdu.json()).expect("an event is JSON");
    let events = dag.events.iter().map(|event| (event.pdu.event_id().to_string(), read(&event.pdu)));
    let rejected = dag.events.iter().filter(|event| event.rejected.is_some());
    let request = json!({
        "op": "resolve", "room_version": version.as_str(), "room_id": dag.room_id(),
        "events": events.collect::<Map<String, Value>>(), "state_sets": sets.iter().map(ids).collect::<Vec<_>>(),
        "rejected": rejected.map(|event| event.pdu.event_id().to_string()).collect::<Vec<_>>(),
    });
    Case { request, ours }
}

/// A room in which three users are.
fn start(world: &mut World<'_>) -> Tip {
    let mut content = world.create_content();
    content.as_object_mut().expect("an object").remove("m.federate");
    let mut creators = content["additional_creators"].as_array().cloned().unwrap_or_default();
    creators.push(json!(CREATOR));
    let create = world.create(content);
    let mut tip = Tip { last: create.clone(), state: StateMap::new() };
    tip.state
        .insert(("m.room.create".to_owned(), String::new()), ruma_common::EventId::parse(create).expect("an event ID"));
    tip.add(world, Draft::state(CREATOR, "m.room.member", CREATOR, json!({ "membership": "join" })));
    // Levels of their own are not for creators.
    let mut levels = json!({ "users": {}, "events": { "m.room.topic": 0 } });
    for (user, level) in [(CREATOR, 100), (USERS[1], 50)] {
        if world.number() < 12 || !creators.contains(&json!(user)) {
            levels["users"][user] = json!(level);
        }
    }
    tip.add(world, Draft::state(CREATOR, "m.room.power_levels", "", levels));
    tip.add(world, Draft::state(CREATOR, "m.room.join_rules", "", json!({ "join_rule": "public" })));
    for user in [USERS[1], USERS[2]] {
        tip.add(world, Draft::state(user, "m.room.member", user, json!({ "membership": "join" })));
    }
    tip
}

impl Tip {
    fn add(&mut self, world: &mut World<'_>, draft: Draft<'_>) {
        let prev_events = [self.last.clone()];
        self.last = world.add_state(draft, &prev_events, &mut self.state);
    }
}

/// One more event somewhere: on a tip, on an old one (a fork), or on two that are joined.
fn step(world: &mut World<'_>, tips: &mut Vec<Tip>) {
    let index = world.rng.random_range(0..tips.len());
    let mut tip = tips[index].clone();
    let mut prev_events = vec![tip.last.clone()];
    if world.chance(15) {
        // Some state out of both: any state is a fair question about a later fork.
        let other = tips[world.rng.random_range(0..tips.len())].clone();
        // In order, so that the same seed makes the same room.
        for (key, id) in other.state.into_iter().collect::<BTreeMap<_, _>>() {
            if !tip.state.contains_key(&key) || world.chance(50) {
                tip.state.insert(key, id);
            }
        }
        prev_events.push(other.last);
        prev_events.dedup();
    }
    let draft = draft(world, &tip);
    let auth_events = world.auth_events(&draft, &tip.state);
    let key = (draft.kind.to_owned(), draft.state_key.expect("a state event").to_owned());
    let (id, raw) = world.make(draft, &prev_events, &auth_events);
    let pdu = world.parse(&id, &raw);
    let state = |kind: &str, key: &str| tip.state.get(&(kind.to_owned(), key.to_owned())).and_then(|id| world.pdu(id));
    let create = state("m.room.create", "").expect("every state has the create event");
    if check_auth(world.version, &pdu, &create, &state).is_err() {
        return;
    }
    world.put(&id, raw);
    tip.state.insert(key, pdu.event_id().to_owned());
    tip.last = id;
    if world.chance(65) {
        tips[index] = tip;
    } else if tips.len() < 8 {
        tips.push(tip);
    }
}

fn draft<'a>(world: &mut World<'_>, tip: &Tip) -> Draft<'a> {
    let sender = world.pick(&[CREATOR, CREATOR, USERS[1], USERS[1], USERS[2], USERS[3], USERS[4]]);
    match world.rng.random_range(0..100) {
        0..30 => power_levels(world, tip, sender),
        30..40 => {
            let rule = world.pick(&["public", "invite", "knock", "restricted"]);
            Draft::state(sender, "m.room.join_rules", "", json!({ "join_rule": rule }))
        }
        40..60 => Draft::state(sender, "m.room.member", sender, {
            let membership = world.pick(&["join", "join", "leave", "knock"]);
            let mut content = json!({ "membership": membership });
            if membership == "join" && world.chance(30) {
                content["join_authorised_via_users_server"] = json!(CREATOR);
            }
            content
        }),
        60..80 => {
            let target = world.user();
            let membership = world.pick(&["invite", "ban", "leave"]);
            Draft::state(sender, "m.room.member", target, json!({ "membership": membership }))
        }
        80..84 => Draft::state(sender, "m.room.third_party_invite", "token", json!({ "n": world.time })),
        _ => {
            let kind = world.pick(&["m.room.topic", "m.room.name", "m.example.state"]);
            let key = world.pick(&["", "a"]);
            Draft::state(sender, kind, key, json!({ "topic": world.time }))
        }
    }
}

fn power_levels<'a>(world: &mut World<'_>, tip: &Tip, sender: &'a str) -> Draft<'a> {
    let current = tip.state[&("m.room.power_levels".to_owned(), String::new())].as_str();
    let mut content = world.raw[current]["content"].clone();
    let level =
        if world.chance(6) { world.odd_level() } else { world.pick(&[json!(0), json!(50), json!(100), json!(25)]) };
    if world.chance(1) {
        content["users"]["@x:bad_name"] = json!(0);
    } else if world.chance(70) {
        let user = world.user();
        content["users"][user] = level;
    } else {
        let field = world.pick(&["users_default", "state_default", "ban", "kick", "invite", "events_default"]);
        content[field] = level;
    }
    Draft::state(sender, "m.room.power_levels", "", content)
}
