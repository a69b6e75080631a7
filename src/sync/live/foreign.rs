//! Which rooms with registered members users of other servers are in.
//!
//! The problem: a local user has a list of rooms, a user of another server has none, and its presence concerns whoever
//! shares a room with it. The answer: its membership is looked up in the rooms in question, in one round trip: in those
//! of the reader, or in all that have registered members. The latter is remembered for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hearth_schema::{NidMap, RoomNid, UserNid};
use hearth_store::{StoreError, View};
use parking_lot::Mutex;
use ruma_common::UserId;
use tokio::time::Instant;

use super::{Live, LiveUser};

/// Users whose rooms are looked for in one tick.
pub(super) const MAX_MARKED: usize = 20;
/// Rooms looked at for one user. With more rooms nobody is woken for users of other servers: readers are told of them
/// when they are answered for another reason.
const MAX_ROOMS: usize = 2_000;
/// Users that are remembered.
const MAX_USERS: usize = 20_000;
/// How long.
const LASTS: Duration = Duration::from_secs(60);

/// What is remembered.
#[derive(Default)]
pub(super) struct ForeignRooms {
    known: Mutex<NidMap<UserNid, Known>>,
    /// Grows when a room gets its first registered member.
    epoch: AtomicU64,
}

struct Known {
    rooms: Arc<[RoomNid]>,
    epoch: u64,
    since: Instant,
}

impl ForeignRooms {
    /// There is a room to look at that was not looked at before.
    pub(super) fn new_room(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The user has come or gone.
    pub(super) fn forget(&self, user: UserNid) {
        self.known.lock().remove(&user);
    }

    fn get(&self, user: UserNid, epoch: u64, now: Instant) -> Option<Arc<[RoomNid]>> {
        let known = self.known.lock();
        let found = known.get(&user).filter(|known| known.epoch == epoch && now < known.since + LASTS)?;
        Some(Arc::clone(&found.rooms))
    }

    fn keep(&self, user: UserNid, known: Known) {
        let mut all = self.known.lock();
        if all.len() >= MAX_USERS {
            all.clear();
        }
        all.insert(user, known);
    }
}

impl Live {
    /// The rooms with registered members that a user of another server is in.
    pub(super) async fn rooms_with(&self, user_id: &UserId) -> Result<Arc<[RoomNid]>, StoreError> {
        let (user, since) = (self.rooms.ids().user(user_id), Instant::now());
        let epoch = self.foreign.epoch.load(Ordering::Acquire);
        if let Some(rooms) = self.foreign.get(user, epoch, since) {
            return Ok(rooms);
        }
        let watched: Vec<RoomNid> = self.watched.read().keys().copied().take(MAX_ROOMS + 1).collect();
        if watched.len() > MAX_ROOMS {
            return Ok(Arc::default());
        }
        let view = self.rooms.view().await?;
        let rooms: Arc<[RoomNid]> = self.rooms.joined_among(&view, &watched, user_id).await?.into();
        self.foreign.keep(user, Known { rooms: Arc::clone(&rooms), epoch, since });
        Ok(rooms)
    }

    /// Whether `reader` shares a room with a user of another server.
    pub(super) async fn shares_with_foreign(
        &self,
        view: &View,
        reader: &LiveUser,
        user_id: &UserId,
    ) -> Result<bool, StoreError> {
        let mut rooms = reader.joined_rooms();
        rooms.truncate(MAX_ROOMS);
        Ok(!self.rooms.joined_among(view, &rooms, user_id).await?.is_empty())
    }
}
