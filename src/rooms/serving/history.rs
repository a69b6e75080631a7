//! `backfill` and `get_missing_events`.

use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use hearth_store::{Pos, StoreError};
use ruma_common::{OwnedEventId, RoomId, ServerName};

use super::ServeError;
use super::event::json;
use super::sight::Sight;
use super::walk::Walk;
use crate::graph::Graph;
use crate::intake::Rooms;
use crate::query::RoomEvent;

/// Events of one answer to `backfill`.
const MAX_BACKFILL: usize = 100;
/// Events of one answer to `get_missing_events`.
const MAX_MISSING: usize = 20;
/// Events that a walk begins or ends at.
const MAX_ENDS: usize = 50;
/// Events that are looked at for one answer to `get_missing_events`.
const MAX_LOOKED_AT: usize = 400;

/// Asks for events between others.
#[derive(Clone, Debug, Default)]
pub struct MissingQuery {
    /// Go back from these, which are not in the answer.
    pub latest: Vec<OwnedEventId>,
    /// Go no further than to these, which are not in it either.
    pub earliest: Vec<OwnedEventId>,
    /// Events at the most.
    pub limit: usize,
    /// Nothing less deep than this.
    pub min_depth: u64,
}

/// An event on the way back; the deepest comes first, of equals the newest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    depth: u64,
    pos: Pos,
    event_id: OwnedEventId,
}

impl Next {
    fn of(event: &RoomEvent) -> Self {
        Self { depth: event.pdu.depth(), pos: event.pos, event_id: event.event_id().to_owned() }
    }
}

impl Rooms {
    /// `from` and what came before, newest first: at most `limit` events, and never more than a hundred. Those that
    /// `origin` may not see are redacted.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid>
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn backfill_for_server(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<Vec<Bytes>, ServeError> {
        let graph = self.admit_reader(origin, room_id).await?;
        let from = &from[..from.len().min(MAX_ENDS)];
        let events = back(&graph, from, limit.min(MAX_BACKFILL)).await?;
        let shown = Sight::of(&graph, origin).show(events).await?;
        Ok(json(&shown))
    }

    /// What lies between `earliest` and `latest`, oldest first: at most `limit` events, and never more than twenty.
    /// Those that `origin` may not see are redacted.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid>
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn missing_for_server(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        query: &MissingQuery,
    ) -> Result<Vec<Bytes>, ServeError> {
        let graph = self.admit_reader(origin, room_id).await?;
        let mut events = missing(&graph, query).await?;
        events.sort_by_key(|event| Next::of(event));
        let shown = Sight::of(&graph, origin).show(events).await?;
        Ok(json(&shown))
    }
}

/// Backwards, always from the deepest event that was met.
async fn back(graph: &Graph, from: &[OwnedEventId], limit: usize) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
    let mut walk = Walk::new(graph);
    let first = walk.load(from).await?;
    if let Some(newest) = first.iter().map(|event| event.pos).max() {
        walk.read_ahead(newest, limit.saturating_mul(2)).await?;
    }
    let mut met: HashSet<OwnedEventId> = HashSet::new();
    let mut next: BinaryHeap<Next> = BinaryHeap::new();
    let mut enter = |events: Vec<Arc<RoomEvent>>, next: &mut BinaryHeap<Next>| {
        next.extend(events.iter().filter(|event| met.insert(event.event_id().to_owned())).map(|event| Next::of(event)));
    };
    enter(first, &mut next);
    let mut out = Vec::new();
    while out.len() < limit
        && let Some(Next { event_id, .. }) = next.pop()
    {
        let Some(event) = walk.load(&[event_id]).await?.pop() else { continue };
        enter(walk.load(event.pdu.prev_events()).await?, &mut next);
        out.push(event);
    }
    Ok(out)
}

/// Breadth first from the latest events.
async fn missing(graph: &Graph, query: &MissingQuery) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
    let limit = query.limit.min(MAX_MISSING);
    let mut walk = Walk::new(graph);
    let latest = walk.load(&query.latest[..query.latest.len().min(MAX_ENDS)]).await?;
    if let Some(newest) = latest.iter().map(|event| event.pos).max() {
        walk.read_ahead(newest, limit.saturating_mul(2)).await?;
    }
    let mut entered: HashSet<OwnedEventId> = query.earliest.iter().take(MAX_ENDS).cloned().collect();
    entered.extend(latest.iter().map(|event| event.event_id().to_owned()));
    let mut out: Vec<Arc<RoomEvent>> = Vec::new();
    let mut wave = latest;
    let mut looked_at = 0_usize;
    while !wave.is_empty() && out.len() < limit && looked_at < MAX_LOOKED_AT {
        let before = wave.iter().flat_map(|event| event.pdu.prev_events());
        let before: Vec<OwnedEventId> = before.filter(|id| entered.insert((*id).clone())).cloned().collect();
        looked_at = looked_at.saturating_add(before.len());
        wave = walk.load(&before).await?;
        wave.retain(|event| event.pdu.depth() >= query.min_depth);
        wave.sort_by_key(|event| std::cmp::Reverse(Next::of(event)));
        let left = limit.saturating_sub(out.len());
        out.extend(wave.iter().take(left).cloned());
    }
    Ok(out)
}
