//! Timelines: the newest events for /sync, pages for /messages.

use std::ops::Bound;
use std::sync::Arc;

use hearth_schema::{EventIds, Membership, RoomNid, Source, Timeline, Verdict};
use hearth_store::{Order, Pos, StoreError, View};
use ruma_common::{EventId, OwnedRoomId, RoomId, UserId};

use super::event::RoomEvent;
use super::gaps::{GapsAhead, before};
use super::loading::parse_room_id;
use crate::gather::damaged;
use crate::inbound::Backfilled;
use crate::intake::Rooms;
use crate::relation::Relation;
use crate::{QueryError, SendError};

/// Events looked at for one page at the most; a page that finds nothing still gives a token.
const MAX_SCANNED: usize = 2_000;
/// Events a page has at the most.
const MAX_LIMIT: usize = 1_000;

/// How often one page asks other servers for what is older.
const MAX_BACKFILLS: usize = 2;

/// Which way a page goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Newest first, from a position (included) down.
    Backward,
    /// Oldest first, from a position (excluded) up.
    Forward,
}

/// `RoomEventFilter` of the specification, as far as it selects events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Event types, `*` matches any run of characters; `None`: all.
    pub types: Option<Vec<String>>,
    /// Event types that are left out.
    pub not_types: Vec<String>,
    /// Senders; `None`: all.
    pub senders: Option<Vec<String>>,
    /// Senders that are left out.
    pub not_senders: Vec<String>,
    /// Only events with (or without) a `url` in their content.
    pub contains_url: Option<bool>,
    /// Relation types (`m.thread`, …) of which an event must have one; `None`: any or none (MSC3874).
    pub rel_types: Option<Vec<String>>,
    /// Relation types that are left out (MSC3874).
    pub not_rel_types: Vec<String>,
    /// Which children an event must have (MSC3440); asked by [`Rooms::with_children`], not by
    /// [`EventFilter::matches`].
    pub related_by: RelatedBy,
    /// Whether the member events of senders are wanted.
    pub lazy_load_members: Option<LazyLoad>,
}

/// Asks for events that have children: one with one of the relation types by one of the senders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelatedBy {
    /// `m.thread`, …; `None`: any.
    pub rel_types: Option<Vec<String>>,
    /// User IDs; `None`: anybody.
    pub senders: Option<Vec<String>>,
}

/// Asks for the member events of those who sent what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LazyLoad;

impl EventFilter {
    /// Whether the filter lets `event` through.
    pub fn matches(&self, event: &RoomEvent) -> bool {
        self.matches_parts(event.event_type(), event.sender().as_str())
            && self.contains_url.is_none_or(|wanted| wanted == has_url(event))
            && self.matches_relation(event)
    }

    fn matches_relation(&self, event: &RoomEvent) -> bool {
        if self.rel_types.is_none() && self.not_rel_types.is_empty() {
            return true;
        }
        let relation = Relation::of(&event.pdu);
        let among = |types: &[String]| relation.as_ref().is_some_and(|relation| types.contains(&relation.rel_type));
        self.rel_types.as_ref().is_none_or(|types| among(types)) && !among(&self.not_rel_types)
    }

    /// The same for what is known without the content.
    pub fn matches_parts(&self, event_type: &str, sender: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, event_type));
        self.types.as_ref().is_none_or(|types| any(types))
            && !any(&self.not_types)
            && self.senders.as_ref().is_none_or(|senders| senders.iter().any(|s| s == sender))
            && !self.not_senders.iter().any(|s| s == sender)
    }
}

