//! Gaps in the middle of a timeline, and how they are filled.
//!
//! The problem: while this server was away more may have happened than can be asked for at once. What is new is shown
//! after a gap, and what is missing comes later, when somebody scrolls back to it or in the background; but timelines are
//! in the order of positions, and those are given out upwards. So an event after a gap draws [`GAP_ROOM`] positions before
//! its own, which stay free for what is missing. It is filled from the top down. Nothing that was given out changes its
//! place: tokens stay valid, and a client that has the event after the gap is not sent what is filled in before it.
//!
//! A gap is closed when what was filled in joins on what was here, or when it is full.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use hearth_event::Pdu;
use hearth_schema::{GAP_ROOM, Gap, Gaps, Membership, RoomNid, Source, Timeline};
use hearth_store::{Batch, LANES, Lane, Order, Owner, Pos, StoreError, View};
use ruma_common::{OwnedEventId, OwnedUserId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backfill::{Backfilled, EDGE, Missing, PAGE_TIME};
use super::fetch::FetchError;
use super::take::Taker;
use super::{Inbound, Past};
use crate::SendError;
use crate::intake::Rooms;
use crate::plan::membership_of;

/// How often it is looked for gaps that can be filled.
const LOOK: Duration = Duration::from_secs(15);
/// Gaps that are filled in the background at a time.
const PARALLEL: usize = 4;
/// Gaps looked at in one round.
const MAX_GAPS: usize = 1_000;
/// Gaps that are worked on in one round, and for how long each.
const ROUND: (usize, Duration) = (32, Duration::from_secs(60));
/// How many times as long as for who waits a page may take in the background, at the most.
const MAX_PATIENCE: u32 = 4;
/// Pages fetched for a gap in one round.
const PAGES: usize = 5;
/// Events that are fetched for a gap in the background; what is before them, when somebody scrolls back so far.
const MAX_BACKGROUND: u64 = 2_000;
/// How long nobody is asked about a gap of which nobody could tell more: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(24 * 60 * 60));
/// After so many pauses a gap is left to those who scroll back to it.
const MAX_FAILURES: u32 = 12;

/// How far each lane had no gap when it was looked at. A gap comes with an event, and an event with a fact of the change
/// log: a lane in which nothing has happened since need not be read again.
#[derive(Default)]
pub(crate) struct WithoutGaps([AtomicU64; LANES as usize]);

impl WithoutGaps {
    /// Whether `lane`, whose newest fact is at `newest` if the engine can say, has no gap for certain.
    fn still(&self, lane: Lane, newest: Option<Pos>) -> bool {
        let seen = self.0[usize::from(lane.number())].load(Ordering::Relaxed);
        newest.is_some_and(|newest| seen > 0 && newest.get() < seen)
    }

    /// `lane` had none in a view of everything up to `frontier`.
    fn seen(&self, lane: Lane, frontier: Pos) {
        self.0[usize::from(lane.number())].store(frontier.get() + 1, Ordering::Relaxed);
    }
}

/// A gap that is not filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenGap {
    /// The event after the gap.
    pub at: Pos,
    row: Gap,
}

impl OpenGap {
    /// The lowest event of those that are filled in; what is missing belongs right before it.
    pub(crate) fn lowest(&self) -> Pos {
        self.row.lowest.map_or(self.at, Pos::new)
    }

    /// What was here before the gap is below.
    pub(crate) fn floor(&self) -> Pos {
        floor_before(self.at)
    }
}

/// The first of the positions that an event after a gap, at `at`, has drawn.
pub(super) fn floor_before(at: Pos) -> Pos {
    Pos::new(at.get().saturating_sub(u64::from(GAP_ROOM)))
}

/// Draws what has to be free before an event that came in such a way.
pub(super) fn make_room(batch: &mut Batch, source: Source) {
    if source == Source::AfterGap {
        batch.skip_positions(GAP_ROOM);
    }
}

/// Remembers the gap before an event at `pos` that came in such a way.
pub(super) fn open(batch: &mut Batch, room: RoomNid, pos: Pos, source: Source) {
    if source == Source::AfterGap {
        batch.put::<Gaps>(&(room.lane(), room, pos), &Gap::default());
    }
}

impl Rooms {
    /// The gaps of a room that are not filled, oldest first.
    pub(crate) async fn open_gaps(&self, view: &View, room: RoomNid) -> Result<Vec<OpenGap>, StoreError> {
        let rows = view.page::<Gaps, _>(&(room.lane(), room), Order::Ascending, MAX_GAPS).await?;
        Ok(rows.into_iter().map(|((.., at), row)| OpenGap { at, row }).collect())
    }

