//! Delayed events: sent by the server when their time has come, whether or not their sender is there
//! ([MSC4140](https://github.com/matrix-org/matrix-spec-proposals/pull/4140)).
//!
//! The problem: a client that loses its connection cannot say that it has left a call. So it says so
//! beforehand, and puts it off again and again while it is there. What it has asked for must survive
//! a restart, must happen once, and must not happen after a cancellation that was acknowledged.
//!
//! A user has one list of what is due when, and a row for each event. The list is the condition of
//! every change: two requests can neither exceed the limit together nor lose each other's change.
//! In memory [`Delays`] has the due times of all users. It is only a hint: what it names is looked up
//! before it is sent. An event is sent under a transaction id made of its delay id, so a crash between
//! sending it and noting that does not send it twice.

mod manage;
mod standing;
mod timer;

use std::time::Duration;

use hearth_base::Millis;
use hearth_event::{JsonLimits, canonical_json, parse_canonical_object};
use hearth_schema::{
    DelayedEntry, DelayedEvent, DelayedEvents, DelayedFailure, DelayedList, DelayedLists, Membership, UserNid,
};
use hearth_store::{Batch, CommitError, Element as _, KeyBuf, KeyReader, Owner as _, StoreError, View};
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::command::{SendEvent, Transaction};
use crate::gather::damaged;
use crate::intake::Rooms;
use crate::remote::PolicyRefusal;
use crate::{PolicyError, SendError};

pub use manage::DelayedAction;
pub(crate) use timer::Delays;

/// Characters of the secret in a delay id: 160 bits.
const SECRET_CHARS: usize = 27;
/// Hexadecimal digits of the user's number before it.
const USER_DIGITS: usize = 32;
/// How often a change is planned again because the user's list has changed meanwhile.
const MAX_TRIES: u32 = 16;
/// What has ended is remembered so long, and so many for each user.
const KEEP: (Duration, usize) = (Duration::from_secs(7 * 24 * 60 * 60), 100);

/// How long after its time an event is tried that the room's policy server has not signed.
const LET_GO: Duration = Duration::from_secs(60 * 60);

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayLimits {
    /// Longest delay.
    pub max_delay: Duration,
    /// Events that one user may have scheduled; 0: delayed events are not allowed at all.
    pub max_scheduled: usize,
}

impl Default for DelayLimits {
    fn default() -> Self {
        Self { max_delay: Duration::from_secs(24 * 60 * 60), max_scheduled: 100 }
    }
}

/// A delayed event, with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delayed {
    /// What its sender calls it.
    pub delay_id: String,
    /// The event, and what became of it.
    pub event: DelayedEvent,
}

/// Why something about delayed events was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DelayedError {
    /// There is no such delayed event, or not of this user.
    #[error("there is no such delayed event")]
    NotFound,
    /// The operator or the room does not want it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The user has as many as may be.
    #[error("too many delayed events")]
    TooMany {
        /// So long until the next of them is due.
        next_in: Duration,
    },
    /// It has ended in another way than was asked for.
    #[error("{0}")]
    Finalised(&'static str),
    /// As when sending an event.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl From<StoreError> for DelayedError {
    fn from(error: StoreError) -> Self {
        Self::Send(error.into())
    }
}

/// Names a row of `DelayedEvents`.
pub(crate) type Key = (UserNid, String);

