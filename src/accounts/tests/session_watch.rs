//! Requests that wait while their session ends.

use std::time::Duration;

use tokio::time::timeout;

use crate::testing::*;
use crate::{DeviceRequest, Erase, Requester, SessionEnd};

async fn requester(world: &World, token: &str) -> Requester {
    world.accounts.authenticate(token).await.unwrap().expect("the token works")
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_token_is_taken_away() {
    let world = world();
    let phone = world.user("ann").await;
    for way in 0..4 {
        let tablet = requester(&world, &world.token("ann", "TABLET").await).await;
        let watch = world.accounts.watch_session(&tablet).await.unwrap().expect("it goes on");
        let other = world.accounts.watch_session(&phone).await.unwrap().expect("it goes on");
        assert_eq!(watch.ended(), None);
        timeout(Duration::from_millis(10), watch.end()).await.expect_err("nothing has ended");
        match way {
            0 => world.accounts.logout(&tablet).await.unwrap(),
            1 => world.accounts.delete_devices(tablet.user, &[tablet.client.name().to_owned()]).await.unwrap(),
            // A log-in on the same device is another session.
            2 => drop(world.token("ann", "TABLET").await),
            _ => world.accounts.deactivate(tablet.user, Erase::No).await.unwrap(),
        }
        assert_eq!(watch.ended(), Some(SessionEnd::Revoked), "{way}: told before the answer");
        assert_eq!(timeout(Duration::from_secs(5), watch.end()).await.expect("at once"), SessionEnd::Revoked);
        assert_eq!(other.ended().is_some(), way == 3, "{way}: another device");
        assert!(world.accounts.watch_session(&tablet).await.unwrap().is_none(), "{way}: too late to wait");
        if way == 3 {
            assert_eq!(other.end().await, SessionEnd::Revoked);
        }
    }
    assert_eq!(world.accounts.sessions.watched.len(), 0, "nothing is kept of who waits no more");
}

#[tokio::test]
async fn a_refreshed_session_is_another_end() {
    let world = world();
    world.register("ann").await.unwrap();
    let device = DeviceRequest { refresh: true, ..on_device("PHONE") };
    let first = world.accounts.login_password("ann", &secret(PASSWORD), device).await.unwrap().session;
    let phone = requester(&world, first.access_token.expose()).await;
    let watch = world.accounts.watch_session(&phone).await.unwrap().expect("it goes on");
    let token = first.refresh.expect("refreshable").token;
    let second = world.accounts.refresh(token.expose()).await.unwrap();
    assert_eq!(watch.ended(), None, "the answer may have been lost");
    assert!(world.works(second.access_token.expose()).await);
    assert_eq!(watch.ended(), Some(SessionEnd::Superseded));
}

#[tokio::test]
async fn who_stops_waiting_leaves_the_others_waiting() {
    let world = world();
    let phone = world.user("ann").await;
    let first = world.accounts.watch_session(&phone).await.unwrap().expect("it goes on");
    let second = world.accounts.watch_session(&phone).await.unwrap().expect("it goes on");
    drop(first);
    assert_eq!(world.accounts.sessions.watched.len(), 1);
    world.accounts.logout(&phone).await.unwrap();
    assert_eq!(second.ended(), Some(SessionEnd::Revoked));
}
