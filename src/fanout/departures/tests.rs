//! Accounts that end: what their users are in afterwards, and what is left of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::BoxStream;
use hearth_accounts::{Erase, NewAccountData, NewPusher, PresenceState, Reported, Requester, Sharing};
use hearth_rooms::{DelayLimits, NewReceipt, Reason, ReceiptThread, SendEvent, ThreadOf};
use hearth_schema::{Membership, ReceiptKind};
use hearth_store::memory::MemoryStore;
use hearth_store::{
    CommitError, Committed, Element as _, Frontier, KeyBuf, Lane, Limits, Order, Pos, Range, Snapshot, Store,
};
use parking_lot::Mutex;
use ruma_common::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomId};
use serde_json::json;

use super::*;
use crate::testing::{World, server_name, user};
use crate::{Follower, Followups, Unread};

fn departures(world: &World) -> Follower<Departures> {
    let consumer = Departures::new(world.rooms.clone(), Arc::clone(&world.accounts));
    Follower::new(Arc::clone(&world.store), consumer)
}

async fn memberships(world: &World, user: UserNid) -> BTreeMap<String, Membership> {
    let view = world.rooms.view().await.expect("a view");
    let rows = world.rooms.user_rooms(&view, user).await.expect("readable");
    rows.into_iter().map(|(_, row)| (row.room_id, row.membership)).collect()
}

/// Rooms that bob has joined, is invited to, knocks at and is banned from, in this order.
async fn rooms_of_bob(world: &World) -> [OwnedRoomId; 4] {
    let joined = world.room(&["bob"]).await;
    let invited = world.room(&[]).await;
    world.change(&invited, "alice", "bob", Membership::Invite).await;
    let asked = world.room(&[]).await;
    world.send(&asked, ("m.room.join_rules", Some("")), json!({ "join_rule": "knock" })).await;
    world.change(&asked, "bob", "bob", Membership::Knock).await;
    let banned = world.room(&["bob"]).await;
    world.change(&banned, "alice", "bob", Membership::Ban).await;
    [joined, invited, asked, banned]
}

#[tokio::test]
async fn who_has_no_account_any_more_is_in_no_room_also_after_a_crash() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = World::on(Arc::clone(&store));
    let (bob, carol) = (world.device("bob").await, world.device("carol").await);
    let [joined, invited, asked, banned] = rooms_of_bob(&world).await;
    world.change(&joined, "carol", "carol", Membership::Join).await;
    world.accounts.deactivate(bob.user, Erase::No).await.expect("deactivated");
    // Nothing of this run has looked at the log.
    drop(world);
    let world = World::on(store);
    departures(&world).catch_up().await.expect("all rooms are left");
    let expected = [joined.clone(), invited, asked].map(|room_id| (room_id.to_string(), Membership::Leave));
    let expected = expected.into_iter().chain([(banned.to_string(), Membership::Ban)]).collect();
    assert_eq!(memberships(&world, bob.user).await, expected);
    let of_carol = BTreeMap::from([(joined.to_string(), Membership::Join)]);
    assert_eq!(memberships(&world, carol.user).await, of_carol);

    let written = world.store.frontier().base();
    departures(&world).catch_up().await.expect("the same again");
    assert_eq!(world.store.frontier().base(), written, "and nothing is left to do");
}

/// A store whose disk is full for what is in one lane.
struct Refusing {
    inner: MemoryStore,
    lane: Mutex<Option<Lane>>,
}

impl Store for Refusing {
    fn snapshot(&self, min: &Frontier) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        self.inner.snapshot(min)
    }
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, CommitError>> {
        if *self.lane.lock() == Some(batch.lane) {
            return async { Err(CommitError::Full) }.boxed();
        }
        self.inner.commit(batch)
    }
    fn tail(&self, lane: Lane, from: Pos, limit: usize) -> BoxFuture<'_, Result<Vec<LoggedFact>, StoreError>> {
        self.inner.tail(lane, from, limit)
    }
    fn watch(&self) -> BoxStream<'static, Lane> {
        self.inner.watch()
    }
    fn frontier(&self) -> Frontier {
        self.inner.frontier()
    }
    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

