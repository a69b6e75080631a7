//! Receipts: up to where users have read.
//!
//! A user has one receipt of each kind and thread in a room, and one of each kind without a thread.
//! None moves backwards, also if two devices send receipts at the same time.

use hearth_schema::{Change, Membership, Receipt, ReceiptKind, ReceiptLog, ReceiptName, Receipts, RoomNid};
use hearth_store::{Batch, CommitError, Owner, StoreError, View};
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedUserId};

use crate::intake::Rooms;
use crate::query::RoomEvent;
use crate::{QueryError, SendError};

/// How often a receipt is tried again because another device of its user was faster.
pub(crate) const ATTEMPTS: usize = 16;
/// The name of the main timeline among threads.
const MAIN: &str = "main";

/// A receipt that a client sends.
#[derive(Clone, Debug)]
pub struct NewReceipt {
    /// In which room.
    pub room_id: OwnedRoomId,
    /// Whose.
    pub user_id: OwnedUserId,
    /// Public or private.
    pub kind: ReceiptKind,
    /// `None`: an unthreaded receipt.
    pub thread: Option<ReceiptThread>,
    /// Read up to here.
    pub event_id: OwnedEventId,
}

/// `thread_id`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptThread {
    /// What is in no thread.
    Main,
    /// The thread with this root.
    Root(OwnedEventId),
}

impl ReceiptThread {
    /// As receipts name it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Main => MAIN,
            Self::Root(root) => root.as_str(),
        }
    }
}

/// Why a receipt was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The user is not in the room.
    #[error("you are not in this room")]
    NotJoined,
    /// There is no such event in the room, or none that the user may see.
    #[error("the event is not known in this room")]
    UnknownEvent,
    /// The event has nothing to do with the thread.
    #[error("the event is not related to the thread")]
    NotInThread,
    /// The store failed or is full.
    #[error(transparent)]
    Store(#[from] SendError),
}

impl From<StoreError> for ReceiptError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

/// What a full or failed store means to who only wanted to say that something was read.
impl From<CommitError> for ReceiptError {
    fn from(error: CommitError) -> Self {
        Self::Store(error.into())
    }
}

impl From<QueryError> for ReceiptError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Store(error) => error.into(),
            _ => Self::UnknownEvent,
        }
    }
}

impl Rooms {
    /// Stores a receipt; one that would move backwards changes nothing.
    ///
    /// See <https://spec.matrix.org/v1.19/client-server-api/#receipts>.
    ///
    /// # Errors
    /// See [`ReceiptError`].
    pub async fn set_receipt(&self, new: &NewReceipt) -> Result<(), ReceiptError> {
        self.set_receipts(std::slice::from_ref(new)).await
    }

    /// Stores receipts of one user in one room, all or none; those that would move backwards change
    /// nothing.
    ///
    /// # Errors
    /// See [`ReceiptError`].
    pub async fn set_receipts(&self, new: &[NewReceipt]) -> Result<(), ReceiptError> {
        let mut attempts = 0;
        loop {
            let view = self.view().await?;
            let Some(batch) = self.receipts_batch(&view, new).await? else { return Ok(()) };
            attempts += 1;
            match self.0.store.commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) if attempts < ATTEMPTS => {}
                Err(CommitError::Conflict(_)) => return Err(SendError::Busy.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// `None`: there is nothing to store.
    async fn receipts_batch(&self, view: &View, new: &[NewReceipt]) -> Result<Option<Batch>, ReceiptError> {
        let mut batch = None;
        for new in new {
            let room = self.ids().room(&new.room_id);
            let event = self.receipt_event(view, room, new).await?;
            self.add_receipt(view, &mut batch, new, (&event, self.0.clock.now().0)).await?;
        }
        Ok(batch)
    }

    /// Adds the rows of a receipt for `event`, unless it would move backwards.
    pub(crate) async fn add_receipt(
        &self,
        view: &View,
        batch: &mut Option<Batch>,
        new: &NewReceipt,
        (event, ts): (&RoomEvent, u64),
    ) -> Result<(), StoreError> {
        let room = event.room;
        let thread = new.thread.as_ref().map_or("", ReceiptThread::as_str).to_owned();
        let name = ReceiptName { kind: new.kind, thread, user_id: new.user_id.to_string() };
        let key = (room, name.kind, name.thread.clone(), name.user_id.clone());
        let before = view.get::<Receipts>(&key).await?;
        if before.as_ref().is_some_and(|before| before.event_pos >= event.pos.get()) {
            return Ok(());
        }
        let batch = batch.get_or_insert_with(|| Batch::new(room.lane()));
        batch.check::<Receipts>(&key, before.as_ref());
        let receipt = Receipt {
            pos: batch.next_pos(),
            event_id: new.event_id.to_string(),
            n: event.n,
            event_pos: event.pos.get(),
            ts,
        };
        batch.put::<Receipts>(&key, &receipt);
        if let Some(before) = before {
            batch.delete::<ReceiptLog>(&(room, before.pos));
        }
        batch.put::<ReceiptLog>(&(room, receipt.pos), &name);
        let user = self.ids().user(&new.user_id);
        batch.fact(receipt.pos, Change::Receipt { room, user }.to_bytes());
        Ok(())
    }

    /// The event that `new` speaks of, if its user may say so.
    async fn receipt_event(
        &self,
        view: &View,
        room: RoomNid,
        new: &NewReceipt,
    ) -> Result<std::sync::Arc<RoomEvent>, ReceiptError> {
        let member = self.membership(view, self.ids().user(&new.user_id), room).await?;
        if member.is_none_or(|row| row.membership != Membership::Join) {
            return Err(ReceiptError::NotJoined);
        }
        let event = self.event(&new.user_id, &new.room_id, &new.event_id).await?;
        let fits = self.fits_thread(view, room, &event, new.thread.as_ref()).await?;
        if fits { Ok(event) } else { Err(ReceiptError::NotInThread) }
    }

    /// Whether an event can be read in a thread.
    pub(crate) async fn fits_thread(
        &self,
        view: &View,
        room: RoomNid,
        event: &RoomEvent,
        thread: Option<&ReceiptThread>,
    ) -> Result<bool, StoreError> {
        match thread {
            None => Ok(true),
            Some(ReceiptThread::Main) => Ok(self.thread_of(view, event).await?.is_none()),
            Some(ReceiptThread::Root(thread)) => match self.event_in_room(view, room, thread).await? {
                Some(thread) => self.is_about_thread(view, event, thread.n).await,
                None => Ok(false),
            },
        }
    }
}
