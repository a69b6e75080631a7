//! The state before a timeline, and what changed in it.
//!
//! The current state has an index by type and key; the state at an earlier position is that index
//! with the state log undone. Timelines end near the present, so little has to be undone, and lazy
//! loading reads no member that is not asked for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hearth_rooms::{Current, EventExtras, RoomEvent};
use hearth_schema::{CurrentState, RoomHead, RoomNid, StateKeyNid, StateLogEntry};
use hearth_store::{Order, Pos, StoreError};

use crate::answer::Answer;
use crate::filter::{EventFormat, Members};
use crate::live::LiveRoom;
use crate::member::MEMBER;
use crate::timeline::{Page, write_pdus};

/// State entries read at a time while members are skipped.
const PAGE: usize = 64;

/// Which members belong to the state.
pub(crate) enum Wanted {
    /// All.
    All,
    /// These, and all whose membership has changed.
    Users(Vec<String>),
}

/// The room's growing end, and its state if that is small or wanted as a whole.
pub(crate) struct Head {
    pub row: RoomHead,
    pub current: Option<Arc<Current>>,
}

/// What decides which changes of the state are shown.
pub(crate) struct Delta<'a> {
    /// The timeline beside it.
    pub page: &'a Page,
    /// Everything that changed after `since`.
    pub changes: &'a Changes,
    /// The members that are wanted besides.
    pub wanted: &'a Wanted,
    /// Where the timeline ends.
    pub until: Pos,
}

/// The stretch of the state log after some position, with the events that it names.
#[derive(Default)]
pub(crate) struct Changes {
    log: Vec<(Pos, StateKeyNid, StateLogEntry)>,
    events: HashMap<u32, Arc<RoomEvent>>,
}

impl Changes {
    /// Whether the summary may be another one at `until`.
    pub(crate) fn touch_summary(&self, until: Pos) -> bool {
        self.touch(until, &[MEMBER, "m.room.name", "m.room.canonical_alias"])
    }

    /// Whether state of one of these types may be another one at `until`.
    pub(crate) fn touch(&self, until: Pos, types: &[&str]) -> bool {
        self.log.iter().filter(|(pos, ..)| *pos <= until).any(|(_, _, entry)| {
            let event = entry.n.or(entry.previous).and_then(|n| self.events.get(&n));
            event.is_some_and(|event| types.contains(&event.event_type()))
        })
    }

    /// Places that had something and have nothing any more at `until`, by type and key.
    pub(crate) fn removed(&self, until: Pos) -> Vec<(&str, &str)> {
        let mut seen = HashSet::new();
        let stretch = self.log.iter().rev().filter(|(pos, ..)| *pos <= until);
        let newest = stretch.filter(|(_, nid, _)| seen.insert(*nid));
        let gone = newest.filter(|(.., entry)| entry.n.is_none()).filter_map(|(.., entry)| entry.previous);
        let events = gone.filter_map(|n| self.events.get(&n));
        events.map(|event| (event.event_type(), event.state_key().unwrap_or_default())).collect()
    }

    /// What stood at the places that changed after `at`, by type and key.
    fn undone(&self, at: Pos) -> HashMap<(&str, &str), Option<u32>> {
        let mut before = HashMap::new();
        let mut seen = HashSet::new();
        for (_, nid, entry) in self.log.iter().filter(|(pos, ..)| *pos > at) {
            if seen.insert(*nid)
                && let Some(event) = entry.n.or(entry.previous).and_then(|n| self.events.get(&n))
            {
                before.insert((event.event_type(), event.state_key().unwrap_or_default()), entry.previous);
            }
        }
        before
    }

    /// Events that came into the state in `(after, upto]`, are in it at the end, and are not among
    /// `shown`: a filter has kept them out of the timeline, so the state has to have them.
    fn hidden(&self, (after, upto): (Pos, Pos), shown: &HashSet<u32>) -> HashMap<(&str, &str), u32> {
        let mut newest = HashMap::new();
        for (_, _, entry) in self.log.iter().filter(|(pos, ..)| *pos > after && *pos <= upto) {
            if let Some((n, event)) = entry.n.and_then(|n| Some((n, self.events.get(&n)?))) {
                newest.insert((event.event_type(), event.state_key().unwrap_or_default()), n);
            }
        }
        newest.retain(|_, n| !shown.contains(n));
        newest
    }

    /// The newest entry of each place that changed in `(after, upto]`, in the order of the changes.
    fn newest(&self, (after, upto): (Pos, Pos)) -> Vec<(StateKeyNid, Option<u32>)> {
        let mut seen = HashSet::new();
        let stretch = self.log.iter().rev().filter(|(pos, ..)| *pos > after && *pos <= upto);
        let mut newest: Vec<_> =
            stretch.filter(|(_, nid, _)| seen.insert(*nid)).map(|(_, nid, entry)| (*nid, entry.n)).collect();
        newest.reverse();
        newest
    }
}

