//! Threads that users follow (MSC4306).
//!
//! Clients decide when to follow a thread: because the user says so, or automatically, for instance
//! because an event mentions the user. A device that was away must not follow a thread again that the
//! user has left since; so an automatic wish names its cause, which must be newer than the leaving.
//! Both have positions in the one order of commits, which are compared.

use hearth_schema::{
    Change, EventNid, RoomNid, Subscription, ThreadSubscription, ThreadSubscriptionLog, ThreadSubscriptions, UserNid,
};
use hearth_store::{Batch, CommitError, Order, Owner, StoreError, View};
use ruma_common::{EventId, RoomId, UserId};

use crate::intake::Rooms;
use crate::{QueryError, SendError};

/// How often a change is tried again because another device of the user was faster.
const ATTEMPTS: usize = 16;
/// Threads of one room about which a user may have decided.
const MAX_THREADS: usize = 2_000;

/// A thread, as its user names it.
#[derive(Clone, Copy, Debug)]
pub struct ThreadOf<'a> {
    /// Who follows it, or not.
    pub user_id: &'a UserId,
    /// The room.
    pub room_id: &'a RoomId,
    /// The event that the thread's events relate to.
    pub root: &'a EventId,
}

/// Why a client wants to follow a thread.
#[derive(Clone, Copy, Debug)]
pub enum Reason<'a> {
    /// The user said so.
    Manual,
    /// This event of the thread.
    Automatic(&'a EventId),
}

/// Why a subscription was not changed or found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubscriptionError {
    /// There is no such thread, or none that the user may see.
    #[error("there is no such thread")]
    NotFound,
    /// The cause is no event of the thread.
    #[error("the event is not in the thread")]
    NotInThread,
    /// The user has ended the subscription after the cause.
    #[error("the user has unsubscribed since")]
    Conflict,
    /// The user has decided about too many threads of the room.
    #[error("too many threads of this room have been subscribed to")]
    TooMany,
    /// The store failed or is full.
    #[error(transparent)]
    Store(#[from] SendError),
}

impl From<StoreError> for SubscriptionError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<QueryError> for SubscriptionError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Store(error) => error.into(),
            _ => Self::NotFound,
        }
    }
}

type Key = (UserNid, RoomNid, u32);

impl Rooms {
    /// Lets the user follow a thread. A manual subscription stays manual.
    ///
    /// # Errors
    /// See [`SubscriptionError`].
    pub async fn subscribe_to_thread(&self, thread: ThreadOf<'_>, why: Reason<'_>) -> Result<(), SubscriptionError> {
        let key = self.thread_key(thread).await?;
        let view = self.view().await?;
        let cause = match why {
            Reason::Manual => None,
            Reason::Automatic(cause) => {
                let cause = self.event(thread.user_id, thread.room_id, cause).await.map_err(|error| match error {
                    QueryError::Store(error) => error.into(),
                    _ => SubscriptionError::NotInThread,
                })?;
                if self.thread_of(&view, &cause).await? != Some(key.2) {
                    return Err(SubscriptionError::NotInThread);
                }
                Some(cause.pos)
            }
        };
        self.change_subscription(key, |known| match (known, cause) {
            (Some(row), None) if row.subscription == Subscription::Manual => Ok(None),
            (_, None) => Ok(Some(Subscription::Manual)),
            (Some(row), Some(cause)) if row.subscription == Subscription::Ended && cause <= row.pos => {
                Err(SubscriptionError::Conflict)
            }
            (Some(row), Some(_)) if row.subscription != Subscription::Ended => Ok(None),
            (_, Some(_)) => Ok(Some(Subscription::Automatic)),
        })
        .await
    }

    /// Lets the user follow a thread no longer. It is remembered even if the user did not, because
    /// other devices may yet wish to.
    ///
    /// # Errors
    /// See [`SubscriptionError`].
    pub async fn unsubscribe_from_thread(&self, thread: ThreadOf<'_>) -> Result<(), SubscriptionError> {
        let key = self.thread_key(thread).await?;
        self.change_subscription(key, |_| Ok(Some(Subscription::Ended))).await
    }

    /// Whether the user follows a thread, and why; [`Subscription::Ended`] is never given.
    ///
    /// # Errors
    /// See [`SubscriptionError`].
    pub async fn thread_subscription(&self, thread: ThreadOf<'_>) -> Result<Option<Subscription>, SubscriptionError> {
        let key = self.thread_key(thread).await?;
        let row = self.view().await?.get::<ThreadSubscriptions>(&key).await?;
        Ok(row.map(|row| row.subscription).filter(|subscription| *subscription != Subscription::Ended))
    }

    /// The thread's row, if its root is an event that the user may see and that can be one.
    async fn thread_key(&self, thread: ThreadOf<'_>) -> Result<Key, SubscriptionError> {
        let root = self.event(thread.user_id, thread.room_id, thread.root).await?;
        // Threads do not nest.
        if root.thread_root().is_some() {
            return Err(SubscriptionError::NotFound);
        }
        Ok((self.ids().user(thread.user_id), root.room, root.n))
    }

    /// `decide` gets what is stored and gives what shall be, or `None` to leave it. It is called again
    /// if somebody else was faster.
    async fn change_subscription(
        &self,
        key: Key,
        decide: impl Fn(Option<ThreadSubscription>) -> Result<Option<Subscription>, SubscriptionError> + Send + Sync,
    ) -> Result<(), SubscriptionError> {
        for _ in 0..ATTEMPTS {
            let view = self.view().await?;
            let known = view.get::<ThreadSubscriptions>(&key).await?;
            let Some(subscription) = decide(known)? else { return Ok(()) };
            if known.is_none() && is_full(&view, (key.0, key.1)).await? {
                return Err(SubscriptionError::TooMany);
            }
            let mut batch = Batch::new(key.0.lane());
            let pos = batch.next_pos();
            batch.check::<ThreadSubscriptions>(&key, known.as_ref());
            batch.put::<ThreadSubscriptions>(&key, &ThreadSubscription { pos, subscription });
            if let Some(known) = known {
                batch.delete::<ThreadSubscriptionLog>(&(key.0, known.pos));
            }
            batch.put::<ThreadSubscriptionLog>(&(key.0, pos), &EventNid { room: key.1, n: key.2 });
            batch.fact(pos, Change::ThreadSubscription { user: key.0 }.to_bytes());
            match self.0.store.commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(SubscriptionError::Store(error.into())),
            }
        }
        Err(SubscriptionError::Store(SendError::Busy))
    }
}

async fn is_full(view: &View, of: (UserNid, RoomNid)) -> Result<bool, StoreError> {
    let rows = view.page::<ThreadSubscriptions, _>(&of, Order::Ascending, MAX_THREADS).await?;
    Ok(rows.len() >= MAX_THREADS)
}
