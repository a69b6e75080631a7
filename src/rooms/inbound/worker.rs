//! The worker of a room's inbox: takes what is in it, in the order of arrival.
//!
//! The problem: what an event stands on may have to be asked for, and whom one asks may be away, or may keep one waiting
//! on purpose. An event that was acknowledged must not be lost for the one, and nobody else's events may wait for the
//! other. So an event whose questions were not answered is put aside: its row stays, with the number and the time of the
//! attempts, and the worker goes on. It comes back to it when its pause is over, or soon after its server was heard from.
//! Until then other events of that server that need answers are put aside too, without a question: most of them follow
//! the first, and a server that is silent once would be so each time. After half a day an event is let go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_base::Millis;
use hearth_event::{Pdu, RoomVersion};
use hearth_schema::{Inbox, RoomNid, StagedEvent, StagedWait};
use hearth_store::{Batch, Order, Owner, Pos, StoreError};
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedServerName};
use tokio_util::sync::CancellationToken;

use super::asking::{PATIENCE, is_of_here};
use super::desk::Desk;
use super::run::Arrived;
use super::take::Taker;
use crate::SendError;
use crate::gather::damaged;
use crate::intake::Rooms;

/// Events of one room read from the inbox at once.
const PAGE: usize = 64;
/// How long a worker waits after a failure of the store: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long an event waits for its server: at first, and at most. Each pause is four times the one before.
const WAIT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(2 * 60 * 60));
/// The same once that server was heard from.
const WAIT_HEARD: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(20 * 60));
/// An event that has waited for so long is let go when it fails again.
const LET_GO: Duration = Duration::from_secs(12 * 60 * 60);
/// The shortest and the longest rest of a worker that waits for nothing but time, which may be set meanwhile.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// An event that is put aside.
struct Aside {
    origin: OwnedServerName,
    wait: StagedWait,
}

struct Worker {
    rooms: Rooms,
    room: RoomNid,
    room_id: OwnedRoomId,
    desk: Arc<Desk>,
    /// What is below has been taken, or is aside.
    next: Pos,
    aside: BTreeMap<Pos, Aside>,
    /// Servers of which an event was taken while others waited, which may stand on what is here now.
    told: BTreeSet<OwnedServerName>,
}

impl Rooms {
    /// Starts the worker of a room's inbox, or wakes it.
    pub(super) fn work_on(&self, room: RoomNid, room_id: OwnedRoomId) {
        let Some(desk) = self.0.workers.begin(room) else { return };
        let (next, aside, told) = (Pos::ZERO, BTreeMap::new(), BTreeSet::new());
        let worker = Worker { rooms: self.clone(), room, room_id, desk, next, aside, told };
        self.0.tasks.spawn(worker.run());
    }

    /// Passes on, until `stopping`, which servers are heard from: events may wait for them.
    pub async fn run_hearing(
        self,
        mut heard: tokio::sync::broadcast::Receiver<OwnedServerName>,
        stopping: CancellationToken,
    ) {
        use tokio::sync::broadcast::error::RecvError;
        loop {
            let server = tokio::select! {
                () = stopping.cancelled() => return,
                server = heard.recv() => server,
            };
            let now = self.0.clock.now();
            match server {
                Ok(server) => self.0.workers.heard_from(Some(&server), now),
                Err(RecvError::Lagged(_)) => self.0.workers.heard_from(None, now),
                Err(RecvError::Closed) => return,
            }
        }
    }
}

impl Worker {
    async fn run(mut self) {
        let mut pause = PAUSE.0;
        while !self.rooms.0.is_stopping() {
            match self.pass().await {
                Ok(()) => {
                    pause = PAUSE.0;
                    if self.rooms.0.workers.end(self.room) {
                        return;
                    }
                    self.rest().await;
                }
                Err(error) => {
                    tracing::warn!(%error, room_id = %self.room_id, "the room's inbox waits");
                    self.rooms.0.pause(pause).await;
                    pause = PAUSE.1.min(pause * 2);
                }
            }
        }
    }

    /// Waits until something comes, somebody is heard from, or it is time to try again.
    async fn rest(&self) {
        let now = self.rooms.0.clock.now();
        let next = self.aside.values().map(|aside| self.due_at(aside).since(now)).min();
        let rest = next.unwrap_or(REST.1).clamp(REST.0, REST.1);
        tokio::select! {
            () = self.desk.wake.notified() => {}
            () = self.rooms.0.pause(rest) => {}
        }
    }

    /// Takes what is new, then what is due.
    async fn pass(&mut self) -> Result<(), SendError> {
        while self.take_page().await? {}
        let now = self.rooms.0.clock.now();
        let told = std::mem::take(&mut self.told);
        let again = self.aside.iter().filter(|(_, aside)| self.due_at(aside) <= now || told.contains(&aside.origin));
        let again: Vec<Pos> = again.map(|(arrival, _)| *arrival).collect();
        let mut lacking: BTreeSet<OwnedServerName> = BTreeSet::new();
        for arrival in again {
            if self.rooms.0.is_stopping() {
                return Ok(());
            }
            self.take_again(arrival, &mut lacking).await?;
            // Whatever has come meanwhile does not wait for all of them.
            while self.take_page().await? {}
        }
        // What was taken may be what others, which are not due, wait for.
        if !self.told.is_empty() {
            self.desk.wake.notify_one();
        }
        Ok(())
    }

