//! Tags of rooms: members of the room's account data `m.tag`, changed one at a time
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-tagging)).

use hearth_schema::UserNid;
use hearth_store::{Pos, StoreError};
use ruma_common::RoomId;
use serde_json::{Map, Value};

use crate::error::damaged;
use crate::{AccountDataError, Accounts};

/// Tags that one room may have.
pub const MAX_TAGS: usize = 100;
/// Bytes of a tag's name.
const MAX_TAG_BYTES: usize = 255;
const TYPE: &str = "m.tag";
const TAGS: &str = "tags";

impl Accounts {
    /// The tags that `user` has given a room, each with its content.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn room_tags(&self, user: UserNid, room: &RoomId) -> Result<Map<String, Value>, StoreError> {
        let stored = self.account_data(user, Some(room), TYPE).await?;
        Ok(parse(stored.as_deref())?.tags)
    }

    /// Gives a room a tag, or the tag a new content. `None`: it was so before.
    ///
    /// # Errors
    /// If the tags are as before.
    pub async fn set_room_tag(
        &self,
        user: UserNid,
        room: &RoomId,
        (tag, content): (&str, &Map<String, Value>),
    ) -> Result<Option<Pos>, AccountDataError> {
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES {
            return Err(AccountDataError::BadTag);
        }
        let content = Value::Object(content.clone());
        self.change_tags(user, room, |tags| {
            if tags.get(tag) == Some(&content) {
                return Ok(Changed::No);
            }
            if tags.len() >= MAX_TAGS && !tags.contains_key(tag) {
                return Err(AccountDataError::TooManyTags);
            }
            tags.insert(tag.to_owned(), content.clone());
            Ok(Changed::Yes)
        })
        .await
    }

    /// Takes a tag from a room. `None`: it did not have it.
    ///
    /// # Errors
    /// If the tags are as before.
    pub async fn remove_room_tag(
        &self,
        user: UserNid,
        room: &RoomId,
        tag: &str,
    ) -> Result<Option<Pos>, AccountDataError> {
        self.change_tags(user, room, |tags| Ok(tags.remove(tag).map_or(Changed::No, |_| Changed::Yes))).await
    }

    async fn change_tags(
        &self,
        user: UserNid,
        room: &RoomId,
        change: impl Fn(&mut Map<String, Value>) -> Result<Changed, AccountDataError> + Send + Sync,
    ) -> Result<Option<Pos>, AccountDataError> {
        self.edit_account_data(user, (Some(room), TYPE), |stored: Option<&str>| {
            let Stored { mut tags, rest: mut content } = parse(stored)?;
            if change(&mut tags)? == Changed::No {
                return Ok(None);
            }
            content.insert(TAGS.to_owned(), Value::Object(tags));
            // A map whose keys are strings always serialises.
            let json = serde_json::to_string(&content).map_err(|error| damaged("AccountData", error))?;
            Ok::<_, AccountDataError>(Some(json))
        })
        .await
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Changed {
    Yes,
    No,
}

/// What `m.tag` holds.
#[derive(Default)]
struct Stored {
    tags: Map<String, Value>,
    /// What is beside the tags.
    rest: Map<String, Value>,
}

/// Clients can store any JSON object under this type by the endpoints of account data; one in which
/// `tags` is something else holds no tags. What is no JSON object has been damaged.
fn parse(stored: Option<&str>) -> Result<Stored, StoreError> {
    let Some(json) = stored else { return Ok(Stored::default()) };
    let mut rest: Map<String, Value> = serde_json::from_str(json).map_err(|error| damaged("AccountData", error))?;
    Ok(match rest.remove(TAGS) {
        Some(Value::Object(tags)) => Stored { tags, rest },
        _ => Stored { tags: Map::new(), rest },
    })
}
