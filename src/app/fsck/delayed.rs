//! Promises about delayed events: a user's list and the rows that it names have each other.

use hearth_schema::{DelayedEvent, DelayedEvents, DelayedList, DelayedLists, UserNid};
use hearth_store::{Keyspace as _, Owner as _, StoreError};

use super::report::{Invariant, Violation};
use super::{Context, Finding};

#[expect(clippy::unnecessary_wraps, reason = "what a check returns, so that it reads as one")]
fn broken(keyspace: &'static str, detail: String) -> Finding {
    Some(Violation { invariant: Invariant::I13, keyspace, detail })
}

pub(super) async fn event(
    context: &Context,
    user: UserNid,
    id: String,
    row: &DelayedEvent,
) -> Result<Finding, StoreError> {
    let list = context.view.get::<DelayedLists>(&(user.lane(), user)).await?.unwrap_or_default();
    let (here, at) = match &row.finalised {
        None => (&list.scheduled, row.since.saturating_add(row.delay_ms)),
        Some(finalised) => (&list.finalised, finalised.at),
    };
    // It would never be sent, or never be forgotten.
    if here.iter().any(|entry| entry.id == id && entry.at == at) {
        return Ok(None);
    }
    Ok(broken(DelayedEvents::DEF.name, format!("a delayed event of {user:?} is not in its list")))
}

pub(super) async fn list(context: &Context, user: UserNid, list: DelayedList) -> Result<Finding, StoreError> {
    let entries = list.scheduled.into_iter().chain(list.finalised);
    let keys: Vec<_> = entries.map(|entry| (user, entry.id)).collect();
    let rows = context.view.get_many::<DelayedEvents>(&keys).await?;
    match rows.iter().filter(|row| row.is_none()).count() {
        0 => Ok(None),
        gone => Ok(broken(DelayedLists::DEF.name, format!("{gone} delayed events of {user:?} are absent"))),
    }
}
