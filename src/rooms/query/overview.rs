//! What can be said of a room without going in: for the directory and for summaries.

use hearth_schema::{CurrentState, Membership, RoomNid};
use hearth_store::{StoreError, View};
use ruma_common::{OwnedRoomId, RoomId, UserId};
use serde_json::Value;

use super::event::RoomEvent;
use super::loading::parse_room_id;
use crate::QueryError;
use crate::gather::damaged;
use crate::intake::Rooms;

/// State events that an overview is made of, all with an empty state key.
const TYPES: [&str; 9] = [
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.encryption",
];

/// `RoomSummary` of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomOverview {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Its name.
    pub name: Option<String>,
    /// Its topic, as plain text.
    pub topic: Option<String>,
    /// Its main alias.
    pub canonical_alias: Option<String>,
    /// `mxc:` URI of its picture.
    pub avatar_url: Option<String>,
    /// How many have joined.
    pub joined_members: u32,
    /// `public`, …
    pub join_rule: String,
    /// Rooms whose members may join, if the join rule asks for that.
    pub allowed_room_ids: Vec<OwnedRoomId>,
    /// Anybody may read it.
    pub world_readable: bool,
    /// Guests may join.
    pub guest_can_join: bool,
    /// `m.space`, …
    pub room_type: Option<String>,
    /// `1` to `12`.
    pub room_version: String,
    /// The algorithm its messages are encrypted by.
    pub encryption: Option<String>,
}

/// An overview, and what the reader is to the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomSummary {
    /// The room.
    pub overview: RoomOverview,
    /// The reader's membership, if there ever was one.
    pub membership: Option<Membership>,
}

impl Rooms {
    /// The summary of a room that `user` is in, is invited to, or could ask to get into.
    ///
    /// # Errors
    /// [`QueryError::NotFound`] if there is none, or none for this user.
    pub async fn summary(&self, user: &UserId, room_id: &RoomId) -> Result<RoomSummary, QueryError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        let overview = self.overview(&view, room).await?.ok_or(QueryError::NotFound)?;
        let nid = self.ids().user(user);
        let membership = self.membership(&view, nid, room).await?.map(|row| row.membership);
        let inside = matches!(membership, Some(Membership::Join | Membership::Invite | Membership::Knock));
        let open =
            overview.world_readable || matches!(overview.join_rule.as_str(), "public" | "knock" | "knock_restricted");
        let mut shown = inside || open;
        for allowed in &overview.allowed_room_ids {
            if shown {
                break;
            }
            let there = self.membership(&view, nid, self.ids().room(allowed)).await?;
            shown = there.is_some_and(|row| row.membership == Membership::Join);
        }
        if shown { Ok(RoomSummary { overview, membership }) } else { Err(QueryError::NotFound) }
    }

    /// What `room` looks like from outside; `None`: no such room here.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) async fn overview(&self, view: &View, room: RoomNid) -> Result<Option<RoomOverview>, StoreError> {
        let Some(meta) = self.room(view, room).await? else { return Ok(None) };
        let keys = TYPES.map(|event_type| (room, event_type.to_owned(), String::new()));
        let entries = view.get_many::<CurrentState>(&keys).await?;
        let numbers: Vec<u32> = entries.into_iter().flatten().map(|entry| entry.n).collect();
        let events = self.events(view, room, &numbers).await?;
        let contents = Contents::of(events.iter().map(|event| &**event))?;
        let joined_members = self.head(view, room).await?.joined_members;
        Ok(Some(RoomOverview {
            room_id: parse_room_id(&meta.room_id)?,
            name: contents.text("m.room.name", "name"),
            topic: contents.text("m.room.topic", "topic"),
            canonical_alias: contents.text("m.room.canonical_alias", "alias"),
            avatar_url: contents.text("m.room.avatar", "url"),
            joined_members,
            join_rule: contents.text("m.room.join_rules", "join_rule").unwrap_or_else(|| "invite".to_owned()),
            allowed_room_ids: contents.allowed_rooms(),
            world_readable: contents.is("m.room.history_visibility", "history_visibility", "world_readable"),
            guest_can_join: contents.is("m.room.guest_access", "guest_access", "can_join"),
            room_type: contents.text("m.room.create", "type"),
            room_version: meta.version,
            encryption: contents.text("m.room.encryption", "algorithm"),
        }))
    }
}

/// Contents by event type. Members write them, so anything may be in them: what has not the type it
/// should have counts as absent.
struct Contents(Vec<(String, Value)>);

impl Contents {
    fn of<'e>(events: impl Iterator<Item = &'e RoomEvent>) -> Result<Self, StoreError> {
        let parse = |event: &RoomEvent| {
            let content = serde_json::from_str(event.pdu.content().get());
            let content = content.map_err(|error| damaged("Events", error.to_string()))?;
            Ok((event.event_type().to_owned(), content))
        };
        events.map(parse).collect::<Result<_, _>>().map(Self)
    }

    fn get(&self, event_type: &str, key: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == event_type)?.1.get(key)
    }

    fn text(&self, event_type: &str, key: &str) -> Option<String> {
        self.get(event_type, key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn is(&self, event_type: &str, key: &str, value: &str) -> bool {
        self.get(event_type, key).and_then(Value::as_str) == Some(value)
    }

    fn allowed_rooms(&self) -> Vec<OwnedRoomId> {
        if !matches!(self.text("m.room.join_rules", "join_rule").as_deref(), Some("restricted" | "knock_restricted")) {
            return Vec::new();
        }
        let rules = self.get("m.room.join_rules", "allow").and_then(Value::as_array);
        let room = |rule: &Value| {
            let of_room = rule.get("type").and_then(Value::as_str) == Some("m.room_membership");
            let room_id = rule.get("room_id").and_then(Value::as_str).filter(|_| of_room)?;
            OwnedRoomId::try_from(room_id).ok()
        };
        rules.into_iter().flatten().filter_map(room).collect()
    }
}
