#![expect(clippy::needless_pass_by_value, reason = "tests read better with the JSON in the call")]

use std::collections::BTreeMap;

use bytes::Bytes;
use ruma_common::EventId;
use serde_json::{Value, json};

use super::*;

const CREATOR: &str = "@creator:domain";
const OTHER: &str = "@other:domain";

/// A state to judge events by, made of events that nobody had to send.
struct State {
    version: RoomVersion,
    create: Pdu,
    events: BTreeMap<(String, String), Pdu>,
}

fn pdu(version: RoomVersion, id: &str, event: &Value) -> Pdu {
    let mut event = event.clone();
    for (field, default) in [
        ("auth_events", json!([])),
        ("prev_events", json!([])),
        ("depth", json!(1)),
        ("origin_server_ts", json!(1)),
        ("room_id", json!("!create:domain")),
        ("content", json!({})),
    ] {
        let is_room_of_create =
            field == "room_id" && version.room_id_is_create_hash() && event["type"] == "m.room.create";
        if event.get(field).is_none() && !is_room_of_create {
            event[field] = default;
        }
    }
    let bytes = Bytes::from(serde_json::to_vec(&event).unwrap());
    Pdu::from_stored(<&EventId>::try_from(id).unwrap(), bytes, version).unwrap()
}

impl State {
    fn new(version: RoomVersion) -> Self {
        let mut content = json!({ "room_version": version.as_str() });
        if !version.rules().authorization.use_room_create_sender {
            content["creator"] = json!(CREATOR);
        }
        let create = json!({ "type": "m.room.create", "state_key": "", "sender": CREATOR, "content": content });
        let create = pdu(version, "$create:domain", &create);
        let mut state = Self { version, create, events: BTreeMap::new() };
        state.set(CREATOR, "m.room.member", CREATOR, json!({ "membership": "join" }));
        state.set(OTHER, "m.room.member", OTHER, json!({ "membership": "join" }));
        state
    }

    fn set(&mut self, sender: &str, kind: &str, key: &str, content: Value) {
        let event = json!({ "type": kind, "state_key": key, "sender": sender, "content": content });
        let id = format!("${}:domain", self.events.len());
        self.events.insert((kind.to_owned(), key.to_owned()), pdu(self.version, &id, &event));
    }

    fn check(&self, event: &Value) -> Result<(), Rejection> {
        let look_up = |kind: &str, key: &str| {
            if kind == "m.room.create" {
                return Some(self.create.clone());
            }
            self.events.get(&(kind.to_owned(), key.to_owned())).cloned()
        };
        check_auth(self.version, &pdu(self.version, "$event:domain", event), &self.create, &look_up)
    }

    fn sets(&self, sender: &str, kind: &str, content: Value) -> Result<(), Rejection> {
        self.check(&json!({ "type": kind, "state_key": "", "sender": sender, "content": content }))
    }

    fn levels(&self) -> PowerLevels {
        let current = self.events.get(&("m.room.power_levels".to_owned(), String::new()));
        PowerLevels::of(self.version, &self.create, current)
    }
}

fn number(version: RoomVersion) -> u32 {
    version.as_str().parse().unwrap()
}

fn user(id: &str) -> &UserId {
    <&UserId>::try_from(id).unwrap()
}

/// Row A11 of the attack classes: what each version makes of a level.
#[test]
fn reads_levels_as_each_version_does() {
    for version in RoomVersion::all() {
        let is_old = number(version) < 10;
        for (level, old, new) in [
            (json!(50), Some(50), Some(50)),
            (json!(-7), Some(-7), Some(-7)),
            (json!(9_007_199_254_740_991_i64), Some(9_007_199_254_740_991), Some(9_007_199_254_740_991)),
            (json!("100"), Some(100), None),
            (json!(" +050 "), Some(50), None),
            (json!("-3"), Some(-3), None),
            (json!(5.5), Some(5), None),
            (json!(-0.5), Some(0), None),
            (json!(1e3), Some(1000), None),
            (json!(true), Some(1), None),
            (json!(i64::MIN), Some(i64::MIN), Some(i64::MIN)),
            (json!(u64::MAX), Some(i64::MAX), None),
            (json!(1e300), Some(i64::MAX), None),
            (json!("abc"), None, None),
            (json!("5.5"), None, None),
            (json!("1_0"), None, None),
            (json!(""), None, None),
            (json!([]), None, None),
            (json!({}), None, None),
        ] {
            let mut state = State::new(version);
            let accepted = state.sets(CREATOR, "m.room.power_levels", json!({ "users": { OTHER: level } }));
            let expected = if is_old { old } else { new };
            assert_eq!(accepted.is_ok(), expected.is_some(), "version {version}: {level}");
            if let Some(expected) = expected {
                state.set(CREATOR, "m.room.power_levels", "", json!({ "users": { OTHER: level } }));
                assert_eq!(
                    state.levels().user(user(OTHER)),
                    PowerLevel::Finite(expected),
                    "version {version}: {level}"
                );
            }
        }
        let state = State::new(version);
        for (users, is_right) in [
            (json!({ "nobody": 1 }), false),
            (json!({ "": 1 }), false),
            (json!({ "@no-server": 1 }), false),
            (json!({ "@x:impossible_name": 1 }), true),
            (json!([]), false),
            (json!(5), false),
        ] {
            let accepted = state.sets(CREATOR, "m.room.power_levels", json!({ "users": users }));
            assert_eq!(accepted.is_ok(), is_right, "version {version}: {users}");
        }
    }
}