impl Rooms {
    /// Has `event` sent after `delay`; gives its delay id. The same transaction again gives the same
    /// id again, for as long as the event is remembered.
    ///
    /// Whether the sender may send it is judged when it is sent; here the sender must only be in the
    /// room.
    ///
    /// # Errors
    /// See [`DelayedError`]; nothing is stored then.
    pub async fn schedule(
        &self,
        event: &SendEvent,
        delay: Duration,
        limits: DelayLimits,
    ) -> Result<String, DelayedError> {
        if limits.max_scheduled == 0 {
            return Err(DelayedError::Forbidden("delayed events are not allowed on this server"));
        }
        if delay > limits.max_delay {
            return Err(DelayedError::Forbidden("the delay is longer than this server allows"));
        }
        let user = self.ids().user(&event.sender);
        let transaction = event.transaction.as_ref().map(|txn| self.seal(&event.room_id, &event.sender, txn));
        for _ in 0..MAX_TRIES {
            let view = self.view().await?;
            let before = delayed_list(&view, user).await?;
            let mut list = before.clone().unwrap_or_default();
            if let Some(known) = transaction.as_ref().and_then(|seal| known(&list, seal)) {
                return Ok(delay_id(user, known));
            }
            self.require_joined(&view, user, &event.room_id).await?;
            let now = self.0.clock.now();
            if list.scheduled.len() >= limits.max_scheduled {
                let next = list.scheduled.iter().map(|entry| entry.at).min().unwrap_or_default();
                return Err(DelayedError::TooMany { next_in: Millis(next).since(now) });
            }
            let id = self.0.random.alphanumeric(SECRET_CHARS);
            let row = row(event, delay, now);
            let at = due(&row);
            list.scheduled.push(DelayedEntry { id: id.clone(), at: at.0, transaction: transaction.clone() });
            let key = (user, id);
            // Before the commit: an event of which the timer knows too much is looked up in vain, but
            // one of which it does not know is never sent.
            self.0.delays.add(at, &key);
            match self.put_delayed(before.as_ref(), list, &key, &row).await {
                Ok(()) => return Ok(delay_id(user, &key.1)),
                Err(CommitError::Conflict(_)) => self.0.delays.remove(at, &key),
                Err(error) => return Err(SendError::from(error).into()),
            }
        }
        Err(SendError::Busy.into())
    }

    /// The delay id that this transaction gave before.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn scheduled_before(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        transaction: &Transaction,
    ) -> Result<Option<String>, DelayedError> {
        let user = self.ids().user(sender);
        let list = delayed_list(&self.view().await?, user).await?.unwrap_or_default();
        Ok(known(&list, &self.seal(room_id, sender, transaction)).map(|id| delay_id(user, id)))
    }

    /// The scheduled events of `sender`, the next one first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn scheduled_events(&self, sender: &UserId) -> Result<Vec<Delayed>, DelayedError> {
        let (user, view) = (self.ids().user(sender), self.view().await?);
        let mut list = delayed_list(&view, user).await?.unwrap_or_default();
        list.scheduled.sort_by_key(|entry| entry.at);
        let keys: Vec<_> = list.scheduled.into_iter().map(|entry| (user, entry.id)).collect();
        let rows = view.get_many::<DelayedEvents>(&keys).await?;
        let found = keys.iter().zip(rows).map(|((_, id), row)| {
            let event = row.ok_or_else(|| damaged("DelayedEvents", "an event is in its list but absent"))?;
            Ok(Delayed { delay_id: delay_id(user, id), event })
        });
        found.collect::<Result<_, StoreError>>().map_err(DelayedError::from)
    }

    /// One delayed event of `sender`, also for a while after its end.
    ///
    /// # Errors
    /// [`DelayedError::NotFound`], or if the store cannot be read.
    pub async fn delayed_event(&self, sender: &UserId, delay_id: &str) -> Result<Delayed, DelayedError> {
        let key = parse_delay_id(delay_id).ok_or(DelayedError::NotFound)?;
        let row = self.view().await?.get::<DelayedEvents>(&key).await?;
        let event = row.filter(|row| row.sender == sender.as_str()).ok_or(DelayedError::NotFound)?;
        Ok(Delayed { delay_id: delay_id.to_owned(), event })
    }

    async fn require_joined(&self, view: &View, user: UserNid, room_id: &RoomId) -> Result<(), DelayedError> {
        let member = self.membership(view, user, self.ids().room(room_id)).await?;
        if member.is_some_and(|row| row.membership == Membership::Join) {
            return Ok(());
        }
        Err(DelayedError::Forbidden("you are not in this room"))
    }

    /// Names a transaction in a list. The lengths keep apart what the parts run into each other.
    fn seal(&self, room_id: &RoomId, sender: &UserId, txn: &Transaction) -> String {
        let parts = [room_id.as_str(), sender.as_str(), &txn.device_id, &txn.scope, &txn.id];
        let lengths = parts.map(|part| part.len().to_string()).join(",");
        self.ids().seal(&format!("delayed {lengths} {}", parts.concat()))
    }

    /// Stores `row` and the list that goes with it, if the list is still as it was `before`.
    async fn put_delayed(
        &self,
        before: Option<&DelayedList>,
        mut list: DelayedList,
        key: &Key,
        row: &DelayedEvent,
    ) -> Result<(), CommitError> {
        let user = key.0;
        let mut batch = Batch::new(user.lane());
        for forgotten in forget_old(&mut list, self.0.clock.now()) {
            batch.delete::<DelayedEvents>(&(user, forgotten));
        }
        list.generation += 1;
        let list_key = (user.lane(), user);
        batch.check::<DelayedLists>(&list_key, before);
        batch.put::<DelayedLists>(&list_key, &list);
        batch.put::<DelayedEvents>(key, row);
        self.0.store.commit(batch).await.map(drop)
    }
}

