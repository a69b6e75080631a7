//! The whole router on the memory engine, asked as other servers ask: two of them, whose keys it knows.

mod bindings;
mod coverage;
mod door;
mod exchanges;
mod floods;
mod handshakes;
mod invites;
mod kept_out;
mod queries;
mod reading;
mod record;
mod sending;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hearth_accounts::{Accounts, AccountsParts, AccountsSettings, Argon2Cost, Registration};
use hearth_base::{Clock, FixedClock, Millis, SeededRandom};
use hearth_event::{EventDraft, Pdu, RoomVersion, SigningKey, auth_types, build};
use hearth_peers::{Dns, DnsError, Peers, PeersParts, PeersSettings, SrvTarget};
use hearth_rooms::{
    CreateRoom, InitialState, MemberProfile, Preset, RoomSettings, RoomVisibility, Rooms, RoomsParts, SendEvent,
};
use hearth_schema::{Ids, PeerKey, PeerKeys, PeerKeysRow};
use hearth_store::memory::MemoryStore;
use hearth_store::{Batch, Store};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use ruma_common::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId,
    ServerName, UserId, server_name,
};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

use crate::{EduSink, RawEdu, ServerApi, ServerApiSettings};

const V1: &str = "/_matrix/federation/v1";
const V2: &str = "/_matrix/federation/v2";
const NOW: Millis = Millis(1_700_000_000_000);

/// No server has an address.
struct NoDns;

impl Dns for NoDns {
    fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, DnsError>> {
        async { Ok(Vec::new()) }.boxed()
    }
    fn srv<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<SrvTarget>, DnsError>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

/// The EDUs that came: from whom, of which type.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(OwnedServerName, String)>>>);

impl EduSink for Heard {
    fn accept<'a>(&'a self, origin: &'a ServerName, edu: RawEdu) -> BoxFuture<'a, ()> {
        self.0.lock().push((origin.to_owned(), edu.edu_type));
        async {}.boxed()
    }
}

/// A server.
struct World {
    router: Router,
    rooms: Rooms,
    accounts: Arc<Accounts>,
    store: Arc<dyn Store>,
    clock: Arc<FixedClock>,
    heard: Heard,
    _end: DropGuard,
}

/// Another server.
struct Other {
    name: OwnedServerName,
    key: SigningKey,
}

/// An answer, read.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    /// Status and errcode, or `""`.
    fn verdict(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["errcode"].as_str().unwrap_or_default())
    }

    /// The body of an answer that must be 200.
    #[track_caller]
    fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ServerApiSettings)) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        for other in [Other::friend(), Other::mallory()] {
            other.introduce(&*store).await;
        }
        Self::on(store, change)
    }

    /// A server on this store, as after a restart.
    fn on(store: Arc<dyn Store>, change: impl FnOnce(&mut ServerApiSettings)) -> Self {
        let fixed = Arc::new(FixedClock::new(NOW));
        let clock: Arc<dyn Clock> = Arc::clone(&fixed) as _;
        let (shutdown, ids) = (CancellationToken::new(), Ids::new([5; 32]));
        let server_name = server_name!("hs.test").to_owned();
        let signing_key = Arc::new(SigningKey::from_seed([3; 32], "test").unwrap());
        let peers = Peers::new(PeersParts {
            server_name: server_name.clone(),
            signing_key: Arc::clone(&signing_key),
            old_keys: Vec::new(),
            store: Arc::clone(&store),
            ids: ids.clone(),
            clock: Arc::clone(&clock),
            random: Arc::new(SeededRandom::new(3)),
            dns: Arc::new(NoDns),
            settings: PeersSettings::default(),
            shutdown: shutdown.clone(),
        });
        let peers = peers.unwrap();
        let rooms = Rooms::new(RoomsParts {
            store: Arc::clone(&store),
            ids: ids.clone(),
            clock: Arc::clone(&clock),
            random: Arc::new(SeededRandom::new(1)),
            server_name: server_name.clone(),
            signing_key,
            settings: RoomSettings { default_version: RoomVersion::DEFAULT },
            remote: Arc::new(peers.clone()),
            shutdown: shutdown.clone(),
        });
        let accounts = Accounts::new(AccountsParts {
            store: Arc::clone(&store),
            ids,
            clock: Arc::clone(&clock),
            random: Arc::new(SeededRandom::new(2)),
            server_name,
            settings: AccountsSettings {
                argon2: Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 },
                registration: Registration::Open,
                ..AccountsSettings::default()
            },
        });
        let accounts = Arc::new(accounts.unwrap());
        let mut settings = ServerApiSettings::default();
        change(&mut settings);
        let heard = Heard::default();
        let router = crate::router(ServerApi {
            rooms: rooms.clone(),
            accounts: Arc::clone(&accounts),
            peers,
            edus: Arc::new(heard.clone()),
            clock,
            settings,
            shutdown: shutdown.clone(),
        });
        Self {
            router: record::around(router),
            rooms,
            accounts,
            store,
            clock: fixed,
            heard,
            _end: shutdown.drop_guard(),
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn open(&self, method: Method, path: &str, body: &str) -> Answer {
        self.send(Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap()).await
    }

    /// A room of `@alice:hs.test`.
    async fn room(&self, preset: Preset) -> OwnedRoomId {
        self.rooms.create(creation(preset)).await.unwrap()
    }

    /// The same with state of its own.
    async fn room_with(&self, version: &str, preset: Preset, state: &[(&str, Value)]) -> OwnedRoomId {
        let initial_state = state.iter().map(|(event_type, content)| InitialState {
            event_type: (*event_type).to_owned(),
            state_key: String::new(),
            content: object(content.clone()),
        });
        let create = CreateRoom {
            version: RoomVersion::parse(version),
            initial_state: initial_state.collect(),
            ..creation(preset)
        };
        self.rooms.create(create).await.unwrap()
    }

    async fn say(&self, room: &RoomId, body: &str) -> OwnedEventId {
        self.event(room, ("m.room.message", None), json!({"msgtype": "m.text", "body": body})).await
    }

    async fn set(&self, room: &RoomId, event_type: &str, content: Value) -> OwnedEventId {
        self.event(room, (event_type, Some("")), content).await
    }

    async fn event(
        &self,
        room: &RoomId,
        (event_type, state_key): (&str, Option<&str>),
        content: Value,
    ) -> OwnedEventId {
        let event = SendEvent {
            room_id: room.to_owned(),
            sender: alice(),
            event_type: event_type.to_owned(),
            state_key: state_key.map(str::to_owned),
            content: object(content),
            redacts: None,
            origin_server_ts: None,
            transaction: None,
        };
        self.rooms.send(event).await.unwrap().event_id
    }

    /// `alice` goes.
    async fn leave(&self, room: &RoomId) -> OwnedEventId {
        self.event(room, ("m.room.member", Some(alice().as_str())), json!({"membership": "leave"})).await
    }

    async fn membership(&self, room: &RoomId, user: &str) -> Option<&'static str> {
        let view = self.rooms.view().await.unwrap();
        let room = self.rooms.ids().room(room);
        let entry = self.rooms.current_entry(&view, room, "m.room.member", user).await.unwrap();
        entry.and_then(|entry| entry.membership).map(hearth_schema::Membership::as_str)
    }
}

