//! A user's own traces in rooms: profile changes, forgetting.

use futures::StreamExt;
use futures::stream;
use hearth_schema::{Membership, OutsideStates, UserRooms};
use hearth_store::{Batch, Owner};
use ruma_common::{RoomId, UserId};

use crate::command::{MemberProfile, MembershipChange};
use crate::intake::Rooms;
use crate::{MembershipError, SendError};

/// Rooms whose member event is renewed at the same time.
const AT_ONCE: usize = 16;

impl Rooms {
    /// Renews the user's member event in every joined room. All rooms are tried; the first failure
    /// is returned.
    ///
    /// # Errors
    /// See [`SendError`]. A room that does not allow it is passed over.
    pub async fn update_profile(&self, user: &UserId, profile: &MemberProfile) -> Result<(), SendError> {
        let rooms = self.joined_room_ids(user).await?;
        let changes = rooms.into_iter().map(|room_id| MembershipChange {
            room_id,
            sender: user.to_owned(),
            target: user.to_owned(),
            membership: Membership::Join,
            only_from: Some(Membership::Join),
            reason: None,
            profile: profile.clone(),
            is_direct: None,
        });
        let results: Vec<_> = stream::iter(changes)
            .map(|change| self.change_membership(change))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for result in results {
            match result {
                // Left or banned in between, or the room forbids it: nothing to show there. (The last two are
                // only said to whom is not in the room.)
                Ok(_)
                | Err(
                    MembershipError::NotInState(_)
                    | MembershipError::Send(SendError::Forbidden(_))
                    | MembershipError::CannotAuthorise
                    | MembershipError::CannotGrant
                    | MembershipError::Remote(_),
                ) => {}
                Err(MembershipError::Send(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes a room that the user has left out of the user's sight.
    ///
    /// # Errors
    /// [`MembershipError::NotInState`] while the user is in it.
    pub async fn forget(&self, user: &UserId, room_id: &RoomId) -> Result<(), MembershipError> {
        let view = self.view().await?;
        let key = (self.ids().user(user), self.ids().room(room_id));
        let row = view.get::<UserRooms>(&key).await?.ok_or(SendError::UnknownRoom)?;
        if !matches!(row.membership, Membership::Leave | Membership::Ban) {
            return Err(MembershipError::NotInState("leave the room before forgetting it".into()));
        }
        let mut batch = Batch::new(key.0.lane());
        // An invitation that comes in at this moment must not be forgotten with the rest.
        batch.check::<UserRooms>(&key, Some(&row));
        if row.n.is_none() {
            // That it was turned down is remembered: the same invitation does not come again.
            batch.delete::<OutsideStates>(&key);
        }
        batch.put::<UserRooms>(&key, &hearth_schema::UserRoom { forgotten: true, ..row });
        self.0.store.commit(batch).await.map(drop).map_err(|error| SendError::from(error).into())
    }
}
