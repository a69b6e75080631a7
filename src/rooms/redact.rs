//! Redacting what relates to a redacted event (MSC3912).

use futures::{TryStreamExt, stream};
use hearth_schema::Verdict;
use ruma_common::OwnedEventId;

use crate::SendError;
use crate::attach::number_of;
use crate::command::{RedactRelated, RelTypes, SendEvent};
use crate::intake::Rooms;
use crate::query::children;

/// Related events that one request redacts at the most; the same request again goes on.
const MAX_RELATED: usize = 1_000;
/// Redactions that wait for the room together.
const AT_ONCE: usize = 16;

impl Rooms {
    /// Redacts those events related to one that the sender may redact. What is redacted already stays
    /// as it is, so asking again goes on where an earlier request broke off.
    ///
    /// # Errors
    /// See [`SendError`]; some may be redacted then.
    pub async fn redact_related(&self, command: &RedactRelated) -> Result<(), SendError> {
        let view = self.view().await?;
        let room = self.ids().room(&command.room_id);
        let parent = number_of(&view, self.ids(), room, &command.event_id).await?.ok_or(SendError::UnknownEvent)?;
        let mut related = children(&view, room, parent, None).await?;
        if let RelTypes::Only(wanted) = &command.rel_types {
            related.retain(|child| wanted.contains(&child.rel_type));
        }
        let numbers: Vec<u32> = related.iter().map(|child| child.n).collect();
        let levels = self.power_levels(&view, room).await?;
        let any = levels.user(&command.sender) >= levels.redact();
        let mut targets: Vec<OwnedEventId> = Vec::new();
        for chunk in numbers.chunks(AT_ONCE * 8) {
            for event in self.events(&view, room, chunk).await? {
                let own = event.sender() == command.sender;
                if event.verdict == Verdict::Accepted && event.redacted_by.is_none() && (own || any) {
                    targets.push(event.event_id().to_owned());
                }
            }
            if targets.len() >= MAX_RELATED {
                targets.truncate(MAX_RELATED);
                break;
            }
        }
        let redactions = targets.into_iter().map(|target| Ok(self.redact_one(command, target)));
        stream::iter(redactions).try_buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }

    async fn redact_one(&self, command: &RedactRelated, target: OwnedEventId) -> Result<(), SendError> {
        let event = SendEvent {
            room_id: command.room_id.clone(),
            sender: command.sender.clone(),
            event_type: "m.room.redaction".into(),
            state_key: None,
            content: command.content.clone(),
            redacts: Some(target),
            origin_server_ts: None,
            transaction: None,
        };
        match self.send(event).await {
            // The power to do so was lost in between.
            Ok(_) | Err(SendError::Forbidden(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
