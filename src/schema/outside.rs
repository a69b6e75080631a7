//! Memberships in rooms that this server is not in: invitations from other servers, knocks, and how they ended.

use hearth_store::Pos;
use serde::{Deserialize, Serialize};

use crate::{Membership, stamped, stored};

/// What is remembered of such a membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// When it began; the same as in the user's row.
    #[serde(skip)]
    pub pos: Pos,
    /// The membership; the same as in the user's row.
    pub membership: Membership,
    /// Who made it so: who invites, or the user.
    pub sender: String,
    /// The newest invitation, which is not taken a second time.
    pub invitation: Option<String>,
    /// Servers to ask about the room, the best first.
    pub servers: Vec<String>,
}

/// What is shown of such a room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideState {
    /// The room's version.
    pub version: String,
    /// The member event, if there is one: its ID and the PDU in canonical JSON.
    pub event: Option<(String, Vec<u8>)>,
    /// Events that describe the room, in JSON as clients are shown them.
    pub events: Vec<String>,
}

stamped! {
    Outside = 1;
}

stored! {
    OutsideState = 1;
}
