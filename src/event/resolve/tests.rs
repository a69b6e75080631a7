#![expect(clippy::needless_pass_by_value, reason = "tests read better with the JSON in the call")]

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;

const ALICE: &str = "@alice:domain";
const BOB: &str = "@bob:domain";

/// Alice takes Bob's power and bans him while he sets the topic on another branch.
struct Fork {
    version: RoomVersion,
    room_id: &'static str,
    events: HashMap<OwnedEventId, Pdu>,
}

impl Fork {
    fn new(version: RoomVersion) -> Self {
        let room_id = if version.room_id_is_create_hash() { "!create" } else { "!room:domain" };
        Self { version, room_id, events: HashMap::new() }
    }

    /// An event with `depth` as its depth and its time.
    fn add(
        &mut self,
        (id, depth): (&str, u64),
        (sender, kind, key): (&str, &str, &str),
        content: Value,
        auth: &[&str],
    ) {
        let auth = auth.iter().filter(|id| **id != "create" || !self.version.room_id_is_create_hash());
        let refer = |id: &&str| {
            let id = self.id(id);
            if self.version.refers_by_pairs() { json!([id, {}]) } else { json!(id) }
        };
        let mut event = json!({
            "type": kind, "state_key": key, "sender": sender, "content": content, "depth": depth, "origin_server_ts": depth,
            "auth_events": auth.map(refer).collect::<Vec<_>>(), "prev_events": [], "room_id": self.room_id,
        });
        if kind == "m.room.create" && self.version.room_id_is_create_hash() {
            event.as_object_mut().unwrap().remove("room_id");
        }
        let id = self.id(id);
        let bytes = Bytes::from(serde_json::to_vec(&event).unwrap());
        self.events.insert(id.clone(), Pdu::from_stored(&id, bytes, self.version).unwrap());
    }

    fn id(&self, name: &str) -> OwnedEventId {
        let suffix = if self.version.has_event_id_field() { ":domain" } else { "" };
        EventId::parse(format!("${name}{suffix}")).unwrap()
    }

    fn set(&self, names: &[&str]) -> StateMap {
        let entry = |name: &&str| {
            let pdu = &self.events[&self.id(name)];
            ((pdu.event_type().to_owned(), pdu.state_key().unwrap().to_owned()), pdu.event_id().to_owned())
        };
        names.iter().map(entry).collect()
    }

    fn resolve(&self, sets: &[StateMap], without: &[&str]) -> Result<StateMap, ResolveError> {
        let chain = |set: &StateMap| {
            let mut chain: HashSet<OwnedEventId> = HashSet::new();
            let mut waiting: Vec<_> = set.values().cloned().collect();
            while let Some(id) = waiting.pop() {
                if chain.insert(id.clone()) {
                    waiting.extend(self.events[&id].auth_events().iter().cloned());
                }
            }
            chain
        };
        let without: Vec<_> = without.iter().map(|name| self.id(name)).collect();
        let fetch = |id: &EventId| self.events.get(id).filter(|_| !without.iter().any(|gone| gone == id)).cloned();
        resolve(self.version, sets, sets.iter().map(chain).collect(), &fetch)
    }
}

fn fork(version: RoomVersion) -> (Fork, [StateMap; 2]) {
    let mut fork = Fork::new(version);
    let creator = !version.room_id_is_create_hash();
    let levels = |bob: i64| {
        if creator { json!({ "users": { ALICE: 100, BOB: bob } }) } else { json!({ "users": { BOB: bob } }) }
    };
    fork.add(
        ("create", 1),
        (ALICE, "m.room.create", ""),
        json!({ "creator": ALICE, "room_version": version.as_str() }),
        &[],
    );
    fork.add(("alice", 2), (ALICE, "m.room.member", ALICE), json!({ "membership": "join" }), &["create"]);
    fork.add(("levels", 3), (ALICE, "m.room.power_levels", ""), levels(50), &["create", "alice"]);
    fork.add(
        ("rules", 4),
        (ALICE, "m.room.join_rules", ""),
        json!({ "join_rule": "public" }),
        &["create", "alice", "levels"],
    );
    fork.add(("bob", 5), (BOB, "m.room.member", BOB), json!({ "membership": "join" }), &["create", "levels", "rules"]);
    fork.add(("demote", 6), (ALICE, "m.room.power_levels", ""), levels(0), &["create", "alice", "levels"]);
    fork.add(
        ("ban", 7),
        (ALICE, "m.room.member", BOB),
        json!({ "membership": "ban" }),
        &["create", "alice", "demote", "bob"],
    );
    fork.add(("topic", 8), (BOB, "m.room.topic", ""), json!({ "topic": "bob's" }), &["create", "levels", "bob"]);
    fork.add(("old", 5), (ALICE, "m.room.topic", ""), json!({ "topic": "alice's" }), &["create", "levels", "alice"]);
    let one = fork.set(&["create", "alice", "demote", "rules", "ban", "old"]);
    let two = fork.set(&["create", "alice", "levels", "rules", "bob", "topic"]);
    (fork, [one, two])
}

