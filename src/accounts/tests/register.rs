//! Making accounts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hearth_base::Clock;

use crate::testing::*;
use crate::{
    AccountsSettings, NewAccount, NewRegistrationToken, RegisterError, Registration, RegistrationTokenError, Requester,
    Standing,
};

fn by_token(token: &str, localpart: &str) -> NewAccount {
    NewAccount { registration_token: Some(token.into()), ..new_account(localpart) }
}

fn token_world() -> World {
    world_with(AccountsSettings { registration: Registration::Token, ..settings() })
}

#[tokio::test]
async fn a_new_account_is_logged_in_on_the_device_it_asked_for() {
    let world = world();
    let account = NewAccount { device: on_device("PHONE"), ..new_account("Ann") };
    let registered = world.accounts.register(account).await.unwrap();
    let session = registered.session.unwrap();
    assert_eq!(registered.user_id, "@ann:hs.test");
    let requester = world.accounts.authenticate(session.access_token.expose()).await.unwrap().unwrap();
    let user = world.accounts.user_nid(&registered.user_id);
    let expected = Requester {
        user_id: registered.user_id,
        user,
        client: "PHONE".into(),
        token: requester.token,
        standing: Standing::default(),
    };
    assert_eq!(requester, expected);
    let info = world.accounts.account(user).await.unwrap().unwrap();
    assert_eq!((info.created_at, info.admin, info.deactivated), (world.clock.now(), false, false));
}

#[tokio::test]
async fn an_account_without_session_has_no_device() {
    let world = world();
    let account = NewAccount { inhibit_login: true, ..new_account("ann") };
    let registered = world.accounts.register(account).await.unwrap();
    assert!(registered.session.is_none());
    let user = world.accounts.user_nid(&registered.user_id);
    assert_eq!(world.accounts.devices(user).await.unwrap(), []);
}

#[tokio::test]
async fn the_server_chooses_a_name_if_asked_to() {
    let world = world();
    let names: BTreeSet<_> =
        futures_all((0..20).map(|_| world.accounts.register(NewAccount { localpart: None, ..new_account("x") })))
            .await
            .into_iter()
            .map(|registered| registered.unwrap().user_id)
            .collect();
    assert_eq!(names.len(), 20);
}

#[tokio::test]
async fn a_name_is_taken_once_and_for_all() {
    let world = world();
    world.register("ann").await.unwrap();
    assert!(matches!(world.register("ann").await, Err(RegisterError::UserInUse)));
    assert!(matches!(world.register("ANN").await, Err(RegisterError::UserInUse)));
    assert!(matches!(world.accounts.is_available("Ann").await, Err(RegisterError::UserInUse)));
    assert!(world.accounts.is_available("bob").await.is_ok());
    let runs = world.accounts.password_hashes();
    assert_eq!(runs, 1, "a taken name costs no Argon2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_want_a_name_at_once_one_gets_it() {
    let world = Arc::new(world());
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let account = NewAccount { device: on_device(&format!("D{n}")), ..new_account("ann") };
                world.accounts.register(account).await
            })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(registered) => winners.push(registered),
            Err(error) => assert!(matches!(error, RegisterError::UserInUse), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    let winner = winners.remove(0);
    let devices = world.accounts.devices(world.accounts.user_nid(&winner.user_id)).await.unwrap();
    assert_eq!(devices.len(), 1, "the losers leave nothing behind");
    assert_eq!(devices[0].device_id, winner.session.unwrap().device_id);
}

#[tokio::test]
async fn names_and_devices_that_break_the_rules_are_refused_before_any_work() {
    let world =
        world_with(AccountsSettings { reserved_localparts: BTreeSet::from(["admin".to_owned()]), ..settings() });
    for name in ["", "a b", "_bot", "ü", "a:b", &"a".repeat(300)] {
        assert!(matches!(world.register(name).await, Err(RegisterError::InvalidUsername(_))), "{name}");
        assert!(matches!(world.accounts.is_available(name).await, Err(RegisterError::InvalidUsername(_))), "{name}");
    }
    assert!(matches!(world.register("Admin").await, Err(RegisterError::Exclusive)));
    for password in ["", "short", &"x".repeat(513)] {
        let account = NewAccount { password: Some(secret(password)), ..new_account("ann") };
        assert!(matches!(world.accounts.register(account).await, Err(RegisterError::WeakPassword(_))), "{password}");
    }
    for device in ["", &"x".repeat(256)] {
        let account = NewAccount { device: on_device(device), ..new_account("ann") };
        assert!(matches!(world.accounts.register(account).await, Err(RegisterError::InvalidDevice(_))), "{device}");
    }
    assert_eq!(world.accounts.password_hashes(), 0);
    assert!(world.accounts.is_available("ann").await.is_ok(), "nothing was stored");
}

