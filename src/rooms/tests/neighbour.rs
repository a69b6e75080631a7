//! Two servers that know each other, without a network between them.

use std::sync::{Arc, Mutex, OnceLock};

use futures::future::BoxFuture;
use hearth_event::{EventDraft, Pdu, PublicKeys, RoomVersion, SigningKey, build};
use hearth_store::StoreError;
use hearth_store::memory::MemoryStore;
use ruma_common::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::Value;
use serde_json::value::RawValue;

use super::fixture::{Fixture, creation, object};
use crate::remote::*;
use crate::{CreateRoom, Preset, RoomEvent, Rooms, SendError, Sent};

/// Both servers' names and the seeds of their keys.
const SERVERS: [(&str, [u8; 32]); 2] = [("hearth.test", [3; 32]), ("other.test", [4; 32])];

/// Another server as it is reached from the first.
#[derive(Default)]
pub(super) struct Neighbour {
    rooms: OnceLock<Rooms>,
    /// What it was asked.
    pub asked: Mutex<Vec<&'static str>>,
    /// It answers `get_missing_events` with nothing.
    pub forgetful: std::sync::atomic::AtomicBool,
    /// It answers it with something that is no event.
    pub nonsensical: std::sync::atomic::AtomicBool,
    /// Events that it tells in one answer to `get_missing_events` at the most; 0: as many as are asked for.
    pub page: std::sync::atomic::AtomicUsize,
    /// It does not answer when asked for one event, or for older ones.
    pub silent: std::sync::atomic::AtomicBool,
    /// It cannot be reached by who asks for what is missing.
    pub mute: std::sync::atomic::AtomicBool,
    /// Servers that never answer such a question.
    pub stalling: Mutex<std::collections::HashSet<String>>,
    /// Servers that did not answer in time.
    pub given_up: Mutex<Vec<ruma_common::OwnedServerName>>,
    /// It does not know `timestamp_to_event`.
    pub old: std::sync::atomic::AtomicBool,
    /// Events that it leaves out of the states that it tells.
    pub omitted: Mutex<Vec<OwnedEventId>>,
    /// Events that it tells as they were before they were redacted.
    pub originals: Mutex<Vec<Pdu>>,
    /// How often it gives no keys when it is asked for some.
    pub keyless: std::sync::atomic::AtomicUsize,
    /// Invitations are taken while this is free to be read.
    pub busy: tokio::sync::RwLock<()>,
    /// How often the store fails that keys are looked up in.
    pub broken: std::sync::atomic::AtomicUsize,
    /// What it says as a policy server.
    pub policy: Mutex<Option<super::policy::Says>>,
    /// Servers that let users join, by name.
    pub doors: Mutex<std::collections::HashMap<String, super::joining::Door>>,
}

/// `hearth.test` and `other.test`.
pub(super) struct Town {
    pub here: Fixture,
    pub there: Fixture,
    /// `there` as seen from `here`.
    pub neighbour: Arc<Neighbour>,
}

