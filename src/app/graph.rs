//! Everybody's constructor, in order: store, ids, rooms, accounts, consumers, sync, API.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hearth_accounts::{
    Accounts, AccountsParts, AccountsSettings, Argon2Cost, NewRegistrationToken, Policy, PresenceMode, RegisterError,
    Registration, RegistrationTokenError,
};
use hearth_base::{Clock, Random, Supervisor, SystemClock, SystemRandom};
use hearth_client_api::{ClientApi, ClientApiSettings, Contact, Notices, RateLimits, Support, TrustedProxies};
use hearth_event::{RoomVersion, SigningKey};
use hearth_fanout::{Departures, Follower, Followups, Unread};
use hearth_rooms::{DelayLimits, RoomSettings, Rooms, RoomsParts};
use hearth_schema::Ids;
use hearth_settings::{PolicyText, RegistrationMode, SecretFile, Settings, TokenPlace, TrustedProxy};
use hearth_store::Store;
use hearth_store_rocks::RocksStore;
use hearth_sync::{Incarnation, Sync, SyncParts, SyncSettings};
use ruma_common::OwnedServerName;
use tokio_util::sync::CancellationToken;

use crate::exit::{Code, Failure};
use crate::{federation, services};

/// How long rooms may take to finish what they were given.
const ROOMS_PATIENCE: Duration = Duration::from_secs(1);
/// Where so many have to be told of what was said last, the next is worth a second worker at once.
const CROWD: usize = 8;
/// Registration tokens that are read from a file at the most.
const MAX_TOKENS: usize = 10_000;

/// All services of a running server.
pub(crate) struct Graph {
    /// What clients reach.
    pub(crate) router: Router,
    rooms: Rooms,
    rooms_stopping: CancellationToken,
}

/// What every service is built from.
struct Ground {
    store: Arc<dyn Store>,
    ids: Ids,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    server_name: OwnedServerName,
    room_version: RoomVersion,
}

impl Graph {
    /// Builds all services. Those that run by themselves belong to `tasks`; requests and long polls
    /// end when `requests` stops.
    pub(crate) async fn build(
        settings: &Settings,
        store: &Arc<RocksStore>,
        signing_key: SigningKey,
        requests: &Supervisor,
        tasks: &Supervisor,
    ) -> Result<Self, Failure> {
        let ground = Ground::new(settings, store)?;
        // Not the requests' token: a room has to finish what requests have asked of it.
        let rooms_stopping = CancellationToken::new();
        let signing_key = Arc::new(signing_key);
        let peers = federation::peers(settings, ground.federation(&signing_key, requests))?;
        let rooms = Rooms::new(RoomsParts {
            store: ground.store.clone(),
            ids: ground.ids.clone(),
            clock: ground.clock.clone(),
            random: ground.random.clone(),
            server_name: ground.server_name.clone(),
            signing_key: signing_key.clone(),
            settings: RoomSettings { default_version: ground.room_version },
            remote: Arc::new(peers.clone()),
            shutdown: rooms_stopping.clone(),
        });
        let accounts = Arc::new(ground.accounts(settings)?);
        add_registration_tokens(settings, &accounts).await?;
        make_senders(&accounts).await?;
        let unread = Follower::new(ground.store.clone(), Unread::new(rooms.clone(), ground.server_name.clone()));
        let (sync, notifier) = Sync::new(SyncParts {
            rooms: rooms.clone(),
            accounts: accounts.clone(),
            clock: ground.clock.clone(),
            server_name: ground.server_name.clone(),
            incarnation: Incarnation::default(),
            counted: unread.progress(),
            settings: SyncSettings { max_timeout: settings.limits.sync_timeout, ..SyncSettings::default() },
            shutdown: requests.stopping(),
        });
        tasks.spawn("outcomes of the store", bring_outcomes(store.clone(), sync.clone(), tasks.stopping()));
        tasks.spawn("unread", unread.run(tasks.stopping()));
        let followups = Followups::new(rooms.clone(), accounts.clone(), ground.server_name.clone());
        tasks.spawn("followups", Follower::new(ground.store.clone(), followups).run(tasks.stopping()));
        let departures = Departures::new(rooms.clone(), accounts.clone());
        tasks.spawn("departures", Follower::new(ground.store.clone(), departures).run(tasks.stopping()));
        tasks.spawn("notifier", notifier);
        // With the requests: what it sends is asked of the rooms, which go on until these have ended.
        requests.spawn("delayed events", rooms.clone().run_delayed(requests.stopping()));
        let servers = if settings.federation.enabled {
            let running = federation::Running {
                rooms: rooms.clone(),
                accounts: accounts.clone(),
                peers: peers.clone(),
                ground: ground.federation(&signing_key, requests),
            };
            federation::start(settings, running, requests, tasks).await?
        } else {
            Router::new()
        };
        let router = hearth_client_api::router(ClientApi {
            rooms: rooms.clone(),
            accounts,
            sync,
            elsewhere: Arc::new(peers.clone()),
            clock: ground.clock.clone(),
            settings: Arc::new(ground.client_api(settings)),
            shutdown: requests.stopping(),
        })
        .merge(servers);
        Ok(Self { router, rooms, rooms_stopping })
    }

