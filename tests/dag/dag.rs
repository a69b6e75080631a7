//! A room's graph and what is so in it, by the words of the specification.
//!
//! The state before an event is the resolution of the states after its `prev_events`
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution)); each is a whole map, each auth chain is
//! walked anew. That is slow and easy to believe, and the product has to come to the same.

use std::collections::{BTreeSet, HashMap, HashSet};

use hearth_event::{Pdu, RoomVersion, StateMap, check_auth, check_auth_events};
use ruma_common::{EventId, OwnedEventId, RoomId};

/// A room.
#[derive(Clone)]
pub struct Dag {
    /// Its version.
    pub version: RoomVersion,
    /// Each after those that it refers to; the first is the create event.
    pub events: Vec<Event>,
    /// The index of the observer's join. What is before it was there before the observer, in one line.
    pub founded: usize,
    pub(crate) index: HashMap<OwnedEventId, usize>,
}

/// An event with what is so.
#[derive(Clone)]
pub struct Event {
    /// The event; it knows whether it is rejected.
    pub pdu: Pdu,
    /// The room's state before it.
    pub before: StateMap,
    /// Why its auth events, or the state before it, do not allow it.
    pub rejected: Option<String>,
}

impl Event {
    /// The room's state after it.
    pub fn after(&self) -> StateMap {
        let mut state = self.before.clone();
        if let (None, Some(key)) = (&self.rejected, self.pdu.state_key()) {
            state.insert((self.pdu.event_type().to_owned(), key.to_owned()), self.pdu.event_id().to_owned());
        }
        state
    }
}

impl Dag {
    pub(crate) fn new(create: Pdu) -> Self {
        let version = create.version();
        let mut dag = Self { version, events: Vec::new(), founded: 0, index: HashMap::new() };
        assert!(check_auth_events(version, &create, &[]).is_ok(), "a good create event");
        dag.index.insert(create.event_id().to_owned(), 0);
        dag.events.push(Event { pdu: create, before: StateMap::new(), rejected: None });
        dag
    }

    /// The room's ID.
    pub fn room_id(&self) -> &RoomId {
        self.create().room_id()
    }

    /// The create event.
    pub fn create(&self) -> &Pdu {
        &self.events[0].pdu
    }

    /// Where the event is.
    pub fn position(&self, id: &EventId) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// The event, which knows whether it is rejected.
    pub fn pdu(&self, id: &EventId) -> Option<Pdu> {
        Some(self.events[self.position(id)?].pdu.clone())
    }

    /// Adds an event whose parents are here; `None`: it is here already.
    pub(crate) fn add(&mut self, pdu: &Pdu, before: StateMap) -> Option<usize> {
        if self.index.contains_key(pdu.event_id()) {
            return None;
        }
        let rejected = self.why_rejected(pdu, &before);
        let pdu = if rejected.is_some() { pdu.with_rejected() } else { pdu.clone() };
        self.index.insert(pdu.event_id().to_owned(), self.events.len());
        self.events.push(Event { pdu, before, rejected });
        Some(self.events.len() - 1)
    }

    /// The state before an event after these.
    pub fn state_after(&self, events: &[usize]) -> StateMap {
        let states: Vec<StateMap> = events.iter().map(|index| self.events[*index].after()).collect();
        self.resolve(&states)
    }

    /// What the states resolve to, with all that the algorithm may ask for.
    pub fn resolve(&self, states: &[StateMap]) -> StateMap {
        if states.iter().all(|state| *state == states[0]) {
            return states[0].clone();
        }
        let chains = states.iter().map(|state| self.auth_chain(state.values())).collect();
        match hearth_event::resolve(self.version, states, chains, &|id| self.pdu(id)) {
            Ok(state) => state,
            Err(error) => panic!("a state that cannot be resolved: {error}\n{self}"),
        }
    }