impl Other {
    /// `other.test`
    fn friend() -> Self {
        Self { name: server_name!("other.test").to_owned(), key: SigningKey::from_seed([8; 32], "1").unwrap() }
    }

    /// `mal.test`
    fn mallory() -> Self {
        Self { name: server_name!("mal.test").to_owned(), key: SigningKey::from_seed([9; 32], "1").unwrap() }
    }

    /// Makes the key known to whoever has `store`.
    async fn introduce(&self, store: &dyn Store) {
        let lane = Ids::new([5; 32]).server_lane(&self.name);
        let key = PeerKey { key: self.key.public_key_base64(), valid_until: NOW.0 + 86_400_000, retired: false };
        let row = PeerKeysRow { keys: [(self.key.key_id().to_owned(), key)].into(), fetched_at: NOW.0 };
        let mut batch = Batch::new(lane);
        batch.put::<PeerKeys>(&(lane, self.name.to_string()), &row);
        store.commit(batch).await.unwrap();
    }

    fn user(&self, name: &str) -> OwnedUserId {
        OwnedUserId::try_from(format!("@{name}:{}", self.name)).unwrap()
    }

    /// A signed request, not yet sent.
    fn request(&self, method: &Method, path: &str, body: Option<&str>) -> Request<Body> {
        let signed = hearth_event::SignedRequest {
            method: method.as_str(),
            uri: path,
            origin: &self.name,
            destination: Some(server_name!("hs.test")),
            content: body.map(str::as_bytes),
        };
        let (key_id, signature) = (self.key.key_id(), signed.sign(&self.key).unwrap());
        let header =
            format!("X-Matrix origin=\"{}\",destination=\"hs.test\",key=\"{key_id}\",sig=\"{signature}\"", self.name);
        let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, header);
        request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_owned()))).unwrap()
    }

    async fn get(&self, world: &World, path: &str) -> Answer {
        world.send(self.request(&Method::GET, path, None)).await
    }

    async fn put(&self, world: &World, path: &str, body: &str) -> Answer {
        world.send(self.request(&Method::PUT, path, Some(body))).await
    }

    async fn post(&self, world: &World, path: &str, body: Value) -> Answer {
        world.send(self.request(&Method::POST, path, Some(&body.to_string()))).await
    }

    /// An event at the room's end as `world` has it.
    async fn event(
        &self,
        world: &World,
        (room_id, sender): (&RoomId, &UserId),
        (event_type, state_key): (&str, Option<&str>),
        content: Value,
    ) -> Pdu {
        let (rooms, room) = (&world.rooms, world.rooms.ids().room(room_id));
        let view = rooms.view().await.unwrap();
        let version = RoomVersion::parse(&rooms.room(&view, room).await.unwrap().unwrap().version).unwrap();
        let (head, content) = (rooms.head(&view, room).await.unwrap(), object(content));
        let mut auth_events = Vec::new();
        for (kind, key) in auth_types(version, event_type, sender, state_key, &content).unwrap() {
            if let Some(event) = rooms.current_event(&view, room, &kind, &key).await.unwrap() {
                auth_events.push(event.event_id().to_owned());
            }
        }
        let draft = EventDraft {
            room_id: Some(room_id.to_owned()),
            event_type: event_type.to_owned(),
            state_key: state_key.map(str::to_owned),
            sender: sender.to_owned(),
            content,
            origin_server_ts: world.clock.now().0,
            prev_events: head.extremities.iter().map(|end| end.event_id.as_str().try_into().unwrap()).collect(),
            auth_events,
            depth: head.extremities.iter().map(|end| end.depth).max().unwrap_or(0) + 1,
            redacts: None,
        };
        build(draft, version, &self.name, &self.key).unwrap()
    }

    /// The membership of a user of its own, at the room's end.
    async fn member(&self, world: &World, room: &RoomId, user: &UserId, content: Value) -> Pdu {
        self.event(world, (room, user), ("m.room.member", Some(user.as_str())), content).await
    }

    /// Puts `event` to `send_join`, `send_leave` or `send_knock`.
    async fn hand_in(&self, world: &World, endpoint: &str, room: &RoomId, event: &Pdu) -> Answer {
        self.put(world, &format!("{endpoint}/{}/{}", pct(room.as_str()), pct(event.event_id().as_str())), text(event))
            .await
    }

    /// Its user `name` joins; gives the answer of `send_join`.
    async fn join(&self, world: &World, room: &RoomId, name: &str) -> Value {
        let user = self.user(name);
        let event = self.member(world, room, &user, json!({"membership": "join"})).await;
        self.hand_in(world, &format!("{V2}/send_join"), room, &event).await.ok()
    }

    /// Sends events in a transaction.
    async fn transact(&self, world: &World, txn: &str, pdus: &[&str]) -> Answer {
        let body = format!(r#"{{"origin":"{}","origin_server_ts":1,"pdus":[{}]}}"#, self.name, pdus.join(","));
        self.put(world, &format!("{V1}/send/{txn}"), &body).await
    }
}

fn alice() -> OwnedUserId {
    OwnedUserId::try_from("@alice:hs.test").unwrap()
}

fn text(event: &Pdu) -> &str {
    std::str::from_utf8(event.json()).unwrap()
}

fn object(value: Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        other => panic!("no object: {other:?}"),
    }
}

fn creation(preset: Preset) -> CreateRoom {
    CreateRoom {
        creator: alice(),
        profile: MemberProfile::default(),
        version: None,
        preset: Some(preset),
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

/// Percent-encodes a path segment.
fn pct(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A path about an event of a room.
fn about(endpoint: &str, room: &RoomId, event: &EventId) -> String {
    format!("{V1}/{endpoint}/{}?event_id={}", pct(room.as_str()), pct(event.as_str()))
}

/// `type` of each event in a list.
fn types(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect()
}
