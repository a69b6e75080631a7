//! Promises about events and their children.

use hearth_schema::{
    Aggregate, Aggregates, EventNid, Events, PendingRelations, Relations, RoomNid, ThreadSubscriptionLog,
    ThreadSubscriptions, Threads, UserNid,
};
use hearth_store::{Keyspace, Pos, StoreError};

use super::report::{Invariant, Violation};
use super::{Context, Finding};

#[expect(clippy::unnecessary_wraps, reason = "what a check returns, so that it reads as one")]
fn broken<K: Keyspace>(detail: String) -> Result<Finding, StoreError> {
    Ok(Some(Violation { invariant: Invariant::I13, keyspace: K::DEF.name, detail }))
}

/// A child: it is there, at the position that the row says, and so is its parent.
pub(super) async fn relation(
    context: &Context,
    room: RoomNid,
    (parent, pos): (u32, Pos),
    child: u32,
) -> Result<Finding, StoreError> {
    let found = context.view.get_many::<Events>(&[(room, parent), (room, child)]).await?;
    match found.as_slice() {
        [Some(_), Some(child)] if child.pos == pos => Ok(None),
        _ => broken::<Relations>(format!("{child} of {room:?} is no child of {parent} at {pos:?}")),
    }
}

/// A child that waits for its parent: it is there.
pub(super) async fn pending(context: &Context, room: RoomNid, child: u32) -> Result<Finding, StoreError> {
    match context.view.get::<Events>(&(room, child)).await? {
        Some(_) => Ok(None),
        None => broken::<PendingRelations>(format!("{child} of {room:?} is not stored")),
    }
}

/// What is kept of an event's children: the events it names are there, and its thread is listed.
pub(super) async fn aggregate(
    context: &Context,
    room: RoomNid,
    n: u32,
    row: &Aggregate,
) -> Result<Finding, StoreError> {
    let latest = row.thread.map(|thread| thread.latest);
    let named: Vec<_> = row.edit.iter().map(|edit| edit.n).chain(latest).chain([n]).map(|n| (room, n)).collect();
    if context.view.get_many::<Events>(&named).await?.iter().any(Option::is_none) {
        return broken::<Aggregates>(format!("{n} of {room:?} or one of its children is not stored"));
    }
    match latest {
        Some(latest) if context.view.get::<Threads>(&(room, latest)).await? != Some(n) => {
            broken::<Aggregates>(format!("the thread of {n} in {room:?} is not listed at {latest}"))
        }
        _ => Ok(None),
    }
}

/// A listed thread: its root knows the reply as the newest.
pub(super) async fn thread(context: &Context, room: RoomNid, latest: u32, top: u32) -> Result<Finding, StoreError> {
    let row = context.view.get::<Aggregates>(&(room, top)).await?;
    if row.and_then(|row| row.thread).is_some_and(|thread| thread.latest == latest) {
        return Ok(None);
    }
    broken::<Threads>(format!("{latest} of {room:?} is not the newest reply to {top}"))
}

/// What a user has decided about a thread: its root is there, and the log has it at its position.
pub(super) async fn subscription(
    context: &Context,
    user: UserNid,
    root: EventNid,
    pos: Pos,
) -> Result<Finding, StoreError> {
    if context.view.get::<Events>(&(root.room, root.n)).await?.is_none() {
        return broken::<ThreadSubscriptions>(format!("the root of {root:?} is not stored"));
    }
    match context.view.get::<ThreadSubscriptionLog>(&(user, pos)).await? {
        Some(logged) if logged == root => Ok(None),
        _ => broken::<ThreadSubscriptions>(format!("{root:?} of {user:?} is not in the log at {pos:?}")),
    }
}

/// A row of the log: the decision of that position is there.
pub(super) async fn subscription_log(
    context: &Context,
    user: UserNid,
    pos: Pos,
    root: EventNid,
) -> Result<Finding, StoreError> {
    let row = context.view.get::<ThreadSubscriptions>(&(user, root.room, root.n)).await?;
    if row.is_some_and(|row| row.pos == pos) {
        return Ok(None);
    }
    broken::<ThreadSubscriptionLog>(format!("{pos:?} of {user:?} has no decision about {root:?}"))
}