    /// What the events stand on: the recursive closure of their `auth_events`, and they themselves.
    pub fn auth_chain<'a>(&self, events: impl Iterator<Item = &'a OwnedEventId>) -> HashSet<OwnedEventId> {
        let mut chain = HashSet::new();
        let mut todo: Vec<OwnedEventId> = events.cloned().collect();
        while let Some(id) = todo.pop() {
            let Some(pdu) = self.pdu(&id) else { continue };
            if chain.insert(id) {
                todo.extend(pdu.auth_events().iter().cloned());
            }
        }
        chain
    }

    /// Everything that came before the events by `prev_events`, they themselves left out.
    pub fn ancestors(&self, events: &[usize]) -> BTreeSet<usize> {
        let mut out = BTreeSet::new();
        let mut todo = events.to_vec();
        while let Some(index) = todo.pop() {
            for parent in self.parents(index) {
                if out.insert(parent) {
                    todo.push(parent);
                }
            }
        }
        out
    }

    /// The `prev_events` of an event.
    pub fn parents(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        self.events[index].pdu.prev_events().iter().filter_map(|id| self.position(id))
    }

    /// Events that no event follows.
    pub fn leaves(&self) -> Vec<usize> {
        let followed: BTreeSet<usize> = (0..self.events.len()).flat_map(|index| self.parents(index)).collect();
        (0..self.events.len()).filter(|index| !followed.contains(index)).collect()
    }

    /// An order in which every event comes after those that it refers to; of those that may come, the one with the smallest
    /// of `priorities` does.
    pub fn order(&self, priorities: &[u16]) -> Vec<usize> {
        let needs = |index: usize| {
            let pdu = &self.events[index].pdu;
            let all = pdu.prev_events().iter().chain(pdu.auth_events());
            all.filter_map(|id| self.position(id)).collect::<Vec<_>>()
        };
        let mut out: Vec<usize> = (0..=self.founded).collect();
        let mut waiting: Vec<usize> = (self.founded + 1..self.events.len()).collect();
        while !waiting.is_empty() {
            let done: BTreeSet<usize> = out.iter().copied().collect();
            let ready = waiting.iter().copied().filter(|index| needs(*index).iter().all(|need| done.contains(need)));
            let priority = |index: &usize| (priorities.get(index % priorities.len().max(1)).copied(), *index);
            let next = ready.min_by_key(priority).expect("events refer to earlier ones");
            waiting.retain(|index| *index != next);
            out.push(next);
        }
        out
    }

    /// Why an event is rejected: checks 4 and 5 of
    /// [receipt of a PDU](https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu).
    pub(crate) fn why_rejected(&self, pdu: &Pdu, before: &StateMap) -> Option<String> {
        let auth_events: Vec<Pdu> = pdu.auth_events().iter().filter_map(|id| self.pdu(id)).collect();
        let by_own = |kind: &str, key: &str| {
            let create = Some(self.create()).filter(|create| create.is_state(kind, key));
            create.or_else(|| auth_events.iter().find(|event| event.is_state(kind, key))).cloned()
        };
        let judgement = check_auth_events(self.version, pdu, &auth_events)
            .and_then(|()| check_auth(self.version, pdu, self.create(), &by_own))
            .and_then(|()| self.check_on(pdu, before));
        judgement.err().map(|rejection| rejection.rule)
    }

    /// Whether the rules allow `pdu` in `state`: check 6 where that is the room's current state.
    pub fn check_on(&self, pdu: &Pdu, state: &StateMap) -> Result<(), hearth_event::Rejection> {
        let look_up = |kind: &str, key: &str| self.pdu(state.get(&(kind.to_owned(), key.to_owned()))?);
        check_auth(self.version, pdu, self.create(), &look_up)
    }
}

impl std::fmt::Display for Dag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "room version {}", self.version)?;
        for (index, event) in self.events.iter().enumerate() {
            let pdu = &event.pdu;
            let parents: Vec<usize> = self.parents(index).collect();
            let auth: Vec<usize> = pdu.auth_events().iter().filter_map(|id| self.position(id)).collect();
            let key = pdu.state_key().map(|key| format!("/{key}")).unwrap_or_default();
            let content = pdu.content().get();
            let verdict = event.rejected.as_deref().map(|why| format!("  REJECTED: {why}")).unwrap_or_default();
            let (kind, sender, time) = (pdu.event_type(), pdu.sender(), pdu.origin_server_ts());
            let id = pdu.event_id();
            writeln!(
                f,
                "{index:3} {id} {kind}{key} by {sender} at {time} after {parents:?} on {auth:?} {content}{verdict}"
            )?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Dag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