    /// Takes a page of what is new; whether there was any.
    async fn take_page(&mut self) -> Result<bool, SendError> {
        if self.rooms.0.is_stopping() {
            return Ok(false);
        }
        let view = self.rooms.view().await?;
        let inbox = (self.room.lane(), self.room);
        let rows = view.page_between::<Inbox, _>(&inbox, self.next.., Order::Ascending, PAGE).await?;
        let Some(((.., last), _)) = rows.last() else { return Ok(false) };
        let next = last.next();
        let version = self.rooms.version(&view, self.room).await?;
        let mut arrived: Vec<Arrived> = Vec::with_capacity(rows.len());
        for ((_, _, arrival), staged) in rows {
            let (wait, origin) = (staged.wait, staged.origin.clone());
            match (parsed(arrival, staged, version), wait) {
                (Ok(one), None) => arrived.push(one),
                // Put aside before a restart.
                (Ok(Arrived { origin, .. }), Some(wait)) => self.put_aside(arrival, Aside { origin, wait }),
                (Err(error), _) => self.drop_damaged(arrival, &origin, &error).await?,
            }
        }
        let mut rest = arrived.as_slice();
        while let [first, others @ ..] = rest {
            if self.rooms.0.is_stopping() {
                return Ok(false);
            }
            rest = match self.rooms.take_run(self.room, rest).await? {
                0 => {
                    self.take_alone(first, None).await?;
                    others
                }
                taken => {
                    let (run, others) = rest.split_at(taken.min(rest.len()));
                    for one in run {
                        self.is_taken(one.arrival, &one.origin);
                    }
                    others
                }
            };
        }
        self.next = next;
        Ok(true)
    }

    /// Takes an event that was put aside. `lacking` are servers of which one that is not due has been found to lack
    /// something still: what came after it is not looked at.
    async fn take_again(&mut self, arrival: Pos, lacking: &mut BTreeSet<OwnedServerName>) -> Result<(), SendError> {
        let Some(aside) = self.aside.get(&arrival) else { return Ok(()) };
        let (origin, wait) = (aside.origin.clone(), aside.wait);
        let is_due = self.due_at(aside) <= self.rooms.0.clock.now();
        if !is_due && lacking.contains(&origin) {
            return Ok(());
        }
        let view = self.rooms.view().await?;
        let version = self.rooms.version(&view, self.room).await?;
        let row = view.get::<Inbox>(&(self.room.lane(), self.room, arrival)).await?;
        let Some(row) = row else {
            // It was given up while the room's task had it, which has taken it in the end.
            self.is_done(arrival, origin.as_str());
            return Ok(());
        };
        let arrived = match parsed(arrival, row, version) {
            Ok(arrived) => arrived,
            Err(error) => return self.drop_damaged(arrival, origin.as_str(), &error).await,
        };
        if !is_due && self.taker(&arrived).await?.has_to_ask(&arrived.pdu).await? {
            lacking.insert(origin);
            return Ok(());
        }
        self.take_alone(&arrived, Some(wait)).await
    }

    async fn taker(&self, arrived: &Arrived) -> Result<Taker, SendError> {
        Taker::new(&self.rooms, &self.room_id, &arrived.origin).await?.ok_or(SendError::UnknownRoom)
    }

    /// Takes one event, which has waited so long.
    async fn take_alone(&mut self, arrived: &Arrived, wait: Option<StagedWait>) -> Result<(), SendError> {
        let Arrived { pdu, origin, arrival } = arrived;
        let tries = wait.map_or(0, |wait| wait.tries);
        // Who is slow has more time once it is known that others need not wait for it at once.
        let patience = PATIENCE * if tries == 0 { 1 } else { 2 };
        let taker = self.taker(arrived).await?.for_all_of(patience);
        if let Some(silent) = self.silence_of(origin)
            && taker.has_to_ask(pdu).await?
        {
            return self.wait(arrived, wait, silent).await;
        }
        // Besides the questions, each of which has a deadline, there are keys to be had and others' turns to wait for.
        let outcome = tokio::time::timeout(patience * 2, taker.take(pdu.clone(), Some(*arrival))).await;
        match outcome.unwrap_or_else(|_| Err(SendError::Unanswered("what it stands on was not had in time".into()))) {
            Ok(_) => {
                self.is_taken(*arrival, origin);
                Ok(())
            }
            Err(error) if is_of_here(&error) => Err(error),
            Err(SendError::Unanswered(why)) => {
                tracing::debug!(%why, event_id = %pdu.event_id(), %origin, "an event waits for other servers");
                let tried_at = self.rooms.0.clock.now().0;
                self.wait(arrived, wait, StagedWait { since: tried_at, tries: tries.saturating_add(1), tried_at }).await
            }
            Err(error) => {
                tracing::info!(%error, event_id = %pdu.event_id(), %origin, "an event of another server is dropped");
                self.delete(*arrival, origin.as_str()).await
            }
        }
    }

