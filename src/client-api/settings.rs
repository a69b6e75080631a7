//! What the operator decides about the client-server API.

use std::time::Duration;

use hearth_event::RoomVersion;
use hearth_rooms::DelayLimits;
use ruma_common::OwnedServerName;
use serde::Serialize;

use crate::limits::{RateLimits, TrustedProxies};

/// Settings of the client-server API.
#[derive(Clone, Debug)]
pub struct ClientApiSettings {
    /// The server part of local names.
    pub server_name: OwnedServerName,
    /// Where clients reach this server; `None`: `/.well-known/matrix/client` is somebody else's.
    pub public_base_url: Option<String>,
    /// `host:port` where other servers reach this server; `None`: `/.well-known/matrix/server` is somebody
    /// else's.
    pub federation_address: Option<String>,
    /// Whom to ask about this server.
    pub support: Support,
    /// Who sends the server's notices.
    pub notices: Notices,
    /// Version of rooms whose creator names none.
    pub default_room_version: RoomVersion,
    /// Bytes of a request body.
    pub max_body_bytes: usize,
    /// How long a request body may take to arrive.
    pub body_deadline: Duration,
    /// How deep JSON may nest.
    pub json_depth: usize,
    /// Whether `?access_token=` is accepted. It ends up in logs of proxies, so only test suites that
    /// need it should have it.
    pub query_access_token: bool,
    /// Whether large answers are compressed for clients that accept it.
    pub compress: bool,
    /// What is allowed of delayed events.
    pub delays: DelayLimits,
    /// How often clients may do things; `None`: as often as they like.
    pub rate_limits: Option<RateLimits>,
    /// Whose word counts for where a request comes from.
    pub trusted_proxies: TrustedProxies,
}

/// The answer of `/.well-known/matrix/support`; empty: somebody else's.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Support {
    /// Whom to write to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<Contact>,
    /// The address of a page.
    #[serde(rename = "support_page", skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// Somebody to write to.
#[derive(Clone, Debug, Serialize)]
pub struct Contact {
    /// A user ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix_id: Option<String>,
    /// An e-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_address: Option<String>,
    /// `m.role.admin` or `m.role.security`.
    pub role: &'static str,
}

/// What the rooms of the server's notices look like.
#[derive(Clone, Debug)]
pub struct Notices {
    /// Localpart of who sends them, which nobody may register.
    pub sender: String,
    /// What the sender is called.
    pub sender_name: String,
    /// What the rooms are called.
    pub room_name: String,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            sender: "_server".to_owned(),
            sender_name: "Server Notices".to_owned(),
            room_name: "Server Notices".to_owned(),
        }
    }
}

impl ClientApiSettings {
    /// The defaults of a server with this name.
    pub fn new(server_name: OwnedServerName) -> Self {
        Self {
            server_name,
            public_base_url: None,
            federation_address: None,
            support: Support::default(),
            notices: Notices::default(),
            default_room_version: RoomVersion::DEFAULT,
            max_body_bytes: 256 * 1024,
            body_deadline: Duration::from_secs(60),
            json_depth: 64,
            query_access_token: false,
            compress: true,
            delays: DelayLimits::default(),
            rate_limits: None,
            trusted_proxies: TrustedProxies::default(),
        }
    }
}
