//! Presence: who is online, in memory, with the last status kept for the next start.
//!
//! The problem: presence changes with every poll of every client, and nobody misses one change that is
//! lost. So a change costs a few steps in memory: what outlives a restart (the status message and the
//! time of the last activity) is written every half minute for all who changed, without a sync, and
//! when the server stops. Who is told, and how often, is not decided here.
//!
//! See <https://spec.matrix.org/v1.19/client-server-api/#presence>.

mod book;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use hearth_base::{Clock, ticks};
use hearth_schema::{Presence as PresenceRows, PresenceRow, UserNid};
use hearth_store::{Batch, Durability, Lane, Order, Owner, Store, StoreError, View};
use parking_lot::Mutex;
use ruma_common::{OwnedDeviceId, OwnedUserId, UserId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Requester;
use crate::error::damaged;
use book::{Book, Outcome};

pub use book::{ForeignPresence, PresenceState, Sight};

/// Bytes of a status message.
pub const MAX_STATUS_BYTES: usize = 1024;
/// How often is looked for what has run out.
const SWEEP: Duration = Duration::from_secs(5);
/// How often what has changed is stored.
const SAVE: Duration = Duration::from_secs(30);
/// Rows written at a time.
const BATCH: usize = 1024;
/// Rows read at a time.
const PAGE: usize = 512;
/// Users of earlier runs that are remembered.
const MAX_LOADED: usize = 200_000;

/// Whether there is presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceMode {
    /// Users see who is online.
    On,
    /// Nobody is told anything, and what clients say is not kept.
    Off,
}

/// A status message over [`MAX_STATUS_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a status message has at most 1024 bytes")]
pub struct StatusTooLong;

/// Everybody's presence. Cheap to clone.
#[derive(Clone)]
pub struct Presence(Arc<Inner>);

struct Inner {
    mode: PresenceMode,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
    changed: Notify,
}

/// A poll: its device is connected until this is dropped, and for a while after.
#[must_use]
pub struct Connected {
    presence: Presence,
    user: UserNid,
    device: OwnedDeviceId,
}

impl Drop for Connected {
    fn drop(&mut self) {
        let inner = &self.presence.0;
        let now = inner.clock.now();
        inner.book.lock().poll_ends(self.user, &self.device, now);
    }
}

impl Presence {
    pub(crate) fn new(mode: PresenceMode, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        // Versions begin at the time, so that they grow across restarts and old tokens stay below.
        let book = Mutex::new(Book::new(clock.now().0));
        Self(Arc::new(Inner { mode, store, clock, book, changed: Notify::new() }))
    }

    /// Whether there is presence.
    pub fn mode(&self) -> PresenceMode {
        self.0.mode
    }

    /// Sets what `by` says, for its device, and the user's status message.
    ///
    /// # Errors
    /// [`StatusTooLong`]; nothing has changed then.
    pub fn set(&self, by: &Requester, state: PresenceState, status_msg: Option<String>) -> Result<(), StatusTooLong> {
        if status_msg.as_ref().is_some_and(|text| text.len() > MAX_STATUS_BYTES) {
            return Err(StatusTooLong);
        }
        let status_msg = status_msg.filter(|text| !text.is_empty()).map(Arc::from);
        self.change(|book, now| book.set((by.user, &by.user_id, by.client.name()), state, status_msg, now));
        Ok(())
    }

    /// A poll of `by` begins, which says `state`. `None`: there is no presence.
    pub fn connect(&self, by: &Requester, state: PresenceState) -> Option<Connected> {
        if self.0.mode == PresenceMode::Off {
            return None;
        }
        self.change(|book, now| book.poll_begins((by.user, &by.user_id, by.client.name()), state, now));
        Some(Connected { presence: self.clone(), user: by.user, device: by.client.name().to_owned() })
    }

    /// Another server says what the presence of its user is. The caller has seen to it that it is its own. Kept in memory
    /// for a while, a bounded number of users; more are not remembered.
    pub fn hear_foreign(&self, user: UserNid, user_id: &UserId, said: ForeignPresence) {
        self.change(|book, now| book.hear_foreign((user, user_id), said, now));
    }

