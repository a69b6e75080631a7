//! Following the change log, and waking whom it concerns.
//!
//! One task reads the facts behind the unread consumer, so that an event is never shown with counts
//! older than it: what may be shown ends where the consumer has come (`counted`). First all positions
//! of a stretch are raised, then the stretch is published, then the users are woken: who wakes, or
//! looks without waiting, finds either nothing published or everything raised.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hearth_base::ticks;
use hearth_rooms::RoomEvent;
use hearth_schema::{Change, EventNid, Membership, NidMap, RoomNid, StateLog, UserNid, UserRoom, UserRooms};
use hearth_store::{Lane, LoggedFact, Order, Pos, Store, StoreError, Value, View};
use ruma_common::UserId;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Live, LiveUser, Standing};
use crate::member::membership;

/// Facts read at a time.
const PAGE: usize = 256;
/// How long it rests after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How often idle users are let go.
const SWEEP: Duration = Duration::from_secs(30);

/// The users that a stretch concerns.
type Touched = NidMap<UserNid, Arc<LiveUser>>;

/// Follows the change log for [`Live`].
pub(crate) struct Notifier {
    live: Arc<Live>,
    store: Arc<dyn Store>,
    counted: watch::Receiver<Pos>,
    typing: broadcast::Receiver<RoomNid>,
    /// Position of the last fact seen, by lane.
    positions: Vec<Pos>,
}

impl Notifier {
    /// Begins at the end of the log: nobody is registered yet, and who registers reads the store.
    pub(crate) fn new(live: Arc<Live>, store: Arc<dyn Store>, counted: watch::Receiver<Pos>) -> Self {
        let frontier = store.frontier();
        let positions = Lane::all().map(|lane| frontier.of(lane)).collect();
        let typing = live.rooms.typing().changes();
        Self { live, store, counted, typing, positions }
    }

