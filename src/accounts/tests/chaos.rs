//! The use-cases on a store that refuses, loses answers and lets snapshots expire.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_store::chaos::ChaosStore;
use hearth_store::memory::MemoryStore;
use hearth_store::{Pos, StoreError};

use crate::testing::*;
use crate::{
    AccountDataError, AccountsSettings, LoginError, NewAccountData, NewRegistrationToken, RegisterError, Registration,
    StorageError,
};

const SEEDS: u64 = 20;

/// Repeats a use-case as a client would after "try again".
async fn stubborn<T, E, F: Future<Output = Result<T, E>>>(
    mut act: impl FnMut() -> F,
    again: impl Fn(&E) -> bool,
) -> Result<T, E> {
    loop {
        match act().await {
            Err(error) if again(&error) => {}
            result => return result,
        }
    }
}

fn passes(error: &StorageError) -> bool {
    matches!(error, StorageError::Contended | StorageError::Store(StoreError::SnapshotExpired))
}

async fn works(world: &World, token: &str) -> bool {
    let again = |error: &StoreError| matches!(error, StoreError::SnapshotExpired);
    stubborn(|| world.accounts.authenticate(token), again).await.unwrap().is_some()
}

async fn run(seed: u64) {
    let store = Arc::new(ChaosStore::new(MemoryStore::new(), seed));
    let settings = AccountsSettings { registration: Registration::Token, ..settings() };
    let world = Arc::new(world_on(store, settings, seed));
    let wish = NewRegistrationToken { token: Some("ten".into()), uses_allowed: Some(10), expires_at: None };
    let made = stubborn(
        || world.accounts.create_registration_token(wish.clone()),
        |error| matches!(error, crate::RegistrationTokenError::Storage(error) if passes(error)),
    );
    assert!(matches!(made.await, Ok(_) | Err(crate::RegistrationTokenError::Exists)));
    let tasks: Vec<_> = (0..6).map(|n| tokio::spawn(one_user(Arc::clone(&world), n))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Two tasks share each name: one of them gets it, the other one is told so.
async fn one_user(world: Arc<World>, n: u32) {
    let name = format!("user{}", n / 2);
    let account =
        || crate::NewAccount { registration_token: Some("ten".into()), inhibit_login: true, ..new_account(&name) };
    let again = |error: &RegisterError| matches!(error, RegisterError::Storage(error) if passes(error));
    let registered = stubborn(|| world.accounts.register(account()), again).await;
    assert!(matches!(registered, Ok(_) | Err(RegisterError::UserInUse | RegisterError::InvalidToken)));
    if registered.is_err() {
        return;
    }
    let user = world.accounts.user_nid(&registered.unwrap().user_id);
    let again = |error: &LoginError| matches!(error, LoginError::Storage(error) if passes(error));
    let mut tokens = BTreeMap::new();
    for round in 0..6 {
        let device = format!("D{}", round % 3);
        let session = stubborn(|| world.login(&name, &device), again).await.unwrap().session;
        tokens.insert(device, session.access_token.expose().clone());
        set_data(&world, user, round).await;
    }
    for token in tokens.values() {
        assert!(works(&world, token).await);
    }
    let expired = |error: &StoreError| matches!(error, StoreError::SnapshotExpired);
    let devices = stubborn(|| world.accounts.devices(user), expired).await.unwrap();
    let ids: Vec<_> = devices.iter().map(|device| device.device_id.as_str()).collect();
    assert_eq!(ids, ["D0", "D1", "D2"]);
    let since = stubborn(|| world.accounts.account_data_since(user, Pos::ZERO, Pos::MAX), expired).await.unwrap();
    let found: Vec<_> = since.iter().map(|item| (item.kind.as_str(), item.json.as_str())).collect();
    assert_eq!(found, [("t0", "4"), ("t1", "5")], "one log row an item, the newest");
    stubborn(|| world.accounts.logout_all(user), passes).await.unwrap();
    for token in tokens.values() {
        assert!(!works(&world, token).await);
    }
}

async fn set_data(world: &World, user: hearth_schema::UserNid, round: u32) {
    let data = || NewAccountData { room: None, kind: format!("t{}", round % 2), json: round.to_string() };
    let again = |error: &AccountDataError| matches!(error, AccountDataError::Storage(error) if passes(error));
    stubborn(|| world.accounts.set_account_data(user, data()), again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_holds_on_a_bad_day() {
    for seed in 0..SEEDS {
        run(seed).await;
    }
}
