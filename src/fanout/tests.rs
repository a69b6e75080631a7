//! The unread consumer on real rooms: what it counts, and that doing it twice changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_base::{FixedClock, Millis, SeededRandom};
use hearth_event::{RoomVersion, SigningKey};
use hearth_rooms::{
    CreateRoom, MemberProfile, MembershipChange, NewReceipt, Preset, ReceiptThread, RoomSettings, RoomVisibility,
    Rooms, RoomsParts, SendEvent,
};
use hearth_schema::{
    Cursors, Highlights, Ids, Membership, Position, ReadPoint, ReadPoints, ReceiptKind, RoomTallies, RoomTally,
    ThreadRead, ThreadReads, UserNid,
};
use hearth_store::memory::MemoryStore;
use hearth_store::{Batch, Durability, Lane, LoggedFact, Order, Pos, Store, View, chaos};
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{ConsumeError, Consumer, Follower, Habit, Unread};

struct World {
    store: Arc<dyn Store>,
    rooms: Rooms,
}

/// Everything derived for one user in one room, and the room's tallies.
#[derive(Debug, PartialEq, Eq)]
struct Derived {
    read: Option<ReadPoint>,
    mentions: Vec<(Pos, Option<u32>)>,
    threads: BTreeMap<u32, ThreadRead>,
    tallies: Vec<(Pos, RoomTally)>,
}

impl Derived {
    fn unread(&self) -> (u64, u64) {
        let now = self.tallies.last().map(|(_, tally)| *tally).unwrap_or_default();
        let read = self.read.expect("the user has joined");
        let unread = now.main.since(read.main).plus(now.threads.since(read.threads));
        let mentions = self.mentions.iter().filter(|(pos, thread)| self.is_unread(*pos, *thread)).count() as u64;
        (unread.notifying, unread.highlighting + mentions)
    }

    fn is_unread(&self, pos: Pos, thread: Option<u32>) -> bool {
        let read = self.read.expect("the user has joined");
        let read_to = match thread {
            None => Pos::new(read.main_pos),
            Some(root) => self.threads.get(&root).map_or(read.pos, |thread| thread.pos.max(read.pos)),
        };
        pos > read_to
    }
}

