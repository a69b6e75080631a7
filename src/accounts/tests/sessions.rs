//! Tokens, devices and log-out. Rows F3 and F4 of the attack classes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::testing::*;
use crate::{DeviceError, DeviceInfo, NewRegistrationToken};

#[tokio::test]
async fn only_a_whole_token_opens_the_door() {
    let world = world();
    let token = world.register("ann").await.unwrap().session.unwrap().access_token.expose().clone();
    assert!(world.works(&token).await);
    let (prefix, long) = (&token[..token.len() - 1], format!("{token}{token}"));
    let tricks = ["", " ", "\t\n", "\0", "hrt_", prefix, &format!("{token} "), &format!("{token}\0"), &long, "null"];
    for trick in tricks {
        assert!(!world.works(trick).await, "{trick:?}");
    }
    assert!(!world.works(&"x".repeat(1 << 20)).await);
    // A registration token is hashed alike and must not be taken for an access token.
    world.accounts.create_registration_token(NewRegistrationToken::default()).await.unwrap();
    assert!(!world.works(&crate::token::generate(&hearth_base::SeededRandom::new(99))).await);
}

#[tokio::test]
async fn logging_in_again_on_a_device_replaces_its_token() {
    let world = world();
    world.register("ann").await.unwrap();
    let first = world.token("ann", "PHONE").await;
    assert!(world.works(&first).await);
    let second = world.token("@Ann:hs.test", "PHONE").await;
    assert!(!world.works(&first).await);
    assert!(world.works(&second).await);
    let user = world.accounts.user_nid("@ann:hs.test".try_into().unwrap());
    let phones = world.accounts.devices(user).await.unwrap();
    assert_eq!(phones.iter().filter(|device| device.device_id == "PHONE").count(), 1);
}

#[tokio::test]
async fn a_known_device_keeps_its_name() {
    let world = world();
    let ann = world.user("ann").await;
    world.token("ann", "PHONE").await;
    world.accounts.set_device_name(ann.user, "PHONE".into(), Some("Mine".into())).await.unwrap();
    world.token("ann", "PHONE").await;
    let expected = DeviceInfo { device_id: "PHONE".into(), display_name: Some("Mine".into()) };
    assert_eq!(world.accounts.device(ann.user, "PHONE".into()).await.unwrap(), Some(expected));
}

#[tokio::test]
async fn logging_out_ends_the_session_and_removes_the_device() {
    let world = world();
    let ann = world.user("ann").await;
    let other = world.token("ann", "OTHER").await;
    world.accounts.logout(&ann).await.unwrap();
    assert_eq!(world.accounts.device(ann.user, ann.client.name()).await.unwrap(), None);
    assert!(world.works(&other).await);
    // A second time, as when the answer got lost: no error, and nobody else is logged out.
    world.accounts.logout(&ann).await.unwrap();
    assert!(world.works(&other).await);
}

#[tokio::test]
async fn an_old_session_that_logs_out_leaves_the_new_one_alone() {
    let world = world();
    world.register("ann").await.unwrap();
    let old = world.token("ann", "PHONE").await;
    let old = world.accounts.authenticate(&old).await.unwrap().unwrap();
    let new = world.token("ann", "PHONE").await;
    world.accounts.logout(&old).await.unwrap();
    assert!(world.works(&new).await);
}

#[tokio::test]
async fn logging_out_everywhere_leaves_no_session() {
    let world = world();
    let ann = world.user("ann").await;
    let bob = world.user("bob").await;
    let mut tokens = Vec::new();
    for n in 0..20 {
        tokens.push(world.token("ann", &format!("D{n}")).await);
        assert!(world.works(&tokens[n]).await);
    }
    world.accounts.logout_all(ann.user).await.unwrap();
    for token in tokens {
        assert!(!world.works(&token).await);
    }
    assert_eq!(world.accounts.devices(ann.user).await.unwrap(), []);
    assert_eq!(world.accounts.devices(bob.user).await.unwrap().len(), 1);
}

#[tokio::test]
async fn deleted_devices_are_gone_and_only_they() {
    let world = world();
    let ann = world.user("ann").await;
    let (a, b) = (world.token("ann", "A").await, world.token("ann", "B").await);
    let bob = world.register("bob").await.unwrap();
    assert!(world.works(&a).await);
    world
        .accounts
        .delete_devices(ann.user, &["A".into(), "NONE".into(), bob.session.unwrap().device_id])
        .await
        .unwrap();
    assert!(!world.works(&a).await);
    assert!(world.works(&b).await);
    let bob = world.accounts.user_nid(&bob.user_id);
    assert_eq!(world.accounts.devices(bob).await.unwrap().len(), 1, "another user's device is not touched");
}

#[tokio::test]
async fn a_device_can_be_named() {
    let world = world();
    let ann = world.user("ann").await;
    let name = |name: Option<&str>| {
        let name = name.map(str::to_owned);
        world.accounts.set_device_name(ann.user, ann.client.name(), name)
    };
    name(Some("Phone")).await.unwrap();
    let info = world.accounts.device(ann.user, ann.client.name()).await.unwrap().unwrap();
    assert_eq!(info.display_name.as_deref(), Some("Phone"));
    assert!(matches!(name(Some(&"x".repeat(101))).await, Err(DeviceError::InvalidName(_))));
    name(None).await.unwrap();
    assert_eq!(world.accounts.device(ann.user, ann.client.name()).await.unwrap().unwrap().display_name, None);
    let nothing = world.accounts.set_device_name(ann.user, "NONE".into(), None).await;
    assert!(matches!(nothing, Err(DeviceError::NotFound)));
}

/// A look-up that reads before a log-out and answers after it must not keep the token alive.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_never_works_after_its_log_out_was_answered() {
    let world = Arc::new(world());
    world.register("ann").await.unwrap();
    for round in 0..200 {
        let token = world.token("ann", &format!("D{}", round % 3)).await;
        let requester = world.accounts.authenticate(&token).await.unwrap().unwrap();
        // Empties the cache, so that the readers below have to look the token up.
        world.accounts.sessions.forget(&[requester.token]);
        let out = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (world, out, token) = (Arc::clone(&world), Arc::clone(&out), token.clone());
                tokio::spawn(async move {
                    for _ in 0..50 {
                        let answered = out.load(Ordering::SeqCst);
                        let works = world.works(&token).await;
                        assert!(!(answered && works), "the token works after the log-out");
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        world.accounts.logout(&requester).await.unwrap();
        out.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.await.unwrap();
        }
        assert!(!world.works(&token).await);
    }
}
