//! Who may see what: the specification's text as a model of a room's history.
//!
//! It shares nothing with the server but the words, and takes a room as a list of events in their order.
//! See <https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5>.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The state: the number of an event by type and key.
pub(super) type State = BTreeMap<(String, String), usize>;

/// A room. `states[i]` is the state before `events[i]`, the last one is the state now.
pub(super) struct History {
    pub events: Vec<Value>,
    pub states: Vec<State>,
}

/// How much of a room a user may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// A member reads what the rules show.
    Joined,
    /// Anybody reads what the rules show, because the room is world readable now.
    Peeking,
    /// Who has left reads what the rules show up to the leave, which is this event.
    Until(usize),
    Nothing,
}

/// What the user wants of a room that is left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    Kept,
    Forgotten,
}

impl History {
    pub(super) fn new(events: Vec<Value>) -> Self {
        let mut states = vec![State::new()];
        for (i, event) in events.iter().enumerate() {
            let mut state = states[i].clone();
            if let (Some(kind), Some(key)) = (event["type"].as_str(), event["state_key"].as_str()) {
                state.insert((kind.to_owned(), key.to_owned()), i);
            }
            states.push(state);
        }
        Self { events, states }
    }

    fn content<'h>(&'h self, at: usize, kind: &str, key: &str, field: &str) -> Option<&'h str> {
        let event = self.states[at].get(&(kind.to_owned(), key.to_owned()))?;
        self.events[*event]["content"][field].as_str()
    }

    fn visibility(&self, at: usize) -> &str {
        self.content(at, "m.room.history_visibility", "", "history_visibility").unwrap_or("shared")
    }

    pub(super) fn membership(&self, user: &str, at: usize) -> &str {
        self.content(at, "m.room.member", user, "membership").unwrap_or("leave")
    }

    /// The five rules, for the state before the event and the state after it: they differ only for a change of
    /// the visibility and for the user's own membership, of which the specification says that either is enough.
    fn rules(&self, user: &str, event: usize) -> bool {
        let joined_later = (event + 1..self.states.len()).any(|at| self.membership(user, at) == "join");
        [event, event + 1].into_iter().any(|at| match (self.visibility(at), self.membership(user, at)) {
            ("world_readable", _) | (_, "join") => true,
            // "In all cases except world_readable, a user needs to join a room to view events in that room."
            ("shared", _) | ("invited", "invite") => joined_later,
            _ => false,
        })
    }

    pub(super) fn access(&self, user: &str, memory: Memory) -> Access {
        let now = self.events.len();
        match (self.membership(user, now), self.visibility(now)) {
            ("join", _) => Access::Joined,
            (_, "world_readable") => Access::Peeking,
            ("leave" | "ban", _) if memory == Memory::Kept => self.left(user).map_or(Access::Nothing, Access::Until),
            _ => Access::Nothing,
        }
    }

    /// The event by which the user left, if it is the last of the user's memberships. Who is banned after leaving
    /// reads nothing more, as the server does not keep whether the room was forgotten before.
    pub(super) fn left(&self, user: &str) -> Option<usize> {
        let last = self.states.last()?.get(&("m.room.member".to_owned(), user.to_owned()))?;
        (self.membership(user, *last) == "join").then_some(*last)
    }

    /// The events that the user may see. Beyond the rules, what was done to the user's membership is no secret
    /// to the user, who is told of it by `/sync` anyhow.
    pub(super) fn visible(&self, user: &str, access: Access) -> BTreeSet<usize> {
        let mut seen = self.by_rules(user, access);
        let own = |event: &Value| event["type"] == "m.room.member" && event["state_key"] == user;
        seen.extend(self.within(access).filter(|event| own(&self.events[*event])));
        seen
    }

    fn by_rules(&self, user: &str, access: Access) -> BTreeSet<usize> {
        self.within(access).filter(|event| self.rules(user, *event)).collect()
    }

    fn within(&self, access: Access) -> std::ops::Range<usize> {
        match access {
            Access::Joined | Access::Peeking => 0..self.events.len(),
            Access::Until(leave) => 0..leave + 1,
            Access::Nothing => 0..0,
        }
    }

    /// The state that the user may ask for: the one of now, or of the leave.
    pub(super) fn state(&self, access: Access) -> Option<&State> {
        match access {
            Access::Joined | Access::Peeking => self.states.last(),
            Access::Until(leave) => Some(&self.states[leave + 1]),
            Access::Nothing => None,
        }
    }

    /// All that may be in any answer to the user: what is visible or would be by the rules (what was said to all the
    /// world is no secret later), the state that may be asked for, and that around each event the rules show.
    pub(super) fn known(&self, user: &str, access: Access) -> BTreeSet<usize> {
        let mut known = self.visible(user, access);
        known.extend((0..self.events.len()).filter(|event| self.rules(user, *event)));
        known.extend(self.state(access).into_iter().flat_map(State::values));
        for event in self.by_rules(user, access) {
            known.extend(self.states[event].values().chain(self.states[event + 1].values()));
        }
        known
    }
}
