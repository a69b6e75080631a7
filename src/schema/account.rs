//! Rows of accounts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stored;

/// A local account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The full user ID.
    pub user_id: String,
    /// Argon2id in PHC form; `None`: no password log-in.
    pub password_hash: Option<String>,
    /// Milliseconds since the epoch.
    pub created_at: u64,
    /// May not log in again; its tokens are gone.
    pub deactivated: bool,
    /// May use administrative endpoints.
    pub admin: bool,
    /// Number of the next stored filter.
    pub next_filter: u32,
    /// How many rows of `AccountData` count against the user's limit.
    pub account_data: u32,
    /// Grows with every change of this row, and when a device gets a token: whoever removes all
    /// tokens checks it, so that none appears meanwhile.
    pub generation: u64,
}

/// What others see of a local user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Display name.
    pub displayname: Option<String>,
    /// `mxc:` URI.
    pub avatar_url: Option<String>,
    /// Other fields by name, each with its value as JSON.
    pub fields: BTreeMap<String, String>,
}

/// A device of a local user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What its user calls it.
    pub display_name: Option<String>,
    /// Key of its row in `AccessTokens`, so that a log-out finds it.
    pub token: Option<crate::TokenKey>,
    /// Milliseconds since the epoch.
    pub created_at: u64,
}

/// Who an access token speaks for. The key is a keyed hash of the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// The full user ID.
    pub user_id: String,
    /// The device.
    pub device_id: String,
}

/// A token that permits registering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationToken {
    /// How often it may be used; `None`: without limit.
    pub uses_allowed: Option<u32>,
    /// How often it has been used.
    pub used: u32,
    /// Milliseconds since the epoch.
    pub expires_at: Option<u64>,
}

/// A stored filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// As the client sent it.
    pub json: String,
}

/// Where a local alias points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRow {
    /// The alias itself.
    pub alias: String,
    /// The room's ID.
    pub room_id: String,
    /// Who made it.
    pub creator: String,
}

stored! {
    User = 1;
    Profile = 1;
    Device = 1;
    AccessToken = 1;
    RegistrationToken = 1;
    Filter = 1;
    AliasRow = 1;
}
