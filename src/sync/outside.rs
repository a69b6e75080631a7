//! Rooms that the user is not in: invited, knocked, left.

use std::sync::Arc;

use hearth_accounts::AccountDataItem;
use hearth_rooms::RoomEvent;
use hearth_schema::{CurrentState, Membership, RoomNid};
use hearth_store::StoreError;

use crate::account_data::write_items;
use crate::answer::Answer;
use crate::filter::Members;
use crate::json::{self, Parts};
use crate::member::{MEMBER, membership};
use crate::state::{Delta, Wanted};
use crate::stay::Stay;
use crate::timeline::{Check, Page};

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

/// Bytes of stripped events; without the members and the room's creation, what is more is left out.
const MAX_STRIPPED: usize = 64 * 1024;

impl Answer<'_> {
    /// A room that the user is invited to.
    pub(crate) async fn invited(&self, room: RoomNid, stay: &Stay) -> Result<Option<Vec<u8>>, StoreError> {
        self.stripped(room, stay, b"{\"invite_state\":").await
    }

    /// A room that the user has knocked on.
    pub(crate) async fn knocked(&self, room: RoomNid, stay: &Stay) -> Result<Option<Vec<u8>>, StoreError> {
        self.stripped(room, stay, b"{\"knock_state\":").await
    }

    /// The stripped state as it was when the user was invited or knocked: what came later is not for
    /// who is outside.
    async fn stripped(&self, room: RoomNid, stay: &Stay, open: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let list = self.stripped_list(room, stay).await?;
        Ok(list.map(|list| [open, b"{\"events\":".as_slice(), &list, b"}}".as_slice()].concat()))
    }

    /// The array of that.
    pub(crate) async fn stripped_list(&self, room: RoomNid, stay: &Stay) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(n) = stay.n else { return self.stripped_elsewhere(room, stay).await };
        let own = self.rooms.events(&self.view, room, &[n]).await?;
        let mut events = Vec::new();
        for event in &own {
            events.extend(self.described(room, event).await?);
        }
        events.extend(own);
        let mut out = Vec::new();
        let mut list = Parts::open(b'[', &mut out);
        let mut spare = MAX_STRIPPED;
        for event in events {
            let mut json = Vec::new();
            event.write_stripped(&mut json);
            let needed = matches!(event.event_type(), "m.room.create" | MEMBER);
            if needed || json.len() <= spare {
                spare = spare.saturating_sub(json.len());
                list.part(&mut out).extend_from_slice(&json);
            }
        }
        out.push(b']');
        Ok(Some(out))
    }

    /// What other servers have said of a room that this one is not in. `None`: it is not so any more, which the next
    /// answer tells.
    async fn stripped_elsewhere(&self, room: RoomNid, stay: &Stay) -> Result<Option<Vec<u8>>, StoreError> {
        let outside = self.rooms.outside_room(&self.view, (self.who.user, room), stay.pos).await?;
        let Some(outside) = outside else { return Ok(None) };
        let mut out = Vec::new();
        let mut list = Parts::open(b'[', &mut out);
        for json in outside.events.iter().map(String::as_bytes).chain(outside.stripped.as_deref()) {
            list.part(&mut out).extend_from_slice(json);
        }
        out.push(b']');
        Ok(Some(out))
    }

    /// The end of a membership in a room that this server was not in: the leave, as far as there is an event of it.
    async fn left_elsewhere(&self, room: RoomNid, stay: &Stay) -> Result<Option<Vec<u8>>, StoreError> {
        if self.since.is_none() && !self.scope.filter.include_leave {
            return Ok(None);
        }
        let outside = self.rooms.outside_room(&self.view, (self.who.user, room), stay.pos).await?;
        let Some(outside) = outside else { return Ok(None) };
        let mut out = b"{\"timeline\":{\"events\":".to_vec();
        let mut list = Parts::open(b'[', &mut out);
        if let Some(json) = outside.event {
            list.part(&mut out).extend_from_slice(&json);
        }
        out.extend_from_slice(b"],\"limited\":false},\"state\":{\"events\":[]},\"account_data\":{\"events\":[]}}");
        Ok(Some(out))
    }

    /// What described the room when `own` was sent, which invites the user or knocks.
    async fn described(&self, room: RoomNid, own: &RoomEvent) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        // Who invited; for a knock that is the user, whose event is there already.
        let inviter = Some(own.sender().as_str()).filter(|sender| *sender != self.who.user_id.as_str());
        let places: Vec<(&str, &str)> =
            inviter.map(|inviter| (MEMBER, inviter)).into_iter().chain(STRIPPED.map(|kind| (kind, ""))).collect();
        let keys: Vec<_> = places.iter().map(|(kind, key)| (room, (*kind).to_owned(), (*key).to_owned())).collect();
        let entries = self.view.get_many::<CurrentState>(&keys).await?;
        let mut numbers: Vec<u32> = entries.into_iter().flatten().map(|entry| entry.n).collect();
        // Numbers count events in the order of their arrival: mostly nothing has changed since.
        if numbers.iter().any(|n| *n > own.n) {
            let then = self.rooms.state_lookup(&self.view, room, own.state_before, &places).await?;
            numbers = then.into_iter().flatten().collect();
        }
        self.rooms.events(&self.view, room, &numbers).await
    }

    /// A room that the user has left: up to the leave and not a byte after it. `None`: it is not to be
    /// shown.
    pub(crate) async fn left(
        &self,
        room: RoomNid,
        stay: &Stay,
        items: &[&AccountDataItem],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(n) = stay.n else { return self.left_elsewhere(room, stay).await };
        if self.since.is_none() && !self.left_at_first(room, stay).await? {
            return Ok(None);
        }
        let room_id = self.room_id(room);
        let mut page = self.page((room, &room_id, None), (stay.known, stay.pos), Check::Visibility).await?;
        // The client may have an older stretch of the room: what it is given now does not join on.
        page.limited |= !stay.continuous && stay.been_in && self.since.is_some();
        let wanted = self.wanted_of_left(stay, &page);
        let state = if stay.continuous {
            let since = self.since_pos();
            let changes = self.changes(room, since).await?;
            self.changed_state(room, Delta { page: &page, changes: &changes, wanted: &wanted, until: stay.pos }).await?
        } else if self.was_joined(room, stay).await? {
            self.left_state(room, &page, stay.pos, &wanted).await?
        } else if self.scope.state_after.at_end() {
            // Who never was in is told of the own leave; a client that asks so does not look for it in the timeline.
            self.load_state(room, &[n]).await?
        } else {
            Vec::new()
        };
        let mut out = b"{\"timeline\":".to_vec();
        self.write_timeline(room, &page, stay, &mut out).await?;
        json::member(self.scope.state_after.key(), &mut out);
        self.write_state(room, &state, &mut out).await?;
        out.extend_from_slice(b",\"account_data\":{\"events\":");
        write_items(self.room_items(&room_id, items).into_iter(), &mut out);
        out.extend_from_slice(b"}}");
        Ok(Some(out))
    }

    /// Whether the room is shown to a client that knows nothing yet: if that is asked for, and when the
    /// user was put out of it, which nobody else tells. Never once it is forgotten.
    async fn left_at_first(&self, room: RoomNid, stay: &Stay) -> Result<bool, StoreError> {
        // Forgetting is no event, so what is kept of the user's rooms may not know of it.
        let row = self.rooms.membership(&self.view, self.who.user, room).await?;
        if row.is_some_and(|row| row.forgotten) {
            return Ok(false);
        }
        Ok(self.scope.filter.include_leave || (!stay.own && self.was_joined(room, stay).await?))
    }

    fn wanted_of_left(&self, stay: &Stay, page: &Page) -> Wanted {
        if self.scope.filter.state.members == Members::All {
            return Wanted::All;
        }
        let mut users: Vec<String> = page.events.iter().map(|event| event.sender().to_string()).collect();
        if !stay.continuous {
            users.push(self.who.user_id.to_string());
        }
        users.sort_unstable();
        users.dedup();
        Wanted::Users(users)
    }

    /// Whether the leave ended a membership that was `join`: whoever only turned down an invitation
    /// has seen nothing of the room's state.
    pub(crate) async fn was_joined(&self, room: RoomNid, stay: &Stay) -> Result<bool, StoreError> {
        let Some(n) = stay.n else { return Ok(false) };
        let own = self.rooms.events(&self.view, room, &[n]).await?;
        let Some(before) = own.first().and_then(|event| event.replaces_state) else { return Ok(false) };
        let before = self.rooms.events(&self.view, room, &[before]).await?;
        Ok(before.first().and_then(|event| membership(event)) == Some(Membership::Join))
    }
}