#[tokio::test]
async fn a_room_that_cannot_be_left_now_stops_no_other_and_is_left_later() {
    let store = Arc::new(Refusing { inner: MemoryStore::new(), lane: Mutex::new(None) });
    let world = World::on(Arc::clone(&store) as _);
    let bob = world.device("bob").await;
    let mut rooms = Vec::new();
    for _ in 0..6 {
        rooms.push(world.room(&["bob"]).await);
    }
    world.accounts.deactivate(bob.user, Erase::No).await.expect("deactivated");
    let lane = |room_id: &RoomId| world.rooms.ids().room(room_id).lane();
    let full = lane(&rooms[2]);
    *store.lane.lock() = Some(full);
    let mut follower = departures(&world);
    follower.catch_up().await.expect_err("one room is not left");
    let left = |room_id: &OwnedRoomId| if lane(room_id) == full { Membership::Join } else { Membership::Leave };
    let expected = rooms.iter().map(|room_id| (room_id.to_string(), left(room_id))).collect();
    assert_eq!(memberships(&world, bob.user).await, expected);
    *store.lane.lock() = None;
    follower.catch_up().await.expect("all rooms are left");
    let all = memberships(&world, bob.user).await;
    assert!(all.values().all(|membership| *membership == Membership::Leave), "{all:?}");
}

#[tokio::test]
async fn who_gets_into_a_room_after_the_end_of_the_account_leaves_it() {
    let world = World::new();
    let bob = world.device("bob").await;
    let (joined, invited) = (world.room(&[]).await, world.room(&[]).await);
    world.accounts.deactivate(bob.user, Erase::No).await.expect("deactivated");
    departures(&world).catch_up().await.expect("nothing to leave");
    // As requests would that were under way.
    world.change(&joined, "bob", "bob", Membership::Join).await;
    world.change(&invited, "alice", "bob", Membership::Invite).await;
    let followups = Followups::new(world.rooms.clone(), Arc::clone(&world.accounts), server_name());
    Follower::new(Arc::clone(&world.store), followups).catch_up().await.expect("followed");
    let expected = [joined, invited].map(|room_id| (room_id.to_string(), Membership::Leave)).into();
    assert_eq!(memberships(&world, bob.user).await, expected);
}

/// Keyspaces with a row that has the user's number in its key.
async fn traces(world: &World, user: UserNid) -> BTreeSet<&'static str> {
    let mut number = KeyBuf::default();
    user.encode(&mut number);
    let snapshot = world.store.snapshot(&world.store.frontier()).await.expect("a snapshot");
    let mut found = BTreeSet::new();
    for def in hearth_schema::ALL {
        let [high, low] = def.id.0.to_be_bytes();
        let all = Lane::all().map(|lane| Range {
            start: vec![lane.number(), high, low],
            end: vec![lane.number(), high, low + 1],
            order: Order::Ascending,
            limit: usize::MAX,
        });
        let pages = snapshot.scan_many(&all.collect::<Vec<_>>()).await.expect("readable");
        let mut keys = pages.iter().flat_map(|page| &page.rows).map(|(key, _)| key);
        if keys.any(|key| key.windows(number.bytes.len()).any(|part| part == number.bytes)) {
            found.insert(def.name);
        }
    }
    found
}

async fn read(world: &World, room_id: &RoomId, thread: &OwnedEventId, event_id: OwnedEventId) {
    let receipt = NewReceipt {
        room_id: room_id.to_owned(),
        user_id: user("bob"),
        kind: ReceiptKind::Read,
        thread: Some(ReceiptThread::Root(thread.clone())),
        event_id,
    };
    world.rooms.set_receipt(&receipt).await.expect("a receipt");
}

