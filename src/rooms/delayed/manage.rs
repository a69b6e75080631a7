//! Cancelling, restarting and sending: what ends a delayed event, or puts it off.

use hearth_base::Millis;
use hearth_schema::{DelayedEvent, DelayedEvents, DelayedOutcome, Finalised};
use hearth_store::{CommitError, StoreError, View};
use ruma_common::{OwnedUserId, UserId};

use super::standing::Sender;
use super::{DelayedError, Key, MAX_TRIES, delayed_list, due, failure, parse_delay_id, to_send};
use crate::SendError;
use crate::attach;
use crate::command::SendEvent;
use crate::gather::damaged;
use crate::intake::Rooms;

/// What can be done with a scheduled event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelayedAction {
    /// It shall never be sent.
    Cancel,
    /// Its whole delay begins again now.
    Restart,
    /// It shall be sent now.
    Send,
}

/// What the timer finds when a time has come.
pub(super) enum Fired {
    /// Nothing is left to do.
    Done,
    /// It was put off.
    NotBefore(Millis),
}

impl Rooms {
    /// Does `action` to a delayed event; `by`: only if it is this user's. Done already is done.
    ///
    /// # Errors
    /// [`DelayedError::Finalised`] if it has ended in another way. An event that could not be sent
    /// stays scheduled.
    pub async fn manage_delayed(
        &self,
        delay_id: &str,
        action: DelayedAction,
        by: Option<&UserId>,
    ) -> Result<(), DelayedError> {
        let key = parse_delay_id(delay_id).ok_or(DelayedError::NotFound)?;
        let (rooms, by) = (self.clone(), by.map(ToOwned::to_owned));
        // In a task of its own: a client that goes away must not leave an event that is being sent
        // unclaimed, or somebody could cancel it and still see it sent.
        let task = self.0.tasks.spawn(async move { rooms.manage(key, action, by).await });
        task.await.map_err(|error| SendError::Internal(error.to_string()))?
    }

    async fn manage(&self, key: Key, action: DelayedAction, by: Option<OwnedUserId>) -> Result<(), DelayedError> {
        let _claim = self.0.delays.claim(&key).await;
        let view = self.view().await?;
        let row = view.get::<DelayedEvents>(&key).await?.ok_or(DelayedError::NotFound)?;
        if by.is_some_and(|by| by != row.sender) {
            return Err(DelayedError::NotFound);
        }
        if let Some(finalised) = &row.finalised {
            return settled(action, &finalised.outcome);
        }
        let event = to_send(&key, &row)?;
        if action != DelayedAction::Send
            && let Some(outcome) = self.sent_before(&view, &key, &event).await?
        {
            self.finalise(&key, outcome.clone()).await?;
            return settled(action, &outcome);
        }
        match action {
            DelayedAction::Cancel => self.finalise(&key, DelayedOutcome::Cancelled).await?,
            DelayedAction::Restart => self.restart(&key).await?,
            DelayedAction::Send => match self.standing_of(&view, key.0, &event).await? {
                Sender::Gone => {
                    self.finalise(&key, DelayedOutcome::Cancelled).await?;
                    return settled(action, &DelayedOutcome::Cancelled);
                }
                sender => {
                    if let Some(refusal) = sender.refusal() {
                        return Err(refusal.into());
                    }
                    let sent = self.send(event).await?;
                    self.finalise(&key, DelayedOutcome::Sent { event_id: sent.event_id.to_string() }).await?;
                }
            },
        }
        Ok(())
    }

