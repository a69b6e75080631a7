//! Rows of what is on its way to other servers.

use serde::{Deserialize, Serialize};

use crate::{EventNid, stored};

/// A server that something was sent to, or will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Its name.
    pub server_name: String,
    /// Position of the newest event that was put into its queue: the row is deleted only if that is still so.
    pub newest: u64,
}

/// A transaction that has an id: until the other server has taken it, it is repeated as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Its id.
    pub id: String,
    /// `origin_server_ts`, in milliseconds since the epoch.
    pub at: u64,
    /// Its PDUs, in order.
    pub pdus: Vec<QueuedPdu>,
    /// Its EDUs, each a JSON object.
    pub edus: Vec<String>,
}

/// A PDU of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedPdu {
    /// Where it stands in the destination's queue: the event's position.
    pub pos: u64,
    /// Which event.
    pub event: EventNid,
}

/// Why a destination is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackOff {
    /// Attempts that have failed one after the other.
    pub failures: u32,
    /// When the first of them failed, in milliseconds since the epoch.
    pub since: u64,
    /// Not tried again before this, in milliseconds since the epoch.
    pub retry_at: u64,
}

stored! {
    Destination = 1;
    Transaction = 1;
    BackOff = 1;
}
