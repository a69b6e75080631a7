//! Waiting: nothing is missed, nothing comes twice, nothing comes before its counts.

use std::sync::Arc;
use std::time::Duration;

use hearth_schema::Membership;
use hearth_store::memory::MemoryStore;
use hearth_store::{Pos, chaos};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::SyncRequest;
use crate::testing::*;

#[tokio::test]
async fn a_poll_wakes_for_an_invitation() {
    let world = Arc::new(World::new());
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    let since = next(&world.now(&bob, None, "{}").await);
    let poll = tokio::spawn({
        let (world, bob) = (Arc::clone(&world), bob.clone());
        async move { world.poll(&bob, &since).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.change(&room_id, &alice, &bob, Membership::Invite).await;
    let answer = timeout(Duration::from_secs(5), poll).await.expect("in time").expect("no panic");
    assert!(answer["rooms"]["invite"][room_id.as_str()].is_object());
}

#[tokio::test]
async fn a_poll_without_news_ends_at_its_timeout() {
    let world = World::new();
    let alice = world.user("alice").await;
    world.room(&alice, &[]).await;
    let since = next(&world.now(&alice, None, "{}").await);
    let began = Instant::now();
    let request = SyncRequest { since: Some(&since), timeout: Duration::from_millis(200), ..SyncRequest::default() };
    let answer = world.ask(&alice, &request).await;
    assert!(answer["rooms"].is_null());
    let took = began.elapsed();
    assert!((Duration::from_millis(200)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn shutdown_ends_polls() {
    let world = Arc::new(World::new());
    let alice = world.user("alice").await;
    world.room(&alice, &[]).await;
    let since = next(&world.now(&alice, None, "{}").await);
    let poll = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.poll(&alice, &since).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.shutdown.cancel();
    let answer = timeout(Duration::from_secs(5), poll).await.expect("in time").expect("no panic");
    assert!(answer["rooms"].is_null());
}

#[tokio::test]
async fn what_a_filter_hides_does_not_end_a_poll() {
    let world = Arc::new(World::new());
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let filter = r#"{"room":{"timeline":{"types":["org.wanted"]}}}"#;
    let since = next(&world.now(&bob, None, filter).await);
    let poll = tokio::spawn({
        let (world, bob) = (Arc::clone(&world), bob.clone());
        async move {
            let request =
                SyncRequest { since: Some(&since), filter: Some(filter), timeout: LONG, ..SyncRequest::default() };
            world.ask(&bob, &request).await
        }
    });
    for n in 0..20 {
        world.say(&room_id, &alice, &n.to_string()).await;
    }
    assert!(!poll.is_finished());
    world.event(&room_id, &alice, ("org.wanted", None), serde_json::json!({})).await;
    let answer = timeout(Duration::from_secs(5), poll).await.expect("in time").expect("no panic");
    assert_eq!(bodies(joined(&answer, &room_id)), ["org.wanted"]);
}

/// Everything that `senders` say at random moments reaches every reader once, in order, and with
/// counts that include it.
async fn hammer(world: World, messages: usize) {
    let world = Arc::new(world);
    let (alice, carol) = (world.user("alice").await, world.user("carol").await);
    let mut readers = Vec::new();
    for n in 0..4 {
        readers.push(world.user(&format!("reader{n}")).await);
    }
    let room_id = world.room(&alice, &[&carol]).await;
    for reader in &readers {
        world.change(&room_id, reader, reader, Membership::Join).await;
    }
    let mut tasks = Vec::new();
    for reader in readers {
        let (world, room_id) = (Arc::clone(&world), room_id.clone());
        let mut since = next(&world.now(&reader, None, "{}").await);
        tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 2 * messages {
                let answer = world.poll(&reader, &since).await;
                let room = joined(&answer, &room_id);
                let new = bodies(room);
                assert!(!new.is_empty() && room["timeline"]["limited"] == false, "{answer}");
                seen.extend(new);
                assert_eq!(room["unread_notifications"]["notification_count"], seen.len(), "{seen:?}");
                since = next(&answer);
            }
            seen
        }));
    }
    let send = |who: hearth_accounts::Requester, name: &'static str| {
        let (world, room_id) = (Arc::clone(&world), room_id.clone());
        async move {
            for n in 0..messages {
                world.say(&room_id, &who, &format!("{name}{n}")).await;
                for _ in 0..n % 7 {
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    tokio::join!(send(alice, "a"), send(carol, "c"));
    for task in tasks {
        let seen = timeout(Duration::from_secs(60), task).await.expect("nothing is lost").expect("no panic");
        for name in ["a", "c"] {
            let of: Vec<_> = seen.iter().filter_map(|body| body.strip_prefix(name)).collect();
            assert_eq!(of, (0..messages).map(|n| n.to_string()).collect::<Vec<_>>());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_and_no_event_comes_before_its_counts() {
    hammer(World::new(), 400).await;
}

#[tokio::test]
async fn the_same_on_one_thread() {
    hammer(World::new(), 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_on_a_store_that_misbehaves() {
    for seed in 0..3 {
        let rates = chaos::ChaosRates { expired: 0, ..chaos::ChaosRates::default() };
        let store = chaos::ChaosStore::with_rates(MemoryStore::new(), seed, rates);
        hammer(World::on(Arc::new(store)), 40).await;
    }
}

#[tokio::test]
async fn an_event_waits_for_its_counts() {
    let (progress, counted) = watch::channel(Pos::ZERO);
    let world = World::with_counting(Arc::new(MemoryStore::new()), |_, _, _| counted);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    progress.send_replace(world.store.frontier().base());
    let since = next(&world.now(&bob, None, "{}").await);
    world.say(&room_id, &alice, "uncounted").await;
    let request = SyncRequest { since: Some(&since), timeout: Duration::from_millis(100), ..SyncRequest::default() };
    let early = world.ask(&bob, &request).await;
    assert!(early["rooms"].is_null(), "nobody has counted it: {early}");
    progress.send_replace(world.store.frontier().base());
    let answer = world.poll(&bob, &next(&early)).await;
    assert_eq!(bodies(joined(&answer, &room_id)), ["uncounted"]);
}

#[tokio::test]
async fn a_log_that_comes_in_pieces_is_read_to_its_end() {
    // One fact at a time, and nobody says which is the newest.
    let rates = chaos::ChaosRates {
        conflict: 0,
        lost_answer: 0,
        late_answer: 0,
        expired: 0,
        slow_read: 100,
        lost_hint: 100,
        late_hint: 0,
    };
    let store = Arc::new(chaos::ChaosStore::with_rates(MemoryStore::new(), 7, rates));
    let (progress, counted) = watch::channel(Pos::ZERO);
    let world = World::with_counting(store, |_, _, _| counted);
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    progress.send_replace(world.store.frontier().base());
    let (since_alice, since_bob) =
        (next(&world.now(&alice, None, "{}").await), next(&world.now(&bob, None, "{}").await));
    world.say(&room_id, &alice, "before").await;
    world.change(&room_id, &alice, &bob, Membership::Invite).await;
    world.say(&room_id, &alice, "after").await;
    progress.send_replace(world.store.frontier().base());
    let invited = timeout(Duration::from_secs(5), world.poll(&bob, &since_bob)).await.expect("in time");
    assert!(invited["rooms"]["invite"][room_id.as_str()].is_object(), "{invited}");
    let answer = world.poll(&alice, &since_alice).await;
    let shown = bodies(joined(&answer, &room_id));
    assert_eq!((shown.first().map(String::as_str), shown.last().map(String::as_str)), (Some("before"), Some("after")));
    assert_eq!(shown.len(), 3);
}

#[tokio::test]
async fn who_has_not_polled_for_long_misses_nothing() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.sync.let_go_of_idle_users(Instant::now() + Duration::from_secs(3600));
    world.say(&room_id, &alice, "late").await;
    let answer = world.now(&bob, Some(&since), "{}").await;
    assert_eq!(bodies(joined(&answer, &room_id)), ["late"]);
}
