//! What is shown of users who wanted to be forgotten: whoever was not in a room while they could be read
//! there sees their events as if they had been redacted
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate)).
//!
//! Nothing is rewritten: those who could read an event before go on reading it. Few users are ever
//! erased, so they are all kept in memory, and a server without any spends nothing on the question.

use std::sync::Arc;

use hearth_schema::{ErasedUsers, Membership, NidMap, RoomNid, UserNid};
use hearth_store::{Lane, Order, Owner, Pos, StoreError, View};
use parking_lot::RwLock;
use ruma_common::UserId;
use tokio::sync::OnceCell;

use crate::gather::damaged;
use crate::intake::Rooms;
use crate::query::RoomEvent;

/// Rows read at a time.
const PAGE: usize = 512;

/// Local users that were erased, and when.
#[derive(Debug, Default)]
pub(crate) struct Erased(OnceCell<RwLock<NidMap<UserNid, Pos>>>);

impl Erased {
    async fn load(&self, view: &View) -> Result<&RwLock<NidMap<UserNid, Pos>>, StoreError> {
        self.0
            .get_or_try_init(|| async {
                let mut all = NidMap::default();
                for lane in Lane::all() {
                    let keep = |(_, user): (Lane, UserNid), hearth_schema::Position(pos)| {
                        all.insert(user, pos);
                        std::ops::ControlFlow::Continue(())
                    };
                    view.scan::<ErasedUsers, _>(&(lane,), Order::Ascending, PAGE, keep).await?;
                }
                Ok(RwLock::new(all))
            })
            .await
    }
}

impl Rooms {
    /// Takes note of a local user who has just been erased.
    ///
    /// # Errors
    /// If the store cannot be read; then it is noted at the next start.
    pub async fn note_erased(&self, user: &UserId) -> Result<(), StoreError> {
        let (view, user) = (self.view().await?, self.ids().user(user));
        let erased = self.0.erased.load(&view).await?;
        if let Some(hearth_schema::Position(pos)) = view.get::<ErasedUsers>(&(user.lane(), user)).await? {
            erased.write().insert(user, pos);
        }
        Ok(())
    }

    /// The position at which a user was erased, if that has happened.
    pub(crate) async fn erased_at(&self, view: &View, user: &UserId) -> Result<Option<Pos>, StoreError> {
        let erased = self.0.erased.load(view).await?;
        Ok(erased.read().get(&self.ids().user(user)).copied())
    }

    /// `events`, all of one room, with those of erased users pruned where `reader` was not in the room
    /// when they were sent and has not been in it since before the erasure.
    pub(crate) async fn prune_erased(
        &self,
        view: &View,
        reader: &UserId,
        room: RoomNid,
        mut events: Vec<Arc<RoomEvent>>,
    ) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let erased = self.0.erased.load(view).await?;
        if erased.read().is_empty() {
            return Ok(events);
        }
        let current = self.membership(view, self.ids().user(reader), room).await?;
        let in_since = current.filter(|row| row.membership == Membership::Join).map(|row| row.pos);
        for event in &mut events {
            if event.sender() == reader || event.redacted_by.is_some() {
                continue;
            }
            let at = erased.read().get(&self.ids().user(event.sender())).copied();
            let Some(at) = at.filter(|at| in_since.is_none_or(|since| since > *at)) else { continue };
            // What comes after the erasure is the leaving, which tells no more than that.
            if event.pos > at || self.was_joined(view, reader, room, event).await? {
                continue;
            }
            *event = Arc::new(pruned(event)?);
        }
        Ok(events)
    }

    async fn was_joined(
        &self,
        view: &View,
        reader: &UserId,
        room: RoomNid,
        event: &RoomEvent,
    ) -> Result<bool, StoreError> {
        Ok(self.membership_in(view, reader, room, event.state_before).await? == Some(Membership::Join))
    }
}

/// The event as if it had been redacted, and by nobody.
pub(crate) fn pruned(event: &RoomEvent) -> Result<RoomEvent, StoreError> {
    let pdu =
        hearth_event::redact(event.pdu.version(), &event.pdu).map_err(|error| damaged("Events", error.to_string()))?;
    let head = hearth_event::client_head(&pdu);
    Ok(RoomEvent { pdu, head, ..event.clone() })
}
