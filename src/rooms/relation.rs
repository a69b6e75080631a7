//! What an event is to another one, and what that changes in the rows kept of both.
//!
//! `Relations` has every child. What readers are shown of an event's children without asking for them
//! ([`Aggregate`]) is kept beside it, in the same batch as the child, so that showing an event costs one
//! look-up and not a scan. The room's one task is the only writer, so counting up is safe; what it has
//! submitted and what is not durable yet is remembered in [`Pending`].
//!
//! See <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>.

mod late;

use std::collections::HashMap;

use hearth_event::Pdu;
use hearth_schema::{
    Aggregate, Aggregates, ChildTallies, Edit, EventNid, Events, Ids, RelationKey, Relations, RoomNid, ThreadSummary,
    Threads, UserNid, Verdict,
};
use hearth_store::{Batch, Order, Pos, StoreError, View};
use ruma_common::canonical_json::CanonicalJsonValue;
use ruma_common::{CanonicalJsonObject, OwnedEventId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::SendError;
use crate::attach::{RedactionTarget, number_of};
use crate::cache::Caches;
use crate::gather::{damaged, parse};
use crate::plan::{Intent, Planned};

pub(crate) use late::Adoption;

/// An event shows the newest version of another one.
pub(crate) const REPLACE: &str = "m.replace";
/// An event belongs to the thread of another one.
pub(crate) const THREAD: &str = "m.thread";
/// An event names another one.
pub(crate) const REFERENCE: &str = "m.reference";
/// An event reacts to another one.
pub(crate) const ANNOTATION: &str = "m.annotation";

/// Bytes of a relation type; with more it is content like any other.
const MAX_TYPE_BYTES: usize = 255;
/// Edits that are looked at to find the most recent one after it was redacted.
const MAX_EDITS: usize = 1_000;

/// `m.relates_to`, as far as it makes a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    pub event_id: OwnedEventId,
    pub rel_type: String,
    /// What an annotation says.
    pub key: Option<String>,
}

impl Relation {
    /// The relation in the content of an event to be; what is malformed is content like any other.
    pub(crate) fn in_content(content: &CanonicalJsonObject) -> Option<Self> {
        let relates = content.get("m.relates_to")?.as_object()?;
        let text = |key| relates.get(key).and_then(CanonicalJsonValue::as_str);
        Self::new(text("event_id")?, text("rel_type")?, text("key"))
    }

    /// The relation of an event.
    pub(crate) fn of(pdu: &Pdu) -> Option<Self> {
        #[derive(Deserialize)]
        struct Content {
            #[serde(rename = "m.relates_to")]
            relates: serde_json::Value,
        }
        // Most events relate to nothing, and need not be parsed for it.
        if !pdu.content().get().contains("\"m.relates_to\"") {
            return None;
        }
        // Content is what clients make of it: what does not read as a relation is none.
        let relates = serde_json::from_str::<Content>(pdu.content().get()).ok()?.relates;
        let text = |key| relates.get(key).and_then(serde_json::Value::as_str);
        Self::new(text("event_id")?, text("rel_type")?, text("key"))
    }

    fn new(event_id: &str, rel_type: &str, key: Option<&str>) -> Option<Self> {
        let event_id = OwnedEventId::try_from(event_id).ok()?;
        let short = rel_type.len() <= MAX_TYPE_BYTES;
        short.then(|| Self { event_id, rel_type: rel_type.to_owned(), key: key.map(str::to_owned) })
    }

    /// What a user's children are counted by: the relation type, and for annotations what they say.
    fn tallies(&self, ids: &Ids, event_type: &str) -> Vec<RelationKey> {
        let mut keys = vec![ids.relation(&[&self.rel_type])];
        if self.rel_type == ANNOTATION {
            keys.extend(self.key.as_ref().map(|key| ids.relation(&[&self.rel_type, event_type, key])));
        }
        keys
    }
}

