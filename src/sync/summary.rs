//! `summary`: how many members a room has, and who stands for its name.

use hearth_rooms::{Current, Rooms};
use hearth_schema::{CurrentState, Membership, RoomNid, StateEntry};
use hearth_store::{Order, StoreError, View};
use ruma_common::UserId;
use serde_json::Value;

use crate::json::{self, Parts};
use crate::member::MEMBER;
use crate::state::Head;

/// Heroes of a room.
const HEROES: usize = 5;
/// Members among whom heroes are looked for. A room with more than this and without a name takes them
/// from the first by user ID.
const MAX_MEMBERS: usize = 512;

/// A `RoomSummary`.
pub(crate) struct Summary {
    joined: u32,
    invited: u32,
    /// `None`: the room has a name.
    heroes: Option<Vec<String>>,
}

impl Summary {
    pub(crate) async fn read(
        rooms: &Rooms,
        view: &View,
        (room, head): (RoomNid, &Head),
        reader: &UserId,
    ) -> Result<Self, StoreError> {
        let named = has_name(rooms, view, room, head.current.as_deref()).await?;
        let heroes = if named { None } else { Some(heroes(view, room, head.current.as_deref(), reader).await?) };
        Ok(Self { joined: head.row.joined_members, invited: head.row.invited_members, heroes })
    }

    /// Members who have joined, and who are invited.
    pub(crate) const fn counts(&self) -> (u32, u32) {
        (self.joined, self.invited)
    }

    pub(crate) fn heroes(&self) -> impl Iterator<Item = &str> {
        self.heroes.iter().flatten().map(String::as_str)
    }
}

/// Appends the object; `None`: nothing has changed.
pub(crate) fn write_summary(summary: Option<&Summary>, out: &mut Vec<u8>) {
    let Some(summary) = summary else { return out.extend_from_slice(b"{}") };
    let mut object = Parts::open(b'{', out);
    if let Some(heroes) = &summary.heroes {
        let out = object.key("m.heroes", out);
        let mut list = Parts::open(b'[', out);
        for user in heroes {
            json::string(user, list.part(out));
        }
        out.push(b']');
    }
    json::number(summary.joined.into(), object.key("m.joined_member_count", out));
    json::number(summary.invited.into(), object.key("m.invited_member_count", out));
    out.push(b'}');
}

async fn has_name(rooms: &Rooms, view: &View, room: RoomNid, current: Option<&Current>) -> Result<bool, StoreError> {
    const NAMES: [&str; 2] = ["m.room.name", "m.room.canonical_alias"];
    let entries = match current {
        Some(current) => NAMES.map(|event_type| current.get(event_type, "")).to_vec(),
        None => {
            view.get_many::<CurrentState>(&NAMES.map(|event_type| (room, event_type.to_owned(), String::new()))).await?
        }
    };
    let numbers: Vec<u32> = entries.into_iter().flatten().map(|entry| entry.n).collect();
    let events = rooms.events(view, room, &numbers).await?;
    Ok(events.iter().any(|event| {
        // What is no text is no name.
        let content: Value = serde_json::from_slice(event.pdu.content_json()).unwrap_or(Value::Null);
        let key = if event.event_type() == "m.room.name" { "name" } else { "alias" };
        content.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty())
    }))
}

async fn heroes(
    view: &View,
    room: RoomNid,
    current: Option<&Current>,
    reader: &UserId,
) -> Result<Vec<String>, StoreError> {
    let mut members: Vec<(String, StateEntry)> = if let Some(current) = current {
        current.of_type(MEMBER).take(MAX_MEMBERS).map(|(user_id, entry)| (user_id.to_owned(), entry)).collect()
    } else {
        let rows = view.page::<CurrentState, _>(&(room, MEMBER.to_owned()), Order::Ascending, MAX_MEMBERS).await?;
        rows.into_iter().map(|((_, _, user_id), entry)| (user_id, entry)).collect()
    };
    members.retain(|(user_id, _)| user_id != reader.as_str());
    // Numbers count events in the order of their arrival.
    members.sort_unstable_by_key(|(_, entry)| entry.n);
    let in_it = |entry: &StateEntry| matches!(entry.membership, Some(Membership::Join | Membership::Invite));
    let gone = |entry: &StateEntry| matches!(entry.membership, Some(Membership::Leave | Membership::Ban));
    let choose = |wanted: &dyn Fn(&StateEntry) -> bool| -> Vec<String> {
        members.iter().filter(|(_, entry)| wanted(entry)).take(HEROES).map(|(user_id, _)| user_id.clone()).collect()
    };
    let heroes = choose(&in_it);
    Ok(if heroes.is_empty() { choose(&gone) } else { heroes })
}
