//! Events and states by number.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_event::RoomVersion;
use hearth_schema::{
    CurrentState, EventNid, Events, Membership, NodeId, RoomHead, RoomHeads, RoomMeta, RoomNid, Rooms as RoomRows,
    StateEntry, StateId, StateKeyNid, StateKeys, StateLog, StateLogEntry, StoredEvent, Timeline, UserNid, UserRoom,
    UserRooms, Verdict,
};
use hearth_store::{Keyspace, Order, Pos, StoreError, View};
use ruma_common::{EventId, OwnedRoomId, RoomId, UserId};

use super::event::RoomEvent;
use crate::attach::number_of;
use crate::gather::{damaged, load_node, parse};
use crate::intake::Rooms;
use crate::state::{self, Missing, Node};

/// Rows asked for in one page of a scan.
const PAGE: usize = 512;
/// Rooms of one user that are listed at the most.
const MAX_USER_ROOMS: usize = 100_000;
/// Events with numbers next to each other are read as a range from this many on, which costs less than looking up each.
const RANGE_OF: usize = 8;

impl Rooms {
    /// The room's unchanging facts; `None`: no such room here.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn room(&self, view: &View, room: RoomNid) -> Result<Option<RoomMeta>, StoreError> {
        view.get::<RoomRows>(&(room,)).await
    }

    /// The room's growing end.
    ///
    /// # Errors
    /// If the store cannot be read or the room has none.
    pub async fn head(&self, view: &View, room: RoomNid) -> Result<RoomHead, StoreError> {
        view.get::<RoomHeads>(&(room,)).await?.ok_or_else(|| damaged("RoomHeads", "a room has no head"))
    }

    /// A local user's newest membership in a room.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn membership(&self, view: &View, user: UserNid, room: RoomNid) -> Result<Option<UserRoom>, StoreError> {
        view.get::<UserRooms>(&(user, room)).await
    }

    /// All rooms that a local user is or was in.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn user_rooms(&self, view: &View, user: UserNid) -> Result<Vec<(RoomNid, UserRoom)>, StoreError> {
        let rows = view.page::<UserRooms, _>(&(user,), Order::Ascending, MAX_USER_ROOMS).await?;
        Ok(rows.into_iter().map(|((_, room), row)| (room, row)).collect())
    }

    /// Rooms that a local user has joined.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn joined_room_ids(&self, user: &UserId) -> Result<Vec<OwnedRoomId>, StoreError> {
        let view = self.view().await?;
        let rooms = self.user_rooms(&view, self.ids().user(user)).await?;
        let joined = rooms.iter().filter(|(_, row)| row.membership == Membership::Join);
        joined.map(|(_, row)| parse_room_id(&row.room_id)).collect()
    }

    /// `result[i]` belongs to `numbers[i]`.
    ///
    /// # Errors
    /// If the store cannot be read; an absent event is damage.
    pub async fn events(&self, view: &View, room: RoomNid, numbers: &[u32]) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let mut events: Vec<Option<Arc<RoomEvent>>> =
            numbers.iter().map(|n| self.0.caches.event(EventNid { room, n: *n })).collect();
        let missing: Vec<usize> = (0..numbers.len()).filter(|i| events[*i].is_none()).collect();
        if !missing.is_empty() {
            let version = self.version(view, room).await?;
            let wanted: Vec<u32> = missing.iter().map(|i| numbers[*i]).collect();
            let rows = stored_events(view, room, &wanted).await?;
            for (i, row) in missing.into_iter().zip(rows) {
                let n = numbers[i];
                let stored = row.ok_or_else(|| damaged("Events", format!("event {n} is named but absent")))?;
                let pdu = parse(&stored, version)?;
                let event = Arc::new(RoomEvent::stored(room, n, stored, pdu));
                self.0.caches.keep_event(EventNid { room, n }, &event, view.frontier().base());
                events[i] = Some(event);
            }
        }
        Ok(events.into_iter().flatten().collect())
    }

    /// The accepted event with this ID in this room; one of another room, or one that is only known through others, is as
    /// absent as one that does not exist.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn event_in_room(
        &self,
        view: &View,
        room: RoomNid,
        event_id: &EventId,
    ) -> Result<Option<Arc<RoomEvent>>, StoreError> {
        match number_of(view, self.ids(), room, event_id).await? {
            Some(n) => {
                Ok(self.events(view, room, &[n]).await?.pop().filter(|event| event.verdict == Verdict::Accepted))
            }
            None => Ok(None),
        }
    }

    pub(crate) async fn version(&self, view: &View, room: RoomNid) -> Result<RoomVersion, StoreError> {
        let meta = self.room(view, room).await?.ok_or_else(|| damaged("Rooms", "a room has no row"))?;
        RoomVersion::parse(&meta.version).ok_or_else(|| damaged("Rooms", format!("version {}", meta.version)))
    }

    /// Entries of the current state with one event type: state key, entry.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn current_state_of_type(
        &self,
        view: &View,
        room: RoomNid,
        event_type: &str,
    ) -> Result<Vec<(String, StateEntry)>, StoreError> {
        let mut out = Vec::new();
        let prefix = (room, event_type.to_owned());
        view.scan::<CurrentState, _>(&prefix, Order::Ascending, PAGE, |(_, _, state_key), entry| {
            out.push((state_key, entry));
            std::ops::ControlFlow::Continue(())
        })
        .await?;
        Ok(out)
    }

    /// One entry of the current state.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn current_entry(
        &self,
        view: &View,
        room: RoomNid,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StateEntry>, StoreError> {
        view.get::<CurrentState>(&(room, event_type.to_owned(), state_key.to_owned())).await
    }

    /// The event at one place of the current state.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn current_event(
        &self,
        view: &View,
        room: RoomNid,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<RoomEvent>>, StoreError> {
        match self.current_entry(view, room, event_type, state_key).await? {
            Some(entry) => Ok(self.events(view, room, &[entry.n]).await?.pop()),
            None => Ok(None),
        }
    }

    /// Numbers of all events of a state snapshot.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn state_at(&self, view: &View, room: RoomNid, at: StateId) -> Result<Vec<u32>, StoreError> {
        let entries = self.with_nodes(view, room, |nodes| state::entries(nodes, at)).await?;
        Ok(entries.into_iter().map(|(_, n)| n).collect())
    }

    /// Numbers of the events at some places of a state snapshot: `result[i]` belongs to `keys[i]`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn state_lookup(
        &self,
        view: &View,
        room: RoomNid,
        at: StateId,
        keys: &[(&str, &str)],
    ) -> Result<Vec<Option<u32>>, StoreError> {
        let rows: Vec<_> = keys.iter().map(|(kind, key)| (room, (*kind).to_owned(), (*key).to_owned())).collect();
        let nids = view.get_many::<StateKeys>(&rows).await?;
        let mut out = Vec::with_capacity(keys.len());
        for nid in nids {
            out.push(match nid {
                None => None,
                Some(place) => self.state_number(view, room, at, place).await?,
            });
        }
        Ok(out)
    }

    /// The place that events of a type and state key have in the room's states; `None`: no state has had one.
    pub(crate) async fn state_place(
        &self,
        view: &View,
        room: RoomNid,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StateKeyNid>, StoreError> {
        view.get::<StateKeys>(&(room, event_type.to_owned(), state_key.to_owned())).await
    }

    /// Number of the event at one place of a state snapshot.
    pub(crate) async fn state_number(
        &self,
        view: &View,
        room: RoomNid,
        at: StateId,
        StateKeyNid(place): StateKeyNid,
    ) -> Result<Option<u32>, StoreError> {
        self.with_nodes(view, room, |nodes| state::get(nodes, at, place)).await
    }

    /// Entries in which two snapshots differ: state key number, event in `left`, event in `right`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn state_diff(
        &self,
        view: &View,
        room: RoomNid,
        left: StateId,
        right: StateId,
    ) -> Result<Vec<state::Difference>, StoreError> {
        self.with_nodes(view, room, |nodes| state::diff(nodes, left, right)).await
    }

    /// The room's state after everything at or below `pos`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn state_after(&self, view: &View, room: RoomNid, pos: Pos) -> Result<StateId, StoreError> {
        let next = (std::ops::Bound::Excluded(pos), std::ops::Bound::Unbounded);
        let rows = view.page_between::<Timeline, _>(&(room,), next, Order::Ascending, 1).await?;
        match rows.first() {
            None => Ok(self.head(view, room).await?.state),
            Some((_, n)) => {
                let event = self.events(view, room, &[*n]).await?;
                event.first().map(|event| event.state_before).ok_or_else(|| damaged("Events", "no event"))
            }
        }
    }

    /// Changes of the current state at positions in `(after, upto]`, oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn state_changes(
        &self,
        view: &View,
        room: RoomNid,
        after: Pos,
        upto: Pos,
    ) -> Result<Vec<(Pos, StateKeyNid, StateLogEntry)>, StoreError> {
        let between = (std::ops::Bound::Excluded(after), std::ops::Bound::Included(upto));
        let rows = view.page_between::<StateLog, _>(&(room,), between, Order::Ascending, usize::MAX).await?;
        Ok(rows.into_iter().map(|((_, pos, nid), entry)| (pos, nid, entry)).collect())
    }

    /// Runs a trie operation, loading the nodes that it misses.
    pub(crate) async fn with_nodes<T>(
        &self,
        view: &View,
        room: RoomNid,
        run: impl Fn(&dyn state::Source) -> Result<T, Missing>,
    ) -> Result<T, StoreError> {
        let mut loaded: std::collections::HashMap<NodeId, Arc<Node>> = std::collections::HashMap::new();
        loop {
            let missing = {
                let source = |id: NodeId| loaded.get(&id).cloned().or_else(|| self.0.caches.node(room, id));
                match run(&source) {
                    Ok(out) => return Ok(out),
                    Err(Missing(id)) => id,
                }
            };
            let node = load_node(view, room, missing).await?;
            self.0.caches.keep_node(room, missing, Arc::clone(&node));
            loaded.insert(missing, node);
        }
    }
}

