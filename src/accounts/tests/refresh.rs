//! Refresh tokens. Row F2 of the attack classes.

use std::sync::Arc;
use std::time::Duration;

use super::gates::{GatedStore, Place};
use crate::testing::*;
use crate::{DeviceRequest, Erase, RefreshError, Session, TokenState};

const LIFETIME: Duration = Duration::from_secs(300);

async fn session(world: &World, user: &str) -> Session {
    world.register(user).await.unwrap();
    let device = DeviceRequest { refresh: true, ..on_device("PHONE") };
    world.accounts.login_password(user, &secret(PASSWORD), device).await.unwrap().session
}

fn access(session: &Session) -> &str {
    session.access_token.expose()
}

fn refresh(session: &Session) -> &str {
    session.refresh.as_ref().unwrap().token.expose()
}

async fn renew(world: &World, token: &str) -> Result<Session, RefreshError> {
    world.accounts.refresh(token).await
}

#[tokio::test]
async fn an_access_token_expires_only_if_it_can_be_refreshed() {
    let world = world();
    let first = session(&world, "ann").await;
    let plain = world.token("ann", "LAPTOP").await;
    assert_eq!(first.refresh.as_ref().unwrap().expires_in, LIFETIME);
    assert!(world.works(access(&first)).await);
    world.clock.advance(Duration::from_millis(299_999));
    assert!(world.works(access(&first)).await);
    world.clock.advance(Duration::from_millis(1));
    for _ in 0..2 {
        assert_eq!(world.accounts.token_state(access(&first)).await.unwrap(), TokenState::Expired);
    }
    assert!(world.works(&plain).await);
    let second = renew(&world, refresh(&first)).await.unwrap();
    assert_eq!(second.device_id, "PHONE");
    assert!(world.works(access(&second)).await);
}

#[tokio::test]
async fn the_old_access_token_ends_with_the_first_use_of_the_new_one() {
    let world = world();
    let first = session(&world, "ann").await;
    assert!(world.works(access(&first)).await);
    let second = renew(&world, refresh(&first)).await.unwrap();
    assert!(world.works(access(&first)).await, "the answer may have been lost");
    assert!(world.works(access(&second)).await);
    assert!(!world.works(access(&first)).await);
    assert!(world.works(access(&second)).await);
}

#[tokio::test]
async fn a_lost_answer_is_given_again() {
    let world = world();
    let first = session(&world, "ann").await;
    let lost = renew(&world, refresh(&first)).await.unwrap();
    world.clock.advance(LIFETIME * 3);
    let again = renew(&world, refresh(&first)).await.unwrap();
    assert_eq!((access(&again), refresh(&again)), (access(&lost), refresh(&lost)));
    assert_eq!(again.refresh.as_ref().unwrap().expires_in, LIFETIME);
    assert!(world.works(access(&again)).await, "its life begins anew");
}

#[tokio::test]
async fn a_second_refresh_within_the_grace_gives_the_same_pair() {
    let world = world();
    let first = session(&world, "ann").await;
    let second = renew(&world, refresh(&first)).await.unwrap();
    assert!(world.works(access(&second)).await);
    world.clock.advance(Duration::from_secs(9));
    let again = renew(&world, refresh(&first)).await.unwrap();
    assert_eq!((access(&again), refresh(&again)), (access(&second), refresh(&second)));
    assert_eq!(again.refresh.as_ref().unwrap().expires_in, Duration::from_secs(291));
    assert!(world.works(access(&second)).await);
}

#[tokio::test]
async fn two_refreshes_at_once_give_the_same_pair() {
    let store = GatedStore::new();
    let world = Arc::new(world_on(Arc::clone(&store) as _, settings(), 1));
    let first = session(&world, "ann").await;
    let gate = store.hold(Place::Commit);
    let slow = tokio::spawn({
        let (world, token) = (Arc::clone(&world), refresh(&first).to_owned());
        async move { renew(&world, &token).await }
    });
    gate.reached().await;
    let quick = renew(&world, refresh(&first)).await.unwrap();
    gate.open();
    let slow = slow.await.unwrap().unwrap();
    assert_eq!((access(&slow), refresh(&slow)), (access(&quick), refresh(&quick)));
}

#[tokio::test]
async fn a_spent_token_shown_again_ends_the_session() {
    let world = world();
    let first = session(&world, "ann").await;
    let second = renew(&world, refresh(&first)).await.unwrap();
    assert!(world.works(access(&second)).await);
    world.clock.advance(Duration::from_secs(10));
    for token in [refresh(&first), refresh(&second)] {
        assert!(matches!(renew(&world, token).await, Err(RefreshError::Spent)));
    }
    assert!(!world.works(access(&second)).await);
    let user = world.accounts.user_nid("@ann:hs.test".try_into().unwrap());
    assert!(world.accounts.device(user, "PHONE".into()).await.unwrap().is_some(), "its keys are worth keeping");
    let device = DeviceRequest { refresh: true, ..on_device("PHONE") };
    let anew = world.accounts.login_password("ann", &secret(PASSWORD), device).await.unwrap().session;
    assert!(matches!(renew(&world, refresh(&second)).await, Err(RefreshError::Unknown)));
    assert!(world.works(access(&anew)).await);
}

#[tokio::test]
async fn a_token_from_long_ago_ends_the_session_too() {
    let world = world();
    let first = session(&world, "ann").await;
    let second = renew(&world, refresh(&first)).await.unwrap();
    let third = renew(&world, refresh(&second)).await.unwrap();
    assert!(!world.works(access(&first)).await, "two refreshes later, used or not");
    assert!(matches!(renew(&world, refresh(&first)).await, Err(RefreshError::Spent)));
    assert!(!world.works(access(&second)).await);
    assert!(!world.works(access(&third)).await);
}

#[tokio::test]
async fn who_is_logged_out_cannot_refresh() {
    let world = world();
    for way in ["logout", "old token", "all", "delete", "deactivate"] {
        let name = way.replace(' ', "");
        let first = session(&world, &name).await;
        let before = world.accounts.authenticate(access(&first)).await.unwrap().unwrap();
        let second = renew(&world, refresh(&first)).await.unwrap();
        match way {
            "logout" => {
                let requester = world.accounts.authenticate(access(&second)).await.unwrap().unwrap();
                world.accounts.logout(&requester).await.unwrap();
            }
            "old token" => world.accounts.logout(&before).await.unwrap(),
            "all" => world.accounts.logout_all(before.user).await.unwrap(),
            "delete" => world.accounts.delete_devices(before.user, &["PHONE".into()]).await.unwrap(),
            _ => world.accounts.deactivate(before.user, Erase::No).await.unwrap(),
        }
        for session in [&first, &second] {
            assert!(!world.works(access(session)).await, "{way}");
            assert!(matches!(renew(&world, refresh(session)).await, Err(RefreshError::Unknown)), "{way}");
        }
    }
}

#[tokio::test]
async fn only_a_whole_refresh_token_refreshes() {
    let world = world();
    let first = session(&world, "ann").await;
    let token = refresh(&first);
    let long = format!("{token}{token}");
    for trick in ["", " ", "\0", "hrr_", &token[..token.len() - 1], &format!("{token} "), &long, access(&first)] {
        assert!(matches!(renew(&world, trick).await, Err(RefreshError::Unknown)), "{trick:?}");
    }
    assert!(!world.works(token).await, "nor is it an access token");
    renew(&world, token).await.unwrap();
}
