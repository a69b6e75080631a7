//! Questions about bytes: canonical JSON, event IDs, content hashes, redaction.

use hearth_event::{JsonLimits, RoomVersion, canonical_json, check, parse_canonical_object, redact};
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use crate::Case;
use crate::world::{CREATOR, Draft, World};

/// Pieces of JSON text that parsers disagree about.
const ODD: [&str; 30] = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1.0",
    "1e3",
    "-0",
    "0",
    "9007199254740991",
    "9007199254740992",
    "-9007199254740991",
    "-9007199254740992",
    "1e400",
    "01",
    "+1",
    ".5",
    "1.",
    "\"\\ud83d\"",
    "\"\\ud83d\\ude00\"",
    "\"\\u0000\\u001f\\u007f\"",
    "\"\\/\\b\\f\\n\\r\\t\"",
    "\"\\x\"",
    "\"\u{fb01}\u{10ffff}\"",
    "{\"a\":1,\"b\":{}}",
    "[1,]",
    "{\"a\":1,}",
    "[[[[[[]]]]]]",
    "truE",
    "null",
    "\"\u{0}\"",
    "99999999999999999999999999",
];

const KEYS: [&str; 12] = ["a", "b", "A", "", "é", "e\u{301}", "\u{ffee}", "\u{10000}", "aa", "\\\"", "\\u0001", "1"];

fn text(rng: &mut StdRng, depth: usize, out: &mut String) {
    match rng.random_range(0..if depth > 3 { 5 } else { 7 }) {
        0 => out.push_str(ODD[rng.random_range(0..ODD.len())]),
        1 => out.push_str(&rng.random_range(-1000_i64..1000).to_string()),
        2 => out.push_str("true"),
        3 => {
            let word: String = (0..rng.random_range(0..6)).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
            out.push_str(&serde_json::to_string(&word).expect("text is JSON"));
        }
        4 => out.push_str("\"\u{1f600} \u{2028}\""),
        5 => {
            out.push('[');
            for index in 0..rng.random_range(0..4) {
                if index > 0 {
                    out.push_str(" ,");
                }
                text(rng, depth + 1, out);
            }
            out.push(']');
        }
        _ => object(rng, depth + 1, out),
    }
}

fn object(rng: &mut StdRng, depth: usize, out: &mut String) {
    out.push_str("{ ");
    let mut used = Vec::new();
    for _ in 0..rng.random_range(0..5) {
        let key = KEYS[rng.random_range(0..KEYS.len())];
        // Duplicate keys are a known difference with a test of its own.
        if used.contains(&key) {
            continue;
        }
        if !used.is_empty() {
            out.push(',');
        }
        used.push(key);
        out.push('"');
        out.push_str(key);
        out.push_str("\" :\n");
        text(rng, depth, out);
    }
    out.push('}');
}

pub(crate) fn canonical(_version: RoomVersion, rng: &mut StdRng) -> Case {
    let mut json = String::new();
    object(rng, 0, &mut json);
    let ours = match parse_canonical_object(json.as_bytes(), JsonLimits::CONTENT) {
        Ok(object) => json!({ "ok": String::from_utf8(canonical_json(&object)).expect("JSON is text") }),
        Err(_) => json!({ "err": true }),
    };
    Case { request: json!({ "op": "canonical", "text": json, "strict": true }), ours }
}

const KINDS: [(&str, &[&str]); 9] = [
    ("m.room.member", &["membership", "join_authorised_via_users_server", "third_party_invite", "displayname"]),
    ("m.room.create", &["creator", "room_version", "m.federate", "additional_creators", "predecessor"]),
    ("m.room.join_rules", &["join_rule", "allow"]),
    (
        "m.room.power_levels",
        &["ban", "events", "events_default", "invite", "kick", "redact", "state_default", "users", "users_default"],
    ),
    ("m.room.history_visibility", &["history_visibility"]),
    ("m.room.redaction", &["redacts", "reason"]),
    ("m.room.aliases", &["aliases"]),
    ("m.room.message", &["body", "msgtype"]),
    ("m.room.server_acl", &["allow", "deny", "allow_ip_literals"]),
];

fn value(world: &mut World<'_>) -> Value {
    let mut values = vec![
        json!(null),
        json!(true),
        json!("text \u{1f600}\u{7f}\n"),
        json!([1, "a", {}]),
        json!(0),
        json!(-5),
        json!({ "signed": { "token": "t", "mxid": "@a:b" }, "display_name": "x" }),
        json!({ "b": 1, "a": { "é": [] } }),
        json!(9_007_199_254_740_991_i64),
        json!({ "signed": 5 }),
        json!({}),
        json!("invite"),
    ];
    if world.is_lenient() {
        values.extend([
            json!(1.5),
            json!(1e30),
            json!(-0.0),
            json!(1e-7),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(1e16),
        ]);
    }
    world.pick(&values)
}

pub(crate) fn event_id(version: RoomVersion, rng: &mut StdRng) -> Case {
    let mut world = World::new(version, rng);
    let create_content = world.create_content();
    let create = world.create(create_content);
    let (kind, fields) = world.pick(&KINDS);
    let mut content = Map::new();
    for field in fields.iter().copied().chain(["extra", "é"]) {
        if world.chance(60) {
            let value = value(&mut world);
            content.insert(field.to_owned(), value);
        }
    }
    if content.get("join_authorised_via_users_server").is_some() {
        content.insert("join_authorised_via_users_server".to_owned(), json!(CREATOR));
    }
    let is_create = kind == "m.room.create";
    let state_key = if world.chance(80) { Some("") } else { None };
    let draft = Draft { sender: CREATOR, kind, state_key, content: Value::Object(content), redacts: None };
    let (prev, auth) = if is_create { (vec![], vec![]) } else { (vec![create.clone()], vec![create]) };
    let auth = if world.number() >= 12 { vec![] } else { auth };
    let (_, mut event) = world.make(draft, &prev, &auth);
    for extra in ["redacts", "origin", "membership", "prev_state", "unsigned", "extra", "prev_content"] {
        if world.chance(15) {
            let value = match extra {
                "unsigned" => json!({ "age": 5 }),
                "redacts" | "origin" => json!("$x:a.example"),
                _ => value(&mut world),
            };
            event[extra] = value;
        }
    }
    let bytes = serde_json::to_vec(&event).expect("a value is JSON");
    let ours = match check(&bytes, version) {
        Ok(checked) => {
            let pdu = world.parse(checked.event_id().as_str(), &event);
            let redacted = redact(version, &pdu).expect("a parsed event can be redacted");
            json!({
                "event_id": checked.event_id(), "content_hash": checked.content_hash(),
                "redacted": String::from_utf8(redacted.json().to_vec()).expect("JSON is text"),
            })
        }
        Err(_) => json!({ "err": true }),
    };
    Case { request: json!({ "op": "event_id", "room_version": version.as_str(), "pdu": event }), ours }
}
