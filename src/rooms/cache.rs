//! What is kept in memory of rooms: rendered events and trie nodes. Both are immutable but for one
//! thing: a redaction rewrites an event.

use std::sync::Arc;

use hearth_schema::{EventNid, NodeId, RoomNid};
use hearth_store::Pos;
use moka::sync::Cache;
use parking_lot::RwLock;

use crate::query::RoomEvent;
use crate::state::Node;

/// Bytes of events kept.
const EVENT_BYTES: u64 = 24 << 20;
/// Bytes of trie nodes kept.
const NODE_BYTES: u64 = 8 << 20;

/// Bounded caches shared by all rooms.
pub(crate) struct Caches {
    events: Cache<EventNid, Arc<RoomEvent>>,
    nodes: Cache<(RoomNid, NodeId), Arc<Node>>,
    /// Position of the newest redaction. A reader whose view is older may hold the unredacted form
    /// of some event and must not put it (back) into the cache.
    redacted: RwLock<Pos>,
}

impl Caches {
    pub(crate) fn new() -> Self {
        Self {
            events: Cache::builder()
                .weigher(|_, event: &Arc<RoomEvent>| event.weight())
                .max_capacity(EVENT_BYTES)
                .build(),
            nodes: Cache::builder().weigher(|_, node: &Arc<Node>| node_weight(node)).max_capacity(NODE_BYTES).build(),
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
        self.events.invalidate(&id);
    }

    pub(crate) fn node(&self, room: RoomNid, id: NodeId) -> Option<Arc<Node>> {
        self.nodes.get(&(room, id))
    }

    pub(crate) fn keep_node(&self, room: RoomNid, id: NodeId, node: Arc<Node>) {
        self.nodes.insert((room, id), node);
    }
}

fn node_weight(node: &Node) -> u32 {
    match node {
        Node::Leaf(entries) => 96 + 8 * u32::try_from(entries.len()).unwrap_or(u32::MAX / 16),
        Node::Branch(_) => 400,
    }
}