async fn delayed_list(view: &View, user: UserNid) -> Result<Option<DelayedList>, StoreError> {
    view.get::<DelayedLists>(&(user.lane(), user)).await
}

fn row(event: &SendEvent, delay: Duration, now: Millis) -> DelayedEvent {
    DelayedEvent {
        room_id: event.room_id.to_string(),
        sender: event.sender.to_string(),
        event_type: event.event_type.clone(),
        state_key: event.state_key.clone(),
        content: String::from_utf8_lossy(&canonical_json(&event.content)).into_owned(),
        redacts: event.redacts.as_ref().map(ToString::to_string),
        delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        since: now.0,
        finalised: None,
    }
}

/// When an event is to be sent.
const fn due(row: &DelayedEvent) -> Millis {
    Millis(row.since.saturating_add(row.delay_ms))
}

/// The event of a row, as if it were sent by hand; the id makes sure that it is sent once.
pub(crate) fn to_send(key: &Key, row: &DelayedEvent) -> Result<SendEvent, StoreError> {
    let wrong = |what: &dyn std::fmt::Display| damaged("DelayedEvents", what.to_string());
    let redacts = row.redacts.as_deref().map(OwnedEventId::try_from).transpose();
    Ok(SendEvent {
        room_id: OwnedRoomId::try_from(row.room_id.as_str()).map_err(|error| wrong(&error))?,
        sender: OwnedUserId::try_from(row.sender.as_str()).map_err(|error| wrong(&error))?,
        event_type: row.event_type.clone(),
        state_key: row.state_key.clone(),
        content: parse_canonical_object(row.content.as_bytes(), JsonLimits::CONTENT).map_err(|error| wrong(&error))?,
        redacts: redacts.map_err(|error| wrong(&error))?,
        origin_server_ts: None,
        transaction: Some(Transaction {
            // No device has this name (see `StoredEvent::transaction`).
            device_id: String::new(),
            scope: "delayed".into(),
            id: delay_id(key.0, &key.1),
        }),
    })
}

/// The event that `seal` scheduled.
fn known<'a>(list: &'a DelayedList, seal: &str) -> Option<&'a str> {
    let mut entries = list.scheduled.iter().chain(&list.finalised);
    entries.find(|entry| entry.transaction.as_deref() == Some(seal)).map(|entry| entry.id.as_str())
}

/// Takes out of the list what need not be remembered; gives the ids.
fn forget_old(list: &mut DelayedList, now: Millis) -> Vec<String> {
    let surplus = list.finalised.len().saturating_sub(KEEP.1);
    let old = list.finalised.iter().take_while(|entry| Millis(entry.at).plus(KEEP.0) < now).count();
    list.finalised.drain(..surplus.max(old)).map(|entry| entry.id).collect()
}

