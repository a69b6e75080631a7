//! Rows of other servers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stored;

/// The signing keys that a server is known to have had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerKeys {
    /// By key ID (`ed25519:…`). The bytes of a key never change.
    pub keys: BTreeMap<String, PeerKey>,
    /// When the server, or somebody trusted on its behalf, was last asked with success; milliseconds since the epoch.
    pub fetched_at: u64,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerKey {
    /// The public key in unpadded base64.
    pub key: String,
    /// It is good for what was signed up to then, in milliseconds since the epoch.
    pub valid_until: u64,
    /// The server has stopped signing with it: no request can be.
    pub retired: bool,
}

/// What a server said of its keys, as it signed it, for those who ask this server about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerKeyAnswer {
    /// Canonical JSON.
    pub json: String,
    /// When it was fetched, in milliseconds since the epoch.
    pub fetched_at: u64,
    /// When it runs out: a week later at the most.
    pub valid_until: u64,
}

stored! {
    PeerKeys = 1;
    PeerKeyAnswer = 1;
}
