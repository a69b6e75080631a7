//! History from before this server was in a room, fetched when somebody scrolls back to it.
//!
//! A timeline is in the order of positions, and positions are given out upwards; what is older than everything here gets
//! positions downwards from the oldest. It changes no state and wakes nobody: it was there all the time.

use std::sync::Arc;

use hearth_event::Pdu;
use hearth_schema::{RoomNid, Source, StateId, Timeline, Verdict};
use hearth_store::{Order, Pos, StoreError, View};
use ruma_common::{OwnedEventId, OwnedServerName};

use super::fetch::FetchError;
use super::heal::floor_before;
use super::take::Taker;
use super::{Inbound, Outlier, Past, judge};
use crate::SendError;
use crate::graph::has_state;
use crate::intake::Rooms;
use crate::query::RoomEvent;

/// Events fetched at once.
const LIMIT: usize = 100;
/// The oldest events here that are looked at for what came before them.
pub(super) const EDGE: usize = 100;
/// Servers that are asked.
const MAX_SERVERS: usize = 3;

/// What came of looking for older events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backfilled {
    /// There is more to read now.
    More,
    /// There is nothing older, or nobody who tells it.
    Nothing,
}

impl Rooms {
    /// Fetches what came before the oldest events of a room's timeline.
    pub(crate) async fn backfill(&self, room: RoomNid) -> Result<Backfilled, SendError> {
        let view = self.view().await?;
        let rows = view.page::<Timeline, _>(&(room,), Order::Ascending, 1).await?;
        let Some(((_, oldest), _)) = rows.first() else { return Ok(Backfilled::Nothing) };
        let events = self.oldest(&view, room).await?;
        let edge = self.edge(&view, room, &events).await?;
        let (Some(first), false) = (events.first(), edge.is_empty()) else { return Ok(Backfilled::Nothing) };
        let lock = self.0.joins.of(room);
        let _one_at_a_time = lock.lock().await;
        let now = self.view().await?.page::<Timeline, _>(&(room,), Order::Ascending, 1).await?;
        if now.first().is_some_and(|((_, pos), _)| pos != oldest) {
            // Somebody else has done it meanwhile.
            return Ok(Backfilled::More);
        }
        for server in self.witnesses(&view, room, first).await? {
            let taker = Taker::new(self, first.pdu.room_id(), &server).await?.ok_or(SendError::UnknownRoom)?;
            match taker.backfill(&edge, *oldest).await {
                Ok(Backfilled::More) => return Ok(Backfilled::More),
                Ok(Backfilled::Nothing) => {}
                Err(FetchError::Here(error)) => return Err(error),
                Err(FetchError::Remote(error)) => tracing::debug!(%error, "no older events"),
                Err(FetchError::Useless(why)) => tracing::debug!(%why, %server, "no older events"),
            }
        }
        Ok(Backfilled::Nothing)
    }

    /// Whether the oldest events here have predecessors that are not.
    pub(crate) async fn has_edge(&self, view: &View, room: RoomNid) -> Result<bool, StoreError> {
        let events = self.oldest(view, room).await?;
        Ok(!self.edge(view, room, &events).await?.is_empty())
    }

    /// The oldest events here, up to the first gap: what is missing there has its place there, and is not older than
    /// everything here.
    async fn oldest(&self, view: &View, room: RoomNid) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let rows = view.page::<Timeline, _>(&(room,), Order::Ascending, EDGE).await?;
        let numbers: Vec<u32> = rows.iter().map(|(_, n)| *n).collect();
        let mut events = self.events(view, room, &numbers).await?;
        let open = self.open_gaps(view, room).await?.into_iter().map(|gap| gap.floor());
        let after = events.iter().filter(|event| event.source == Source::AfterGap);
        let floors = after.map(|event| floor_before(event.pos));
        if let Some(first) = open.chain(floors).min() {
            events.retain(|event| event.pos < first);
        }
        Ok(events)
    }

    /// Predecessors of `events` that no timeline has.
    pub(super) async fn edge(
        &self,
        view: &View,
        room: RoomNid,
        events: &[Arc<RoomEvent>],
    ) -> Result<Vec<OwnedEventId>, StoreError> {
        let version = self.version(view, room).await?;
        let graph = crate::graph::Graph { rooms: self.clone(), view: self.view().await?, room, version };
        let prev: Vec<OwnedEventId> = events.iter().flat_map(|event| event.pdu.prev_events().to_vec()).collect();
        let known = graph.find(&prev).await?;
        let mut edge: Vec<OwnedEventId> =
            prev.into_iter().filter(|id| known.get(id).is_none_or(|event| event.verdict == Verdict::Outlier)).collect();
        edge.sort_unstable();
        edge.dedup();
        edge.truncate(20);
        Ok(edge)
    }

    /// Who may know what came before `event`: the server that made it, then those with many members.
    pub(super) async fn witnesses(
        &self,
        view: &View,
        room: RoomNid,
        event: &RoomEvent,
    ) -> Result<Vec<OwnedServerName>, StoreError> {
        let servers = self.servers(view, room).await?;
        let mut others: Vec<(&OwnedServerName, &u32)> =
            servers.iter().filter(|(server, _)| **server != self.0.signer.server_name).collect();
        let creator = event.pdu.room_id().server_name().map(ToOwned::to_owned);
        let rank =
            |server: &OwnedServerName| (*server == event.pdu.sender().server_name(), Some(server) == creator.as_ref());
        others.sort_by(|a, b| rank(b.0).cmp(&rank(a.0)).then(b.1.cmp(a.1)));
        Ok(others.into_iter().map(|(server, _)| server.clone()).take(MAX_SERVERS).collect())
    }
}