impl Town {
    pub(super) fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()))
    }

    /// The same, with a store for `hearth.test`.
    pub(super) fn on(store: Arc<dyn hearth_store::Store>) -> Self {
        let (neighbour, other_way) = (Arc::new(Neighbour::default()), Arc::new(Neighbour::default()));
        let [(here, here_seed), (there, there_seed)] = SERVERS;
        let here = Fixture::named(here, here_seed, store, Arc::clone(&neighbour) as _);
        let there = Fixture::named(there, there_seed, Arc::new(MemoryStore::new()), Arc::clone(&other_way) as _);
        assert!(neighbour.rooms.set(there.rooms.clone()).is_ok());
        assert!(other_way.rooms.set(here.rooms.clone()).is_ok());
        Self { here, there, neighbour }
    }

    /// A public room of `there`, which `@alice:hearth.test` has joined.
    pub(super) async fn shared_room(&self, version: RoomVersion) -> OwnedRoomId {
        let creator = other("olga");
        let create = CreateRoom { creator, version: Some(version), ..creation(Preset::PublicChat) };
        let room_id = self.there.rooms.create(create).await.expect("a room");
        self.join(&room_id, &super::fixture::user("alice")).await;
        room_id
    }

    /// `user` of `here` joins through `there`.
    pub(super) async fn join(&self, room_id: &RoomId, user: &UserId) -> Sent {
        let join = event_on(
            &self.there,
            room_id,
            user,
            ("m.room.member", Some(user.as_str())),
            serde_json::json!({ "membership": "join" }),
        )
        .await;
        let entered = self.there.rooms.enter_handshake(name(0), verified(&join).await).await.expect("a join");
        assert!(entered.pos > hearth_store::Pos::ZERO);
        let state = answer_before(&self.there.rooms, room_id, join.event_id()).await;
        self.here.rooms.import(name(1), join, state).await.expect("an import")
    }

    /// Gives `to` the events of `from` with these IDs, in one transaction.
    pub(super) async fn deliver(
        from: &Fixture,
        to: &Fixture,
        room_id: &RoomId,
        ids: &[&EventId],
    ) -> Vec<crate::Received> {
        let mut pdus = Vec::new();
        for id in ids {
            pdus.push(raw(&event(&from.rooms, room_id, id).await.expect("an event").pdu));
        }
        let origin = from.rooms.0.signer.server_name.clone();
        let received = to.rooms.receive(&origin, pdus).await.expect("received");
        to.settled(room_id).await;
        received
    }
}

impl Fixture {
    /// Waits until the inbox of a room is empty but for what waits for other servers.
    pub(super) async fn settled(&self, room_id: &RoomId) {
        let room = self.rooms.ids().room(room_id);
        while self.rooms.0.workers.is_busy(room) {
            tokio::task::yield_now().await;
        }
    }

    /// The current state: type, key, event ID.
    pub(super) async fn state(&self, room_id: &RoomId) -> Vec<(String, String, OwnedEventId)> {
        let view = self.rooms.view().await.expect("a view");
        let room = self.rooms.ids().room(room_id);
        let mut out = Vec::new();
        let state = self.rooms.head(&view, room).await.expect("a head").state;
        let numbers = self.rooms.state_at(&view, room, state).await.expect("a state");
        for event in self.rooms.events(&view, room, &numbers).await.expect("events") {
            let key = event.state_key().expect("a state event").to_owned();
            out.push((event.event_type().to_owned(), key, event.event_id().to_owned()));
        }
        out.sort();
        out
    }

    pub(super) async fn set(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        (kind, key): (&str, &str),
        content: Value,
    ) -> Result<Sent, SendError> {
        let event = crate::SendEvent {
            room_id: room_id.to_owned(),
            sender: sender.to_owned(),
            event_type: kind.into(),
            state_key: Some(key.into()),
            content: object(content),
            redacts: None,
            origin_server_ts: None,
            transaction: None,
        };
        self.rooms.send(event).await
    }
}

pub(super) fn other(localpart: &str) -> OwnedUserId {
    OwnedUserId::try_from(format!("@{localpart}:other.test")).expect("a valid user ID")
}

pub(super) fn name(i: usize) -> &'static ServerName {
    <&ServerName>::try_from(SERVERS[i].0).expect("a valid name")
}

pub(super) fn key_of(server: &ServerName) -> SigningKey {
    let (_, seed) = SERVERS.iter().find(|(name, _)| *name == server.as_str()).expect("a known server");
    SigningKey::from_seed(*seed, "test").expect("a valid key")
}

fn keys() -> PublicKeys {
    let mut keys = PublicKeys::default();
    for (name, seed) in SERVERS {
        let key = SigningKey::from_seed(seed, "test").expect("a valid key");
        let name = <&ServerName>::try_from(name).expect("a valid name");
        keys.insert(name, key.key_id(), &key.public_key_base64(), u64::MAX).expect("a key");
    }
    keys
}

