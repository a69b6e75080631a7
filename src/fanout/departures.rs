//! What follows from the end of an account: its user leaves all rooms, and what was kept of it is erased if that was
//! asked for.
//!
//! The problem: who has deactivated an account can ask for nothing a second time, so nothing of this may hang on the
//! request. It is no part of [`crate::Followups`], because invitations are turned down through other servers, and
//! nobody else should wait for one that does not answer.
//!
//! Every step may be done again: who is out stays out, and what is erased is not there. An invitation that comes in at
//! the moment of the end is a fact of its own, so whichever of the two is later finds the other.

use std::collections::HashSet;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_accounts::Accounts;
use hearth_rooms::Rooms;
use hearth_schema::{Change, ErasedUsers, UserNid, Users};
use hearth_store::{Batch, LoggedFact, Owner as _, StoreError, Value, View};
use ruma_common::UserId;

use crate::{ConsumeError, Consumer, Habit};

#[cfg(test)]
mod tests;

/// The consumer behind deactivation.
pub struct Departures {
    rooms: Rooms,
    accounts: Arc<Accounts>,
}

impl Departures {
    /// Its name in `Cursors`.
    pub const NAME: &'static str = "departures";

    /// For users of this server.
    pub const fn new(rooms: Rooms, accounts: Arc<Accounts>) -> Self {
        Self { rooms, accounts }
    }

    async fn consume_page(&self, view: &View, facts: &[LoggedFact], batch: &mut Batch) -> Result<(), ConsumeError> {
        let users: HashSet<UserNid> = facts.iter().filter_map(concerned).collect();
        for user in users {
            match self.depart(view, user, batch).await {
                // Waiting would not repair the row, and stop everybody else of the lane.
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(?user, %error, "a user whose account has ended may be in rooms still");
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn depart(&self, view: &View, user: UserNid, batch: &mut Batch) -> Result<(), StoreError> {
        let row = view.get::<Users>(&(user,)).await?.filter(|row| row.deactivated);
        let Some(row) = row else { return Ok(()) };
        let Ok(user_id) = <&UserId>::try_from(row.user_id.as_str()) else {
            tracing::error!(?user, "an account that has ended has no user ID");
            return Ok(());
        };
        let erased = view.get::<ErasedUsers>(&(user.lane(), user)).await?.is_some();
        if erased {
            self.rooms.note_erased(user_id).await?;
        }
        self.rooms.part_from_all(user_id).await?;
        if erased {
            self.accounts.erase(batch, user);
        }
        Ok(())
    }
}

/// Whose account has ended, or who is told something although it may have.
fn concerned(fact: &LoggedFact) -> Option<UserNid> {
    // Facts that are damaged are reported by the unread consumer and by `fsck`.
    match Change::decode(&fact.body) {
        Ok(Change::Deactivated { user } | Change::Outside { user, .. }) => Some(user),
        _ => None,
    }
}

impl Consumer for Departures {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn consume<'a>(
        &'a mut self,
        view: &'a View,
        facts: &'a [LoggedFact],
        batch: &'a mut Batch,
    ) -> BoxFuture<'a, Result<(), ConsumeError>> {
        self.consume_page(view, facts, batch).boxed()
    }

    fn forget(&mut self) {}

    /// Accounts rarely end, and nobody waits for it.
    fn habit(&self) -> Habit {
        Habit::Sparse
    }
}
