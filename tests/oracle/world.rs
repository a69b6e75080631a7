//! A room that is made up: events with IDs, and the states between them.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use hearth_event::{Pdu, RoomVersion, SigningKey, StateMap, auth_types, check};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use ruma_common::{CanonicalJsonObject, EventId, OwnedEventId, ServerName, UserId};
use serde_json::{Map, Value, json};

pub(crate) const USERS: [&str; 6] = [
    "@alice:a.example",
    "@bob:b.example",
    "@carol:a.example",
    "@dave:c.example:8448",
    "@erin:b.example",
    "@frank:1.2.3.4",
];
pub(crate) const CREATOR: &str = USERS[0];
pub(crate) const IDENTITY_SERVER: &str = "id.example";

pub(crate) struct World<'a> {
    pub(crate) version: RoomVersion,
    pub(crate) rng: &'a mut StdRng,
    pub(crate) room_id: String,
    /// As sent.
    pub(crate) raw: BTreeMap<String, Value>,
    pub(crate) pdus: HashMap<OwnedEventId, Pdu>,
    pub(crate) time: u64,
}

/// What an event says, before it has a place in the room.
pub(crate) struct Draft<'a> {
    pub(crate) sender: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) state_key: Option<&'a str>,
    pub(crate) content: Value,
    pub(crate) redacts: Option<&'a str>,
}

impl<'a> Draft<'a> {
    pub(crate) fn state(sender: &'a str, kind: &'a str, state_key: &'a str, content: Value) -> Self {
        Self { sender, kind, state_key: Some(state_key), content, redacts: None }
    }
}

impl<'a> World<'a> {
    pub(crate) fn new(version: RoomVersion, rng: &'a mut StdRng) -> Self {
        let room_id = "!room:a.example".to_owned();
        Self { version, rng, room_id, raw: BTreeMap::new(), pdus: HashMap::new(), time: 1_700_000_000_000 }
    }

    pub(crate) fn number(&self) -> u32 {
        self.version.as_str().parse().expect("a version is a number")
    }

    /// Versions that take any JSON.
    pub(crate) fn is_lenient(&self) -> bool {
        self.number() < 6
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    pub(crate) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items.choose(self.rng).expect("something to choose from").clone()
    }