pub(super) fn raw(pdu: &Pdu) -> RawPdu {
    RawValue::from_string(String::from_utf8(pdu.json().to_vec()).expect("text")).expect("JSON")
}

pub(super) async fn verified(pdu: &Pdu) -> hearth_event::Verified {
    hearth_event::check(pdu.json(), pdu.version()).expect("a form").verify(&keys()).expect("signed")
}

pub(super) async fn event(rooms: &Rooms, room_id: &RoomId, id: &EventId) -> Option<Arc<RoomEvent>> {
    let view = rooms.view().await.expect("a view");
    let room = rooms.ids().room(room_id);
    let version = rooms.version(&view, room).await.expect("a version");
    let graph = crate::graph::Graph { rooms: rooms.clone(), view, room, version };
    graph.find(&[id.to_owned()]).await.expect("readable").remove(id)
}

/// An event of `sender` on the ends that `on` has of the room, signed by the sender's server.
pub(super) async fn event_on(
    on: &Fixture,
    room_id: &RoomId,
    sender: &UserId,
    (kind, state_key): (&str, Option<&str>),
    content: Value,
) -> Pdu {
    let view = on.rooms.view().await.expect("a view");
    let room = on.rooms.ids().room(room_id);
    let head = on.rooms.head(&view, room).await.expect("a head");
    let ends: Vec<_> = head.extremities.iter().map(|end| (end.event_id.clone(), end.depth)).collect();
    event_after(on, room_id, sender, (kind, state_key), content, &ends).await
}

/// The same on chosen predecessors: ID and depth.
#[expect(clippy::too_many_arguments, reason = "an event has that many parts")]
pub(super) async fn event_after(
    on: &Fixture,
    room_id: &RoomId,
    sender: &UserId,
    (kind, state_key): (&str, Option<&str>),
    content: Value,
    prev: &[(String, u64)],
) -> Pdu {
    let view = on.rooms.view().await.expect("a view");
    let room = on.rooms.ids().room(room_id);
    let version = on.rooms.version(&view, room).await.expect("a version");
    let content = object(content);
    let mut auth_events = Vec::new();
    for (kind, key) in hearth_event::auth_types(version, kind, sender, state_key, &content).expect("types") {
        let event = on.rooms.current_event(&view, room, &kind, &key).await.expect("readable");
        auth_events.extend(event.map(|event| event.event_id().to_owned()));
    }
    let draft = EventDraft {
        room_id: Some(room_id.to_owned()),
        event_type: kind.to_owned(),
        state_key: state_key.map(str::to_owned),
        sender: sender.to_owned(),
        content,
        origin_server_ts: 1_700_000_000_500,
        prev_events: prev.iter().map(|(id, _)| OwnedEventId::try_from(id.as_str()).expect("an ID")).collect(),
        auth_events,
        depth: prev.iter().map(|(_, depth)| *depth).max().unwrap_or(0) + 1,
        redacts: None,
    };
    let server = sender.server_name();
    build(draft, version, server, &key_of(server)).expect("an event")
}

/// The answer to a join that has been answered before.
pub(super) async fn answer_before(rooms: &Rooms, room_id: &RoomId, join: &EventId) -> JoinParts {
    let state = event(rooms, room_id, join).await.expect("a join").state_before;
    answer_of(rooms, room_id, state).await
}

async fn answer_of(rooms: &Rooms, room_id: &RoomId, state: hearth_schema::StateId) -> JoinParts {
    let view = rooms.view().await.expect("a view");
    let room = rooms.ids().room(room_id);
    let numbers = rooms.state_at(&view, room, state).await.expect("a state");
    let state = rooms.events(&view, room, &numbers).await.expect("events");
    let version = rooms.version(&view, room).await.expect("a version");
    let graph = crate::graph::Graph { rooms: rooms.clone(), view, room, version };
    let chain: Vec<u32> = graph.auth_chain(numbers).await.expect("a chain").into_iter().collect();
    let chain = graph.events(&chain).await.expect("events");
    let raw_all = |events: &[Arc<RoomEvent>]| events.iter().map(|event| raw(&event.pdu)).collect();
    join_parts(vec![JoinPart::State(raw_all(&state)), JoinPart::AuthChain(raw_all(&chain))])
}

