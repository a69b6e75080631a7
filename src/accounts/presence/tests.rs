use std::sync::Arc;

use hearth_store::memory::MemoryStore;

use super::book::{ACTIVE, GRACE, IDLE};
use super::*;
use crate::AccountsSettings;
use crate::testing::{World, settings, world_on};
use PresenceState::{Offline, Online, Unavailable};

fn on(store: Arc<dyn Store>) -> World {
    world_on(store, AccountsSettings { presence: PresenceMode::On, ..settings() }, 1)
}

fn new() -> World {
    on(Arc::new(MemoryStore::new()))
}

fn look(world: &World, user: &Requester) -> (PresenceState, bool) {
    let sight = world.accounts.presence().sight(user.user).unwrap();
    (sight.state, sight.currently_active)
}

/// Time goes by, and what has run out is noticed.
fn later(world: &World, time: Duration) {
    world.clock.advance(time);
    world.accounts.presence().sweep();
}

#[tokio::test]
async fn a_connected_user_becomes_inactive_then_idle_and_offline_when_gone() {
    let world = new();
    let ann = world.user("ann").await;
    let presence = world.accounts.presence();
    assert_eq!(presence.sight(ann.user), None);
    let poll = presence.connect(&ann, Online);
    assert_eq!(look(&world, &ann), (Online, true));
    later(&world, ACTIVE);
    assert_eq!(look(&world, &ann), (Online, false));
    later(&world, IDLE.saturating_sub(ACTIVE));
    assert_eq!(look(&world, &ann), (Unavailable, false), "polls alone are no activity");
    presence.acted(ann.user);
    assert_eq!(look(&world, &ann), (Online, true));
    drop(poll);
    later(&world, GRACE.saturating_sub(Duration::from_millis(1)));
    assert_eq!(look(&world, &ann), (Online, true), "the next poll may come");
    later(&world, Duration::from_millis(1));
    assert_eq!(look(&world, &ann), (Offline, false));
}

#[tokio::test]
async fn the_most_present_device_counts() {
    let world = new();
    let phone = world.user("ann").await;
    let token = world.login("ann", "LAPTOP").await.unwrap().session.access_token;
    let laptop = world.accounts.authenticate(token.expose()).await.unwrap().unwrap();
    let presence = world.accounts.presence();
    let _one = presence.connect(&phone, Unavailable);
    assert_eq!(look(&world, &phone).0, Unavailable);
    let two = presence.connect(&laptop, Online);
    assert_eq!(look(&world, &phone).0, Online);
    drop(two);
    later(&world, GRACE);
    assert_eq!(look(&world, &phone).0, Unavailable);
    presence.set(&phone, Offline, None).unwrap();
    assert_eq!(look(&world, &phone).0, Offline, "the user does not want to be seen");
}

#[tokio::test]
async fn only_what_others_can_see_is_a_change() {
    let world = new();
    let ann = world.user("ann").await;
    let presence = world.accounts.presence();
    let start = presence.version();
    let poll = presence.connect(&ann, Online);
    let first = presence.version();
    assert_eq!(first, start + 1);
    presence.acted(ann.user);
    drop(presence.connect(&ann, Online));
    drop(poll);
    assert_eq!(presence.version(), first, "nothing that anybody could see");
    presence.set(&ann, Online, Some("here".into())).unwrap();
    presence.set(&ann, Online, Some("here".into())).unwrap();
    assert_eq!(presence.version(), first + 1);
    let news = presence.since(start, 10, |_| true);
    assert_eq!(news.len(), 1, "one entry a user");
    assert_eq!((news[0].0, news[0].1.status_msg.as_deref()), (first + 1, Some("here")));
    assert!(presence.since(first + 1, 10, |_| true).is_empty());
    assert_eq!(presence.set(&ann, Online, Some("x".repeat(MAX_STATUS_BYTES + 1))), Err(StatusTooLong));
    presence.show_again(ann.user);
    assert_eq!(presence.since(first + 1, 10, |_| true).len(), 1);
}

