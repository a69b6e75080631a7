//! Rooms as the hostile server sees them: events are made of raw text, so that they can be wrong in any way.
//!
//! Room versions 3 to 12.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::hostile::now;
use crate::{Hostile, pct};

/// An event before it is signed: its fields as raw JSON, so that they may be no JSON at all.
#[derive(Clone, Debug)]
pub struct RawEvent {
    fields: BTreeMap<String, String>,
    version: u8,
}

/// A signed event.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Its ID.
    pub id: String,
    /// Its JSON.
    pub text: String,
}

/// A copy of a room: every event by ID, and its state.
#[derive(Clone, Debug)]
pub struct Room {
    /// Its ID.
    pub id: String,
    version: u8,
    /// Every event that is known.
    pub events: HashMap<String, Signed>,
    /// The event of each type and state key.
    pub state: BTreeMap<(String, String), String>,
    /// The forward extremities.
    pub head: Vec<String>,
    depth: u64,
}

impl Signed {
    /// As JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

impl RawEvent {
    /// An event of a room of `version` that is known in JSON.
    pub(crate) fn of(event: &Value, version: u8) -> Self {
        let mut raw = Self { fields: BTreeMap::new(), version };
        for (field, value) in event.as_object().expect("an event is an object") {
            raw = raw.with(field, value);
        }
        raw
    }

    /// What signatures are over.
    pub(crate) fn signed_form(&self) -> String {
        self.clone().without("signatures").redacted()
    }

    /// Sets a field to raw JSON.
    #[must_use]
    pub fn raw(mut self, field: &str, raw: &str) -> Self {
        self.fields.insert(field.to_owned(), raw.to_owned());
        self
    }

    /// Sets a field.
    #[must_use]
    pub fn with(self, field: &str, value: &Value) -> Self {
        self.raw(field, &value.to_string())
    }

    /// Removes a field.
    #[must_use]
    pub fn without(mut self, field: &str) -> Self {
        self.fields.remove(field);
        self
    }

    /// A field as it is.
    pub fn field(&self, field: &str) -> Value {
        self.fields.get(field).and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or(Value::Null)
    }

    /// The event with the right hash, signed by `server`.
    pub fn sign(&self, server: &Hostile) -> Signed {
        self.sign_as(server, server.name(), server.key_id())
    }

    /// The same with the name and the key ID of whomever.
    pub fn sign_as(&self, server: &Hostile, name: &str, key_id: &str) -> Signed {
        let hash = STANDARD_NO_PAD.encode(Sha256::digest(self.object(|_| true)));
        let event = self.clone().with("hashes", &json!({"sha256": hash}));
        let redacted = event.redacted();
        let signatures = json!({name: {key_id: server.sign(redacted.as_bytes())}});
        Signed { id: self.id_of(&redacted), text: event.with("signatures", &signatures).object(|_| true) }
    }

    /// The event with a hash that is not that of its content, signed by `server` all the same.
    pub fn sign_with_wrong_hash(&self, server: &Hostile) -> Signed {
        let event = self.clone().with("hashes", &json!({"sha256": STANDARD_NO_PAD.encode([7_u8; 32])}));
        let redacted = event.redacted();
        let signatures = json!({server.name(): {server.key_id(): server.sign(redacted.as_bytes())}});
        Signed { id: self.id_of(&redacted), text: event.with("signatures", &signatures).object(|_| true) }
    }

    /// The same without any signature.
    pub fn unsigned(&self) -> Signed {
        let hash = STANDARD_NO_PAD.encode(Sha256::digest(self.object(|_| true)));
        let event = self.clone().with("hashes", &json!({"sha256": hash})).with("signatures", &json!({}));
        Signed { id: self.id_of(&event.redacted()), text: event.object(|_| true) }
    }

    fn id_of(&self, redacted: &str) -> String {
        let hash = Sha256::digest(redacted);
        let hash = if self.version == 3 { STANDARD_NO_PAD.encode(hash) } else { URL_SAFE_NO_PAD.encode(hash) };
        format!("${hash}")
    }

    /// What is signed: the fields that a redaction leaves, but the signatures.
    fn redacted(&self) -> String {
        let kept = |field: &str| {
            let always = [
                "type",
                "room_id",
                "sender",
                "state_key",
                "hashes",
                "depth",
                "prev_events",
                "auth_events",
                "origin_server_ts",
                "content",
                "event_id",
            ];
            always.contains(&field) || (self.version < 11 && ["prev_state", "origin", "membership"].contains(&field))
        };
        let kind = self.field("type");
        let content = redacted_content(kind.as_str().unwrap_or(""), &self.field("content"), self.version);
        self.clone().with("content", &content).object(kept)
    }