/// A stored room ID.
pub(crate) fn parse_room_id(text: &str) -> Result<OwnedRoomId, StoreError> {
    <&RoomId>::try_from(text).map(ToOwned::to_owned).map_err(|error| damaged("Rooms", error.to_string()))
}

/// `result[i]` belongs to `numbers[i]`.
async fn stored_events(view: &View, room: RoomNid, numbers: &[u32]) -> Result<Vec<Option<StoredEvent>>, StoreError> {
    rows_of::<Events>(view, room, numbers).await
}

/// Rows of events of a room: `result[i]` belongs to `numbers[i]`.
pub(super) async fn rows_of<K: Keyspace<Key = (RoomNid, u32)>>(
    view: &View,
    room: RoomNid,
    numbers: &[u32],
) -> Result<Vec<Option<K::Value>>, StoreError>
where
    K::Value: Clone,
{
    let (Some(first), Some(last)) = (numbers.iter().min(), numbers.iter().max()) else { return Ok(Vec::new()) };
    let span = usize::try_from(last - first).unwrap_or(usize::MAX).saturating_add(1);
    if numbers.len() < RANGE_OF || span > numbers.len() + numbers.len() / 4 {
        let keys: Vec<_> = numbers.iter().map(|n| (room, *n)).collect();
        return view.get_many::<K>(&keys).await;
    }
    let rows = view.page_within::<K>(&(room, *first), &(room, *last), span).await?;
    let mut rows: HashMap<u32, K::Value> = rows.into_iter().map(|((_, n), row)| (n, row)).collect();
    if numbers.is_sorted_by(|a, b| a < b) || numbers.is_sorted_by(|a, b| a > b) {
        return Ok(numbers.iter().map(|n| rows.remove(n)).collect());
    }
    // One may be named twice.
    Ok(numbers.iter().map(|n| rows.get(n).cloned()).collect())
}
