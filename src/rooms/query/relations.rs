//! Events that relate to an event: `GET /rooms/{roomId}/relations/…`.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use hearth_schema::{Relations, RoomNid, Verdict};
use hearth_store::{Order, Pos, StoreError, View};
use ruma_common::{OwnedEventId, OwnedRoomId, UserId};

use super::event::RoomEvent;
use super::history::{Access, Direction};
use crate::QueryError;
use crate::intake::Rooms;

/// How far relations of relations are followed.
const MAX_DEPTH: u32 = 3;
/// Children of one event that are looked at: beyond them, the oldest are all that is found.
const MAX_CHILDREN: usize = 50_000;
/// Rows read for children of children in one request: beyond them, those of the newest events are all that is found.
const MAX_ROWS: usize = 100_000;
/// Rows of one range, and what asking for it counts for besides.
const RANGE_ROWS: usize = 64;
const RANGE_COST: usize = 16;
/// Rows of one range while it goes on with the children of one event.
const MAX_RANGE_ROWS: usize = 1_024;
/// Events loaded and judged at a time.
const CHUNK: usize = 128;
/// Events a page has at the most.
const MAX_LIMIT: usize = 1_000;

/// Asks for the children of an event.
#[derive(Clone, Debug)]
pub struct RelationsQuery {
    /// The room of both.
    pub room_id: OwnedRoomId,
    /// The parent.
    pub event_id: OwnedEventId,
    /// `m.thread`, …; `None`: any.
    pub rel_type: Option<String>,
    /// Type of the children; `None`: any.
    pub event_type: Option<String>,
    /// Where to begin; `None`: at the end that the direction comes from.
    pub from: Option<Pos>,
    /// Where to stop.
    pub to: Option<Pos>,
    /// Which way.
    pub direction: Direction,
    /// Events at the most.
    pub limit: usize,
    /// Children of children too.
    pub recurse: bool,
}

/// A page of children.
#[derive(Clone, Debug)]
pub struct RelationsPage {
    /// In the direction of the page.
    pub events: Vec<Arc<RoomEvent>>,
    /// Where the next page begins; `None`: there is nothing more.
    pub next: Option<Pos>,
    /// How far relations were followed, if that was asked for.
    pub recursion_depth: Option<u32>,
}

impl Rooms {
    /// A page of the events that relate to an event, as far as `user` may see both.
    ///
    /// # Errors
    /// [`QueryError::NotFound`] if the user may not see the parent.
    pub async fn relations(&self, user: &UserId, query: &RelationsQuery) -> Result<RelationsPage, QueryError> {
        let parent = self.event(user, &query.room_id, &query.event_id).await?;
        let view = self.view().await?;
        let room = parent.room;
        let last = match self.access(&view, user, room).await? {
            Access::Joined | Access::Peeking => Pos::MAX,
            Access::Until(_, pos) => pos,
        };
        let (mut children, depth) = if query.recurse {
            self.descendants(&view, room, parent.n).await?
        } else {
            (children(&view, room, parent.n, query.rel_type.as_deref()).await?, 1)
        };
        if let Some(wanted) = query.rel_type.as_deref().filter(|_| query.recurse) {
            children.retain(|child| child.rel_type == wanted);
        }
        children.retain(|child| child.pos <= last && query.covers(child.pos));
        children.sort_unstable_by_key(|child| child.pos);
        if query.direction == Direction::Backward {
            children.reverse();
        }
        let page = self.pick(&view, user, room, query, &children).await?;
        Ok(RelationsPage { recursion_depth: query.recurse.then_some(depth), ..page })
    }

    /// Every event from which relations lead to `parent`, and over how many steps the farthest.
    async fn descendants(&self, view: &View, room: RoomNid, parent: u32) -> Result<(Vec<Child>, u32), StoreError> {
        let mut known = HashSet::from([parent]);
        let mut found = children(view, room, parent, None).await?;
        found.retain(|child| known.insert(child.n));
        let (mut depth, mut budget) = (u32::from(!found.is_empty()), MAX_ROWS);
        let mut parents: BTreeSet<u32> = found.iter().map(|child| child.n).collect();
        while depth < MAX_DEPTH && !parents.is_empty() && found.len() < MAX_CHILDREN {
            let mut next = children_of_all(view, room, &parents, &mut budget).await?;
            next.retain(|child| known.insert(child.n));
            depth += u32::from(!next.is_empty());
            parents = next.iter().map(|child| child.n).collect();
            found.extend(next);
        }
        Ok((found, depth))
    }