    /// Follows until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut sweep = ticks(SWEEP);
        let (mut counting, mut failed) = (true, false);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                moved = self.counted.changed(), if counting => counting = moved.is_ok(),
                change = self.typing.recv() => self.typing_changed(&change),
                () = tokio::time::sleep(RETRY), if failed => {}
                _ = sweep.tick() => self.live.sweep(Instant::now()),
            }
            loop {
                let step = tokio::select! {
                    () = shutdown.cancelled() => return,
                    step = self.step() => step,
                };
                failed = step.is_err();
                match step {
                    Ok(()) => break,
                    // A view lives for some seconds at least: the next one serves.
                    Err(StoreError::SnapshotExpired) => tokio::task::yield_now().await,
                    Err(error) => {
                        // Nothing is published and nothing forgotten.
                        tracing::warn!(%error, "cannot follow the change log for /sync, trying again");
                        break;
                    }
                }
            }
        }
    }

    /// Takes in everything that has been counted, and publishes it.
    async fn step(&mut self) -> Result<(), StoreError> {
        let target = *self.counted.borrow_and_update();
        if target <= self.live.processed() {
            return Ok(());
        }
        let mut touched = Touched::default();
        let mut moved = false;
        for lane in Lane::all() {
            moved |= self.follow_lane(lane, target, &mut touched).await?;
        }
        self.live.processed.send_replace(target);
        wake(&touched);
        // Not everything that is committed says something to anybody.
        if moved {
            self.live.concerned.store(touched.len(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes in the facts of a lane up to `target`; gives whether there were any.
    async fn follow_lane(&mut self, lane: Lane, target: Pos, touched: &mut Touched) -> Result<bool, StoreError> {
        let at = usize::from(lane.number());
        let mut moved = false;
        loop {
            let from = self.positions[at];
            if from >= target || self.store.newest_fact(lane).is_some_and(|newest| newest <= from) {
                return Ok(moved);
            }
            moved = true;
            if self.live.users.read().is_empty() {
                // Whoever registers from now on reads the store at or above `target`.
                self.positions[at] = target;
                return Ok(moved);
            }
            // A short answer need not be the end: the log ends where nothing comes, or what is newer than `target`.
            let mut facts = self.store.tail(lane, from, PAGE).await?;
            let more = facts.last().is_some_and(|fact| fact.pos < target);
            facts.retain(|fact| fact.pos <= target);
            let last = facts.last().map(|fact| fact.pos);
            self.live.take_in(&*self.store, &facts, touched).await?;
            self.positions[at] = last.filter(|_| more).unwrap_or(target);
        }
    }

    /// Takes in all changes of typing that have been announced.
    fn typing_changed(&mut self, first: &Result<RoomNid, RecvError>) {
        let typing = self.live.rooms.typing().clone();
        let version = typing.version();
        let mut rooms = HashSet::new();
        let mut lagged = false;
        match first {
            Ok(room) => {
                // Announcements are made under the lock that this takes: those of changes that
                // `version` counts have been made when it returns.
                drop(typing.in_room(*room));
                rooms.insert(*room);
            }
            Err(RecvError::Lagged(_)) => lagged = true,
            Err(RecvError::Closed) => return,
        }
        loop {
            match self.typing.try_recv() {
                Ok(room) => drop(rooms.insert(room)),
                Err(TryRecvError::Lagged(_)) => lagged = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if lagged {
            rooms.extend(self.live.watched.read().keys());
        }
        let mut touched = Touched::default();
        for room in rooms {
            let Some(live) = self.live.live_room(room) else { continue };
            let (version, _) = typing.in_room(room);
            live.typing_at(version);
            live.for_each_user(|user| {
                user.typing_at(version);
                touched.insert(user.nid(), Arc::clone(user));
            });
        }
        self.live.typing.raise(version);
        wake(&touched);
    }
}

fn wake(touched: &Touched) {
    for user in touched.values() {
        user.wake();
    }
}

impl Live {
    /// Raises the positions of everybody whom `facts`, all of one lane, concern.
    async fn take_in(&self, store: &dyn Store, facts: &[LoggedFact], touched: &mut Touched) -> Result<(), StoreError> {
        let mut numbers: NidMap<RoomNid, Vec<u32>> = NidMap::default();
        let mut outside = Vec::new();
        for fact in facts {
            match Change::decode(&fact.body) {
                Ok(Change::Event { event: EventNid { room, n } }) => numbers.entry(room).or_default().push(n),
                Ok(Change::Receipt { room, .. }) => self.receipt(room, fact.pos, touched),
                Ok(Change::AccountData { user }) => {
                    if let Some(user) = self.user(user) {
                        user.account_data_at(fact.pos);
                        touched.insert(user.nid(), user);
                    }
                }
                Ok(Change::Outside { user, room }) => outside.push((user, room)),
                Ok(Change::ThreadSubscription { user }) => {
                    if let Some(user) = self.user(user) {
                        user.threads_at(fact.pos);
                        touched.insert(user.nid(), user);
                    }
                }
                // Nobody is left who could be told.
                Ok(Change::Deactivated { .. }) => {}
                Err(error) => tracing::error!(pos = fact.pos.get(), %error, "a fact of the change log is damaged"),
            }
        }
        outside.retain(|(user, _)| self.user(*user).is_some());
        if !outside.is_empty() {
            self.outside(&View::latest(store).await?, &outside, touched).await?;
        }
        if numbers.is_empty() {
            return Ok(());
        }
        let view = View::latest(store).await?;
        for (room, numbers) in numbers {
            self.events(&view, room, &numbers, touched).await?;
        }
        Ok(())
    }

    /// Memberships in rooms that this server is not in, as they are now: what comes later comes by itself.
    async fn outside(&self, view: &View, keys: &[(UserNid, RoomNid)], touched: &mut Touched) -> Result<(), StoreError> {
        for ((nid, room), row) in keys.iter().zip(view.get_many::<UserRooms>(keys).await?) {
            let (Some(user), Some(row)) = (self.user(*nid), row.filter(|row| row.n.is_none())) else { continue };
            self.remove_from_room(*room, &user);
            user.change_at(row.pos);
            user.stand(*room, Standing { row: Arc::new(row), live: None });
            touched.insert(*nid, user);
        }
        Ok(())
    }

    fn receipt(&self, room: RoomNid, pos: Pos, touched: &mut Touched) {
        let Some(live) = self.live_room(room) else { return };
        live.receipt_at(pos);
        live.for_each_user(|user| {
            user.change_at(pos);
            touched.insert(user.nid(), Arc::clone(user));
        });
    }

    async fn events(
        &self,
        view: &View,
        room: RoomNid,
        numbers: &[u32],
        touched: &mut Touched,
    ) -> Result<(), StoreError> {
        let events = self.rooms.events(view, room, numbers).await?;
        for event in &events {
            self.member_event(event, touched);
        }
        let Some(newest) = events.iter().map(|event| event.pos).max() else { return Ok(()) };
        let Some(live) = self.live_room(room) else { return Ok(()) };
        if events.iter().any(|event| event.moved_state != Some(false)) {
            // Resolution may change the state at an event that is no state event, so the log is asked.
            let changes = view.page_between::<StateLog, _>(&(room,), ..=newest, Order::Descending, 1).await?;
            if let Some(((_, pos, _), _)) = changes.first() {
                live.state_at(*pos);
            }
        }
        live.follow(&events);
        // What has been counted last is the newest event, unless more has happened meanwhile.
        if let Some((_, tally)) = self.rooms.recent_tallies().newest(room).filter(|(pos, _)| *pos == newest) {
            live.keep_tally(newest, tally);
        }
        live.for_each_user(|user| {
            user.change_at(newest);
            touched.insert(user.nid(), Arc::clone(user));
        });
        Ok(())
    }

    /// A user of another server comes or goes: the room sees who comes.
    fn foreign_member(&self, user: UserNid, event: &RoomEvent) {
        self.foreign.forget(user);
        if membership(event) == Some(Membership::Join) {
            self.presence.show_again(user);
        }
    }

    /// A member event changes the rooms of its user, who may not have been in the room so far.
    fn member_event(&self, event: &RoomEvent, touched: &mut Touched) {
        if event.event_type() != "m.room.member" {
            return;
        }
        let Some(Ok(user_id)) = event.state_key().map(<&UserId>::try_from) else { return };
        if user_id.server_name() != self.server_name {
            self.foreign_member(self.rooms.ids().user(user_id), event);
            return;
        }
        let (Some(user), Some(membership)) = (self.user(self.rooms.ids().user(user_id)), membership(event)) else {
            return;
        };
        let row = UserRoom {
            pos: event.pos,
            room_id: event.pdu.room_id().to_string(),
            membership,
            n: Some(event.n),
            own: event.sender() == user_id,
            forgotten: false,
        };
        let live = if membership == Membership::Join {
            if !user.is_in(event.room) {
                self.presence.show_again(user.nid());
            }
            Some(self.add_to_room(event.room, &user))
        } else {
            self.remove_from_room(event.room, &user);
            None
        };
        user.stand(event.room, Standing { row: Arc::new(row), live });
        user.change_at(event.pos);
        touched.insert(user.nid(), user);
    }
}
