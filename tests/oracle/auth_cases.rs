//! Questions about the authorization rules.

use hearth_event::{Pdu, RoomVersion, StateMap, check_auth, check_auth_events};
use rand::RngExt;
use rand::rngs::StdRng;
use ruma_common::EventId;
use serde_json::{Value, json};

use crate::Case;
use crate::world::{CREATOR, Draft, USERS, World, identity_key};

const TOKEN: &str = "token";

/// A room in some state, and an event that somebody wants to send.
pub(crate) fn auth(version: RoomVersion, rng: &mut StdRng) -> Case {
    let mut world = World::new(version, rng);
    let content = world.create_content();
    let create = world.create(content);
    let state = state(&mut world, &create);
    let last = if world.chance(15) { create.clone() } else { state_id(&state, "m.room.member", CREATOR, &create) };
    let mut prev_events = vec![last];
    if world.chance(10) {
        prev_events.push(create);
    }
    let draft = draft(&mut world, &state);
    let mut auth_events = world.auth_events(&draft, &state);
    let mut rejected = Vec::new();
    if world.chance(12) {
        spoil(&mut world, &state, &mut auth_events, &mut rejected);
    }
    let (id, event) = world.make(draft, &prev_events, &auth_events);
    judge(&world, &id, &event, &state, &rejected)
}

fn state_id(state: &StateMap, kind: &str, key: &str, or: &str) -> String {
    state.get(&(kind.to_owned(), key.to_owned())).map_or_else(|| or.to_owned(), ToString::to_string)
}

/// A state that need not have come about by the rules: every combination is asked about.
fn state(world: &mut World<'_>, create: &str) -> StateMap {
    let prev = [create.to_owned()];
    let mut state = StateMap::new();
    state.insert((String::from("m.room.create"), String::new()), EventId::parse(create).expect("an event ID"));
    for user in USERS {
        let weights: &[&str] = if user == CREATOR { &["join", "join", "join", "leave"] } else { &MEMBERSHIPS };
        let membership = world.pick(weights);
        if membership != "none" {
            let membership = if world.chance(2) { odd(world) } else { json!(membership) };
            let content = json!({ "membership": membership });
            world.add_state(Draft::state(user, "m.room.member", user, content), &prev, &mut state);
        }
    }
    if world.chance(85) {
        let content = world.current_power_levels();
        world.add_state(Draft::state(CREATOR, "m.room.power_levels", "", content), &prev, &mut state);
    }
    if world.chance(90) {
        let content = world.join_rules();
        world.add_state(Draft::state(CREATOR, "m.room.join_rules", "", content), &prev, &mut state);
    }
    if world.chance(30) {
        let sender = world.pick(&[CREATOR, USERS[1]]);
        let number = world.pick(&[1, 1, 1, 2]);
        let key = identity_key(number).public_key_base64();
        let content = match world.rng.random_range(0..3) {
            0 => json!({ "public_key": key }),
            1 => json!({ "public_keys": [{ "public_key": key }] }),
            _ => json!({ "public_key": "AAAA", "public_keys": [{ "public_key": key }] }),
        };
        world.add_state(Draft::state(sender, "m.room.third_party_invite", TOKEN, content), &prev, &mut state);
    }
    state
}

const MEMBERSHIPS: [&str; 9] = ["none", "join", "join", "join", "join", "invite", "leave", "ban", "knock"];

fn draft<'a>(world: &mut World<'_>, state: &StateMap) -> Draft<'a> {
    let sender = if world.chance(40) { CREATOR } else { world.user() };
    match world.rng.random_range(0..100) {
        0..45 => member(world, sender),
        45..68 => {
            let content = new_power_levels(world, state);
            let key = if world.chance(97) { "" } else { "other" };
            Draft::state(sender, "m.room.power_levels", key, content)
        }
        68..76 => {
            Draft { sender, kind: "m.room.message", state_key: None, content: json!({ "body": "x" }), redacts: None }
        }
        76..82 => Draft::state(sender, "m.room.topic", "", json!({ "topic": "x" })),
        82..86 => {
            let key = world.user();
            Draft::state(sender, "m.example.owned", key, json!({}))
        }
        86..90 => Draft::state(sender, "m.room.third_party_invite", "other", json!({ "display_name": "x" })),
        90..95 => {
            let server = world.pick(&["a.example", "b.example", "c.example:8448", "1.2.3.4", ""]);
            let state_key = if world.chance(90) { Some(server) } else { None };
            Draft { sender, kind: "m.room.aliases", state_key, content: json!({ "aliases": [] }), redacts: None }
        }
        _ => {
            let target = world.pick(&["$1:a.example", "$1:b.example", "$1:c.example:8448"]);
            let content = json!({ "redacts": target });
            Draft { sender, kind: "m.room.redaction", state_key: None, content, redacts: Some(target) }
        }
    }
}