    pub(crate) fn user(&mut self) -> &'static str {
        self.pick(&USERS)
    }

    /// The content of the create event: valid, with what a room may say.
    pub(crate) fn create_content(&mut self) -> Value {
        let mut content = Map::new();
        if self.number() > 1 || self.chance(50) {
            content.insert("room_version".to_owned(), json!(self.version.as_str()));
        }
        if self.number() < 11 {
            content.insert("creator".to_owned(), json!(CREATOR));
        }
        if self.chance(15) {
            let federate = self.chance(30);
            content.insert("m.federate".to_owned(), json!(federate));
        }
        if self.number() >= 12 && self.chance(40) {
            let more = [self.user(), self.user()];
            content.insert("additional_creators".to_owned(), json!(more));
        }
        Value::Object(content)
    }

    /// The create event; the room gets its ID from it where it does.
    pub(crate) fn create(&mut self, content: Value) -> String {
        let id = self.add(Draft::state(CREATOR, "m.room.create", "", content), &[], &[]);
        if self.number() >= 12 {
            self.room_id = format!("!{}", id.trim_start_matches('$'));
        }
        id
    }

    /// Adds an event after `prev_events`; its ID.
    pub(crate) fn add(&mut self, draft: Draft<'_>, prev_events: &[String], auth_events: &[String]) -> String {
        let (id, raw) = self.make(draft, prev_events, auth_events);
        self.put(&id, raw);
        id
    }

    pub(crate) fn put(&mut self, id: &str, raw: Value) {
        let pdu = self.parse(id, &raw);
        self.pdus.insert(pdu.event_id().to_owned(), pdu);
        self.raw.insert(id.to_owned(), raw);
    }

    pub(crate) fn parse(&self, id: &str, raw: &Value) -> Pdu {
        let bytes = Bytes::from(serde_json::to_vec(raw).expect("a value is JSON"));
        let id = <&EventId>::try_from(id).expect("made as an event ID");
        Pdu::from_stored(id, bytes, self.version).unwrap_or_else(|error| panic!("{error}: {raw}"))
    }

    /// An event and its ID. The ID is ours: the other side refuses an event whose ID it does not find too.
    #[expect(clippy::needless_pass_by_value, reason = "a draft is made for one event")]
    pub(crate) fn make(&mut self, draft: Draft<'_>, prev_events: &[String], auth_events: &[String]) -> (String, Value) {
        self.time += self.rng.random_range(0..3) * 1000;
        let depth = prev_events.iter().filter_map(|id| self.raw[id]["depth"].as_u64()).max().unwrap_or(0) + 1;
        let server = draft.sender.split_once(':').expect("a user ID").1;
        let mut event = json!({
            "type": draft.kind, "sender": draft.sender, "content": draft.content, "depth": depth,
            "origin_server_ts": self.time, "room_id": self.room_id,
            "prev_events": self.references(prev_events), "auth_events": self.references(auth_events),
            "hashes": { "sha256": "thishashcoversallfieldsincasethisisredacted" },
            "signatures": { server: { "ed25519:1": "no signature is looked at here" } },
        });
        let fields = event.as_object_mut().expect("an object");
        for (name, value) in [("state_key", draft.state_key), ("redacts", draft.redacts)] {
            value.map(|value| fields.insert(name.to_owned(), json!(value)));
        }
        if draft.kind == "m.room.create" && self.number() >= 12 {
            fields.remove("room_id");
        }
        if self.number() < 3 {
            let number = self.rng.random::<u64>();
            fields.insert("event_id".to_owned(), json!(format!("${number}:{server}")));
        }
        let bytes = serde_json::to_vec(&event).expect("a value is JSON");
        let checked = check(&bytes, self.version).unwrap_or_else(|error| panic!("{error}: {event}"));
        (checked.event_id().to_string(), event)
    }

    pub(crate) fn references(&self, ids: &[String]) -> Value {
        if self.number() < 3 { ids.iter().map(|id| json!([id, {}])).collect() } else { json!(ids) }
    }

    /// The events of `state` that `draft` needs as its auth events.
    pub(crate) fn auth_events(&self, draft: &Draft<'_>, state: &StateMap) -> Vec<String> {
        let sender = <&UserId>::try_from(draft.sender).expect("a user ID");
        // Only memberships are looked into, and their content is canonical.
        let content: CanonicalJsonObject = if draft.kind == "m.room.member" {
            serde_json::from_value(draft.content.clone()).unwrap_or_default()
        } else {
            CanonicalJsonObject::new()
        };
        let types = auth_types(self.version, draft.kind, sender, draft.state_key, &content);
        let found = types.into_iter().flatten().filter_map(|key| state.get(&key));
        found.map(ToString::to_string).collect()
    }

    /// Adds a state event on `state`, whether the rules allow it or not.
    pub(crate) fn add_state(&mut self, draft: Draft<'_>, prev_events: &[String], state: &mut StateMap) -> String {
        let auth_events = self.auth_events(&draft, state);
        let key = (draft.kind.to_owned(), draft.state_key.expect("a state event").to_owned());
        let id = self.add(draft, prev_events, &auth_events);
        state.insert(key, EventId::parse(&id).expect("an event ID"));
        id
    }

    pub(crate) fn pdu(&self, id: &EventId) -> Option<Pdu> {
        self.pdus.get(id).cloned()
    }

    /// The recursive closure of the auth events of the events of `state`, themselves included.
    pub(crate) fn auth_chain(&self, state: &StateMap) -> HashSet<OwnedEventId> {
        let mut chain = HashSet::new();
        let mut waiting: Vec<OwnedEventId> = state.values().cloned().collect();
        while let Some(id) = waiting.pop() {
            if let Some(pdu) = self.pdus.get(&id)
                && chain.insert(id)
            {
                waiting.extend(pdu.auth_events().iter().cloned());
            }
        }
        chain
    }

    /// A power level as rooms have it, now and then an odd one.
    pub(crate) fn level(&mut self) -> Value {
        if self.chance(88) { self.plain_level() } else { self.odd_level() }
    }

    pub(crate) fn plain_level(&mut self) -> Value {
        let plain =
            [json!(0), json!(50), json!(100), json!(25), json!(-5), json!(75), json!(9_007_199_254_740_991_i64)];
        self.pick(&plain)
    }

    pub(crate) fn odd_level(&mut self) -> Value {
        let mut odd = vec![
            json!("100"),
            json!(" 50 "),
            json!("+7"),
            json!("-3"),
            json!("007"),
            json!(true),
            json!(null),
            json!([]),
            json!({}),
            json!("abc"),
            json!(""),
            json!("5.5"),
            json!(9_007_199_254_740_991_i64),
            json!(-9_007_199_254_740_991_i64),
        ];
        if self.is_lenient() {
            odd.extend([
                json!(5.5),
                json!(-0.5),
                json!(1e3),
                json!(9_007_199_254_740_992_i64),
                json!(i64::MAX),
                json!(i64::MIN),
                json!(u64::MAX),
                json!(1e19),
            ]);
        }
        self.pick(&odd)
    }

    /// A map of levels for `keys`.
    pub(crate) fn levels(&mut self, keys: &[&str]) -> Value {
        let mut map = Map::new();
        for key in keys {
            if self.chance(40) {
                let level = self.level();
                map.insert((*key).to_owned(), level);
            }
        }
        Value::Object(map)
    }

    /// Power levels that a room can have come to: from version 10 on, all are integers.
    pub(crate) fn current_power_levels(&mut self) -> Value {
        loop {
            let content = self.power_levels();
            if self.number() < 10 || all_integers(&content) {
                return content;
            }
        }
    }

    /// Power levels in which somebody can do something.
    pub(crate) fn power_levels(&mut self) -> Value {
        let mut content = Map::new();
        for field in ["users_default", "events_default", "state_default", "ban", "kick", "redact", "invite"] {
            if self.chance(35) {
                let level = self.level();
                content.insert(field.to_owned(), level);
            }
        }
        let mut users = self.levels(&USERS);
        let users_map = users.as_object_mut().expect("an object");
        users_map.entry(CREATOR).or_insert(json!(100));
        if self.chance(3) {
            let odd = self.pick(&["nobody", "@:", "@x:bad_name", "@a b:c.example", ""]);
            users_map.insert(odd.to_owned(), json!(1));
        }
        if self.number() >= 12 && self.chance(90) {
            users_map.remove(CREATOR);
        }
        content.insert("users".to_owned(), users);
        if self.chance(60) {
            let events = self.levels(&["m.room.power_levels", "m.room.topic", "m.room.message", "m.room.redaction"]);
            content.insert("events".to_owned(), events);
        }
        if self.chance(30) {
            let notifications = self.levels(&["room", "other"]);
            content.insert("notifications".to_owned(), notifications);
        }
        if self.chance(2) {
            let field = self.pick(&["users", "events", "notifications"]);
            let broken = self.pick(&[json!([]), json!("x"), json!(5), json!(null)]);
            content.insert(field.to_owned(), broken);
        }
        Value::Object(content)
    }

    pub(crate) fn join_rules(&mut self) -> Value {
        let rule = self.pick(&["public", "invite", "knock", "restricted", "knock_restricted", "private", "odd"]);
        match self.rng.random_range(0..40) {
            0 => json!({}),
            1 => json!({ "join_rule": 5 }),
            _ => json!({ "join_rule": rule, "allow": [] }),
        }
    }

    /// `signed` of a third-party invite for `user`, by `key`.
    pub(crate) fn third_party_signed(user: &str, token: &str, key: &SigningKey) -> Value {
        let signed = json!({ "mxid": user, "token": token });
        let signed: CanonicalJsonObject = serde_json::from_value(signed).expect("canonical");
        let server = <&ServerName>::try_from(IDENTITY_SERVER).expect("a server name");
        serde_json::to_value(key.sign_server_keys(server, signed)).expect("a value")
    }
}

pub(crate) fn identity_key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32], "0").expect("a good version")
}

/// Whether all levels are integers, and all maps of levels objects.
fn all_integers(content: &Value) -> bool {
    content.as_object().expect("an object").iter().all(|(key, value)| match (key.as_str(), value) {
        ("users" | "events" | "notifications", Value::Object(levels)) => levels.values().all(Value::is_i64),
        ("users" | "events" | "notifications", _) => false,
        _ => value.is_i64(),
    })
}