#[test]
fn knows_the_levels_of_a_room_without_power_levels() {
    for version in RoomVersion::all() {
        let levels = State::new(version).levels();
        let creator = if number(version) < 12 { PowerLevel::Finite(100) } else { PowerLevel::Infinite };
        assert_eq!(levels.user(user(CREATOR)), creator);
        assert_eq!(levels.user(user(OTHER)), PowerLevel::Finite(0));
        assert_eq!(levels.message_event("m.room.message"), PowerLevel::Finite(0));
        assert_eq!(levels.state_event("m.room.topic"), PowerLevel::Finite(50));
        assert_eq!(
            [levels.invite(), levels.kick(), levels.ban(), levels.redact(), levels.notify_room()],
            [0, 50, 50, 50, 50].map(PowerLevel::Finite)
        );
    }
}

#[test]
fn creators_stand_above_every_level_from_version_12() {
    let mut state = State::new(RoomVersion::DEFAULT);
    let content = json!({ "room_version": "12", "additional_creators": [OTHER] });
    let create = json!({ "type": "m.room.create", "state_key": "", "sender": CREATOR, "content": content });
    state.create = pdu(state.version, "$create:domain", &create);
    // A room ID in other events has the form of a hash then.
    let levels = json!({ "users_default": 9_007_199_254_740_991_i64, "ban": 9_007_199_254_740_991_i64 });
    state.set(CREATOR, "m.room.power_levels", "", levels);
    assert_eq!(state.levels().user(user(OTHER)), PowerLevel::Infinite);
    assert!(PowerLevel::Infinite > PowerLevel::Finite(i64::MAX));
    let ban = |sender: &str, target: &str| {
        let content = json!({ "membership": "ban" });
        state.check(&json!({ "type": "m.room.member", "state_key": target, "sender": sender, "content": content }))
    };
    assert!(ban(OTHER, "@third:domain").is_ok());
    assert!(ban(OTHER, CREATOR).is_err());
    assert!(ban(CREATOR, OTHER).is_err());
    for creator in [CREATOR, OTHER] {
        assert!(state.sets(CREATOR, "m.room.power_levels", json!({ "users": { creator: 100 } })).is_err());
    }
}

#[test]
fn nobody_raises_above_themselves_or_lowers_an_equal() {
    for version in RoomVersion::all() {
        let mut state = State::new(version);
        let now = json!({ "users": { OTHER: 50, "@equal:domain": 50, "@low:domain": 10 }, "ban": 60, "events": { "m.x": 70 } });
        state.set(CREATOR, "m.room.power_levels", "", now.clone());
        let change = |change: fn(&mut Value)| {
            let mut content = now.clone();
            change(&mut content);
            state.sets(OTHER, "m.room.power_levels", content).is_ok()
        };
        assert!(change(|_| {}));
        assert!(change(|content| content["users"]["@low:domain"] = json!(50)));
        assert!(!change(|content| content["users"]["@low:domain"] = json!(51)));
        assert!(!change(|content| content["users"]["@equal:domain"] = json!(49)));
        assert!(!change(|content| drop(content["users"].as_object_mut().unwrap().remove("@equal:domain"))));
        assert!(change(|content| content["users"]["@other:domain"] = json!(0)));
        assert!(!change(|content| content["users"]["@other:domain"] = json!(100)));
        assert!(!change(|content| content["ban"] = json!(50)));
        assert!(change(|content| content["kick"] = json!(50)));
        assert!(!change(|content| content["kick"] = json!(51)));
        assert!(!change(|content| content["events"]["m.x"] = json!(0)));
        assert!(change(|content| content["events"]["m.y"] = json!(50)));
        // Notifications are guarded from version 6 on.
        assert_eq!(change(|content| content["notifications"] = json!({ "room": 51 })), number(version) < 6);
    }
}

