//! Through whose eyes children of events are looked at.

use std::collections::HashSet;
use std::sync::Arc;

use hearth_schema::{AccountData, ChildTallies, IGNORED_USERS, RoomNid, UserNid, ignored_users};
use hearth_store::{Pos, StoreError, View};
use ruma_common::UserId;
use serde_json::Value;

use super::event::RoomEvent;
use super::history::Access;
use crate::QueryError;
use crate::erasure::pruned;
use crate::gather::damaged;
use crate::intake::Rooms;

/// A reader of one room: what the history visibility hides from it, and whom it ignores.
pub(crate) struct Lens<'a> {
    rooms: &'a Rooms,
    view: &'a View,
    user_id: &'a UserId,
    pub user: UserNid,
    pub room: RoomNid,
    /// The history visibility hides nothing.
    sees_all: bool,
    /// Nothing above is for this reader.
    ceiling: Pos,
    ignored: HashSet<String>,
}

fn ignored(json: &str) -> Result<HashSet<String>, StoreError> {
    let content: Value = serde_json::from_str(json).map_err(|error| damaged("AccountData", error.to_string()))?;
    Ok(ignored_users(&content))
}

impl<'a> Lens<'a> {
    /// Reads what is hidden from `user_id`.
    pub(crate) async fn of(
        rooms: &'a Rooms,
        view: &'a View,
        user_id: &'a UserId,
        room: RoomNid,
    ) -> Result<Self, StoreError> {
        let user = rooms.ids().user(user_id);
        let ceiling = match rooms.access(view, user_id, room).await {
            Ok(Access::Joined | Access::Peeking) => Pos::MAX,
            Ok(Access::Until(_, pos)) => pos,
            Err(QueryError::Store(error)) => return Err(error),
            Err(_) => Pos::ZERO,
        };
        let sees_all = rooms.hides_nothing(view, user_id, room).await?;
        let row = view.get::<AccountData>(&(user, String::new(), IGNORED_USERS.to_owned())).await?;
        let mut ignored = row.map(|row| self::ignored(&row.json)).transpose()?.unwrap_or_default();
        ignored.remove(user_id.as_str());
        Ok(Self { rooms, view, user_id, user, room, sees_all, ceiling, ignored })
    }

    /// Who reads.
    pub(crate) const fn user_id(&self) -> &'a UserId {
        self.user_id
    }

    /// Whether the reader sees every child of `parent` with one relation type.
    pub(crate) async fn sees_children(&self, parent: u32, rel_type: &str) -> Result<bool, StoreError> {
        if !self.sees_all || self.ignored.is_empty() {
            return Ok(self.sees_all);
        }
        let relation = self.rooms.ids().relation(&[rel_type]);
        let users = self.ignored.iter().filter_map(|id| <&UserId>::try_from(id.as_str()).ok());
        let keys: Vec<_> = users.map(|id| (self.room, parent, self.rooms.ids().user(id), relation)).collect();
        Ok(self.view.get_many::<ChildTallies>(&keys).await?.iter().all(Option::is_none))
    }

    /// Whether the reader ignores `sender`.
    pub(crate) fn ignores(&self, sender: &UserId) -> bool {
        self.ignored.contains(sender.as_str())
    }

    /// `event` as the reader is shown it, be its sender ignored or not; `None`: not at all.
    pub(crate) async fn root(&self, event: &Arc<RoomEvent>) -> Result<Option<Arc<RoomEvent>>, StoreError> {
        if event.pos > self.ceiling {
            return Ok(None);
        }
        let mut visible = self.rooms.visible(self.view, self.user_id, self.room, vec![Arc::clone(event)]).await?;
        match visible.pop() {
            Some(event) if self.ignores(event.sender()) => pruned(&event).map(Arc::new).map(Some),
            event => Ok(event),
        }
    }

    /// Those of `events` that the reader may and wants to see.
    pub(crate) async fn shown(&self, mut events: Vec<Arc<RoomEvent>>) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        events.retain(|event| event.pos <= self.ceiling && !self.ignores(event.sender()));
        if events.is_empty() {
            return Ok(events);
        }
        self.rooms.visible(self.view, self.user_id, self.room, events).await
    }
}