impl Taker {
    async fn backfill(&self, edge: &[OwnedEventId], oldest: Pos) -> Result<Backfilled, FetchError> {
        let events = self.older_events(edge).await?;
        let numbers = self.keep_all_with_state(events).await?;
        if numbers.is_empty() {
            return Ok(Backfilled::Nothing);
        }
        let past = Past { numbers, before: oldest, gap: None };
        self.rooms.post_inbound(self.room, Inbound::Past(past)).await?;
        Ok(Backfilled::More)
    }

    /// What the origin tells of `edge` and before it, and no timeline has: oldest first.
    pub(super) async fn older_events(&self, edge: &[OwnedEventId]) -> Result<Vec<Pdu>, FetchError> {
        let raw = self.rooms.0.remote.backfill(&self.origin, &self.room_id, edge, LIMIT).await?;
        let mut events = self.admitted(raw.into_iter().take(LIMIT).collect()).await?;
        events.sort_by(|a, b| a.depth().cmp(&b.depth()).then_with(|| a.event_id().cmp(b.event_id())));
        events.dedup_by(|a, b| a.event_id() == b.event_id());
        let graph = self.graph().await?;
        let ids: Vec<OwnedEventId> = events.iter().map(|event| event.event_id().to_owned()).collect();
        let known = graph.find(&ids).await?;
        events.retain(|event| known.get(event.event_id()).is_none_or(|known| known.verdict == Verdict::Outlier));
        Ok(events)
    }

    /// Stores old events, oldest first, with the states before them; gives the numbers of those that are not rejected.
    pub(super) async fn keep_all_with_state(&self, events: Vec<Pdu>) -> Result<Vec<u32>, FetchError> {
        let mut numbers = Vec::with_capacity(events.len());
        for pdu in events {
            match self.keep_with_state(&pdu).await {
                Ok(Some(n)) => numbers.push(n),
                Ok(None) => {}
                Err(FetchError::Here(error)) => return Err(FetchError::Here(error)),
                Err(_) => tracing::debug!(event_id = %pdu.event_id(), "the state before an old event was not had"),
            }
        }
        Ok(numbers)
    }

    /// Stores an old event with the state before it; gives its number unless it is rejected.
    async fn keep_with_state(&self, pdu: &Pdu) -> Result<Option<u32>, FetchError> {
        let graph = self.graph().await?;
        let create = pdu.is_state("m.room.create", "");
        let prev = graph.find(pdu.prev_events()).await?;
        let all_here = pdu.prev_events().iter().all(|id| prev.get(id).is_some_and(|event| has_state(event)));
        let state_before = if create {
            StateId::EMPTY
        } else if all_here {
            let prev: Vec<Arc<RoomEvent>> = prev.into_values().collect();
            graph.state_of(&prev).await?
        } else {
            let ids = self.rooms.0.remote.state_ids(&self.origin, &self.room_id, pdu.event_id()).await?;
            self.fetch_state_events(&self.origin, pdu.event_id(), &ids).await?;
            self.as_state(&self.graph().await?, &ids.state).await?
        };
        self.fetch_auth_events(&self.origin, pdu).await?;
        let graph = self.graph().await?;
        let rejected = judge::why_rejected(&graph, pdu, state_before).await?;
        if rejected.is_some() && judge::is_unfounded(&graph, pdu).await? {
            return Err(FetchError::Useless("auth events of an old event could not be had".to_owned()));
        }
        let good = rejected.is_none();
        let outlier = Outlier { pdu: pdu.clone(), rejected, state_before };
        self.rooms.post_inbound(self.room, Inbound::Outliers(vec![outlier])).await?;
        let n = self.graph().await?.numbers(&[pdu.event_id().to_owned()]).await?.pop().map(|(_, n)| n);
        Ok(n.filter(|_| good))
    }
}