    /// The user has done something that counts as activity.
    pub fn acted(&self, user: UserNid) {
        self.change(|book, now| book.acted(user, now));
    }

    /// Somebody new can see the user: they are told although nothing has changed.
    pub fn show_again(&self, user: UserNid) {
        self.change(|book, now| book.show_again(user, now));
    }

    /// Nothing is remembered of the user any more, in memory, and others see it away.
    pub fn forget(&self, user: UserNid) {
        self.change(|book, _| book.forget(user));
    }

    /// The user's presence at this moment; `None`: nothing is known of it.
    pub fn sight(&self, user: UserNid) -> Option<Sight> {
        self.0.book.lock().sight(user, self.0.clock.now())
    }

    /// Version of the newest change; 0: there is no presence.
    pub fn version(&self) -> u64 {
        match self.0.mode {
            PresenceMode::On => self.0.book.lock().version(),
            PresenceMode::Off => 0,
        }
    }

    /// Changes after `version` to a state that `wanted` wants, oldest first and `limit` at the most, each
    /// with its version.
    pub fn since(&self, version: u64, limit: usize, wanted: impl Fn(PresenceState) -> bool) -> Vec<(u64, Sight)> {
        self.0.book.lock().since(version, limit, self.0.clock.now(), wanted)
    }

    /// Users who have changed after `version`, and the version up to which that is so.
    pub fn users_since(&self, version: u64) -> (Vec<UserNid>, u64) {
        let book = self.0.book.lock();
        (book.users_since(version), book.version())
    }

    /// Waits for a change; one that came since the last wait is enough.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Looks for what has run out.
    pub fn sweep(&self) {
        self.change(Book::sweep);
    }

    /// Keeps presence until `shutdown`: what earlier runs stored, what runs out, what is to be stored.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.0.mode == PresenceMode::Off {
            return;
        }
        if let Err(error) = self.load().await {
            tracing::warn!(%error, "status messages of the last run cannot be read and are not shown");
        }
        let (mut sweep, mut save) = (ticks(SWEEP), ticks(SAVE));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = sweep.tick() => self.sweep(),
                _ = save.tick() => self.save().await,
            }
        }
        self.save().await;
    }

    /// Reads what earlier runs have stored.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn load(&self) -> Result<(), StoreError> {
        let view = View::latest(&*self.0.store).await?;
        let mut rows: Vec<(UserNid, PresenceRow)> = Vec::new();
        for lane in Lane::all() {
            view.scan::<PresenceRows, _>(&(lane,), Order::Ascending, PAGE, |(_, user), row| {
                rows.push((user, row));
                if rows.len() < MAX_LOADED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .await?;
        }
        for (user, row) in rows {
            let user_id = OwnedUserId::try_from(row.user_id.as_str()).map_err(|error| damaged("Presence", error))?;
            self.0.book.lock().load(user, &user_id, row);
        }
        self.0.changed.notify_one();
        Ok(())
    }

    /// Stores what has changed. What cannot be stored now is tried again.
    pub async fn save(&self) {
        loop {
            let rows = self.0.book.lock().take_unsaved(BATCH);
            if rows.is_empty() {
                return;
            }
            let mut by_lane: HashMap<Lane, Vec<(UserNid, PresenceRow)>> = HashMap::new();
            for (user, row) in rows {
                by_lane.entry(user.lane()).or_default().push((user, row));
            }
            let mut failed = false;
            for (lane, rows) in by_lane {
                let mut batch = Batch::new(lane);
                batch.durability = Durability::Relaxed;
                for (user, row) in &rows {
                    batch.put::<PresenceRows>(&(lane, *user), row);
                }
                if let Err(error) = self.0.store.commit(batch).await {
                    tracing::warn!(%error, "presence cannot be stored now");
                    self.0.book.lock().not_saved(rows.into_iter().map(|(user, _)| user));
                    failed = true;
                }
            }
            if failed {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Book, hearth_base::Millis) -> Outcome) {
        if self.0.mode == PresenceMode::Off {
            return;
        }
        let now = self.0.clock.now();
        let outcome = change(&mut self.0.book.lock(), now);
        if outcome == Outcome::Changed {
            self.0.changed.notify_one();
        }
    }
}
