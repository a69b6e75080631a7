//! Another server that says what a test wants it to say.

mod damaged;
mod hostile;
mod leaving;
mod out;
mod parting;
mod taking;

use std::sync::Arc;

use futures::future::BoxFuture;
use hearth_base::{FixedClock, Millis, SeededRandom};
use hearth_event::{EventDraft, Pdu, PublicKeys, RoomVersion, SigningKey, build, countersign};
use hearth_schema::{AccountKind, Ids, Moderation, User, UserRoom, Users};
use hearth_store::memory::MemoryStore;
use hearth_store::{Batch, Owner as _, Store, StoreError};
use parking_lot::Mutex;
use ruma_common::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId,
    room_id, server_name, user_id,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{GoodInvite, InviteError, InviteIn};
use crate::remote::*;
use crate::{MembershipChange, RoomSettings, Rooms, RoomsParts};

const PREV: &str = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What `mal.test` does with an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signs {
    Invitation,
    Nothing,
    AnotherEvent,
    WithAnotherKey,
}

/// `mal.test`
pub(super) struct Mal {
    /// What `make_leave` and `make_knock` suggest; `None`: they are refused.
    pub template: Mutex<Option<Template>>,
    /// What `send_leave`, `send_knock` and `invite` were given.
    pub sent: Mutex<Vec<Pdu>>,
    pub described: Mutex<Vec<RawPdu>>,
    pub signs: Mutex<Signs>,
}

pub(super) fn mal_key() -> SigningKey {
    SigningKey::from_seed([9; 32], "mal").expect("a key")
}

fn own_key() -> SigningKey {
    SigningKey::from_seed([3; 32], "test").expect("a key")
}

fn object(value: Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        other => panic!("no object: {other:?}"),
    }
}

pub(super) fn raw(pdu: &Pdu) -> RawPdu {
    RawValue::from_string(String::from_utf8(pdu.json().to_vec()).expect("text")).expect("JSON")
}

pub(super) fn raw_json(value: &Value) -> RawPdu {
    RawValue::from_string(value.to_string()).expect("JSON")
}

pub(super) fn bob() -> &'static UserId {
    user_id!("@bob:hearth.test")
}

pub(super) fn mallory() -> &'static UserId {
    user_id!("@mallory:mal.test")
}

pub(super) fn there() -> &'static RoomId {
    room_id!("!room:mal.test")
}

pub(super) fn version(name: &str) -> RoomVersion {
    RoomVersion::parse(name).expect("known")
}

impl Mal {
    fn refusal<T>() -> Result<T, RemoteError> {
        let (server, error) = (server_name!("mal.test").to_owned(), "no".to_owned());
        Err(RemoteError::Refused { server, status: 403, errcode: "M_FORBIDDEN".into(), error })
    }

    fn take(&self, pdu: &Pdu) {
        self.sent.lock().push(pdu.clone());
    }
}

impl Remote for Mal {
    fn keys<'a>(&'a self, wanted: &'a [KeyWish]) -> BoxFuture<'a, Result<PublicKeys, StoreError>> {
        Box::pin(async move {
            let mut keys = PublicKeys::default();
            for wish in wanted.iter().filter(|wish| wish.server == "mal.test") {
                let key = mal_key();
                keys.insert(&wish.server, key.key_id(), &key.public_key_base64(), u64::MAX).expect("a key");
            }
            Ok(keys)
        })
    }
    fn make<'a>(&'a self, _: &'a ServerName, _: Handshake, _: &'a RoomId, _: &'a OwnedUserId) -> Answer<'a, Template> {
        Box::pin(async { self.template.lock().clone().map_or_else(Self::refusal, Ok) })
    }
    fn send_leave<'a>(&'a self, _: &'a ServerName, event: &'a Pdu) -> Answer<'a, ()> {
        self.take(event);
        Box::pin(async { Ok(()) })
    }
    fn send_knock<'a>(&'a self, _: &'a ServerName, event: &'a Pdu) -> Answer<'a, Vec<RawPdu>> {
        self.take(event);
        Box::pin(async { Ok(self.described.lock().clone()) })
    }
    fn invite<'a>(&'a self, _: &'a ServerName, invite: &'a InviteOut) -> Answer<'a, RawPdu> {
        self.take(&invite.event);
        self.described.lock().clone_from(&invite.invite_room_state);
        let signs = *self.signs.lock();
        Box::pin(async move {
            let name = server_name!("mal.test");
            Ok(match signs {
                Signs::Invitation => raw(&countersign(&invite.event, name, &mal_key()).expect("signed")),
                Signs::Nothing => raw(&invite.event),
                Signs::AnotherEvent => raw(&invitation(json!({}))),
                Signs::WithAnotherKey => {
                    let key = SigningKey::from_seed([1; 32], "mal").expect("a key");
                    raw(&countersign(&invite.event, name, &key).expect("signed"))
                }
            })
        })
    }
}

/// `hearth.test`, which knows `mal.test`.
pub(super) struct World {
    pub rooms: Rooms,
    pub mal: Arc<Mal>,
    pub store: Arc<dyn Store>,
}

impl World {
    pub(super) async fn new() -> Self {
        let world = Self::on(Arc::new(MemoryStore::new()));
        world.register(bob(), Standing::Active).await;
        world
    }

