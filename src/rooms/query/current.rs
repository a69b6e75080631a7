//! The current state of a room, in memory.
//!
//! The problem: large rooms are asked for all of their state, or for all of their members, again and again, while it
//! changes rarely; and the first answer of `/sync` looks up a dozen entries of each room. The answer: a list of the
//! entries is kept with the name of the state that it lists. A state's name says everything that is in it, so the
//! list is true wherever the room's head has that name, and nothing has to be told of changes.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use hearth_schema::{CurrentState, Membership, RoomHead, RoomNid, StateEntry, StateId};
use hearth_store::{Order, StoreError, View};

use crate::intake::Rooms;

/// Rows asked for in one page of a scan.
const PAGE: usize = 512;
/// Entries up to which a state is listed for the sake of a few of them.
const FEW: u32 = 64;

/// All entries of one state, ordered by event type and state key.
#[derive(Debug, PartialEq, Eq)]
pub struct Current {
    state: StateId,
    types: Vec<(String, Range<usize>)>,
    rows: Vec<Row>,
    /// All state keys, one after the other.
    keys: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    n: u32,
    membership: Option<Membership>,
    /// Where the state key ends; it begins where that of the row before ends.
    key_end: usize,
}

impl Current {
    fn new(state: StateId) -> Self {
        Self { state, types: Vec::new(), rows: Vec::new(), keys: String::new() }
    }

    /// Entries must come in order.
    fn push(&mut self, event_type: String, state_key: &str, entry: StateEntry) {
        let at = self.rows.len();
        self.keys.push_str(state_key);
        self.rows.push(Row { n: entry.n, membership: entry.membership, key_end: self.keys.len() });
        match self.types.last_mut() {
            Some((last, rows)) if *last == event_type => rows.end = at + 1,
            _ => self.types.push((event_type, at..at + 1)),
        }
    }

    /// Every entry: event type, state key, entry.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str, StateEntry)> {
        self.types.iter().flat_map(|(event_type, rows)| {
            rows.clone().map(|at| (event_type.as_str(), self.key(at), self.rows[at].entry()))
        })
    }

    /// The numbers of all events, in the same order.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.rows.iter().map(|row| row.n)
    }

    /// The entries with one event type: state key, entry.
    pub fn of_type(&self, event_type: &str) -> impl Iterator<Item = (&str, StateEntry)> {
        self.rows_of(event_type).map(|at| (self.key(at), self.rows[at].entry()))
    }

    /// One entry.
    pub fn get(&self, event_type: &str, state_key: &str) -> Option<StateEntry> {
        let rows = self.rows_of(event_type);
        let (mut low, mut high) = (rows.start, rows.end);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).cmp(state_key) {
                std::cmp::Ordering::Equal => return Some(self.rows[middle].entry()),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn rows_of(&self, event_type: &str) -> Range<usize> {
        let found = self.types.binary_search_by(|(name, _)| name.as_str().cmp(event_type));
        found.map_or(0..0, |at| self.types[at].1.clone())
    }

    fn key(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.rows[before].key_end);
        &self.keys[start..self.rows[at].key_end]
    }

    /// Bytes it takes in a cache, about.
    pub(crate) fn weight(&self) -> usize {
        128 + self.types.len() * 72 + self.rows.len() * size_of::<Row>() + self.keys.len()
    }
}

impl Row {
    const fn entry(&self) -> StateEntry {
        StateEntry { n: self.n, membership: self.membership }
    }
}

impl Rooms {
    /// The room's current state.
    ///
    /// # Errors
    /// If the store cannot be read or there is no such room.
    pub async fn current(&self, view: &View, room: RoomNid) -> Result<Arc<Current>, StoreError> {
        let state = self.head(view, room).await?.state;
        self.current_of(view, room, state).await
    }

    /// The same for who has read that `state` is the room's state.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn current_of(&self, view: &View, room: RoomNid, state: StateId) -> Result<Arc<Current>, StoreError> {
        if let Some(known) = self.known_current(room, state) {
            return Ok(known);
        }
        let mut current = Current::new(state);
        view.scan::<CurrentState, _>(&(room,), Order::Ascending, PAGE, |(_, event_type, state_key), entry| {
            current.push(event_type, &state_key, entry);
            ControlFlow::Continue(())
        })
        .await?;
        Ok(self.keep_current(room, current))
    }

    /// The same for who wants a few entries only: `None` if it is neither at hand nor small.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn current_if_small(
        &self,
        view: &View,
        room: RoomNid,
        head: &RoomHead,
    ) -> Result<Option<Arc<Current>>, StoreError> {
        if let Some(known) = self.known_current(room, head.state) {
            return Ok(Some(known));
        }
        if head.joined_members.saturating_add(head.invited_members) > FEW {
            return Ok(None);
        }
        let most = FEW as usize;
        let rows = view.page::<CurrentState, _>(&(room,), Order::Ascending, most + 1).await?;
        if rows.len() > most {
            return Ok(None);
        }
        let mut current = Current::new(head.state);
        for ((_, event_type, state_key), entry) in rows {
            current.push(event_type, &state_key, entry);
        }
        Ok(Some(self.keep_current(room, current)))
    }

    fn known_current(&self, room: RoomNid, state: StateId) -> Option<Arc<Current>> {
        self.0.caches.current(room).filter(|known| known.state == state)
    }

    fn keep_current(&self, room: RoomNid, current: Current) -> Arc<Current> {
        let current = Arc::new(current);
        self.0.caches.keep_current(room, Arc::clone(&current));
        current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u32) -> StateEntry {
        StateEntry { n, membership: Some(Membership::Join) }
    }

    #[test]
    fn entries_are_found_by_type_and_key() {
        let all = [
            ("m.room.create", "", entry(0)),
            ("m.room.member", "", entry(1)),
            ("m.room.member", "@a:x", entry(2)),
            ("m.room.member", "@b:x", entry(3)),
            ("m.room.name", "", entry(4)),
        ];
        let mut current = Current::new(StateId::EMPTY);
        for (event_type, state_key, entry) in all {
            current.push(event_type.to_owned(), state_key, entry);
        }
        assert_eq!(current.entries().collect::<Vec<_>>(), all);
        assert_eq!(current.numbers().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        for (event_type, state_key, entry) in all {
            assert_eq!(current.get(event_type, state_key), Some(entry), "{event_type} {state_key}");
        }
        for (event_type, state_key) in [("m.room.member", "@aa:x"), ("m.room.member", "@c:x"), ("m.room.n", "")] {
            assert_eq!(current.get(event_type, state_key), None, "{event_type} {state_key}");
        }
        let members: Vec<_> = current.of_type("m.room.member").map(|(key, entry)| (key, entry.n)).collect();
        assert_eq!(members, [("", 1), ("@a:x", 2), ("@b:x", 3)]);
        assert_eq!(current.of_type("m.room.topic").count(), 0);
    }
}
