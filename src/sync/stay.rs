//! A user's standing in a room at the end of the answer, and what came before it.

use hearth_schema::{Membership, RoomNid, UserRoom};
use hearth_store::{Pos, StoreError};

use crate::answer::Answer;
use crate::member::membership;

/// Changes of one user's membership in one room that are looked at; with more, the client is given
/// the room anew.
const MAX_CHANGES: usize = 100;

/// The membership at the end of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stay {
    pub membership: Membership,
    /// Number of its event.
    pub n: u32,
    /// Position of its event.
    pub pos: Pos,
    /// Whether the user sent it.
    pub own: bool,
    pub forgotten: bool,
    /// Joined at `since` and ever after, up to the end of the answer or to this leave: the client has
    /// the room and only needs what is new.
    pub continuous: bool,
}

impl Answer<'_> {
    /// `None`: the user had no standing there yet.
    pub(crate) async fn stay(&self, room: RoomNid, row: &UserRoom) -> Result<Option<Stay>, StoreError> {
        let stay = Stay {
            membership: row.membership,
            n: row.n,
            pos: row.pos,
            own: row.own,
            forgotten: row.forgotten,
            continuous: self.since.is_some_and(|since| row.pos <= since.pos),
        };
        if stay.continuous || (self.since.is_none() && row.pos <= self.until.pos) {
            return Ok(Some(stay));
        }
        // Where the walk along the chain of member events ends.
        let floor = self.since.map_or(self.until.pos, |since| since.pos);
        let mut newest: Option<Stay> = None;
        let mut joined_before = true;
        let mut next = Some(row.n);
        for _ in 0..MAX_CHANGES {
            let Some(n) = next else { break };
            let Some(event) = self.rooms.events(&self.view, room, &[n]).await?.pop() else { break };
            let Some(membership) = membership(&event) else { break };
            if event.pos <= self.until.pos {
                match &newest {
                    None => {
                        let own = event.state_key() == Some(event.sender().as_str());
                        let forgotten = row.forgotten && n == row.n;
                        newest = Some(Stay { membership, n, pos: event.pos, own, forgotten, continuous: false });
                        joined_before &= membership != Membership::Invite && membership != Membership::Knock;
                    }
                    Some(_) => joined_before &= membership == Membership::Join,
                }
            }
            if event.pos <= floor {
                let at_since = membership == Membership::Join;
                let continuous = self.since.is_some() && joined_before && at_since;
                return Ok(newest.map(|newest| Stay { continuous, ..newest }));
            }
            next = event.replaces_state;
        }
        Ok(newest)
    }
}
