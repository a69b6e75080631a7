//! What events of the well-known types say, and what else could stand in each place of it.

use serde_json::{Value, json};

/// The type of an event, its state key if it has one, and its content.
pub(super) struct Kind {
    pub(super) event_type: &'static str,
    pub(super) state_key: Option<String>,
    content: Value,
}

/// Whom and what contents name.
pub(super) struct Names {
    /// A member of the hostile server.
    pub(super) mallory: String,
    /// A user of it that is not in the room.
    pub(super) ghost: String,
    /// A member of the server under test.
    pub(super) alice: String,
    /// A message of hers.
    pub(super) root: String,
    /// A message of the hostile member.
    pub(super) own: String,
    /// The room.
    pub(super) room: String,
}

/// What stands where something else should.
pub(super) fn odd_values() -> [Value; 6] {
    [
        Value::Null,
        json!(-9_007_199_254_740_991_i64),
        json!([[], null, 1, "x", {"a": [true]}]),
        json!({"": {"\u{0}": null}, "a": {"b": []}}),
        json!(""),
        json!("ü@:#!$".repeat(500)),
    ]
}

impl Kind {
    fn state(event_type: &'static str, state_key: &str, content: Value) -> Self {
        Self { event_type, state_key: Some(state_key.to_owned()), content }
    }

    fn message(event_type: &'static str, content: Value) -> Self {
        Self { event_type, state_key: None, content }
    }

    /// How many contents there are with `odd` in some place.
    pub(super) fn variants(&self) -> usize {
        1 + places(&self.content).len()
    }

    /// The content with `odd` in the place `n`, or in every place at the top if there is none of that number.
    pub(super) fn variant(&self, n: usize, odd: &Value) -> Value {
        let mut content = self.content.clone();
        if let Some(place) = places(&self.content).get(n) {
            *content.pointer_mut(place).expect("a place of it") = odd.clone();
            return content;
        }
        let members = content.as_object_mut().expect("content is an object").iter_mut();
        // Without their membership they are no events that the rules allow.
        members.filter(|(key, _)| *key != "membership").for_each(|(_, member)| *member = odd.clone());
        content
    }
}

