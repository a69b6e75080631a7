//! What is kept in memory of rooms: rendered events, trie nodes and lists of the current state. All are
//! immutable but for one thing: a redaction rewrites an event.

use std::sync::Arc;

use hearth_schema::{EventNid, NodeId, RoomNid};
use hearth_store::Pos;
use parking_lot::RwLock;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::query::{Current, RoomEvent};
use crate::state::Node;

/// Bytes of events kept.
const EVENT_BYTES: u64 = 24 << 20;
/// Bytes of trie nodes kept.
const NODE_BYTES: u64 = 8 << 20;
/// Bytes of lists of the current state kept.
const CURRENT_BYTES: u64 = 8 << 20;

/// Entries that the caches make room for at once; more grow them.
const EXPECTED: usize = 1024;

/// Bounded caches shared by all rooms. A page of a large room looks up thousands of events, so a hit
/// must cost no more than a hash and a shared lock.
pub(crate) struct Caches {
    events: Cache<EventNid, Arc<RoomEvent>, Bytes>,
    nodes: Cache<(RoomNid, NodeId), Arc<Node>, Bytes>,
    /// One state a room: mostly the newest, but whoever reads with an old view may put back an older one.
    current: Cache<RoomNid, Arc<Current>, Bytes>,
    /// Position of the newest redaction. A reader whose view is older may hold the unredacted form
    /// of some event and must not put it (back) into the cache.
    redacted: RwLock<Pos>,
}

impl Caches {
    pub(crate) fn new() -> Self {
        Self {
            events: Cache::with_weighter(EXPECTED, EVENT_BYTES, Bytes),
            nodes: Cache::with_weighter(EXPECTED, NODE_BYTES, Bytes),
            current: Cache::with_weighter(EXPECTED, CURRENT_BYTES, Bytes),
            redacted: RwLock::new(Pos::ZERO),
        }
    }

    pub(crate) fn event(&self, id: EventNid) -> Option<Arc<RoomEvent>> {
        self.events.get(&id)
    }

    /// Keeps an event that was read in a view at `seen`.
    pub(crate) fn keep_event(&self, id: EventNid, event: &Arc<RoomEvent>, seen: Pos) {
        let redacted = self.redacted.read();
        if seen >= *redacted {
            self.events.insert(id, Arc::clone(event));
        }
    }

    /// Forgets an event that a commit at `pos` has rewritten.
    pub(crate) fn forget_redacted(&self, id: EventNid, pos: Pos) {
        let mut redacted = self.redacted.write();
        *redacted = pos.max(*redacted);
        self.events.remove(&id);
    }

    pub(crate) fn node(&self, room: RoomNid, id: NodeId) -> Option<Arc<Node>> {
        self.nodes.get(&(room, id))
    }

    pub(crate) fn keep_node(&self, room: RoomNid, id: NodeId, node: Arc<Node>) {
        self.nodes.insert((room, id), node);
    }

    pub(crate) fn current(&self, room: RoomNid) -> Option<Arc<Current>> {
        self.current.get(&room)
    }

    pub(crate) fn keep_current(&self, room: RoomNid, current: Arc<Current>) {
        self.current.insert(room, current);
    }
}

/// Weighs entries by the memory they take, about.
#[derive(Clone)]
struct Bytes;

impl Weighter<EventNid, Arc<RoomEvent>> for Bytes {
    fn weight(&self, _: &EventNid, event: &Arc<RoomEvent>) -> u64 {
        u64::from(event.weight())
    }
}

impl Weighter<(RoomNid, NodeId), Arc<Node>> for Bytes {
    fn weight(&self, _: &(RoomNid, NodeId), node: &Arc<Node>) -> u64 {
        match &**node {
            Node::Leaf(entries) => 96 + 8 * entries.len() as u64,
            Node::Branch(_) => 400,
        }
    }
}

impl Weighter<RoomNid, Arc<Current>> for Bytes {
    fn weight(&self, _: &RoomNid, current: &Arc<Current>) -> u64 {
        current.weight() as u64
    }
}
