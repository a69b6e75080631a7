//! A registered user.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_accounts::KnownScreening;
use hearth_schema::{Membership, NidMap, RoomNid, UserNid, UserRoom};
use hearth_store::Pos;
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;

use super::{LiveRoom, Newest, PresenceMark};
use crate::counts::ReadStates;
use crate::filter::Filter;
use crate::lazy::SentMembers;
use crate::sliding::KnownTraits;

/// Filters remembered for a user.
const FILTERS: usize = 16;

/// What is known of it without asking the store.
pub(crate) struct LiveUser {
    nid: UserNid,
    /// Set once the positions are those of the store.
    pub(super) loaded: OnceCell<()>,
    memberships: Mutex<NidMap<RoomNid, Standing>>,
    /// Position of the newest change that concerns the user.
    change: Newest,
    /// Position of the newest change of account data.
    account_data: Newest,
    /// Position of the newest decision about a thread.
    threads: Newest,
    /// Version of the newest change in typing, in any of its rooms.
    typing: Newest,
    wake: Notify,
    polls: AtomicUsize,
    last_poll: Mutex<Instant>,
    filters: Mutex<HashMap<String, Arc<Filter>>>,
    /// Member events that its devices have.
    pub(crate) sent_members: SentMembers,
    /// What it has read, as answers have found it.
    pub(crate) read_states: ReadStates,
    /// What its rooms are, for the filters of lists.
    pub(crate) traits: KnownTraits,
    /// What is to be told of others' presence.
    pub(crate) presence: PresenceMark,
    /// Whom it does not want to hear from.
    pub(crate) screening: KnownScreening,
}

/// A user's membership in a room.
#[derive(Clone)]
pub(crate) struct Standing {
    /// As in the user's list of rooms.
    pub row: Arc<UserRoom>,
    /// For a joined room.
    pub live: Option<Arc<LiveRoom>>,
}

impl LiveUser {
    pub(super) fn new(nid: UserNid) -> Self {
        Self {
            nid,
            loaded: OnceCell::new(),
            memberships: Mutex::default(),
            change: Newest::default(),
            account_data: Newest::default(),
            threads: Newest::default(),
            typing: Newest::default(),
            wake: Notify::new(),
            polls: AtomicUsize::new(0),
            last_poll: Mutex::new(Instant::now()),
            filters: Mutex::default(),
            sent_members: SentMembers::default(),
            read_states: ReadStates::default(),
            traits: KnownTraits::default(),
            presence: PresenceMark::default(),
            screening: KnownScreening::default(),
        }
    }

    pub(crate) const fn nid(&self) -> UserNid {
        self.nid
    }

    pub(super) fn poll_begins(&self) {
        self.polls.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn poll_ends(&self) {
        *self.last_poll.lock() = Instant::now();
        self.polls.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn is_idle(&self, now: Instant, patience: Duration) -> bool {
        self.polls.load(Ordering::Acquire) == 0 && now.saturating_duration_since(*self.last_poll.lock()) >= patience
    }

    /// Keeps `standing` unless a newer one is known.
    pub(super) fn stand(&self, room: RoomNid, standing: Standing) {
        let pos = standing.row.pos;
        let mut memberships = self.memberships.lock();
        if memberships.get(&room).is_none_or(|known| known.row.pos <= pos) {
            memberships.insert(room, standing);
        }
    }

    pub(super) fn change_at(&self, pos: Pos) {
        self.change.raise(pos.get());
    }

    pub(super) fn account_data_at(&self, pos: Pos) {
        self.account_data.raise(pos.get());
        self.change.raise(pos.get());
    }

    pub(super) fn threads_at(&self, pos: Pos) {
        self.threads.raise(pos.get());
    }

    pub(super) fn typing_at(&self, version: u64) {
        self.typing.raise(version);
    }

    pub(super) fn wake(&self) {
        self.wake.notify_waiters();
    }

    /// For a poll: enable it, then look, then wait.
    pub(crate) fn woken(&self) -> tokio::sync::futures::Notified<'_> {
        self.wake.notified()
    }

    /// Whether anything that concerns the user has changed after `since`.
    pub(crate) fn has_changed(&self, since: Pos) -> bool {
        self.change.get() > since.get()
    }

    /// Whether anybody has begun or ceased to type after this version.
    pub(crate) fn has_typing(&self, version: u64) -> bool {
        self.typing.get() > version
    }

    /// Whether account data has changed after `since`.
    pub(crate) fn has_account_data(&self, since: Pos) -> bool {
        self.account_data.get() > since.get()
    }

    /// Whether the user has decided about a thread after `since`.
    pub(crate) fn has_threads(&self, since: Pos) -> bool {
        self.threads.get() > since.get()
    }

    /// How many rooms it has any standing in.
    pub(crate) fn count(&self) -> usize {
        self.memberships.lock().len()
    }

    /// The standing in every room, in no order.
    pub(crate) fn all(&self) -> Vec<(RoomNid, Standing)> {
        self.memberships.lock().iter().map(|(room, standing)| (*room, standing.clone())).collect()
    }

    /// The standing in one room.
    pub(crate) fn standing(&self, room: RoomNid) -> Option<Standing> {
        self.memberships.lock().get(&room).cloned()
    }

    /// The rooms that it is in by a member event after `after`.
    pub(super) fn joined(&self, after: Pos) -> Vec<Arc<LiveRoom>> {
        let memberships = self.memberships.lock();
        let joined = memberships
            .values()
            .filter(|standing| standing.row.pos > after && standing.row.membership == Membership::Join);
        joined.filter_map(|standing| standing.live.clone()).collect()
    }

    /// The numbers of all rooms that it is in.
    pub(super) fn joined_rooms(&self) -> Vec<RoomNid> {
        let memberships = self.memberships.lock();
        let joined = memberships.iter().filter(|(_, standing)| standing.row.membership == Membership::Join);
        joined.map(|(room, _)| *room).collect()
    }

    /// Whether it has joined the room.
    pub(super) fn is_in(&self, room: RoomNid) -> bool {
        self.memberships.lock().get(&room).is_some_and(|standing| standing.row.membership == Membership::Join)
    }

    /// The rooms in which something is new after `since`, or typing after `typing`.
    pub(crate) fn changed(&self, since: Pos, typing: u64) -> Vec<(RoomNid, Standing)> {
        let is_new = |standing: &Standing| {
            standing.row.pos > since
                || standing.live.as_ref().is_some_and(|room| {
                    standing.row.membership == Membership::Join
                        && (room.has_events(since) || room.has_receipts(since) || room.typing() > typing)
                })
        };
        let memberships = self.memberships.lock();
        let new = memberships.iter().filter(|(_, standing)| is_new(standing));
        new.map(|(room, standing)| (*room, standing.clone())).collect()
    }

    /// Forgets its rooms and gives them, when it is no longer registered.
    pub(super) fn close(&self) -> Vec<Arc<LiveRoom>> {
        std::mem::take(&mut *self.memberships.lock()).into_values().filter_map(|standing| standing.live).collect()
    }

    /// A filter that was parsed before, by its ID or its text; stored filters never change.
    pub(crate) fn filter(&self, given: &str) -> Option<Arc<Filter>> {
        self.filters.lock().get(given).cloned()
    }

    /// Remembers a filter.
    pub(crate) fn keep_filter(&self, given: &str, filter: &Arc<Filter>) {
        let mut filters = self.filters.lock();
        if filters.len() >= FILTERS {
            filters.clear();
        }
        filters.insert(given.to_owned(), Arc::clone(filter));
    }
}
