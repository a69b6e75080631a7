//! Passwords: log-in, change, cost. Rows F5, F6 and F12 of the attack classes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_base::{FixedClock, Millis, SeededRandom};
use hearth_schema::{ALL, Ids};
use hearth_store::memory::MemoryStore;
use hearth_store::{Order, Range};
use ruma_common::server_name;

use crate::testing::*;
use crate::{
    Accounts, AccountsParts, AccountsSettings, Argon2Cost, ChangePasswordError, DeviceRequest, Erase, LoginError,
    LogoutDevices, NewRegistrationToken,
};

const NEW: &str = "a very different one";

#[tokio::test]
async fn the_right_password_logs_in_by_name_or_id_in_any_case() {
    let world = world();
    world.register("ann").await.unwrap();
    for user in ["ann", "ANN", "@ann:hs.test", "@Ann:hs.test"] {
        let logged_in = world.login(user, "PHONE").await.unwrap();
        assert_eq!(logged_in.user_id, "@ann:hs.test", "{user}");
        assert!(world.works(logged_in.session.access_token.expose()).await);
    }
}

#[tokio::test]
async fn a_log_in_without_device_makes_a_new_one() {
    let world = world();
    let ann = world.user("ann").await;
    let first = world.accounts.login_password("ann", &secret(PASSWORD), DeviceRequest::default()).await.unwrap();
    let second = world.accounts.login_password("ann", &secret(PASSWORD), DeviceRequest::default()).await.unwrap();
    assert_ne!(first.session.device_id, second.session.device_id);
    assert_eq!(first.session.device_id.as_str().len(), 10);
    assert_eq!(world.accounts.devices(ann.user).await.unwrap().len(), 3);
}

#[tokio::test]
async fn wrong_names_and_wrong_passwords_are_refused_alike() {
    let world = world();
    world.register("ann").await.unwrap();
    let passwordless = crate::NewAccount { password: None, ..new_account("bot") };
    world.accounts.register(passwordless).await.unwrap();
    let before = world.accounts.password_hashes();
    let cases = [
        ("ann", "wrong password"),
        ("ann", "correct horse"),
        ("ann", "correct horse battery "),
        ("ann", "correct horse battery\0"),
        ("nobody", PASSWORD),
        ("@ann:other.test", PASSWORD),
        ("@ann", PASSWORD),
        ("", PASSWORD),
        ("bot", PASSWORD),
    ];
    for (user, password) in cases {
        let result = world.accounts.login_password(user, &secret(password), on_device("X")).await;
        assert!(matches!(result, Err(LoginError::Forbidden)), "{user} {password}");
    }
    assert_eq!(world.accounts.password_hashes() - before, cases.len() as u64, "each costs exactly one Argon2");
    for password in ["", &"x".repeat(513)] {
        for user in ["ann", "nobody"] {
            let result = world.accounts.login_password(user, &secret(password), on_device("X")).await;
            assert!(matches!(result, Err(LoginError::Forbidden)));
        }
    }
    assert_eq!(world.accounts.password_hashes() - before, cases.len() as u64, "and these cost nobody any");
}

/// The clock on the wall tells who has an account if the work differs. A busy machine adds noise, so
/// samples alternate, the fastest tenth is compared, and a noisy round may be repeated: a difference
/// in the work shows in every round.
#[tokio::test]
async fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    let cost = Argon2Cost { memory_kib: 4096, iterations: 2, parallelism: 1 };
    let world = world_with(AccountsSettings { argon2: cost, ..settings() });
    world.register("ann").await.unwrap();
    let mut ratios = Vec::new();
    while ratios.len() < 10 {
        let ratio = wrong_password_to_unknown_user(&world).await;
        if (ratio - 1.0).abs() < 0.05 {
            return;
        }
        ratios.push(ratio);
    }
    panic!("time for a wrong password by that for an unknown user: {ratios:?}");
}

async fn wrong_password_to_unknown_user(world: &World) -> f64 {
    let mut samples = [const { Vec::new() }; 2];
    for _ in 0..100 {
        for (user, samples) in ["ann", "nobody"].into_iter().zip(&mut samples) {
            let start = Instant::now();
            let result = world.accounts.login_password(user, &secret("wrong password"), on_device("X")).await;
            samples.push(start.elapsed());
            assert!(matches!(result, Err(LoginError::Forbidden)));
        }
    }
    let [wrong, unknown] = samples.map(|mut samples| {
        samples.sort_unstable();
        samples[samples.len() / 10].as_secs_f64()
    });
    wrong / unknown
}

