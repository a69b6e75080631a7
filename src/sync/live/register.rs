//! Registering a user: be told of what comes first, then read what was.

use std::sync::Arc;

use hearth_schema::{AccountDataLog, Membership, ReceiptLog, RoomLast, RoomNid, ThreadSubscriptionLog, UserNid};
use hearth_store::{Order, Owner, Pos, StoreError, View};

use super::{Live, LiveRoom, LiveUser, Standing};

/// A poll in progress: its user stays registered.
pub(crate) struct Poll {
    /// The user that polls.
    pub user: Arc<LiveUser>,
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.user.poll_ends();
    }
}

impl Live {
    /// Registers `user`, if it is not, for as long as the answer lives and some minutes more.
    pub(crate) async fn enter(&self, nid: UserNid) -> Result<Poll, StoreError> {
        let poll = self.begin(nid);
        // Whoever comes second waits for the first; should the first be cancelled or fail, the next
        // one loads.
        poll.user.loaded.get_or_try_init(|| Box::pin(self.load(&poll.user))).await?;
        Ok(poll)
    }

    /// Polls are counted under the lock, so that no sweep comes in between.
    fn begin(&self, nid: UserNid) -> Poll {
        if let Some(user) = self.users.read().get(&nid) {
            user.poll_begins();
            return Poll { user: Arc::clone(user) };
        }
        let mut users = self.users.write();
        let user = users.entry(nid).or_insert_with(|| Arc::new(LiveUser::new(nid)));
        user.poll_begins();
        Poll { user: Arc::clone(user) }
    }

    async fn load(&self, user: &Arc<LiveUser>) -> Result<(), StoreError> {
        // The user is registered: a membership that changes after this view comes by itself.
        let view = self.rooms.view().await?;
        let mut joined = Vec::new();
        for (room, row) in self.rooms.user_rooms(&view, user.nid()).await? {
            user.change_at(row.pos);
            let live = (row.membership == Membership::Join).then(|| self.add_to_room(room, user));
            user.stand(room, Standing { row: Arc::new(row), live: live.clone() });
            if live.is_some() && user.standing(room).is_none_or(|standing| standing.live.is_none()) {
                // The user has left since, and the notifier was faster.
                self.remove_from_room(room, user);
            }
            joined.extend(live);
        }
        // The same for the rooms: what comes after the next view comes by itself.
        let view = self.rooms.view().await?;
        self.load_rooms(&view, user, &joined).await?;
        let newest = view.page::<AccountDataLog, _>(&(user.nid(),), Order::Descending, 1).await?;
        if let Some(((_, pos), _)) = newest.first() {
            user.account_data_at(*pos);
        }
        let newest = view.page::<ThreadSubscriptionLog, _>(&(user.nid(),), Order::Descending, 1).await?;
        if let Some(((_, pos), _)) = newest.first() {
            user.threads_at(*pos);
        }
        // What is new for it, its token says; what comes is paced.
        user.presence.release(self.presence.version());
        Ok(())
    }

    async fn load_rooms(&self, view: &View, user: &LiveUser, rooms: &[Arc<LiveRoom>]) -> Result<(), StoreError> {
        let new: Vec<_> = rooms.iter().filter(|room| !room.is_loaded()).collect();
        let keys: Vec<_> = new.iter().map(|room| (room.nid().lane(), room.nid())).collect();
        let last = view.get_many::<RoomLast>(&keys).await?;
        for (room, last) in new.into_iter().zip(last) {
            let receipts = view.page::<ReceiptLog, _>(&(room.nid(),), Order::Descending, 1).await?;
            let receipt = receipts.first().map_or(Pos::ZERO, |((_, pos), _)| *pos);
            room.load(last.map_or(Pos::ZERO, |last| last.0), receipt);
        }
        for room in rooms {
            user.change_at(room.newest());
            user.typing_at(room.typing());
        }
        Ok(())
    }

    /// The room's registered members include `user` from now on.
    pub(super) fn add_to_room(&self, room: RoomNid, user: &Arc<LiveUser>) -> Arc<LiveRoom> {
        // One lock for finding the room and adding to it: a room without members goes.
        let live = {
            let mut rooms = self.watched.write();
            let live = rooms.entry(room).or_insert_with(|| {
                self.foreign.new_room();
                Arc::new(LiveRoom::new(room))
            });
            live.add(user);
            Arc::clone(live)
        };
        live.typing_at(self.rooms.typing().in_room(room).0);
        live
    }

    /// The opposite.
    pub(super) fn remove_from_room(&self, room: RoomNid, user: &Arc<LiveUser>) {
        let mut rooms = self.watched.write();
        if rooms.get(&room).is_some_and(|live| live.remove(user)) {
            rooms.remove(&room);
        }
    }
}
