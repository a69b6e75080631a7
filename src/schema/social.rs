//! Rows of what users say of themselves and of others.

use serde::{Deserialize, Serialize};

use crate::stored;

/// What is remembered of a user's presence. Whether somebody is online is not: after a restart nobody
/// is, until they come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceRow {
    /// The full user ID.
    pub user_id: String,
    /// The status message.
    pub status_msg: Option<String>,
    /// When the user last did something, in milliseconds since the epoch.
    pub last_active: Option<u64>,
}

/// Something that a user reported as inappropriate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When, in milliseconds since the epoch.
    pub at: u64,
    /// The full user ID of who reported it.
    pub reporter: String,
    /// What.
    pub subject: ReportSubject,
    /// Why, in the reporter's words.
    pub reason: String,
}

/// What a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReportSubject {
    /// A room.
    Room {
        /// Its ID.
        room_id: String,
    },
    /// An event.
    Event {
        /// Its room's ID.
        room_id: String,
        /// Its ID.
        event_id: String,
        /// Who sent it.
        sender: String,
    },
    /// A user.
    User {
        /// Its ID.
        user_id: String,
    },
}

stored! {
    PresenceRow = 1;
    Report = 1;
}
