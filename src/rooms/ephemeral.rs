//! Typing, which is kept in memory only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hearth_base::{Clock, Millis, ticks};
use hearth_schema::{Membership, NidMap, RoomNid};
use parking_lot::Mutex;
use ruma_common::{OwnedUserId, RoomId, UserId};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::QueryError;
use crate::intake::Rooms;

/// The longest that a typing notice lasts.
const MAX_TYPING: Duration = Duration::from_secs(120);
/// How often notices that have run out are looked for.
const SWEEP: Duration = Duration::from_millis(500);
/// Users that may be typing in one room; more are not shown.
const MAX_TYPISTS: usize = 100;
/// Room changes that a slow listener may miss before it has to look at all rooms.
const CHANGES: usize = 1024;

impl Rooms {
    /// Who is typing.
    pub fn typing(&self) -> &TypingState {
        &self.0.typing
    }

    /// Says that a member is typing, or no longer.
    ///
    /// # Errors
    /// [`QueryError::Forbidden`] for who is not in the room.
    pub async fn set_typing(&self, room_id: &RoomId, user: &UserId, typing: Typing) -> Result<(), QueryError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        let member = self.membership(&view, self.ids().user(user), room).await?;
        if member.is_none_or(|row| row.membership != Membership::Join) {
            return Err(QueryError::Forbidden);
        }
        self.0.typing.set(room, user, typing);
        Ok(())
    }
}

/// What a client says of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typing {
    /// Typing, for this long unless said again.
    For(Duration),
    /// Not any more.
    Stopped,
}

/// Who is typing in which room. In memory: a restart forgets it, as the specification expects.
#[derive(Clone)]
pub struct TypingState(Arc<TypingInner>);

struct TypingInner {
    clock: Arc<dyn Clock>,
    version: AtomicU64,
    rooms: Mutex<NidMap<RoomNid, RoomTyping>>,
    changes: broadcast::Sender<RoomNid>,
    /// Somebody types.
    begun: Notify,
}

#[derive(Default)]
struct RoomTyping {
    version: u64,
    users: Vec<(OwnedUserId, Millis)>,
}

impl TypingState {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        // Versions begin at the time, so that they grow across restarts and old tokens stay below.
        let version = AtomicU64::new(clock.now().0);
        Self(Arc::new(TypingInner {
            clock,
            version,
            rooms: Mutex::default(),
            changes: broadcast::channel(CHANGES).0,
            begun: Notify::new(),
        }))
    }

    /// Grows with every change in any room.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// The version of the room's last change (0: none since start-up), and who is typing.
    pub fn in_room(&self, room: RoomNid) -> (u64, Vec<OwnedUserId>) {
        self.0.rooms.lock().get(&room).map_or((0, Vec::new()), |state| {
            (state.version, state.users.iter().map(|(user, _)| user.clone()).collect())
        })
    }

    /// Rooms in which something changed. Who lags must look at all of its rooms.
    pub fn changes(&self) -> broadcast::Receiver<RoomNid> {
        self.0.changes.subscribe()
    }

    pub(crate) fn set(&self, room: RoomNid, user: &UserId, typing: Typing) {
        let until = match typing {
            Typing::For(time) => Some(self.0.clock.now().plus(time.min(MAX_TYPING))),
            Typing::Stopped => None,
        };
        let mut rooms = self.0.rooms.lock();
        let known = rooms.get(&room).is_some_and(|state| state.users.iter().any(|(u, _)| u == user));
        if until.is_none() && !known {
            return;
        }
        let state = rooms.entry(room).or_default();
        match until {
            None => state.users.retain(|(u, _)| u != user),
            Some(until) => {
                if let Some((_, old)) = state.users.iter_mut().find(|(u, _)| u == user) {
                    // Still typing: nobody has to be told.
                    *old = until;
                    return;
                }
                if state.users.len() >= MAX_TYPISTS {
                    return;
                }
                state.users.push((user.to_owned(), until));
                self.0.begun.notify_one();
            }
        }
        state.version = self.0.version.fetch_add(1, Ordering::AcqRel) + 1;
        // Under the lock, so that announcements come in the order of versions; nobody may be listening.
        drop(self.0.changes.send(room));
    }

    /// Takes away what has run out, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut ticks = ticks(SWEEP);
        let mut anybody = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.0.begun.notified(), if !anybody => anybody = true,
                _ = ticks.tick(), if anybody => anybody = self.sweep(),
            }
        }
    }

    /// Whether anybody is typing still.
    fn sweep(&self) -> bool {
        let now = self.0.clock.now();
        let mut changed = Vec::new();
        let mut rooms = self.0.rooms.lock();
        for (room, state) in rooms.iter_mut() {
            let before = state.users.len();
            state.users.retain(|(_, until)| *until > now);
            if state.users.len() != before {
                state.version = self.0.version.fetch_add(1, Ordering::AcqRel) + 1;
                changed.push(*room);
            }
        }
        // A room is kept while a client may hold a token from before its last change.
        let keep = now.0.saturating_sub(10 * 60 * 1000);
        rooms.retain(|_, state| !state.users.is_empty() || state.version > keep);
        for room in changed {
            drop(self.0.changes.send(room));
        }
        rooms.values().any(|state| !state.users.is_empty())
    }
}