#[tokio::test]
async fn a_new_password_replaces_the_old_one_and_logs_the_others_out() {
    let world = world();
    let ann = world.user("ann").await;
    let (phone, laptop) = (world.token("ann", "PHONE").await, world.token("ann", "LAPTOP").await);
    assert!(world.works(&laptop).await);
    let keep = LogoutDevices::Others("PHONE".into());
    world.accounts.change_password(ann.user, &secret(NEW), keep).await.unwrap();
    assert!(world.works(&phone).await);
    assert!(!world.works(&laptop).await);
    assert!(matches!(world.login("ann", "X").await, Err(LoginError::Forbidden)));
    let changed = world.accounts.login_password("ann", &secret(NEW), on_device("X")).await.unwrap();
    world.accounts.change_password(ann.user, &secret(PASSWORD), LogoutDevices::None).await.unwrap();
    assert!(world.works(changed.session.access_token.expose()).await);
}

#[tokio::test]
async fn a_password_that_is_too_weak_changes_nothing() {
    let world = world();
    let ann = world.user("ann").await;
    for weak in ["", "short", &"x".repeat(513)] {
        let result = world.accounts.change_password(ann.user, &secret(weak), LogoutDevices::None).await;
        assert!(matches!(result, Err(ChangePasswordError::WeakPassword(_))));
    }
    assert!(world.login("ann", "X").await.is_ok());
    let nobody = world.accounts.user_nid("@nobody:hs.test".try_into().unwrap());
    let result = world.accounts.change_password(nobody, &secret(NEW), LogoutDevices::None).await;
    assert!(matches!(result, Err(ChangePasswordError::NoAccount)));
}