impl Neighbour {
    fn rooms(&self, question: &'static str) -> &Rooms {
        self.asked.lock().expect("not poisoned").push(question);
        self.rooms.get().expect("a neighbour")
    }

    pub(super) fn unknown<T>() -> Result<T, RemoteError> {
        Err(RemoteError::Refused {
            server: name(1).to_owned(),
            status: 404,
            errcode: "M_NOT_FOUND".into(),
            error: "no".into(),
        })
    }

    /// Whether `via` answers a question about what is missing.
    async fn answers(&self, via: &ServerName, question: &'static str) -> Result<(), RemoteError> {
        if self.stalling.lock().expect("not poisoned").contains(via.as_str()) {
            std::future::pending::<()>().await;
        }
        if self.mute.load(std::sync::atomic::Ordering::Relaxed) {
            self.asked.lock().expect("not poisoned").push(question);
            return Err(RemoteError::Unreachable { server: via.to_owned(), why: "mute".into() });
        }
        Ok(())
    }

    async fn state_before(&self, room: &RoomId, id: &EventId) -> Option<(Vec<Arc<RoomEvent>>, Vec<Arc<RoomEvent>>)> {
        let rooms = self.rooms("state");
        let event = event(rooms, room, id).await?;
        let view = rooms.view().await.ok()?;
        let nid = rooms.ids().room(room);
        let version = rooms.version(&view, nid).await.ok()?;
        let graph = crate::graph::Graph { rooms: rooms.clone(), view, room: nid, version };
        let numbers = rooms.state_at(&graph.view, nid, event.state_before).await.ok()?;
        let mut state = graph.events(&numbers).await.ok()?;
        let omitted = self.omitted.lock().expect("not poisoned").clone();
        state.retain(|event| !omitted.iter().any(|id| event.event_id() == id));
        let chain: Vec<u32> = graph.auth_chain(numbers).await.ok()?.into_iter().collect();
        Some((state, graph.events(&chain).await.ok()?))
    }
}

