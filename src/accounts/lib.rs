//! Accounts: who may speak to this server, with which device, and what it keeps for them.
//!
//! The problem: every request asks "whose token is this?", so the answer must cost next to nothing,
//! and yet a token that was taken away must stop working at that moment; passwords must cost an
//! attacker a lot, and yet eight people who register must not delay anybody's message.
//!
//! The answers. A user's rows live in one lane and each use-case is one batch in it; access tokens
//! live in their own lanes and travel in the outbox. The row of the user carries a generation, which
//! grows when a device gets a token, so that whoever removes all tokens cannot miss one. Tokens are
//! cached after the first look-up, and the commit that takes one away empties its place in the cache
//! before anybody is told (see `sessions`). Argon2 runs on its own threads behind a short queue (see
//! `pool`).
//!
//! Nothing here knows HTTP or error codes: errors say what the caller can do.

mod account_data;
mod carry;
mod devices;
mod erase;
mod error;
mod filters;
mod guests;
mod lifecycle;
mod login;
mod login_tokens;
mod moderation;
mod names;
mod notices;
mod openid;
mod password;
mod pool;
mod presence;
mod profile;
mod push_rules;
mod pushers;
mod refresh;
mod register;
mod registration_tokens;
mod reports;
mod screening;
mod services;
mod session_watch;
mod sessions;
mod shared_secret;
mod tags;
mod terms;
mod token;
mod uia;
mod write;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hearth_base::{Clock, Random, Secret};
use hearth_schema::{Ids, UserNid};
use hearth_store::{Store, StoreError, View};
use ruma_common::{OwnedServerName, UserId};

pub use account_data::{
    AccountDataError, AccountDataItem, MAX_ACCOUNT_DATA_BYTES, MAX_ACCOUNT_DATA_ENTRIES, NewAccountData,
    account_data_of_room, account_data_since, all_account_data,
};
pub use devices::{DeviceError, DeviceInfo, MAX_DEVICES};
pub use error::StorageError;
pub use filters::{FilterError, MAX_FILTER_BYTES, MAX_FILTERS};
pub use lifecycle::{AccountInfo, Admin, ChangePasswordError, DeactivateError, Erase, LogoutDevices};
pub use login::{LoggedIn, LoginError};
pub use login_tokens::{LoginTokenError, MAX_LOGIN_TOKENS};
pub use moderation::{AdminError, Measure, Standing};
pub use openid::OPENID_LIFETIME;
pub use password::Argon2Cost;
pub use presence::{
    Connected, ForeignPresence, MAX_STATUS_BYTES, Presence, PresenceMode, PresenceState, Sight, StatusTooLong,
};
pub use profile::{
    MAX_AVATAR_URL_BYTES, MAX_DISPLAYNAME_CHARS, MAX_PROFILE_BYTES, Profile, ProfileChange, ProfileError,
};
pub use push_rules::push_rules;
pub use pushers::{MAX_PUSHERS, NewPusher, PusherError, PusherInfo, Sharing};
pub use refresh::RefreshError;
pub use register::{DeviceRequest, NewAccount, Refreshable, RegisterError, Registered, Session};
pub use registration_tokens::{NewRegistrationToken, RegistrationTokenError, RegistrationTokenInfo};
pub use reports::{MAX_REASON_BYTES, MAX_REPORTS, ReportError, ReportInfo, Reported};
pub use screening::{InviteVerdict, KnownScreening, Screening};
pub use services::{
    Acting, ActingError, Claim, Client, MAX_SERVICES, Namespaces, PutDevice, RateLimit, RegistrationError, Service,
    ServiceLoginError, Services, ServicesError,
};
pub use session_watch::{SessionEnd, SessionWatch};
pub use sessions::{Requester, TokenState};
pub use shared_secret::{SharedSecretError, SharedSecretRequest};
pub use tags::MAX_TAGS;
pub use terms::Policy;
pub use uia::{
    RequestDigest, Stage, StageData, StageFailure, UiaAttempt, UiaChallenge, UiaComplete, UiaError, UiaOperation,
    UiaOutcome, UiaRequest,
};

use pool::HashPool;
use screening::ScreeningCache;
use services::ServiceTable;
use sessions::SessionCache;
use shared_secret::Nonces;
use uia::UiaSessions;