/// Bob reads, is mentioned, follows a thread, and has scheduled something.
async fn bob_takes_part(world: &World, room_id: &RoomId) {
    let root = world.say(room_id, "root").await;
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let reply = json!({ "msgtype": "m.text", "body": "reply", "m.relates_to": relation });
    let reply = world.send(room_id, ("m.room.message", None), reply).await;
    read(world, room_id, &root, reply).await;
    let mention = json!({ "msgtype": "m.text", "body": "bob", "m.mentions": { "user_ids": [user("bob")] } });
    world.send(room_id, ("m.room.message", None), mention).await;
    let bob = user("bob");
    let thread = ThreadOf { user_id: &bob, room_id, root: &root };
    world.rooms.subscribe_to_thread(thread, Reason::Manual).await.expect("subscribed");
    let event = SendEvent {
        room_id: room_id.to_owned(),
        sender: bob.clone(),
        event_type: "m.room.message".into(),
        state_key: None,
        content: CanonicalJsonObject::new(),
        redacts: None,
        origin_server_ts: None,
        transaction: None,
    };
    world.rooms.schedule(&event, Duration::from_secs(60), DelayLimits::default()).await.expect("scheduled");
}

/// Bob says of himself what can be said, and the server keeps what it can keep.
async fn bob_settles(world: &World, bob: &Requester, room_id: &RoomId) {
    let accounts = &world.accounts;
    accounts.set_displayname(bob.user, Some("Bob".into())).await.expect("a name");
    let data = NewAccountData { room: None, kind: "t".into(), json: "{}".into() };
    accounts.set_account_data(bob.user, data).await.expect("account data");
    accounts.store_filter(bob.user, "{}").await.expect("a filter");
    let url = json!({ "url": "https://push.test/_matrix/push/v1/notify" });
    let pusher = NewPusher {
        app_id: "app".into(),
        pushkey: "key".into(),
        app_display_name: "App".into(),
        device_display_name: "Phone".into(),
        profile_tag: None,
        lang: "en".into(),
        data: url.as_object().expect("an object").clone(),
    };
    accounts.set_pusher(bob, pusher, Sharing::Append).await.expect("a pusher");
    accounts.presence().set(bob, PresenceState::Online, Some("at work".into())).expect("a status");
    accounts.presence().save().await;
    accounts.report(bob, Reported::Room(room_id.to_owned()), "spam".into()).await.expect("a report");
    accounts.claim_notice_room(bob.user, room_id).await.expect("a room");
}

#[tokio::test]
async fn of_an_erased_user_nothing_is_left_but_the_name_and_the_memberships() {
    let world = World::new();
    let bob = world.device("bob").await;
    let room_id = world.room(&["bob"]).await;
    bob_settles(&world, &bob, &room_id).await;
    bob_takes_part(&world, &room_id).await;
    let mut unread = Follower::new(Arc::clone(&world.store), Unread::new(world.rooms.clone(), server_name()));
    unread.catch_up().await.expect("counted");
    let kept = ["PushKeys", "UserRoomLog", "UserRooms", "Users"];
    let lost = [
        "AccountData",
        "AccountDataLog",
        "DelayedEvents",
        "DelayedLists",
        "Devices",
        "Filters",
        "Highlights",
        "NoticeRooms",
        "Presence",
        "Profiles",
        "Pushers",
        "ReadPoints",
        "Reports",
        "ThreadReads",
        "ThreadSubscriptionLog",
        "ThreadSubscriptions",
    ];
    assert_eq!(traces(&world, bob.user).await, kept.into_iter().chain(lost).collect());

    world.accounts.deactivate(bob.user, Erase::Yes).await.expect("deactivated");
    departures(&world).catch_up().await.expect("erased");
    unread.catch_up().await.expect("counted");
    world.accounts.presence().save().await;
    assert_eq!(traces(&world, bob.user).await, kept.into_iter().chain(["ErasedUsers"]).collect());
    let sight = world.accounts.presence().sight(bob.user).expect("others have to see it away");
    assert_eq!((sight.state, sight.status_msg, sight.last_active), (PresenceState::Offline, None, None));
}

#[tokio::test]
async fn who_is_not_erased_keeps_what_others_read() {
    let world = World::new();
    let bob = world.device("bob").await;
    let room_id = world.room(&["bob"]).await;
    bob_settles(&world, &bob, &room_id).await;
    world.accounts.deactivate(bob.user, Erase::No).await.expect("deactivated");
    departures(&world).catch_up().await.expect("departed");
    let left = traces(&world, bob.user).await;
    assert!(["Presence", "Profiles", "Reports"].iter().all(|name| left.contains(name)), "{left:?}");
    assert_eq!(memberships(&world, bob.user).await, BTreeMap::from([(room_id.to_string(), Membership::Leave)]));
}
