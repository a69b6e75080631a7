//! Bundled aggregations: what is shown of an event's children with the event, in
//! `unsigned.m.relations`.
//!
//! A page costs one look-up for all its events together, which finds nothing for most. What the stored
//! row says is what a reader from whom nothing is hidden is shown; for others the children are looked
//! at one by one, a bounded number of them.
//!
//! See <https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events>.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_schema::{Aggregate, Aggregates, ChildTallies, Relations, RoomNid, ThreadSummary};
use hearth_store::{Order, StoreError, View};

use super::event::{RoomEvent, json_string};
use super::lens::Lens;
use super::loading::rows_of;
use super::render::{Reader, Rendered};
use crate::intake::Rooms;
use crate::relation::{REFERENCE, REPLACE, THREAD, edit, replaces};

/// Children of one event and one kind that are looked at for a reader from whom something is hidden.
const MAX_LOOKED_AT: usize = 500;
/// References that are listed.
const MAX_REFERENCES: usize = 1_000;

/// `m.relations` objects as JSON, by event number.
pub(crate) type Bundles = HashMap<u32, Vec<u8>>;

/// What one reader is shown of an event's children.
#[derive(Default)]
pub(super) struct Shown {
    edit: Option<Arc<RoomEvent>>,
    references: Vec<Arc<RoomEvent>>,
    pub(super) thread: Option<ShownThread>,
}

/// What one reader is shown of a thread.
pub(super) struct ShownThread {
    latest: Arc<RoomEvent>,
    replies: u32,
    participated: bool,
}

impl Rooms {
    /// What the children of `events`, all of `room`, come to for `reader`.
    pub(super) async fn bundles(
        &self,
        view: &View,
        reader: &Reader<'_>,
        room: RoomNid,
        events: &[Arc<RoomEvent>],
    ) -> Result<Bundles, StoreError> {
        let rows = self.aggregates(view, room, events).await?;
        if rows.is_empty() {
            return Ok(Bundles::new());
        }
        let lens = Lens::of(self, view, reader.user_id, room).await?;
        let outer = self.shown(view, &lens, rows).await?;
        let latest: Vec<_> =
            outer.values().filter_map(|shown| shown.thread.as_ref()).map(|thread| Arc::clone(&thread.latest)).collect();
        let mut rows = self.aggregates(view, room, &latest).await?;
        // A reply is no root. That keeps this from going deeper, whatever is stored.
        for (_, row) in &mut rows {
            row.thread = None;
        }
        let inner = self.shown(view, &lens, rows).await?;
        let edits: Vec<_> = outer.values().chain(inner.values()).filter_map(|shown| shown.edit.clone()).collect();
        let edits = self.rendered(view, reader, room, &edits, &Bundles::new()).await?;
        let inner = inner.iter().map(|(n, shown)| (*n, shown.write(&edits, &Rendered::default())));
        let latest = self.rendered(view, reader, room, &latest, &inner.collect()).await?;
        let bundles = outer.iter().map(|(n, shown)| (*n, shown.write(&edits, &latest)));
        Ok(bundles.filter(|(_, json)| json.len() > 2).collect())
    }

    /// The stored rows of those events that have one; state events have none.
    pub(super) async fn aggregates(
        &self,
        view: &View,
        room: RoomNid,
        events: &[Arc<RoomEvent>],
    ) -> Result<Vec<(Arc<RoomEvent>, Aggregate)>, StoreError> {
        let messages: Vec<_> = events.iter().filter(|event| event.state_key().is_none()).collect();
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: Vec<u32> = messages.iter().map(|event| event.n).collect();
        let rows = rows_of::<Aggregates>(view, room, &numbers).await?;
        Ok(messages.into_iter().zip(rows).filter_map(|(event, row)| Some((Arc::clone(event), row?))).collect())
    }

    pub(super) async fn shown(
        &self,
        view: &View,
        lens: &Lens<'_>,
        rows: Vec<(Arc<RoomEvent>, Aggregate)>,
    ) -> Result<HashMap<u32, Shown>, StoreError> {
        let mine = self.mine(view, lens, &rows).await?;
        // All that a clear look needs is loaded at once and is in the cache afterwards.
        let named = rows.iter().flat_map(|(_, row)| {
            [row.edit.as_ref().map(|edit| edit.n), row.thread.map(|thread| thread.latest)].into_iter().flatten()
        });
        let named: Vec<u32> = named.collect();
        let named = lens.shown(self.events(view, lens.room, &named).await?).await?;
        let named: HashMap<u32, Arc<RoomEvent>> = named.into_iter().map(|event| (event.n, event)).collect();
        let mut out = HashMap::with_capacity(rows.len());
        for ((event, row), mine) in rows.into_iter().zip(mine) {
            let edit = match &row.edit {
                Some(edit) if event.redacted_by.is_none() && !lens.ignores(event.sender()) => {
                    self.shown_edit(view, lens, &event, named.get(&edit.n)).await?
                }
                _ => None,
            };
            let references = if row.references == 0 {
                Vec::new()
            } else {
                let found = self.looked_at(view, (lens.room, event.n), REFERENCE, Order::Ascending).await?;
                lens.shown(found).await?
            };
            let thread = match row.thread {
                None => None,
                Some(thread) => {
                    let latest = named.get(&thread.latest).cloned();
                    let participated = mine || event.sender() == lens.user_id();
                    self.shown_thread(view, lens, (event.n, thread, latest))
                        .await?
                        .map(|(latest, replies)| ShownThread { latest, replies, participated })
                }
            };
            out.insert(event.n, Shown { edit, references, thread });
        }
        Ok(out)
    }

