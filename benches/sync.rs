//! Building /sync's answers, on RocksDB: a user in 30 rooms of 8 members and 30 messages.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hearth_accounts::{Accounts, AccountsParts, AccountsSettings, Requester, Standing};
use hearth_base::{Random, SeededRandom, SystemClock};
use hearth_event::{RoomVersion, SigningKey};
use hearth_fanout::{Follower, Unread};
use hearth_rooms::{
    CreateRoom, MemberProfile, MembershipChange, Preset, RoomSettings, RoomVisibility, Rooms, RoomsParts, SendEvent,
};
use hearth_schema::{Ids, Membership};
use hearth_store::Store;
use hearth_store_rocks::{Identity, RocksOptions, RocksStore};
use hearth_sync::{Incarnation, Sync, SyncParts, SyncRequest, SyncSettings};
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedServerName, UserId};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const ROOMS: usize = 30;
const MEMBERS: usize = 8;
const MESSAGES: usize = 30;
const LAZY: &str = r#"{"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}"#;
const FULL: &str = r#"{"room":{"timeline":{"limit":10}}}"#;

struct World {
    rooms: Rooms,
    sync: Sync,
    users: Vec<Requester>,
    shutdown: CancellationToken,
}

fn server_name() -> OwnedServerName {
    "hearth.test".try_into().expect("a valid name")
}

impl World {
    fn on(store: Arc<dyn Store>) -> Self {
        let shutdown = CancellationToken::new();
        let (ids, clock) = (Ids::new([5; 32]), Arc::new(SystemClock));
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let rooms = Rooms::new(RoomsParts {
            store: Arc::clone(&store),
            ids: ids.clone(),
            clock: clock.clone(),
            random: Arc::clone(&random),
            server_name: server_name(),
            signing_key: Arc::new(SigningKey::from_seed([3; 32], "test").expect("a valid key")),
            settings: RoomSettings { default_version: RoomVersion::DEFAULT },
            remote: Arc::new(hearth_rooms::remote::NoRemote),
            shutdown: shutdown.clone(),
        });
        let accounts = AccountsParts {
            store: Arc::clone(&store),
            ids: ids.clone(),
            clock: clock.clone(),
            random,
            server_name: server_name(),
            settings: AccountsSettings::default(),
        };
        let unread = Follower::new(store, Unread::new(rooms.clone(), server_name()));
        let (sync, notifier) = Sync::new(SyncParts {
            rooms: rooms.clone(),
            accounts: Arc::new(Accounts::new(accounts).expect("threads start")),
            clock,
            server_name: server_name(),
            incarnation: Incarnation::default(),
            counted: unread.progress(),
            settings: SyncSettings::default(),
            shutdown: shutdown.clone(),
        });
        tokio::spawn(unread.run(shutdown.clone()));
        tokio::spawn(notifier);
        let users = (0..MEMBERS).map(|n| requester(&ids, n)).collect();
        Self { rooms, sync, users, shutdown }
    }

    async fn fill(&self) -> Vec<OwnedRoomId> {
        let mut ids = Vec::new();
        for r in 0..ROOMS {
            let owner = &self.users[1 + r % (MEMBERS - 1)];
            let room_id = self.rooms.create(creation(owner)).await.expect("a room");
            for user in self.users.iter().filter(|user| user.user_id != owner.user_id) {
                self.rooms.change_membership(join(&room_id, user)).await.expect("a join");
            }
            for n in 0..MESSAGES {
                self.say(&room_id, n % MEMBERS).await;
            }
            ids.push(room_id);
        }
        ids
    }

    async fn say(&self, room_id: &OwnedRoomId, sender: usize) {
        let content = json!({"msgtype": "m.text", "body": "Lorem ipsum dolor sit amet, consectetur adipiscing elit."});
        let event = SendEvent {
            room_id: room_id.clone(),
            sender: self.users[sender].user_id.clone(),
            event_type: "m.room.message".into(),
            state_key: None,
            content: object(content),
            redacts: None,
            origin_server_ts: None,
            transaction: None,
        };
        self.rooms.send(event).await.expect("an event");
    }

    async fn answer(&self, since: Option<&str>, filter: &str) -> bytes::Bytes {
        let request = SyncRequest { since, filter: Some(filter), ..SyncRequest::default() };
        self.sync.sync(&self.users[0], &request).await.expect("an answer")
    }

    async fn token(&self, since: Option<&str>) -> String {
        let answer: serde_json::Value = serde_json::from_slice(&self.answer(since, LAZY).await).expect("JSON");
        answer["next_batch"].as_str().expect("a token").to_owned()
    }
}

fn requester(ids: &Ids, n: usize) -> Requester {
    let user_id = UserId::parse(format!("@user{n}:hearth.test")).expect("a valid user ID");
    Requester {
        user: ids.user(&user_id),
        user_id,
        client: "DEVICE".into(),
        token: ids.token("none"),
        standing: Standing::default(),
    }
}

fn object(value: serde_json::Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        other => unreachable!("no object: {other:?}"),
    }
}

fn creation(owner: &Requester) -> CreateRoom {
    CreateRoom {
        creator: owner.user_id.clone(),
        profile: MemberProfile { displayname: Some("Owner".into()), avatar_url: None },
        version: None,
        preset: Some(Preset::PublicChat),
        visibility: RoomVisibility::Private,
        name: Some("A room".into()),
        topic: None,
        alias: None,
        invite: Vec::new(),
        is_direct: None,
        creation_content: CanonicalJsonObject::new(),
        initial_state: Vec::new(),
        power_level_content_override: None,
    }
}

fn join(room_id: &OwnedRoomId, user: &Requester) -> MembershipChange {
    MembershipChange {
        room_id: room_id.clone(),
        sender: user.user_id.clone(),
        target: user.user_id.clone(),
        membership: Membership::Join,
        only_from: None,
        reason: None,
        profile: MemberProfile { displayname: Some("Member".into()), avatar_url: None },
        is_direct: None,
    }
}

fn answers(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let identity = Identity { server_name: "hearth.test".into(), schema_version: 1, compat_version: 1 };
    let store = RocksStore::open(directory.path(), &RocksOptions::new([5; 32]), hearth_schema::ALL, &identity);
    let store = Arc::new(store.expect("a new store"));
    let runtime = Runtime::new().expect("threads start");
    let (world, idle, since) = runtime.block_on(async {
        let world = World::on(store.clone());
        let ids = world.fill().await;
        let since = world.token(None).await;
        world.say(&ids[0], 1).await;
        let idle = world.token(Some(&since)).await;
        (world, idle, since)
    });
    let mut group = c.benchmark_group("sync");
    group.measurement_time(Duration::from_secs(4)).sample_size(50);
    let cases = [
        ("initial_lazy", None, LAZY),
        ("initial_full_state", None, FULL),
        ("one_message", Some(since.as_str()), LAZY),
        ("idle", Some(idle.as_str()), LAZY),
    ];
    for (name, since, filter) in cases {
        let bytes = runtime.block_on(world.answer(since, filter)).len();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |b| {
            b.to_async(&runtime).iter(|| async { black_box(world.answer(since, filter).await) });
        });
    }
    group.finish();
    world.shutdown.cancel();
}

criterion_group!(benches, answers);
criterion_main!(benches);
