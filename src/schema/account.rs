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
    /// How many there are with those of deleted items, which make room for others when there are many.
    pub account_data_rows: u32,
    /// Grows with every change of this row, and when a device gets a token: whoever removes all
    /// tokens checks it, so that none appears meanwhile.
    pub generation: u64,
    /// Whether somebody registered, or only looks around.
    pub kind: AccountKind,
    /// What an administrator has decided.
    pub moderation: Moderation,
    /// What the operator's program called the account when it made it.
    pub user_type: Option<String>,
    /// The version of each policy that the user accepted, by the policy's id.
    pub accepted_terms: BTreeMap<String, String>,
}

/// Who is behind an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountKind {
    /// Somebody who registered.
    #[default]
    User,
    /// Somebody who did not, and may do little.
    Guest,
}

/// What administrators have decided about an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moderation {
    /// May do nothing but log out, until unlocked.
    pub locked: bool,
    /// May read, leave and redact, until unsuspended.
    pub suspended: bool,
}

/// A token that logs in once. Its text is stored nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginToken {
    /// Milliseconds since the epoch.
    pub expires_at: u64,
}

/// The room in which a user gets the server's notices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeRoom {
    /// Its ID.
    pub room_id: String,
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
    /// For a device that asked for refresh tokens: then its access token expires.
    pub refresh: Option<Refresh>,
}

/// How a device's access token is renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// Key of its row in `RefreshFamilies`.
    pub family: crate::TokenKey,
    /// The refresh token to be shown next.
    pub current: crate::TokenKey,
    /// When the access token expires, in milliseconds since the epoch.
    pub expires_at: u64,
    /// The pair of tokens before this one.
    pub spent: Option<SpentRefresh>,
}

/// A refresh token that was shown, and the access token that came with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpentRefresh {
    /// The refresh token.
    pub token: crate::TokenKey,
    /// The access token, until its successor is used for the first time.
    pub access: Option<crate::TokenKey>,
    /// When that expires, in milliseconds since the epoch.
    pub access_expires_at: u64,
    /// When the refresh token was shown, in milliseconds since the epoch.
    pub at: u64,
    /// What its successors were derived with, so that they can be given out again.
    pub nonce: [u8; 32],
}

/// Whose refresh tokens a family is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshFamily {
    /// The full user ID.
    pub user_id: String,
    /// The device.
    pub device_id: String,
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

/// Where and how a user wants to be notified
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pusher {
    /// How: `http`.
    pub kind: String,
    /// What the application calls itself.
    pub app_display_name: String,
    /// What the application calls the device.
    pub device_display_name: String,
    /// Which of the device's own rules it follows.
    pub profile_tag: Option<String>,
    /// The language of its texts.
    pub lang: String,
    /// What the push gateway is told, as JSON, and where the gateway is.
    pub data: String,
    /// The device that set it. It goes with the device.
    pub device_id: String,
    /// When it was first set, in milliseconds since the epoch.
    pub created_at: u64,
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
    User = 2;
    Profile = 1;
    Device = 1;
    AccessToken = 1;
    RefreshFamily = 1;
    RegistrationToken = 1;
    Filter = 1;
    Pusher = 1;
    AliasRow = 1;
    LoginToken = 1;
    NoticeRoom = 1;
}