/// Nothing in it tells anybody but this server whose event it is.
fn delay_id(user: UserNid, secret: &str) -> String {
    let mut bytes = KeyBuf::default();
    user.encode(&mut bytes);
    let mut id = String::with_capacity(USER_DIGITS + SECRET_CHARS);
    for byte in &bytes.bytes {
        id.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('0')));
    }
    id + secret
}

pub(crate) fn parse_delay_id(delay_id: &str) -> Option<Key> {
    let sound = delay_id.len() == USER_DIGITS + SECRET_CHARS && delay_id.bytes().all(|b| b.is_ascii_alphanumeric());
    let (digits, secret) = delay_id.split_at_checked(USER_DIGITS).filter(|_| sound)?;
    let number = u128::from_str_radix(digits, 16).ok()?;
    let user = UserNid::decode(&mut KeyReader(&number.to_be_bytes())).ok()?;
    Some((user, secret.to_owned()))
}

/// Why a room will never take an event, which should have been sent so long ago; `None`: it may do so later.
fn failure(error: &SendError, late: Duration) -> Option<DelayedFailure> {
    match error {
        SendError::UnknownRoom => Some(DelayedFailure::UnknownRoom),
        // The policy server wants to be left alone, or is away: that ends, or else the event does.
        SendError::Policy(PolicyError::Refused(PolicyRefusal { status: 429, .. }) | PolicyError::Unreachable(_)) => {
            (late >= LET_GO).then_some(DelayedFailure::Forbidden)
        }
        SendError::Policy(_) | SendError::Forbidden(_) => Some(DelayedFailure::Forbidden),
        SendError::BadContent(_) => Some(DelayedFailure::BadContent),
        SendError::TooLarge => Some(DelayedFailure::TooLarge),
        SendError::UnknownEvent => Some(DelayedFailure::UnknownEvent),
        SendError::BadRelation(_) => Some(DelayedFailure::BadRelation),
        SendError::DuplicateAnnotation => Some(DelayedFailure::DuplicateAnnotation),
        SendError::Locked => Some(DelayedFailure::Locked),
        SendError::Suspended => Some(DelayedFailure::Suspended),
        SendError::Busy
        | SendError::Unanswered(_)
        | SendError::Stopping
        | SendError::Full
        | SendError::Store(_)
        | SendError::Internal(_) => None,
    }
}

/// The error that a delayed event ended with.
impl From<(DelayedFailure, String)> for SendError {
    fn from((why, message): (DelayedFailure, String)) -> Self {
        match why {
            DelayedFailure::UnknownRoom => Self::UnknownRoom,
            DelayedFailure::Forbidden => Self::Forbidden(message),
            DelayedFailure::BadContent => Self::BadContent(message),
            DelayedFailure::TooLarge => Self::TooLarge,
            DelayedFailure::UnknownEvent => Self::UnknownEvent,
            DelayedFailure::BadRelation => Self::BadRelation(message),
            DelayedFailure::DuplicateAnnotation => Self::DuplicateAnnotation,
            DelayedFailure::Locked => Self::Locked,
            DelayedFailure::Suspended => Self::Suspended,
        }
    }
}

#[cfg(test)]
mod tests {
    use hearth_schema::Ids;
    use ruma_common::user_id;

    use super::*;

    #[test]
    fn a_delay_id_leads_to_its_row_and_nothing_else_does() {
        let key = (Ids::new([7; 32]).user(user_id!("@a:b")), "x".repeat(SECRET_CHARS));
        let id = delay_id(key.0, &key.1);
        assert_eq!(parse_delay_id(&id), Some(key));
        for wrong in ["", "abc", &id[1..], &format!("{id}x"), &id.replace('x', "é"), &id.replacen(|_| true, "+", 1)] {
            assert_eq!(parse_delay_id(wrong), None, "{wrong}");
        }
    }
}
