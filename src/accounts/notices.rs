//! Which room the notices of this server to a user go to
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#server-notices)): one room a user, for ever.

use hearth_schema::{NoticeRoom, NoticeRooms, UserNid};
use hearth_store::{Batch, StoreError};
use ruma_common::{OwnedRoomId, RoomId};

use crate::error::damaged;
use crate::register::lane;
use crate::write::Attempts;
use crate::{Accounts, StorageError};

impl Accounts {
    /// The room of `user`'s notices; `None`: there were none yet.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn notice_room(&self, user: UserNid) -> Result<Option<OwnedRoomId>, StoreError> {
        let row = self.view().await?.get::<NoticeRooms>(&(user,)).await?;
        row.map(|row| OwnedRoomId::try_from(row.room_id).map_err(|error| damaged("NoticeRooms", error))).transpose()
    }

    /// Makes `room` that of `user`'s notices unless there is one, and gives the one that it is.
    ///
    /// # Errors
    /// If there is none as before.
    pub async fn claim_notice_room(&self, user: UserNid, room: &RoomId) -> Result<OwnedRoomId, StorageError> {
        let mut attempts = Attempts::default();
        loop {
            if let Some(known) = self.notice_room(user).await? {
                return Ok(known);
            }
            let mut batch = Batch::new(lane(user));
            batch.check_absent::<NoticeRooms>(&(user,));
            batch.put::<NoticeRooms>(&(user,), &NoticeRoom { room_id: room.to_string() });
            if attempts.commit(self, batch).await?.is_some() {
                return Ok(room.to_owned());
            }
        }
    }
}
