//! What an operator may choose.

use std::time::Duration;

use hearth_base::{Millis, Network, special_networks};
use ruma_common::OwnedServerName;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// Whether this server talks to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Federation {
    /// It does.
    #[default]
    On,
    /// Requests are answered with [`hearth_rooms::remote::RemoteError::Off`], without any network.
    Off,
}

/// What to make of a request that does not say whom it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingDestination {
    /// It may have been meant for another server, which passed it on.
    #[default]
    Refuse,
    /// Accept it, as the spec says for servers older than v1.3.
    Accept,
}

/// A key that this server signed with until `expired_ts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldKey {
    /// `ed25519:…`
    pub key_id: String,
    /// The public key in unpadded base64.
    pub key: String,
    /// The last moment at which it signed.
    pub expired_ts: Millis,
}

/// How this server talks to others.
#[derive(Clone, Debug)]
pub struct PeersSettings {
    /// Whether it does.
    pub federation: Federation,
    /// What to make of requests without `destination`.
    pub missing_destination: MissingDestination,
    /// Addresses that are never connected to.
    pub denied_networks: Vec<Network>,
    /// Exceptions from `denied_networks`.
    pub allowed_networks: Vec<Network>,
    /// Certificate authorities to trust besides the usual ones.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Servers that are asked for keys of servers that do not answer.
    pub key_servers: Vec<OwnedServerName>,
    /// Public keys that nothing is believed by, whoever has them.
    pub distrusted_keys: Vec<[u8; 32]>,
    /// How long a connection with its TLS handshake may take to one address.
    pub connect_timeout: Duration,
    /// How long a request may take from discovery to the last byte.
    pub request_timeout: Duration,
    /// The same for a join, whose answer is a room.
    pub join_timeout: Duration,
    /// Bytes of an answer to a join.
    pub max_join_response: usize,
    /// How long a server is left alone after the first failure; it doubles with each one.
    pub retry_first: Duration,
    /// How long a server is left alone at the most.
    pub retry_max: Duration,
}

impl Default for PeersSettings {
    fn default() -> Self {
        Self {
            federation: Federation::On,
            missing_destination: MissingDestination::Refuse,
            denied_networks: special_networks(),
            allowed_networks: Vec::new(),
            extra_roots: Vec::new(),
            key_servers: Vec::new(),
            distrusted_keys: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            join_timeout: Duration::from_secs(300),
            max_join_response: 256 << 20,
            retry_first: Duration::from_secs(60),
            retry_max: Duration::from_secs(3600),
        }
    }
}
