//! Auth chains: what events stand on, by numbers.
//!
//! A room of many members has an auth graph of as many events, and resolving asks for most of it again and again. Each
//! event has a handful of edges that never change once they are all here, so they are kept as numbers, and a walk over tens of thousands of
//! them costs milliseconds. There is no table of who reaches whom: its size is what ruined others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use hearth_schema::RoomNid;
use hearth_store::StoreError;
use parking_lot::Mutex;

use super::Graph;

/// Rooms whose edges are kept.
const MAX_ROOMS: usize = 256;
/// Edges looked up at once.
const PAGE: usize = 1024;

type Edges = HashMap<u32, Box<[u32]>>;

/// The auth edges of rooms, as far as they have been walked.
#[derive(Default)]
pub(crate) struct AuthEdges(Mutex<BTreeMap<RoomNid, Arc<Mutex<Edges>>>>);

impl AuthEdges {
    fn room(&self, room: RoomNid) -> Arc<Mutex<Edges>> {
        let mut rooms = self.0.lock();
        if rooms.len() >= MAX_ROOMS && !rooms.contains_key(&room) {
            rooms.clear();
        }
        Arc::clone(rooms.entry(room).or_default())
    }

    /// Forgets a room whose numbers are given out anew.
    pub(crate) fn forget(&self, room: RoomNid) {
        self.0.lock().remove(&room);
    }
}

impl Graph {
    /// Everything that `events` stand on, they themselves left out unless one stands on another.
    pub(crate) async fn auth_chain(&self, events: Vec<u32>) -> Result<HashSet<u32>, StoreError> {
        let known = self.rooms.0.auth_edges.room(self.room);
        let mut chain = HashSet::new();
        let mut todo = events;
        let mut entered: HashSet<u32> = todo.iter().copied().collect();
        // Of events that stand on one that is not here. It may come later, so this is not kept.
        let mut torn = Edges::new();
        while !todo.is_empty() {
            let mut unknown = Vec::new();
            {
                let known = known.lock();
                while let Some(n) = todo.pop() {
                    match known.get(&n).or_else(|| torn.get(&n)) {
                        Some(edges) => {
                            for edge in edges {
                                chain.insert(*edge);
                                if entered.insert(*edge) {
                                    todo.push(*edge);
                                }
                            }
                        }
                        None => unknown.push(n),
                    }
                }
            }
            for page in unknown.chunks(PAGE) {
                let (whole, some) = self.load_edges(page).await?;
                known.lock().extend(whole);
                torn.extend(some);
            }
            todo = unknown;
        }
        Ok(chain)
    }

    /// The same with `events` themselves. The auth difference of states is taken between such chains: the specification
    /// leaves open whether an event is in its own chain, and all servers must mean the same or the room splits. With an
    /// event that one state has, and that only the other state's events stand on, they do differ.
    pub(crate) async fn auth_chain_with(&self, events: Vec<u32>) -> Result<HashSet<u32>, StoreError> {
        let mut chain = self.auth_chain(events.clone()).await?;
        chain.extend(events);
        Ok(chain)
    }

    /// The edges of events, apart: those of which every end is here, and the others.
    async fn load_edges(&self, numbers: &[u32]) -> Result<(Edges, Edges), StoreError> {
        let events = self.events(numbers).await?;
        let named: Vec<_> = events.iter().flat_map(|event| event.pdu.auth_events().iter().cloned()).collect();
        let by_id: HashMap<_, _> = self.numbers(&named).await?.into_iter().collect();
        let edges = events.iter().map(|event| {
            let edges: Box<[u32]> = event.pdu.auth_events().iter().filter_map(|id| by_id.get(id).copied()).collect();
            (event.n, event.pdu.auth_events().len(), edges)
        });
        let (whole, torn): (Vec<_>, Vec<_>) = edges.partition(|(_, named, edges)| edges.len() == *named);
        let as_edges = |part: Vec<(u32, usize, Box<[u32]>)>| part.into_iter().map(|(n, _, edges)| (n, edges)).collect();
        Ok((as_edges(whole), as_edges(torn)))
    }
}
