//! Presence: who is told, and how often.

use std::sync::Arc;
use std::time::Duration;

use hearth_accounts::{PresenceMode, PresenceState, Requester};
use hearth_schema::Membership;
use hearth_store::memory::MemoryStore;
use serde_json::Value;

use crate::SyncRequest;
use crate::presence::PresenceError;
use crate::testing::{World, joined, next};

fn world() -> World {
    World::with(Arc::new(MemoryStore::new()), PresenceMode::On)
}

/// `user state`, in the order of the answer.
fn told(answer: &Value) -> Vec<String> {
    let events = answer["presence"]["events"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    events.iter().map(|event| format!("{} {}", text(&event["sender"]), text(&event["content"]["presence"]))).collect()
}

/// Polls until the answer tells of `who`.
async fn until(world: &World, by: &Requester, mut since: String, who: &str) -> Value {
    for _ in 0..20 {
        let request = SyncRequest {
            since: Some(&since),
            set_presence: PresenceState::Offline,
            timeout: Duration::from_secs(2),
            ..SyncRequest::default()
        };
        let answer = world.ask(by, &request).await;
        if told(&answer).iter().any(|line| line == who) {
            return answer;
        }
        since = next(&answer);
    }
    panic!("{who} was not told");
}

/// A first answer that does not make its user visible.
async fn quietly(world: &World, by: &Requester) -> String {
    let request = SyncRequest { set_presence: PresenceState::Offline, ..SyncRequest::default() };
    next(&world.ask(by, &request).await)
}

async fn set(world: &World, who: &Requester, state: PresenceState, status: Option<&str>) {
    world.sync.set_presence(who, state, status.map(str::to_owned)).await.expect("it is set");
}

#[tokio::test]
async fn those_who_share_a_room_are_told_and_nobody_else() {
    let world = world();
    let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
    world.room(&alice, &[&bob]).await;
    world.room(&eve, &[]).await;
    let since = quietly(&world, &bob).await;
    set(&world, &alice, PresenceState::Online, Some("at \"home\"")).await;
    let answer = until(&world, &bob, since, "@alice:hearth.test online").await;
    let content = &answer["presence"]["events"][0]["content"];
    assert_eq!(content["status_msg"], "at \"home\"");
    assert_eq!(content["currently_active"], true);
    assert!(content["last_active_ago"].as_u64().expect("a number") < 60_000);
    set(&world, &alice, PresenceState::Unavailable, None).await;
    let answer = until(&world, &bob, next(&answer), "@alice:hearth.test unavailable").await;
    assert_eq!(answer["presence"]["events"][0]["content"]["status_msg"], Value::Null);
    let other = world.now(&eve, None, "{}").await;
    assert_eq!(told(&other), ["@eve:hearth.test online"], "only herself, who has just polled");

    let first = world.now(&bob, None, "{}").await;
    let mut seen = told(&first);
    seen.sort();
    assert_eq!(seen, ["@alice:hearth.test unavailable", "@bob:hearth.test online"]);
    let none = world.now(&bob, None, r#"{"presence":{"not_types":["m.*"]}}"#).await;
    assert!(told(&none).is_empty(), "as the filter says");
}

#[tokio::test]
async fn what_sync_says_is_told_like_what_is_set() {
    let world = world();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    world.room(&alice, &[&bob]).await;
    let since = quietly(&world, &bob).await;
    let request = SyncRequest { set_presence: PresenceState::Unavailable, ..SyncRequest::default() };
    world.ask(&alice, &request).await;
    let answer = until(&world, &bob, since, "@alice:hearth.test unavailable").await;
    world.ask(&alice, &SyncRequest::default()).await;
    until(&world, &bob, next(&answer), "@alice:hearth.test online").await;
}

#[tokio::test]
async fn new_company_is_told_both_ways() {
    let world = world();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice, &[]).await;
    set(&world, &alice, PresenceState::Online, None).await;
    set(&world, &bob, PresenceState::Online, None).await;
    let of_alice = next(&world.now(&alice, None, "{}").await);
    let of_bob = next(&world.now(&bob, None, "{}").await);
    world.change(&room, &bob, &bob, Membership::Join).await;
    let answer = world.now(&bob, Some(&of_bob), "{}").await;
    assert!(joined(&answer, &room).is_object());
    assert!(told(&answer).contains(&"@alice:hearth.test online".to_owned()), "{answer}");
    let answer = world.now(&alice, Some(&of_alice), "{}").await;
    assert!(told(&answer).contains(&"@bob:hearth.test online".to_owned()), "{answer}");
}

#[tokio::test]
async fn one_user_is_asked_for_by_those_who_may_see_it() {
    let world = world();
    let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
    let room = world.room(&alice, &[&bob]).await;
    let ask = async |by: &Requester, user: &Requester| -> Result<Value, PresenceError> {
        let json = world.sync.presence_of(by, &user.user_id).await?;
        Ok(serde_json::from_slice(&json).expect("JSON"))
    };
    assert_eq!(ask(&bob, &alice).await.expect("a room-mate")["presence"], "offline", "never heard of");
    set(&world, &alice, PresenceState::Online, Some("here")).await;
    let seen = ask(&bob, &alice).await.expect("a room-mate");
    assert_eq!((&seen["presence"], &seen["status_msg"]), (&"online".into(), &"here".into()));
    assert_eq!(ask(&eve, &eve).await.expect("oneself")["presence"], "offline");
    assert!(matches!(ask(&eve, &alice).await, Err(PresenceError::Forbidden)));
    world.change(&room, &bob, &bob, Membership::Leave).await;
    world.now(&bob, None, "{}").await;
    assert!(matches!(ask(&bob, &alice).await, Err(PresenceError::Forbidden)), "left");
}

#[tokio::test]
async fn ignored_users_are_not_told_of() {
    let world = world();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    world.room(&alice, &[&bob]).await;
    set(&world, &alice, PresenceState::Online, None).await;
    let json = r#"{"ignored_users":{"@alice:hearth.test":{}}}"#.to_owned();
    let kind = "m.ignored_user_list".to_owned();
    let data = hearth_accounts::NewAccountData { room: None, kind, json };
    world.accounts.set_account_data(bob.user, data).await.expect("it is stored");
    assert_eq!(told(&world.now(&bob, None, "{}").await), ["@bob:hearth.test online"]);
}

#[tokio::test]
async fn a_token_from_before_a_restart_gets_the_current_states() {
    let world = world();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    world.room(&alice, &[&bob]).await;
    set(&world, &alice, PresenceState::Online, Some("soon back")).await;
    let since = quietly(&world, &bob).await;
    world.accounts.presence().save().await;
    world.shutdown.cancel();
    world.rooms.join().await;
    let world = World::with(world.store, PresenceMode::On);
    world.accounts.presence().load().await.expect("it is read");
    let answer = until(&world, &bob, since, "@alice:hearth.test offline").await;
    let events = answer["presence"]["events"].as_array().expect("events");
    let alice = events.iter().find(|event| event["sender"] == "@alice:hearth.test").expect("alice");
    assert_eq!(alice["content"]["status_msg"], "soon back");
}

#[tokio::test]
async fn a_storm_of_changes_answers_a_poll_once_in_a_second() {
    let world = world();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    world.room(&alice, &[&bob]).await;
    let mut since = quietly(&world, &bob).await;
    let storm = {
        let (sync, alice) = (world.sync.clone(), alice.clone());
        tokio::spawn(async move {
            for n in 0.. {
                sync.set_presence(&alice, PresenceState::Online, Some(format!("{n}"))).await.expect("it is set");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let start = tokio::time::Instant::now();
    let mut answers = 0_u64;
    while start.elapsed() < Duration::from_secs(3) {
        let request = SyncRequest {
            since: Some(&since),
            set_presence: PresenceState::Offline,
            timeout: Duration::from_secs(2),
            ..SyncRequest::default()
        };
        let answer = world.ask(&bob, &request).await;
        answers += u64::from(!told(&answer).is_empty());
        since = next(&answer);
    }
    storm.abort();
    // One a second, the first at once; the last may have come late on a busy machine.
    let most = start.elapsed().as_secs() + 2;
    assert!((1..=most).contains(&answers), "{answers} answers, {most} at the most");
}