impl Remote for Neighbour {
    fn gave_up(&self, server: &ServerName, _: hearth_base::Millis) {
        self.given_up.lock().expect("not poisoned").push(server.to_owned());
    }
    fn keys<'a>(&'a self, _: &'a [KeyWish]) -> BoxFuture<'a, Result<PublicKeys, StoreError>> {
        use std::sync::atomic::Ordering;
        self.asked.lock().expect("not poisoned").push("keys");
        let left = self.keyless.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let broken = self.broken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        Box::pin(async move {
            if broken.is_ok() {
                return Err(StoreError::Unavailable("a failed read".into()));
            }
            Ok(if left.is_ok() { PublicKeys::default() } else { keys() })
        })
    }
    fn make<'a>(
        &'a self,
        via: &'a ServerName,
        _: Handshake,
        _: &'a RoomId,
        _: &'a OwnedUserId,
    ) -> Answer<'a, Template> {
        Box::pin(std::future::ready(self.door_template(via)))
    }
    fn send_join<'a>(&'a self, via: &'a ServerName, event: &'a Pdu) -> Answer<'a, JoinParts> {
        Box::pin(self.door_answer(via, event))
    }
    fn send_leave<'a>(&'a self, _: &'a ServerName, _: &'a Pdu) -> Answer<'a, ()> {
        Box::pin(async { Self::unknown() })
    }
    fn send_knock<'a>(&'a self, _: &'a ServerName, _: &'a Pdu) -> Answer<'a, Vec<RawPdu>> {
        Box::pin(async { Self::unknown() })
    }
    fn invite<'a>(&'a self, to: &'a ServerName, invite: &'a InviteOut) -> Answer<'a, RawPdu> {
        Box::pin(async move {
            self.asked.lock().expect("not poisoned").push("invite");
            let _free = self.busy.read().await;
            let signed = hearth_event::countersign(&invite.event, to, &key_of(to));
            Ok(raw(&signed.expect("an invitation of one of its users")))
        })
    }
    fn exchange_third_party_invite<'a>(&'a self, _: &'a ServerName, wanted: &'a ExchangeOut) -> Answer<'a, ()> {
        Box::pin(async move {
            let event = serde_json::to_value(&wanted.event).expect("JSON");
            let read = |at: &str| event.pointer(at).cloned().unwrap_or_default();
            let exchange = crate::ExchangeIn {
                room_id: wanted.room_id.clone(),
                sender: serde_json::from_value(read("/sender")).expect("a user"),
                user: serde_json::from_value(read("/state_key")).expect("a user"),
                mxid: serde_json::from_value(read("/content/third_party_invite/signed/mxid")).expect("a user"),
                token: serde_json::from_value(read("/content/third_party_invite/signed/token")).expect("a text"),
                signatures: serde_json::from_value(read("/content/third_party_invite/signed/signatures"))
                    .expect("signatures"),
            };
            let rooms = self.rooms("exchange_third_party_invite");
            let asker = name(usize::from(rooms.0.signer.server_name.as_str() == SERVERS[0].0));
            rooms.exchange_third_party_invite(asker, exchange).await.or_else(|_| Self::unknown())
        })
    }
    fn policy_sign<'a>(&'a self, _: &'a ServerName, event: &'a Pdu) -> Answer<'a, PolicyAnswer> {
        self.asked.lock().expect("not poisoned").push("policy_sign");
        let says = self.policy.lock().expect("not poisoned").clone();
        says.map_or_else(|| Box::pin(async { Err(RemoteError::Off) }) as Answer<'a, _>, |says| says(event))
    }
    fn event<'a>(&'a self, via: &'a ServerName, id: &'a EventId) -> Answer<'a, RawPdu> {
        Box::pin(async move {
            self.answers(via, "event").await?;
            if self.silent.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(RemoteError::Unreachable { server: name(1).to_owned(), why: "silent".into() });
            }
            let rooms = self.rooms("event");
            let view = rooms.view().await.expect("a view");
            // The test's rooms are few: look in all of them.
            for lane in hearth_store::Lane::all() {
                let key = (lane, rooms.ids().event(id));
                if let Some(found) = view.get::<hearth_schema::EventIds>(&key).await.expect("readable") {
                    let event = rooms.events(&view, found.room, &[found.n]).await.expect("an event");
                    return Ok(raw(&event[0].pdu));
                }
            }
            Self::unknown()
        })
    }
    fn missing_events<'a>(
        &'a self,
        via: &'a ServerName,
        room: &'a RoomId,
        ask: &'a MissingEvents,
    ) -> Answer<'a, Vec<RawPdu>> {
        Box::pin(async move {
            self.answers(via, "missing_events").await?;
            let rooms = self.rooms("missing_events");
            if self.nonsensical.load(std::sync::atomic::Ordering::Relaxed) {
                return Ok(vec![
                    RawValue::from_string(r#"{"type":"m.room.message","content":{"n":1.1}}"#.into()).expect("JSON"),
                ]);
            }
            let page = self.page.load(std::sync::atomic::Ordering::Relaxed);
            let limit = if page == 0 { ask.limit } else { page.min(ask.limit) };
            let (mut out, mut todo) = (Vec::new(), ask.latest.clone());
            while let (Some(id), false) = (todo.pop(), self.forgetful.load(std::sync::atomic::Ordering::Relaxed)) {
                let Some(event) = event(rooms, room, &id).await else { continue };
                for prev in event.pdu.prev_events() {
                    if ask.earliest.contains(prev) || out.len() >= limit {
                        continue;
                    }
                    if let Some(found) = self::event(rooms, room, prev).await {
                        out.push(raw(&found.pdu));
                        todo.push(prev.clone());
                    }
                }
            }
            Ok(out)
        })
    }
    fn state_ids<'a>(&'a self, via: &'a ServerName, room: &'a RoomId, id: &'a EventId) -> Answer<'a, StateIds> {
        Box::pin(async move {
            self.answers(via, "state_ids").await?;
            let Some((state, chain)) = self.state_before(room, id).await else { return Self::unknown() };
            let ids = |events: &[Arc<RoomEvent>]| events.iter().map(|event| event.event_id().to_owned()).collect();
            Ok(StateIds { state: ids(&state), auth_chain: ids(&chain) })
        })
    }
    fn state<'a>(&'a self, via: &'a ServerName, room: &'a RoomId, id: &'a EventId) -> Answer<'a, RemoteState> {
        Box::pin(async move {
            self.answers(via, "state").await?;
            let Some((state, chain)) = self.state_before(room, id).await else { return Self::unknown() };
            let all = |events: &[Arc<RoomEvent>]| events.iter().map(|event| raw(&event.pdu)).collect();
            Ok(RemoteState { state: all(&state), auth_chain: all(&chain) })
        })
    }
    fn event_auth<'a>(&'a self, via: &'a ServerName, room: &'a RoomId, id: &'a EventId) -> Answer<'a, Vec<RawPdu>> {
        Box::pin(async move {
            self.answers(via, "event_auth").await?;
            let rooms = self.rooms("event_auth");
            let Some(event) = event(rooms, room, id).await else { return Self::unknown() };
            let view = rooms.view().await.expect("a view");
            let nid = rooms.ids().room(room);
            let version = rooms.version(&view, nid).await.expect("a version");
            let graph = crate::graph::Graph { rooms: rooms.clone(), view, room: nid, version };
            let chain: Vec<u32> = graph.auth_chain(vec![event.n]).await.expect("a chain").into_iter().collect();
            Ok(graph.events(&chain).await.expect("events").iter().map(|event| raw(&event.pdu)).collect())
        })
    }
    fn backfill<'a>(
        &'a self,
        via: &'a ServerName,
        room: &'a RoomId,
        from: &'a [OwnedEventId],
        limit: usize,
    ) -> Answer<'a, Vec<RawPdu>> {
        Box::pin(async move {
            self.answers(via, "backfill").await?;
            let rooms = self.rooms("backfill");
            if self.silent.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(RemoteError::Unreachable { server: name(1).to_owned(), why: "silent".into() });
            }
            let (mut out, mut todo): (Vec<RawPdu>, std::collections::VecDeque<_>) =
                (Vec::new(), from.iter().cloned().collect());
            // A test's server tells little at once.
            while let (Some(id), true) = (todo.pop_front(), out.len() < limit.min(4)) {
                let Some(found) = event(rooms, room, &id).await else { continue };
                let originals = self.originals.lock().expect("not poisoned");
                out.push(raw(originals.iter().find(|original| original.event_id() == id).unwrap_or(&found.pdu)));
                todo.extend(found.pdu.prev_events().to_vec());
            }
            Ok(out)
        })
    }
    fn event_before<'a>(
        &'a self,
        _: &'a ServerName,
        room: &'a RoomId,
        time: hearth_base::Millis,
    ) -> Answer<'a, OwnedEventId> {
        Box::pin(async move {
            let rooms = self.rooms("event_before");
            if self.old.load(std::sync::atomic::Ordering::Relaxed) {
                return Self::unknown();
            }
            let asker = SERVERS.iter().position(|(server, _)| *server != rooms.0.signer.server_name.as_str());
            let asker = name(asker.expect("two servers"));
            let found = rooms.event_at_time_for_server(asker, room, time, crate::Direction::Backward).await;
            found.map(|found| found.event_id).or_else(|_| Self::unknown())
        })
    }
}