/// Whoever logs in with the old password while it is changed has a session before the change (which
/// the change ends) or none.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_session_of_an_old_password_outlives_its_change() {
    let world = Arc::new(world());
    let ann = world.user("ann").await;
    let mut old = PASSWORD.to_owned();
    for round in 0..25 {
        let new = format!("password number {round}");
        let logins: Vec<_> = (0..4)
            .map(|n| {
                let (world, old) = (Arc::clone(&world), secret(&old));
                let device = on_device(&format!("D{n}"));
                tokio::spawn(async move { world.accounts.login_password("ann", &old, device).await })
            })
            .collect();
        let keep = LogoutDevices::Others("NONE".into());
        world.accounts.change_password(ann.user, &secret(&new), keep).await.unwrap();
        for login in logins {
            if let Ok(logged_in) = login.await.unwrap() {
                assert!(!world.works(logged_in.session.access_token.expose()).await);
            }
        }
        assert_eq!(world.accounts.devices(ann.user).await.unwrap(), []);
        old = new;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_session_outlives_a_deactivation() {
    let world = Arc::new(world());
    for round in 0..25 {
        let name = format!("user{round}");
        let user = world.user(&name).await.user;
        let logins: Vec<_> = (0..4)
            .map(|n| {
                let (world, name) = (Arc::clone(&world), name.clone());
                tokio::spawn(async move { world.login(&name, &format!("D{n}")).await })
            })
            .collect();
        world.accounts.deactivate(user, Erase::No).await.unwrap();
        for login in logins {
            if let Ok(logged_in) = login.await.unwrap() {
                assert!(!world.works(logged_in.session.access_token.expose()).await);
            }
        }
        assert_eq!(world.accounts.devices(user).await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_log_ins_of_one_user_at_once_all_succeed() {
    let world = Arc::new(world());
    let ann = world.user("ann").await;
    let logins: Vec<_> = (0..32)
        .map(|n| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.token("ann", &format!("D{n}")).await })
        })
        .collect();
    for login in logins {
        assert!(world.works(&login.await.unwrap()).await);
    }
    assert_eq!(world.accounts.devices(ann.user).await.unwrap().len(), 33);
}

#[tokio::test]
async fn logging_in_renews_a_hash_of_other_costs() {
    let store = Arc::new(MemoryStore::new());
    world_on(Arc::clone(&store) as _, settings(), 1).register("ann").await.unwrap();
    let dearer = AccountsSettings { argon2: Argon2Cost { memory_kib: 128, ..CHEAP }, ..settings() };
    let world = world_on(store, dearer, 2);
    world.login("ann", "A").await.unwrap();
    assert_eq!(world.accounts.password_hashes(), 2, "one to check and one to renew");
    world.login("ann", "B").await.unwrap();
    assert_eq!(world.accounts.password_hashes(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_queue_answers_busy_and_stores_nothing() {
    let slow = Argon2Cost { memory_kib: 32 * 1024, iterations: 2, parallelism: 1 };
    let world = Arc::new(world_with(AccountsSettings { argon2: slow, hash_workers: 1, hash_queue: 2, ..settings() }));
    let tasks: Vec<_> = (0..12)
        .map(|n| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.register(&format!("user{n}")).await })
        })
        .collect();
    let (mut made, mut busy) = (0, 0);
    for (n, task) in tasks.into_iter().enumerate() {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(crate::RegisterError::Busy) => {
                busy += 1;
                assert!(world.accounts.is_available(&format!("user{n}")).await.is_ok());
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(made >= 2 && busy >= 1, "{made} made, {busy} busy");
}

#[tokio::test]
async fn no_password_and_no_token_is_in_the_store_in_plain_text() {
    let world = world();
    let ann = world.user("ann").await;
    let token = world.token("ann", "PHONE").await;
    world.accounts.change_password(ann.user, &secret(NEW), LogoutDevices::None).await.unwrap();
    let invite = world.accounts.create_registration_token(NewRegistrationToken::default()).await.unwrap();
    let snapshot = world.store.snapshot(&world.store.frontier()).await.unwrap();
    let all = Range { start: Vec::new(), end: vec![0xFF; 8], order: Order::Ascending, limit: 10_000 };
    let pages = snapshot.scan_many(&[all]).await.unwrap();
    let rows = &pages[0].rows;
    assert!(pages[0].rest.is_none());
    let contains = |needle: &str| {
        let within = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        rows.iter().any(|(key, value)| within(key) || within(value))
    };
    assert!(rows.len() >= 6 && contains("@ann:hs.test") && contains("$argon2id$"), "the search sees the rows");
    for plain in [PASSWORD, NEW, &token, &token[4..47], &invite] {
        assert!(!contains(plain), "{plain}");
    }
    // Every row is one that the schema knows.
    for (key, value) in rows {
        let raw = hearth_store::RawKey(key.clone());
        assert!(ALL.iter().any(|keyspace| keyspace.id == raw.keyspace()), "{raw:?}");
        let body = &key[hearth_store::RawKey::HEADER..];
        assert!(hearth_schema::decode_row(raw.keyspace(), body, value).is_ok(), "{raw:?}");
    }
}

#[tokio::test]
async fn debug_output_shows_no_secret() {
    let world = world();
    let registered = world.register("ann").await.unwrap();
    let token = registered.session.as_ref().unwrap().access_token.expose().clone();
    let logged_in = world.login("ann", "PHONE").await.unwrap();
    for text in [
        format!("{registered:?}"),
        format!("{logged_in:?}"),
        format!("{:?}", new_account("x")),
        format!("{:?}", world.accounts),
    ] {
        assert!(!text.contains(PASSWORD) && !text.contains(&token), "{text}");
        assert!(!text.contains("hrt_"), "{text}");
    }
}

/// Eight people register with the default cost; the runtime must hardly notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashing_does_not_hold_up_other_requests() {
    let parts = AccountsParts {
        store: Arc::new(MemoryStore::new()),
        ids: Ids::new([7; 32]),
        clock: Arc::new(FixedClock::new(Millis(1))),
        random: Arc::new(SeededRandom::new(5)),
        server_name: server_name!("hs.test").to_owned(),
        settings: AccountsSettings { argon2: Argon2Cost::default(), ..settings() },
    };
    let accounts = Arc::new(Accounts::new(parts).unwrap());
    let registered = accounts.register(new_account("ann")).await.unwrap();
    let token = registered.session.unwrap().access_token.expose().clone();
    let registering: Vec<_> = (0..8)
        .map(|n| {
            let accounts = Arc::clone(&accounts);
            tokio::spawn(async move { accounts.register(new_account(&format!("user{n}"))).await.map(drop) })
        })
        .collect();
    let mut waits = Vec::new();
    while !registering.iter().all(tokio::task::JoinHandle::is_finished) {
        let start = Instant::now();
        assert!(accounts.authenticate(&token).await.unwrap().is_some());
        tokio::task::yield_now().await;
        waits.push(start.elapsed());
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    for task in registering {
        task.await.unwrap().unwrap();
    }
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(10), "p99 of {} requests: {p99:?}", waits.len());
}