/// Who may make an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Anybody.
    Open,
    /// Whoever has a registration token.
    Token,
    /// Nobody.
    Closed,
}

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct AccountsSettings {
    /// What one password hash costs. Older hashes are made anew at the next log-in.
    pub argon2: Argon2Cost,
    /// Threads that hash passwords; each takes `argon2.memory_kib` while it works.
    pub hash_workers: usize,
    /// How many passwords may wait for a thread; more are refused as busy.
    pub hash_queue: usize,
    /// Who may make an account.
    pub registration: Registration,
    /// Characters a new password must have.
    pub min_password_chars: usize,
    /// Localparts that nobody may register.
    pub reserved_localparts: BTreeSet<String>,
    /// Application services.
    pub services: Services,
    /// User IDs of administrators, beside those whose account says so.
    pub admins: BTreeSet<String>,
    /// Whether there are guests.
    pub guests: bool,
    /// Policies that whoever registers has to accept.
    pub policies: Vec<Policy>,
    /// Who knows it can register anybody, of at least 8 bytes; `None`: nobody can.
    pub shared_secret: Option<Secret<String>>,
    /// How long a token works that logs in once; `None`: there are none.
    pub login_token_lifetime: Option<Duration>,
    /// How long an access token works that comes with a refresh token.
    pub access_token_lifetime: Duration,
    /// How many access tokens are kept in memory (about 300 bytes each).
    pub cached_tokens: u64,
    /// How many user-interactive authentications may be under way.
    pub uia_sessions: usize,
    /// Whether there is presence. The default is that of a server without a configuration: off.
    pub presence: PresenceMode,
}

impl Default for AccountsSettings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            argon2: Argon2Cost::default(),
            hash_workers: (cores / 2).clamp(1, 4),
            hash_queue: 64,
            registration: Registration::Closed,
            min_password_chars: 8,
            reserved_localparts: BTreeSet::new(),
            services: Services::default(),
            admins: BTreeSet::new(),
            guests: false,
            policies: Vec::new(),
            shared_secret: None,
            login_token_lifetime: None,
            access_token_lifetime: Duration::from_secs(300),
            cached_tokens: 20_000,
            uia_sessions: 10_000,
            presence: PresenceMode::Off,
        }
    }
}

/// What [`Accounts`] is built from.
pub struct AccountsParts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Numbers for names.
    pub ids: Ids,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Tokens, salts and names.
    pub random: Arc<dyn Random>,
    /// The server part of local users' IDs.
    pub server_name: OwnedServerName,
    /// What the operator decides.
    pub settings: AccountsSettings,
}

/// All use-cases of accounts. One per server, shared by `Arc`.
pub struct Accounts {
    store: Arc<dyn Store>,
    ids: Ids,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    server_name: OwnedServerName,
    settings: AccountsSettings,
    pool: HashPool,
    sessions: Arc<SessionCache>,
    services: ServiceTable,
    uia: UiaSessions,
    screenings: Arc<ScreeningCache>,
    presence: Presence,
    nonces: Nonces,
}

impl Accounts {
    /// Starts the threads that hash passwords; they end when the value is dropped.
    ///
    /// # Errors
    /// If the threads cannot be started or the costs of Argon2 are outside its limits.
    pub fn new(parts: AccountsParts) -> Result<Self, StartError> {
        let AccountsParts { store, ids, clock, random, server_name, settings } = parts;
        if settings.shared_secret.as_ref().is_some_and(|secret| !shared_secret::is_secret(secret)) {
            return Err(StartError::ShortSecret);
        }
        Ok(Self {
            pool: HashPool::start(settings.argon2, settings.hash_workers, settings.hash_queue)?,
            sessions: Arc::new(SessionCache::new(settings.cached_tokens)),
            services: ServiceTable::new(settings.services.clone(), &ids),
            uia: UiaSessions::new(settings.uia_sessions),
            screenings: Arc::new(ScreeningCache::new()),
            presence: Presence::new(settings.presence, Arc::clone(&store), Arc::clone(&clock)),
            nonces: Nonces::default(),
            store,
            ids,
            clock,
            random,
            server_name,
            settings,
        })
    }

    /// Who is online.
    pub const fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Who may make an account.
    pub const fn registration(&self) -> Registration {
        self.settings.registration
    }

    /// Whether `user` would have its account here.
    pub fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.server_name
    }

    /// The number of a user.
    pub fn user_nid(&self, user: &UserId) -> UserNid {
        self.ids.user(user)
    }

    /// How many times Argon2 has run, for metrics.
    pub fn password_hashes(&self) -> u64 {
        self.pool.runs()
    }

    async fn view(&self) -> Result<View, StoreError> {
        View::latest(&*self.store).await
    }
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Why [`Accounts::new`] failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Argon2 does not accept these costs.
    #[error("the costs of Argon2 are outside its limits: {0}")]
    Argon2(argon2::Error),
    /// The shared secret for registration is too short.
    #[error("the shared secret for registration must have at least 8 characters")]
    ShortSecret,
    /// The operating system gave no thread.
    #[error("no thread for hashing passwords: {0}")]
    Thread(#[from] std::io::Error),
}
