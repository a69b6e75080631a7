//! History from before this server was in a room, fetched when somebody scrolls back to it.
//!
//! A timeline is in the order of positions, and positions are given out upwards; what is older than everything here gets
//! positions downwards from the oldest. It changes no state and wakes nobody: it was there all the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_event::Pdu;
use hearth_schema::{RoomNid, Source, StateId, Timeline, Verdict};
use hearth_store::{Order, Pos, StoreError, View};
use parking_lot::Mutex;
use ruma_common::{OwnedEventId, OwnedServerName, RoomId};

use super::asking::is_silence;
use super::fetch::FetchError;
use super::heal::{OpenGap, floor_before};
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
/// How long they may be asked for a page, all of them together: somebody may be waiting for it.
pub(super) const PAGE_TIME: Duration = Duration::from_secs(30);
/// States that a server is asked for before the events of one page. A timeline that is told without holes takes one for
/// each of its branches.
const MAX_STATES: usize = 20;

/// What came of looking for older events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backfilled {
    /// There is more to read now.
    More,
    /// There is nothing older, or nobody who tells it.
    Nothing,
}

/// Rooms whose past is being fetched.
#[derive(Default)]
pub(crate) struct Pasts(Mutex<HashMap<RoomNid, Arc<tokio::sync::Mutex<()>>>>);

impl Pasts {
    /// Who holds it is the only one to ask for the past of the room: others may wait for what comes of that.
    pub(super) fn of(&self, room: RoomNid) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock();
        all.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(all.entry(room).or_default())
    }
}

/// What is missing, and where it belongs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Missing {
    /// What is older than everything here, before this.
    Older(Pos),
    /// What belongs in a gap.
    In(OpenGap),
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
        let lock = self.0.pasts.of(room);
        let _one_at_a_time = lock.lock().await;
        let now = self.view().await?.page::<Timeline, _>(&(room,), Order::Ascending, 1).await?;
        if now.first().is_some_and(|((_, pos), _)| pos != oldest) {
            // Somebody else has done it meanwhile.
            return Ok(Backfilled::More);
        }
        let servers = self.witnesses(&view, room, first).await?;
        self.ask_witnesses(first.pdu.room_id(), &servers, (&edge, Missing::Older(*oldest)), PAGE_TIME).await
    }

    /// Asks `servers`, one after the other, for what is missing before `edge`, until one tells more. Each has its share of
    /// `time`.
    pub(super) async fn ask_witnesses(
        &self,
        room_id: &RoomId,
        servers: &[OwnedServerName],
        (edge, missing): (&[OwnedEventId], Missing),
        time: Duration,
    ) -> Result<Backfilled, SendError> {
        let Some(first) = servers.first() else { return Ok(Backfilled::Nothing) };
        let all = Taker::new(self, room_id, first).await?.ok_or(SendError::UnknownRoom)?.for_at_most(time);
        for (asked, server) in servers.iter().enumerate() {
            let taker = all.asking(server, servers.len() - asked);
            let told = match missing {
                Missing::Older(oldest) => taker.backfill(edge, oldest).await,
                Missing::In(gap) => taker.fill(edge, gap).await,
            };
            match told {
                Ok(Backfilled::More) => return Ok(Backfilled::More),
                Ok(Backfilled::Nothing) => {}
                Err(FetchError::Here(error)) => return Err(error),
                Err(FetchError::Remote(error)) => tracing::debug!(%error, %room_id, "no older events"),
                Err(FetchError::Useless(why)) => tracing::debug!(%why, %server, %room_id, "no older events"),
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
        let raw = self.in_time(self.rooms.0.remote.backfill(&self.origin, &self.room_id, edge, LIMIT)).await?;
        let mut events = self.admitted(raw.into_iter().take(LIMIT).collect()).await?;
        events.sort_by(|a, b| a.depth().cmp(&b.depth()).then_with(|| a.event_id().cmp(b.event_id())));
        events.dedup_by(|a, b| a.event_id() == b.event_id());
        let graph = self.graph().await?;
        let ids: Vec<OwnedEventId> = events.iter().map(|event| event.event_id().to_owned()).collect();
        let known = graph.find(&ids).await?;
        events.retain(|event| known.get(event.event_id()).is_none_or(|known| known.verdict == Verdict::Outlier));
        Ok(events)
    }

    /// Stores old events, oldest first, with the states before them; gives the numbers of those that are not rejected. An
    /// event whose state cannot be had is left out, unless the server falls silent: then it may tell all another time, and
    /// what has been stored need not be asked for again.
    pub(super) async fn keep_all_with_state(&self, events: Vec<Pdu>) -> Result<Vec<u32>, FetchError> {
        let mut numbers = Vec::with_capacity(events.len());
        let mut states = MAX_STATES;
        for pdu in events {
            match self.keep_with_state(&pdu, &mut states).await {
                Ok(Some(n)) => numbers.push(n),
                Ok(None) => {}
                Err(FetchError::Here(SendError::Unanswered(why))) => return Err(FetchError::Useless(why)),
                Err(FetchError::Here(error)) => return Err(FetchError::Here(error)),
                Err(FetchError::Remote(error)) if is_silence(&error) => return Err(error.into()),
                Err(_) if states == 0 => return Err(FetchError::Useless("it takes too many states".to_owned())),
                Err(_) => tracing::debug!(event_id = %pdu.event_id(), "the state before an old event was not had"),
            }
        }
        Ok(numbers)
    }

    /// Stores an old event with the state before it; gives its number unless it is rejected. The server may be asked for so
    /// many states more.
    async fn keep_with_state(&self, pdu: &Pdu, states: &mut usize) -> Result<Option<u32>, FetchError> {
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
            *states =
                states.checked_sub(1).ok_or_else(|| FetchError::Useless("it takes too many states".to_owned()))?;
            let ids = self.in_time(self.rooms.0.remote.state_ids(&self.origin, &self.room_id, pdu.event_id())).await?;
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
