//! When which delayed event is due, and the task that sends them then.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hearth_base::Millis;
use hearth_schema::{DelayedLists, UserNid};
use hearth_store::{Lane, Order, Owner as _, StoreError, View};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Key;
use super::manage::Fired;
use crate::SendError;
use crate::intake::Rooms;

/// The clock is looked at so often while something is due later: clocks are set, and machines sleep.
const LOOK: Duration = Duration::from_secs(1);
/// What could not be sent is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);
/// How often it is looked what has become due while something is being sent.
const SOON: Duration = Duration::from_millis(100);
/// Users whose events are sent at the same time.
const AT_ONCE: usize = 64;
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

    fn first(&self) -> Option<Millis> {
        self.due.lock().first().map(|(at, ..)| *at)
    }

    /// What is due at `now`, the first of each user who is not `busy`, and of so many users at the most.
    fn due(&self, now: Millis, busy: &HashSet<UserNid>, most: usize) -> Vec<(Millis, Key)> {
        let (all, mut users) = (self.due.lock(), busy.clone());
        let due = all.iter().take_while(|(at, ..)| *at <= now).filter(|(_, user, _)| users.insert(*user));
        due.take(most).map(|(at, user, id)| (*at, (*user, id.clone()))).collect()
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

    /// Sends all that is due; gives the time of the next. What one user has scheduled is sent in the order of the times.
    /// Nobody else's waits for it: it may take another server, which may be slow.
    pub(crate) async fn send_due(&self, shutdown: &CancellationToken) -> Option<Millis> {
        let delays = &self.0.delays;
        let (mut sending, mut busy) = (FuturesUnordered::new(), HashSet::new());
        loop {
            if !shutdown.is_cancelled() {
                for (at, key) in delays.due(self.0.clock.now(), &busy, AT_ONCE.saturating_sub(sending.len())) {
                    busy.insert(key.0);
                    sending.push(async move { (self.fire(&key).await, at, key) });
                }
            }
            tokio::select! {
                biased;
                Some((fired, at, key)) = sending.next() => {
                    busy.remove(&key.0);
                    self.note_fired(fired, at, &key);
                }
                () = tokio::time::sleep(SOON), if !sending.is_empty() => {}
                else => return delays.first(),
            }
        }
    }

    fn note_fired(&self, fired: Result<Fired, SendError>, at: Millis, key: &Key) {
        let delays = &self.0.delays;
        // Before the next time is added: that may be the same.
        delays.remove(at, key);
        match fired {
            Ok(Fired::Done) => {}
            Ok(Fired::NotBefore(later)) => delays.add(later, key),
            Err(error) => {
                tracing::warn!(%error, "cannot send a delayed event now, trying again");
                delays.add(self.0.clock.now().plus(RETRY), key);
            }
        }
    }
}
