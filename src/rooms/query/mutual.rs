//! Rooms that two users share.

use hearth_schema::{CurrentState, Membership};
use hearth_store::StoreError;
use ruma_common::{OwnedRoomId, UserId};

use super::loading::parse_room_id;
use crate::intake::Rooms;

/// Rooms on a page.
const PAGE: usize = 500;

/// A page of rooms that two users share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutualRooms {
    /// In the order of their IDs.
    pub joined: Vec<OwnedRoomId>,
    /// How many there are on all pages.
    pub count: usize,
    /// The next page has the rooms behind this one; `None`: there are no more.
    pub next: Option<OwnedRoomId>,
}

impl Rooms {
    /// Rooms that both `user`, who is local, and `other` have joined, from the one behind `after` on.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn mutual_rooms(
        &self,
        user: &UserId,
        other: &UserId,
        after: Option<&str>,
    ) -> Result<MutualRooms, StoreError> {
        let view = self.view().await?;
        let mut rooms = self.user_rooms(&view, self.ids().user(user)).await?;
        rooms.retain(|(_, row)| row.membership == Membership::Join);
        let mut shared = Vec::new();
        for chunk in rooms.chunks(PAGE) {
            let key = |room| (room, "m.room.member".to_owned(), other.to_string());
            let keys: Vec<_> = chunk.iter().map(|(room, _)| key(*room)).collect();
            let entries = view.get_many::<CurrentState>(&keys).await?;
            for ((_, row), entry) in chunk.iter().zip(entries) {
                if entry.is_some_and(|entry| entry.membership == Some(Membership::Join)) {
                    shared.push(parse_room_id(&row.room_id)?);
                }
            }
        }
        shared.sort_unstable();
        let count = shared.len();
        shared.retain(|room| after.is_none_or(|after| room.as_str() > after));
        let more = shared.len() > PAGE;
        shared.truncate(PAGE);
        let next = shared.last().filter(|_| more).cloned();
        Ok(MutualRooms { joined: shared, count, next })
    }
}
