//! When which delayed event is due, and the task that sends them then.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::time::Duration;

use hearth_base::Millis;
use hearth_schema::{DelayedLists, UserNid};
use hearth_store::{Lane, Order, Owner as _, StoreError, View};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Key;
use super::manage::Fired;
use crate::intake::Rooms;

/// The clock is looked at so often while something is due later: clocks are set, and machines sleep.
const LOOK: Duration = Duration::from_secs(1);
/// What could not be sent is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);
/// Lists read at once at the start.
const PAGE: usize = 256;

/// Due times of all users, in memory.
#[derive(Default)]
pub(crate) struct Delays {
    due: Mutex<BTreeSet<(Millis, UserNid, String)>>,
    /// Those that somebody is sending, cancelling or restarting.
    claimed: Mutex<HashSet<Key>>,
    released: Notify,
    added: Notify,
}

/// The right to change one delayed event, until it is dropped.
pub(super) struct Claim<'a>(&'a Delays, Key);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.claimed.lock().remove(&self.1);
        self.0.released.notify_waiters();
    }
}

impl Delays {
    pub(super) fn add(&self, at: Millis, (user, id): &Key) {
        self.due.lock().insert((at, *user, id.clone()));
        self.added.notify_one();
    }

    pub(super) fn remove(&self, at: Millis, (user, id): &Key) {
        self.due.lock().remove(&(at, *user, id.clone()));
    }

    fn first(&self) -> Option<(Millis, Key)> {
        self.due.lock().first().map(|(at, user, id)| (*at, (*user, id.clone())))
    }

    /// Waits until nobody else is at it.
    pub(super) async fn claim(&self, key: &Key) -> Claim<'_> {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            // Listening before looking, so that nothing is missed between.
            released.as_mut().enable();
            if self.claimed.lock().insert(key.clone()) {
                return Claim(self, key.clone());
            }
            released.await;
        }
    }
}

impl Rooms {
    /// Sends delayed events when they are due, those first that became due while the server was down,
    /// until `shutdown`.
    pub async fn run_delayed(self, shutdown: CancellationToken) {
        let mut unread: Vec<Lane> = Lane::all().collect();
        loop {
            unread = self.read_delayed(unread).await;
            let next = self.send_due(&shutdown).await;
            let look = async {
                match next {
                    None if unread.is_empty() => std::future::pending().await,
                    None => tokio::time::sleep(RETRY).await,
                    Some(at) => tokio::time::sleep(at.since(self.0.clock.now()).min(LOOK)).await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.0.delays.added.notified() => {}
                () = look => {}
            }
        }
    }

    /// Reads what is scheduled in `lanes`; gives those that could not be read.
    pub(crate) async fn read_delayed(&self, lanes: Vec<Lane>) -> Vec<Lane> {
        let mut unread = Vec::new();
        for lane in lanes {
            if let Err(error) = self.read_lane(lane).await {
                tracing::error!(lane = lane.number(), %error, "cannot read delayed events: these are not sent");
                unread.push(lane);
            }
        }
        unread
    }

    async fn read_lane(&self, lane: Lane) -> Result<(), StoreError> {
        let view = View::latest(&*self.0.store).await?;
        let visit = |(_, user): (Lane, UserNid), list: hearth_schema::DelayedList| {
            debug_assert_eq!(user.lane(), lane);
            for entry in list.scheduled {
                self.0.delays.add(Millis(entry.at), &(user, entry.id));
            }
            ControlFlow::Continue(())
        };
        view.scan::<DelayedLists, _>(&(lane,), Order::Ascending, PAGE, visit).await
    }

    /// Sends all that is due, in the order of the times; gives the time of the next.
    pub(crate) async fn send_due(&self, shutdown: &CancellationToken) -> Option<Millis> {
        let delays = &self.0.delays;
        while let Some((at, key)) = delays.first() {
            let now = self.0.clock.now();
            if at > now || shutdown.is_cancelled() {
                return Some(at);
            }
            let fired = self.fire(&key).await;
            // Before the next time is added: that may be the same.
            delays.remove(at, &key);
            match fired {
                Ok(Fired::Done) => {}
                Ok(Fired::NotBefore(later)) => delays.add(later, &key),
                Err(error) => {
                    tracing::warn!(%error, "cannot send a delayed event now, trying again");
                    delays.add(now.plus(RETRY), &key);
                }
            }
        }
        None
    }
}
