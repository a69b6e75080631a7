//! What is forgotten of a user who wanted to be erased, besides what goes with every account that ends
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate)).
//!
//! What stays: the account itself, so that its name stays taken; the memberships, which say no more than the member
//! events of the rooms; and receipts, which belong to the rooms as events do.

use hearth_schema::{
    AccountData, AccountDataLog, DelayedEvents, DelayedLists, Highlights, NoticeRooms, Presence, Profiles, ReadPoints,
    Reports, ThreadReads, ThreadSubscriptionLog, ThreadSubscriptions, UserNid,
};
use hearth_store::Batch;

use crate::Accounts;
use crate::register::lane;

impl Accounts {
    /// Adds to `batch`, of the user's lane, the end of all that is kept of the user and is no event, and forgets what
    /// memory has of it. To be called when the user is in no room any more, because rooms lead to new rows.
    pub fn erase(&self, batch: &mut Batch, user: UserNid) {
        self.presence.forget(user);
        batch.delete::<Presence>(&(lane(user), user));
        batch.delete::<Profiles>(&(user,));
        batch.delete_prefix::<AccountData, _>(&(user,));
        batch.delete_prefix::<AccountDataLog, _>(&(user,));
        batch.delete_prefix::<ReadPoints, _>(&(user,));
        batch.delete_prefix::<ThreadReads, _>(&(user,));
        batch.delete_prefix::<Highlights, _>(&(user,));
        batch.delete_prefix::<ThreadSubscriptions, _>(&(user,));
        batch.delete_prefix::<ThreadSubscriptionLog, _>(&(user,));
        batch.delete_prefix::<DelayedEvents, _>(&(user,));
        batch.delete::<DelayedLists>(&(lane(user), user));
        batch.delete_prefix::<Reports, _>(&(lane(user), user));
        batch.delete::<NoticeRooms>(&(user,));
    }
}