    pub(super) fn on(store: Arc<dyn Store>) -> Self {
        let mal = Arc::new(Mal {
            template: Mutex::default(),
            sent: Mutex::default(),
            described: Mutex::default(),
            signs: Mutex::new(Signs::Invitation),
        });
        let rooms = Rooms::new(RoomsParts {
            store: Arc::clone(&store),
            ids: Ids::new([5; 32]),
            clock: Arc::new(FixedClock::new(Millis(1_700_000_000_000))),
            random: Arc::new(SeededRandom::new(1)),
            server_name: server_name!("hearth.test").to_owned(),
            signing_key: Arc::new(own_key()),
            settings: RoomSettings { default_version: RoomVersion::DEFAULT },
            remote: Arc::clone(&mal) as _,
            shutdown: CancellationToken::new(),
        });
        Self { rooms, mal, store }
    }

    pub(super) async fn register(&self, user: &UserId, standing: Standing) {
        let nid = self.rooms.ids().user(user);
        let mut batch = Batch::new(nid.lane());
        let row = User {
            user_id: user.to_string(),
            password_hash: None,
            created_at: 0,
            deactivated: standing == Standing::Deactivated,
            admin: false,
            next_filter: 0,
            account_data: 0,
            account_data_rows: 0,
            generation: 0,
            kind: AccountKind::User,
            moderation: Moderation::default(),
            user_type: None,
            accepted_terms: std::collections::BTreeMap::new(),
        };
        batch.put::<Users>(&(nid,), &row);
        self.store.commit(batch).await.expect("stored");
    }

    pub(super) async fn row(&self, room_id: &RoomId) -> Option<UserRoom> {
        let view = self.rooms.view().await.expect("a view");
        let (user, room) = (self.rooms.ids().user(bob()), self.rooms.ids().room(room_id));
        self.rooms.membership(&view, user, room).await.expect("readable")
    }

    pub(super) async fn shown(&self, room_id: &RoomId) -> Vec<Value> {
        let row = self.row(room_id).await.expect("a row");
        let view = self.rooms.view().await.expect("a view");
        let key = (self.rooms.ids().user(bob()), self.rooms.ids().room(room_id));
        let outside = self.rooms.outside_room(&view, key, row.pos).await.expect("readable").expect("outside");
        let events = outside.events.iter().map(|json| serde_json::from_str(json).expect("JSON"));
        events.chain(outside.stripped.map(|json| serde_json::from_slice(&json).expect("JSON"))).collect()
    }

    pub(super) async fn invite(&self, invite: &InviteIn) -> Result<Pdu, InviteError> {
        let good: GoodInvite = self.rooms.check_invite(server_name!("mal.test"), invite).await?;
        self.rooms.take_invite(good).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Active,
    Deactivated,
}

/// An event of `@mallory:mal.test` in version 10 that is an invitation of Bob but for `changes`.
#[expect(clippy::needless_pass_by_value, reason = "the tests write it where they call")]
pub(super) fn invitation(changes: Value) -> Pdu {
    invitation_in(there(), version("10"), &changes)
}

pub(super) fn invitation_in(room_id: &RoomId, version: RoomVersion, changes: &Value) -> Pdu {
    let text = |key: &str, otherwise: &str| changes[key].as_str().unwrap_or(otherwise).to_owned();
    let sender = OwnedUserId::try_from(text("sender", mallory().as_str())).expect("a user");
    let content =
        if changes["content"].is_null() { json!({ "membership": "invite" }) } else { changes["content"].clone() };
    let draft = EventDraft {
        room_id: Some(OwnedRoomId::try_from(text("room_id", room_id.as_str())).expect("a room")),
        event_type: text("type", "m.room.member"),
        state_key: Some(text("state_key", bob().as_str())),
        sender: sender.clone(),
        content: object(content),
        origin_server_ts: 1_700_000_000_000,
        prev_events: vec![OwnedEventId::try_from(PREV).expect("an ID")],
        auth_events: vec![],
        depth: 5,
        redacts: None,
    };
    build(draft, version, sender.server_name(), &mal_key()).expect("an event")
}

pub(super) fn incoming(pdu: &Pdu) -> InviteIn {
    let name = json!({ "type": "m.room.name", "state_key": "", "sender": mallory(), "content": { "name": "Cave" } });
    InviteIn {
        room_id: there().to_owned(),
        event_id: pdu.event_id().to_owned(),
        version: pdu.version(),
        event: raw(pdu),
        invite_room_state: vec![raw_json(&name)],
    }
}

/// What a leave, join or knock of Bob's asks for.
pub(super) fn change(membership: hearth_schema::Membership) -> MembershipChange {
    MembershipChange {
        room_id: there().to_owned(),
        sender: bob().to_owned(),
        target: bob().to_owned(),
        membership,
        only_from: None,
        reason: Some("because".into()),
        profile: crate::MemberProfile { displayname: Some("Bob".into()), avatar_url: None },
        is_direct: None,
    }
}

pub(super) fn template(membership: &str) -> Template {
    let event = object(json!({
        "type": "m.room.member", "room_id": there(), "sender": bob(), "state_key": bob(),
        "content": { "membership": membership, "evil": true }, "depth": 12, "prev_events": [PREV], "auth_events": [],
    }));
    Template { room_version: version("10"), event }
}
