//! Taking a user out of rooms for good: a guest whom a room does not want any more, an account that has ended.
//!
//! The problem: nobody waits for it who could ask a second time. So an error here means that it may succeed later, and
//! whoever calls tries until there is none; what a room's rules refuse is an end as well.

use std::ops::ControlFlow;

use futures::StreamExt;
use futures::stream;
use hearth_schema::{Membership, UserRooms};
use hearth_store::{Order, StoreError};
use ruma_common::{RoomId, UserId};

use crate::command::{MemberProfile, MembershipChange};
use crate::intake::Rooms;
use crate::query::parse_room_id;
use crate::{MembershipError, SendError};

/// Rooms that are left at the same time. Some may wait for a server that does not answer.
const AT_ONCE: usize = 16;
/// Rows read at a time.
const PAGE: usize = 512;

impl Rooms {
    /// Takes a local user out of a room, or out of its invitation or knock; `only_from`: if that is the membership.
    /// Whoever is out already, or is held by the room's rules, stays as it is.
    ///
    /// # Errors
    /// If it may succeed later, or a row is damaged.
    pub async fn part(&self, user: &UserId, room_id: &RoomId, only_from: Option<Membership>) -> Result<(), StoreError> {
        let change = MembershipChange {
            room_id: room_id.to_owned(),
            sender: user.to_owned(),
            target: user.to_owned(),
            membership: Membership::Leave,
            only_from,
            reason: None,
            profile: MemberProfile::default(),
            is_direct: None,
        };
        match self.change_membership(change).await {
            Err(MembershipError::Send(SendError::Store(error))) => Err(error),
            Err(MembershipError::Send(error @ (SendError::Busy | SendError::Stopping | SendError::Full))) => {
                Err(StoreError::Unavailable(error.to_string().into()))
            }
            Err(MembershipError::Send(error @ SendError::Internal(_))) => {
                tracing::error!(user_id = %user, %room_id, %error, "a user stays in a room");
                Ok(())
            }
            // Has left by itself, or has been put out.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Takes a local user out of all rooms: leaves them, turns down invitations, takes back knocks. A room in which that
    /// fails stops no other one.
    ///
    /// # Errors
    /// If it may succeed later in some room. Rooms that are damaged are reported and left out.
    pub async fn part_from_all(&self, user: &UserId) -> Result<(), StoreError> {
        let rooms = self.rooms_to_part_from(user).await?;
        let mut parting = stream::iter(rooms)
            .map(|room_id: String| async move {
                let parted = match parse_room_id(&room_id) {
                    Ok(room_id) => self.part(user, &room_id, None).await,
                    Err(error) => Err(error),
                };
                (room_id, parted)
            })
            .buffer_unordered(AT_ONCE);
        let mut failed = None;
        while let Some((room_id, parted)) = parting.next().await {
            match parted {
                Ok(()) => {}
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(user_id = %user, %room_id, %error, "a user stays in a damaged room");
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn rooms_to_part_from(&self, user: &UserId) -> Result<Vec<String>, StoreError> {
        let view = self.view().await?;
        let mut names = Vec::new();
        view.scan::<UserRooms, _>(&(self.ids().user(user),), Order::Ascending, PAGE, |_, row| {
            if matches!(row.membership, Membership::Join | Membership::Invite | Membership::Knock) {
                names.push(row.room_id);
            }
            ControlFlow::Continue(())
        })
        .await?;
        Ok(names)
    }
}