impl Answer<'_> {
    /// Everything that changed in the state after `after`, up to the view.
    pub(crate) async fn changes(&self, room: RoomNid, after: Pos) -> Result<Changes, StoreError> {
        self.changes_until(room, after, Pos::MAX).await
    }

    async fn changes_until(&self, room: RoomNid, after: Pos, upto: Pos) -> Result<Changes, StoreError> {
        let log = self.rooms.state_changes(&self.view, room, after, upto).await?;
        let mut numbers: Vec<u32> = log.iter().filter_map(|(_, _, entry)| entry.n.or(entry.previous)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let events = self.rooms.events(&self.view, room, &numbers).await?;
        Ok(Changes { log, events: events.into_iter().map(|event| (event.n, event)).collect() })
    }

    /// The room's state where `page` begins (or ends, if that is asked for), as far as it is wanted.
    pub(crate) async fn whole_state(
        &self,
        room: RoomNid,
        page: &Page,
        live: Option<&LiveRoom>,
        (wanted, head): (&Wanted, &Head),
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        if !self.scope.filter.state.rooms.contains(&self.room_id(room)) {
            return Ok(Vec::new());
        }
        let until = self.until.pos;
        let at = if self.scope.state_after.at_end() { until } else { page.prev };
        let changes =
            if live.is_none_or(|live| live.has_state(at)) { self.changes(room, at).await? } else { Changes::default() };
        let current = self.entries(room, head, wanted).await?;
        if changes.log.is_empty() {
            return self.load_state(room, &current).await;
        }
        let current = self.rooms.events(&self.view, room, &current).await?;
        let mut undone = changes.undone(at);
        let shown: HashSet<u32> = page.events.iter().map(|event| event.n).collect();
        let hidden = changes.hidden((at, until), &shown);
        let mut numbers = Vec::new();
        for event in &current {
            let place = (event.event_type(), event.state_key().unwrap_or_default());
            let before = undone.remove(&place).unwrap_or(Some(event.n));
            numbers.extend(hidden.get(&place).copied().or(before));
        }
        // What has been taken out of the state since.
        let is_wanted = |event_type: &str, state_key: &str| match wanted {
            Wanted::Users(users) if event_type == MEMBER => users.iter().any(|user| user == state_key),
            _ => true,
        };
        numbers.extend(undone.into_iter().filter(|((kind, key), _)| is_wanted(kind, key)).filter_map(|(_, n)| n));
        self.load_state(room, &numbers).await
    }

    /// What changed in the state before the timeline (or up to its end), and the members that are
    /// wanted besides.
    pub(crate) async fn changed_state(
        &self,
        room: RoomNid,
        Delta { page, changes, wanted, until }: Delta<'_>,
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        // As it is with most answers.
        if changes.log.is_empty() && !matches!(wanted, Wanted::Users(users) if !users.is_empty()) {
            return Ok(Vec::new());
        }
        if !self.scope.filter.state.rooms.contains(&self.room_id(room)) {
            return Ok(Vec::new());
        }
        let since = self.since_pos();
        let shown: HashSet<u32> = page.events.iter().map(|event| event.n).collect();
        let mut numbers = Vec::new();
        let at = if self.scope.state_after.at_end() {
            numbers.extend(changes.newest((since, until)).into_iter().filter_map(|(_, n)| n));
            until
        } else {
            // Within the timeline, only what the client would not see there.
            let later: HashMap<_, _> = changes.newest((page.prev, until)).into_iter().collect();
            let hidden = |n: &Option<u32>| n.is_some_and(|n| !shown.contains(&n));
            for (nid, n) in changes.newest((since, page.prev)) {
                numbers.extend(if later.get(&nid).is_some_and(hidden) { None } else { n });
            }
            numbers.extend(later.into_values().filter(hidden).flatten());
            page.prev
        };
        if let Wanted::Users(users) = wanted {
            let keys: Vec<_> = users.iter().map(|user| (room, MEMBER.to_owned(), user.clone())).collect();
            let undone = changes.undone(at);
            let entries = self.view.get_many::<CurrentState>(&keys).await?;
            for (user, entry) in users.iter().zip(entries) {
                let n = undone.get(&(MEMBER, user.as_str())).copied().unwrap_or(entry.map(|entry| entry.n));
                numbers.extend(n.filter(|n| self.scope.state_after.at_end() || !shown.contains(n)));
            }
        }
        let mut seen = HashSet::new();
        numbers.retain(|n| seen.insert(*n));
        self.load_state(room, &numbers).await
    }

    /// The head of a room whose state is shown as a whole.
    pub(crate) async fn head(&self, room: RoomNid) -> Result<Head, StoreError> {
        let row = self.rooms.head(&self.view, room).await?;
        let current = if self.scope.filter.state.members == Members::All {
            Some(self.rooms.current_of(&self.view, room, row.state).await?)
        } else {
            self.rooms.current_if_small(&self.view, room, &row).await?
        };
        Ok(Head { row, current })
    }

    /// Numbers of the events of the current state. With lazy loading, no other members than wanted.
    async fn entries(&self, room: RoomNid, head: &Head, wanted: &Wanted) -> Result<Vec<u32>, StoreError> {
        let users = match (wanted, &head.current) {
            (Wanted::All, Some(current)) => return Ok(current.numbers().collect()),
            (Wanted::All, None) => {
                return Ok(self.rooms.current_of(&self.view, room, head.row.state).await?.numbers().collect());
            }
            (Wanted::Users(users), Some(current)) => {
                let others = current.entries().filter(|(event_type, ..)| *event_type != MEMBER);
                let members = users.iter().filter_map(|user| current.get(MEMBER, user));
                return Ok(others.map(|(.., entry)| entry).chain(members).map(|entry| entry.n).collect());
            }
            (Wanted::Users(users), None) => users,
        };
        let mut found = Vec::new();
        let mut rows = self.view.page::<CurrentState, _>(&(room,), Order::Ascending, PAGE).await?;
        // Ends: every page begins after the last row of the one before.
        while let Some((last, _)) = rows.last() {
            let at_members = last.1.as_str() == MEMBER;
            // No user ID sorts after this.
            let after = if at_members { (room, MEMBER.to_owned(), "\u{10FFFF}".to_owned()) } else { last.clone() };
            let complete = rows.len() < PAGE;
            let others = rows.into_iter().filter(|((_, kind, _), _)| kind != MEMBER);
            found.extend(others.map(|(_, entry)| entry.n));
            if complete {
                break;
            }
            rows = self.view.page_after::<CurrentState, _>(&(room,), &after, PAGE).await?;
        }
        let keys: Vec<_> = users.iter().map(|user| (room, MEMBER.to_owned(), user.clone())).collect();
        let entries = self.view.get_many::<CurrentState>(&keys).await?;
        found.extend(entries.into_iter().flatten().map(|entry| entry.n));
        Ok(found)
    }

    /// The state of a room that the user left at `until`, where `page` begins (or ends, if that is asked
    /// for), as far as it is wanted.
    pub(crate) async fn left_state(
        &self,
        room: RoomNid,
        page: &Page,
        until: Pos,
        wanted: &Wanted,
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let section = &self.scope.filter.state;
        if !section.rooms.contains(&self.room_id(room)) {
            return Ok(Vec::new());
        }
        let at = if self.scope.state_after.at_end() { until } else { page.prev };
        let id = self.rooms.state_after(&self.view, room, at).await?;
        let numbers = self.rooms.state_at(&self.view, room, id).await?;
        let mut events = self.rooms.events(&self.view, room, &numbers).await?;
        let changes = self.changes_until(room, at, until).await?;
        let shown: HashSet<u32> = page.events.iter().map(|event| event.n).collect();
        let hidden = changes.hidden((at, until), &shown);
        events.retain(|event| !hidden.contains_key(&(event.event_type(), event.state_key().unwrap_or_default())));
        let mut hidden: Vec<u32> = hidden.into_values().collect();
        hidden.sort_unstable();
        events.extend(hidden.iter().filter_map(|n| changes.events.get(n).cloned()));
        if let Wanted::Users(users) = wanted {
            let is_wanted = |event: &RoomEvent| users.iter().any(|user| Some(user.as_str()) == event.state_key());
            events.retain(|event| event.event_type() != MEMBER || is_wanted(event));
        }
        events.retain(|event| section.events.matches(event));
        Ok(events)
    }

    /// Those of the events that the filter lets pass.
    pub(crate) async fn load_state(&self, room: RoomNid, numbers: &[u32]) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let section = &self.scope.filter.state;
        let mut events = self.rooms.events(&self.view, room, numbers).await?;
        if !section.lets_all_pass() {
            events.retain(|event| section.events.matches(event));
        }
        Ok(events)
    }

    /// Appends `{"events":[…]}`.
    pub(crate) async fn write_state(
        &self,
        room: RoomNid,
        events: &[Arc<RoomEvent>],
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        out.extend_from_slice(b"{\"events\":[");
        self.write_state_events(room, events, out).await?;
        out.extend_from_slice(b"]}");
        Ok(())
    }

    /// Appends the events, with commas between.
    pub(crate) async fn write_state_events(
        &self,
        room: RoomNid,
        events: &[Arc<RoomEvent>],
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let numbers: Vec<u32> = events.iter().filter_map(|event| event.redacted_by).collect();
        let mut redactions = self.rooms.events(&self.view, room, &numbers).await?;
        if !redactions.is_empty() {
            // One made after the user has left is not for the user to see.
            redactions = Box::pin(self.rooms.visible(&self.view, &self.who.user_id, room, redactions)).await?;
        }
        let begin = out.len();
        match self.scope.filter.format {
            EventFormat::Client => {
                for (i, event) in events.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    let redaction = redactions.iter().find(|redaction| Some(redaction.n) == event.redacted_by);
                    let redacted_because = redaction.map(|redaction| &**redaction);
                    let extras = EventExtras { now: Some(self.now), redacted_because, ..EventExtras::default() };
                    event.write_client(&extras, out);
                }
            }
            EventFormat::Federation => write_pdus(events, out),
        }
        if let Some(fields) = &self.scope.filter.fields {
            fields.apply(out, begin..);
        }
        Ok(())
    }
}
