//! A server without HTTP: rooms, accounts, the unread consumer and sync on one store.

use std::sync::Arc;
use std::time::Duration;

use hearth_accounts::{
    Accounts, AccountsParts, AccountsSettings, Argon2Cost, DeviceRequest, NewAccount, PresenceMode, Registration,
    Requester,
};
use hearth_base::{Millis, Random, Secret, SeededRandom, SystemClock};
use hearth_event::{RoomVersion, SigningKey};
use hearth_fanout::{Follower, Unread};
use hearth_rooms::{
    CreateRoom, InitialState, MemberProfile, MembershipChange, Preset, RoomSettings, RoomVisibility, Rooms, RoomsParts,
    SendEvent, Transaction,
};
use hearth_schema::{Ids, Membership};
use hearth_store::memory::MemoryStore;
use hearth_store::{Pos, Store};
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedServerName, RoomId};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Incarnation, Sync, SyncError, SyncParts, SyncRequest, SyncSettings};

/// Lazy loading, as clients ask for it.
pub(crate) const LAZY: &str = r#"{"room":{"state":{"lazy_load_members":true}}}"#;
/// Longer than any poll of a test needs.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub rooms: Rooms,
    pub accounts: Arc<Accounts>,
    pub sync: Sync,
    pub store: Arc<dyn Store>,
    pub shutdown: CancellationToken,
    random: Arc<dyn Random>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()))
    }

    pub(crate) fn on(store: Arc<dyn Store>) -> Self {
        Self::with(store, PresenceMode::Off)
    }

    pub(crate) fn with(store: Arc<dyn Store>, presence: PresenceMode) -> Self {
        Self::with_parts(store, presence, |store, rooms, shutdown| {
            let unread = Follower::new(store, Unread::new(rooms, server_name()));
            let counted = unread.progress();
            tokio::spawn(unread.run(shutdown));
            counted
        })
    }

    /// `count` starts what counts, and gives how far it has come.
    pub(crate) fn with_counting(
        store: Arc<dyn Store>,
        count: impl FnOnce(Arc<dyn Store>, Rooms, CancellationToken) -> watch::Receiver<Pos>,
    ) -> Self {
        Self::with_parts(store, PresenceMode::Off, count)
    }

    fn with_parts(
        store: Arc<dyn Store>,
        presence: PresenceMode,
        count: impl FnOnce(Arc<dyn Store>, Rooms, CancellationToken) -> watch::Receiver<Pos>,
    ) -> Self {
        let shutdown = CancellationToken::new();
        let (ids, clock) = (Ids::new([5; 32]), Arc::new(SystemClock));
        // Another seed each time: what a restarted server makes up must be new.
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(store.frontier().base().get()));
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
        let cost = Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 };
        let settings = AccountsSettings {
            argon2: cost,
            registration: Registration::Open,
            presence,
            ..AccountsSettings::default()
        };
        let accounts = Arc::new(
            Accounts::new(AccountsParts {
                store: Arc::clone(&store),
                ids,
                clock: clock.clone(),
                random: Arc::clone(&random),
                server_name: server_name(),
                settings,
            })
            .expect("threads start"),
        );
        let (sync, notifier) = Sync::new(SyncParts {
            rooms: rooms.clone(),
            accounts: Arc::clone(&accounts),
            clock,
            server_name: server_name(),
            incarnation: Incarnation(1),
            counted: count(Arc::clone(&store), rooms.clone(), shutdown.clone()),
            settings: SyncSettings::default(),
            shutdown: shutdown.clone(),
        });
        tokio::spawn(notifier);
        Self { rooms, accounts, sync, store, shutdown, random }
    }

    /// The same store after a restart.
    pub(crate) async fn restarted(self) -> Self {
        self.shutdown.cancel();
        self.rooms.join().await;
        Self::on(self.store)
    }

    /// A new user with its first device.
    pub(crate) async fn user(&self, name: &str) -> Requester {
        let device = DeviceRequest { device_id: Some("DEV".into()), ..DeviceRequest::default() };
        let account = NewAccount {
            localpart: Some(name.into()),
            password: Some(Secret::new("correct horse battery".to_owned())),
            device,
            ..NewAccount::default()
        };
        let mut registered = self.accounts.register(account.clone()).await;
        // Only on a store that misbehaves.
        while registered.is_err() {
            registered = self.accounts.register(account.clone()).await;
        }
        let session = registered.expect("a new user").session.expect("a session");
        loop {
            if let Ok(found) = self.accounts.authenticate(session.access_token.expose()).await {
                return Requester::clone(&found.expect("a valid token"));
            }
        }
    }

    /// A room whose creator is `owner` and whose other members have joined.
    pub(crate) async fn room(&self, owner: &Requester, members: &[&Requester]) -> OwnedRoomId {
        let room_id = self.rooms.create(creation(owner)).await.expect("a room");
        for member in members {
            self.change(&room_id, member, member, Membership::Join).await;
        }
        room_id
    }

    pub(crate) async fn change(&self, room_id: &RoomId, by: &Requester, target: &Requester, membership: Membership) {
        let name = target.user_id.localpart().to_owned();
        self.rooms
            .change_membership(MembershipChange {
                room_id: room_id.to_owned(),
                sender: by.user_id.clone(),
                target: target.user_id.clone(),
                membership,
                only_from: None,
                reason: None,
                profile: MemberProfile { displayname: Some(name), avatar_url: None },
                is_direct: None,
            })
            .await
            .expect("a change of membership");
    }

    pub(crate) async fn say(&self, room_id: &RoomId, sender: &Requester, body: &str) -> String {
        self.event(room_id, sender, ("m.room.message", None), json!({ "msgtype": "m.text", "body": body })).await
    }

    pub(crate) async fn event(
        &self,
        room_id: &RoomId,
        sender: &Requester,
        (event_type, state_key): (&str, Option<&str>),
        content: Value,
    ) -> String {
        let id = self.random.alphanumeric(12);
        let event = SendEvent {
            room_id: room_id.to_owned(),
            sender: sender.user_id.clone(),
            event_type: event_type.to_owned(),
            state_key: state_key.map(str::to_owned),
            content: object(content),
            redacts: None,
            origin_server_ts: None,
            transaction: Some(Transaction { device_id: sender.client.name().to_string(), scope: "send".into(), id }),
        };
        loop {
            // Only a store that misbehaves says no; the transaction makes the repetition harmless.
            if let Ok(sent) = self.rooms.send(event.clone()).await {
                return sent.event_id.to_string();
            }
        }
    }

    /// An answer at once.
    pub(crate) async fn now(&self, who: &Requester, since: Option<&str>, filter: &str) -> Value {
        self.ask(who, &SyncRequest { since, filter: Some(filter), ..SyncRequest::default() }).await
    }

    /// An answer with news.
    pub(crate) async fn poll(&self, who: &Requester, since: &str) -> Value {
        let filter = Some(r#"{"room":{"timeline":{"limit":1000}}}"#);
        self.ask(who, &SyncRequest { since: Some(since), filter, timeout: LONG, ..SyncRequest::default() }).await
    }

    pub(crate) async fn ask(&self, who: &Requester, request: &SyncRequest<'_>) -> Value {
        let bytes = self.sync.sync(who, request).await.expect("an answer");
        serde_json::from_slice(&bytes).expect("an answer is JSON")
    }

    pub(crate) async fn fails(&self, who: &Requester, since: Option<&str>, filter: Option<&str>) -> SyncError {
        let request = SyncRequest { since, filter, ..SyncRequest::default() };
        self.sync.sync(who, &request).await.expect_err("no answer")
    }
}