    fn object(&self, kept: impl Fn(&str) -> bool) -> String {
        let fields = self.fields.iter().filter(|(field, _)| kept(field));
        let fields: Vec<String> = fields.map(|(field, raw)| format!("{}:{raw}", json!(field))).collect();
        format!("{{{}}}", fields.join(","))
    }
}

/// What a redaction leaves of the content.
fn redacted_content(kind: &str, content: &Value, version: u8) -> Value {
    let keys: &[&str] = match kind {
        "m.room.create" if version >= 11 => return content.clone(),
        "m.room.create" => &["creator"],
        "m.room.member" if version >= 9 => &["membership", "join_authorised_via_users_server"],
        "m.room.member" => &["membership"],
        "m.room.join_rules" if version >= 8 => &["join_rule", "allow"],
        "m.room.join_rules" => &["join_rule"],
        "m.room.power_levels" if version >= 11 => {
            &["ban", "events", "events_default", "invite", "kick", "redact", "state_default", "users", "users_default"]
        }
        "m.room.power_levels" => {
            &["ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"]
        }
        "m.room.history_visibility" => &["history_visibility"],
        "m.room.aliases" if version < 6 => &["aliases"],
        "m.room.redaction" if version >= 11 => &["redacts"],
        _ => &[],
    };
    let kept = keys.iter().filter_map(|key| Some(((*key).to_owned(), content.get(*key)?.clone())));
    let mut kept: serde_json::Map<String, Value> = kept.collect();
    if kind == "m.room.member"
        && version >= 11
        && let Some(invite) = content["third_party_invite"].as_object()
    {
        let signed = invite.iter().filter(|(key, _)| *key == "signed").map(|(key, value)| (key.clone(), value.clone()));
        kept.insert("third_party_invite".to_owned(), Value::Object(signed.collect()));
    }
    Value::Object(kept)
}

impl Room {
    /// A room that `creator` of `server` makes, which anybody may join.
    pub fn create(server: &Hostile, creator: &str, version: u8) -> Self {
        Self::create_with(server, creator, version, |_| json!({}))
    }

    /// The same with what `more` puts into the content of its creation; it is told the room's ID, but in version 12.
    pub fn create_with(server: &Hostile, creator: &str, version: u8, more: impl Fn(&str) -> Value) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let id = format!("!room{number}:{}", server.name());
        let mut room = Self { id, version, events: HashMap::new(), state: BTreeMap::new(), head: Vec::new(), depth: 0 };
        let mut content = json!({"room_version": version.to_string()});
        if version < 11 {
            content["creator"] = json!(creator);
        }
        for (key, value) in more(&room.id).as_object().into_iter().flatten() {
            content[key] = value.clone();
        }
        let mut create = room.event("m.room.create", Some(""), creator, &content);
        if version >= 12 {
            create = create.without("room_id").with("content", &json!({"room_version": "12", "number": number}));
        }
        let create = create.sign(server);
        if version >= 12 {
            room.id = create.id.replacen('$', "!", 1);
        }
        room.add(&create);
        let users = if version >= 12 { json!({}) } else { json!({creator: 100}) };
        for (kind, key, content) in [
            ("m.room.member", creator, json!({"membership": "join"})),
            ("m.room.power_levels", "", json!({"users": users})),
            ("m.room.join_rules", "", json!({"join_rule": "public"})),
            ("m.room.history_visibility", "", json!({"history_visibility": "shared"})),
        ] {
            let event = room.event(kind, Some(key), creator, &content);
            room.send(server, &event);
        }
        room
    }

    /// Joins a room of the server `to` as `user`.
    pub async fn join(server: &Hostile, to: &str, room: &str, user: &str, version: u8) -> Self {
        let versions: Vec<String> = (1..=12).map(|version| format!("ver={version}")).collect();
        let uri = format!("/_matrix/federation/v1/make_join/{}/{}?{}", pct(room), pct(user), versions.join("&"));
        let made = server.get(to, &uri).ok().await;
        assert_eq!(made["room_version"], version.to_string());
        let mut join = RawEvent { fields: BTreeMap::new(), version };
        for (field, value) in made["event"].as_object().expect("a template is an object") {
            join = join.with(field, value);
        }
        join = join.with("origin_server_ts", &json!(now())).without("hashes").without("signatures").without("event_id");
        let join = join.sign(server);
        let uri = format!("/_matrix/federation/v2/send_join/{}/{}", pct(room), pct(&join.id));
        let answer = server.put(to, &uri, &join.json()).ok().await;
        let mut copy = Self {
            id: room.to_owned(),
            version,
            events: HashMap::new(),
            state: BTreeMap::new(),
            head: Vec::new(),
            depth: 0,
        };
        for event in list(&answer, "auth_chain") {
            let event = copy.received(event);
            copy.events.insert(event.id.clone(), event);
        }
        for event in list(&answer, "state") {
            let event = copy.received(event);
            copy.remember(&event);
        }
        copy.add(&join);
        copy
    }

