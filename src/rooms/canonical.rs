//! `m.room.canonical_alias` follows what becomes of aliases.

use hearth_schema::RoomNid;
use hearth_store::View;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, RoomId, UserId};

use crate::SendError;
use crate::command::SendEvent;
use crate::intake::Rooms;
use crate::query::RoomEvent;

const ALIAS: &str = "alias";
const ALT_ALIASES: &str = "alt_aliases";

/// The content of a stored event.
///
/// # Errors
/// Events of old rooms may hold numbers that no event of this server can.
pub(crate) fn content_of(event: &RoomEvent) -> Result<CanonicalJsonObject, SendError> {
    match serde_json::from_str(event.pdu.content().get()) {
        Ok(CanonicalJsonValue::Object(content)) => Ok(content),
        Ok(_) => Err(SendError::Internal("an event's content is no object".into())),
        Err(error) => Err(SendError::BadContent(format!("{}: {error}", event.event_type()))),
    }
}

/// `content` with those aliases only that `keep` says yes to; `None`: those are all that it has.
pub(crate) fn with_aliases(
    mut content: CanonicalJsonObject,
    keep: impl Fn(&str) -> bool,
) -> Option<CanonicalJsonObject> {
    let goes = |value: &CanonicalJsonValue| value.as_str().is_some_and(|alias| !keep(alias));
    let mut changed = false;
    if content.get(ALIAS).is_some_and(goes) {
        content.remove(ALIAS);
        changed = true;
    }
    if let Some(CanonicalJsonValue::Array(others)) = content.get_mut(ALT_ALIASES) {
        let before = others.len();
        others.retain(|alias| !goes(alias));
        changed |= others.len() < before;
        if others.is_empty() {
            content.remove(ALT_ALIASES);
        }
    }
    changed.then_some(content)
}

impl Rooms {
    /// Takes aliases that do not `stay` out of the room's canonical alias, in the name of `by`. Where
    /// `by` may not, they stay there: nobody believes an alias that does not lead back.
    pub(crate) async fn drop_from_canonical(
        &self,
        view: &View,
        (room, room_id): (RoomNid, &RoomId),
        by: &UserId,
        stays: impl Fn(&str) -> bool,
    ) -> Result<(), SendError> {
        let Some(event) = self.current_event(view, room, "m.room.canonical_alias", "").await? else { return Ok(()) };
        let Some(content) = with_aliases(content_of(&event)?, stays) else { return Ok(()) };
        let event = SendEvent {
            room_id: room_id.to_owned(),
            sender: by.to_owned(),
            event_type: "m.room.canonical_alias".into(),
            state_key: Some(String::new()),
            content,
            redacts: None,
            origin_server_ts: None,
            transaction: None,
        };
        match self.send(event).await {
            Ok(_) | Err(SendError::Forbidden(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::with_aliases;
    use crate::create::object;

    #[test]
    fn aliases_that_go_are_taken_out_of_both_places() {
        let keep = |alias: &str| alias != "#gone:x";
        for (before, after) in [
            (json!({}), None),
            (json!({"alias": "#stays:x"}), None),
            (json!({"alias": "#gone:x"}), Some(json!({}))),
            (json!({"alias": "#stays:x", "alt_aliases": ["#gone:x"]}), Some(json!({"alias": "#stays:x"}))),
            (
                json!({"alias": "#gone:x", "alt_aliases": ["#gone:x", "#stays:x"], "a": 1}),
                Some(json!({"alt_aliases": ["#stays:x"], "a": 1})),
            ),
            (json!({"alias": 5, "alt_aliases": [5]}), None),
        ] {
            let got =
                with_aliases(object(before.clone()), keep).map(|content| serde_json::to_value(content).expect("JSON"));
            assert_eq!(got, after, "{before}");
        }
    }
}
