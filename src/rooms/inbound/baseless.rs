//! Events with nothing before them to build on.
//!
//! A server that is asked what came before its event, and tells something that is no event of the room's version, has
//! shown that the event builds on nothing, and the event is refused. What it says next mostly follows on that one. To ask
//! the same server for the state there would take in by another door what was refused, so others in the room are asked,
//! and nobody if there are none.

use std::collections::HashMap;
use std::time::Duration;

use hearth_base::Millis;
use parking_lot::Mutex;
use ruma_common::{EventId, OwnedEventId, OwnedServerName, ServerName};

/// How long it is remembered. A server that goes on from there for longer than this is asked for a state again: a room
/// must not fall apart for good because of one event.
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// Events that are remembered at the most.
const MAX_EVENTS: usize = 4096;

/// When servers have shown of events of theirs that they build on nothing.
#[derive(Debug, Default)]
pub(crate) struct Baseless(Mutex<HashMap<(OwnedServerName, OwnedEventId), Millis>>);

impl Baseless {
    /// `server` has shown that `event_id` builds on nothing.
    pub(super) fn remember(&self, server: &ServerName, event_id: &EventId, now: Millis) {
        let mut known = self.0.lock();
        if known.len() >= MAX_EVENTS {
            known.retain(|_, since| is_fresh(*since, now));
        }
        if known.len() < MAX_EVENTS {
            known.insert((server.to_owned(), event_id.to_owned()), now);
        }
    }

    /// Whether `server` has shown that of `event_id` not long ago.
    pub(super) fn contains(&self, server: &ServerName, event_id: &EventId, now: Millis) -> bool {
        let known = self.0.lock();
        if known.is_empty() {
            return false;
        }
        known.get(&(server.to_owned(), event_id.to_owned())).is_some_and(|since| is_fresh(*since, now))
    }
}

fn is_fresh(since: Millis, now: Millis) -> bool {
    now.since(since) < MEMORY
}

#[cfg(test)]
mod tests {
    use ruma_common::{event_id, server_name};

    use super::*;

    #[test]
    fn is_remembered_of_one_server_for_a_while() {
        let (baseless, began) = (Baseless::default(), Millis(1_000_000));
        let (server, event) = (server_name!("a.test"), event_id!("$bad"));
        assert!(!baseless.contains(server, event, began));
        baseless.remember(server, event, began);
        assert!(baseless.contains(server, event, began.plus(MEMORY / 2)));
        assert!(!baseless.contains(server_name!("b.test"), event, began));
        assert!(!baseless.contains(server, event_id!("$other"), began));
        assert!(!baseless.contains(server, event, began.plus(MEMORY)));
    }

    #[test]
    fn memory_is_bounded_and_has_room_again_for_what_is_new() {
        let (baseless, began) = (Baseless::default(), Millis(1_000_000));
        let server = server_name!("a.test");
        let event = |n: usize| EventId::parse(format!("$e{n}")).expect("an ID");
        for n in 0..=MAX_EVENTS {
            baseless.remember(server, &event(n), began);
        }
        assert_eq!(baseless.0.lock().len(), MAX_EVENTS);
        assert!(!baseless.contains(server, &event(MAX_EVENTS), began));
        let later = began.plus(MEMORY);
        baseless.remember(server, &event(MAX_EVENTS), later);
        assert!(baseless.contains(server, &event(MAX_EVENTS), later));
        assert_eq!(baseless.0.lock().len(), 1);
    }
}
