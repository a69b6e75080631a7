//! What state of the old room becomes in the new one, where the versions differ. Pure.

use hearth_event::RoomVersion;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue};
use serde_json::json;

use crate::create::privileged_creators;

const TOMBSTONE: &str = "m.room.tombstone";
/// The highest level that matters in rooms without privileged creators.
const ADMIN: i64 = 100;
/// The level that nobody below a moderator has.
const MODERATOR: i64 = 50;

/// The join rules, or in a version that does not know the rule the nearest that lets nobody more in.
pub(super) fn join_rules(mut content: CanonicalJsonObject, version: RoomVersion) -> CanonicalJsonObject {
    let rules = &version.rules().authorization;
    let rule = content.get("join_rule").and_then(CanonicalJsonValue::as_str);
    let instead = match rule {
        Some("knock_restricted") if !rules.knock_restricted_join_rule => {
            if rules.restricted_join_rule {
                "restricted"
            } else {
                "invite"
            }
        }
        Some("restricted") if !rules.restricted_join_rule => "invite",
        Some("knock") if !rules.knocking => "invite",
        _ => return content,
    };
    content.insert("join_rule".into(), CanonicalJsonValue::String(instead.to_owned()));
    content
}

/// The power levels. Creators that the new room sets above them are taken out; creators whom only the
/// old room set above them become admins.
pub(super) fn power_levels(
    mut content: CanonicalJsonObject,
    old_creators: &[String],
    (version, new_creators): (RoomVersion, &[String]),
) -> CanonicalJsonObject {
    if version.rules().authorization.integer_power_levels {
        integers(&mut content);
    }
    let privileged = privileged_creators(version);
    let users = map(&mut content, "users");
    users.retain(|user, _| !new_creators.contains(user));
    if privileged || old_creators.is_empty() {
        return content;
    }
    for creator in old_creators {
        users.insert(creator.clone(), integer(ADMIN));
    }
    let events = map(&mut content, "events");
    if events.get(TOMBSTONE).and_then(level).is_some_and(|level| level > ADMIN) {
        events.insert(TOMBSTONE.to_owned(), integer(ADMIN));
    }
    content
}

/// Power levels of a room that is not to be used any more; `None`: those that it has do.
pub(super) fn closed(mut content: CanonicalJsonObject) -> Option<CanonicalJsonObject> {
    let users_default = content.get("users_default").and_then(level).unwrap_or(0);
    let wanted = MODERATOR.max(users_default.saturating_add(1));
    let mut changed = false;
    for key in ["events_default", "invite"] {
        if content.get(key).and_then(level).unwrap_or(0) < wanted {
            content.insert(key.to_owned(), integer(wanted));
            changed = true;
        }
    }
    changed.then_some(content)
}

/// The object at `key`, which is made if it is something else.
fn map<'a>(content: &'a mut CanonicalJsonObject, key: &str) -> &'a mut CanonicalJsonObject {
    let value = content.entry(key.to_owned()).or_insert_with(empty);
    if !matches!(value, CanonicalJsonValue::Object(_)) {
        *value = empty();
    }
    match value {
        CanonicalJsonValue::Object(map) => map,
        _ => unreachable!("it has just been made one"),
    }
}

fn empty() -> CanonicalJsonValue {
    CanonicalJsonValue::Object(CanonicalJsonObject::new())
}

/// Versions below 10 let levels be written as text.
fn level(value: &CanonicalJsonValue) -> Option<i64> {
    match value {
        CanonicalJsonValue::Integer(level) => Some((*level).into()),
        CanonicalJsonValue::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn integer(level: i64) -> CanonicalJsonValue {
    CanonicalJsonValue::try_from(json!(level)).unwrap_or(CanonicalJsonValue::Integer(0.into()))
}

/// Makes numbers of the levels that are text, at the top and one below; what is neither goes.
fn integers(content: &mut CanonicalJsonObject) {
    content.retain(|_, value| match value {
        CanonicalJsonValue::Object(levels) => {
            levels.retain(|_, value| to_integer(value));
            true
        }
        CanonicalJsonValue::String(_) => to_integer(value),
        _ => true,
    });
}

fn to_integer(value: &mut CanonicalJsonValue) -> bool {
    let Some(level) = level(value) else { return false };
    // What is beyond canonical JSON's integers cannot be written any more.
    match CanonicalJsonValue::try_from(json!(level)) {
        Ok(number) => {
            *value = number;
            true
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::create::object;

    fn version(name: &str) -> RoomVersion {
        RoomVersion::parse(name).expect("a version")
    }

    fn shown(content: CanonicalJsonObject) -> Value {
        serde_json::to_value(content).expect("JSON")
    }

    #[test]
    fn creators_leave_the_power_levels_of_version_12() {
        let before = object(json!({"users": {"@a:x": 100, "@b:x": 100, "@c:x": 50}, "ban": 50}));
        let after = power_levels(before, &[], (version("12"), &["@a:x".into(), "@b:x".into()]));
        assert_eq!(shown(after), json!({"users": {"@c:x": 50}, "ban": 50}));
    }

    #[test]
    fn creators_become_admins_below_version_12() {
        let before = object(json!({"users": {"@c:x": 50}, "events": {"m.room.tombstone": 150, "m.room.name": 150}}));
        let after = power_levels(before, &["@a:x".into()], (version("11"), &[]));
        let events = json!({"m.room.tombstone": 100, "m.room.name": 150});
        assert_eq!(shown(after), json!({"users": {"@a:x": 100, "@c:x": 50}, "events": events}));
    }

    #[test]
    fn levels_are_numbers_from_version_10_on() {
        let before = json!({"users": {"@a:x": "100", "@b:x": "many"}, "ban": " 50 ", "kick": 50, "odd": "x"});
        let after = power_levels(object(before.clone()), &[], (version("10"), &[]));
        assert_eq!(shown(after), json!({"users": {"@a:x": 100}, "ban": 50, "kick": 50}));
        let after = power_levels(object(before.clone()), &[], (version("9"), &[]));
        assert_eq!(shown(after), before);
    }

    #[test]
    fn a_closed_room_needs_a_moderator() {
        for (before, after) in [
            (json!({}), Some(json!({"events_default": 50, "invite": 50}))),
            (json!({"users_default": 60}), Some(json!({"users_default": 60, "events_default": 61, "invite": 61}))),
            (json!({"events_default": 70, "invite": "0"}), Some(json!({"events_default": 70, "invite": 50}))),
            (json!({"events_default": 50, "invite": 50}), None),
        ] {
            assert_eq!(closed(object(before.clone())).map(shown), after, "{before}");
        }
    }

    #[test]
    fn join_rules_are_never_widened() {
        for (rule, at, wanted) in [
            ("public", "1", "public"),
            ("knock", "6", "invite"),
            ("knock", "7", "knock"),
            ("restricted", "7", "invite"),
            ("restricted", "8", "restricted"),
            ("knock_restricted", "7", "invite"),
            ("knock_restricted", "9", "restricted"),
            ("knock_restricted", "10", "knock_restricted"),
        ] {
            let after = join_rules(object(json!({"join_rule": rule})), version(at));
            assert_eq!(shown(after), json!({"join_rule": wanted}), "{rule} in version {at}");
        }
    }
}
