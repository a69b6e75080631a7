//! An accounts service on a store in memory, with a clock that stands still.

use std::sync::Arc;

use hearth_base::{FixedClock, Millis, Secret, SeededRandom};
use hearth_schema::Ids;
use hearth_store::Store;
use hearth_store::memory::MemoryStore;
use ruma_common::server_name;
use serde_json::{Value, json};

use crate::{
    Accounts, AccountsParts, AccountsSettings, Argon2Cost, DeviceRequest, LoggedIn, LoginError, NewAccount,
    RegisterError, Registered, Registration, Requester,
};

/// Costs that no test waits for.
pub(crate) const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 };
pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) struct World {
    pub accounts: Arc<Accounts>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<FixedClock>,
}

pub(crate) fn settings() -> AccountsSettings {
    AccountsSettings { argon2: CHEAP, registration: Registration::Open, ..AccountsSettings::default() }
}

pub(crate) fn world() -> World {
    world_with(settings())
}

pub(crate) fn world_with(settings: AccountsSettings) -> World {
    world_on(Arc::new(MemoryStore::new()), settings, 1)
}

pub(crate) fn world_on(store: Arc<dyn Store>, settings: AccountsSettings, seed: u64) -> World {
    let clock = Arc::new(FixedClock::new(Millis(1_700_000_000_000)));
    let parts = AccountsParts {
        store: Arc::clone(&store),
        ids: Ids::new([7; 32]),
        clock: Arc::clone(&clock) as _,
        random: Arc::new(SeededRandom::new(seed)),
        server_name: server_name!("hs.test").to_owned(),
        settings,
    };
    World { accounts: Arc::new(Accounts::new(parts).unwrap()), store, clock }
}

pub(crate) fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

pub(crate) fn on_device(id: &str) -> DeviceRequest {
    DeviceRequest { device_id: Some(id.into()), display_name: Some(format!("{id}'s name")), refresh: false }
}

pub(crate) fn new_account(localpart: &str) -> NewAccount {
    NewAccount { localpart: Some(localpart.into()), password: Some(secret(PASSWORD)), ..NewAccount::default() }
}

impl World {
    pub(crate) async fn register(&self, localpart: &str) -> Result<Registered, RegisterError> {
        self.accounts.register(new_account(localpart)).await
    }

    pub(crate) async fn login(&self, user: &str, device: &str) -> Result<LoggedIn, LoginError> {
        self.accounts.login_password(user, &secret(PASSWORD), on_device(device)).await
    }

    /// Registers and gives the first session.
    pub(crate) async fn user(&self, localpart: &str) -> Requester {
        let token = self.register(localpart).await.unwrap().session.unwrap().access_token;
        self.accounts.authenticate(token.expose()).await.unwrap().expect("a new token works")
    }

    /// A token of a log-in on `device`.
    pub(crate) async fn token(&self, user: &str, device: &str) -> String {
        self.login(user, device).await.unwrap().session.access_token.expose().clone()
    }

    pub(crate) async fn works(&self, token: &str) -> bool {
        self.accounts.authenticate(token).await.unwrap().is_some()
    }
}

/// The registration of a service that has the users `@_ID_…` and the aliases `#_ID_…` alone.
pub(crate) fn service(id: &str) -> Value {
    json!({
        "id": id,
        "url": null,
        "as_token": format!("as-{id}-0123456789"),
        "hs_token": format!("hs-{id}-0123456789"),
        "sender_localpart": format!("{id}-bot"),
        "namespaces": {
            "users": [{"exclusive": true, "regex": format!("@_{id}_.*")}],
            "aliases": [{"exclusive": true, "regex": format!("#_{id}_.*")}],
            "rooms": [],
        },
    })
}
