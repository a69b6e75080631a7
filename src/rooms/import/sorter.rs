//! Events that come in any order, put into one in which each comes after those that it stands on.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

use hearth_event::Pdu;
use ruma_common::{EventId, OwnedEventId};

/// Holds back events until all that they stand on is there.
///
/// Events that stand on each other in a circle, or on something that never comes, stay where they are.
#[derive(Default)]
pub(super) struct Sorter {
    /// An event that all others stand on, also if they do not say so.
    first: Option<OwnedEventId>,
    placed: HashSet<OwnedEventId>,
    waiting: HashMap<OwnedEventId, (Pdu, usize)>,
    wanted_by: HashMap<OwnedEventId, Vec<OwnedEventId>>,
}

impl Sorter {
    /// `first` comes before all others: from room version 12 on no event names the create event.
    pub(super) fn new(first: Option<OwnedEventId>) -> Self {
        Self { first, ..Self::default() }
    }

    /// Takes an event; adds to `ready` what nothing is missing for now.
    pub(super) fn add(&mut self, pdu: Pdu, ready: &mut Vec<Pdu>) {
        let id = pdu.event_id().to_owned();
        if self.placed.contains(&id) || self.waiting.contains_key(&id) {
            return;
        }
        let first = self.first.iter().filter(|first| **first != id);
        let missing: BTreeSet<&OwnedEventId> =
            pdu.auth_events().iter().chain(first).filter(|id| !self.placed.contains(*id)).collect();
        if missing.is_empty() {
            ready.push(pdu);
            self.settle(id, ready);
            return;
        }
        let count = missing.len();
        for missing in missing {
            self.wanted_by.entry(missing.clone()).or_default().push(id.clone());
        }
        self.waiting.insert(id, (pdu, count));
    }

    /// An event is there already; adds to `ready` what nothing is missing for now.
    pub(super) fn place(&mut self, id: &EventId, ready: &mut Vec<Pdu>) {
        self.settle(id.to_owned(), ready);
    }

    /// Events for which something is missing.
    pub(super) fn left(&self) -> impl Iterator<Item = &OwnedEventId> {
        self.waiting.keys()
    }

    fn settle(&mut self, id: OwnedEventId, ready: &mut Vec<Pdu>) {
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            for child in self.wanted_by.remove(&id).into_iter().flatten() {
                let Entry::Occupied(mut waiting) = self.waiting.entry(child) else { continue };
                waiting.get_mut().1 -= 1;
                if waiting.get().1 == 0 {
                    let (child, (pdu, _)) = waiting.remove_entry();
                    ready.push(pdu);
                    todo.push(child);
                }
            }
            self.placed.insert(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hearth_event::RoomVersion;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn name(n: usize) -> OwnedEventId {
        EventId::parse(format!("${n}")).expect("an ID")
    }

    fn event(n: usize, auth_events: &[usize]) -> Pdu {
        let auth_events: Vec<_> = auth_events.iter().map(|n| name(*n)).collect();
        let json = json!({
            "auth_events": auth_events, "content": {}, "depth": 1, "origin_server_ts": 1, "prev_events": [],
            "room_id": "!r:a.test", "sender": "@a:a.test", "type": "x",
        });
        let version = RoomVersion::parse("11").expect("known");
        Pdu::from_stored(&name(n), Bytes::from(json.to_string()), version).expect("an event")
    }

    fn names(events: &[Pdu]) -> Vec<&str> {
        events.iter().map(|pdu| pdu.event_id().as_str()).collect()
    }

    #[test]
    fn what_waits_for_something_that_never_comes_stays() {
        let (mut sorter, mut ready) = (Sorter::default(), Vec::new());
        for (n, auth_events) in [(1, vec![9]), (2, vec![3]), (3, vec![2]), (4, vec![1])] {
            sorter.add(event(n, &auth_events), &mut ready);
        }
        assert!(ready.is_empty());
        sorter.place(&name(9), &mut ready);
        assert_eq!(names(&ready), ["$1", "$4"]);
        let left: BTreeSet<&str> = sorter.left().map(|id| id.as_str()).collect();
        assert_eq!(left, BTreeSet::from(["$2", "$3"]), "a circle");
    }

    #[test]
    fn the_first_event_is_first_although_nobody_names_it() {
        let (mut sorter, mut ready) = (Sorter::new(Some(name(0))), Vec::new());
        sorter.add(event(1, &[]), &mut ready);
        assert!(ready.is_empty());
        sorter.add(event(0, &[]), &mut ready);
        assert_eq!(names(&ready), ["$0", "$1"]);
    }

    proptest! {
        #[test]
        fn each_comes_once_and_after_those_that_it_stands_on(
            edges in proptest::collection::vec(proptest::collection::vec(any::<proptest::sample::Index>(), 0..4), 1..60),
            order in proptest::collection::vec(any::<u32>(), 60),
            there in any::<u64>(),
        ) {
            let graph: Vec<Vec<usize>> = edges.iter().enumerate()
                .map(|(n, own)| if n == 0 { Vec::new() } else { own.iter().map(|edge| edge.index(n)).collect() })
                .collect();
            let mut turns: Vec<(u32, usize)> = order.into_iter().zip(0..graph.len()).collect();
            turns.sort_unstable();
            let (mut sorter, mut ready) = (Sorter::default(), Vec::new());
            let known = |n: usize| n < 64 && there >> n & 1 == 1;
            for (_, n) in turns {
                if known(n) {
                    sorter.place(&name(n), &mut ready);
                } else {
                    sorter.add(event(n, &graph[n]), &mut ready);
                    sorter.add(event(n, &graph[n]), &mut ready);
                }
            }
            prop_assert_eq!(sorter.left().count(), 0);
            prop_assert_eq!(ready.len(), (0..graph.len()).filter(|n| !known(*n)).count());
            let mut before: HashSet<OwnedEventId> = (0..graph.len()).filter(|n| known(*n)).map(name).collect();
            for pdu in &ready {
                prop_assert!(pdu.auth_events().iter().all(|id| before.contains(id)));
                prop_assert!(before.insert(pdu.event_id().to_owned()));
            }
        }
    }
}
