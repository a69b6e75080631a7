//! Rooms that the user is not in: invited, knocked, left.

use hearth_accounts::AccountDataItem;
use hearth_schema::{CurrentState, Membership, RoomNid};
use hearth_store::{Pos, StoreError};

use crate::account_data::write_items;
use crate::answer::Answer;
use crate::filter::Members;
use crate::member::{MEMBER, membership};
use crate::state::{Delta, Wanted};
use crate::stay::Stay;
use crate::timeline::{Check, Page, write_events};

/// What describes a room to who is not in it.
///
/// See <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>.
const STRIPPED: [&str; 7] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
];

impl Answer<'_> {
    /// A room that the user is invited to.
    pub(crate) async fn invited(&self, room: RoomNid, stay: &Stay) -> Result<Vec<u8>, StoreError> {
        self.stripped(room, stay, b"{\"invite_state\":").await
    }

    /// A room that the user has knocked on.
    pub(crate) async fn knocked(&self, room: RoomNid, stay: &Stay) -> Result<Vec<u8>, StoreError> {
        self.stripped(room, stay, b"{\"knock_state\":").await
    }

    async fn stripped(&self, room: RoomNid, stay: &Stay, open: &[u8]) -> Result<Vec<u8>, StoreError> {
        let own = self.rooms.events(&self.view, room, &[stay.n]).await?;
        let mut keys: Vec<_> = STRIPPED.iter().map(|kind| (room, (*kind).to_owned(), String::new())).collect();
        // Who invited; for a knock that is the user, whose event is there already.
        let others = own.iter().map(|event| event.sender()).filter(|sender| **sender != self.who.user_id);
        keys.extend(others.map(|sender| (room, MEMBER.to_owned(), sender.to_string())));
        let entries = self.view.get_many::<CurrentState>(&keys).await?;
        let numbers: Vec<u32> = entries.into_iter().flatten().map(|entry| entry.n).collect();
        let mut events = self.rooms.events(&self.view, room, &numbers).await?;
        events.extend(own);
        let mut out = open.to_vec();
        write_events(&events, &mut out, |event, out| event.write_stripped(out));
        out.push(b'}');
        Ok(out)
    }

    /// A room that the user has left: up to the leave and not a byte after it. `None`: it is not to be
    /// shown.
    pub(crate) async fn left(
        &self,
        room: RoomNid,
        stay: &Stay,
        items: &[&AccountDataItem],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        // Whoever syncs for the first time is told of kicks and bans; of own leaves when asked for.
        if self.since.is_none() && (stay.forgotten || (stay.own && !self.scope.filter.include_leave)) {
            return Ok(None);
        }
        // Forgetting is no event, so what is kept of the user's rooms may not know of it.
        if self.since.is_none() {
            let row = self.rooms.membership(&self.view, self.who.user, room).await?;
            if row.is_some_and(|row| row.forgotten) {
                return Ok(None);
            }
        }
        let room_id = self.room_id(room);
        let since = if stay.continuous { self.since_pos() } else { Pos::ZERO };
        let mut page = self.page(room, &room_id, (since, stay.pos), Check::Visibility).await?;
        page.limited |= !stay.continuous && self.since.is_some();
        let wanted = self.wanted_of_left(&page);
        let state = if stay.continuous {
            let changes = self.changes(room, since).await?;
            self.changed_state(room, Delta { page: &page, changes: &changes, wanted: &wanted, until: stay.pos }).await?
        } else if self.was_joined(room, stay).await? {
            let at = if self.scope.state_after { stay.pos } else { page.prev };
            self.left_state(room, at, &wanted).await?
        } else {
            Vec::new()
        };
        let mut out = b"{\"timeline\":".to_vec();
        self.write_timeline(room, &page, &mut out).await?;
        out.extend_from_slice(if self.scope.state_after { b",\"state_after\":" } else { b",\"state\":" });
        self.write_state(room, &state, &mut out).await?;
        out.extend_from_slice(b",\"account_data\":{\"events\":");
        write_items(self.room_items(&room_id, items).into_iter(), &mut out);
        out.extend_from_slice(b"}}");
        Ok(Some(out))
    }

    fn wanted_of_left(&self, page: &Page) -> Wanted {
        if self.scope.filter.state.members == Members::All {
            return Wanted::All;
        }
        let mut users: Vec<String> = page.events.iter().map(|event| event.sender().to_string()).collect();
        users.sort_unstable();
        users.dedup();
        Wanted::Users(users)
    }

    /// Whether the leave ended a membership that was `join`: whoever only turned down an invitation
    /// has seen nothing of the room's state.
    async fn was_joined(&self, room: RoomNid, stay: &Stay) -> Result<bool, StoreError> {
        let own = self.rooms.events(&self.view, room, &[stay.n]).await?;
        let Some(before) = own.first().and_then(|event| event.replaces_state) else { return Ok(false) };
        let before = self.rooms.events(&self.view, room, &[before]).await?;
        Ok(before.first().and_then(|event| membership(event)) == Some(Membership::Join))
    }
}
