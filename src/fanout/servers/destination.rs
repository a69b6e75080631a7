//! One destination: what memory knows of it.

use hearth_base::Millis;
use hearth_schema::{BackOff, DestinationNid};
use parking_lot::Mutex;
use ruma_common::OwnedServerName;
use tokio::sync::Notify;

use super::back_off;
use super::edus::{EduQueue, OutReceipt, ReceiptOf, Taken};
use super::{HEARD_SHARE, OutboundSettings};

/// A server that something is or was sent to.
pub(super) struct Destination {
    pub name: OwnedServerName,
    pub nid: DestinationNid,
    pub wake: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// It has a task.
    running: bool,
    /// There may be events in its queue.
    dirty: bool,
    /// Events in its queue, about.
    queued: usize,
    /// Events that were left when its queue was thinned out last.
    kept: usize,
    back_off: Option<BackOff>,
    last_attempt: Millis,
    edus: EduQueue,
}

/// Who makes it so that a destination has a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// The caller: there is none.
    Start,
    /// There is one, and it has been woken.
    Woken,
}

impl Destination {
    pub(super) fn new(name: OwnedServerName, nid: DestinationNid) -> Self {
        Self { name, nid, wake: Notify::new(), state: Mutex::default() }
    }

    fn call(&self, state: &mut State) -> Task {
        self.wake.notify_one();
        if std::mem::replace(&mut state.running, true) { Task::Woken } else { Task::Start }
    }

    /// `events` more may be in its queue.
    pub(super) fn events(&self, events: usize) -> Task {
        let mut state = self.state.lock();
        state.dirty = true;
        state.queued = state.queued.saturating_add(events);
        self.call(&mut state)
    }

    pub(super) fn receipt(&self, of: ReceiptOf, receipt: OutReceipt) -> Task {
        let mut state = self.state.lock();
        state.edus.receipt(of, receipt);
        self.call(&mut state)
    }

    /// Something that is soon over; `None`: it does not answer, and is not told.
    pub(super) fn fleeting(&self, add: impl FnOnce(&mut EduQueue)) -> Option<Task> {
        let mut state = self.state.lock();
        if state.back_off.is_some() {
            return None;
        }
        add(&mut state.edus);
        Some(self.call(&mut state))
    }

    /// It lives.
    pub(super) fn heard(&self, settings: &OutboundSettings) {
        let mut state = self.state.lock();
        if let Some(before) = state.back_off {
            let pause = settings.first_retry / HEARD_SHARE;
            state.back_off = Some(back_off::heard(before, state.last_attempt, pause));
            self.wake.notify_one();
        }
    }

    /// Whether its task may end, which it must do then.
    pub(super) fn rests(&self, now: Millis) -> bool {
        let mut state = self.state.lock();
        let rests = !state.dirty && state.edus.ready_at(now).is_none();
        state.running = !rests;
        rests
    }

    /// Its task has ended without asking.
    pub(super) fn stopped(&self) {
        self.state.lock().running = false;
    }

    /// Nothing has to be remembered of it.
    pub(super) fn is_idle(&self, now: Millis) -> bool {
        let state = self.state.lock();
        !state.running && !state.dirty && state.back_off.is_none() && state.edus.ready_at(now).is_none()
    }

    /// What the store has.
    pub(super) fn load(&self, back_off: Option<BackOff>, queued: usize) {
        let mut state = self.state.lock();
        state.back_off = state.back_off.or(back_off);
        state.queued = queued;
    }

    pub(super) fn back_off(&self) -> Option<BackOff> {
        self.state.lock().back_off
    }

    pub(super) fn set_back_off(&self, back_off: Option<BackOff>) {
        let mut state = self.state.lock();
        state.back_off = back_off;
        if back_off.is_some() {
            state.edus.only_receipts();
        }
    }

    pub(super) fn attempt_at(&self, now: Millis) {
        self.state.lock().last_attempt = now;
    }

    /// Events in its queue, about, and how many there were after it was thinned out.
    pub(super) fn queued(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.queued, state.kept)
    }

    pub(super) fn thinned_out(&self, kept: usize) {
        let mut state = self.state.lock();
        (state.queued, state.kept) = (kept, kept);
    }

    pub(super) fn sent(&self, events: usize) {
        let mut state = self.state.lock();
        state.queued = state.queued.saturating_sub(events);
        state.kept = state.kept.saturating_sub(events);
    }

    /// The queue is about to be read: what comes from now on is told again.
    pub(super) fn reads_queue(&self) {
        self.state.lock().dirty = false;
    }

    /// The queue has more than was read, or could not be read.
    pub(super) fn has_more(&self) {
        self.state.lock().dirty = true;
    }

    pub(super) fn take_edus(&self, now: Millis) -> Taken {
        self.state.lock().edus.take(now)
    }

    pub(super) fn edus_ready_at(&self, now: Millis) -> Option<Millis> {
        self.state.lock().edus.ready_at(now)
    }

    pub(super) fn put_back(&self, receipts: Vec<(ReceiptOf, OutReceipt)>) {
        self.state.lock().edus.put_back(receipts);
    }
}
