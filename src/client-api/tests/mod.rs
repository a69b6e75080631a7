//! The whole router on the memory engine, asked as a client asks.

mod accounts;
mod aggregations;
mod bodies;
mod compress;
mod coverage;
mod delayed;
mod directory;
mod edge;
mod elsewhere;
mod entering;
mod ephemeral;
mod exactness;
mod fallen;
mod legacy;
mod limits;
mod member_state;
mod outsiders;
mod presence;
mod pushers;
mod receipts;
mod record;
mod relations;
mod reports;
mod rooms;
mod screening;
mod services;
mod sliding;
mod standing;
mod sync;
mod threads;
mod upgrade;
mod visibility;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hearth_accounts::{
    Accounts, AccountsParts, AccountsSettings, Argon2Cost, NewRegistrationToken, PresenceMode, Registration,
};
use hearth_base::{Clock, FixedClock, Millis, SeededRandom};
use hearth_event::{RoomVersion, SigningKey};
use hearth_fanout::{Departures, Follower, Followups, Unread};
use hearth_rooms::remote::Remote;
use hearth_rooms::{RoomSettings, Rooms, RoomsParts};
use hearth_schema::Ids;
use hearth_store::Store;
use hearth_store::memory::MemoryStore;
use hearth_sync::{Incarnation, Sync, SyncParts, SyncSettings};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use ruma_common::{UserId, server_name};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

use crate::{ClientApi, ClientApiSettings, Elsewhere};

const CLIENT: &str = "/_matrix/client/v3";
const PASSWORD: &str = "correct horse";

/// A server.
struct World {
    router: Router,
    rooms: Rooms,
    accounts: Arc<Accounts>,
    clock: Arc<FixedClock>,
    shutdown: CancellationToken,
    _end: DropGuard,
}

/// Somebody who is logged in.
struct Person {
    id: String,
    token: String,
    device: String,
}