fn has_url(event: &RoomEvent) -> bool {
    #[derive(serde::Deserialize)]
    struct Content {
        url: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Content>(event.pdu.content().get()).is_ok_and(|content| content.url.is_some())
}

/// `*` matches any run of characters, also none. Linear in both lengths for patterns with one star,
/// and never worse than their product.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else if let Some((after, from)) = star {
            p = after;
            t = from + 1;
            star = Some((after, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The newest events of a stretch of a timeline.
#[derive(Clone, Debug)]
pub struct TimelinePage {
    /// Oldest first.
    pub events: Vec<Arc<RoomEvent>>,
    /// There are more in the stretch, before these.
    pub limited: bool,
    /// Everything before the first of `events` is at or below this position.
    pub prev: Pos,
    /// What came right before the first of `events` is not here.
    pub gap: bool,
}

impl TimelinePage {
    /// The page from its newest gap on: what is before that does not join on.
    #[must_use]
    pub fn since_gap(mut self) -> Self {
        let newest = self.events.iter().rposition(|event| event.source == Source::AfterGap);
        if let Some(first) = newest {
            self.events.drain(..first);
            self.limited = true;
            self.gap = true;
            self.prev = self.events.first().map_or(self.prev, |event| Pos::new(event.pos.get().saturating_sub(1)));
        }
        self
    }
}

/// `GET /rooms/{roomId}/messages`
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// Which room.
    pub room_id: OwnedRoomId,
    /// Where to begin; `None`: at the end that the direction comes from.
    pub from: Option<Pos>,
    /// Where to stop.
    pub to: Option<Pos>,
    /// Which way.
    pub direction: Direction,
    /// Events at the most.
    pub limit: usize,
    /// Which events.
    pub filter: EventFilter,
}

/// A page of history.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// In the direction of the page.
    pub events: Vec<Arc<RoomEvent>>,
    /// Where the page begins.
    pub start: Pos,
    /// Where the next page begins; `None`: there is nothing more.
    pub end: Option<Pos>,
    /// Member events of the senders, if the filter asks for lazy loading.
    pub state: Vec<Arc<RoomEvent>>,
}

/// What a user may read of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything that the history visibility shows.
    Joined,
    /// What everybody may read, because the room is world readable now.
    Peeking,
    /// The same up to the event with this number and position.
    Until(u32, Pos),
}

impl Rooms {
    /// What `user` may read of `room`.
    pub(crate) async fn access(&self, view: &View, user: &UserId, room: RoomNid) -> Result<Access, QueryError> {
        let row = self.membership(view, self.ids().user(user), room).await?;
        let joined = row.as_ref().is_some_and(|row| row.membership == Membership::Join);
        if !joined && self.world_readable(view, room).await? {
            return Ok(Access::Peeking);
        }
        let row = row.ok_or(QueryError::Forbidden)?;
        match row.membership {
            _ if row.forgotten => Err(QueryError::Forbidden),
            Membership::Join => Ok(Access::Joined),
            Membership::Leave | Membership::Ban => {
                // Who was never in (an invitation turned down) has no history to read.
                let Some(n) = row.n else { return Err(QueryError::Forbidden) };
                let events = self.events(view, room, &[n]).await?;
                let before = events.first().ok_or(QueryError::Forbidden)?;
                let was = self.membership_in(view, user, room, before.state_before).await?;
                if was == Some(Membership::Join) { Ok(Access::Until(n, row.pos)) } else { Err(QueryError::Forbidden) }
            }
            Membership::Invite | Membership::Knock => Err(QueryError::Forbidden),
        }
    }