    /// `result[i]`: whether the reader has replied in the thread of `rows[i]`.
    async fn mine(
        &self,
        view: &View,
        lens: &Lens<'_>,
        rows: &[(Arc<RoomEvent>, Aggregate)],
    ) -> Result<Vec<bool>, StoreError> {
        let thread = self.ids().relation(&[THREAD]);
        let keys: Vec<_> = rows.iter().map(|(event, _)| (lens.room, event.n, lens.user, thread)).collect();
        let tallies = view.get_many::<ChildTallies>(&keys).await?;
        Ok(tallies.into_iter().map(|tally| tally.is_some()).collect())
    }

    /// The most recent edit that the reader may see.
    async fn shown_edit(
        &self,
        view: &View,
        lens: &Lens<'_>,
        original: &RoomEvent,
        newest: Option<&Arc<RoomEvent>>,
    ) -> Result<Option<Arc<RoomEvent>>, StoreError> {
        if let Some(newest) = newest.filter(|newest| replaces(&original.pdu, &newest.pdu)) {
            return Ok(Some(Arc::clone(newest)));
        }
        let mut edits = self.looked_at(view, (lens.room, original.n), REPLACE, Order::Descending).await?;
        edits = lens.shown(edits).await?;
        edits.retain(|child| replaces(&original.pdu, &child.pdu));
        Ok(edits.into_iter().max_by_key(|child| edit(child.n, &child.pdu)))
    }

    /// The newest reply that the reader is shown, and how many there are.
    async fn shown_thread(
        &self,
        view: &View,
        lens: &Lens<'_>,
        (root, thread, latest): (u32, ThreadSummary, Option<Arc<RoomEvent>>),
    ) -> Result<Option<(Arc<RoomEvent>, u32)>, StoreError> {
        if lens.sees_children(root, THREAD).await? {
            return Ok(latest.map(|latest| (latest, thread.replies)));
        }
        let replies = self.looked_at(view, (lens.room, root), THREAD, Order::Descending).await?;
        let shown = lens.shown(replies).await?;
        let count = u32::try_from(shown.len()).unwrap_or(u32::MAX);
        Ok(shown.into_iter().next().map(|latest| (latest, count)))
    }

    /// As many children as are looked at for one reader.
    async fn looked_at(
        &self,
        view: &View,
        (room, parent): (RoomNid, u32),
        rel_type: &str,
        order: Order,
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let limit = if rel_type == REFERENCE { MAX_REFERENCES } else { MAX_LOOKED_AT };
        let rows = view.page::<Relations, _>(&(room, parent, rel_type.to_owned()), order, limit).await?;
        let numbers: Vec<u32> = rows.into_iter().map(|(_, n)| n).collect();
        self.events(view, room, &numbers).await
    }
}

impl ShownThread {
    /// Whether the reader began it or has replied.
    pub(super) const fn participated(&self) -> bool {
        self.participated
    }
}

impl Shown {
    /// The object `m.relations`; `{}` if there is nothing to tell.
    fn write(&self, edits: &Rendered, latest: &Rendered) -> Vec<u8> {
        let mut out = vec![b'{'];
        let key = |key: &str, out: &mut Vec<u8>| {
            if out.len() > 1 {
                out.push(b',');
            }
            json_string(key, out);
            out.push(b':');
        };
        if !self.references.is_empty() {
            key(REFERENCE, &mut out);
            out.extend_from_slice(b"{\"chunk\":[");
            for (i, event) in self.references.iter().enumerate() {
                out.extend_from_slice(if i == 0 { b"{\"event_id\":" } else { b",{\"event_id\":" });
                json_string(event.event_id().as_str(), &mut out);
                out.push(b'}');
            }
            out.extend_from_slice(b"]}");
        }
        if let Some(edit) = self.edit.as_ref().and_then(|edit| edits.get(edit.n)) {
            key(REPLACE, &mut out);
            out.extend_from_slice(edit);
        }
        if let Some(thread) = &self.thread
            && let Some(latest) = latest.get(thread.latest.n)
        {
            key(THREAD, &mut out);
            out.extend_from_slice(b"{\"latest_event\":");
            out.extend_from_slice(latest);
            out.extend_from_slice(
                format!(r#","count":{},"current_user_participated":{}}}"#, thread.replies, thread.participated)
                    .as_bytes(),
            );
        }
        out.push(b'}');
        out
    }
}
