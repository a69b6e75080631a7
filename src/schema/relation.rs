//! What is kept of events' children besides the children.

use serde::{Deserialize, Serialize};

use crate::stored;

/// What the children of an event come to. Redacted children do not count.
///
/// See <https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events>.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// The most recent valid `m.replace`.
    pub edit: Option<Edit>,
    /// Its `m.thread` children, if it has any.
    pub thread: Option<ThreadSummary>,
    /// How many `m.reference` children it has.
    pub references: u32,
}

/// An edit. Of two, the more recent one is the greater.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edit {
    /// Milliseconds since the epoch.
    pub origin_server_ts: u64,
    /// Decides between edits of the same millisecond.
    pub event_id: String,
    /// Its number.
    pub n: u32,
}

/// A thread, as its root knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSummary {
    /// Number of the newest reply.
    pub latest: u32,
    /// How many replies there are: at least one.
    pub replies: u32,
}

stored! {
    Aggregate = 1;
}