fn member<'a>(world: &mut World<'_>, sender: &'a str) -> Draft<'a> {
    let membership = world.pick(&["join", "join", "join", "invite", "invite", "leave", "leave", "ban", "knock", "odd"]);
    let own = match membership {
        "join" | "knock" => 85,
        "leave" => 40,
        _ => 5,
    };
    let target: &'static str = world.user();
    let is_own = world.chance(own);
    let mut content = json!({ "membership": membership });
    if membership == "join" && world.chance(40) {
        content["join_authorised_via_users_server"] = json!(world.user());
    }
    if membership == "invite" && world.chance(35) {
        content["third_party_invite"] = third_party(world, target);
    }
    let mut target = if is_own { sender } else { target };
    if world.chance(6) {
        match world.rng.random_range(0..4) {
            0 => target = world.pick(&["nobody", "", "@", "@x", "@:", "@x:", "@x:bad_name", "@é:a.example"]),
            1 => content["membership"] = odd(world),
            2 => content["third_party_invite"] = odd(world),
            // A join that names no user ID is no event from version 8 on.
            _ if membership == "join" && world.number() >= 8 => {}
            _ => content["join_authorised_via_users_server"] = odd(world),
        }
    }
    Draft::state(sender, "m.room.member", target, content)
}

/// A value that is not of the type that a rule wants.
fn odd(world: &mut World<'_>) -> Value {
    let signed = json!({ "signed": { "mxid": 5, "token": TOKEN } });
    world.pick(&[
        json!(null),
        json!(5),
        json!(true),
        json!("text"),
        json!(""),
        json!([]),
        json!({}),
        json!({ "signed": 5 }),
        signed,
    ])
}

fn third_party(world: &mut World<'_>, target: &str) -> Value {
    let user = if world.chance(85) { target } else { world.user() };
    let token = if world.chance(90) { TOKEN } else { "unknown" };
    let mut signed = World::third_party_signed(user, token, &identity_key(1));
    match world.rng.random_range(0..14) {
        0 => signed["more"] = json!("not signed"),
        1 => signed["signatures"] = json!({}),
        2 => signed["mxid"] = json!(null),
        _ => {}
    }
    json!({ "display_name": "x", "signed": signed })
}

/// The current power levels with a few changes, so that the comparison decides.
fn new_power_levels(world: &mut World<'_>, state: &StateMap) -> Value {
    let current = state_id(state, "m.room.power_levels", "", "");
    if current.is_empty() || world.chance(15) {
        return world.power_levels();
    }
    let mut content = world.raw[&current]["content"].clone();
    for _ in 0..world.rng.random_range(0..3) {
        let level = world.level();
        let fields = content.as_object_mut().expect("an object");
        match world.rng.random_range(0..5) {
            0 | 1 => {
                let field = world.pick(&[
                    "users_default",
                    "events_default",
                    "state_default",
                    "ban",
                    "kick",
                    "redact",
                    "invite",
                ]);
                if world.chance(25) {
                    fields.remove(field);
                } else {
                    fields.insert(field.to_owned(), level);
                }
            }
            which => {
                let map = ["users", "events", "notifications"][which - 2];
                let key =
                    if map == "users" { world.user() } else { world.pick(&["m.room.topic", "room", "m.room.message"]) };
                let entries = fields.entry(map).or_insert(json!({}));
                if let Some(entries) = entries.as_object_mut() {
                    if world.chance(25) {
                        entries.remove(key);
                    } else {
                        entries.insert(key.to_owned(), level);
                    }
                }
            }
        }
    }
    content
}

