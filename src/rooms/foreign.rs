//! What other servers say of their users that is no event: typing and receipts.
//!
//! The caller has seen to it that a server speaks of its own users only. Here it is asked whether the room lets that
//! server and that user speak at all. Whoever may not is ignored: nobody here can see a difference.

use std::collections::HashSet;
use std::sync::Arc;

use hearth_schema::{Membership, ReceiptKind, RoomNid};
use hearth_store::{CommitError, StoreError, View};
use ruma_common::{OwnedEventId, OwnedUserId, RoomId, ServerName, UserId};

use crate::intake::Rooms;
use crate::query::RoomEvent;
use crate::receipts::{ATTEMPTS, NewReceipt};
use crate::{ReceiptError, ReceiptThread, SendError, Typing};

/// Why nothing came of what another server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// There is no such room here, or nobody of this server is in it.
    UnknownRoom,
    /// The server is not in the room.
    NotInRoom,
    /// The room keeps the server out.
    KeptOut,
    /// The user is not in the room.
    NotJoined,
    /// The event is not known; it may come yet.
    UnknownEvent,
    /// The event has nothing to do with the thread.
    NotInThread,
}

/// A public receipt of another server's user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignReceipt {
    /// Whose.
    pub user_id: OwnedUserId,
    /// `None`: an unthreaded receipt.
    pub thread: Option<ReceiptThread>,
    /// Read up to the newest of these that is known. Whoever makes it sees to it that they are few.
    pub event_ids: Vec<OwnedEventId>,
    /// When, in milliseconds since the epoch.
    pub ts: u64,
}

impl Rooms {
    /// Says that another server's user is typing, or no longer.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn set_foreign_typing(
        &self,
        room_id: &RoomId,
        user: &UserId,
        typing: Typing,
    ) -> Result<Result<(), Ignored>, StoreError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        if let Err(ignored) = self.may_speak(&view, room, user.server_name()).await? {
            return Ok(Err(ignored));
        }
        if !self.is_joined(&view, room, user).await? {
            return Ok(Err(Ignored::NotJoined));
        }
        self.typing().set(room, user, typing);
        Ok(Ok(()))
    }

    /// Stores receipts of users of `origin`, in one batch; those that would move backwards change nothing.
    /// `result[i]` belongs to `new[i]`.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn set_foreign_receipts(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        new: &[ForeignReceipt],
    ) -> Result<Vec<Result<(), Ignored>>, SendError> {
        let room = self.ids().room(room_id);
        for _ in 0..ATTEMPTS {
            let view = self.view().await?;
            if let Err(ignored) = self.may_speak(&view, room, origin).await? {
                return Ok(vec![Err(ignored); new.len()]);
            }
            let (mut batch, mut results) = (None, Vec::with_capacity(new.len()));
            let mut seen = HashSet::new();
            for receipt in new {
                // A batch has place for one receipt of a user in a thread.
                if !seen.insert((&receipt.user_id, receipt.thread.as_ref().map(ReceiptThread::as_str))) {
                    results.push(Ok(()));
                    continue;
                }
                let result = self.foreign_receipt(&view, (room, room_id), receipt, &mut batch).await;
                results.push(result.map_err(|error| match error {
                    ReceiptError::Store(error) => error,
                    other => SendError::Internal(other.to_string()),
                })?);
            }
            let Some(batch) = batch else { return Ok(results) };
            match self.0.store.commit(batch).await {
                Ok(_) => return Ok(results),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(SendError::Busy)
    }

    async fn foreign_receipt(
        &self,
        view: &View,
        (room, room_id): (RoomNid, &RoomId),
        receipt: &ForeignReceipt,
        batch: &mut Option<hearth_store::Batch>,
    ) -> Result<Result<(), Ignored>, ReceiptError> {
        if !self.is_joined(view, room, &receipt.user_id).await? {
            return Ok(Err(Ignored::NotJoined));
        }
        let event = match self.newest_read(view, room, receipt).await? {
            Ok(event) => event,
            Err(ignored) => return Ok(Err(ignored)),
        };
        let new = NewReceipt {
            room_id: room_id.to_owned(),
            user_id: receipt.user_id.clone(),
            kind: ReceiptKind::Read,
            thread: receipt.thread.clone(),
            event_id: event.event_id().to_owned(),
        };
        // Another clock may be ahead, and what was read tomorrow cannot be shown.
        let ts = receipt.ts.min(self.0.clock.now().0);
        self.add_receipt(view, batch, &new, (&event, ts)).await?;
        Ok(Ok(()))
    }

    /// The newest event of `receipt` that is in the room and in the receipt's thread.
    async fn newest_read(
        &self,
        view: &View,
        room: RoomNid,
        receipt: &ForeignReceipt,
    ) -> Result<Result<Arc<RoomEvent>, Ignored>, StoreError> {
        let (mut newest, mut ignored) = (None::<Arc<RoomEvent>>, Ignored::UnknownEvent);
        for event_id in &receipt.event_ids {
            let Some(event) = self.event_in_room(view, room, event_id).await? else { continue };
            if newest.as_ref().is_some_and(|newest| newest.pos >= event.pos) {
                continue;
            }
            if self.fits_thread(view, room, &event, receipt.thread.as_ref()).await? {
                newest = Some(event);
            } else {
                ignored = Ignored::NotInThread;
            }
        }
        Ok(newest.ok_or(ignored))
    }

    /// Whether `origin` may say something in the room that is no event.
    async fn may_speak(
        &self,
        view: &View,
        room: RoomNid,
        origin: &ServerName,
    ) -> Result<Result<(), Ignored>, StoreError> {
        if self.room(view, room).await?.is_none() {
            return Ok(Err(Ignored::UnknownRoom));
        }
        let servers = self.servers(view, room).await?;
        if !servers.contains_key(&self.0.signer.server_name) {
            return Ok(Err(Ignored::UnknownRoom));
        }
        if !servers.contains_key(origin) {
            return Ok(Err(Ignored::NotInRoom));
        }
        let allowed = self.acl_allows(view, room, origin).await?;
        Ok(if allowed { Ok(()) } else { Err(Ignored::KeptOut) })
    }

    /// Whether `user`, of any server, is in the room now.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn is_joined(&self, view: &View, room: RoomNid, user: &UserId) -> Result<bool, StoreError> {
        let entry = self.current_entry(view, room, "m.room.member", user.as_str()).await?;
        Ok(entry.is_some_and(|entry| entry.membership == Some(Membership::Join)))
    }

    /// Those of `rooms` that `user`, of any server, is in now.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn joined_among(
        &self,
        view: &View,
        rooms: &[RoomNid],
        user: &UserId,
    ) -> Result<Vec<RoomNid>, StoreError> {
        let key = |room: &RoomNid| (*room, "m.room.member".to_owned(), user.to_string());
        let keys: Vec<_> = rooms.iter().map(key).collect();
        let entries = view.get_many::<hearth_schema::CurrentState>(&keys).await?;
        let joined = rooms
            .iter()
            .zip(entries)
            .filter(|(_, entry)| entry.is_some_and(|entry| entry.membership == Some(Membership::Join)));
        Ok(joined.map(|(room, _)| *room).collect())
    }
}