/// Whether `child`, an `m.replace` of `parent`, is valid.
///
/// See <https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events>.
pub(crate) fn replaces(parent: &Pdu, child: &Pdu) -> bool {
    parent.sender() == child.sender()
        && parent.event_type() == child.event_type()
        && parent.state_key().is_none()
        && child.state_key().is_none()
        && Relation::of(parent).is_none_or(|relation| relation.rel_type != REPLACE)
        && (child.event_type() == "m.room.encrypted" || has_new_content(child))
}

fn has_new_content(pdu: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow, rename = "m.new_content")]
        new: &'a RawValue,
    }
    serde_json::from_str::<Content<'_>>(pdu.content().get()).is_ok_and(|content| content.new.get().starts_with('{'))
}

/// An edit as it is kept.
pub(crate) fn edit(n: u32, pdu: &Pdu) -> Edit {
    Edit { origin_server_ts: pdu.origin_server_ts(), event_id: pdu.event_id().to_string(), n }
}

/// A child that is added or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Child {
    Added,
    /// It was at this position.
    Redacted(Pos),
}

/// What a child changes in the rows of relations.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    parent: u32,
    rel_type: String,
    child: Child,
    aggregate: Aggregate,
    /// Newest reply of the parent's thread before and after.
    newest: (Option<u32>, Option<u32>),
    /// Whose children, by what they say, and how many there are then.
    tallies: Vec<(UserNid, RelationKey, u32)>,
}

impl Change {
    /// Adds the rows; the child is `n`, stored at `pos`.
    pub(crate) fn persist(&self, batch: &mut Batch, room: RoomNid, n: u32, pos: Pos) {
        match self.child {
            Child::Added => batch.put::<Relations>(&(room, self.parent, self.rel_type.clone(), pos), &n),
            Child::Redacted(at) => batch.delete::<Relations>(&(room, self.parent, self.rel_type.clone(), at)),
        }
        if self.aggregate == Aggregate::default() {
            batch.delete::<Aggregates>(&(room, self.parent));
        } else {
            batch.put::<Aggregates>(&(room, self.parent), &self.aggregate);
        }
        if self.newest.0 != self.newest.1 {
            if let Some(before) = self.newest.0 {
                batch.delete::<Threads>(&(room, before));
            }
            if let Some(after) = self.newest.1 {
                batch.put::<Threads>(&(room, after), &self.parent);
            }
        }
        for (user, key, count) in &self.tallies {
            let key = (room, self.parent, *user, *key);
            match count {
                0 => batch.delete::<ChildTallies>(&key),
                count => batch.put::<ChildTallies>(&key, count),
            }
        }
    }
}

/// Rows of relations as they are once everything submitted is durable.
#[derive(Default)]
pub(crate) struct Pending {
    aggregates: HashMap<u32, Aggregate>,
    tallies: HashMap<(u32, UserNid, RelationKey), u32>,
}

impl Pending {
    /// Remembers a change that is about to be submitted.
    pub(crate) fn apply(&mut self, change: &Change) {
        self.aggregates.insert(change.parent, change.aggregate.clone());
        for (user, key, count) in &change.tallies {
            self.tallies.insert((change.parent, *user, *key), *count);
        }
    }

    /// Forgets what has become durable.
    pub(crate) fn clear(&mut self) {
        self.aggregates.clear();
        self.tallies.clear();
    }
}

/// A relation whose parent is at hand.
pub(crate) struct Bond {
    relation: Relation,
    n: u32,
    parent: Pdu,
    aggregate: Aggregate,
    tallies: Vec<(UserNid, RelationKey, u32)>,
}

/// What an event that shall be sent relates to.
pub(crate) enum Bound {
    /// Nothing in this room.
    No,
    To(Box<Bond>),
    /// Something in flight decides: wait for it and look again.
    Drain,
}

/// Where relations are read from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub view: &'a View,
    pub ids: &'a Ids,
    pub caches: &'a Caches,
    pub room: RoomNid,
    pub version: hearth_event::RoomVersion,
}

