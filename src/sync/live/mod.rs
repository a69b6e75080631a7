//! Who is listening, and to what: the memory that makes waking cheap.
//!
//! The problem: a message must reach the members that are waiting without a look at those that are
//! not, and a poll that finds nothing new must not touch the store. The answer: a user is registered
//! by the first poll and stays so for some minutes after the last. A registered user knows the
//! position of the newest change that concerns it; a room with registered members knows them, and the
//! positions of its newest event, state change and receipt. These numbers are exact for every `since`
//! however old, because they are read from the store once, after registering: what is committed later
//! comes through the notifier. They say *that* something is new; *what* is new is read from the store.

mod foreign;
mod notifier;
mod presence;
mod recent;
mod register;
mod room;
mod user;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hearth_accounts::Presence;
use hearth_rooms::Rooms;
use hearth_schema::{NidMap, RoomNid, UserNid};
use hearth_store::Pos;
use parking_lot::RwLock;
use ruma_common::OwnedServerName;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use foreign::ForeignRooms;
pub(crate) use notifier::Notifier;
pub(crate) use presence::{Pacer, PresenceMark};
pub(crate) use recent::Recent;
pub(crate) use register::Poll;
pub(crate) use room::LiveRoom;
pub(crate) use user::{LiveUser, Standing};

/// How long a user stays registered after its last poll.
const IDLE: Duration = Duration::from_secs(300);
/// Users that may be registered; over it, those that do not wait go at the next sweep.
const MAX_USERS: usize = 50_000;

/// All registered users and their rooms.
pub(crate) struct Live {
    rooms: Rooms,
    server_name: OwnedServerName,
    users: RwLock<NidMap<UserNid, Arc<LiveUser>>>,
    watched: RwLock<NidMap<RoomNid, Arc<LiveRoom>>>,
    /// Everything at or below has reached the registered users, and has been counted.
    processed: watch::Sender<Pos>,
    /// The same for typing.
    typing: Newest,
    presence: Presence,
    foreign: ForeignRooms,
    /// How many users the newest change concerns.
    concerned: AtomicUsize,
}

impl Live {
    pub(crate) fn new(rooms: Rooms, server_name: OwnedServerName, presence: Presence) -> Self {
        let typing = Newest::new(rooms.typing().version());
        Self {
            rooms,
            server_name,
            users: RwLock::default(),
            watched: RwLock::default(),
            processed: watch::Sender::new(Pos::ZERO),
            typing,
            presence,
            foreign: ForeignRooms::default(),
            concerned: AtomicUsize::new(0),
        }
    }

    /// How far everything may be shown.
    pub(crate) fn processed(&self) -> Pos {
        *self.processed.borrow()
    }

    /// How many registered users the newest change concerned.
    pub(crate) fn concerned(&self) -> usize {
        self.concerned.load(Ordering::Relaxed)
    }

    /// The version of typing that everybody has been told of.
    pub(crate) fn typing(&self) -> u64 {
        self.typing.get()
    }

    /// Waits until `pos` may be shown, `patience` at the most; `false`: it may not.
    pub(crate) async fn reach(&self, pos: Pos, patience: Duration) -> bool {
        if self.processed() >= pos {
            return true;
        }
        let mut processed = self.processed.subscribe();
        let reached = tokio::time::timeout(patience, processed.wait_for(|processed| *processed >= pos)).await;
        matches!(reached, Ok(Ok(_)))
    }

    pub(crate) fn user(&self, user: UserNid) -> Option<Arc<LiveUser>> {
        self.users.read().get(&user).cloned()
    }

    fn live_room(&self, room: RoomNid) -> Option<Arc<LiveRoom>> {
        self.watched.read().get(&room).cloned()
    }

    /// Wakes everybody at `shutdown`, so that no poll has to wait for two things.
    pub(crate) async fn wake_at(self: Arc<Self>, shutdown: CancellationToken) {
        shutdown.cancelled().await;
        for user in self.users.read().values() {
            user.wake();
        }
    }

    /// Lets go of users that have not polled lately.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut users = self.users.write();
        let crowded = users.len() > MAX_USERS;
        // Whoever enters takes the lock of `users` for reading at least, so nobody enters meanwhile.
        let gone: Vec<Arc<LiveUser>> = users
            .extract_if(|_, user| user.is_idle(now, if crowded { Duration::ZERO } else { IDLE }))
            .map(|(_, user)| user)
            .collect();
        if gone.is_empty() {
            return;
        }
        // Still under the lock: where nobody is registered the notifier passes over what happens, so no room may be left
        // then that somebody could register into.
        let mut rooms = self.watched.write();
        for user in gone {
            for room in user.close() {
                if room.remove(&user) {
                    rooms.remove(&room.nid());
                }
            }
        }
    }
}

/// The largest of the numbers it was shown.
#[derive(Debug, Default)]
pub(crate) struct Newest(AtomicU64);

impl Newest {
    pub(crate) const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::AcqRel);
    }
}