    /// Starts what makes other servers turn to this one, which can be reached now.
    pub(crate) fn reachable(&self, settings: &Settings, requests: &Supervisor) {
        if settings.federation.enabled {
            requests.spawn("what was missed", self.rooms.clone().run_catching_up(requests.stopping()));
            requests.spawn("gaps", self.rooms.clone().run_healing(requests.stopping()));
        }
    }

    /// Ends the rooms' tasks, after what they were given. Nobody may ask anything of them any more.
    pub(crate) async fn stop(self) {
        self.rooms_stopping.cancel();
        if tokio::time::timeout(ROOMS_PATIENCE, self.rooms.join()).await.is_err() {
            tracing::warn!("rooms were cut off");
        }
    }
}

/// Brings what the store has committed to who waits for it.
async fn bring_outcomes(store: Arc<RocksStore>, sync: Sync, stopping: CancellationToken) {
    let quiet = move || sync.concerned() < CROWD;
    tokio::select! {
        () = stopping.cancelled() => {}
        Err(error) = store.bring_outcomes(quiet) => {
            tracing::warn!(%error, "no pipe for the store's outcomes: each takes a little more");
        }
    }
}

impl Ground {
    fn new(settings: &Settings, store: &Arc<RocksStore>) -> Result<Self, Failure> {
        let (server_name, room_version) = names(settings)?;
        Ok(Self {
            store: store.clone(),
            ids: Ids::new(store.store_key()),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            server_name,
            room_version,
        })
    }

    fn federation(&self, signing_key: &Arc<SigningKey>, requests: &Supervisor) -> federation::Ground {
        federation::Ground {
            server_name: self.server_name.clone(),
            signing_key: Arc::clone(signing_key),
            store: self.store.clone(),
            ids: self.ids.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            shutdown: requests.stopping(),
        }
    }

    fn client_api(&self, settings: &Settings) -> ClientApiSettings {
        ClientApiSettings {
            public_base_url: settings.server.public_base_url.clone(),
            federation_address: settings.server.federation_address.clone(),
            support: support(settings),
            notices: Notices {
                sender: settings.server_notices.sender.clone(),
                sender_name: settings.server_notices.sender_name.clone(),
                room_name: settings.server_notices.room_name.clone(),
            },
            default_room_version: self.room_version,
            max_body_bytes: settings.limits.request_body.as_usize(),
            body_deadline: settings.limits.body_deadline,
            json_depth: settings.limits.json_depth as usize,
            query_access_token: settings.accounts.access_token_in == TokenPlace::HeaderOrQuery,
            compress: settings.listen.compress,
            delays: delays(settings),
            rate_limits: rate_limits(settings),
            trusted_proxies: trusted_proxies(settings),
            ..ClientApiSettings::new(self.server_name.clone())
        }
    }

    fn accounts(&self, settings: &Settings) -> Result<Accounts, Failure> {
        let chosen = &settings.accounts;
        let argon2 = Argon2Cost {
            memory_kib: u32::try_from(chosen.argon2_memory.get() / 1024).unwrap_or(u32::MAX),
            iterations: chosen.argon2_iterations,
            parallelism: chosen.argon2_parallelism,
        };
        let secret_file = settings.registration.shared_secret_file.as_ref();
        let shared_secret = secret_file.map(SecretFile::load).transpose();
        let shared_secret = shared_secret.map_err(|error| Failure::new(Code::Unusable, error))?;
        Accounts::new(AccountsParts {
            store: self.store.clone(),
            ids: self.ids.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            server_name: self.server_name.clone(),
            settings: AccountsSettings {
                argon2,
                hash_workers: chosen.hash_workers as usize,
                hash_queue: chosen.hash_queue as usize,
                min_password_chars: chosen.min_password_length as usize,
                registration: match settings.registration.mode {
                    RegistrationMode::Open => Registration::Open,
                    RegistrationMode::Token => Registration::Token,
                    RegistrationMode::Closed => Registration::Closed,
                },
                // Also when it is a name that anybody could register: the server speaks by it.
                reserved_localparts: BTreeSet::from([settings.server_notices.sender.clone()]),
                services: services::load(settings, &self.server_name)?,
                admins: chosen.admins.iter().cloned().collect(),
                guests: settings.registration.guests,
                policies: settings.registration.policies.iter().map(policy).collect(),
                shared_secret,
                login_token_lifetime: chosen.login_token_lifetime,
                access_token_lifetime: chosen.access_token_lifetime,
                presence: if settings.presence.enabled { PresenceMode::On } else { PresenceMode::Off },
                ..AccountsSettings::default()
            },
        })
        .map_err(|error| Failure::new(Code::Unusable, error))
    }
}

