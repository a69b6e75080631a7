//! Which ends of the room an event takes the place of, and whether it is one itself.
//!
//! An end is an accepted event that no accepted event comes after. It does not matter what lies between the two: whoever
//! was refused here, and is followed elsewhere, must not leave an end behind for ever.

use std::collections::BTreeSet;

use hearth_event::Pdu;
use hearth_schema::{Extremity, Verdict};
use hearth_store::StoreError;
use ruma_common::OwnedEventId;

use crate::gather::damaged;
use crate::graph::Graph;

/// Events looked at for one event; what would be found behind them stays an end, which costs no more than a fork does.
const MAX_WALK: usize = 1000;

/// The IDs of `ends`.
///
/// # Errors
/// If a stored one is none.
pub(super) fn ids<'a>(ends: impl IntoIterator<Item = &'a Extremity>) -> Result<Vec<OwnedEventId>, StoreError> {
    let ids = ends.into_iter().map(|end| OwnedEventId::try_from(end.event_id.as_str()));
    ids.collect::<Result<_, _>>().map_err(|error| damaged("RoomHeads", error.to_string()))
}

/// Those of `ends` that come before `pdu` with no accepted event between.
pub(super) async fn followed(
    graph: &Graph,
    pdu: &Pdu,
    ends: &[Extremity],
) -> Result<BTreeSet<OwnedEventId>, StoreError> {
    let mut followed: BTreeSet<OwnedEventId> = pdu.prev_events().iter().cloned().collect();
    let mut todo: Vec<OwnedEventId> = followed.iter().cloned().collect();
    while !todo.is_empty() && followed.len() < MAX_WALK && !all_in(ends, &followed) {
        let found = graph.find(&todo).await?;
        let refused = found.values().filter(|event| matches!(event.verdict, Verdict::Rejected | Verdict::SoftFailed));
        let before: BTreeSet<OwnedEventId> =
            refused.flat_map(|event| event.pdu.prev_events().iter().cloned()).collect();
        todo = before.into_iter().filter(|id| followed.insert(id.clone())).collect();
    }
    Ok(followed)
}

/// Whether one of `ends` comes after `pdu`, which fills a gap then. What says that it is less deep than `pdu` is not
/// looked behind: in a room that forks all the time, nothing would be found there.
pub(super) async fn comes_before(graph: &Graph, pdu: &Pdu, ends: &[Extremity]) -> Result<bool, StoreError> {
    let mut todo = ids(ends.iter().filter(|end| end.depth > pdu.depth()))?;
    let mut seen: BTreeSet<OwnedEventId> = todo.iter().cloned().collect();
    while !todo.is_empty() && seen.len() < MAX_WALK {
        let found = graph.find(&todo).await?;
        let deeper = found.values().filter(|event| event.pdu.depth() > pdu.depth());
        let before: BTreeSet<OwnedEventId> = deeper.flat_map(|event| event.pdu.prev_events().iter().cloned()).collect();
        if before.contains(pdu.event_id()) {
            return Ok(true);
        }
        todo = before.into_iter().filter(|id| seen.insert(id.clone())).collect();
    }
    Ok(false)
}

fn all_in(ends: &[Extremity], ids: &BTreeSet<OwnedEventId>) -> bool {
    ends.iter().all(|end| ids.iter().any(|id| id.as_str() == end.event_id))
}
