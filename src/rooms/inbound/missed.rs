//! What came while this server was away.
//!
//! The problem: a peer that could not reach us tries again when its pause ends, hours later perhaps, and until then it
//! has nothing to say to us. No endpoint tells what the newest events of a room are. But `timestamp_to_event`, asked for
//! the last event before a time that has not come yet, tells one of them. What is not here is fetched and goes the way of
//! an event that was sent, which also fetches what lies between.
//!
//! That we ask shows the peer besides that we live, and it sends what it has kept, the oldest first. If the newest event
//! were taken at once, what comes after it would stand behind it. So that one waits until the room is quiet, and by then
//! it is mostly here.

use std::cmp::Reverse;
use std::time::Duration;

use futures::StreamExt as _;
use hearth_schema::{RoomLast, RoomNid, Verdict};
use hearth_store::{Lane, Order, Pos, StoreError, View};
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedServerName};
use tokio_util::sync::CancellationToken;

use super::fetch::FetchError;
use super::take::Taker;
use crate::intake::Rooms;
use crate::query::parse_room_id;

/// Rooms that are asked about, those first in which something happened last.
const MAX_ROOMS: usize = 5_000;
/// Rooms read at a time.
const PAGE: usize = 1024;
/// Rooms that are asked about at a time.
const PARALLEL: usize = 16;
/// The longest pause before a room: peers are not asked about all rooms at one moment.
const PAUSE: Duration = Duration::from_millis(200);
/// Servers of a room that are tried.
const TRIED: usize = 4;
/// Answers about a room that are enough.
const ENOUGH: usize = 2;
/// How far clocks of other servers may go ahead of ours.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// How long a room has to be quiet before what is missing there is fetched, and how often that is looked at.
const QUIET: (Duration, usize) = (Duration::from_secs(4), 75);
/// When rooms are asked about of which nobody could tell: at once, and when a network may be there.
const ROUNDS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(120), Duration::from_secs(900)];

/// What came of asking about a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Somebody has told, or nobody else is in the room.
    Done,
    /// Nobody could be reached.
    Unreachable,
}

