//! Telling of presence, within a budget.
//!
//! The problem: in a room of thousands somebody comes or goes every second, and an answer for each of
//! the others each time is more work than all messages. So a change of presence wakes nobody: it marks
//! the registered members of the user's rooms, and [`Pacer`] takes so many of those marked in a second
//! and wakes them, each once in a second at the most. An answer that is made for another reason takes
//! along what there is. What a client has seen is in its token, so however late it is woken, it is
//! told everything once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_accounts::{PresenceMode, PresenceState, Sight};
use hearth_schema::{Membership, NidMap, NidSet, RoomNid, UserNid};
use hearth_store::{Pos, StoreError, View};
use parking_lot::Mutex;
use ruma_common::{OwnedUserId, UserId};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::foreign::MAX_MARKED;
use super::{Live, LiveRoom, LiveUser, Newest};

/// How often users are marked and woken.
const TICK: Duration = Duration::from_millis(100);
/// Users woken at each tick: 500 in a second.
const WOKEN: usize = 50;
/// Users of other servers who wait for it to be found out whom they concern; others are told of with the
/// next answer.
const MAX_FOREIGN: usize = 10_000;
/// How often one user is woken.
const PAUSE: Duration = Duration::from_secs(1);
/// Changes that one answer tells; the rest comes with the next.
const MAX_TOLD: usize = 200;
/// Changes that one answer looks at.
const MAX_SEEN: usize = 2_000;
/// Users that one answer reads from the store whether they share a room with the reader, because they
/// have not polled lately.
const MAX_READ: usize = 50;

/// What is known of a registered user, for presence.
#[derive(Default)]
pub(crate) struct PresenceMark {
    /// The version up to which there may be news that the user may be woken for.
    released: Newest,
    /// The user waits for its turn.
    waits: AtomicBool,
    woken: Mutex<Option<Instant>>,
}

impl PresenceMark {
    pub(super) fn release(&self, version: u64) {
        self.released.raise(version);
    }

    /// Whether there may be news after `version` that are worth an answer of their own.
    pub(crate) fn has_news(&self, version: u64) -> bool {
        self.released.get() > version
    }
}

/// Marks and wakes users.
pub(crate) struct Pacer {
    live: Arc<Live>,
    /// The version up to which users are marked.
    marked: u64,
    queue: VecDeque<Arc<LiveUser>>,
    /// Users of other servers who have changed: whom that concerns is not known yet.
    foreign: VecDeque<OwnedUserId>,
}

impl Pacer {
    pub(crate) fn new(live: Arc<Live>) -> Self {
        let marked = live.presence.version();
        Self { live, marked, queue: VecDeque::new(), foreign: VecDeque::new() }
    }

    /// Paces until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        if self.live.presence.mode() == PresenceMode::Off {
            return;
        }
        let live = Arc::clone(&self.live);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // With nobody marked, the next change is waited for; and never more than one tick a time.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = live.presence.changed(), if self.is_idle() => {}
                () = std::future::ready(()), if !self.is_idle() => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.mark();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.mark_for_foreign() => {}
            }
            self.wake(Instant::now());
        }
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.foreign.is_empty()
    }

    /// Marks everybody who shares a room with a user of another server that has changed, a few at a time.
    async fn mark_for_foreign(&mut self) {
        let live = Arc::clone(&self.live);
        for _ in 0..MAX_MARKED {
            let Some(user_id) = self.foreign.pop_front() else { return };
            match live.rooms_with(&user_id).await {
                Ok(rooms) => {
                    for room in rooms.iter().filter_map(|room| live.live_room(*room)) {
                        room.for_each_user(|user| self.push(user));
                    }
                }
                // They are told with the next answer.
                Err(error) => tracing::warn!(%error, "cannot find who sees a user of another server"),
            }
        }
    }

    /// Marks everybody who shares a room with a user that has changed.
    fn mark(&mut self) {
        let (users, version) = self.live.presence.users_since(self.marked);
        self.marked = version;
        let mut rooms: NidMap<RoomNid, Arc<LiveRoom>> = NidMap::default();
        for user in users {
            let Some(user) = self.live.user(user) else {
                // Of this server: whoever is not registered went long ago, and everybody was told then.
                let sight = self.live.presence.sight(user);
                let foreign = sight.filter(|sight| sight.user_id.server_name() != self.live.server_name);
                if self.foreign.len() < MAX_FOREIGN {
                    self.foreign.extend(foreign.map(|sight| sight.user_id));
                }
                continue;
            };
            rooms.extend(user.joined(Pos::ZERO).into_iter().map(|room| (room.nid(), room)));
            self.push(&user);
        }
        for room in rooms.into_values() {
            room.for_each_user(|user| self.push(user));
        }
    }

    fn push(&mut self, user: &Arc<LiveUser>) {
        if !user.presence.waits.swap(true, Ordering::AcqRel) {
            self.queue.push_back(Arc::clone(user));
        }
    }

    /// Wakes those whose turn it is; gives how many.
    fn wake(&mut self, now: Instant) -> usize {
        let mut woken = 0;
        for _ in 0..self.queue.len() {
            if woken == WOKEN {
                break;
            }
            let Some(user) = self.queue.pop_front() else { break };
            let mut last = user.presence.woken.lock();
            if last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
                drop(last);
                self.queue.push_back(user);
                continue;
            }
            *last = Some(now);
            drop(last);
            // In this order: a change that comes now marks the user again.
            user.presence.waits.store(false, Ordering::Release);
            user.presence.release(self.marked);
            user.wake();
            woken += 1;
        }
        woken
    }
}