/// JSON pointers to everything in it that may be anything.
fn places(content: &Value) -> Vec<String> {
    fn collect(value: &Value, path: &str, found: &mut Vec<String>) {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(members) => members.iter().map(|(key, child)| (key.replace('/', "~1"), child)).collect(),
            Value::Array(items) => items.iter().enumerate().map(|(n, child)| (n.to_string(), child)).collect(),
            _ => return,
        };
        for (key, child) in children {
            let path = format!("{path}/{key}");
            if path != "/membership" {
                found.push(path.clone());
                collect(child, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    collect(content, "", &mut found);
    found
}

/// What describes a room. Join rules come last: whatever they are, nobody joins after them.
pub(super) fn state(names: &Names) -> Vec<Kind> {
    let Names { mallory, ghost, alice, room, root, .. } = names;
    let all = |event_type, content| Kind::state(event_type, "", content);
    vec![
        Kind::state(
            "m.room.member",
            mallory,
            json!({"membership": "join", "displayname": "Mallory", "avatar_url": "mxc://a/b", "reason": "why not",
                "is_direct": true, "third_party_invite": {"display_name": "M", "signed": {"mxid": mallory, "token": "t",
                "signatures": {}}}}),
        ),
        Kind::state(
            "m.room.member",
            ghost,
            json!({"membership": "ban", "displayname": "Ghost", "avatar_url": "mxc://a/b", "reason": "boo"}),
        ),
        all("m.room.name", json!({"name": "Odd"})),
        all("m.room.topic", json!({"topic": "Odd", "m.topic": {"m.text": [{"body": "Odd", "mimetype": "text/html"}]}})),
        all("m.room.avatar", json!({"url": "mxc://a/b", "info": {"w": 1, "thumbnail_info": {"h": 1}}})),
        all("m.room.canonical_alias", json!({"alias": "#odd:a.test", "alt_aliases": ["#odder:a.test"]})),
        all("m.room.guest_access", json!({"guest_access": "can_join"})),
        all("m.room.encryption", json!({"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_ms": 1})),
        all("m.room.tombstone", json!({"body": "gone", "replacement_room": "!other:a.test"})),
        all("m.room.pinned_events", json!({"pinned": [root]})),
        Kind::state("m.space.child", room, json!({"via": ["a.test"], "order": "a", "suggested": true})),
        Kind::state("m.space.parent", room, json!({"via": ["a.test"], "canonical": true})),
        Kind::state(
            "m.room.third_party_invite",
            "token",
            json!({"display_name": "M", "key_validity_url": "https://a.test", "public_key": "abc",
                "public_keys": [{"public_key": "abc", "key_validity_url": "https://a.test"}]}),
        ),
        Kind::state("m.policy.rule.user", "rule", json!({"entity": alice, "reason": "x", "recommendation": "m.ban"})),
        Kind::state("m.room.aliases", "a.test", json!({"aliases": ["#odd:a.test"]})),
        Kind::state("m.beacon_info", mallory, json!({"timeout": 1, "live": true, "m.ts": 1})),
        Kind::state("m.call.member", mallory, json!({"application": "m.call", "foci_preferred": [{"type": "x"}]})),
        Kind::state("m.room.bot.options", "_a", json!({"options": {"a": 1}})),
        all("m.room.history_visibility", json!({"history_visibility": "shared"})),
        all(
            "m.room.join_rules",
            json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": room}]}),
        ),
    ]
}

/// What is said in a room.
pub(super) fn messages(names: &Names) -> Vec<Kind> {
    let Names { mallory, alice, root, own, .. } = names;
    let text = |relation: Value| {
        json!({"msgtype": "m.text", "body": alice, "m.mentions": {"user_ids": [alice], "room": true},
            "m.relates_to": relation})
    };
    let thread = json!({"rel_type": "m.thread", "event_id": root, "is_falling_back": true,
        "m.in_reply_to": {"event_id": root}});
    vec![
        Kind::message("m.room.message", text(thread)),
        Kind::message("m.room.message", text(json!({"m.in_reply_to": {"event_id": root}}))),
        Kind::message(
            "m.room.message",
            json!({"msgtype": "m.image", "body": "x", "url": "mxc://a/b", "info": {"w": 1}, "format": "x",
                "formatted_body": "<b>x</b>", "file": {"url": "mxc://a/b"}, "filename": "x"}),
        ),
        Kind::message(
            "m.room.message",
            json!({"msgtype": "m.text", "body": "* x", "m.new_content": {"msgtype": "m.text", "body": "x",
                "m.mentions": {"user_ids": [alice]}}, "m.relates_to": {"rel_type": "m.replace", "event_id": own}}),
        ),
        Kind::message(
            "m.reaction",
            json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": root, "key": "👍"}}),
        ),
        Kind::message(
            "m.poll.start",
            json!({"m.text": [{"body": "x"}], "m.poll": {"question": {"m.text": [{"body": "?"}]}, "max_selections": 1,
                "answers": [{"m.id": "a", "m.text": [{"body": "a"}]}]}}),
        ),
        Kind::message(
            "m.poll.response",
            json!({"m.selections": ["a"], "m.relates_to": {"rel_type": "m.reference", "event_id": root}}),
        ),
        Kind::message("m.poll.end", json!({"m.relates_to": {"rel_type": "m.reference", "event_id": root}})),
        Kind::message(
            "m.room.encrypted",
            json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "sender_key": "x", "device_id": "x",
                "session_id": "x", "m.relates_to": {"rel_type": "m.thread", "event_id": root}}),
        ),
        Kind::message("m.sticker", json!({"body": "x", "url": "mxc://a/b", "info": {"thumbnail_url": "mxc://a/b"}})),
        Kind::message(
            "m.call.invite",
            json!({"call_id": "x", "lifetime": 1, "offer": {"sdp": "x"}, "invitee": mallory}),
        ),
        Kind::message("m.room.redaction", json!({"redacts": "$nothing", "reason": "x"})),
    ]
}