#[test]
fn a_ban_wins_over_what_the_banned_user_does_on_another_branch() {
    for version in RoomVersion::all() {
        let (fork, sets) = fork(version);
        let resolved = fork.resolve(&sets, &[]).unwrap();
        assert_eq!(resolved, fork.set(&["create", "alice", "demote", "rules", "ban", "old"]), "version {version}");
    }
}

#[test]
fn the_order_and_number_of_equal_sets_do_not_count() {
    for version in RoomVersion::all() {
        let (fork, [one, two]) = fork(version);
        let resolved = fork.resolve(&[one.clone(), two.clone()], &[]).unwrap();
        assert_eq!(fork.resolve(&[two.clone(), one.clone()], &[]).unwrap(), resolved);
        assert_eq!(fork.resolve(&[one.clone(), two.clone(), one.clone()], &[]).unwrap(), resolved);
        assert_eq!(fork.resolve(&[one.clone(), one.clone()], &[]).unwrap(), one);
        assert_eq!(fork.resolve(std::slice::from_ref(&two), &[]).unwrap(), two);
        assert!(fork.resolve(&[resolved, one, two], &[]).is_ok());
    }
}

#[test]
fn an_event_that_is_not_there_is_named_and_never_taken_for_absent() {
    for version in RoomVersion::all() {
        let (fork, sets) = fork(version);
        for missing in ["demote", "ban", "topic"] {
            let expected = Err(ResolveError::Missing(vec![fork.id(missing)]));
            assert_eq!(fork.resolve(&sets, &[missing]), expected, "version {version}");
        }
        let Err(ResolveError::Missing(missing)) = fork.resolve(&sets, &["create", "levels"]) else {
            panic!("version {version}: resolved without the create event")
        };
        assert!(missing.contains(&fork.id("create")) || missing.contains(&fork.id("levels")));
        // What no rule asks for need not be there.
        assert!(fork.resolve(&[sets[0].clone(), sets[0].clone()], &["create", "ban"]).is_ok());
    }
}

/// `ruma-state-res` fails a whole resolution on each of these.
#[test]
fn odd_power_levels_do_not_stop_a_room() {
    for version in RoomVersion::all() {
        let odd = [json!("50"), json!(50.5), json!(true), json!(i64::MIN), json!(" 7 ")];
        let is_old = !version.rules().authorization.integer_power_levels;
        for level in if is_old { &odd[..] } else { &[] } {
            let (mut fork, _) = fork(version);
            let levels = json!({ "users": { ALICE: 100, BOB: 50, "@carol:domain": level }, "events_default": level });
            fork.add(("odd", 9), (ALICE, "m.room.power_levels", ""), levels, &["create", "alice", "levels"]);
            let (one, two) =
                (fork.set(&["create", "alice", "odd", "rules"]), fork.set(&["create", "alice", "levels", "rules"]));
            assert_eq!(fork.resolve(&[one.clone(), two], &[]).unwrap(), one, "version {version}: {level}");
        }
        let (mut fork, _) = fork(version);
        let levels = json!({ "users": { BOB: 50, "@x:impossible_name": 1 } });
        fork.add(("odd", 3), (ALICE, "m.room.power_levels", ""), levels, &["create", "alice"]);
        fork.add(("new", 9), (BOB, "m.room.topic", ""), json!({}), &["create", "odd", "bob"]);
        let (one, two) =
            (fork.set(&["create", "alice", "odd", "bob", "new"]), fork.set(&["create", "alice", "odd", "bob", "old"]));
        assert_eq!(fork.resolve(&[one.clone(), two], &[]).unwrap(), one, "version {version}");
    }
}

#[test]
fn the_subgraph_holds_what_lies_between_conflicted_events() {
    let (mut fork, _) = fork(RoomVersion::DEFAULT);
    fork.add(("aside", 9), (ALICE, "m.room.name", ""), json!({}), &["alice"]);
    let conflicted = [fork.id("levels"), fork.id("ban"), fork.id("aside")];
    let found = subgraph::between(conflicted.iter(), &|id| fork.events.get(id).cloned());
    // `bob` needs `levels` and `ban` needs `bob`, so it lies between; `rules` too, by way of `bob`; `alice` leads nowhere.
    let expected = ["levels", "rules", "bob", "demote", "ban", "aside"].map(|name| fork.id(name));
    assert_eq!(found, expected.into_iter().collect());
}