/// The difference that the differential test knows: a level that is added is compared with nothing.
#[test]
fn a_level_that_is_added_is_not_compared_with_its_default() {
    let mut state = State::new(RoomVersion::parse("10").unwrap());
    state.set(CREATOR, "m.room.power_levels", "", json!({ "state_default": 0, "users": { CREATOR: 100 } }));
    assert!(
        state
            .sets(OTHER, "m.room.power_levels", json!({ "state_default": 0, "ban": 0, "users": { CREATOR: 100 } }))
            .is_ok()
    );
    assert!(
        state
            .sets(OTHER, "m.room.power_levels", json!({ "state_default": 0, "ban": 1, "users": { CREATOR: 100 } }))
            .is_err()
    );
}

#[test]
fn a_level_that_is_no_number_fails_what_needs_it_and_nothing_else() {
    let mut state = State::new(RoomVersion::parse("5").unwrap());
    let levels = json!({ "users": { CREATOR: 100 }, "ban": "abc", "notifications": [] });
    state.set(CREATOR, "m.room.power_levels", "", levels.clone());
    let change = |membership: &str| {
        let content = json!({ "membership": membership });
        state.check(&json!({ "type": "m.room.member", "state_key": OTHER, "sender": CREATOR, "content": content }))
    };
    assert!(change("ban").unwrap_err().rule.contains("ban"));
    assert_eq!(change("leave"), Ok(()));
    // Whether it would change cannot be said.
    assert!(state.sets(CREATOR, "m.room.power_levels", levels).is_err());
    let mut state = State::new(RoomVersion::parse("6").unwrap());
    let empty_list = json!({ "users": { CREATOR: 100 }, "notifications": [] });
    state.set(CREATOR, "m.room.power_levels", "", empty_list.clone());
    assert!(state.sets(CREATOR, "m.room.power_levels", empty_list).is_err());
}

#[test]
fn a_room_that_is_not_federated_takes_events_of_its_own_server() {
    for version in RoomVersion::all() {
        let mut state = State::new(version);
        let content = json!({ "room_version": version.as_str(), "creator": CREATOR, "m.federate": false });
        let create = json!({ "type": "m.room.create", "state_key": "", "sender": CREATOR, "content": content });
        state.create = pdu(version, "$create:domain", &create);
        let foreign = "@eve:elsewhere";
        state.set(foreign, "m.room.member", foreign, json!({ "membership": "join" }));
        let message = |sender: &str| state.check(&json!({ "type": "m.room.message", "sender": sender }));
        assert_eq!(message(CREATOR), Ok(()));
        assert_eq!(message(foreign).unwrap_err().rule, "the room is not federated");
        // Whose membership is changed does not count, only who changes it.
        let content = json!({ "membership": "invite" });
        let invite =
            json!({ "type": "m.room.member", "state_key": "@x:elsewhere", "sender": CREATOR, "content": content });
        assert_eq!(state.check(&invite), Ok(()));
    }
}

#[test]
fn a_create_event_is_of_the_version_that_it_is_checked_by() {
    for version in RoomVersion::all() {
        let check = |change: fn(&mut Value)| {
            let mut create = json!({
                "type": "m.room.create", "state_key": "", "sender": CREATOR,
                "content": { "room_version": version.as_str(), "creator": CREATOR },
            });
            change(&mut create);
            check_auth_events(version, &pdu(version, "$create:domain", &create), &[]).is_ok()
        };
        assert!(check(|_| {}));
        assert!(!check(|create| create["content"]["room_version"] = json!("99")));
        assert!(!check(|create| create["content"]["room_version"] = json!(5)));
        assert!(!check(|create| create["content"]["room_version"] = json!("13")));
        assert_eq!(
            check(|create| drop(create["content"].as_object_mut().unwrap().remove("room_version"))),
            number(version) == 1
        );
        assert_eq!(
            check(|create| drop(create["content"].as_object_mut().unwrap().remove("creator"))),
            number(version) >= 11
        );
        assert_eq!(check(|create| create["content"]["additional_creators"] = json!([5])), number(version) < 12);
        assert_eq!(check(|create| create["content"]["m.federate"] = json!(1)), number(version) < 12);
        if number(version) >= 3 {
            assert!(!check(|create| create["prev_events"] = json!(["$x:domain"])));
        }
        if number(version) < 12 {
            assert!(!check(|create| create["room_id"] = json!("!create:elsewhere")));
        }
    }
}

