//! Which ends of the room an event takes the place of, and whether it is one itself.
//!
//! An end is an accepted event that no accepted event comes after. It does not matter what lies between the two: whoever
//! was refused here, and is followed elsewhere, must not leave an end behind for ever.
//!
//! Events come in any order, so what was missing between two ends may come after both: see [`linked`].

use std::collections::BTreeSet;

use hearth_event::Pdu;
use hearth_schema::{Extremity, RoomHead, StateId, Verdict};
use hearth_store::StoreError;
use ruma_common::{EventId, OwnedEventId};

use crate::SendError;
use crate::gather::damaged;
use crate::graph::Graph;

/// Events looked at for one event; what would be found behind them stays an end, which costs no more than a fork does.
const MAX_WALK: usize = 1000;
/// Ends for which it is looked one by one whether the current state is another one without them.
const MAX_ALONE: usize = 20;

/// The IDs of `ends`.
///
/// # Errors
/// If a stored one is none.
pub(super) fn ids<'a>(ends: impl IntoIterator<Item = &'a Extremity>) -> Result<Vec<OwnedEventId>, StoreError> {
    let ids = ends.into_iter().map(|end| OwnedEventId::try_from(end.event_id.as_str()));
    ids.collect::<Result<_, _>>().map_err(|error| damaged("RoomHeads", error.to_string()))
}

/// Those of `ends` that come before one of `late` with no accepted event between.
pub(super) async fn followed(
    graph: &Graph,
    late: &[&Pdu],
    ends: &[Extremity],
) -> Result<BTreeSet<OwnedEventId>, StoreError> {
    let mut followed: BTreeSet<OwnedEventId> = late.iter().flat_map(|pdu| pdu.prev_events().iter().cloned()).collect();
    let bound = followed.len() + MAX_WALK;
    let mut todo: Vec<OwnedEventId> = followed.iter().cloned().collect();
    while !todo.is_empty() && followed.len() < bound && !all_in(ends, &followed) {
        let found = graph.find(&todo).await?;
        let refused = found.values().filter(|event| matches!(event.verdict, Verdict::Rejected | Verdict::SoftFailed));
        let before: BTreeSet<OwnedEventId> =
            refused.flat_map(|event| event.pdu.prev_events().iter().cloned()).collect();
        todo = before.into_iter().filter(|id| followed.insert(id.clone())).collect();
    }
    Ok(followed)
}

/// Whether one of `ends` comes after `pdu`, which fills a gap then, by way of events that are judged or among `now`. What
/// says that it is less deep than `pdu` is not looked behind: in a room that forks all the time, nothing would be found
/// there.
pub(super) async fn comes_before(
    graph: &Graph,
    pdu: &Pdu,
    ends: &[Extremity],
    now: &[&Pdu],
) -> Result<bool, StoreError> {
    let now: BTreeSet<&EventId> = now.iter().map(|pdu| pdu.event_id()).collect();
    let mut todo = ids(ends.iter().filter(|end| end.depth > pdu.depth()))?;
    let mut seen: BTreeSet<OwnedEventId> = todo.iter().cloned().collect();
    while !todo.is_empty() && seen.len() < MAX_WALK {
        let found = graph.find(&todo).await?;
        let judged = found.values().filter(|event| event.verdict != Verdict::Outlier || now.contains(event.event_id()));
        let deeper = judged.filter(|event| event.pdu.depth() > pdu.depth());
        let before: BTreeSet<OwnedEventId> = deeper.flat_map(|event| event.pdu.prev_events().iter().cloned()).collect();
        if before.contains(pdu.event_id()) {
            return Ok(true);
        }
        todo = before.into_iter().filter(|id| seen.insert(id.clone())).collect();
    }
    Ok(false)
}

/// What is known of events that came late and are no ends themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// An accepted event comes after all of them: they fill the gap before it.
    Followed,
    /// Perhaps nothing comes after them.
    Perhaps,
}

/// The ends that are left when `late` have come, which lead back from some of them to others; `None`: all are left.
///
/// The current state stays what it is: an end without which it would be another one stays too, until an event follows
/// both. The state after a gap is what one server has told of it, and must not take the place of what was known before
/// only because the gap is filled.
pub(super) async fn linked(
    graph: &Graph,
    head: &RoomHead,
    late: &[&Pdu],
    known: Late,
) -> Result<Option<Vec<Extremity>>, SendError> {
    let mut ends = head.extremities.clone();
    match known {
        Late::Followed => ends = left(graph, late, &ends).await?.unwrap_or(ends),
        Late::Perhaps => {
            for pdu in late {
                if let Some(left) = left(graph, &[*pdu], &ends).await?
                    && comes_before(graph, pdu, &left, late).await?
                {
                    ends = left;
                }
            }
        }
    }
    let gone = head.extremities.len() - ends.len();
    if gone == 0 || state_after(graph, &ends).await? == head.state {
        return Ok((gone > 0).then_some(ends));
    }
    // Not all of them, then: each for itself.
    let mut kept = head.extremities.clone();
    for end in head.extremities.iter().filter(|end| !ends.contains(end)).take(MAX_ALONE) {
        let without: Vec<Extremity> = kept.iter().filter(|kept| *kept != end).cloned().collect();
        if gone > 1 && state_after(graph, &without).await? == head.state {
            kept = without;
        }
    }
    Ok((kept.len() < head.extremities.len()).then_some(kept))
}

/// The current state of a room with these ends.
async fn state_after(graph: &Graph, ends: &[Extremity]) -> Result<StateId, SendError> {
    graph.resolve(states_after(graph, ends).await?.into_iter().collect()).await
}

/// `ends` without those that come before one of `late`, if these are some of them and not all.
async fn left(graph: &Graph, late: &[&Pdu], ends: &[Extremity]) -> Result<Option<Vec<Extremity>>, StoreError> {
    if ends.len() < 2 || late.is_empty() {
        return Ok(None);
    }
    let followed = followed(graph, late, ends).await?;
    let left: Vec<Extremity> = ends.iter().filter(|end| !is_in(&followed, end)).cloned().collect();
    Ok((!left.is_empty() && left.len() < ends.len()).then_some(left))
}

/// The states after `ends`.
pub(super) async fn states_after(graph: &Graph, ends: &[Extremity]) -> Result<BTreeSet<StateId>, StoreError> {
    let numbers: Vec<u32> = ends.iter().map(|end| end.n).collect();
    let mut states = BTreeSet::new();
    for event in graph.events(&numbers).await? {
        states.insert(graph.state_after(&event).await?.0);
    }
    Ok(states)
}

/// Whether `end` is one of `ids`.
pub(super) fn is_in(ids: &BTreeSet<OwnedEventId>, end: &Extremity) -> bool {
    ids.iter().any(|id| id.as_str() == end.event_id)
}

fn all_in(ends: &[Extremity], ids: &BTreeSet<OwnedEventId>) -> bool {
    ends.iter().all(|end| is_in(ids, end))
}
