//! Rows of rooms.

use hearth_store::{DecodeError, Element, KeyBuf, KeyReader, Value};
use serde::{Deserialize, Serialize};

use crate::{EventNid, RoomNid, UserNid, stored};

/// What never changes of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomMeta {
    /// The room's ID.
    pub room_id: String,
    /// Its version, as the create event says.
    pub version: String,
    /// Milliseconds since the epoch.
    pub created_at: u64,
}

/// The room's growing end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomHead {
    /// Grows with every commit to the room, so that equal heads mean that nothing happened between.
    pub generation: u64,
    /// Forward extremities.
    pub extremities: Vec<Extremity>,
    /// State after them.
    pub state: StateId,
    /// Number of the next event.
    pub next_event: u32,
    /// Number of the next (event type, state key).
    pub next_state_key: u32,
    /// Members with membership `join` in `state`, so that nobody has to count them.
    pub joined_members: u32,
    /// Members with membership `invite` in `state`.
    pub invited_members: u32,
}

/// A forward extremity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extremity {
    /// The event's number.
    pub n: u32,
    /// Its ID.
    pub event_id: String,
    /// Its depth.
    pub depth: u64,
}

/// Positions that are kept free before an event that came after a gap, for what is missing there.
pub const GAP_ROOM: u32 = 1 << 16;

/// What is known of a gap in a timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The lowest position that has been filled; `None`: none.
    pub lowest: Option<u64>,
    /// How often nobody could tell more.
    pub failures: u32,
    /// When somebody may be asked again, in milliseconds since the epoch.
    pub retry_at: u64,
}

/// A membership, as stored beside state and in users' room lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Membership {
    /// `join`
    Join,
    /// `invite`
    Invite,
    /// `leave`
    Leave,
    /// `ban`
    Ban,
    /// `knock`
    Knock,
}

impl Membership {
    /// The spec's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Leave => "leave",
            Self::Ban => "ban",
            Self::Knock => "knock",
        }
    }

    /// From the spec's word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Join, Self::Invite, Self::Leave, Self::Ban, Self::Knock].into_iter().find(|m| m.as_str() == word)
    }
}

/// One entry of the current state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// The event's number.
    pub n: u32,
    /// For `m.room.member`: the membership it gives, so that lists need not read events.
    pub membership: Option<Membership>,
}

/// One change of the current state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateLogEntry {
    /// The event that is the entry now; `None` if resolution took the entry away.
    pub n: Option<u32>,
    /// The event that was, if any.
    pub previous: Option<u32>,
}

/// Names a state snapshot of a room: the root of its trie. All zero is the empty state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateId(pub [u8; 16]);

impl StateId {
    /// The state before the create event.
    pub const EMPTY: Self = Self([0; 16]);
}

/// Names a trie node by its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub [u8; 16]);

impl Element for NodeId {
    fn encode(&self, out: &mut KeyBuf) {
        self.0.encode(out);
    }
    fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(input.take()?))
    }
}

/// A trie node's bytes; their meaning belongs to `rooms::state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawNode(pub Vec<u8>);

impl Value for RawNode {
    fn encode(&self, out: &mut KeyBuf) {
        out.bytes.extend(&self.0);
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self(bytes.to_vec()))
    }
}

/// Events counted up to a position of the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Those that the default push rules notify about.
    pub notifying: u64,
    /// Those that the default push rules highlight for every member (`@room`, tombstones).
    pub highlighting: u64,
}

impl Tally {
    /// What was counted between `earlier` and this.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            notifying: self.notifying.saturating_sub(earlier.notifying),
            highlighting: self.highlighting.saturating_sub(earlier.highlighting),
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            notifying: self.notifying.saturating_add(other.notifying),
            highlighting: self.highlighting.saturating_add(other.highlighting),
        }
    }
}

/// Running totals of a room's timeline, written by the unread consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomTally {
    /// Events up to here that are in no thread.
    pub main: Tally,
    /// Events up to here that are in threads, all threads together.
    pub threads: Tally,
    /// Root of the thread that the event at this position is in.
    pub thread: Option<u32>,
}

/// A fact of the change log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A room accepted an event (owner: the room's lane).
    Event {
        /// Which.
        event: EventNid,
    },
    /// Somebody's receipt moved (the room's lane).
    Receipt {
        /// In which room.
        room: RoomNid,
        /// Whose.
        user: UserNid,
    },
    /// A user's account data changed (the user's lane).
    AccountData {
        /// Whose.
        user: UserNid,
    },
    /// A user's membership in a room that this server is not in changed (the user's lane).
    Outside {
        /// Whose.
        user: UserNid,
        /// In which room.
        room: RoomNid,
    },
    /// A user follows a thread, or does so no longer (the user's lane).
    ThreadSubscription {
        /// Who.
        user: UserNid,
    },
    /// An account has ended for good (the user's lane).
    Deactivated {
        /// Whose.
        user: UserNid,
    },
}

impl Change {
    /// The body of a [`hearth_store::Fact`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = KeyBuf::default();
        self.encode(&mut out);
        out.bytes
    }
}

stored! {
    RoomMeta = 1;
    RoomHead = 1;
    Gap = 1;
    StateEntry = 1;
    StateLogEntry = 1;
    Tally = 1;
    RoomTally = 2;
    Change = 1;
}