impl Source<'_> {
    /// The event of this room that `intent` relates to. Relations to anything else are content like
    /// any other.
    ///
    /// # Errors
    /// If a rule of the relation's type forbids it, or the store cannot be read.
    pub(crate) async fn bind(
        &self,
        intent: &Intent,
        in_flight: &HashMap<OwnedEventId, u32>,
        pending: &Pending,
    ) -> Result<Bound, SendError> {
        let Some(relation) = Relation::in_content(&intent.content).filter(|_| intent.redacts.is_none()) else {
            return Ok(Bound::No);
        };
        if in_flight.contains_key(&relation.event_id) {
            return Ok(Bound::Drain);
        }
        let Some(n) = number_of(self.view, self.ids, self.room, &relation.event_id).await? else {
            return Ok(Bound::No);
        };
        let Some(parent) = self.accepted(n).await? else { return Ok(Bound::No) };
        if relation.rel_type == THREAD && Relation::of(&parent).is_some() {
            let why = "an event that relates to another one cannot start a thread";
            return Err(SendError::BadRelation(why.to_owned()));
        }
        let user = self.ids.user(&intent.sender);
        let keys: Vec<_> = relation.tallies(self.ids, &intent.event_type);
        let rows: Vec<_> = keys.iter().map(|key| (self.room, n, user, *key)).collect();
        let stored = self.view.get_many::<ChildTallies>(&rows).await?;
        let mut tallies = Vec::with_capacity(keys.len());
        for (key, stored) in keys.into_iter().zip(stored) {
            let planned = pending.tallies.get(&(n, user, key)).copied();
            // The second key of an annotation counts annotations that say the same.
            if !tallies.is_empty() {
                match (planned, stored) {
                    (Some(1..), _) => return Ok(Bound::Drain),
                    (None, Some(1..)) => return Err(SendError::DuplicateAnnotation),
                    _ => {}
                }
            }
            tallies.push((user, key, planned.or(stored).unwrap_or(0)));
        }
        let aggregate = match pending.aggregates.get(&n) {
            Some(aggregate) => aggregate.clone(),
            None => self.aggregate(n).await?,
        };
        Ok(Bound::To(Box::new(Bond { relation, n, parent, aggregate, tallies })))
    }

    /// What becomes of the relation that `target` has when it is redacted; to be asked while nothing
    /// is in flight.
    pub(crate) async fn unbind(&self, target: &RedactionTarget) -> Result<Option<Change>, StoreError> {
        let pdu = target.pdu();
        let Some(relation) = Relation::of(pdu) else { return Ok(None) };
        let Some(n) = number_of(self.view, self.ids, self.room, &relation.event_id).await? else { return Ok(None) };
        let row = (self.room, n, relation.rel_type.clone(), target.pos());
        if self.view.get::<Relations>(&row).await? != Some(target.n()) {
            return Ok(None);
        }
        let user = self.ids.user(pdu.sender());
        let keys = relation.tallies(self.ids, pdu.event_type());
        let rows: Vec<_> = keys.iter().map(|key| (self.room, n, user, *key)).collect();
        let counts = self.view.get_many::<ChildTallies>(&rows).await?;
        let less = |count: Option<u32>| count.unwrap_or(0).saturating_sub(1);
        let tallies = keys.into_iter().zip(counts).map(|(key, count)| (user, key, less(count))).collect();
        let before = self.aggregate(n).await?;
        let aggregate = self.without(n, &before, &relation.rel_type, target.n()).await?;
        let newest = (latest(&before), latest(&aggregate));
        let child = Child::Redacted(target.pos());
        Ok(Some(Change { parent: n, rel_type: relation.rel_type, child, aggregate, newest, tallies }))
    }

    /// `before` without the child `gone`.
    async fn without(
        &self,
        parent: u32,
        before: &Aggregate,
        rel_type: &str,
        gone: u32,
    ) -> Result<Aggregate, StoreError> {
        let mut after = before.clone();
        match (rel_type, before) {
            (REFERENCE, _) => after.references = before.references.saturating_sub(1),
            (THREAD, Aggregate { thread: Some(thread), .. }) => {
                let latest = if thread.latest == gone {
                    self.children(parent, THREAD, 2).await?.into_iter().find(|n| *n != gone)
                } else {
                    Some(thread.latest)
                };
                let replies = thread.replies.saturating_sub(1);
                after.thread = latest.filter(|_| replies > 0).map(|latest| ThreadSummary { latest, replies });
            }
            (REPLACE, Aggregate { edit: Some(newest), .. }) if newest.n == gone => {
                after.edit = self.newest_edit(parent, gone).await?;
            }
            _ => {}
        }
        Ok(after)
    }

    async fn newest_edit(&self, parent: u32, gone: u32) -> Result<Option<Edit>, StoreError> {
        let Some(original) = self.accepted(parent).await? else { return Ok(None) };
        let mut newest = None;
        for n in self.children(parent, REPLACE, MAX_EDITS).await?.into_iter().filter(|n| *n != gone) {
            let child = self.accepted(n).await?.filter(|child| replaces(&original, child));
            newest = newest.max(child.map(|child| edit(n, &child)));
        }
        Ok(newest)
    }

    /// Children, newest first.
    async fn children(&self, parent: u32, rel_type: &str, limit: usize) -> Result<Vec<u32>, StoreError> {
        let prefix = (self.room, parent, rel_type.to_owned());
        let rows = self.view.page::<Relations, _>(&prefix, Order::Descending, limit).await?;
        Ok(rows.into_iter().map(|(_, n)| n).collect())
    }

    async fn aggregate(&self, n: u32) -> Result<Aggregate, StoreError> {
        Ok(self.view.get::<Aggregates>(&(self.room, n)).await?.unwrap_or_default())
    }

    /// An event, if it is in the timeline.
    async fn accepted(&self, n: u32) -> Result<Option<Pdu>, StoreError> {
        if let Some(event) = self.caches.event(EventNid { room: self.room, n }) {
            return Ok((event.verdict == Verdict::Accepted).then(|| event.pdu.clone()));
        }
        let stored = self.view.get::<Events>(&(self.room, n)).await?;
        let stored = stored.ok_or_else(|| damaged("Events", format!("event {n} is named but absent")))?;
        match stored.verdict {
            Verdict::Accepted => parse(&stored, self.version).map(Some),
            _ => Ok(None),
        }
    }
}

