//! Events that shall be sent later.

use serde::{Deserialize, Serialize};

use crate::stored;

/// An event that its sender has asked to be sent later, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedEvent {
    /// Where to.
    pub room_id: String,
    /// Whose it is.
    pub sender: String,
    /// Its type.
    pub event_type: String,
    /// Present in state events.
    pub state_key: Option<String>,
    /// Canonical JSON.
    pub content: String,
    /// The event that an `m.room.redaction` redacts.
    pub redacts: Option<String>,
    /// How long after `since` it is due, in milliseconds.
    pub delay_ms: u64,
    /// When it was scheduled or last restarted, in milliseconds since the epoch.
    pub since: u64,
    /// `None`: it is still to be sent.
    pub finalised: Option<Finalised>,
}

/// The end of a delayed event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finalised {
    /// When, in milliseconds since the epoch.
    pub at: u64,
    /// How.
    pub outcome: DelayedOutcome,
}

/// How a delayed event ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DelayedOutcome {
    /// It is in the room.
    Sent {
        /// Its ID.
        event_id: String,
    },
    /// Somebody did not want it any more.
    Cancelled,
    /// The room did not take it.
    Failed {
        /// Why, for programs.
        why: DelayedFailure,
        /// Why, for people.
        message: String,
    },
}

/// Why a room did not take a delayed event, and never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DelayedFailure {
    /// There is no such room.
    UnknownRoom,
    /// The auth rules said no.
    Forbidden,
    /// The content breaks a rule of the room version.
    BadContent,
    /// The event would be over the size limits.
    TooLarge,
    /// The event to redact is not in the room.
    UnknownEvent,
    /// It relates to an event in a way that is not allowed.
    BadRelation,
    /// The sender has annotated the event with the same key before.
    DuplicateAnnotation,
    /// The sender's account was locked.
    Locked,
    /// The sender's account was suspended.
    Suspended,
}

/// All delayed events of a user: so many are scheduled, and no more is known of which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedList {
    /// Grows with every change.
    pub generation: u64,
    /// Those that are to be sent; `at` is when.
    pub scheduled: Vec<DelayedEntry>,
    /// Those that have ended, oldest first; `at` is when they did.
    pub finalised: Vec<DelayedEntry>,
}

/// One delayed event in its sender's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedEntry {
    /// Names its row.
    pub id: String,
    /// Milliseconds since the epoch.
    pub at: u64,
    /// A seal on the request that scheduled it, so that its repetition is known.
    pub transaction: Option<String>,
}

stored! {
    DelayedEvent = 1;
    DelayedList = 1;
}