/// Makes the auth events wrong in one way.
fn spoil(world: &mut World<'_>, state: &StateMap, auth_events: &mut Vec<String>, rejected: &mut Vec<String>) {
    match world.rng.random_range(0..5) {
        0 if !auth_events.is_empty() => {
            let index = world.rng.random_range(0..auth_events.len());
            auth_events.remove(index);
        }
        1 => {
            // Another event for a type and state key that is there already.
            let (mut other, draft) = (
                state.clone(),
                Draft::state(CREATOR, "m.room.member", CREATOR, json!({ "membership": "join", "n": 1 })),
            );
            let create = state_id(state, "m.room.create", "", "");
            auth_events.push(world.add_state(draft, &[create], &mut other));
        }
        2 => {
            let mut other = state.clone();
            let create = state_id(state, "m.room.create", "", "");
            auth_events.push(world.add_state(
                Draft::state(CREATOR, "m.room.topic", "", json!({})),
                &[create],
                &mut other,
            ));
        }
        3 if !auth_events.is_empty() => {
            let index = world.rng.random_range(0..auth_events.len());
            rejected.push(auth_events[index].clone());
        }
        _ => {
            let home = std::mem::replace(&mut world.room_id, "!other:a.example".to_owned());
            let draft = Draft::state(CREATOR, "m.room.power_levels", "", json!({}));
            let id = world.add(draft, &[], &[]);
            world.room_id = home;
            auth_events.retain(|id| world.raw[id]["type"] != "m.room.power_levels");
            auth_events.push(id);
        }
    }
}

/// A create event, right or wrong.
pub(crate) fn create(version: RoomVersion, rng: &mut StdRng) -> Case {
    let mut world = World::new(version, rng);
    let mut content = world.create_content();
    let other = world.add(Draft::state(CREATOR, "m.room.topic", "", json!({})), &[], &[]);
    let odd = world.pick(&[
        json!(null),
        json!(5),
        json!("x"),
        json!([]),
        json!(["@a:b", 5]),
        json!(["x"]),
        json!({}),
        json!("12"),
    ]);
    match world.rng.random_range(0..8) {
        0 => content["room_version"] = odd,
        1 => content["creator"] = odd,
        2 => content["additional_creators"] = odd,
        3 => drop(content.as_object_mut().expect("an object").remove("creator")),
        4 => "!room:b.example".clone_into(&mut world.room_id),
        5 => content["additional_creators"] = json!(["@x:a.example"]),
        _ => {}
    }
    let prev_events = if world.chance(10) { vec![other] } else { vec![] };
    let (id, event) = world.make(Draft::state(CREATOR, "m.room.create", "", content), &prev_events, &[]);
    judge(&world, &id, &event, &StateMap::new(), &[])
}

fn judge(world: &World<'_>, id: &str, event: &Value, state: &StateMap, rejected: &[String]) -> Case {
    let pdu = world.parse(id, event);
    let known = |id: &EventId| {
        let pdu = world.pdu(id)?;
        Some(if rejected.iter().any(|rejected| rejected == id.as_str()) { pdu.with_rejected() } else { pdu })
    };
    let auth_events: Vec<Pdu> = pdu.auth_events().iter().filter_map(|id| known(id)).collect();
    let independent = check_auth_events(world.version, &pdu, &auth_events);
    let at = |kind: &str, key: &str| state.get(&(kind.to_owned(), key.to_owned())).and_then(|id| world.pdu(id));
    let dependent = match at("m.room.create", "") {
        Some(create) => check_auth(world.version, &pdu, &create, &at),
        None => Ok(()),
    };
    let sender = pdu.sender();
    let content = serde_json::from_value(event["content"].clone()).unwrap_or_default();
    let types = hearth_event::auth_types(world.version, pdu.event_type(), sender, pdu.state_key(), &content);
    let types = types.map_or(Value::Null, |mut types| {
        types.sort();
        json!(types)
    });
    let request = json!({
        "op": "auth", "room_version": world.version.as_str(), "pdu": event, "events": world.raw,
        "state": state.values().collect::<Vec<_>>(), "rejected": rejected,
    });
    let ours = json!({ "independent": independent.is_ok(), "dependent": dependent.is_ok(), "auth_types": types });
    Case { request, ours }
}