/// Row A1 of the attack classes: each way in which auth events can be wrong.
#[test]
fn takes_only_the_auth_events_that_an_event_needs() {
    for version in RoomVersion::all().skip(2) {
        let state = State::new(version);
        let member = state.events[&("m.room.member".to_owned(), CREATOR.to_owned())].clone();
        let other = state.events[&("m.room.member".to_owned(), OTHER.to_owned())].clone();
        let again = json!({ "type": "m.room.member", "state_key": CREATOR, "sender": CREATOR, "content": { "membership": "join" } });
        let again = pdu(version, "$again:domain", &again);
        let mut elsewhere = json!({ "type": "m.room.power_levels", "state_key": "", "sender": CREATOR });
        let levels = pdu(version, "$levels:domain", &elsewhere);
        elsewhere["room_id"] = json!("!other:domain");
        let elsewhere = pdu(version, "$elsewhere:domain", &elsewhere);
        let no_state = pdu(version, "$message:domain", &json!({ "type": "m.room.member", "sender": CREATOR }));
        let check = |named: &[&Pdu], known: &[Pdu]| {
            let mut ids: Vec<_> = named.iter().map(|pdu| pdu.event_id().to_string()).collect();
            if !version.room_id_is_create_hash() {
                ids.push(state.create.event_id().to_string());
            }
            let event = json!({ "type": "m.room.message", "sender": CREATOR, "auth_events": ids });
            let mut known = known.to_vec();
            known.push(state.create.clone());
            check_auth_events(version, &pdu(version, "$event:domain", &event), &known)
                .map_err(|rejection| rejection.rule)
        };
        let both = [member.clone(), levels.clone()];
        assert_eq!(check(&[&member, &levels], &both), Ok(()));
        assert!(check(&[&member, &levels], &both[..1]).unwrap_err().contains("not known"));
        assert!(check(&[&member, &again], &[member.clone(), again.clone()]).unwrap_err().contains("same type"));
        assert!(check(&[&member, &other], &[member.clone(), other.clone()]).unwrap_err().contains("not one that"));
        assert!(check(&[&elsewhere], std::slice::from_ref(&elsewhere)).unwrap_err().contains("another room"));
        assert!(check(&[&no_state], std::slice::from_ref(&no_state)).unwrap_err().contains("not a state event"));
        assert!(check(&[&member], &[member.with_rejected()]).unwrap_err().contains("rejected"));
        if version.room_id_is_create_hash() {
            // From version 12 on the create event is implied and must not be named.
            assert!(check(&[&state.create], &[]).is_err());
        } else {
            let event = json!({ "type": "m.room.message", "sender": CREATOR, "auth_events": [member.event_id()] });
            let event = pdu(version, "$event:domain", &event);
            assert!(check_auth_events(version, &event, &[member]).unwrap_err().rule.contains("create event"));
        }
    }
}

/// Differences that the differential test knows.
#[test]
fn a_membership_is_of_a_user_and_power_levels_are_those_of_the_room() {
    for version in RoomVersion::all() {
        let mut state = State::new(version);
        state.set(
            CREATOR,
            "m.room.power_levels",
            "",
            json!({ "users": { OTHER: 50 }, "ban": 70, "state_default": 50 }),
        );
        let content = json!({ "membership": "invite" });
        for target in ["nobody", "", "@", "@:", "@x:", "@x:impossible_name"] {
            let invite = json!({ "type": "m.room.member", "state_key": target, "sender": OTHER, "content": content });
            assert!(state.check(&invite).is_err(), "version {version}: {target:?}");
        }
        // Under another state key they mean nothing, but they are judged as if they did.
        let elsewhere = |levels: Value| {
            state
                .check(&json!({ "type": "m.room.power_levels", "state_key": "x", "sender": OTHER, "content": levels }))
                .is_ok()
        };
        assert!(elsewhere(json!({ "users": { OTHER: 50 }, "ban": 70, "state_default": 50 })));
        assert!(!elsewhere(json!({ "users": { OTHER: 50 }, "ban": 50, "state_default": 50 })));
    }
}

#[test]
fn an_unknown_membership_needs_no_more_than_any_event_and_is_rejected() {
    for version in RoomVersion::all() {
        let state = State::new(version);
        for content in [json!({}), json!({ "membership": 5 }), json!({ "membership": "odd" })] {
            let canonical = serde_json::from_value(content.clone()).unwrap();
            let types = auth_types(version, "m.room.member", user(OTHER), Some(OTHER), &canonical).unwrap();
            let member = ("m.room.member".to_owned(), OTHER.to_owned());
            assert!(types.contains(&member) && types.len() <= 3, "version {version}: {types:?}");
            let event = json!({ "type": "m.room.member", "state_key": OTHER, "sender": OTHER, "content": content });
            assert!(state.check(&event).is_err());
        }
    }
}
