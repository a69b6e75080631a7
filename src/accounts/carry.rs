//! What a user keeps of a room goes along when another takes its place: tags, push rules, and which
//! direct chats it is one of. What the user has said of the new room already stays as it is, so doing
//! it twice changes nothing.

use hearth_schema::UserNid;
use ruma_common::push::{ConditionalPushRule, PushCondition, Ruleset};
use ruma_common::{RoomId, UserId};
use serde_json::{Map, Value};

use crate::error::damaged;
use crate::{AccountDataError, Accounts};

const TAGS: &str = "m.tag";
const DIRECT: &str = "m.direct";

impl Accounts {
    /// Gives the room `new` what the local user `user_id` has given to the room `old`, which it
    /// replaces.
    ///
    /// # Errors
    /// If the store failed, or the user has as much account data as allowed; some may have been
    /// carried then.
    pub async fn carry_to_room(&self, user_id: &UserId, old: &RoomId, new: &RoomId) -> Result<(), AccountDataError> {
        let user = self.ids.user(user_id);
        self.carry_tags(user, old, new).await?;
        self.carry_direct(user, old, new).await?;
        self.carry_push_rules(user_id, old, new).await
    }

    async fn carry_tags(&self, user: UserNid, old: &RoomId, new: &RoomId) -> Result<(), AccountDataError> {
        let Some(tags) = self.account_data(user, Some(old), TAGS).await? else { return Ok(()) };
        let edit = |stored: Option<&str>| Ok::<_, AccountDataError>(stored.is_none().then(|| tags.clone()));
        self.edit_account_data(user, (Some(new), TAGS), edit).await.map(drop)
    }

    async fn carry_direct(&self, user: UserNid, old: &RoomId, new: &RoomId) -> Result<(), AccountDataError> {
        let edit = |stored: Option<&str>| {
            let Some(chats) = stored.and_then(|json| with_direct(json, old, new)) else { return Ok(None) };
            let json = serde_json::to_string(&chats).map_err(|error| damaged("AccountData", error))?;
            Ok::<_, AccountDataError>(Some(json))
        };
        self.edit_account_data(user, (None, DIRECT), edit).await.map(drop)
    }

    async fn carry_push_rules(&self, user: &UserId, old: &RoomId, new: &RoomId) -> Result<(), AccountDataError> {
        if !copy_rules(&mut self.push_rules(user).await?, old, new) {
            return Ok(());
        }
        let change = |rules: &mut Ruleset| {
            copy_rules(rules, old, new);
            Ok::<_, AccountDataError>(())
        };
        self.change_push_rules(user, change).await
    }
}

/// The direct chats with `new` beside `old`; `None`: they are as they should be. Clients store what
/// they like under this type; what has another shape names no room.
fn with_direct(json: &str, old: &RoomId, new: &RoomId) -> Option<Map<String, Value>> {
    let mut chats: Map<String, Value> = serde_json::from_str(json).ok()?;
    let mut changed = false;
    for rooms in chats.values_mut().filter_map(Value::as_array_mut) {
        let has = |room: &RoomId| rooms.iter().any(|known| known.as_str() == Some(room.as_str()));
        if has(old) && !has(new) {
            rooms.push(new.as_str().into());
            changed = true;
        }
    }
    changed.then_some(chats)
}

/// Copies the rules that are about `old` for `new`; whether there was one to copy.
fn copy_rules(rules: &mut Ruleset, old: &RoomId, new: &RoomId) -> bool {
    let mut copied = false;
    if let Some(rule) = rules.room.get(old.as_str())
        && !rules.room.contains(new.as_str())
    {
        let mut copy = rule.clone();
        copy.rule_id = new.to_owned();
        copied |= rules.room.insert(copy);
    }
    // Muting a room is such a rule: beside its model, so that it has the same priority.
    let about: Vec<(usize, ConditionalPushRule)> = rules
        .override_
        .iter()
        .enumerate()
        .filter_map(|(at, rule)| Some((at + 1, for_room(rule, old, new)?)))
        .filter(|(_, copy)| !rules.override_.contains(copy.rule_id.as_str()))
        .collect();
    for (at, copy) in about.into_iter().rev() {
        copied |= rules.override_.shift_insert(at, copy);
    }
    copied
}

/// The same rule for `new`, if it is one of the user's own about `old` and named after it.
fn for_room(rule: &ConditionalPushRule, old: &RoomId, new: &RoomId) -> Option<ConditionalPushRule> {
    if rule.default || !rule.rule_id.contains(old.as_str()) {
        return None;
    }
    let mut copy = rule.clone();
    copy.rule_id = rule.rule_id.replace(old.as_str(), new.as_str());
    let mut about = false;
    for condition in &mut copy.conditions {
        if let PushCondition::EventMatch(data) = condition
            && data.key == "room_id"
            && data.pattern == old.as_str()
        {
            new.as_str().clone_into(&mut data.pattern);
            about = true;
        }
    }
    about.then_some(copy)
}

#[cfg(test)]
mod tests {
    use ruma_common::push::Ruleset;
    use ruma_common::room_id;
    use serde_json::json;

    use super::*;

    #[test]
    fn direct_chats_name_the_new_room_beside_the_old() {
        let (old, new) = (room_id!("!old:x"), room_id!("!new"));
        let before = json!({"@a:x": ["!old:x", "!other:x"], "@b:x": ["!other:x"], "odd": 5});
        let after = with_direct(&before.to_string(), old, new).map(Value::from);
        assert_eq!(after, Some(json!({"@a:x": ["!old:x", "!other:x", "!new"], "@b:x": ["!other:x"], "odd": 5})));
        assert_eq!(with_direct(r#"{"@a:x":["!old:x","!new"]}"#, old, new), None);
        assert_eq!(with_direct(r#"["!old:x"]"#, old, new), None);
    }

    #[test]
    fn rules_about_the_old_room_are_copied_once() {
        let (old, new) = (room_id!("!old:x"), room_id!("!new"));
        let rule = |id: &str, conditions: Value| {
            json!({"rule_id": id, "default": false, "enabled": false,
            "actions": [], "conditions": conditions})
        };
        let about = |room: &str| json!([{"kind": "event_match", "key": "room_id", "pattern": room}]);
        let mut rules: Ruleset = serde_json::from_value(json!({
            "override": [rule("!old:x", about("!old:x")), rule("mine", about("!old:x")), rule("!old:x.2", json!([]))],
            "room": [{"rule_id": "!old:x", "default": false, "enabled": true, "actions": ["notify"]}],
        }))
        .expect("rules");
        assert!(copy_rules(&mut rules, old, new));
        let all = serde_json::to_value(&rules).expect("JSON");
        let ids = |kind: &str| -> Vec<_> {
            all[kind].as_array().expect("a list").iter().map(|rule| rule["rule_id"].clone()).collect()
        };
        assert_eq!(ids("override"), ["!old:x", "!new", "mine", "!old:x.2"]);
        assert_eq!(all["override"][1], rule("!new", about("!new")));
        assert_eq!(ids("room"), ["!old:x", "!new"]);
        assert_eq!(all["room"][1]["actions"], json!(["notify"]));
        assert!(!copy_rules(&mut rules, old, new));
    }
}
