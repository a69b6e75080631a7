//! Which thread an event belongs to.

use std::borrow::Cow;

use hearth_schema::Relations;
use hearth_store::{Order, StoreError, View};
use ruma_common::{EventId, OwnedEventId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::event::RoomEvent;
use crate::intake::Rooms;

/// Relations that are followed on the way to a thread.
///
/// See <https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts>.
const MAX_HOPS: usize = 3;
/// `rel_type` of the events of a thread.
const THREAD: &str = "m.thread";

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, rename = "m.relates_to")]
    relates_to: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RelatesTo<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    rel_type: Cow<'a, str>,
}

impl RoomEvent {
    /// Root of the thread that the event says it is in.
    pub fn thread_root(&self) -> Option<OwnedEventId> {
        self.relation().filter(|(_, rel_type)| rel_type == THREAD).map(|(parent, _)| parent)
    }

    /// The event that it relates to, and how. What is no relation is content like any other.
    fn relation(&self) -> Option<(OwnedEventId, String)> {
        let content = self.pdu.content().get();
        // Most events relate to nothing, and need not be parsed for it.
        if !content.contains("\"m.relates_to\"") {
            return None;
        }
        let relates_to = serde_json::from_str::<Content<'_>>(content).ok()?.relates_to?;
        let RelatesTo { event_id, rel_type } = serde_json::from_str(relates_to.get()).ok()?;
        Some((EventId::parse(event_id.as_ref()).ok()?, rel_type.into_owned()))
    }
}

impl Rooms {
    /// Number of the root of the thread that `event` is in: its own, or that of an event that it
    /// relates to. `None`: the main timeline, which roots belong to.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn thread_of(&self, view: &View, event: &RoomEvent) -> Result<Option<u32>, StoreError> {
        Ok(self.ancestry(view, event).await?.thread)
    }

    /// Whether `event` can be the end of what is read of the thread with this root: it is in the
    /// thread, or it is the root, or it relates to the root in another way.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) async fn is_about_thread(&self, view: &View, event: &RoomEvent, root: u32) -> Result<bool, StoreError> {
        let thread = (event.room, root, THREAD.to_owned());
        if view.page::<Relations, _>(&thread, Order::Ascending, 1).await?.is_empty() {
            return Ok(false);
        }
        if event.n == root {
            return Ok(true);
        }
        let found = self.ancestry(view, event).await?;
        Ok(found.thread.map_or_else(|| found.parents.contains(&root), |thread| thread == root))
    }

    async fn ancestry(&self, view: &View, event: &RoomEvent) -> Result<Ancestry, StoreError> {
        let mut found = Ancestry::default();
        let mut relation = event.relation();
        for _ in 0..=MAX_HOPS {
            let Some((parent, rel_type)) = relation else { break };
            let Some(parent) = self.event_in_room(view, event.room, &parent).await? else { break };
            if rel_type == THREAD {
                found.thread = Some(parent.n);
                break;
            }
            found.parents.push(parent.n);
            relation = parent.relation();
        }
        Ok(found)
    }
}

/// Where relations lead from an event.
#[derive(Default)]
struct Ancestry {
    /// Root of the thread.
    thread: Option<u32>,
    /// Events on the way, without a root.
    parents: Vec<u32>,
}