#[tokio::test]
async fn a_restart_keeps_the_status_and_makes_it_news() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (ann, version) = {
        let world = on(Arc::clone(&store));
        let ann = world.user("ann").await;
        world.accounts.presence().set(&ann, Online, Some("on a walk".into())).unwrap();
        world.accounts.presence().save().await;
        (ann, world.accounts.presence().version())
    };
    let world = on(store);
    world.clock.advance(Duration::from_secs(60));
    let presence = Presence::new(PresenceMode::On, Arc::clone(&world.store), Arc::clone(&world.clock) as _);
    presence.load().await.unwrap();
    let news = presence.since(version, 10, |_| true);
    assert_eq!(news.len(), 1);
    let sight = &news[0].1;
    assert_eq!((sight.state, sight.status_msg.as_deref()), (Offline, Some("on a walk")));
    assert!(sight.last_active.is_some());
    assert_eq!(sight.user_id, ann.user_id);
}

#[tokio::test]
async fn thousands_of_changes_are_one_row_and_no_sync() {
    let world = new();
    let ann = world.user("ann").await;
    let presence = world.accounts.presence();
    let before = world.store.frontier();
    for n in 0..5_000 {
        presence.set(&ann, if n % 2 == 0 { Online } else { Unavailable }, Some(n.to_string())).unwrap();
    }
    assert_eq!(world.store.frontier(), before, "nothing was committed");
    presence.save().await;
    let view = View::latest(&*world.store).await.unwrap();
    let row = view.get::<PresenceRows>(&(ann.user.lane(), ann.user)).await.unwrap().unwrap();
    assert_eq!(row.status_msg.as_deref(), Some("4999"));
    assert_eq!(row.user_id, ann.user_id);
}

#[tokio::test]
async fn without_presence_nothing_is_kept() {
    let world = world_on(Arc::new(MemoryStore::new()), settings(), 1);
    let ann = world.user("ann").await;
    let presence = world.accounts.presence();
    presence.set(&ann, Online, Some("here".into())).unwrap();
    assert!(presence.connect(&ann, Online).is_none());
    assert_eq!((presence.sight(ann.user), presence.version()), (None, 0));
}

fn said(state: PresenceState, status: Option<&str>) -> ForeignPresence {
    let last_active = Some(hearth_base::Millis(5));
    ForeignPresence { state, currently_active: state == Online, last_active, status_msg: status.map(Into::into) }
}

#[tokio::test]
async fn another_servers_user_is_as_its_server_says_until_it_says_nothing_for_long() {
    let world = new();
    let presence = world.accounts.presence();
    let bob = UserId::parse("@bob:elsewhere.test").unwrap();
    let nid = world.accounts.user_nid(&bob);
    let before = presence.version();
    presence.hear_foreign(nid, &bob, said(Online, Some("hi")));
    presence.hear_foreign(nid, &bob, said(Online, Some("hi")));
    let sight = presence.sight(nid).unwrap();
    assert_eq!((sight.state, sight.currently_active, sight.status_msg.as_deref()), (Online, true, Some("hi")));
    assert_eq!(presence.version(), before + 1, "the same again is no news");
    presence.hear_foreign(nid, &bob, said(Unavailable, None));
    assert_eq!(presence.sight(nid).unwrap().state, Unavailable);
    later(&world, super::book::FOREIGN_LASTS.saturating_sub(Duration::from_secs(1)));
    assert_eq!(presence.sight(nid).unwrap().state, Unavailable);
    later(&world, Duration::from_secs(1));
    assert_eq!(presence.sight(nid).unwrap().state, Offline);
    assert_eq!(presence.since(before, 9, |_| true).len(), 1);
    later(&world, super::book::FOREIGN_LASTS);
    assert_eq!(presence.sight(nid), None, "forgotten");
    assert_eq!(presence.since(before, 9, |_| true), []);
}

#[tokio::test]
async fn other_servers_cannot_fill_memory_or_the_store_with_users() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = on(store.clone());
    let presence = world.accounts.presence();
    let known = |server: usize, n: usize| {
        let user = UserId::parse(format!("@u{n}:s{server}.test")).unwrap();
        let nid = world.accounts.user_nid(&user);
        presence.hear_foreign(nid, &user, said(Online, None));
        presence.sight(nid).is_some()
    };
    assert_eq!((0..11_000).filter(|n| known(0, *n)).count(), 10_000, "of one server");
    assert!(known(0, 7), "those that are known go on");
    assert_eq!((1..7).map(|server| (0..10_000).filter(|n| known(server, *n)).count()).sum::<usize>(), 40_000, "of all");
    presence.save().await;
    let view = View::latest(&*store).await.unwrap();
    for lane in Lane::all() {
        assert_eq!(view.page::<PresenceRows, _>(&(lane,), Order::Ascending, 9).await.unwrap(), []);
    }
}
