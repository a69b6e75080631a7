//! Joining through other servers: large rooms, joins that are cut off, servers that fail, refuse or lie.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hearth_event::{EventDraft, Pdu, RoomVersion, build};
use hearth_schema::{EventIds, Events, Membership, StateKeyNames, StateKeys};
use hearth_store::{Order, Owner};
use ruma_common::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName};
use serde_json::{Value, json};

use super::fixture::{Fixture, creation, object, user};
use super::neighbour::{Neighbour, Town, event, event_on, key_of, name, other, raw};
use crate::joining::JoinPatience;
use crate::remote::*;
use crate::{CreateRoom, JoinError, MemberProfile, Preset, RemoteJoin, Sent};

/// What a server does with a join.
#[derive(Clone)]
pub(super) struct Door {
    template: CanonicalJsonObject,
    version: RoomVersion,
    manner: Manner,
    /// Joins that it was sent.
    sent: Arc<std::sync::Mutex<Vec<Pdu>>>,
}

#[derive(Clone)]
enum Manner {
    /// It says this to `make_join`.
    Refuses(u16, &'static str),
    /// It says this to `send_join`.
    RefusesLater(u16, &'static str),
    /// It never answers `send_join`.
    Silent,
    /// It tells all this.
    Tells(Vec<JoinPart>),
    /// It tells this and breaks off.
    BreaksOff(Vec<JoinPart>),
    /// It tells this and then nothing for ever.
    Hangs(Vec<JoinPart>),
}

impl Neighbour {
    fn door(&self, via: &ServerName) -> Option<Door> {
        self.doors.lock().expect("not poisoned").get(via.as_str()).cloned()
    }

    pub(super) fn door_template(&self, via: &ServerName) -> Result<Template, RemoteError> {
        let Some(door) = self.door(via) else { return Self::unknown() };
        match door.manner {
            Manner::Refuses(status, errcode) => Err(refusal(via, status, errcode)),
            _ => Ok(Template { room_version: door.version, event: door.template }),
        }
    }

    pub(super) async fn door_answer(&self, via: &ServerName, event: &Pdu) -> Result<JoinParts, RemoteError> {
        let Some(door) = self.door(via) else { return Self::unknown() };
        door.sent.lock().expect("not poisoned").push(event.clone());
        let gone = RemoteError::Unreachable { server: via.to_owned(), why: "gone".to_owned() };
        match door.manner {
            Manner::Refuses(status, errcode) | Manner::RefusesLater(status, errcode) => {
                Err(refusal(via, status, errcode))
            }
            Manner::Silent => std::future::pending().await,
            Manner::Tells(parts) => Ok(join_parts(parts)),
            Manner::BreaksOff(parts) => Ok(join_parts(parts).chain(futures::stream::once(async { Err(gone) })).boxed()),
            Manner::Hangs(parts) => Ok(join_parts(parts).chain(futures::stream::pending()).boxed()),
        }
    }
}

fn refusal(via: &ServerName, status: u16, errcode: &str) -> RemoteError {
    RemoteError::Refused { server: via.to_owned(), status, errcode: errcode.to_owned(), error: "no".to_owned() }
}

/// A room of another server with many members.
struct Large {
    room_id: OwnedRoomId,
    version: RoomVersion,
    base: Vec<Pdu>,
    members: Vec<Pdu>,
}

impl Large {
    /// A public room of `town.there`, which `members` users of that server have joined, each with so much to say of
    /// themselves that a few hundred do not fit one batch.
    async fn new(town: &Town, members: usize, version: RoomVersion) -> Self {
        let create = CreateRoom { creator: other("olga"), version: Some(version), ..creation(Preset::PublicChat) };
        let room_id = town.there.rooms.create(create).await.expect("a room");
        let mut base = Vec::new();
        for (_, _, id) in town.there.state(&room_id).await {
            base.push(event(&town.there.rooms, &room_id, &id).await.expect("an event").pdu.clone());
        }
        let mut last = base.iter().max_by_key(|pdu| pdu.depth()).expect("events").clone();
        let mut joins = Vec::with_capacity(members);
        for n in 0..members {
            let member = other(&format!("member{n}"));
            let content =
                json!({ "membership": "join", "displayname": format!("Member {n}"), "pad": "x".repeat(8000) });
            let join = join_after(&base, &room_id, version, &member, content, &last);
            last = join.clone();
            joins.push(join);
        }
        Self { room_id, version, base, members: joins }
    }

    fn parts(&self) -> Vec<JoinPart> {
        let state = self.members.chunks(50).map(|some| JoinPart::State(some.iter().map(raw).collect()));
        // What all others stand on comes last, and again in the auth chain.
        let base: Vec<RawPdu> = self.base.iter().map(raw).collect();
        let first = state.chain([JoinPart::State(base.clone())]);
        first.chain([JoinPart::AuthChain(base)]).collect()
    }

    fn ids(&self) -> Vec<OwnedEventId> {
        let mut ids: Vec<_> = self.base.iter().chain(&self.members).map(|pdu| pdu.event_id().to_owned()).collect();
        ids.sort();
        ids
    }

    async fn door(&self, town: &Town, manner: Manner) -> Door {
        let alice = user("alice");
        let join = ("m.room.member", Some(alice.as_str()));
        let template = event_on(&town.there, &self.room_id, &alice, join, json!({ "membership": "join" })).await;
        let template: Value = serde_json::from_slice(template.json()).expect("JSON");
        Door { template: object(template), version: self.version, manner, sent: Arc::default() }
    }
}

/// The join of `member` after `last`, in a room of which `base` is the state that counts.
#[expect(clippy::too_many_arguments, reason = "an event has that many parts")]
fn join_after(
    base: &[Pdu],
    room_id: &RoomId,
    version: RoomVersion,
    member: &OwnedUserId,
    content: Value,
    last: &Pdu,
) -> Pdu {
    let content = object(content);
    let types = hearth_event::auth_types(version, "m.room.member", member, Some(member.as_str()), &content);
    let types = types.expect("types");
    let stands_on = base.iter().filter(|pdu| types.iter().any(|(kind, key)| pdu.is_state(kind, key)));
    let draft = EventDraft {
        room_id: Some(room_id.to_owned()),
        event_type: "m.room.member".to_owned(),
        state_key: Some(member.to_string()),
        sender: member.clone(),
        content,
        origin_server_ts: 1_700_000_000_000,
        prev_events: vec![last.event_id().to_owned()],
        auth_events: stands_on.map(|pdu| pdu.event_id().to_owned()).collect(),
        depth: last.depth() + 1,
        redacts: None,
    };
    build(draft, version, member.server_name(), &key_of(member.server_name())).expect("an event")
}

async fn join(town: &Town, large: &Large, doors: Vec<(&str, Door)>) -> Result<Sent, JoinError> {
    let candidates = doors.iter().map(|(name, _)| OwnedServerName::try_from(*name).expect("a name")).collect();
    town.neighbour
        .doors
        .lock()
        .expect("not poisoned")
        .extend(doors.into_iter().map(|(name, door)| (name.into(), door)));
    let join = RemoteJoin {
        room_id: large.room_id.clone(),
        user: user("alice"),
        candidates,
        profile: MemberProfile::default(),
        content: CanonicalJsonObject::new(),
        reason: None,
    };
    let patience = JoinPatience { make: Duration::from_millis(50), send: Duration::from_millis(50) };
    town.here.rooms.join_patiently(&join, patience).await
}

/// The room's state here without our join.
async fn told(here: &Fixture, room_id: &RoomId) -> Vec<OwnedEventId> {
    let alice = user("alice");
    let mut ids: Vec<_> = here
        .state(room_id)
        .await
        .into_iter()
        .filter(|(_, key, _)| key.as_str() != alice.as_str())
        .map(|(.., id)| id)
        .collect();
    ids.sort();
    ids
}

/// Events of the room that are stored; each has its name and is complete.
async fn rows(here: &Fixture, room_id: &RoomId) -> usize {
    let view = here.rooms.view().await.expect("a view");
    let room = here.rooms.ids().room(room_id);
    let rows = view.page::<Events, _>(&(room,), Order::Ascending, 10_000).await.expect("readable");
    for ((_, n), event) in &rows {
        let id = OwnedEventId::try_from(&*event.event_id).expect("an ID");
        let named = view.get::<EventIds>(&(room.lane(), here.rooms.ids().event(&id))).await.expect("readable");
        assert_eq!(named.map(|named| (named.room, named.n)), Some((room, *n)));
    }
    rows.len()
}

async fn places(here: &Fixture, room_id: &RoomId) -> (usize, usize) {
    let view = here.rooms.view().await.expect("a view");
    let room = here.rooms.ids().room(room_id);
    let keys = view.page::<StateKeys, _>(&(room,), Order::Ascending, 10_000).await.expect("readable");
    let names = view.page::<StateKeyNames, _>(&(room,), Order::Ascending, 10_000).await.expect("readable");
    (keys.len(), names.len())
}

async fn is_here(here: &Fixture, room_id: &RoomId) -> bool {
    let view = here.rooms.view().await.expect("a view");
    here.rooms.room(&view, here.rooms.ids().room(room_id)).await.expect("readable").is_some()
}

fn version(name: &str) -> RoomVersion {
    RoomVersion::parse(name).expect("known")
}

#[tokio::test]
async fn a_large_room_is_joined_in_any_order_of_its_events() {
    for room_version in ["1", "5", "11", "12"] {
        let town = Town::new();
        let large = Large::new(&town, 300, version(room_version)).await;
        let door = large.door(&town, Manner::Tells(large.parts())).await;
        join(&town, &large, vec![("a.test", door)]).await.expect("joined");
        assert_eq!(told(&town.here, &large.room_id).await, large.ids(), "version {room_version}");
        let view = town.here.rooms.view().await.expect("a view");
        let head = town.here.rooms.head(&view, town.here.rooms.ids().room(&large.room_id)).await.expect("a head");
        assert_eq!(head.joined_members, 302, "olga, the members and alice");
        town.here.say(&large.room_id, &user("alice"), "hello", "1").await.expect("said");
    }
}

#[tokio::test]
async fn a_join_that_was_cut_off_is_not_seen_and_the_next_one_goes_on_with_it() {
    let town = Town::new();
    let large = Large::new(&town, 300, RoomVersion::DEFAULT).await;
    let mut parts = large.parts();
    // The auth chain first, so that what comes can be judged; half of the members never come.
    parts.reverse();
    let half: Vec<JoinPart> = parts[..5].to_vec();
    let door = large.door(&town, Manner::Hangs(half)).await;
    {
        let mut joining = Box::pin(join(&town, &large, vec![("a.test", door)]));
        let cut = tokio::time::timeout(Duration::from_millis(20), &mut joining);
        let mut cut = cut.await.is_ok();
        while rows(&town.here, &large.room_id).await < 100 && !cut {
            cut = tokio::time::timeout(Duration::from_millis(20), &mut joining).await.is_ok();
        }
        assert!(!cut, "it hangs");
    }
    let stored = rows(&town.here, &large.room_id).await;
    assert!((100..=large.ids().len()).contains(&stored), "{stored} events are stored");
    assert!(!is_here(&town.here, &large.room_id).await);
    let alice = user("alice");
    assert!(town.here.say(&large.room_id, &alice, "hello?", "1").await.is_err(), "nobody is in the room");

    town.neighbour.asked.lock().expect("not poisoned").clear();
    // Everything that is stored is known: only what is new has to be verified.
    let door = large.door(&town, Manner::Tells(parts)).await;
    join(&town, &large, vec![("b.test", door)]).await.expect("joined");
    let keys = town.neighbour.asked.lock().expect("not poisoned").iter().filter(|what| **what == "keys").count();
    assert!(keys <= 4, "keys were needed for {keys} portions");
    assert_eq!(told(&town.here, &large.room_id).await, large.ids());
    assert_eq!(rows(&town.here, &large.room_id).await, large.ids().len() + 1, "nothing is stored twice");
    town.here.say(&large.room_id, &alice, "hello", "2").await.expect("said");
}

#[tokio::test]
async fn what_a_liar_has_told_is_removed() {
    let town = Town::new();
    let large = Large::new(&town, 300, RoomVersion::DEFAULT).await;
    let mut parts = large.parts();
    parts.reverse();
    let alice = user("alice");
    // A message is no state.
    let message = event_on(&town.there, &large.room_id, &other("olga"), ("m.room.message", None), json!({})).await;
    parts.push(JoinPart::State(vec![raw(&message)]));
    let door = large.door(&town, Manner::Tells(parts)).await;
    let refused = join(&town, &large, vec![("a.test", door)]).await;
    assert!(matches!(refused, Err(JoinError::Remote(RemoteError::Invalid { .. }))), "{refused:?}");
    assert_eq!(rows(&town.here, &large.room_id).await, 0);
    assert_eq!(places(&town.here, &large.room_id).await, (0, 0));
    for id in large.ids() {
        let view = town.here.rooms.view().await.expect("a view");
        let room = town.here.rooms.ids().room(&large.room_id);
        let key = (room.lane(), town.here.rooms.ids().event(&id));
        assert_eq!(view.get::<EventIds>(&key).await.expect("readable"), None);
    }
    assert!(!is_here(&town.here, &large.room_id).await);
    let door = large.door(&town, Manner::Tells(large.parts())).await;
    join(&town, &large, vec![("b.test", door)]).await.expect("joined");
    assert_eq!(told(&town.here, &large.room_id).await, large.ids());
    town.here.say(&large.room_id, &alice, "hello", "2").await.expect("said");
}

#[tokio::test]
async fn the_next_server_is_tried_when_one_fails_and_only_one_join_enters() {
    for (what, manner) in [
        ("it refuses", Manner::Refuses(403, "M_FORBIDDEN")),
        ("it cannot authorise", Manner::Refuses(400, "M_UNABLE_TO_AUTHORISE_JOIN")),
        ("it refuses what it has suggested", Manner::RefusesLater(403, "M_FORBIDDEN")),
        ("it breaks", Manner::RefusesLater(500, "M_UNKNOWN")),
        ("it says nothing", Manner::Silent),
        ("it tells nothing", Manner::Tells(Vec::new())),
        ("it breaks off at once", Manner::BreaksOff(Vec::new())),
    ] {
        let town = Town::new();
        let large = Large::new(&town, 3, RoomVersion::DEFAULT).await;
        let bad = large.door(&town, manner).await;
        let good = large.door(&town, Manner::Tells(large.parts())).await;
        let sent_to_good = Arc::clone(&good.sent);
        let never = large.door(&town, Manner::Tells(large.parts())).await;
        let sent_to_never = Arc::clone(&never.sent);
        let doors = vec![("bad.test", bad), ("good.test", good), ("never.test", never)];
        let sent = join(&town, &large, doors).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(told(&town.here, &large.room_id).await, large.ids(), "{what}");
        let given: Vec<_> =
            sent_to_good.lock().expect("not poisoned").iter().map(|pdu| pdu.event_id().to_owned()).collect();
        assert_eq!(given, [sent.event_id], "{what}: the join that the good server has is the one that is here");
        assert!(sent_to_never.lock().expect("not poisoned").is_empty(), "{what}: nobody else was needed");
        let history = town.here.history(&large.room_id, &user("alice")).await;
        assert_eq!(history.iter().filter(|entry| *entry == "m.room.member").count(), 1, "{what}: one join");
    }
}

#[tokio::test]
async fn what_one_server_told_before_it_broke_off_the_next_one_need_not_prove_again() {
    let town = Town::new();
    let large = Large::new(&town, 300, RoomVersion::DEFAULT).await;
    let mut parts = large.parts();
    parts.reverse();
    let broken = large.door(&town, Manner::BreaksOff(parts[..6].to_vec())).await;
    let good = large.door(&town, Manner::Tells(parts)).await;
    join(&town, &large, vec![("broken.test", broken), ("good.test", good)]).await.expect("joined");
    assert_eq!(told(&town.here, &large.room_id).await, large.ids());
    assert_eq!(rows(&town.here, &large.room_id).await, large.ids().len() + 1);
}

#[tokio::test]
async fn the_most_telling_refusal_is_told() {
    for (refusals, expected) in [
        (vec![(400, "M_UNABLE_TO_GRANT_JOIN"), (403, "M_FORBIDDEN"), (404, "M_NOT_FOUND")], 403),
        (vec![(404, "M_NOT_FOUND"), (400, "M_UNABLE_TO_AUTHORISE_JOIN"), (502, "M_UNKNOWN")], 400),
        (vec![(502, "M_UNKNOWN"), (404, "M_NOT_FOUND")], 502),
    ] {
        let town = Town::new();
        let large = Large::new(&town, 1, RoomVersion::DEFAULT).await;
        let mut doors = Vec::new();
        for ((status, errcode), name) in refusals.into_iter().zip(["a.test", "b.test", "c.test"]) {
            doors.push((name, large.door(&town, Manner::Refuses(status, errcode)).await));
        }
        match join(&town, &large, doors).await {
            Err(JoinError::Remote(RemoteError::Refused { status, .. })) => assert_eq!(status, expected),
            other => panic!("{other:?}"),
        }
        assert!(!is_here(&town.here, &large.room_id).await);
    }
}

#[tokio::test]
async fn an_answer_that_contradicts_itself_makes_no_room() {
    let town = Town::new();
    let large = Large::new(&town, 3, RoomVersion::DEFAULT).await;
    let others = Large::new(&town, 1, RoomVersion::DEFAULT).await;
    let without = |kind: &str| {
        let base: Vec<RawPdu> = large.base.iter().filter(|pdu| pdu.event_type() != kind).map(raw).collect();
        vec![JoinPart::State(base.clone()), JoinPart::AuthChain(base)]
    };
    let mut omitted = large.parts();
    omitted.push(JoinPart::MembersOmitted);
    let only_in_chain: Vec<RawPdu> =
        large.base.iter().filter(|pdu| pdu.event_type() == "m.room.create").map(raw).collect();
    let mut hidden = without("m.room.create");
    hidden.push(JoinPart::AuthChain(only_in_chain));
    for (what, parts) in [
        ("nothing", Vec::new()),
        ("no create event", without("m.room.create")),
        ("the create event is in the auth chain only", hidden),
        ("nothing says who may do what", without("m.room.power_levels")),
        ("nothing says who may join", without("m.room.join_rules")),
        ("another room", others.parts()),
        ("members are left out", omitted),
    ] {
        let door = large.door(&town, Manner::Tells(parts)).await;
        let refused = join(&town, &large, vec![("a.test", door)]).await;
        assert!(matches!(refused, Err(JoinError::Remote(RemoteError::Invalid { .. }))), "{what}: {refused:?}");
        assert!(!is_here(&town.here, &large.room_id).await, "{what}");
        assert_eq!(rows(&town.here, &large.room_id).await, 0, "{what}");
    }
}

#[tokio::test]
async fn a_room_of_another_version_than_the_template_says_is_refused() {
    // Versions 10 and 9 sign the same fields of most events.
    let town = Town::new();
    let large = Large::new(&town, 1, version("10")).await;
    let door = Door { version: version("9"), ..large.door(&town, Manner::Tells(large.parts())).await };
    let refused = join(&town, &large, vec![("a.test", door)]).await;
    let Err(JoinError::Remote(RemoteError::Invalid { why, .. })) = refused else { panic!("{refused:?}") };
    assert!(why.contains("version"), "{why}");
}

#[tokio::test]
async fn events_that_stand_on_what_was_not_told_are_left_out_and_not_judged() {
    let town = Town::new();
    let large = Large::new(&town, 3, RoomVersion::DEFAULT).await;
    let last = large.members.last().expect("a member");
    // Of the invitation nothing is told: whether he may be in the room is not known.
    let guest = other("guest");
    let mut base = large.base.clone();
    let content = json!({ "membership": "invite" });
    let mut invite = join_after(&base, &large.room_id, large.version, &guest, content, last);
    base.push(invite.clone());
    let join_event = join_after(&base, &large.room_id, large.version, &guest, json!({ "membership": "join" }), last);
    let mut parts = large.parts();
    parts.push(JoinPart::State(vec![raw(&join_event)]));
    let door = large.door(&town, Manner::Tells(parts)).await;
    join(&town, &large, vec![("a.test", door)]).await.expect("joined");
    assert_eq!(told(&town.here, &large.room_id).await, large.ids());
    assert!(event(&town.here.rooms, &large.room_id, join_event.event_id()).await.is_none());
    invite = invite.with_rejected();
    assert!(event(&town.here.rooms, &large.room_id, invite.event_id()).await.is_none());
}

#[tokio::test]
async fn two_users_who_join_at_the_same_time_are_both_in_one_room() {
    let town = Town::new();
    let large = Large::new(&town, 300, RoomVersion::DEFAULT).await;
    let bob = user("bob");
    let mut joins = Vec::new();
    for who in [user("alice"), bob.clone()] {
        let joining = ("m.room.member", Some(who.as_str()));
        joins.push(event_on(&town.there, &large.room_id, &who, joining, json!({ "membership": "join" })).await);
    }
    for join in &joins {
        let entered = town.there.rooms.enter_handshake(name(0), super::neighbour::verified(join).await).await;
        entered.expect("a join");
    }
    let [first, second] = <[Pdu; 2]>::try_from(joins).map_err(|_| "two").expect("two");
    let import = |event| town.here.rooms.import(name(1), event, join_parts(large.parts()));
    let (first, second) = tokio::join!(import(first), import(second));
    first.expect("alice is in");
    second.expect("bob is in");
    let ids = told(&town.here, &large.room_id).await;
    assert_eq!(ids.len(), large.ids().len() + 1, "bob is there besides what was told");
    let stored = rows(&town.here, &large.room_id).await;
    assert_eq!(stored, large.ids().len() + 2, "nothing is stored twice");
    let state = town.here.state(&large.room_id).await;
    assert!(state.iter().any(|(kind, key, _)| kind == "m.room.member" && key.as_str() == bob.as_str()));
}

#[tokio::test]
async fn who_was_here_before_comes_back_to_a_room_that_has_grown_large() {
    let town = Town::new();
    let alice = user("alice");
    let large = Large::new(&town, 0, RoomVersion::DEFAULT).await;
    town.join(&large.room_id, &alice).await;
    town.here.change(&large.room_id, (&alice, &alice), Membership::Leave).await.expect("left");
    let mut last = large.base.iter().max_by_key(|pdu| pdu.depth()).expect("events").clone();
    let mut grown = Large { members: Vec::new(), ..large };
    for n in 0..600 {
        let content = json!({ "membership": "join", "pad": "x".repeat(9000) });
        let member = other(&format!("new{n}"));
        last = join_after(&grown.base, &grown.room_id, grown.version, &member, content, &last);
        grown.members.push(last.clone());
    }
    // More than fits one batch.
    assert!(grown.members.iter().map(|pdu| pdu.json().len()).sum::<usize>() > 5 << 20);
    let door = grown.door(&town, Manner::Tells(grown.parts())).await;
    join(&town, &grown, vec![("a.test", door)]).await.expect("joined");
    assert_eq!(told(&town.here, &grown.room_id).await, grown.ids());
}

#[tokio::test]
async fn keys_that_could_not_be_had_at_first_are_asked_for_again() {
    let town = Town::new();
    let large = Large::new(&town, 300, RoomVersion::DEFAULT).await;
    // Four portions of members are without keys at first.
    town.neighbour.keyless.store(4, std::sync::atomic::Ordering::Relaxed);
    let door = large.door(&town, Manner::Tells(large.parts())).await;
    join(&town, &large, vec![("a.test", door)]).await.expect("joined");
    assert_eq!(told(&town.here, &large.room_id).await, large.ids());
}

#[tokio::test]
async fn a_store_that_cannot_be_read_leaves_nobody_out() {
    let town = Town::new();
    let large = Large::new(&town, 300, RoomVersion::DEFAULT).await;
    town.neighbour.broken.store(1, std::sync::atomic::Ordering::Relaxed);
    let door = large.door(&town, Manner::Tells(large.parts())).await;
    assert!(join(&town, &large, vec![("a.test", door)]).await.is_err());
    let door = large.door(&town, Manner::Tells(large.parts())).await;
    join(&town, &large, vec![("a.test", door)]).await.expect("joined");
    assert_eq!(told(&town.here, &large.room_id).await, large.ids());
}

#[tokio::test]
async fn who_never_tells_keys_is_left_out_and_holds_up_nobody() {
    let town = Town::new();
    let large = Large::new(&town, 3, RoomVersion::DEFAULT).await;
    let last = large.members.last().expect("a member");
    let (ghost, nobody) = (OwnedUserId::try_from("@ghost:other.test").expect("an ID"), "gone.test");
    let ghost_join =
        join_after(&large.base, &large.room_id, large.version, &ghost, json!({ "membership": "join" }), last);
    let text = String::from_utf8(ghost_join.json().to_vec()).expect("text");
    let foreign =
        text.replace("@ghost:other.test", "@ghost:gone.test").replace("\"other.test\"", &format!("\"{nobody}\""));
    let foreign = serde_json::value::RawValue::from_string(foreign).expect("JSON");
    let mut parts = large.parts();
    parts.push(JoinPart::State(vec![foreign]));
    let door = large.door(&town, Manner::Tells(parts)).await;
    join(&town, &large, vec![("a.test", door)]).await.expect("joined");
    assert_eq!(told(&town.here, &large.room_id).await, large.ids());
}

#[tokio::test]
async fn what_was_told_of_a_room_with_another_beginning_does_not_count() {
    let town = Town::new();
    let large = Large::new(&town, 3, version("11")).await;
    let olga = other("olga");
    let make = |kind: &str, key: &str, content: serde_json::Value, auth: &[&Pdu]| {
        let draft = EventDraft {
            room_id: Some(large.room_id.clone()),
            event_type: kind.to_owned(),
            state_key: Some(key.to_owned()),
            sender: olga.clone(),
            content: object(content),
            origin_server_ts: 1,
            prev_events: auth.last().map(|event| event.event_id().to_owned()).into_iter().collect(),
            auth_events: auth.iter().map(|event| event.event_id().to_owned()).collect(),
            depth: 1 + auth.len() as u64,
            redacts: None,
        };
        build(draft, large.version, olga.server_name(), &key_of(olga.server_name())).expect("an event")
    };
    let create = make("m.room.create", "", json!({ "room_version": "11", "other": true }), &[]);
    let founder = make("m.room.member", olga.as_str(), json!({ "membership": "join" }), &[&create]);
    let rules = make("m.room.join_rules", "", json!({ "join_rule": "public" }), &[&create, &founder]);
    let mut made_up = vec![raw(&create), raw(&founder), raw(&rules)];
    let base = [create.clone(), rules.clone()];
    for n in 0..150 {
        let content = json!({ "membership": "join", "pad": "x".repeat(8000) });
        let member = other(&format!("ghost{n}"));
        made_up.push(raw(&join_after(&base, &large.room_id, large.version, &member, content, &rules)));
    }
    let liar = large.door(&town, Manner::Hangs(vec![JoinPart::State(made_up)])).await;
    {
        let mut joining = Box::pin(join(&town, &large, vec![("liar.test", liar.clone())]));
        while rows(&town.here, &large.room_id).await < 100 {
            let cut = tokio::time::timeout(Duration::from_millis(20), &mut joining).await;
            assert!(cut.is_err(), "it hangs: {cut:?}");
        }
    }
    assert!(rows(&town.here, &large.room_id).await >= 100, "what it has told is there to be used");
    // Who contradicts itself is not believed.
    let mut both = large.parts();
    both.push(JoinPart::AuthChain(vec![raw(&create)]));
    let divided = large.door(&town, Manner::Tells(both)).await;
    let refused = join(&town, &large, vec![("divided.test", divided)]).await;
    let Err(JoinError::Remote(RemoteError::Invalid { why, .. })) = refused else { panic!("{refused:?}") };
    assert!(why.contains("two create events"), "{why}");
    assert_eq!(rows(&town.here, &large.room_id).await, 0, "nothing of it is left");
    {
        let mut joining = Box::pin(join(&town, &large, vec![("liar.test", liar.clone())]));
        while rows(&town.here, &large.room_id).await < 100 {
            let cut = tokio::time::timeout(Duration::from_millis(20), &mut joining).await;
            assert!(cut.is_err(), "it hangs: {cut:?}");
        }
    }
    // Whoever tells of the real beginning contradicts what was left behind. Which of them is right cannot be known: what
    // nobody has made a room of goes, and who answers is believed.
    let good = large.door(&town, Manner::Tells(large.parts())).await;
    join(&town, &large, vec![("b.test", good)]).await.expect("joined at once");
    assert_eq!(told(&town.here, &large.room_id).await, large.ids());
    assert_eq!(rows(&town.here, &large.room_id).await, large.ids().len() + 1, "nothing of the other room is left");
    let (keys, names) = places(&town.here, &large.room_id).await;
    assert_eq!((keys, names), (large.ids().len() + 1, large.ids().len() + 1));
    town.here.say(&large.room_id, &user("alice"), "hello", "1").await.expect("said");

    // Now that the room is here, nobody gives it another beginning.
    let alice = user("alice");
    town.here.change(&large.room_id, (&alice, &alice), Membership::Leave).await.expect("left");
    let liar =
        Door { manner: Manner::Tells(vec![JoinPart::State(vec![raw(&create)]), JoinPart::AuthChain(vec![])]), ..liar };
    let refused = join(&town, &large, vec![("liar.test", liar)]).await;
    let Err(JoinError::Remote(RemoteError::Invalid { why, .. })) = refused else { panic!("{refused:?}") };
    assert!(why.contains("two create events"), "{why}");
}