/// An answer, read.
#[derive(Debug)]
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
    fn new() -> Self {
        Self::with(Registration::Open, |_| {})
    }

    fn with(registration: Registration, change: impl FnOnce(&mut ClientApiSettings)) -> Self {
        Self::build(Self::accounts(registration), change)
    }

    fn with_presence(presence: PresenceMode) -> Self {
        Self::build(AccountsSettings { presence, ..Self::accounts(Registration::Open) }, |_| {})
    }

    fn accounts(registration: Registration) -> AccountsSettings {
        AccountsSettings {
            argon2: Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 },
            registration,
            reserved_localparts: BTreeSet::from(["admin".to_owned()]),
            ..AccountsSettings::default()
        }
    }

    fn build(accounts: AccountsSettings, change: impl FnOnce(&mut ClientApiSettings)) -> Self {
        Self::among(accounts, change, (Arc::new(hearth_rooms::remote::NoRemote), Arc::new(crate::Nowhere)))
    }

    /// A server that knows others.
    fn among(
        accounts: AccountsSettings,
        change: impl FnOnce(&mut ClientApiSettings),
        (remote, elsewhere): (Arc<dyn Remote>, Arc<dyn Elsewhere>),
    ) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let fixed = Arc::new(FixedClock::new(Millis(1_700_000_000_000)));
        let clock: Arc<dyn Clock> = Arc::clone(&fixed) as _;
        let (shutdown, ids) = (CancellationToken::new(), Ids::new([5; 32]));
        let server_name = server_name!("hs.test").to_owned();
        let rooms = Rooms::new(RoomsParts {
            store: Arc::clone(&store),
            ids: ids.clone(),
            clock: Arc::clone(&clock),
            random: Arc::new(SeededRandom::new(1)),
            server_name: server_name.clone(),
            signing_key: Arc::new(SigningKey::from_seed([3; 32], "test").unwrap()),
            settings: RoomSettings { default_version: RoomVersion::DEFAULT },
            remote,
            shutdown: shutdown.clone(),
        });
        let accounts = Accounts::new(AccountsParts {
            store: Arc::clone(&store),
            ids,
            clock: Arc::clone(&clock),
            random: Arc::new(SeededRandom::new(2)),
            server_name: server_name.clone(),
            settings: accounts,
        });
        let accounts = Arc::new(accounts.unwrap());
        let unread = Unread::new(rooms.clone(), server_name.clone());
        let unread = Follower::new(Arc::clone(&store), unread);
        let (sync, notifier) = Sync::new(SyncParts {
            rooms: rooms.clone(),
            accounts: Arc::clone(&accounts),
            clock: Arc::clone(&clock),
            server_name: server_name.clone(),
            incarnation: Incarnation::default(),
            counted: unread.progress(),
            settings: SyncSettings::default(),
            shutdown: shutdown.clone(),
        });
        tokio::spawn(notifier);
        tokio::spawn(rooms.clone().run_delayed(shutdown.clone()));
        tokio::spawn(unread.run(shutdown.clone()));
        let followups = Followups::new(rooms.clone(), Arc::clone(&accounts), server_name.clone());
        tokio::spawn(Follower::new(Arc::clone(&store), followups).run(shutdown.clone()));
        let departures = Departures::new(rooms.clone(), Arc::clone(&accounts));
        tokio::spawn(Follower::new(store, departures).run(shutdown.clone()));
        let mut settings = ClientApiSettings::new(server_name);
        change(&mut settings);
        let parts = ClientApi {
            rooms: rooms.clone(),
            accounts: Arc::clone(&accounts),
            sync,
            elsewhere,
            clock,
            settings: Arc::new(settings),
            shutdown: shutdown.clone(),
        };
        Self {
            router: record::around(crate::router(parts)),
            rooms,
            accounts,
            clock: fixed,
            _end: shutdown.clone().drop_guard(),
            shutdown,
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// A request with a body as it is.
    async fn raw(&self, method: Method, path: &str, by: Option<&Person>, body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(person) = by {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", person.token));
        }
        self.send(request.body(Body::from(body.into())).unwrap()).await
    }

    async fn get(&self, path: &str, by: &Person) -> Answer {
        self.raw(Method::GET, &format!("{CLIENT}{path}"), Some(by), "").await
    }

    async fn post(&self, path: &str, by: &Person, body: Value) -> Answer {
        self.raw(Method::POST, &format!("{CLIENT}{path}"), Some(by), body.to_string()).await
    }

    async fn put(&self, path: &str, by: &Person, body: Value) -> Answer {
        self.raw(Method::PUT, &format!("{CLIENT}{path}"), Some(by), body.to_string()).await
    }

    /// A request of nobody in particular.
    async fn open(&self, method: Method, path: &str, body: Value) -> Answer {
        self.raw(method, &format!("{CLIENT}{path}"), None, body.to_string()).await
    }

    async fn register(&self, name: &str) -> Person {
        let body = json!({"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}});
        person(&self.open(Method::POST, "/register", body).await.ok())
    }

    /// Waits until a user whose account has ended is in no room.
    async fn has_departed(&self, person: &Person) {
        let user_id = UserId::parse(&person.id).unwrap();
        for _ in 0..500 {
            if self.rooms.joined_room_ids(&user_id).await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} is in rooms still", person.id);
    }

    async fn create_room(&self, by: &Person, body: Value) -> String {
        self.post("/createRoom", by, body).await.ok()["room_id"].as_str().unwrap().to_owned()
    }
}

fn person(answer: &Value) -> Person {
    let text = |key: &str| answer[key].as_str().unwrap().to_owned();
    Person { id: text("user_id"), token: text("access_token"), device: text("device_id") }
}

/// Percent-encodes a path segment.
fn pct(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A path in a room.
fn in_room(room: &str, rest: &str) -> String {
    format!("/rooms/{}/{rest}", pct(room))
}

/// The `auth` of somebody who knows the password.
fn with_password(person: &Person, session: &Value) -> Value {
    let identifier = json!({"type": "m.id.user", "user": person.id});
    json!({"type": "m.login.password", "identifier": identifier, "password": PASSWORD, "session": session})
}
