//! The stored graph of one room: events by ID, the states after them, their auth chains.
//!
//! Everything read here is about events that are stored, and what it says of them never changes; so it may be read
//! beside the room's task, which alone knows the room's growing end.

mod chain;
mod resolve;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hearth_event::{Pdu, RoomVersion};
use hearth_schema::{EventIds, NodeId, RawNode, RoomNid, StateId, StateKeyNid, StateKeys, StateNodes, Verdict};
use hearth_store::{Batch, Owner, StoreError, View};
use ruma_common::OwnedEventId;

pub(crate) use chain::AuthEdges;

use crate::SendError;
use crate::gather::damaged;
use crate::intake::Rooms;
use crate::query::RoomEvent;
use crate::state::{self, Node};

/// Events by ID.
pub(crate) type ById = HashMap<OwnedEventId, Arc<RoomEvent>>;

/// Nodes of tries that are perhaps not stored.
pub(crate) type NewNodes = Vec<(NodeId, Arc<Node>, Vec<u8>)>;

/// One room's graph at one moment.
pub(crate) struct Graph {
    pub rooms: Rooms,
    pub view: View,
    pub room: RoomNid,
    pub version: RoomVersion,
}

/// Whether it is known what the room's state was before `event`: not of an outlier, but for the room's create event,
/// before which there is no state. Any other create event is rejected.
pub(crate) fn has_state(event: &RoomEvent) -> bool {
    let begins = event.verdict != Verdict::Rejected && event.pdu.is_state("m.room.create", "");
    event.state_before != StateId::EMPTY || begins
}

/// The event, which knows whether it was rejected.
pub(crate) fn judged(event: &RoomEvent) -> Pdu {
    if event.verdict == Verdict::Rejected { event.pdu.with_rejected() } else { event.pdu.clone() }
}

impl Graph {
    /// The newest view of a room that is here.
    pub(crate) async fn latest(rooms: &Rooms, room: RoomNid, version: RoomVersion) -> Result<Self, StoreError> {
        Ok(Self { rooms: rooms.clone(), view: rooms.view().await?, room, version })
    }

    /// The room's create event; `None`: the room is not here yet.
    pub(crate) async fn create(&self) -> Result<Option<Pdu>, StoreError> {
        let create = self.rooms.current_event(&self.view, self.room, "m.room.create", "").await?;
        Ok(create.map(|event| judged(&event)))
    }

    /// Those of `ids` that are stored in this room, whatever was decided about them.
    pub(crate) async fn find(&self, ids: &[OwnedEventId]) -> Result<ById, StoreError> {
        let numbers = self.numbers(ids).await?;
        let numbers: Vec<u32> = numbers.into_iter().map(|(_, n)| n).collect();
        let events = self.events(&numbers).await?;
        Ok(events.into_iter().map(|event| (event.event_id().to_owned(), event)).collect())
    }

    /// Numbers of those of `ids` that are stored in this room.
    pub(crate) async fn numbers(&self, ids: &[OwnedEventId]) -> Result<Vec<(OwnedEventId, u32)>, StoreError> {
        let ids: BTreeSet<&OwnedEventId> = ids.iter().collect();
        let lane = self.room.lane();
        let keys: Vec<_> = ids.iter().map(|id| (lane, self.rooms.ids().event(id))).collect();
        let rows = self.view.get_many::<EventIds>(&keys).await?;
        let here = ids.into_iter().zip(rows);
        Ok(here
            .filter_map(|(id, found)| {
                found.filter(|found| found.room == self.room).map(|found| (id.to_owned(), found.n))
            })
            .collect())
    }

    /// Events by number: `result[i]` belongs to `numbers[i]`.
    pub(crate) async fn events(&self, numbers: &[u32]) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        self.rooms.events(&self.view, self.room, numbers).await
    }

    /// The state after `event`, which has one before it.
    pub(crate) async fn state_after(&self, event: &RoomEvent) -> Result<(StateId, NewNodes), StoreError> {
        let rejected = event.verdict == Verdict::Rejected;
        let Some(state_key) = event.state_key().filter(|_| !rejected) else {
            return Ok((event.state_before, Vec::new()));
        };
        let key = (self.room, event.event_type().to_owned(), state_key.to_owned());
        let nid = self.view.get::<StateKeys>(&key).await?;
        let nid = nid.ok_or_else(|| damaged("StateKeys", "a stored state event's place has no number"))?;
        self.changed(event.state_before, &[(nid.0, Some(event.n))]).await
    }

    /// `state` with `changes` made.
    pub(crate) async fn changed(
        &self,
        state: StateId,
        changes: &[state::Change],
    ) -> Result<(StateId, NewNodes), StoreError> {
        let edited = self
            .rooms
            .with_nodes(&self.view, self.room, |nodes| state::update(nodes, self.rooms.ids(), state, changes))
            .await?;
        for (id, node, _) in &edited.nodes {
            self.rooms.0.caches.keep_node(self.room, *id, Arc::clone(node));
        }
        Ok((edited.root.unwrap_or(StateId::EMPTY), edited.nodes))
    }

    /// Stores nodes: they are named by their content, so it does no harm if nobody ever refers to them.
    pub(crate) async fn save(&self, nodes: NewNodes) -> Result<(), SendError> {
        for chunk in nodes.chunks(4096) {
            let mut batch = Batch::new(self.room.lane());
            for (id, _, bytes) in chunk {
                batch.put::<StateNodes>(&(self.room, *id), &RawNode(bytes.clone()));
            }
            self.rooms.0.store.commit(batch).await?;
        }
        Ok(())
    }

    /// The one state that the states after `events` make, stored.
    pub(crate) async fn state_of(&self, events: &[Arc<RoomEvent>]) -> Result<StateId, SendError> {
        let mut roots = BTreeSet::new();
        for event in events {
            let (root, nodes) = self.state_after(event).await?;
            self.save(nodes).await?;
            roots.insert(root);
        }
        self.resolve(roots.into_iter().collect()).await
    }

    /// The events at `places` (type, state key) of `state`: `result[i]` belongs to `places[i]`.
    pub(crate) async fn at(
        &self,
        state: StateId,
        places: &[(String, String)],
    ) -> Result<Vec<Option<Arc<RoomEvent>>>, StoreError> {
        let keys: Vec<(&str, &str)> = places.iter().map(|(kind, key)| (kind.as_str(), key.as_str())).collect();
        let found = self.rooms.state_lookup(&self.view, self.room, state, &keys).await?;
        let numbers: Vec<u32> = found.iter().copied().flatten().collect();
        let mut events = self.events(&numbers).await?.into_iter();
        Ok(found.into_iter().map(|n| n.and_then(|_| events.next())).collect())
    }

    /// The numbers of (event type, state key) pairs that have one.
    pub(crate) async fn state_keys(&self, places: &[(String, String)]) -> Result<Vec<Option<StateKeyNid>>, StoreError> {
        let keys: Vec<_> = places.iter().map(|(kind, key)| (self.room, kind.clone(), key.clone())).collect();
        self.view.get_many::<StateKeys>(&keys).await
    }
}