    /// The newest `limit` accepted events of `room` at positions in `(after, upto]`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn timeline(
        &self,
        view: &View,
        room: RoomNid,
        (after, upto): (Pos, Pos),
        limit: usize,
    ) -> Result<TimelinePage, StoreError> {
        let stretch = (Bound::Excluded(after), Bound::Included(upto));
        let limit = limit.min(MAX_LIMIT);
        let mut rows = view.page_between::<Timeline, _>(&(room,), stretch, Order::Descending, limit + 1).await?;
        let limited = rows.len() > limit;
        rows.truncate(limit);
        rows.reverse();
        let numbers: Vec<u32> = rows.iter().map(|(_, n)| *n).collect();
        let prev = rows.first().map_or(upto, |((_, pos), _)| Pos::new(pos.get().saturating_sub(1)));
        let events = self.events(view, room, &numbers).await?;
        Ok(TimelinePage { events, limited, prev, gap: false }.since_gap())
    }

    /// A page of the history that `user` may see.
    ///
    /// # Errors
    /// [`QueryError::Forbidden`] for who is not and was not in the room, unless everybody may read it.
    pub async fn messages(&self, user: &UserId, query: &HistoryQuery) -> Result<HistoryPage, QueryError> {
        let mut view = self.view().await?;
        let room = self.ids().room(&query.room_id);
        let access = self.access(&view, user, room).await?;
        let last = match access {
            Access::Joined | Access::Peeking => Pos::MAX,
            Access::Until(_, pos) => pos,
        };
        let backward = query.direction == Direction::Backward;
        let start = match (query.from, backward) {
            (Some(from), _) => from,
            (None, true) => view.frontier().base(),
            (None, false) => Pos::ZERO,
        };
        let limit = query.limit.clamp(1, MAX_LIMIT);
        let mut walk = Walk { at: start, to: query.to, last, backward };
        let mut gaps = GapsAhead::of(self, &view, room, query.direction).await?;
        let mut events = Vec::new();
        let mut scanned = 0;
        let mut older = 0;
        let end = loop {
            let gap = gaps.next(walk.at.min(last), query.to);
            walk.to = gap.map(|gap| before(gap.lowest())).or(query.to);
            let (page, rest) = self.walk(&view, room, walk, limit - events.len()).await?;
            scanned += page.len();
            let shown = page.iter().filter(|event| query.filter.matches(event)).cloned().collect();
            let shown = self.visible_in_page(&view, user, shown, query.direction).await?;
            events.extend(self.with_children(&view, room, &query.filter, shown).await?);
            match (rest, gap) {
                (None, Some(gap)) => {
                    walk.at = walk.at.min(before(gap.lowest()));
                    if events.len() >= limit || scanned >= MAX_SCANNED || !gaps.may_try() {
                        break Some(walk.at);
                    }
                    view = gaps.fill(self, room, gap).await?;
                }
                (None, None) if backward && query.to.is_none() && events.len() < limit && older < MAX_BACKFILLS => {
                    older += 1;
                    if self.older(room).await? == Backfilled::Nothing {
                        break None;
                    }
                    view = self.view().await?;
                    walk.at = page.last().map_or(walk.at, |event| Pos::new(event.pos.get() - 1));
                }
                // Another server may know more.
                (None, None) if backward && query.to.is_none() && !page.is_empty() => {
                    let more = self.has_edge(&view, room).await?;
                    break page.last().filter(|_| more).map(|event| Pos::new(event.pos.get() - 1));
                }
                (None, None) => break None,
                (Some(at), _) if events.len() >= limit || scanned >= MAX_SCANNED => break Some(at),
                (Some(at), _) => walk.at = at,
            }
        };
        let state = match query.filter.lazy_load_members {
            Some(LazyLoad) => self.members_of_senders(&view, room, access, &events).await?,
            None => Vec::new(),
        };
        Ok(HistoryPage { events, start, end, state })
    }

    /// Fetches what other servers know of a time before the timeline.
    pub(crate) async fn older(&self, room: RoomNid) -> Result<Backfilled, QueryError> {
        match self.backfill(room).await {
            Ok(outcome) => Ok(outcome),
            Err(SendError::Store(error)) => Err(error.into()),
            // What is here can be read all the same.
            Err(error) => {
                tracing::warn!(%error, "older events were not fetched");
                Ok(Backfilled::Nothing)
            }
        }
    }

    /// Up to `limit` accepted events from `walk.at` on, and where to go on.
    async fn walk(
        &self,
        view: &View,
        room: RoomNid,
        walk: Walk,
        limit: usize,
    ) -> Result<(Vec<Arc<RoomEvent>>, Option<Pos>), QueryError> {
        let (stretch, order) = if walk.backward {
            let floor = walk.to.map_or(Bound::Unbounded, Bound::Excluded);
            let top = walk.at.min(walk.last);
            if walk.to.is_some_and(|to| to >= top) {
                return Ok((Vec::new(), None));
            }
            ((floor, Bound::Included(top)), Order::Descending)
        } else {
            let ceiling = walk.to.map_or(walk.last, |to| to.min(walk.last));
            ((Bound::Excluded(walk.at), Bound::Included(ceiling)), Order::Ascending)
        };
        let rows = view.page_between::<Timeline, _>(&(room,), stretch, order, limit + 1).await?;
        let more = rows.len() > limit;
        let rows = &rows[..rows.len().min(limit)];
        let numbers: Vec<u32> = rows.iter().map(|(_, n)| *n).collect();
        let mut events = self.events(view, room, &numbers).await?;
        events.retain(|event| event.verdict == Verdict::Accepted);
        let next = rows.last().map(|((_, pos), _)| if walk.backward { Pos::new(pos.get() - 1) } else { *pos });
        Ok((events, next.filter(|_| more)))
    }

    async fn visible_in_page(
        &self,
        view: &View,
        user: &UserId,
        mut events: Vec<Arc<RoomEvent>>,
        direction: Direction,
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let Some(room) = events.first().map(|event| event.room) else { return Ok(events) };
        if direction == Direction::Backward {
            events.reverse();
        }
        let mut shown = self.visible(view, user, room, events).await?;
        if direction == Direction::Backward {
            shown.reverse();
        }
        Ok(shown)
    }

    /// One event that `user` may see.
    ///
    /// # Errors
    /// [`QueryError::NotFound`] if there is none, or none for this user.
    pub async fn event(
        &self,
        user: &UserId,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<Arc<RoomEvent>, QueryError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        let access = self.access(&view, user, room).await.map_err(|error| match error {
            QueryError::Forbidden => QueryError::NotFound,
            other => other,
        })?;
        let event = self.event_in_room(&view, room, event_id).await?.ok_or(QueryError::NotFound)?;
        let beyond = matches!(access, Access::Until(_, last) if event.pos > last);
        if event.verdict != Verdict::Accepted || beyond {
            return Err(QueryError::NotFound);
        }
        self.visible(&view, user, room, vec![event]).await?.pop().ok_or(QueryError::NotFound)
    }

    /// The same without knowing the room.
    ///
    /// # Errors
    /// [`QueryError::NotFound`] if there is none, or none for this user.
    pub async fn event_anywhere(&self, user: &UserId, event_id: &EventId) -> Result<Arc<RoomEvent>, QueryError> {
        let view = self.view().await?;
        let name = self.ids().event(event_id);
        let keys: Vec<_> = hearth_store::Lane::all().map(|lane| (lane, name)).collect();
        // An ID may be known in several rooms only if somebody has made them alike on purpose.
        for found in view.get_many::<EventIds>(&keys).await?.into_iter().flatten() {
            let meta = self.room(&view, found.room).await?;
            let meta = meta.ok_or_else(|| damaged("Rooms", "a room with events has no row"))?;
            match self.event(user, &parse_room_id(&meta.room_id)?, event_id).await {
                Err(QueryError::NotFound) => {}
                answer => return answer,
            }
        }
        Err(QueryError::NotFound)
    }
}

/// Where a page of history is.
#[derive(Clone, Copy)]
struct Walk {
    at: Pos,
    to: Option<Pos>,
    last: Pos,
    backward: bool,
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn a_star_matches_any_run() {
        for (pattern, text, expected) in [
            ("m.room.*", "m.room.message", true),
            ("m.room.*", "m.rooms", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b", "a", false),
            ("", "a", false),
            ("*a*a*a*b", &"a".repeat(5_000), false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
