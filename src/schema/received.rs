//! What has come from other servers.

use serde::{Deserialize, Serialize};

/// What a transaction of another server came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedTransaction {
    /// The other server's name for it.
    pub txn_id: String,
    /// When it came, in milliseconds since the epoch.
    pub at: u64,
    /// Its events by ID, with the reason for those that were not taken.
    pub results: Vec<(String, Option<String>)>,
}

crate::stored! {
    ReceivedTransaction = 1;
}
