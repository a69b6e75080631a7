//! Walks backwards along `prev_events`.
//!
//! Most graphs are nearly a line, in which a walk takes as many steps as it finds events. Events before another in the
//! graph are nearly always before it in the timeline too, so a stretch of that is read at once, and the walk asks the
//! store only for what was not in it.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use hearth_schema::{Timeline, Verdict};
use hearth_store::{Order, Pos, StoreError};
use ruma_common::OwnedEventId;

use crate::graph::Graph;
use crate::query::RoomEvent;

/// The events of a room that a walk has met.
pub(super) struct Walk<'g> {
    graph: &'g Graph,
    /// `None`: the room has no such event that could be shown.
    met: HashMap<OwnedEventId, Option<Arc<RoomEvent>>>,
}

impl<'g> Walk<'g> {
    pub(super) fn new(graph: &'g Graph) -> Self {
        Self { graph, met: HashMap::new() }
    }

    /// Reads `count` events of the timeline up to `from`.
    pub(super) async fn read_ahead(&mut self, from: Pos, count: usize) -> Result<(), StoreError> {
        let (view, room) = (&self.graph.view, self.graph.room);
        let stretch = (Bound::Unbounded, Bound::Included(from));
        let rows = view.page_between::<Timeline, _>(&(room,), stretch, Order::Descending, count).await?;
        let numbers: Vec<u32> = rows.into_iter().map(|(_, n)| n).collect();
        for event in self.graph.events(&numbers).await? {
            self.met.insert(event.event_id().to_owned(), Some(event).filter(|event| is_shown(event)));
        }
        Ok(())
    }

    /// Those of `ids` that are events of the room and are shown to other servers, each once.
    pub(super) async fn load(&mut self, ids: &[OwnedEventId]) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let unknown: Vec<OwnedEventId> = ids.iter().filter(|id| !self.met.contains_key(*id)).cloned().collect();
        if !unknown.is_empty() {
            let mut found = self.graph.find(&unknown).await?;
            for id in unknown {
                let event = found.remove(&id).filter(|event| is_shown(event));
                self.met.insert(id, event);
            }
        }
        let distinct: BTreeSet<&OwnedEventId> = ids.iter().collect();
        Ok(distinct.into_iter().filter_map(|id| self.met.get(id).cloned().flatten()).collect())
    }
}

/// Rejected events are no part of a room's history, and of outliers it is not known where they are in it.
fn is_shown(event: &RoomEvent) -> bool {
    matches!(event.verdict, Verdict::Accepted | Verdict::SoftFailed)
}
