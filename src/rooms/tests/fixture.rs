//! A server's rooms without a server.

use std::sync::Arc;

use hearth_base::{FixedClock, Millis, SeededRandom};
use hearth_event::{RoomVersion, SigningKey};
use hearth_schema::{Ids, Membership};
use hearth_store::memory::MemoryStore;
use hearth_store::{Store, chaos};
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    CreateRoom, HistoryQuery, MemberProfile, MembershipChange, MembershipError, Preset, RoomEvent, RoomSettings,
    RoomVisibility, Rooms, RoomsParts, SendError, SendEvent, Sent, Transaction,
};

pub(super) struct Fixture {
    pub rooms: Rooms,
    pub store: Arc<dyn Store>,
    pub clock: Arc<FixedClock>,
    pub shutdown: CancellationToken,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()))
    }

    /// Commits conflict, answers get lost, reads are slow.
    pub(super) fn on_chaos(seed: u64) -> Self {
        let rates = chaos::ChaosRates { conflict: 20, expired: 0, ..chaos::ChaosRates::default() };
        Self::on(Arc::new(chaos::ChaosStore::with_rates(MemoryStore::new(), seed, rates)))
    }

    pub(super) fn on(store: Arc<dyn Store>) -> Self {
        Self::named("hearth.test", [3; 32], store, Arc::new(crate::remote::NoRemote))
    }

    /// The server called `name`, with neighbours.
    pub(super) fn named(
        name: &str,
        seed: [u8; 32],
        store: Arc<dyn Store>,
        remote: Arc<dyn crate::remote::Remote>,
    ) -> Self {
        let shutdown = CancellationToken::new();
        let key = SigningKey::from_seed(seed, "test").expect("a valid key");
        let clock = Arc::new(FixedClock::new(Millis(1_700_000_000_000)));
        let rooms = Rooms::new(RoomsParts {
            store: Arc::clone(&store),
            ids: Ids::new([5; 32]),
            clock: Arc::clone(&clock) as _,
            random: Arc::new(SeededRandom::new(1)),
            server_name: name.try_into().expect("a valid name"),
            signing_key: Arc::new(key),
            settings: RoomSettings { default_version: RoomVersion::DEFAULT },
            remote,
            shutdown: shutdown.clone(),
        });
        Self { rooms, store, clock, shutdown }
    }

    /// The same store after a restart.
    pub(super) async fn restarted(self) -> Self {
        self.shutdown.cancel();
        self.rooms.join().await;
        Self::on(self.store)
    }

    pub(super) async fn room(&self, preset: Preset) -> OwnedRoomId {
        self.rooms.create(creation(preset)).await.expect("a room")
    }

    pub(super) async fn say(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        body: &str,
        txn: &str,
    ) -> Result<Sent, SendError> {
        self.rooms.send(message(room_id, sender, body, txn)).await
    }

    pub(super) async fn change(
        &self,
        room_id: &RoomId,
        (sender, target): (&UserId, &UserId),
        membership: Membership,
    ) -> Result<Sent, MembershipError> {
        self.rooms.change_membership(change(room_id, (sender, target), membership)).await
    }

    /// What `user` is shown of the whole room, oldest first: message bodies, and types of the rest.
    pub(super) async fn history(&self, room_id: &RoomId, user: &UserId) -> Vec<String> {
        let mut query = HistoryQuery {
            room_id: room_id.to_owned(),
            from: None,
            to: None,
            direction: crate::Direction::Forward,
            limit: 3,
            filter: crate::EventFilter::default(),
        };
        let mut out = Vec::new();
        loop {
            let page = self.rooms.messages(user, &query).await.expect("a page");
            out.extend(page.events.iter().map(|event| label(event)));
            match page.end {
                Some(end) => query.from = Some(end),
                None => return out,
            }
        }
    }
}

/// The body of a message, the type of anything else.
pub(super) fn label(event: &RoomEvent) -> String {
    let content: Value = serde_json::from_str(event.pdu.content().get()).expect("JSON");
    content["body"].as_str().unwrap_or(event.event_type()).to_owned()
}

pub(super) fn user(name: &str) -> OwnedUserId {
    OwnedUserId::try_from(format!("@{name}:hearth.test")).expect("a valid user ID")
}

pub(super) fn object(value: Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        other => panic!("no object: {other:?}"),
    }
}

pub(super) fn creation(preset: Preset) -> CreateRoom {
    CreateRoom {
        creator: user("alice"),
        profile: MemberProfile { displayname: Some("Alice".into()), avatar_url: None },
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

pub(super) fn message(room_id: &RoomId, sender: &UserId, body: &str, txn: &str) -> SendEvent {
    SendEvent {
        room_id: room_id.to_owned(),
        sender: sender.to_owned(),
        event_type: "m.room.message".into(),
        state_key: None,
        content: object(json!({ "msgtype": "m.text", "body": body })),
        redacts: None,
        origin_server_ts: None,
        transaction: Some(Transaction { device_id: "DEVICE".into(), scope: "send".into(), id: txn.into() }),
    }
}

pub(super) fn change(
    room_id: &RoomId,
    (sender, target): (&UserId, &UserId),
    membership: Membership,
) -> MembershipChange {
    MembershipChange {
        room_id: room_id.to_owned(),
        sender: sender.to_owned(),
        target: target.to_owned(),
        membership,
        only_from: None,
        reason: None,
        profile: MemberProfile::default(),
        is_direct: None,
    }
}