impl World {
    fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()))
    }

    fn on(store: Arc<dyn Store>) -> Self {
        let rooms = Rooms::new(RoomsParts {
            store: Arc::clone(&store),
            ids: Ids::new([5; 32]),
            clock: Arc::new(FixedClock::new(Millis(1_700_000_000_000))),
            random: Arc::new(SeededRandom::new(1)),
            server_name: server_name(),
            signing_key: Arc::new(SigningKey::from_seed([3; 32], "test").expect("a valid key")),
            settings: RoomSettings { default_version: RoomVersion::DEFAULT },
            remote: Arc::new(hearth_rooms::remote::NoRemote),
            shutdown: CancellationToken::new(),
        });
        Self { store, rooms }
    }

    fn follower(&self) -> Follower<Unread> {
        Follower::new(Arc::clone(&self.store), Unread::new(self.rooms.clone(), server_name()))
    }

    /// A consumer that starts anew, with nothing in memory.
    async fn catch_up(&self) {
        let mut follower = self.follower();
        // Only a store that misbehaves needs more than one attempt.
        for _ in 0..500 {
            if follower.catch_up().await.is_ok() {
                assert_eq!(*follower.progress().borrow(), self.store.frontier().base());
                return;
            }
        }
        panic!("the consumer does not advance");
    }

    async fn room(&self, members: &[&str]) -> OwnedRoomId {
        let room_id = loop {
            if let Ok(room_id) = self.rooms.create(creation()).await {
                break room_id;
            }
        };
        for member in members {
            self.change(&room_id, member, Membership::Join).await;
        }
        room_id
    }

    async fn change(&self, room_id: &RoomId, target: &str, membership: Membership) {
        let change = MembershipChange {
            room_id: room_id.to_owned(),
            sender: user(target),
            target: user(target),
            membership,
            only_from: None,
            reason: None,
            profile: MemberProfile::default(),
            is_direct: None,
        };
        while self.rooms.change_membership(change.clone()).await.is_err() {}
    }

    async fn send(&self, room_id: &RoomId, sender: &str, event_type: &str, content: Value) -> String {
        let event = SendEvent {
            room_id: room_id.to_owned(),
            sender: user(sender),
            event_type: event_type.to_owned(),
            state_key: event_type.starts_with("m.room.t").then(String::new),
            content: object(content),
            redacts: None,
            origin_server_ts: None,
            transaction: None,
        };
        self.rooms.send(event).await.expect("an event").event_id.to_string()
    }

    async fn say(&self, room_id: &RoomId, sender: &str, content: Value) -> String {
        self.send(room_id, sender, "m.room.message", content).await
    }

    async fn read(&self, room_id: &RoomId, reader: &str, event_id: &str, kind: ReceiptKind) {
        self.read_in(room_id, reader, event_id, (kind, None)).await;
    }

    async fn read_in(
        &self,
        room_id: &RoomId,
        reader: &str,
        event_id: &str,
        (kind, thread): (ReceiptKind, Option<ReceiptThread>),
    ) {
        let receipt = NewReceipt {
            room_id: room_id.to_owned(),
            user_id: user(reader),
            kind,
            thread,
            event_id: event_id.try_into().expect("an event ID"),
        };
        self.rooms.set_receipt(&receipt).await.expect("a receipt");
    }

    async fn derived(&self, room_id: &RoomId, of: &str) -> Derived {
        let view = View::latest(&*self.store).await.expect("a view");
        let (room, nid): (_, UserNid) = (self.rooms.ids().room(room_id), self.rooms.ids().user(&user(of)));
        let tallies = view.page::<RoomTallies, _>(&(room,), Order::Ascending, 10_000).await.expect("rows");
        let mentions = view.page::<Highlights, _>(&(nid, room), Order::Ascending, 10_000).await.expect("rows");
        let threads = view.page::<ThreadReads, _>(&(nid, room), Order::Ascending, 10_000).await.expect("rows");
        Derived {
            threads: threads.into_iter().map(|((_, _, root), read)| (root, read)).collect(),
            read: view.get::<ReadPoints>(&(nid, room)).await.expect("a row"),
            mentions: mentions.into_iter().map(|((_, _, pos), mention)| (pos, mention.thread)).collect(),
            tallies: tallies.into_iter().map(|((_, pos), tally)| (pos, tally)).collect(),
        }
    }

    async fn unread(&self, room_id: &RoomId, of: &str) -> (u64, u64) {
        self.catch_up().await;
        self.derived(room_id, of).await.unread()
    }
}

fn server_name() -> OwnedServerName {
    "hearth.test".try_into().expect("a valid name")
}

fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:hearth.test")).expect("a valid user ID")
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

fn object(value: Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        other => panic!("no object: {other:?}"),
    }
}

fn creation() -> CreateRoom {
    CreateRoom {
        creator: user("alice"),
        profile: MemberProfile::default(),
        version: None,
        preset: Some(Preset::PublicChat),
        visibility: RoomVisibility::Private,
        name: None,
        topic: None,
        alias: None,
        invite: Vec::new(),
        is_direct: None,
        creation_content: CanonicalJsonObject::new(),
        initial_state: Vec::new(),
        power_level_content_override: None,
    }
}

#[tokio::test]
async fn messages_count_from_the_join_on() {
    let world = World::new();
    let room_id = world.room(&[]).await;
    world.say(&room_id, "alice", text("before")).await;
    world.change(&room_id, "bob", Membership::Join).await;
    world.say(&room_id, "alice", text("1")).await;
    world.say(&room_id, "alice", json!({ "msgtype": "m.notice", "body": "quiet" })).await;
    world.send(&room_id, "alice", "m.room.encrypted", json!({ "algorithm": "x" })).await;
    world.send(&room_id, "alice", "m.reaction", json!({})).await;
    assert_eq!(world.unread(&room_id, "bob").await, (2, 0));
    assert_eq!(world.unread(&room_id, "alice").await, (0, 0), "nobody is notified of own messages");
}

