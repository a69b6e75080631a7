//! Extensions about the rooms that an answer is about: account data, receipts, typing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use hearth_accounts::{AccountDataItem, account_data_of_room, account_data_since};
use hearth_schema::{Membership, RoomNid};
use hearth_store::{Pos, StoreError};

use super::compose::Slide;
use super::connection::{Added, SentRoom};
use super::list::{Ruled, Wishes};
use super::request::{ByRoom, Shown};
use super::room::Told;
use crate::account_data::{all, write_items};
use crate::ephemeral::{ReceiptEvents, write_typing};
use crate::json::Parts;

/// Rooms, and what is said of each.
type ByRoomId = BTreeMap<String, Vec<u8>>;

/// Appends `{"rooms":{…}}`.
pub(super) fn write_by_room(rooms: &ByRoomId, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"rooms\":");
    write_rooms(rooms, out);
    out.push(b'}');
}

fn write_rooms(rooms: &ByRoomId, out: &mut Vec<u8>) {
    let mut object = Parts::open(b'{', out);
    for (room_id, json) in rooms {
        object.key(room_id, out).extend_from_slice(json);
    }
    out.push(b'}');
}

impl Slide<'_> {
    /// What the connection has of a room with this answer; `None`: nothing.
    fn remembered_of<'m>(&self, added: &'m mut Added, room: RoomNid) -> Option<&'m mut SentRoom> {
        match added.rooms.entry(room) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => Some(entry.insert(self.sent.rooms.get(&room)?.clone())),
        }
    }

    /// What the connection has of a room so far, with what this answer says of it.
    fn so_far<'m>(&'m self, added: &'m Added, room: RoomNid) -> Option<&'m SentRoom> {
        added.rooms.get(&room).or_else(|| self.sent.rooms.get(&room))
    }

    /// The joined rooms that an extension is about and that the client has.
    fn covered<'r>(&self, ask: &ByRoom, wishes: &'r Wishes<'_>, added: &Added) -> Vec<&'r Ruled<'r>> {
        let is_covered = |ruled: &&Ruled<'_>| {
            let row = &ruled.standing.row;
            let shown = Shown { room_id: &row.room_id, lists: &ruled.lists, subscribed: ruled.subscribed };
            row.membership == Membership::Join && ask.covers(&shown) && self.so_far(added, ruled.room).is_some()
        };
        wishes.rooms.iter().filter(is_covered).collect()
    }

    /// Appends the extension's object if there is anything in it.
    pub(super) async fn account_data(
        &self,
        wishes: &Wishes<'_>,
        added: &mut Added,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let items = match self.sent.account_data {
            None => all(&self.view, self.who).await?,
            Some(since) if self.user.has_account_data(since) => {
                account_data_since(&self.view, self.who.user, since, self.until).await?
            }
            Some(_) => Vec::new(),
        };
        added.account_data = Some(self.until);
        let (global, of_rooms): (Vec<_>, Vec<_>) = items.iter().partition(|item| item.room.is_empty());
        let mut changed: HashMap<&str, Vec<&AccountDataItem>> = HashMap::new();
        for item in of_rooms {
            changed.entry(item.room.as_str()).or_default().push(item);
        }
        let mut rooms = ByRoomId::new();
        for ruled in self.covered(&self.body.extensions.account_data, wishes, added) {
            if self.so_far(added, ruled.room).is_some_and(|known| known.account_data) {
                continue;
            }
            let room_id = ruled.standing.row.room_id.as_str();
            let first = account_data_of_room(&self.view, self.who.user, room_id).await?;
            if !first.is_empty() {
                rooms.insert(room_id.to_owned(), items_json(first.iter()));
            }
            changed.remove(room_id);
            if let Some(sent) = self.remembered_of(added, ruled.room) {
                sent.account_data = true;
            }
        }
        // What a client has it keeps, whether or not the room is still shown: there is one position for all.
        for (room_id, items) in changed {
            let Ok(id) = <&ruma_common::RoomId>::try_from(room_id) else { continue };
            let known = self.sent.rooms.get(&self.rooms.ids().room(id));
            if known.is_some_and(|known| known.account_data) {
                rooms.insert(room_id.to_owned(), items_json(items.into_iter()));
            }
        }
        if global.is_empty() && rooms.is_empty() {
            return Ok(None);
        }
        let mut out = b"{\"global\":".to_vec();
        write_items(global.into_iter(), &mut out);
        out.extend_from_slice(b",\"rooms\":");
        write_rooms(&rooms, &mut out);
        out.push(b'}');
        Ok(Some(out))
    }

    /// Receipts: of a room that is new to the client those for the events that it is shown, and its own.
    pub(super) async fn receipts(
        &self,
        (wishes, told): (&Wishes<'_>, &[Told]),
        added: &mut Added,
    ) -> Result<ByRoomId, StoreError> {
        let mut rooms = ByRoomId::new();
        let reader = &self.who.user_id;
        for ruled in self.covered(&self.body.extensions.receipts, wishes, added) {
            let room = ruled.room;
            let since = self.so_far(added, room).and_then(|known| known.receipts);
            let live = ruled.standing.live.as_deref();
            if live.is_some_and(|live| !live.has_receipts(since.unwrap_or(Pos::ZERO))) && since.is_some() {
                continue;
            }
            let found = if let Some(since) = since {
                ReceiptEvents::since(&self.view, reader, room, (since, self.until)).await?
            } else {
                let shown = told.iter().filter(|told| told.room == room).flat_map(|told| &told.events);
                let shown: HashSet<&str> = shown.map(|event| event.event_id().as_str()).collect();
                let mut all = ReceiptEvents::all(&self.view, reader, room, self.until).await?;
                all.retain(reader, |event_id| shown.contains(event_id));
                all
            };
            if let Some(sent) = self.remembered_of(added, room) {
                sent.receipts = Some(self.until);
            }
            if !found.is_empty() {
                let mut out = Vec::new();
                found.write_one(&mut out);
                rooms.insert(ruled.standing.row.room_id.clone(), out);
            }
        }
        Ok(rooms)
    }

    /// Who is typing.
    pub(super) async fn typing(&self, wishes: &Wishes<'_>, added: &mut Added) -> Result<ByRoomId, StoreError> {
        let mut rooms = ByRoomId::new();
        for ruled in self.covered(&self.body.extensions.typing, wishes, added) {
            let seen = self.so_far(added, ruled.room).map_or(0, |known| known.typing);
            if ruled.standing.live.as_ref().is_some_and(|live| live.typing() <= seen) {
                continue;
            }
            let (version, users) = self.rooms.typing().in_room(ruled.room);
            if version <= seen {
                continue;
            }
            let filter = crate::filter::Filter::default();
            // Typing runs ahead of events: who left before it, and is not told of the leave yet, must not see it.
            if !self.answer(&filter, None).is_in(&self.rooms.view().await?, ruled.room).await? {
                continue;
            }
            if let Some(sent) = self.remembered_of(added, ruled.room) {
                sent.typing = version;
            }
            if seen > 0 || !users.is_empty() {
                let mut out = Vec::new();
                write_typing(&users, &mut out);
                rooms.insert(ruled.standing.row.room_id.clone(), out);
            }
        }
        Ok(rooms)
    }
}

fn items_json<'i>(items: impl Iterator<Item = &'i AccountDataItem>) -> Vec<u8> {
    let mut out = Vec::new();
    write_items(items, &mut out);
    out
}