    /// An event of another server with its ID.
    pub fn received(&self, event: &Value) -> Signed {
        let raw = RawEvent::of(event, self.version);
        Signed { id: raw.id_of(&raw.signed_form()), text: event.to_string() }
    }

    /// An event on top of the room as it is, with the right references.
    pub fn event(&self, kind: &str, state_key: Option<&str>, sender: &str, content: &Value) -> RawEvent {
        let mut event = RawEvent { fields: BTreeMap::new(), version: self.version }
            .with("type", &json!(kind))
            .with("room_id", &json!(self.id))
            .with("sender", &json!(sender))
            .with("content", content)
            .with("origin_server_ts", &json!(now()))
            .with("depth", &json!(self.depth + 1))
            .with("prev_events", &json!(self.head))
            .with("auth_events", &json!(self.auth_events(kind, state_key, sender, content)));
        if let Some(state_key) = state_key {
            event = event.with("state_key", &json!(state_key));
        }
        event
    }

    /// A message.
    pub fn message(&self, sender: &str, text: &str) -> RawEvent {
        self.event("m.room.message", None, sender, &json!({"msgtype": "m.text", "body": text}))
    }

    fn auth_events(&self, kind: &str, state_key: Option<&str>, sender: &str, content: &Value) -> Vec<String> {
        if kind == "m.room.create" {
            return Vec::new();
        }
        let mut wanted = vec![("m.room.power_levels", ""), ("m.room.member", sender)];
        if self.version < 12 {
            wanted.push(("m.room.create", ""));
        }
        if kind == "m.room.member" {
            let membership = content["membership"].as_str().unwrap_or("");
            wanted.push(("m.room.member", state_key.unwrap_or("")));
            if ["join", "invite", "knock"].contains(&membership) {
                wanted.push(("m.room.join_rules", ""));
            }
            if let Some(authoriser) = content["join_authorised_via_users_server"].as_str() {
                wanted.push(("m.room.member", authoriser));
            }
        }
        let found = wanted.iter().filter_map(|(kind, key)| self.state.get(&((*kind).to_owned(), (*key).to_owned())));
        let mut found: Vec<String> = found.cloned().collect();
        found.sort();
        found.dedup();
        found
    }

    /// Signs an event and puts it on top of the room.
    pub fn send(&mut self, server: &Hostile, event: &RawEvent) -> Signed {
        let event = event.sign(server);
        self.add(&event);
        event
    }

    /// Puts an event on top of the room.
    pub fn add(&mut self, event: &Signed) {
        self.remember(event);
        self.head = vec![event.id.clone()];
    }

    fn remember(&mut self, event: &Signed) {
        let json = event.json();
        self.depth = self.depth.max(json["depth"].as_u64().unwrap_or(0));
        if let (Some(kind), Some(key)) = (json["type"].as_str(), json["state_key"].as_str()) {
            self.state.insert((kind.to_owned(), key.to_owned()), event.id.clone());
        }
        self.events.insert(event.id.clone(), event.clone());
    }

    /// The room's version.
    pub fn version(&self) -> String {
        self.version.to_string()
    }

    /// The events of the state.
    pub fn state_events(&self) -> Vec<Value> {
        self.state.values().map(|id| self.events[id].json()).collect()
    }

    /// The events of the state and of its auth chain, each once.
    pub fn auth_chain(&self) -> Vec<Value> {
        let mut found: BTreeMap<String, Value> = BTreeMap::new();
        let mut next: Vec<String> = self.state.values().cloned().collect();
        while let Some(id) = next.pop() {
            let Some(event) = self.events.get(&id) else { continue };
            let json = event.json();
            let parents = list(&json, "auth_events").iter().filter_map(Value::as_str).map(str::to_owned);
            if let Entry::Vacant(place) = found.entry(id) {
                next.extend(parents);
                place.insert(json);
            }
        }
        found.into_values().collect()
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}