#[tokio::test]
async fn a_closed_server_takes_nobody() {
    let world = world_with(AccountsSettings { registration: Registration::Closed, ..settings() });
    assert!(matches!(world.register("ann").await, Err(RegisterError::Closed)));
}

#[tokio::test]
async fn a_registration_token_is_worth_as_many_accounts_as_it_says() {
    let world = token_world();
    let wish = NewRegistrationToken { token: Some("invite".into()), uses_allowed: Some(2), expires_at: None };
    assert_eq!(world.accounts.create_registration_token(wish.clone()).await.unwrap(), "invite");
    assert!(matches!(world.accounts.create_registration_token(wish).await, Err(RegistrationTokenError::Exists)));
    assert!(matches!(world.register("ann").await, Err(RegisterError::InvalidToken)));
    assert!(matches!(world.accounts.register(by_token("other", "ann")).await, Err(RegisterError::InvalidToken)));
    world.accounts.register(by_token("invite", "ann")).await.unwrap();
    // Who fails gives the use back.
    assert!(matches!(world.accounts.register(by_token("invite", "ann")).await, Err(RegisterError::UserInUse)));
    world.accounts.register(by_token("invite", "bob")).await.unwrap();
    assert!(matches!(world.accounts.register(by_token("invite", "cyn")).await, Err(RegisterError::InvalidToken)));
    assert!(!world.accounts.registration_token_is_valid("invite").await.unwrap());
    let listed = world.accounts.registration_tokens().await.unwrap();
    assert_eq!(listed.iter().map(|token| (token.used, token.uses_allowed)).collect::<Vec<_>>(), [(2, Some(2))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_do_not_make_more_accounts_than_a_token_allows() {
    let world = Arc::new(token_world());
    let wish = NewRegistrationToken { token: Some("five".into()), uses_allowed: Some(5), expires_at: None };
    world.accounts.create_registration_token(wish).await.unwrap();
    let tasks: Vec<_> = (0..12)
        .map(|n| {
            let world = Arc::clone(&world);
            // Every second one wants a name that another one has.
            let name = format!("user{}", n / 2);
            tokio::spawn(async move { world.accounts.register(by_token("five", &name)).await.is_ok() })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += u32::from(task.await.unwrap());
    }
    assert!(made <= 5);
    let listed = world.accounts.registration_tokens().await.unwrap();
    assert_eq!(listed[0].used, made, "every use that made no account was given back");
}

#[tokio::test]
async fn a_registration_token_ends_when_it_says_or_when_it_is_deleted() {
    let world = token_world();
    let end = world.clock.now().plus(Duration::from_secs(60));
    let wish = NewRegistrationToken { token: None, uses_allowed: None, expires_at: Some(end) };
    let token = world.accounts.create_registration_token(wish).await.unwrap();
    assert!(world.accounts.registration_token_is_valid(&token).await.unwrap());
    world.clock.advance(Duration::from_secs(60));
    assert!(!world.accounts.registration_token_is_valid(&token).await.unwrap());

    let token = world.accounts.create_registration_token(NewRegistrationToken::default()).await.unwrap();
    assert_eq!(world.accounts.registration_tokens().await.unwrap().len(), 2);
    assert!(world.accounts.delete_registration_token(&token).await.unwrap());
    assert!(!world.accounts.delete_registration_token(&token).await.unwrap());
    assert!(!world.accounts.registration_token_is_valid(&token).await.unwrap());
}

#[tokio::test]
async fn a_registration_token_follows_the_grammar() {
    let world = token_world();
    for bad in ["", " ", "a b", "ü", "a/b", &"a".repeat(65)] {
        let wish = NewRegistrationToken { token: Some(bad.into()), ..NewRegistrationToken::default() };
        assert!(matches!(
            world.accounts.create_registration_token(wish).await,
            Err(RegistrationTokenError::InvalidToken)
        ));
        assert!(!world.accounts.registration_token_is_valid(bad).await.unwrap());
    }
}

async fn futures_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut results = Vec::new();
    for future in futures {
        results.push(future.await);
    }
    results
}
