//! Children that came before their parents.
//!
//! Other servers send what they have in the order in which they learn it, and history from before a join comes last of
//! all: a reply may be here long before what it replies to. Such a child is remembered by the ID of its parent, and
//! counted when that comes.

use std::collections::HashMap;

use hearth_event::Pdu;
use hearth_schema::{
    Aggregate, ChildTallies, EventKey, Events, PendingRelations, RelationKey, RoomNid, UserNid, Verdict,
};
use hearth_store::{Batch, Order, Pos, StoreError};

use super::{Among, Bond, Change, Relation, Source, THREAD};
use crate::gather::{damaged, parse};

/// Children of one parent that are counted when it comes; more stay unlisted.
const MAX_CHILDREN: usize = 2_000;
/// Children looked for at first.
const FEW: usize = 8;
/// Children loaded at a time.
const PAGE: usize = 64;

/// The children that have waited for an event.
#[derive(Default)]
pub(crate) struct Adoption {
    parent: Option<EventKey>,
    /// Every child with its position, and what it changes if it is one.
    children: Vec<(u32, Pos, Option<Change>)>,
}

impl Adoption {
    /// Whether no child has waited.
    pub(crate) const fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Adds the rows.
    pub(crate) fn persist(&self, batch: &mut Batch, room: RoomNid) {
        let Some(parent) = self.parent else { return };
        for (child, pos, change) in &self.children {
            if let Some(change) = change {
                change.persist(batch, room, *child, *pos);
            }
            batch.delete::<PendingRelations>(&(room, parent, *child));
        }
    }
}

/// What has been counted of one parent's children so far.
#[derive(Default)]
struct Count {
    aggregate: Aggregate,
    tallies: HashMap<(UserNid, RelationKey), u32>,
    newest_reply: Pos,
}

impl Source<'_> {
    /// What becomes of the children that have waited for `parent`, which is about to be accepted as `n`.
    pub(crate) async fn adopt(&self, n: u32, parent: &Pdu) -> Result<Adoption, StoreError> {
        let key = self.ids.event(parent.event_id());
        // Few at first, which costs no more than a look: for most events there are none.
        let mut rows = self.view.page::<PendingRelations, _>(&(self.room, key), Order::Ascending, FEW).await?;
        if rows.len() == FEW {
            rows = self.view.page::<PendingRelations, _>(&(self.room, key), Order::Ascending, MAX_CHILDREN).await?;
        }
        let mut adoption = Adoption { parent: Some(key), children: Vec::with_capacity(rows.len()) };
        let mut count = Count::default();
        let waiting: Vec<u32> = rows.into_iter().map(|((.., child), ())| child).collect();
        for page in waiting.chunks(PAGE) {
            let keys: Vec<_> = page.iter().map(|child| (self.room, *child)).collect();
            for (child, row) in page.iter().zip(self.view.get_many::<Events>(&keys).await?) {
                let row = row.ok_or_else(|| damaged("PendingRelations", format!("event {child} is absent")))?;
                let change = match row.verdict {
                    Verdict::Accepted => {
                        let pdu = parse(&row, self.version)?;
                        self.count_late((n, parent), (*child, &pdu, row.pos), &mut count).await?
                    }
                    _ => None,
                };
                adoption.children.push((*child, row.pos, change));
            }
        }
        Ok(adoption)
    }

    async fn count_late(
        &self,
        (n, parent): (u32, &Pdu),
        (child, pdu, pos): (u32, &Pdu, Pos),
        count: &mut Count,
    ) -> Result<Option<Change>, StoreError> {
        let Some(relation) = Relation::of(pdu).filter(|relation| relation.event_id == parent.event_id()) else {
            return Ok(None);
        };
        let is_reply = relation.rel_type == THREAD;
        if is_reply && Relation::of(parent).is_some() {
            return Ok(None);
        }
        let user = self.ids.user(pdu.sender());
        let mut tallies = Vec::new();
        for key in relation.tallies(self.ids, pdu.event_type()) {
            let before = match count.tallies.get(&(user, key)) {
                Some(before) => *before,
                None => self.view.get::<ChildTallies>(&(self.room, n, user, key)).await?.unwrap_or(0),
            };
            // The second key of an annotation counts annotations that say the same.
            if !tallies.is_empty() && before > 0 {
                return Ok(None);
            }
            tallies.push((user, key, before));
        }
        let among = if pos > count.newest_reply { Among::Newest } else { Among::Earlier };
        let bond = Bond { relation, n, parent: parent.clone(), aggregate: count.aggregate.clone(), tallies };
        let change = bond.change_of(pdu, child, among);
        count.aggregate = change.aggregate.clone();
        count.tallies.extend(change.tallies.iter().map(|(user, key, after)| ((*user, *key), *after)));
        if is_reply {
            count.newest_reply = count.newest_reply.max(pos);
        }
        Ok(Some(change))
    }
}