impl Live {
    /// Changes of presence that `reader` may see: after `since` (a version, and a position after which
    /// it joined rooms), or all who are not offline. Also the version up to which these are all.
    pub(crate) async fn presence_since(
        &self,
        view: &View,
        reader: &LiveUser,
        since: Option<(u64, Pos)>,
    ) -> Result<(Vec<Sight>, u64), StoreError> {
        let version = self.presence.version();
        // A version from a time that has not come is another life's.
        let after = since.map_or(0, |(after, _)| if after <= version { after } else { 0 });
        let found = self.presence.since(after, MAX_SEEN, |state| since.is_some() || is_there(state));
        let last = found.last().filter(|_| found.len() == MAX_SEEN).map(|(version, _)| *version);
        let (mut told, mut upto, mut reads) = (Vec::new(), last.unwrap_or(version), 0);
        for (at, sight) in found {
            let known = self.knows(reader, sight.user);
            reads += usize::from(known.is_none());
            if told.len() == MAX_TOLD || reads > MAX_READ {
                // This one is the first that comes next time.
                upto = at - 1;
                break;
            }
            let shared = match known {
                Some(shared) => shared,
                None => self.reads_shared(view, reader, (sight.user, &sight.user_id)).await?,
            };
            if shared {
                told.push(sight);
            }
        }
        if let Some((_, joined_after)) = since {
            self.add_new_company(reader, joined_after, &mut told);
        }
        Ok((told, upto))
    }

    /// Whether `reader` may see `user`: it is the same, or they share a room.
    pub(crate) async fn may_see(&self, view: &View, reader: &LiveUser, user_id: &UserId) -> Result<bool, StoreError> {
        let user = self.rooms.ids().user(user_id);
        match self.knows(reader, user) {
            Some(shared) => Ok(shared),
            None => self.reads_shared(view, reader, (user, user_id)).await,
        }
    }

    /// What memory says; `None`: the other is not registered.
    fn knows(&self, reader: &LiveUser, user: UserNid) -> Option<bool> {
        if user == reader.nid() {
            return Some(true);
        }
        let other = self.user(user).filter(|other| other.loaded.initialized())?;
        Some(other.joined(Pos::ZERO).iter().any(|room| reader.is_in(room.nid())))
    }

    async fn reads_shared(
        &self,
        view: &View,
        reader: &LiveUser,
        (user, user_id): (UserNid, &UserId),
    ) -> Result<bool, StoreError> {
        if user_id.server_name() != self.server_name {
            return self.shares_with_foreign(view, reader, user_id).await;
        }
        let rooms = self.rooms.user_rooms(view, user).await?;
        Ok(rooms.iter().any(|(room, row)| row.membership == Membership::Join && reader.is_in(*room)))
    }

    /// Adds those who are in rooms that `reader` has joined after `joined_after`, as far as they are
    /// there.
    fn add_new_company(&self, reader: &LiveUser, joined_after: Pos, told: &mut Vec<Sight>) {
        let mut seen: NidSet<UserNid> = told.iter().map(|sight| sight.user).collect();
        for room in reader.joined(joined_after) {
            let mut users = Vec::new();
            room.for_each_user(|user| users.push(user.nid()));
            for user in users {
                if told.len() >= MAX_TOLD {
                    return;
                }
                if seen.insert(user) {
                    told.extend(self.presence.sight(user).filter(|sight| is_there(sight.state)));
                }
            }
        }
    }
}

fn is_there(state: PresenceState) -> bool {
    state != PresenceState::Offline
}

#[cfg(test)]
mod tests {
    use hearth_schema::Ids;

    use super::*;
    use crate::testing::{World, server_name};

    #[tokio::test]
    async fn so_many_are_woken_at_a_time_and_each_once_in_a_second() {
        let world = World::new();
        let presence = world.accounts.presence().clone();
        let live = Arc::new(Live::new(world.rooms.clone(), server_name(), presence));
        let mut pacer = Pacer::new(live);
        let ids = Ids::new([1; 32]);
        let nid = |n: usize| ids.user(&UserId::parse(format!("@user{n}:x")).expect("a user ID"));
        let users: Vec<_> = (0..2 * WOKEN + 7).map(|n| Arc::new(LiveUser::new(nid(n)))).collect();
        let now = Instant::now();
        for user in users.iter().chain(&users) {
            pacer.push(user);
        }
        pacer.marked = 9;
        assert_eq!([0; 4].map(|_| pacer.wake(now)), [WOKEN, WOKEN, 7, 0], "nobody waits twice");
        assert!(users.iter().all(|user| user.presence.has_news(8) && !user.presence.has_news(9)));
        for user in &users {
            pacer.push(user);
        }
        pacer.marked = 10;
        assert_eq!(pacer.wake(now + PAUSE / 2), 0, "not yet");
        assert!(!users[0].presence.has_news(9), "nor is a poll answered that comes by itself");
        assert_eq!([0; 3].map(|_| pacer.wake(now + PAUSE)), [WOKEN, WOKEN, 7]);
        assert!(users[0].presence.has_news(9));
    }
}
