//! Which events count as unread: the default push rules, as one pure function.
//!
//! Rules that users have changed do not take part.

use std::collections::BTreeMap;

use ruma_common::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Users whose mention counts in one event. An event of 64 KiB could name thousands.
const MAX_MENTIONS: usize = 512;
/// User IDs looked for in the text of one event.
const MAX_WRITTEN: usize = 64;
/// Bytes of a user ID.
const MAX_ID_BYTES: usize = 255;

/// Whom an event concerns, besides its sender, who is never concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// Everybody in the room is notified.
    pub notifies: bool,
    /// It mentions the whole room: a highlight for everybody, if the sender may.
    pub mentions_room: bool,
    /// A highlight for everybody, whoever sent it.
    pub highlights: bool,
    /// A highlight for each of these; each is named once.
    pub mentions: Vec<OwnedUserId>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, rename = "m.mentions")]
    mentions: Option<&'a RawValue>,
    #[serde(borrow, rename = "m.relates_to")]
    relates_to: Option<&'a RawValue>,
    #[serde(borrow)]
    msgtype: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// What the default push rules say about an event.
///
/// See <https://spec.matrix.org/v1.19/client-server-api/#predefined-rules>.
pub fn notification(event_type: &str, state_key: Option<&str>, content: &str) -> Notification {
    if event_type == "m.room.tombstone" && state_key == Some("") {
        return Notification { notifies: true, highlights: true, ..Notification::default() };
    }
    // Member events, reactions and server ACLs have rules of their own that say "no".
    if matches!(event_type, "m.room.member" | "m.reaction" | "m.room.server_acl") {
        return Notification::default();
    }
    let by_type = matches!(event_type, "m.room.message" | "m.room.encrypted" | "m.call.invite");
    let Ok(fields) = serde_json::from_str::<Content<'_>>(content) else {
        // Not an object, or a field named twice: what the rules look at is not there.
        return Notification { notifies: by_type, ..Notification::default() };
    };
    if event_type == "m.room.message" && fields.msgtype.is_some_and(|msgtype| msgtype.get() == "\"m.notice\"") {
        return Notification::default();
    }
    let (mentions, mentions_room) = match fields.mentions {
        Some(raw) => mentions(raw),
        None if event_type == "m.room.message" => (fields.body.map(written_mentions).unwrap_or_default(), false),
        None => (Vec::new(), false),
    };
    let notifies = by_type && !fields.relates_to.is_some_and(is_replacement);
    Notification { notifies, mentions_room, highlights: false, mentions }
}

/// `m.mentions`, member by member: a malformed one counts as absent, as in the push rules.
fn mentions(raw: &RawValue) -> (Vec<OwnedUserId>, bool) {
    let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw.get()) else { return Default::default() };
    let room = members.get("room").is_some_and(|room| room.get() == "true");
    let ids = members.get("user_ids").and_then(|ids| serde_json::from_str::<Vec<&RawValue>>(ids.get()).ok());
    let mut users: Vec<OwnedUserId> =
        ids.unwrap_or_default().into_iter().take(MAX_MENTIONS).filter_map(user_id).collect();
    users.sort_unstable();
    users.dedup();
    (users, room)
}

/// Clients that do not know `m.mentions` mention users by writing their whole ID.
fn written_mentions(body: &RawValue) -> Vec<OwnedUserId> {
    let Ok(body) = serde_json::from_str::<String>(body.get()) else { return Vec::new() };
    let mut users: Vec<OwnedUserId> =
        body.match_indices('@').take(MAX_WRITTEN).filter_map(|(at, _)| written_user_id(&body[at..])).collect();
    users.sort_unstable();
    users.dedup();
    users
}

/// The user ID that `text` begins with. Punctuation behind it is the sentence's.
fn written_user_id(text: &str) -> Option<OwnedUserId> {
    let (local, rest) = text.get(..MAX_ID_BYTES).unwrap_or(text).split_once(':')?;
    if !local.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | ':')).unwrap_or(rest.len());
    let server = rest[..end].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    UserId::parse(format!("{local}:{server}")).ok()
}

fn user_id(raw: &RawValue) -> Option<OwnedUserId> {
    let text: String = serde_json::from_str(raw.get()).ok()?;
    UserId::parse(text).ok()
}

fn is_replacement(raw: &RawValue) -> bool {
    let members = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw.get());
    members.is_ok_and(|members| members.get("rel_type").is_some_and(|rel_type| rel_type.get() == "\"m.replace\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(content: &str) -> Notification {
        notification("m.room.message", None, content)
    }

    #[test]
    fn messages_encrypted_events_and_calls_notify() {
        for event_type in ["m.room.message", "m.room.encrypted", "m.call.invite"] {
            assert!(notification(event_type, None, r#"{"msgtype":"m.text"}"#).notifies, "{event_type}");
        }
        for event_type in ["m.room.topic", "m.reaction", "m.room.member", "m.room.server_acl", "org.example"] {
            assert_eq!(notification(event_type, Some(""), "{}"), Notification::default(), "{event_type}");
        }
    }

    #[test]
    fn notices_and_edits_do_not_notify() {
        let notice = r#"{"msgtype":"m.notice","m.mentions":{"user_ids":["@a:x"],"room":true}}"#;
        assert_eq!(message(notice), Notification::default());
        assert!(!message(r#"{"m.relates_to":{"rel_type":"m.replace","event_id":"$x"}}"#).notifies);
        assert!(message(r#"{"m.relates_to":{"rel_type":"m.thread","event_id":"$x"}}"#).notifies);
    }

    #[test]
    fn mentions_highlight_also_in_edits() {
        let edit =
            r#"{"m.relates_to":{"rel_type":"m.replace"},"m.mentions":{"user_ids":["@b:x","@a:x","@b:x",7,"no"]}}"#;
        let found = message(edit);
        assert!(!found.notifies);
        assert_eq!(found.mentions, ["@a:x", "@b:x"].map(|id| UserId::parse(id).expect("an ID")));
    }

    #[test]
    fn whole_ids_in_the_text_mention_where_nothing_else_does() {
        let found = |body: &str| {
            let content = serde_json::json!({ "msgtype": "m.text", "body": body });
            message(&content.to_string()).mentions.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            found("Hello @bob:x.org! And (@a-b=c:x.org:8448), @bob:x.org."),
            ["@a-b=c:x.org:8448", "@bob:x.org"]
        );
        assert_eq!(found("bob, b@x, @bob, @ bob:x and @:"), [""; 0]);
        assert_eq!(found(&"@a".repeat(40_000)), [""; 0]);
        assert_eq!(found(&format!("@{}\u{fc}:x", "a".repeat(253))), [""; 0]);
        let intentional = r#"{"msgtype":"m.text","body":"@bob:x","m.mentions":{}}"#;
        assert!(message(intentional).mentions.is_empty(), "who says whom it mentions has said it");
    }

    #[test]
    fn the_room_is_mentioned_by_true_only() {
        assert!(message(r#"{"m.mentions":{"room":true}}"#).mentions_room);
        for odd in [r#"{"m.mentions":{"room":"true"}}"#, r#"{"m.mentions":[true]}"#, r#"{"m.mentions":7}"#, "[]"] {
            assert!(!message(odd).mentions_room, "{odd}");
            assert!(message(odd).notifies, "{odd}");
        }
    }

    #[test]
    fn tombstones_highlight_for_everybody() {
        assert!(notification("m.room.tombstone", Some(""), "{}").highlights);
        assert_eq!(notification("m.room.tombstone", Some("x"), "{}"), Notification::default());
    }
}
