//! Polls whose session ends, and polls that begin while something is committed.

use std::sync::Arc;
use std::time::Duration;

use hearth_accounts::{DeviceRequest, Requester};
use hearth_base::Secret;
use hearth_schema::Membership;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::testing::*;
use crate::{SyncError, SyncRequest};

type Polled = Result<Value, SyncError>;

pub(super) async fn login(world: &World, name: &str, device: &str) -> Requester {
    let device = DeviceRequest { device_id: Some(device.into()), ..DeviceRequest::default() };
    login_as(world, name, device).await.0
}

async fn login_as(world: &World, name: &str, device: DeviceRequest) -> (Requester, Option<Secret<String>>) {
    let password = Secret::new("correct horse battery".to_owned());
    let session = world.accounts.login_password(name, &password, device).await.expect("a log-in").session;
    let requester = world.accounts.authenticate(session.access_token.expose()).await.expect("a read");
    (requester.expect("a valid token"), session.refresh.map(|refresh| refresh.token))
}

fn poll(world: &Arc<World>, who: &Requester, since: &str) -> JoinHandle<Polled> {
    let (world, who, since) = (Arc::clone(world), who.clone(), since.to_owned());
    tokio::spawn(async move {
        let request = SyncRequest { since: Some(&since), timeout: LONG, ..SyncRequest::default() };
        let bytes = world.sync.sync(&who, &request).await?;
        Ok(serde_json::from_slice(&bytes).expect("an answer is JSON"))
    })
}

async fn done(poll: JoinHandle<Polled>) -> Polled {
    timeout(Duration::from_secs(5), poll).await.expect("in time").expect("no panic")
}

#[tokio::test]
async fn a_log_out_ends_the_poll_of_its_device_at_once() {
    let world = Arc::new(World::new());
    let phone = world.user("alice").await;
    let room_id = world.room(&phone, &[]).await;
    let tablet = login(&world, "alice", "TABLET").await;
    let since = next(&world.now(&phone, None, "{}").await);
    let (goes_on, ends) = (poll(&world, &phone, &since), poll(&world, &tablet, &since));
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.accounts.logout(&tablet).await.expect("logged out");
    assert!(matches!(done(ends).await, Err(SyncError::SessionEnded)));
    let first = SyncRequest::default();
    assert!(matches!(world.sync.sync(&tablet, &first).await, Err(SyncError::SessionEnded)), "nor may it begin one");
    assert!(!goes_on.is_finished());
    world.say(&room_id, &phone, "still here").await;
    assert_eq!(bodies(joined(&done(goes_on).await.expect("an answer"), &room_id)), ["still here"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_said_after_a_log_out_is_delivered() {
    let world = Arc::new(World::new());
    let (alice, _) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    for round in 0..20 {
        let bob = login(&world, "bob", &format!("D{round}")).await;
        if round == 0 {
            world.change(&room_id, &bob, &bob, Membership::Join).await;
        }
        let since = next(&world.now(&bob, None, "{}").await);
        let waiting = poll(&world, &bob, &since);
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        world.accounts.delete_devices(bob.user, &[bob.client.name().to_owned()]).await.expect("deleted");
        world.say(&room_id, &alice, "secret").await;
        assert!(matches!(done(waiting).await, Err(SyncError::SessionEnded)), "{round}");
    }
}

#[tokio::test]
async fn a_refreshed_session_polls_again_with_its_new_token() {
    let world = Arc::new(World::new());
    let alice = world.user("alice").await;
    world.room(&alice, &[]).await;
    let device = DeviceRequest { device_id: Some("TABLET".into()), refresh: true, ..DeviceRequest::default() };
    let (tablet, refresh) = login_as(&world, "alice", device).await;
    let since = next(&world.now(&tablet, None, "{}").await);
    let waiting = poll(&world, &tablet, &since);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let renewed = world.accounts.refresh(refresh.expect("refreshable").expose()).await.expect("a new pair");
    assert!(!waiting.is_finished());
    world.accounts.authenticate(renewed.access_token.expose()).await.expect("a read").expect("a valid token");
    let answer = done(waiting).await.expect("an answer");
    assert_eq!((next(&answer), &answer["rooms"]), (since, &Value::Null));
}

/// The commit meets the poll at every point of its way to sleep.
#[tokio::test]
async fn a_commit_at_any_moment_of_a_poll_wakes_it() {
    let world = Arc::new(World::new());
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    for steps in 0..150 {
        let since = next(&world.now(&bob, None, "{}").await);
        let body = steps.to_string();
        let (send, read) = (
            async {
                for _ in 0..steps {
                    tokio::task::yield_now().await;
                }
                world.say(&room_id, &alice, &body).await;
            },
            poll(&world, &bob, &since),
        );
        send.await;
        let answer = done(read).await.expect("an answer");
        assert_eq!(bodies(joined(&answer, &room_id)), [body]);
    }
}
