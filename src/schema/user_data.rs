//! Rows that tie users to rooms.

use hearth_store::{DecodeError, Element, KeyBuf, KeyReader, Pos};
use serde::{Deserialize, Serialize};

use crate::{Membership, Tally, stamped};

/// A receipt's kind. Also an element of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReceiptKind {
    /// `m.read`
    Read,
    /// `m.read.private`
    ReadPrivate,
}

impl Element for ReceiptKind {
    fn encode(&self, out: &mut KeyBuf) {
        out.bytes.push(match self {
            Self::Read => 1,
            Self::ReadPrivate => 2,
        });
    }
    fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        match u8::decode(input)? {
            1 => Ok(Self::Read),
            2 => Ok(Self::ReadPrivate),
            _ => Err(DecodeError("receipt kind")),
        }
    }
}

/// Names a row of `Receipts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptName {
    /// Its kind.
    pub kind: ReceiptKind,
    /// The thread, `""` for an unthreaded receipt.
    pub thread: String,
    /// The user's ID.
    pub user_id: String,
}

crate::stored! {
    ReceiptName = 1;
    Mention = 1;
}

/// A user's latest receipt of one kind and thread in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// When it was stored; its row in `ReceiptLog` has the same position.
    #[serde(skip)]
    pub pos: Pos,
    /// The event read up to.
    pub event_id: String,
    /// That event's number.
    pub n: u32,
    /// Position of that event in the timeline.
    pub event_pos: u64,
    /// Milliseconds since the epoch.
    pub ts: u64,
}

/// One item of account data. Deleted ones stay as `{}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDataEntry {
    /// When it was stored; its row in `AccountDataLog` has the same position.
    #[serde(skip)]
    pub pos: Pos,
    /// The content, as the client sent it.
    pub json: String,
}

/// A room in a user's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRoom {
    /// Position of the membership event: "newer" compares this.
    #[serde(skip)]
    pub pos: Pos,
    /// The room's ID.
    pub room_id: String,
    /// The membership.
    pub membership: Membership,
    /// Number of the membership event in its room; `None`: this server was not in the room, and what it knows is in
    /// `Outsides`.
    pub n: Option<u32>,
    /// Whether the user sent it (a leave that is not a kick).
    pub own: bool,
    /// The user has forgotten the room.
    pub forgotten: bool,
}

/// Where a user has read to in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPoint {
    /// Timeline position up to which everything is read, in every thread.
    #[serde(skip)]
    pub pos: Pos,
    /// Position up to which everything outside threads is read; never before `pos`.
    pub main_pos: u64,
    /// The room's tally of events outside threads at `main_pos`.
    pub main: Tally,
    /// What is read of all threads together: up to `pos`, and beyond it as far as `ThreadReads` say.
    pub threads: Tally,
}

/// Where a user has read to in a thread. Counts only beyond the user's `ReadPoint`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRead {
    /// Timeline position up to which the thread is read.
    #[serde(skip)]
    pub pos: Pos,
    /// The thread's tally at that position.
    pub tally: Tally,
}

/// An event mentions a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mention {
    /// Root of the thread that the event is in.
    pub thread: Option<u32>,
}

/// Whether a user follows a thread (MSC4306).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subscription {
    /// The user wanted it.
    Manual,
    /// A client found a reason for it.
    Automatic,
    /// The user has ended it: what came before is no reason for an automatic one any more.
    Ended,
}

/// A user's latest decision about a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSubscription {
    /// When it was made; its row in `ThreadSubscriptionLog` has the same position.
    #[serde(skip)]
    pub pos: Pos,
    /// What it is.
    pub subscription: Subscription,
}

stamped! {
    Receipt = 1;
    AccountDataEntry = 1;
    UserRoom = 1;
    ReadPoint = 2;
    ThreadRead = 1;
    ThreadSubscription = 1;
}
