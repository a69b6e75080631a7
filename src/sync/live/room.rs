//! A room with registered members.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hearth_rooms::RoomEvent;
use hearth_schema::{NidMap, RoomNid, RoomTally, UserNid};
use hearth_store::Pos;
use parking_lot::Mutex;

use super::recent::{Recent, Stretch};
use super::{LiveUser, Newest};

/// What is known of it without asking the store.
pub(crate) struct LiveRoom {
    nid: RoomNid,
    users: Mutex<NidMap<UserNid, Arc<LiveUser>>>,
    /// Position of the newest event.
    event: Newest,
    /// Position of the newest change of state, or later.
    state: Newest,
    /// Position of the newest receipt.
    receipt: Newest,
    /// Version of the newest change in typing.
    typing: Newest,
    /// The totals at the event at this position, for the many who are told of it at once.
    tally: Mutex<Option<(Pos, RoomTally)>>,
    /// The newest stretch of the timeline, likewise.
    recent: Mutex<Option<Recent>>,
    /// The positions are those of the store, not only of what came by.
    loaded: AtomicBool,
}

impl LiveRoom {
    pub(super) fn new(nid: RoomNid) -> Self {
        Self {
            nid,
            users: Mutex::default(),
            event: Newest::default(),
            state: Newest::default(),
            receipt: Newest::default(),
            typing: Newest::default(),
            tally: Mutex::default(),
            recent: Mutex::default(),
            loaded: AtomicBool::new(false),
        }
    }

    pub(crate) const fn nid(&self) -> RoomNid {
        self.nid
    }

    pub(super) fn add(&self, user: &Arc<LiveUser>) {
        self.users.lock().insert(user.nid(), Arc::clone(user));
    }

    /// Whether it was the last one. Another registration of the same user stays.
    pub(super) fn remove(&self, user: &Arc<LiveUser>) -> bool {
        let mut users = self.users.lock();
        if users.get(&user.nid()).is_some_and(|known| Arc::ptr_eq(known, user)) {
            users.remove(&user.nid());
        }
        users.is_empty()
    }

    pub(super) fn for_each_user(&self, mut run: impl FnMut(&Arc<LiveUser>)) {
        self.users.lock().values().for_each(&mut run);
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    pub(super) fn load(&self, event: Pos, receipt: Pos) {
        self.event.raise(event.get());
        // Not known, and not worth a read: taking it for too new costs one look at the log.
        self.state.raise(event.get());
        self.receipt.raise(receipt.get());
        self.loaded.store(true, Ordering::Release);
    }

    /// All `events` that have come since the last that came by, in any order.
    pub(super) fn follow(&self, events: &[Arc<RoomEvent>]) {
        let mut new: Vec<(Pos, u32)> = events.iter().map(|event| (event.pos, event.n)).collect();
        new.sort_unstable();
        // First this: before it is loaded, there may be older events than those that came by.
        if self.is_loaded() {
            let last = Pos::new(self.event.get());
            let mut recent = self.recent.lock();
            let known = recent.take();
            *recent = Recent::following(known, last, &new);
        }
        if let Some((newest, _)) = new.last() {
            self.event.raise(newest.get());
        }
    }

    pub(super) fn state_at(&self, pos: Pos) {
        self.state.raise(pos.get());
    }

    pub(super) fn receipt_at(&self, pos: Pos) {
        self.receipt.raise(pos.get());
    }

    pub(super) fn typing_at(&self, version: u64) {
        self.typing.raise(version);
    }

    /// Position of the newest event or receipt.
    pub(super) fn newest(&self) -> Pos {
        Pos::new(self.event.get().max(self.receipt.get()))
    }

    /// Whether there are events after `since`.
    pub(crate) fn has_events(&self, since: Pos) -> bool {
        self.event.get() > since.get()
    }

    /// Position of the newest event, if `upto` includes it.
    pub(crate) fn newest_event(&self, upto: Pos) -> Option<Pos> {
        let newest = Pos::new(self.event.get());
        (self.is_loaded() && newest <= upto).then_some(newest)
    }

    /// Position of the newest event that has come by.
    pub(crate) fn last_event(&self) -> Pos {
        Pos::new(self.event.get())
    }

    /// The totals that somebody has read for the event at `newest`.
    pub(crate) fn tally(&self, newest: Pos) -> Option<RoomTally> {
        self.tally.lock().filter(|(pos, _)| *pos == newest).map(|(_, tally)| tally)
    }

    /// Keeps the totals at the event at `newest`.
    pub(crate) fn keep_tally(&self, newest: Pos, tally: RoomTally) {
        *self.tally.lock() = Some((newest, tally));
    }

    /// The newest `limit` events after `after`, if somebody has read as much for the newest event, which is at
    /// `newest`.
    pub(crate) fn recent(&self, newest: Pos, after: Pos, limit: usize) -> Option<Stretch> {
        self.recent.lock().as_ref().filter(|recent| recent.newest == newest)?.newest_after(after, limit)
    }

    /// Keeps what was read.
    pub(crate) fn keep_recent(&self, read: Recent) {
        let mut recent = self.recent.lock();
        if read.is_small() && recent.as_ref().is_none_or(|known| read.adds_to(known)) {
            *recent = Some(read);
        }
    }

    /// Whether there has never been a receipt.
    pub(crate) fn has_no_receipts(&self) -> bool {
        self.is_loaded() && self.receipt.get() == 0
    }

    /// Whether the state may have changed after `since`.
    pub(crate) fn has_state(&self, since: Pos) -> bool {
        self.state.get() > since.get()
    }

    /// Whether there are receipts after `since`.
    pub(crate) fn has_receipts(&self, since: Pos) -> bool {
        self.receipt.get() > since.get()
    }

    /// The version of the newest change in typing.
    pub(crate) fn typing(&self) -> u64 {
        self.typing.get()
    }
}
