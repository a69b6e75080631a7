//! Rows of events that are known through others only: auth chains and states.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use hearth_schema::{
    EventIds, EventNid, Events, RoomHead, Source, StateId, StateKeyNames, StateKeyNid, StateKeys, StoredEvent, Verdict,
};
use hearth_store::{Batch, Owner, StoreError};

use super::Outlier;
use crate::graph::Graph;

/// Adds `outliers` that are not stored yet to `batch`; numbers are taken from `head`. Gives the numbers of rows that were
/// there and are written again.
pub(crate) async fn put(
    graph: &Graph,
    batch: &mut Batch,
    head: &mut RoomHead,
    outliers: &[Outlier],
) -> Result<Vec<u32>, StoreError> {
    let room = graph.room;
    let ids: Vec<_> = outliers.iter().map(|outlier| outlier.pdu.event_id().to_owned()).collect();
    let mut known: HashMap<_, _> = graph.numbers(&ids).await?.into_iter().collect();
    let places: Vec<(String, String)> = outliers
        .iter()
        .filter_map(|outlier| Some((outlier.pdu.event_type().to_owned(), outlier.pdu.state_key()?.to_owned())))
        .collect();
    let nids = graph.state_keys(&places).await?;
    let mut nids: HashMap<_, _> = places.into_iter().zip(nids).filter_map(|(place, nid)| Some((place, nid?))).collect();
    let mut again = Vec::new();
    for Outlier { pdu, rejected, state_before } in outliers {
        let known_as = known.get(pdu.event_id()).copied();
        // The state before an event may become known later than the event.
        if known_as.is_some() && *state_before == StateId::EMPTY {
            continue;
        }
        let before = match known_as {
            Some(n) => graph.view.get::<Events>(&(room, n)).await?,
            None => None,
        };
        if before.as_ref().is_some_and(is_settled) {
            continue;
        }
        let n = known_as.unwrap_or(head.next_event);
        again.extend(known_as);
        if known_as.is_none() {
            head.next_event += 1;
            known.insert(pdu.event_id().to_owned(), n);
            let key = (room.lane(), graph.rooms.ids().event(pdu.event_id()));
            batch.put::<EventIds>(&key, &EventNid { room, n });
        }
        if let Some(state_key) = pdu.state_key() {
            let place = (pdu.event_type().to_owned(), state_key.to_owned());
            if let Entry::Vacant(free) = nids.entry(place) {
                let nid = StateKeyNid(head.next_state_key);
                head.next_state_key += 1;
                let place = free.key();
                batch.put::<StateKeys>(&(room, place.0.clone(), place.1.clone()), &nid);
                batch.put::<StateKeyNames>(&(room, nid), place);
                free.insert(nid);
            }
        }
        let (mut redacted_by, mut json) = (None, pdu.json().clone());
        if let Some(before) = before.filter(|before| before.redacted_by.is_some()) {
            (redacted_by, json) = (before.redacted_by, before.json);
        }
        let stored = StoredEvent {
            pos: batch.next_pos(),
            verdict: if rejected.is_some() { Verdict::Rejected } else { Verdict::Outlier },
            source: Source::Remote,
            state_before: *state_before,
            redacted_by,
            replaces_state: None,
            transaction: None,
            event_id: pdu.event_id().as_str().into(),
            json,
        };
        batch.put::<Events>(&(room, n), &stored);
    }
    Ok(again)
}

/// Whether the event has been judged by the state before it, so that there is nothing more to learn of it here. It may
/// have come by another way meanwhile.
fn is_settled(stored: &StoredEvent) -> bool {
    match stored.verdict {
        Verdict::Accepted | Verdict::SoftFailed => true,
        Verdict::Rejected => stored.state_before != StateId::EMPTY,
        Verdict::Outlier => false,
    }
}