    /// The first of `children`, in their order, that the query wants and the user may see.
    #[expect(clippy::too_many_arguments, reason = "the receiver counts; what is left names different things")]
    async fn pick(
        &self,
        view: &View,
        user: &UserId,
        room: RoomNid,
        query: &RelationsQuery,
        children: &[Child],
    ) -> Result<RelationsPage, QueryError> {
        let limit = query.limit.clamp(1, MAX_LIMIT);
        let mut events: Vec<Arc<RoomEvent>> = Vec::new();
        for chunk in children.chunks(CHUNK) {
            let numbers: Vec<u32> = chunk.iter().map(|child| child.n).collect();
            let mut found = self.events(view, room, &numbers).await?;
            found.retain(|event| query.wants(event));
            events.extend(self.visible(view, user, room, found).await?);
            if events.len() > limit {
                break;
            }
        }
        let more = events.len() > limit;
        events.truncate(limit);
        let next = events.last().filter(|_| more).map(|event| match query.direction {
            Direction::Backward => Pos::new(event.pos.get().saturating_sub(1)),
            Direction::Forward => event.pos,
        });
        Ok(RelationsPage { events, next, recursion_depth: None })
    }
}

impl RelationsQuery {
    /// Positions as in `/messages`: backward they are included at the beginning, forward at the end.
    fn covers(&self, pos: Pos) -> bool {
        let (above, below) = match self.direction {
            Direction::Backward => (self.to, self.from),
            Direction::Forward => (self.from, self.to),
        };
        above.is_none_or(|above| pos > above) && below.is_none_or(|below| pos <= below)
    }

    /// What is redacted relates to nothing any more.
    fn wants(&self, event: &RoomEvent) -> bool {
        event.verdict == Verdict::Accepted
            && event.redacted_by.is_none()
            && self.event_type.as_deref().is_none_or(|wanted| wanted == event.event_type())
    }
}

/// A row of `Relations`.
pub(crate) struct Child {
    pub n: u32,
    pub pos: Pos,
    pub rel_type: String,
}

/// The events that relate to `parent` directly, by type of relation and then oldest first.
pub(crate) async fn children(
    view: &View,
    room: RoomNid,
    parent: u32,
    rel_type: Option<&str>,
) -> Result<Vec<Child>, StoreError> {
    let rows = match rel_type {
        Some(rel_type) => {
            let prefix = (room, parent, rel_type.to_owned());
            view.page::<Relations, _>(&prefix, Order::Ascending, MAX_CHILDREN).await?
        }
        None => view.page::<Relations, _>(&(room, parent), Order::Ascending, MAX_CHILDREN).await?,
    };
    Ok(rows.into_iter().map(|((_, _, rel_type, pos), n)| Child { n, pos, rel_type }).collect())
}

/// The events that relate to any of `parents` directly, those of the newest parent first, while `budget` lasts.
///
/// Few events have children, so those of each are not asked for: this goes through the rows of all events downwards and
/// skips to the next of `parents` wherever many rows of others lie between.
async fn children_of_all(
    view: &View,
    room: RoomNid,
    parents: &BTreeSet<u32>,
    budget: &mut usize,
) -> Result<Vec<Child>, StoreError> {
    let mut found = Vec::new();
    let mut limit = RANGE_ROWS;
    // No event is at position 0, so this comes before all children of the next number.
    let behind = |parent: &u32| (room, parent.saturating_add(1), String::new(), Pos::ZERO);
    let mut next = parents.last().map(behind);
    while let Some(before) = next.take().filter(|_| *budget > 0) {
        let rows = view.page_before::<Relations, _>(&(room,), &before, limit).await?;
        *budget = budget.saturating_sub(rows.len() + RANGE_COST);
        if let Some((last, _)) = rows.last().filter(|_| rows.len() == limit) {
            let of_parent = parents.contains(&last.1);
            limit = if of_parent { (2 * limit).min(MAX_RANGE_ROWS) } else { RANGE_ROWS };
            next = if of_parent { Some(last.clone()) } else { parents.range(..last.1).next_back().map(behind) };
        }
        let wanted = rows.into_iter().filter(|((_, parent, ..), _)| parents.contains(parent));
        found.extend(wanted.map(|((_, _, rel_type, pos), n)| Child { n, pos, rel_type }));
    }
    Ok(found)
}
