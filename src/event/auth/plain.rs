//! Power levels as `ruma-state-res` reads them.
//!
//! It takes integers within ±(2^53 − 1), before version 10 also text for them, and no users but those whose server's name is
//! possible. One power level that it does not take fails the whole resolution. But rooms hold more than that, other
//! servers resolve them, and they must come to the same state here: so `ruma-state-res` gets the levels that the rules of
//! this crate read, in the form that it takes.

use ruma_common::UserId;
use serde_json::value::RawValue;

use super::power::{Entry, Field, Map, PowerContent};
use crate::Pdu;
use crate::json::{Json, JsonLimits, MAX_SAFE, Object, Strictness, parse_object};

/// The content of `pdu` with the levels of `levels`; `None` if it can stay as it is.
pub(super) fn plain(levels: &PowerContent, pdu: &Pdu) -> Option<Box<RawValue>> {
    let users = levels.map(Map::Users);
    let is_strict = pdu.version().rules().authorization.integer_power_levels;
    if is_strict && users.keys().all(|user| is_possible(user)) {
        return None;
    }
    let limits = JsonLimits { bytes: usize::MAX, depth: 128 };
    let mut content = parse_object(pdu.content_json(), limits, Strictness::Lenient).ok()?;
    if is_strict {
        if let Some(Json::Object(mut users)) = content.remove(Map::Users.name()) {
            users.retain(|user, _| is_possible(user));
            content.insert(Map::Users.name(), Json::Object(users));
        }
    } else {
        write_levels(levels, &mut content);
    }
    RawValue::from_string(String::from_utf8(content.bytes()).ok()?).ok()
}

/// Nobody else can send anything, so the level of another name is never looked up.
fn is_possible(user: &str) -> bool {
    <&UserId>::try_from(user).is_ok()
}

/// What no rule can read is left out, as if absent; but users whose level is no number stay, because the rules reject them.
fn write_levels(levels: &PowerContent, content: &mut Object) {
    for field in Field::ALL {
        put(content, field.name(), levels.entry(field));
    }
    for map in Map::ALL {
        if levels.is_broken(map) {
            if map != Map::Users {
                content.remove(map.name());
            }
            continue;
        }
        if content.get(map.name()).is_none() {
            continue;
        }
        let mut entries = Object::default();
        for (key, entry) in levels.map(map) {
            match (map, entry) {
                (Map::Users, Entry::Malformed | Entry::Null) => entries.insert(key, Json::Null),
                (Map::Users, _) if !is_possible(key) => {}
                _ => put(&mut entries, key, *entry),
            }
        }
        content.insert(map.name(), Json::Object(entries));
    }
}

fn put(levels: &mut Object, key: &str, entry: Entry) {
    match entry {
        Entry::Level(level) => {
            let level = i64::try_from(level).unwrap_or(if level < 0 { i64::MIN } else { i64::MAX });
            levels.insert(key, Json::Int(level.clamp(-MAX_SAFE, MAX_SAFE)));
        }
        Entry::Absent | Entry::Null | Entry::Malformed => drop(levels.remove(key)),
    }
}