impl Rooms {
    /// Asks the servers of shared rooms, once after a start, for what came while this server was away. Ends when that is
    /// done, or with `stopping`.
    pub async fn run_catching_up(self, stopping: CancellationToken) {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.catch_up() => {}
        }
    }

    async fn catch_up(&self) {
        let mut rooms = match self.recent_rooms().await {
            Ok(rooms) => rooms,
            Err(error) => {
                tracing::error!(%error, "cannot read rooms: nobody is asked for what was missed");
                return;
            }
        };
        for pause in ROUNDS {
            tokio::time::sleep(pause + self.part_of(pause / 4)).await;
            let asked = futures::stream::iter(rooms).map(|room| async move { (room, self.ask_about(room).await) });
            let asked: Vec<(RoomNid, Asked)> = asked.buffer_unordered(PARALLEL).collect().await;
            rooms = asked.into_iter().filter(|(_, asked)| *asked == Asked::Unreachable).map(|(room, _)| room).collect();
            if rooms.is_empty() {
                return;
            }
        }
        tracing::info!(rooms = rooms.len(), "nobody could be asked what was missed in these rooms");
    }

    /// Every room, those first in which something happened last.
    async fn recent_rooms(&self) -> Result<Vec<RoomNid>, StoreError> {
        let view = self.view().await?;
        let mut rooms: Vec<(Reverse<Pos>, RoomNid)> = Vec::new();
        for lane in Lane::all() {
            view.scan::<RoomLast, _>(&(lane,), Order::Ascending, PAGE, |(_, room), last| {
                rooms.push((Reverse(last.0), room));
                std::ops::ControlFlow::Continue(())
            })
            .await?;
            rooms.sort_unstable();
            rooms.truncate(MAX_ROOMS);
        }
        Ok(rooms.into_iter().map(|(_, room)| room).collect())
    }

    async fn ask_about(&self, room: RoomNid) -> Asked {
        tokio::time::sleep(self.part_of(PAUSE)).await;
        match self.ask_servers(room).await {
            Ok(asked) => asked,
            Err(error) => {
                tracing::warn!(%error, ?room, "cannot find out what was missed");
                Asked::Done
            }
        }
    }

    async fn ask_servers(&self, room: RoomNid) -> Result<Asked, crate::SendError> {
        let view = self.view().await?;
        let Some((room_id, servers)) = self.to_be_asked(&view, room).await? else { return Ok(Asked::Done) };
        let (mut told, mut refused) = (0, false);
        for server in servers {
            let Some(taker) = Taker::new(self, &room_id, &server).await? else { return Ok(Asked::Done) };
            match taker.take_newest().await {
                Ok(()) => told += 1,
                Err(FetchError::Here(error)) => return Err(error),
                Err(FetchError::Useless(why)) => tracing::debug!(%why, %server, %room_id, "nothing was told"),
                Err(FetchError::Remote(error)) => {
                    refused |= !matches!(error, crate::remote::RemoteError::Unreachable { .. });
                    tracing::debug!(%error, %room_id, "nobody told what was missed");
                }
            }
            if told >= ENOUGH {
                break;
            }
        }
        // Who lives and does not tell will not do so later.
        Ok(if told > 0 || refused { Asked::Done } else { Asked::Unreachable })
    }

    /// The other servers of a room that this one is in: the one with most members, then any.
    async fn to_be_asked(
        &self,
        view: &View,
        room: RoomNid,
    ) -> Result<Option<(OwnedRoomId, Vec<OwnedServerName>)>, StoreError> {
        let own = &self.0.signer.server_name;
        // Servers are counted by reading all members: not for a room of one.
        if self.head(view, room).await?.joined_members < 2 {
            return Ok(None);
        }
        let servers = self.servers(view, room).await?;
        if !servers.contains_key(own) || servers.len() < 2 {
            return Ok(None);
        }
        let Some(meta) = self.room(view, room).await? else { return Ok(None) };
        let mut others = Vec::with_capacity(servers.len());
        for (server, members) in servers.iter().filter(|(server, _)| *server != own) {
            let mut dice = [0; 4];
            self.0.random.fill(&mut dice);
            others.push((*members, u32::from_le_bytes(dice), server));
        }
        others.sort_unstable_by_key(|(members, ..)| Reverse(*members));
        if let Some((_, others)) = others.split_first_mut() {
            others.sort_unstable_by_key(|(_, dice, _)| *dice);
        }
        let mut chosen = Vec::with_capacity(TRIED);
        for (.., server) in others {
            if chosen.len() < TRIED && self.acl_allows(view, room, server).await? {
                chosen.push(server.clone());
            }
        }
        Ok((!chosen.is_empty()).then_some((parse_room_id(&meta.room_id)?, chosen)))
    }

    /// Any time up to `longest`.
    fn part_of(&self, longest: Duration) -> Duration {
        let mut dice = [0; 1];
        self.0.random.fill(&mut dice);
        longest.mul_f64(f64::from(dice[0]) / 255.0)
    }
}

impl Taker {
    /// Asks the origin for the newest event that it has, and takes that as if it had been sent, unless it is here.
    async fn take_newest(&self) -> Result<(), FetchError> {
        let remote = &self.rooms.0.remote;
        let time = self.rooms.0.clock.now().plus(AHEAD);
        let newest = remote.event_before(&self.origin, &self.room_id, time).await?;
        if self.is_here(&newest).await? || self.comes_by_itself(&newest).await? {
            return Ok(());
        }
        let raw = remote.event(&self.origin, &newest).await?;
        let received = self.rooms.receive(&self.origin, vec![raw]).await?;
        match received.into_iter().find(|received| received.event_id == newest).map(|received| received.result) {
            Some(Ok(())) => {
                tracing::info!(event_id = %newest, server = %self.origin, "something was missed, and is fetched");
                Ok(())
            }
            Some(Err(why)) => Err(FetchError::Useless(why)),
            None => Err(FetchError::Useless("the event is not what was asked for".to_owned())),
        }
    }

    async fn is_here(&self, event_id: &OwnedEventId) -> Result<bool, FetchError> {
        let found = self.graph().await?.find(std::slice::from_ref(event_id)).await?;
        Ok(found.get(event_id).is_some_and(|event| event.verdict != Verdict::Outlier))
    }

    /// Waits while something happens in the room; says whether the event is here then.
    async fn comes_by_itself(&self, event_id: &OwnedEventId) -> Result<bool, FetchError> {
        let mut before = None;
        for _ in 0..QUIET.1 {
            let generation = self.rooms.head(&self.rooms.view().await?, self.room).await?.generation;
            let moved = before.replace(generation) != Some(generation);
            if self.is_here(event_id).await? {
                return Ok(true);
            }
            if !moved && !self.rooms.0.workers.is_busy(self.room) {
                break;
            }
            self.rooms.0.pause(QUIET.0).await;
        }
        self.is_here(event_id).await
    }
}