#[tokio::test]
async fn receipts_and_own_messages_move_the_read_point_forward_only() {
    let world = World::new();
    let room_id = world.room(&["bob"]).await;
    let first = world.say(&room_id, "alice", text("1")).await;
    let second = world.say(&room_id, "alice", text("2")).await;
    world.say(&room_id, "alice", text("3")).await;
    world.read(&room_id, "bob", &second, ReceiptKind::ReadPrivate).await;
    assert_eq!(world.unread(&room_id, "bob").await, (1, 0));
    world.read(&room_id, "bob", &first, ReceiptKind::Read).await;
    assert_eq!(world.unread(&room_id, "bob").await, (1, 0), "the more advanced of the two counts");
    world
        .rooms
        .update_profile(&user("bob"), &MemberProfile { displayname: Some("B".into()), avatar_url: None })
        .await
        .expect("a profile");
    assert_eq!(world.unread(&room_id, "bob").await, (1, 0), "a new name is not reading");
    world.say(&room_id, "bob", text("4")).await;
    assert_eq!(world.unread(&room_id, "bob").await, (0, 0));
}

#[tokio::test]
async fn mentions_highlight_for_members_and_are_removed_when_read() {
    let world = World::new();
    let room_id = world.room(&["bob"]).await;
    let mention = json!({ "msgtype": "m.text", "body": "hey",
        "m.mentions": { "user_ids": [user("bob"), user("alice"), user("stranger"), "@x:elsewhere.test"] } });
    let event_id = world.say(&room_id, "alice", mention).await;
    assert_eq!(world.unread(&room_id, "bob").await, (1, 1));
    assert_eq!(world.derived(&room_id, "alice").await.mentions, [], "nobody mentions themselves");
    assert_eq!(world.derived(&room_id, "stranger").await.mentions, [], "who is not there is not mentioned");
    world.read(&room_id, "bob", &event_id, ReceiptKind::Read).await;
    assert_eq!(world.unread(&room_id, "bob").await, (0, 0));
    assert_eq!(world.derived(&room_id, "bob").await.mentions, []);
}

#[tokio::test]
async fn the_room_is_highlighted_by_who_may_and_by_its_end() {
    let world = World::new();
    let room_id = world.room(&["bob", "carol"]).await;
    let everybody = json!({ "msgtype": "m.text", "body": "all", "m.mentions": { "room": true } });
    world.say(&room_id, "bob", everybody.clone()).await;
    assert_eq!(world.unread(&room_id, "carol").await, (1, 0), "bob has no power");
    world.say(&room_id, "alice", everybody).await;
    assert_eq!(world.unread(&room_id, "carol").await, (2, 1));
    world.send(&room_id, "alice", "m.room.tombstone", json!({ "body": "gone", "replacement_room": "!x:y" })).await;
    assert_eq!(world.unread(&room_id, "carol").await, (3, 2));
    assert_eq!(world.derived(&room_id, "carol").await.mentions, [], "no row for each member");
}

/// A conversation with everything in it.
async fn converse(world: &World) -> OwnedRoomId {
    let room_id = world.room(&["bob", "carol"]).await;
    let mut roots = Vec::new();
    for n in 0..20 {
        let (speaker, reader) = if n % 3 == 0 { ("bob", "carol") } else { ("alice", "bob") };
        let mentions = json!({ "user_ids": [user("carol")], "room": n % 7 == 0 });
        let mut content = json!({ "msgtype": "m.text", "body": n.to_string(), "m.mentions": mentions });
        let root: Option<String> = roots.first().filter(|_| n % 3 != 1).cloned();
        if let Some(root) = &root {
            content["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": root });
        }
        let event_id = world.say(&room_id, speaker, content).await;
        roots.push(event_id.clone());
        if n % 4 == 0 {
            world.read(&room_id, reader, &event_id, ReceiptKind::Read).await;
        }
        if n % 4 == 2 {
            let thread = root.map_or(ReceiptThread::Main, |root| ReceiptThread::Root(root.try_into().expect("an ID")));
            world.read_in(&room_id, reader, &event_id, (ReceiptKind::ReadPrivate, Some(thread))).await;
        }
        if n % 5 == 0 {
            world.catch_up().await;
        }
    }
    world.catch_up().await;
    room_id
}

async fn all_derived(world: &World, room_id: &RoomId) -> Vec<Derived> {
    let mut all = Vec::new();
    for name in ["alice", "bob", "carol"] {
        all.push(world.derived(room_id, name).await);
    }
    all
}