fn latest(aggregate: &Aggregate) -> Option<u32> {
    aggregate.thread.map(|thread| thread.latest)
}

/// Where a child stands among the other children of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    /// It is the newest.
    Newest,
    /// It came to light late: there are newer ones.
    Earlier,
}

impl Bond {
    /// The newest reply of the parent's thread.
    pub(crate) fn newest_reply(&self) -> Option<u32> {
        latest(&self.aggregate)
    }

    /// What the child changes, now that it is planned.
    pub(crate) fn change(self, planned: &Planned) -> Change {
        self.change_of(&planned.pdu, planned.n, Among::Newest)
    }

    /// The same for a child that is known already.
    pub(crate) fn change_of(self, child: &Pdu, n: u32, among: Among) -> Change {
        let child_n = n;
        let Self { relation, n: parent, parent: original, mut aggregate, tallies } = self;
        let before = latest(&aggregate);
        // State events have no aggregations.
        if original.state_key().is_none() {
            match relation.rel_type.as_str() {
                REPLACE if replaces(&original, child) => {
                    aggregate.edit = aggregate.edit.max(Some(edit(child_n, child)));
                }
                THREAD => {
                    let replies = aggregate.thread.map_or(0, |thread| thread.replies).saturating_add(1);
                    let latest = before.filter(|_| among == Among::Earlier).unwrap_or(child_n);
                    aggregate.thread = Some(ThreadSummary { latest, replies });
                }
                REFERENCE => aggregate.references = aggregate.references.saturating_add(1),
                _ => {}
            }
        }
        let newest = (before, latest(&aggregate));
        let tallies = tallies.into_iter().map(|(user, key, count)| (user, key, count.saturating_add(1))).collect();
        Change { parent, rel_type: relation.rel_type, child: Child::Added, aggregate, newest, tallies }
    }
}
