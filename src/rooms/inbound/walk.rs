//! The walk back from an event to what is here: a page at a time, a bounded number of pages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hearth_event::{Pdu, check};
use ruma_common::OwnedEventId;

use super::asking::is_for_later;
use super::take::Taker;
use super::{ends, judge};
use crate::SendError;
use crate::graph::has_state;
use crate::remote::{MissingEvents, RawPdu};

/// Events asked for in one `get_missing_events`: more than that no server tells.
const PAGE: usize = 20;
/// Who tells fewer events than this knows no more. Some servers have smaller pages than ours.
const FEW: usize = 10;
/// Pages asked for before one event. What lies further back stays a gap, which is filled in the background.
const MAX_PAGES: usize = 10;
/// How long the walk goes on, at the most: an event may take longer than that with all that it stands on, and others are
/// to be asked too.
const PATIENCE: Duration = Duration::from_secs(30);

impl Taker {
    /// Fetches what lies between what is here and `pdu`, and takes it. What cannot be had stays a gap.
    ///
    /// Gives those that were not taken because the origin does not tell their auth events: it does not know the state
    /// before them either, and is not asked for that.
    pub(crate) async fn fill_gap(&self, pdu: &Pdu) -> Result<BTreeSet<OwnedEventId>, SendError> {
        let walker = self.for_at_most(PATIENCE.min(self.time_left() / 2));
        let mut found: BTreeMap<OwnedEventId, Pdu> = BTreeMap::new();
        let mut edge = vec![pdu.event_id().to_owned()];
        for _ in 0..MAX_PAGES {
            let told = walker.page_before(edge).await?;
            if let Some(error) = told.iter().find_map(|raw| check(raw.get().as_bytes(), self.version).err()) {
                // Whoever builds on what is no event of this room version builds on nothing.
                self.rooms.0.baseless.remember(&self.origin, pdu.event_id(), self.rooms.0.clock.now());
                return Err(SendError::BadContent(format!("what came before it is no event: {error}")));
            }
            let is_last = told.len() < FEW;
            let new: Vec<Pdu> = self
                .admitted(told)
                .await?
                .into_iter()
                .filter(|event| event.event_id() != pdu.event_id() && !found.contains_key(event.event_id()))
                .collect();
            if new.is_empty() {
                break;
            }
            found.extend(new.iter().map(|event| (event.event_id().to_owned(), event.clone())));
            edge = self.edge_of(&new, &found).await?;
            if edge.is_empty() || is_last {
                break;
            }
        }
        let mut events: Vec<Pdu> = found.into_values().collect();
        events.sort_by(|a, b| a.depth().cmp(&b.depth()).then_with(|| a.event_id().cmp(b.event_id())));
        let mut unfounded = BTreeSet::new();
        for event in events {
            if let Err(error) = Box::pin(self.take_plainly(event.clone(), &unfounded)).await {
                // What comes after one that was not answered would ask the same again.
                if is_for_later(&error) {
                    return Err(error);
                }
                tracing::debug!(%error, event_id = %event.event_id(), "an event before another was not taken");
                self.fetch_auth_events(&self.origin, &event).await?;
                if judge::is_unfounded(&self.graph().await?, &event).await? {
                    unfounded.insert(event.event_id().to_owned());
                }
            }
        }
        Ok(unfounded)
    }

    /// What the origin tells of the times before `latest`.
    async fn page_before(&self, latest: Vec<OwnedEventId>) -> Result<Vec<RawPdu>, SendError> {
        let graph = self.graph().await?;
        let head = self.rooms.head(&graph.view, self.room).await?;
        let earliest = ends::ids(&head.extremities)?;
        let ask = MissingEvents { latest, earliest, limit: PAGE, min_depth: 0 };
        let raw = match self.in_time(self.rooms.0.remote.missing_events(&self.origin, &self.room_id, &ask)).await {
            Ok(raw) => raw,
            Err(error) => {
                tracing::debug!(%error, room_id = %self.room_id, "a gap was not filled");
                return Ok(Vec::new());
            }
        };
        Ok(raw.into_iter().take(PAGE).collect())
    }

    /// Those of `events` that follow something that is neither here nor in `found`.
    async fn edge_of(
        &self,
        events: &[Pdu],
        found: &BTreeMap<OwnedEventId, Pdu>,
    ) -> Result<Vec<OwnedEventId>, SendError> {
        let before: BTreeSet<&OwnedEventId> = events.iter().flat_map(Pdu::prev_events).collect();
        let before: Vec<OwnedEventId> = before.into_iter().filter(|id| !found.contains_key(*id)).cloned().collect();
        let here = self.graph().await?.find(&before).await?;
        let missing =
            |id: &OwnedEventId| !found.contains_key(id) && !here.get(id).is_some_and(|event| has_state(event));
        let edge = events.iter().filter(|event| event.prev_events().iter().any(missing));
        Ok(edge.map(|event| event.event_id().to_owned()).take(PAGE).collect())
    }
}