    /// Sends what is due.
    ///
    /// # Errors
    /// If it could not be sent now, but perhaps later.
    pub(super) async fn fire(&self, key: &Key) -> Result<Fired, SendError> {
        let _claim = self.0.delays.claim(key).await;
        let view = self.view().await?;
        let row = view.get::<DelayedEvents>(key).await?;
        let Some(row) = row.filter(|row| row.finalised.is_none()) else { return Ok(Fired::Done) };
        if due(&row) > self.0.clock.now() {
            return Ok(Fired::NotBefore(due(&row)));
        }
        let event = to_send(key, &row)?;
        let sender = self.standing_of(&view, key.0, &event).await?;
        if sender != Sender::MaySend
            && let Some(outcome) = self.sent_before(&view, key, &event).await?
        {
            self.finalise(key, outcome).await?;
            return Ok(Fired::Done);
        }
        let sent = match (sender, sender.refusal()) {
            (Sender::Gone, _) => {
                self.finalise(key, DelayedOutcome::Cancelled).await?;
                return Ok(Fired::Done);
            }
            (_, Some(refusal)) => Err(refusal),
            (_, None) => self.send(event).await,
        };
        let outcome = match sent {
            Ok(sent) => DelayedOutcome::Sent { event_id: sent.event_id.to_string() },
            Err(error) => match failure(&error, self.0.clock.now().since(due(&row))) {
                Some(why) => DelayedOutcome::Failed { why, message: error.to_string() },
                None => return Err(error),
            },
        };
        self.finalise(key, outcome).await?;
        Ok(Fired::Done)
    }

    /// Its end, if it was sent by a run of the server that ended before it could note that.
    async fn sent_before(
        &self,
        view: &View,
        key: &Key,
        event: &SendEvent,
    ) -> Result<Option<DelayedOutcome>, StoreError> {
        let Some(transaction) = event.transaction.clone() else { return Ok(None) };
        let sent = attach::sent_before(view, self.ids().room(&event.room_id), &(key.0, transaction)).await?;
        Ok(sent.map(|event_id| DelayedOutcome::Sent { event_id: event_id.to_string() }))
    }

    async fn restart(&self, key: &Key) -> Result<(), SendError> {
        let now = self.0.clock.now();
        let (before, after) = self
            .change_delayed(key, |row, list| {
                let before = due(row);
                row.since = now.0;
                // Known to the timer before it holds, as when it was scheduled.
                self.0.delays.add(due(row), key);
                let entry = list.scheduled.iter_mut().find(|entry| entry.id == key.1)?;
                entry.at = due(row).0;
                Some((before, due(row)))
            })
            .await?;
        if before != after {
            self.0.delays.remove(before, key);
        }
        Ok(())
    }

    async fn finalise(&self, key: &Key, outcome: DelayedOutcome) -> Result<(), SendError> {
        let now = self.0.clock.now();
        let was_due = self
            .change_delayed(key, |row, list| {
                row.finalised = Some(Finalised { at: now.0, outcome: outcome.clone() });
                let at = list.scheduled.iter().position(|entry| entry.id == key.1)?;
                let entry = list.scheduled.remove(at);
                list.finalised.push(hearth_schema::DelayedEntry { at: now.0, ..entry });
                Some(due(row))
            })
            .await?;
        self.0.delays.remove(was_due, key);
        Ok(())
    }

    /// Changes a scheduled event and its user's list together. `change` gives `None` if the list does
    /// not have the event, which is damage.
    async fn change_delayed<T>(
        &self,
        key: &Key,
        change: impl Fn(&mut DelayedEvent, &mut hearth_schema::DelayedList) -> Option<T> + Sync,
    ) -> Result<T, SendError> {
        let broken = |what: &'static str| -> StoreError { damaged("DelayedEvents", what) };
        for _ in 0..MAX_TRIES {
            let view = self.view().await?;
            let before = delayed_list(&view, key.0).await?.ok_or_else(|| broken("an event has no list"))?;
            let row = view.get::<DelayedEvents>(key).await?;
            let mut row = row.ok_or_else(|| broken("an event in the works is absent"))?;
            let mut list = before.clone();
            let done = change(&mut row, &mut list).ok_or_else(|| broken("an event is not in its list"))?;
            match self.put_delayed(Some(&before), list, key, &row).await {
                Ok(()) => return Ok(done),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(SendError::Busy)
    }
}

/// Whether what was asked for has happened already.
fn settled(action: DelayedAction, outcome: &DelayedOutcome) -> Result<(), DelayedError> {
    match (action, outcome) {
        (DelayedAction::Send, DelayedOutcome::Sent { .. })
        | (DelayedAction::Cancel, DelayedOutcome::Cancelled | DelayedOutcome::Failed { .. }) => Ok(()),
        (_, DelayedOutcome::Sent { .. }) => Err(DelayedError::Finalised("the event has been sent")),
        (_, DelayedOutcome::Cancelled | DelayedOutcome::Failed { .. }) => {
            Err(DelayedError::Finalised("the event has been cancelled"))
        }
    }
}
