//! Loading what a plan needs.

use std::sync::Arc;

use bytes::Bytes;
use hearth_event::{POLICY_TYPE, Pdu, RoomVersion};
use hearth_schema::{CurrentState, Events, NodeId, RoomNid, StateKeys, StateNodes, StoredEvent};
use hearth_store::{StoreError, View};
use ruma_common::EventId;

use crate::plan::{Need, Planner, Slot, StateSlot};
use crate::state::Node;

/// A row that another row promises and that is not there, or that does not say what it must.
pub(crate) fn damaged(keyspace: &'static str, detail: impl Into<Arc<str>>) -> StoreError {
    StoreError::Corrupt { keyspace, detail: detail.into() }
}

/// Loads `need` into `planner`.
pub(crate) async fn gather(view: &View, planner: &mut Planner, need: Need) -> Result<(), StoreError> {
    match need {
        Need::Node(id) => {
            let node = load_node(view, planner.room, id).await?;
            planner.fresh_nodes.insert(id, node);
        }
        Need::Slots(mut keys) => {
            // Every event is asked for it (see `policy`): it comes along with whatever is read first.
            let policy = (POLICY_TYPE.to_owned(), String::new());
            if !planner.slots.contains_key(&policy) && !keys.contains(&policy) {
                keys.push(policy);
            }
            let slots = load_slots(view, planner.room, planner.version, &keys).await?;
            planner.slots.extend(keys.into_iter().zip(slots));
        }
    }
    Ok(())
}

/// `result[i]` belongs to `keys[i]`. Two round trips.
async fn load_slots(
    view: &View,
    room: RoomNid,
    version: RoomVersion,
    keys: &[StateSlot],
) -> Result<Vec<Slot>, StoreError> {
    let mut reads = view.reads();
    let asked: Vec<_> = keys
        .iter()
        .map(|(event_type, state_key)| {
            let key = (room, event_type.clone(), state_key.clone());
            (reads.get::<StateKeys>(&key), reads.get::<CurrentState>(&key))
        })
        .collect();
    let mut found = reads.run().await?;
    let mut slots = Vec::with_capacity(keys.len());
    for (nid, entry) in asked {
        slots.push(Slot { nid: found.take(nid)?, entry: found.take(entry)?, pdu: None });
    }
    let numbers: Vec<_> = slots.iter().filter_map(|slot| slot.entry).map(|entry| (room, entry.n)).collect();
    let mut events = view.get_many::<Events>(&numbers).await?.into_iter();
    for slot in &mut slots {
        if let Some(entry) = slot.entry {
            let stored = events.next().flatten();
            let stored =
                stored.ok_or_else(|| damaged("Events", format!("event {} is in the state but absent", entry.n)))?;
            slot.pdu = Some(parse(&stored, version)?);
        }
    }
    Ok(slots)
}

/// The event in a stored row.
pub(crate) fn parse(stored: &StoredEvent, version: RoomVersion) -> Result<Pdu, StoreError> {
    let id = <&EventId>::try_from(&*stored.event_id).map_err(|error| damaged("Events", error.to_string()))?;
    Pdu::from_stored(id, Bytes::clone(&stored.json), version).map_err(|error| damaged("Events", error.to_string()))
}

/// A node that some root or branch names.
pub(crate) async fn load_node(view: &View, room: RoomNid, id: NodeId) -> Result<Arc<Node>, StoreError> {
    let raw = view.get::<StateNodes>(&(room, id)).await?;
    let raw = raw.ok_or_else(|| damaged("StateNodes", format!("node {id:?} is named but absent")))?;
    Node::decode(&raw.0).map(Arc::new).map_err(|error| damaged("StateNodes", error.to_string()))
}