#[tokio::test]
async fn consuming_again_changes_nothing() {
    let world = World::new();
    let room_id = converse(&world).await;
    let before = all_derived(&world, &room_id).await;
    // As after a crash that lost the consumer's newest commits, some or all of them.
    for back_to in [0, 10, 30] {
        for lane in Lane::all() {
            let mut batch = Batch::new(lane);
            batch.durability = Durability::Relaxed;
            batch.put::<Cursors>(&(lane, Unread::NAME.to_owned()), &Position(Pos::new(back_to)));
            if back_to == 0 {
                batch.delete::<Cursors>(&(lane, Unread::NAME.to_owned()));
            }
            world.store.commit(batch).await.expect("a commit");
        }
        world.catch_up().await;
        let after = all_derived(&world, &room_id).await;
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((before.read, &before.tallies, &before.threads), (after.read, &after.tallies, &after.threads));
            assert_eq!(before.unread(), after.unread());
        }
    }
}

#[tokio::test]
async fn a_store_that_misbehaves_gives_the_same_counts() {
    let expected = {
        let world = World::new();
        let room_id = converse(&world).await;
        all_derived(&world, &room_id).await.iter().map(Derived::unread).collect::<Vec<_>>()
    };
    for seed in 0..5 {
        let rates = chaos::ChaosRates { expired: 0, ..chaos::ChaosRates::default() };
        let world = World::on(Arc::new(chaos::ChaosStore::with_rates(MemoryStore::new(), seed, rates)));
        let room_id = converse(&world).await;
        let found: Vec<_> = all_derived(&world, &room_id).await.iter().map(Derived::unread).collect();
        assert_eq!(found, expected, "seed {seed}");
    }
}

#[tokio::test]
async fn a_running_follower_publishes_how_far_it_has_come() {
    let world = World::new();
    let shutdown = CancellationToken::new();
    let follower = world.follower();
    let mut progress = follower.progress();
    let running = tokio::spawn(follower.run(shutdown.clone()));
    let room_id = world.room(&["bob"]).await;
    world.say(&room_id, "alice", text("1")).await;
    let target = world.store.frontier().base();
    progress.wait_for(|reached| *reached >= target).await.expect("it runs");
    assert_eq!(world.derived(&room_id, "bob").await.unread(), (1, 0));
    shutdown.cancel();
    tokio::time::timeout(std::time::Duration::from_secs(5), running).await.expect("it stops").expect("no panic");
}

/// Counts facts and writes nothing.
struct Watcher {
    habit: Habit,
    seen: Arc<AtomicUsize>,
}

impl Consumer for Watcher {
    fn name(&self) -> &'static str {
        "watcher"
    }

    fn consume<'a>(
        &'a mut self,
        _: &'a View,
        facts: &'a [LoggedFact],
        _: &'a mut Batch,
    ) -> BoxFuture<'a, Result<(), ConsumeError>> {
        self.seen.fetch_add(facts.len(), Ordering::Relaxed);
        async { Ok(()) }.boxed()
    }

    fn forget(&mut self) {}

    fn habit(&self) -> Habit {
        self.habit
    }
}

#[tokio::test]
async fn a_sparse_consumer_that_finds_nothing_stores_no_cursor_and_sees_a_little_again() {
    let world = World::new();
    let room_id = world.room(&["bob"]).await;
    let watch = async |habit: Habit| {
        let seen = Arc::new(AtomicUsize::new(0));
        let watcher = Watcher { habit, seen: Arc::clone(&seen) };
        let mut follower = Follower::new(Arc::clone(&world.store), watcher);
        follower.catch_up().await.expect("caught up");
        let first = seen.load(Ordering::Relaxed);
        follower.catch_up().await.expect("caught up");
        assert_eq!(seen.load(Ordering::Relaxed), first, "it sees nothing twice as long as it runs");
        first
    };
    let all = watch(Habit::Sparse).await;
    assert!(all > 0);
    world.say(&room_id, "bob", text("more")).await;
    assert_eq!(watch(Habit::Sparse).await, all + 1);
    assert_eq!(watch(Habit::Busy).await, all + 1);
    assert_eq!(watch(Habit::Busy).await, 0, "its cursor is stored");
    assert_eq!(watch(Habit::Sparse).await, 0, "and is where it goes on");
}