fn delays(settings: &Settings) -> DelayLimits {
    let max_scheduled = settings.rooms.max_delayed_events as usize;
    match settings.rooms.max_event_delay {
        Some(max_delay) => DelayLimits { max_delay, max_scheduled },
        None => DelayLimits { max_delay: Duration::ZERO, max_scheduled: 0 },
    }
}

fn policy(text: &PolicyText) -> Policy {
    Policy {
        id: text.id.clone(),
        version: text.version.clone(),
        language: text.language.clone(),
        url: text.url.clone(),
        name: text.name.clone(),
    }
}

fn support(settings: &Settings) -> Support {
    let chosen = &settings.support;
    let contact = |role, matrix_id: &Option<String>, email_address: &Option<String>| {
        let any = matrix_id.is_some() || email_address.is_some();
        any.then(|| Contact { matrix_id: matrix_id.clone(), email_address: email_address.clone(), role })
    };
    let contacts = [
        contact("m.role.admin", &chosen.admin_user, &chosen.admin_email),
        contact("m.role.security", &chosen.security_user, &chosen.security_email),
    ];
    Support { contacts: contacts.into_iter().flatten().collect(), page: chosen.page.clone() }
}

fn rate_limits(settings: &Settings) -> Option<RateLimits> {
    let chosen = &settings.rate_limits;
    chosen.enabled.then_some(RateLimits {
        login: chosen.login,
        failed_login_account: chosen.failed_login_account,
        failed_login_address: chosen.failed_login_address,
        registration: chosen.registration,
        lookup: chosen.lookup,
        sending: chosen.sending,
        joins: chosen.joins,
        invites: chosen.invites,
        reports: chosen.reports,
        user: chosen.user,
        address: chosen.address,
    })
}

/// Who is believed about whose request it passes on.
pub(crate) fn trusted_proxies(settings: &Settings) -> TrustedProxies {
    let mut proxies = TrustedProxies::default();
    for proxy in &settings.listen.trusted_proxies {
        match proxy {
            TrustedProxy::Unix => proxies.local = true,
            TrustedProxy::Network(network) => proxies.networks.push(*network),
        }
    }
    proxies
}

/// What settings only name: this server and the version of new rooms.
pub(crate) fn names(settings: &Settings) -> Result<(OwnedServerName, RoomVersion), Failure> {
    let unusable = |message: String| Failure::new(Code::Unusable, message);
    let server_name = OwnedServerName::try_from(settings.server.name.as_str())
        .map_err(|error| unusable(format!("server.name \"{}\": {error}", settings.server.name)))?;
    let version = &settings.rooms.default_version;
    let room_version = RoomVersion::parse(version)
        .ok_or_else(|| unusable(format!("rooms.default_version: there is no room version \"{version}\"")))?;
    Ok((server_name, room_version))
}

/// Accounts without a server around them, for commands.
pub(crate) fn accounts_only(settings: &Settings, store: &Arc<RocksStore>) -> Result<Accounts, Failure> {
    Ground::new(settings, store)?.accounts(settings)
}

/// Makes the accounts that application services act as by default.
async fn make_senders(accounts: &Accounts) -> Result<(), Failure> {
    accounts.make_senders().await.map_err(|error| match error {
        RegisterError::Storage(error) => Failure::new(Code::Io, error),
        error => Failure::new(
            Code::Unusable,
            format!("application_services.registrations: a \"sender_localpart\" cannot be used: {error}"),
        ),
    })
}

/// Adds the tokens of `registration.tokens_file` that the store does not have.
async fn add_registration_tokens(settings: &Settings, accounts: &Accounts) -> Result<(), Failure> {
    let Some(file) = &settings.registration.tokens_file else { return Ok(()) };
    let text = file.load().map_err(|error| Failure::new(Code::Unusable, error))?;
    let lines = text.expose().lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    for (number, token) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).take(MAX_TOKENS) {
        let wish = NewRegistrationToken { token: Some(token.to_owned()), ..NewRegistrationToken::default() };
        match accounts.create_registration_token(wish).await {
            Ok(_) | Err(RegistrationTokenError::Exists) => {}
            Err(RegistrationTokenError::InvalidToken) => {
                // The token is a secret, also a wrong one: its line is enough.
                let message =
                    format!("registration.tokens_file, line {number}: {}", RegistrationTokenError::InvalidToken);
                return Err(Failure::new(Code::Unusable, message));
            }
            Err(RegistrationTokenError::Storage(error)) => return Err(Failure::new(Code::Io, error)),
        }
    }
    Ok(())
}