    /// Fills gaps in the background, until `stopping`.
    pub async fn run_healing(self, stopping: CancellationToken) {
        loop {
            let round = async {
                tokio::time::sleep(LOOK).await;
                if let Err(error) = self.heal_all().await {
                    tracing::error!(%error, "cannot read gaps: they are not filled");
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = round => {}
            }
        }
    }

    /// One round in the background.
    pub(crate) async fn heal_all(&self) -> Result<(), StoreError> {
        let mut due = self.due_gaps().await?;
        // Those that have failed least: whoever makes gaps that nobody can fill does not hold up the others.
        due.sort_unstable_by_key(|(failures, dice, ..)| (*failures, *dice));
        due.truncate(ROUND.0);
        let fill = |(failures, _, room, at): (u32, u32, RoomNid, Pos)| async move {
            // Nobody waits: who is slow has more time the next time.
            let time = PAGE_TIME * (failures + 1).min(MAX_PATIENCE);
            let until = Instant::now() + ROUND.1;
            for _ in 0..PAGES {
                if Instant::now() >= until {
                    return;
                }
                match self.heal_within(room, at, time).await {
                    Ok(Backfilled::More) => {}
                    Ok(Backfilled::Nothing) => return,
                    Err(error) => {
                        tracing::warn!(%error, ?room, "a gap is not filled");
                        return;
                    }
                }
            }
        };
        futures::stream::iter(due).for_each_concurrent(PARALLEL, fill).await;
        Ok(())
    }

    /// Gaps that may be tried to fill now: how often each has failed, a random number, and where it is.
    async fn due_gaps(&self) -> Result<Vec<(u32, u32, RoomNid, Pos)>, StoreError> {
        let view = self.view().await?;
        let mut due = Vec::new();
        let now = self.0.clock.now().0;
        for lane in Lane::all() {
            if self.0.without_gaps.still(lane, self.0.store.newest_fact(lane)) {
                continue;
            }
            let mut found = false;
            view.scan::<Gaps, _>(&(lane,), Order::Ascending, MAX_GAPS, |(_, room, at), row| {
                found = true;
                let gap = OpenGap { at, row };
                let near = at.get() - gap.lowest().get().min(at.get()) < MAX_BACKGROUND;
                if near && row.failures < MAX_FAILURES && row.retry_at <= now {
                    let mut dice = [0; 4];
                    self.0.random.fill(&mut dice);
                    due.push((row.failures, u32::from_le_bytes(dice), room, at));
                }
                if due.len() < MAX_GAPS {
                    std::ops::ControlFlow::Continue(())
                } else {
                    std::ops::ControlFlow::Break(())
                }
            })
            .await?;
            if !found {
                self.0.without_gaps.seen(lane, view.frontier().of(lane));
            }
        }
        Ok(due)
    }

    /// Fetches a page of what is missing before the event at `at`, unless the gap is filled or nobody could tell a moment
    /// ago.
    pub(crate) async fn heal(&self, room: RoomNid, at: Pos) -> Result<Backfilled, SendError> {
        self.heal_within(room, at, PAGE_TIME).await
    }

    /// The same; others may be asked for so long, and as long who asks them already is waited for.
    pub(crate) async fn heal_within(&self, room: RoomNid, at: Pos, time: Duration) -> Result<Backfilled, SendError> {
        let lock = self.0.pasts.of(room);
        let Ok(_one_at_a_time) = tokio::time::timeout(time, lock.lock()).await else {
            return Ok(Backfilled::Nothing);
        };
        let view = self.view().await?;
        let Some(row) = view.get::<Gaps>(&(room.lane(), room, at)).await? else { return Ok(Backfilled::Nothing) };
        if row.retry_at > self.0.clock.now().0 {
            return Ok(Backfilled::Nothing);
        }
        let gap = OpenGap { at, row };
        let filled = view.page_between::<Timeline, _>(&(room,), gap.lowest()..=at, Order::Ascending, EDGE).await?;
        let numbers: Vec<u32> = filled.iter().map(|(_, n)| *n).collect();
        let events = self.events(&view, room, &numbers).await?;
        let edge = self.edge(&view, room, &events).await?;
        let (Some(first), false, true) = (events.first(), edge.is_empty(), gap.lowest() > gap.floor()) else {
            return self.close(room, at).await;
        };
        let mut servers = self.witnesses(&view, room, first).await?;
        // Whoever has failed is not the first to be asked each time.
        let failures = usize::try_from(gap.row.failures).unwrap_or(0);
        let turn = failures % servers.len().max(1);
        servers.rotate_left(turn);
        match self.ask_witnesses(first.pdu.room_id(), &servers, (&edge, Missing::In(gap)), time).await? {
            Backfilled::More => Ok(Backfilled::More),
            Backfilled::Nothing => self.put_off(room, gap).await,
        }
    }

    async fn close(&self, room: RoomNid, at: Pos) -> Result<Backfilled, SendError> {
        let mut batch = Batch::new(room.lane());
        batch.delete::<Gaps>(&(room.lane(), room, at));
        self.0.store.commit(batch).await?;
        Ok(Backfilled::Nothing)
    }

    /// Nobody could tell more.
    async fn put_off(&self, room: RoomNid, OpenGap { at, row }: OpenGap) -> Result<Backfilled, SendError> {
        let pause = PAUSE.1.min(PAUSE.0.saturating_mul(1 << row.failures.min(20)));
        let retry_at = self.0.clock.now().plus(pause).0;
        let mut batch = Batch::new(room.lane());
        let row = Gap { failures: row.failures.saturating_add(1), retry_at, ..row };
        batch.put::<Gaps>(&(room.lane(), room, at), &row);
        self.0.store.commit(batch).await?;
        Ok(Backfilled::Nothing)
    }
}

impl Taker {
    /// Fetches what came before the lowest of what is filled in, and places it.
    pub(super) async fn fill(&self, edge: &[OwnedEventId], gap: OpenGap) -> Result<Backfilled, FetchError> {
        let mut events = reachable(&self.older_events(edge).await?, edge);
        let banned = self.banned_around(gap, &events).await?;
        events.retain(|event| !banned.contains(event.sender()));
        let numbers = self.keep_all_with_state(events).await?;
        let free = usize::try_from(gap.lowest().get() - gap.floor().get()).unwrap_or(usize::MAX);
        let numbers = numbers[numbers.len().saturating_sub(free)..].to_vec();
        if numbers.is_empty() {
            return Ok(Backfilled::Nothing);
        }
        let past = Past { numbers, before: gap.lowest(), gap: Some(gap.at) };
        self.rooms.post_inbound(self.room, Inbound::Past(past)).await?;
        Ok(Backfilled::More)
    }
}

impl Taker {
    /// Who of those that sent `events` was banned before the gap and is so now. Old events are not held against the current
    /// state, so whoever is banned could speak by an event that another one follows.
    async fn banned_around(&self, gap: OpenGap, events: &[Pdu]) -> Result<BTreeSet<OwnedUserId>, FetchError> {
        let graph = self.graph().await?;
        let known = ..=gap.floor();
        let below = graph.view.page_between::<Timeline, _>(&(self.room,), known, Order::Descending, 1).await?;
        let Some((_, below)) = below.first() else { return Ok(BTreeSet::new()) };
        let mut states = vec![self.rooms.head(&graph.view, self.room).await?.state];
        for event in graph.events(&[*below]).await? {
            let (state, nodes) = graph.state_after(&event).await?;
            graph.save(nodes).await?;
            states.push(state);
        }
        let mut banned: BTreeSet<OwnedUserId> = events.iter().map(|event| event.sender().to_owned()).collect();
        for state in states {
            let senders: Vec<OwnedUserId> = banned.iter().cloned().collect();
            let places = senders.iter().map(|sender| ("m.room.member".to_owned(), sender.to_string()));
            let members = graph.at(state, &places.collect::<Vec<_>>()).await?;
            for (sender, member) in senders.iter().zip(members) {
                if member.and_then(|member| membership_of(&member.pdu)) != Some(Membership::Ban) {
                    banned.remove(sender);
                }
            }
        }
        Ok(banned)
    }
}

/// Those of `events`, oldest first, that `edge` leads to: a server may tell of times before the gap, which belong
/// elsewhere.
fn reachable(events: &[Pdu], edge: &[OwnedEventId]) -> Vec<Pdu> {
    let by_id: HashMap<OwnedEventId, usize> =
        events.iter().enumerate().map(|(i, event)| (event.event_id().to_owned(), i)).collect();
    let mut wanted = vec![false; events.len()];
    let mut todo: Vec<&OwnedEventId> = edge.iter().collect();
    while let Some(id) = todo.pop() {
        if let Some(i) = by_id.get(id)
            && !std::mem::replace(&mut wanted[*i], true)
        {
            todo.extend(events[*i].prev_events());
        }
    }
    let mut wanted = wanted.into_iter();
    events.iter().filter(|_| wanted.next().unwrap_or(false)).cloned().collect()
}
