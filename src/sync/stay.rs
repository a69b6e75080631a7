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
    /// Number of its event; `None` in a room that this server was not in.
    pub n: Option<u32>,
    /// Position of its event.
    pub pos: Pos,
    /// Whether the user sent it.
    pub own: bool,
    /// Joined at `since` and ever after, up to the end of the answer or to this leave: the client has
    /// the room and only needs what is new.
    pub continuous: bool,
    /// Joined at `since` or at some time after it.
    pub been_in: bool,
    /// Everything that the user may see up to here has been shown to the client.
    pub known: Pos,
}

/// What the chain of member events tells, from the newest back to `since`.
struct Walk {
    /// The first at or before the end of the answer.
    newest: Option<Stay>,
    /// Joined throughout, as far as it was followed.
    joined: bool,
    /// Joined after `since`.
    entered: bool,
}

impl Answer<'_> {
    /// `None`: the user had no standing there yet.
    pub(crate) async fn stay(&self, room: RoomNid, row: &UserRoom) -> Result<Option<Stay>, StoreError> {
        let since = self.since.map(|since| since.pos);
        let joined = row.membership == Membership::Join;
        let stay = Stay {
            membership: row.membership,
            n: row.n,
            pos: row.pos,
            own: row.own,
            continuous: since.is_some_and(|since| row.pos <= since),
            been_in: joined,
            known: since.unwrap_or(Pos::ZERO),
        };
        if stay.continuous || (since.is_none() && row.pos <= self.until.pos) {
            return Ok(Some(stay));
        }
        // Where the walk along the chain of member events ends.
        let floor = since.unwrap_or(self.until.pos);
        let mut walk = Walk { newest: None, joined: true, entered: false };
        if row.n.is_none() {
            // What was before is not known, and nobody has seen the room.
            return Ok((row.pos <= self.until.pos).then_some(stay));
        }
        let mut next = row.n;
        for _ in 0..MAX_CHANGES {
            let Some(n) = next else { return Ok(walk.end(None)) };
            let Some(event) = self.rooms.events(&self.view, room, &[n]).await?.pop() else { break };
            let Some(membership) = membership(&event) else { break };
            if event.pos <= self.until.pos {
                if walk.newest.is_none() {
                    let own = event.state_key() == Some(event.sender().as_str());
                    walk.newest = Some(Stay { membership, n: Some(n), pos: event.pos, own, ..stay });
                    walk.joined = membership != Membership::Invite && membership != Membership::Knock;
                } else {
                    walk.joined &= membership == Membership::Join;
                }
            }
            if event.pos <= floor {
                return Ok(walk.end(since.map(|_| membership)));
            }
            walk.entered |= membership == Membership::Join && event.pos <= self.until.pos;
            next = event.replaces_state;
        }
        walk.entered = true;
        Ok(walk.end(None))
    }
}

impl Walk {
    /// `at_since`: the membership at `since`, if it is known and there was one.
    fn end(self, at_since: Option<Membership>) -> Option<Stay> {
        let was_in = at_since == Some(Membership::Join);
        self.newest.map(|newest| Stay {
            continuous: was_in && self.joined,
            been_in: was_in || self.entered,
            // To who comes in, the room's past may be open that was not before.
            known: if self.entered && !was_in { Pos::ZERO } else { newest.known },
            ..newest
        })
    }
}
