//! Receipts (stored) and typing (in memory).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hearth_base::{Clock, Millis};
use hearth_schema::{Change, Membership, Receipt, ReceiptKind, ReceiptLog, ReceiptName, Receipts, RoomNid};
use hearth_store::{Batch, CommitError, Owner, StoreError};
use parking_lot::Mutex;
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::intake::Rooms;
use crate::{QueryError, SendError};

/// The longest that a typing notice lasts.
const MAX_TYPING: Duration = Duration::from_secs(120);
/// How often notices that have run out are looked for.
const SWEEP: Duration = Duration::from_millis(500);
/// Users that may be typing in one room; more are not shown.
const MAX_TYPISTS: usize = 100;
/// Room changes that a slow listener may miss before it has to look at all rooms.
const CHANGES: usize = 1024;

/// A receipt that a client sends.
#[derive(Clone, Debug)]
pub struct NewReceipt {
    /// In which room.
    pub room_id: OwnedRoomId,
    /// Whose.
    pub user_id: OwnedUserId,
    /// Public or private.
    pub kind: ReceiptKind,
    /// `main`, a thread root, or `None` for an unthreaded one.
    pub thread: Option<String>,
    /// Read up to here.
    pub event_id: OwnedEventId,
}

/// Why a receipt was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The user is not in the room.
    #[error("you are not in this room")]
    NotJoined,
    /// There is no such event in the room.
    #[error("the event is not known in this room")]
    UnknownEvent,
    /// The store failed or is full.
    #[error(transparent)]
    Store(#[from] SendError),
}

impl From<StoreError> for ReceiptError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl Rooms {
    /// Stores a receipt; one that would move backwards changes nothing.
    ///
    /// # Errors
    /// See [`ReceiptError`].
    pub async fn set_receipt(&self, new: &NewReceipt) -> Result<(), ReceiptError> {
        let view = self.view().await?;
        let (room, user) = (self.ids().room(&new.room_id), self.ids().user(&new.user_id));
        let member = self.membership(&view, user, room).await?;
        if member.is_none_or(|row| row.membership != Membership::Join) {
            return Err(ReceiptError::NotJoined);
        }
        let event = self.event_in_room(&view, room, &new.event_id).await?.ok_or(ReceiptError::UnknownEvent)?;
        let thread = new.thread.clone().unwrap_or_default();
        let key = (room, new.kind, thread.clone(), new.user_id.to_string());
        let before = view.get::<Receipts>(&key).await?;
        if before.as_ref().is_some_and(|before| before.event_pos >= event.pos.get()) {
            return Ok(());
        }
        let mut batch = Batch::new(room.lane());
        let pos = batch.next_pos();
        let receipt = Receipt {
            pos,
            event_id: new.event_id.to_string(),
            n: event.n,
            event_pos: event.pos.get(),
            ts: self.0.clock.now().0,
        };
        batch.put::<Receipts>(&key, &receipt);
        if let Some(before) = before {
            batch.delete::<ReceiptLog>(&(room, before.pos));
        }
        let name = ReceiptName { kind: new.kind, thread, user_id: new.user_id.to_string() };
        batch.put::<ReceiptLog>(&(room, pos), &name);
        batch.fact(pos, Change::Receipt { room, user }.to_bytes());
        match self.0.store.commit(batch).await {
            Ok(_) => Ok(()),
            Err(error) => Err(ReceiptError::Store(SendError::from(error))),
        }
    }

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
    rooms: Mutex<HashMap<RoomNid, RoomTyping>>,
    changes: broadcast::Sender<RoomNid>,
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
        Self(Arc::new(TypingInner { clock, version, rooms: Mutex::default(), changes: broadcast::channel(CHANGES).0 }))
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

    fn set(&self, room: RoomNid, user: &UserId, typing: Typing) {
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
            }
        }
        state.version = self.0.version.fetch_add(1, Ordering::AcqRel) + 1;
        // Under the lock, so that announcements come in the order of versions; nobody may be listening.
        drop(self.0.changes.send(room));
    }

    /// Takes away what has run out, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => self.sweep(),
            }
        }
    }

    fn sweep(&self) {
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
        drop(rooms);
    }
}

/// What a full or failed store means to who only wanted to say that something was read.
impl From<CommitError> for ReceiptError {
    fn from(error: CommitError) -> Self {
        Self::Store(error.into())
    }
}
