//! Filtering events by their children.

use std::sync::Arc;

use hearth_schema::{ChildTallies, Relations, RoomNid};
use hearth_store::{Order, StoreError, View};
use ruma_common::UserId;

use super::event::RoomEvent;
use super::history::{EventFilter, RelatedBy};
use crate::intake::Rooms;

impl Rooms {
    /// Those of `events`, all of `room`, that have the children that `filter` asks for.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn with_children(
        &self,
        view: &View,
        room: RoomNid,
        filter: &EventFilter,
        events: Vec<Arc<RoomEvent>>,
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        if filter.related_by == RelatedBy::default() {
            return Ok(events);
        }
        let mut kept = Vec::new();
        for event in events {
            if self.has_child(view, (room, event.n), &filter.related_by).await? {
                kept.push(event);
            }
        }
        Ok(kept)
    }

    async fn has_child(&self, view: &View, (room, n): (RoomNid, u32), wanted: &RelatedBy) -> Result<bool, StoreError> {
        let senders = wanted.senders.as_ref().map(|senders| {
            senders.iter().filter_map(|id| <&UserId>::try_from(id.as_str()).ok()).map(|id| self.ids().user(id))
        });
        match (senders, &wanted.rel_types) {
            (None, None) => Ok(true),
            (None, Some(types)) => {
                for rel_type in types {
                    let prefix = (room, n, rel_type.clone());
                    if !view.page::<Relations, _>(&prefix, Order::Ascending, 1).await?.is_empty() {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Some(senders), None) => {
                for user in senders {
                    if !view.page::<ChildTallies, _>(&(room, n, user), Order::Ascending, 1).await?.is_empty() {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Some(senders), Some(types)) => {
                let types: Vec<_> = types.iter().map(|rel_type| self.ids().relation(&[rel_type])).collect();
                let keys: Vec<_> =
                    senders.flat_map(|user| types.iter().map(move |rel_type| (room, n, user, *rel_type))).collect();
                Ok(view.get_many::<ChildTallies>(&keys).await?.iter().any(Option::is_some))
            }
        }
    }
}