pub(crate) fn server_name() -> OwnedServerName {
    "hearth.test".try_into().expect("a valid name")
}

pub(crate) fn now() -> Millis {
    hearth_base::Clock::now(&SystemClock)
}

pub(crate) fn object(value: Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        other => panic!("no object: {other:?}"),
    }
}

pub(crate) fn creation(owner: &Requester) -> CreateRoom {
    CreateRoom {
        creator: owner.user_id.clone(),
        profile: MemberProfile { displayname: Some(owner.user_id.localpart().to_owned()), avatar_url: None },
        version: None,
        preset: Some(Preset::PublicChat),
        visibility: RoomVisibility::Private,
        name: None,
        topic: None,
        alias: None,
        invite: Vec::new(),
        is_direct: None,
        creation_content: CanonicalJsonObject::new(),
        initial_state: vec![InitialState {
            event_type: "m.room.guest_access".into(),
            state_key: String::new(),
            content: [("guest_access".into(), CanonicalJsonValue::String("forbidden".into()))].into(),
        }],
        power_level_content_override: None,
    }
}

/// The token to go on from.
pub(crate) fn next(answer: &Value) -> String {
    answer["next_batch"].as_str().expect("next_batch").to_owned()
}

/// Bodies of messages and types of the rest, in the timeline of a joined room.
pub(crate) fn bodies(room: &Value) -> Vec<String> {
    let events = room["timeline"]["events"].as_array().map_or(&[][..], Vec::as_slice);
    let label = |event: &Value| event["content"]["body"].as_str().or(event["type"].as_str()).map(str::to_owned);
    events.iter().map(|event| label(event).expect("a type")).collect()
}

/// `type/state_key` of the state, sorted.
pub(crate) fn state(room: &Value) -> Vec<String> {
    let events = room["state"]["events"].as_array().map_or(&[][..], Vec::as_slice);
    let mut keys: Vec<String> = events
        .iter()
        .map(|event| {
            format!("{}/{}", event["type"].as_str().expect("a type"), event["state_key"].as_str().expect("a key"))
        })
        .collect();
    keys.sort();
    keys
}

pub(crate) fn joined<'a>(answer: &'a Value, room_id: &RoomId) -> &'a Value {
    &answer["rooms"]["join"][room_id.as_str()]
}
