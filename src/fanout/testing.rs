//! A server without HTTP, and other servers that only have a key.

use std::sync::Arc;

use hearth_accounts::{
    Accounts, AccountsParts, AccountsSettings, Argon2Cost, DeviceRequest, NewAccount, PresenceMode, Registration,
    Requester,
};
use hearth_base::{Clock, FixedClock, Millis, Random, Secret, SeededRandom};
use hearth_event::{EventDraft, Pdu, PublicKeys, RoomVersion, SigningKey, check};
use hearth_rooms::{
    CreateRoom, MemberProfile, MembershipChange, Preset, RoomSettings, RoomVisibility, Rooms, RoomsParts, SendEvent,
};
use hearth_schema::{Ids, Membership};
use hearth_store::Store;
use hearth_store::memory::MemoryStore;
use ruma_common::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId,
    UserId,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// When tests begin, in milliseconds.
pub(crate) const START: u64 = 1_700_000_000_000;

pub(crate) struct World {
    pub store: Arc<dyn Store>,
    pub rooms: Rooms,
    pub accounts: Arc<Accounts>,
    pub clock: Arc<FixedClock>,
    pub random: Arc<dyn Random>,
    pub shutdown: CancellationToken,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()))
    }

    /// A server that starts on what another one has left.
    pub(crate) fn on(store: Arc<dyn Store>) -> Self {
        let (ids, shutdown) = (Ids::new([5; 32]), CancellationToken::new());
        let clock = Arc::new(FixedClock::new(Millis(START)));
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
        let settings = AccountsSettings {
            argon2: Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 },
            registration: Registration::Open,
            presence: PresenceMode::On,
            ..AccountsSettings::default()
        };
        let accounts = Accounts::new(AccountsParts {
            store: Arc::clone(&store),
            ids,
            clock: clock.clone(),
            random: Arc::clone(&random),
            server_name: server_name(),
            settings,
        });
        let accounts = Arc::new(accounts.expect("threads start"));
        Self { store, rooms, accounts, clock, random, shutdown }
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    pub(crate) async fn device(&self, name: &str) -> Requester {
        let account = NewAccount {
            localpart: Some(name.into()),
            password: Some(Secret::new("correct horse battery".to_owned())),
            device: DeviceRequest { device_id: Some("DEV".into()), ..DeviceRequest::default() },
            ..NewAccount::default()
        };
        let session = self.accounts.register(account).await.expect("a new user").session.expect("a session");
        let token = session.access_token.expose();
        self.accounts.authenticate(token).await.expect("a store").expect("a new token works")
    }

    /// A room of alice, with other local members.
    pub(crate) async fn room(&self, members: &[&str]) -> OwnedRoomId {
        let room_id = self.rooms.create(creation()).await.expect("a room");
        for member in members {
            self.change(&room_id, member, member, Membership::Join).await;
        }
        room_id
    }

    pub(crate) async fn change(&self, room_id: &RoomId, sender: &str, target: &str, membership: Membership) {
        let change = MembershipChange {
            room_id: room_id.to_owned(),
            sender: user(sender),
            target: user(target),
            membership,
            only_from: None,
            reason: None,
            profile: MemberProfile::default(),
            is_direct: None,
        };
        self.rooms.change_membership(change).await.expect("a membership");
    }

    pub(crate) async fn send(
        &self,
        room_id: &RoomId,
        (event_type, state_key): (&str, Option<&str>),
        content: Value,
    ) -> OwnedEventId {
        let event = SendEvent {
            room_id: room_id.to_owned(),
            sender: user("alice"),
            event_type: event_type.to_owned(),
            state_key: state_key.map(str::to_owned),
            content: object(content),
            redacts: None,
            origin_server_ts: None,
            transaction: None,
        };
        self.rooms.send(event).await.expect("an event").event_id
    }

    pub(crate) async fn say(&self, room_id: &RoomId, body: &str) -> OwnedEventId {
        self.send(room_id, ("m.room.message", None), json!({ "msgtype": "m.text", "body": body })).await
    }

    pub(crate) async fn redact(&self, room_id: &RoomId, event_id: &EventId) -> OwnedEventId {
        let event = SendEvent {
            room_id: room_id.to_owned(),
            sender: user("alice"),
            event_type: "m.room.redaction".to_owned(),
            state_key: None,
            content: object(json!({ "redacts": event_id })),
            redacts: Some(event_id.to_owned()),
            origin_server_ts: None,
            transaction: None,
        };
        self.rooms.send(event).await.expect("a redaction").event_id
    }

    /// An event of another server's user, signed, on what the room is now.
    async fn foreign(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        (event_type, state_key): (&str, Option<&str>),
        content: Value,
    ) -> (Pdu, hearth_event::Verified) {
        let view = self.rooms.view().await.expect("a view");
        let room = self.rooms.ids().room(room_id);
        let head = self.rooms.head(&view, room).await.expect("a head");
        let join = content["membership"] == "join";
        let mut places = vec![("m.room.power_levels", ""), ("m.room.member", sender.as_str())];
        places.extend(join.then_some(("m.room.join_rules", "")));
        let mut auth_events = Vec::new();
        for (event_type, state_key) in places {
            if let Some(event) = self.rooms.current_event(&view, room, event_type, state_key).await.expect("a store") {
                auth_events.push(event.event_id().to_owned());
            }
        }
        let draft = EventDraft {
            room_id: Some(room_id.to_owned()),
            event_type: event_type.to_owned(),
            state_key: state_key.map(str::to_owned),
            sender: sender.to_owned(),
            content: object(content),
            origin_server_ts: self.now().0,
            prev_events: head.extremities.iter().map(|end| end.event_id.as_str().try_into().expect("an ID")).collect(),
            auth_events,
            depth: head.extremities.iter().map(|end| end.depth).max().unwrap_or(0) + 1,
            redacts: None,
        };
        let (server, key) = (sender.server_name(), foreign_key());
        let pdu = hearth_event::build(draft, RoomVersion::DEFAULT, server, &key).expect("an event");
        let mut keys = PublicKeys::default();
        keys.insert(server, key.key_id(), &key.public_key_base64(), u64::MAX).expect("a key");
        let checked = check(pdu.json(), RoomVersion::DEFAULT).expect("a valid event");
        (pdu, checked.verify(&keys).expect("signed"))
    }

    /// A user of another server joins or leaves through this one.
    pub(crate) async fn relay(&self, room_id: &RoomId, user_id: &str, membership: &str) -> OwnedEventId {
        let user_id = UserId::parse(user_id).expect("a user ID");
        let place = ("m.room.member", Some(user_id.as_str()));
        let (pdu, event) = self.foreign(room_id, &user_id, place, json!({ "membership": membership })).await;
        self.rooms.enter_handshake(user_id.server_name(), event).await.expect("the room takes it");
        pdu.event_id().to_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// All other servers of the tests have the same.
fn foreign_key() -> SigningKey {
    SigningKey::from_seed([9; 32], "foreign").expect("a valid key")
}

pub(crate) fn server_name() -> OwnedServerName {
    "hearth.test".try_into().expect("a valid name")
}

pub(crate) fn server(name: &str) -> OwnedServerName {
    name.try_into().expect("a valid name")
}

/// A local user, or one with a full ID.
pub(crate) fn user(name: &str) -> OwnedUserId {
    let name = if name.starts_with('@') { name.to_owned() } else { format!("@{name}:hearth.test") };
    UserId::parse(name).expect("a valid user ID")
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