    /// How an event of `origin` waits that is not to be tried yet.
    fn silence_of(&self, origin: &OwnedServerName) -> Option<StagedWait> {
        if !self.desk.waits_for(origin) {
            return None;
        }
        let now = self.rooms.0.clock.now();
        let waits = self.aside.values().filter(|aside| aside.origin == *origin && self.due_at(aside) > now);
        waits.map(|aside| aside.wait).max_by_key(|wait| wait.tries)
    }

    /// Puts an event aside, which has waited like `before` and goes on like `on`; durable when it returns.
    async fn wait(&mut self, arrived: &Arrived, before: Option<StagedWait>, on: StagedWait) -> Result<(), SendError> {
        let Arrived { pdu, origin, arrival } = arrived;
        let now = self.rooms.0.clock.now();
        let wait = StagedWait { since: before.map_or(now.0, |before| before.since), ..on };
        if now.since(Millis(wait.since)) >= LET_GO {
            let event_id = pdu.event_id();
            tracing::warn!(%event_id, %origin, room_id = %self.room_id, "an event is dropped: nobody tells what it stands on");
            metrics::counter!("hearth_federation_unanswered_events_total").increment(1);
            return self.delete(*arrival, origin.as_str()).await;
        }
        let mut batch = Batch::new(self.room.lane());
        batch.put::<Inbox>(&(self.room.lane(), self.room, *arrival), &staged(origin.as_str(), pdu, Some(wait)));
        self.rooms.0.store.commit(batch).await?;
        self.put_aside(*arrival, Aside { origin: origin.clone(), wait });
        Ok(())
    }

    fn put_aside(&mut self, arrival: Pos, aside: Aside) {
        let origin = aside.origin.clone();
        if self.aside.insert(arrival, aside).is_none() {
            self.desk.is_aside(&origin);
        }
    }

    /// Nobody can read it, now or later, and what came after it must not wait for ever.
    async fn drop_damaged(&mut self, arrival: Pos, origin: &str, error: &StoreError) -> Result<(), SendError> {
        tracing::error!(%error, room_id = %self.room_id, "a damaged row of a room's inbox is dropped");
        self.delete(arrival, origin).await
    }

    async fn delete(&mut self, arrival: Pos, origin: &str) -> Result<(), SendError> {
        let mut batch = Batch::new(self.room.lane());
        batch.delete::<Inbox>(&(self.room.lane(), self.room, arrival));
        self.rooms.0.store.commit(batch).await?;
        self.is_done(arrival, origin);
        Ok(())
    }

    /// The event is in the room, where others of its server may have been waiting for it.
    fn is_taken(&mut self, arrival: Pos, origin: &OwnedServerName) {
        self.is_done(arrival, origin.as_str());
        if self.desk.waits_for(origin) {
            self.told.insert(origin.clone());
        }
    }

    /// The row is gone from the store.
    fn is_done(&mut self, arrival: Pos, origin: &str) {
        if let Some(aside) = self.aside.remove(&arrival) {
            self.desk.is_back(&aside.origin);
        }
        self.desk.is_done(origin);
    }

    /// When an event is tried again.
    fn due_at(&self, aside: &Aside) -> Millis {
        let tried_at = Millis(aside.wait.tried_at);
        let pause = |(first, longest): (Duration, Duration)| {
            longest.min(first.saturating_mul(4_u32.saturating_pow(aside.wait.tries.saturating_sub(1))))
        };
        let heard = self.desk.heard(&aside.origin).is_some_and(|at| at >= tried_at);
        tried_at.plus(pause(if heard { WAIT_HEARD } else { WAIT }))
    }
}

/// What is stored of an event in an inbox.
pub(super) fn staged(origin: &str, pdu: &Pdu, wait: Option<StagedWait>) -> StagedEvent {
    StagedEvent { origin: origin.to_owned(), event_id: pdu.event_id().to_string(), json: pdu.json().to_vec(), wait }
}

/// A row of the inbox.
fn parsed(arrival: Pos, staged: StagedEvent, version: RoomVersion) -> Result<Arrived, StoreError> {
    let unreadable = |error: String| damaged("Inbox", error);
    let origin = OwnedServerName::try_from(staged.origin.as_str()).map_err(|error| unreadable(error.to_string()))?;
    let event_id = OwnedEventId::try_from(staged.event_id.as_str()).map_err(|error| unreadable(error.to_string()))?;
    let pdu = Pdu::from_stored(&event_id, Bytes::from(staged.json), version)
        .map_err(|error| unreadable(error.to_string()))?;
    Ok(Arrived { pdu, origin, arrival })
}
