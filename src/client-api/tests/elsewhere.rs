//! Other servers, as clients meet them.

use bytes::Bytes;
use futures::future::BoxFuture;
use hearth_event::{EventDraft, Pdu, PublicKeys, build};
use hearth_peers::DirectoryAnswer;
use hearth_rooms::InviteIn;
use hearth_rooms::remote::{
    Answer as Told, Handshake, InviteOut, JoinParts, KeyWish, MissingEvents, RawPdu, RemoteError, RemoteState,
    StateIds, Template,
};
use hearth_store::StoreError;
use parking_lot::Mutex;
use ruma_common::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId,
    ServerName, UserId, room_id, user_id,
};
use serde_json::Map;
use serde_json::value::RawValue;

use super::*;
use crate::Lookup;

const EVENT: &str = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// `mal.test`, which says `failure` to everything, and who was asked.
#[derive(Default)]
struct Mal {
    failure: Mutex<Option<RemoteError>>,
    asked: Mutex<Vec<String>>,
}

impl Mal {
    fn fail<'a, T: Send + 'a>(&self, server: &ServerName) -> Told<'a, T> {
        self.asked.lock().push(server.to_string());
        let failure = self.failure.lock().clone().unwrap_or(RemoteError::Off);
        Box::pin(async { Err(failure) })
    }
}

fn mal_key() -> SigningKey {
    SigningKey::from_seed([9; 32], "mal").unwrap()
}

impl Remote for Mal {
    fn keys<'a>(&'a self, wanted: &'a [KeyWish]) -> BoxFuture<'a, Result<PublicKeys, StoreError>> {
        Box::pin(async move {
            let mut keys = PublicKeys::default();
            for wish in wanted {
                let key = mal_key();
                keys.insert(&wish.server, key.key_id(), &key.public_key_base64(), u64::MAX).unwrap();
            }
            Ok(keys)
        })
    }
    fn make<'a>(&'a self, via: &'a ServerName, _: Handshake, _: &'a RoomId, _: &'a OwnedUserId) -> Told<'a, Template> {
        self.fail(via)
    }
    fn send_join<'a>(&'a self, via: &'a ServerName, _: &'a Pdu) -> Told<'a, JoinParts> {
        self.fail(via)
    }
    fn send_leave<'a>(&'a self, via: &'a ServerName, _: &'a Pdu) -> Told<'a, ()> {
        self.fail(via)
    }
    fn send_knock<'a>(&'a self, via: &'a ServerName, _: &'a Pdu) -> Told<'a, Vec<RawPdu>> {
        self.fail(via)
    }
    fn invite<'a>(&'a self, to: &'a ServerName, _: &'a InviteOut) -> Told<'a, RawPdu> {
        self.fail(to)
    }
    fn event<'a>(&'a self, via: &'a ServerName, _: &'a EventId) -> Told<'a, RawPdu> {
        self.fail(via)
    }
    fn missing_events<'a>(&'a self, via: &'a ServerName, _: &'a RoomId, _: &'a MissingEvents) -> Told<'a, Vec<RawPdu>> {
        self.fail(via)
    }
    fn state_ids<'a>(&'a self, via: &'a ServerName, _: &'a RoomId, _: &'a EventId) -> Told<'a, StateIds> {
        self.fail(via)
    }
    fn state<'a>(&'a self, via: &'a ServerName, _: &'a RoomId, _: &'a EventId) -> Told<'a, RemoteState> {
        self.fail(via)
    }
    fn event_auth<'a>(&'a self, via: &'a ServerName, _: &'a RoomId, _: &'a EventId) -> Told<'a, Vec<RawPdu>> {
        self.fail(via)
    }
    fn backfill<'a>(
        &'a self,
        via: &'a ServerName,
        _: &'a RoomId,
        _: &'a [OwnedEventId],
        _: usize,
    ) -> Told<'a, Vec<RawPdu>> {
        self.fail(via)
    }
}

/// Answers of `mal.test` to look-ups.
#[derive(Default)]
struct Answers {
    failure: Mutex<Option<RemoteError>>,
    answer: Mutex<Map<String, Value>>,
    /// The room that every alias leads to, if not `!room:mal.test`.
    room: Mutex<Option<OwnedRoomId>>,
    asked: Mutex<Vec<String>>,
}

impl Answers {
    fn answer(&self, question: String) -> Lookup<'_, Map<String, Value>> {
        self.asked.lock().push(question);
        let (failure, answer) = (self.failure.lock().clone(), self.answer.lock().clone());
        Box::pin(async { failure.map_or(Ok(answer), Err) })
    }
}

impl Elsewhere for Answers {
    fn profile<'a>(&'a self, user: &'a UserId) -> Lookup<'a, Map<String, Value>> {
        self.answer(format!("profile {user}"))
    }
    fn directory<'a>(&'a self, alias: &'a RoomAliasId) -> Lookup<'a, DirectoryAnswer> {
        self.asked.lock().push(format!("directory {alias}"));
        let failure = self.failure.lock().clone();
        let room_id = self.room.lock().clone().unwrap_or_else(|| room_id!("!room:mal.test").to_owned());
        Box::pin(async {
            let servers = vec![server_name!("mal.test").to_owned(), server_name!("two.test").to_owned()];
            let found = DirectoryAnswer { room_id, servers };
            failure.map_or(Ok(found), Err)
        })
    }
    fn public_rooms<'a>(
        &'a self,
        server: &'a ServerName,
        query: &'a str,
        body: Option<Bytes>,
    ) -> Lookup<'a, Map<String, Value>> {
        let body = body.map(|body| String::from_utf8(body.to_vec()).unwrap()).unwrap_or_default();
        self.answer(format!("publicRooms {server} {query} {body}"))
    }
}

fn town() -> (World, Arc<Mal>, Arc<Answers>) {
    let (mal, answers) = (Arc::new(Mal::default()), Arc::new(Answers::default()));
    let others: (Arc<dyn Remote>, Arc<dyn Elsewhere>) = (Arc::clone(&mal) as _, Arc::clone(&answers) as _);
    (World::among(World::accounts(Registration::Open), |_| {}, others), mal, answers)
}

fn refused(status: u16, errcode: &str) -> RemoteError {
    let (server, error) = (server_name!("mal.test").to_owned(), "no".to_owned());
    RemoteError::Refused { server, status, errcode: errcode.into(), error }
}

/// Row A20 of the security table: whatever another server says, the client is not logged out and not made to wait.
#[tokio::test]
async fn failures_of_other_servers_look_like_what_they_are() {
    let (world, mal, answers) = town();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let server = server_name!("mal.test").to_owned();
    for (failure, verdict) in [
        (refused(401, "M_UNKNOWN_TOKEN"), (502, "M_UNKNOWN")),
        (refused(401, "M_UNAUTHORIZED"), (502, "M_UNKNOWN")),
        (refused(429, "M_LIMIT_EXCEEDED"), (502, "M_UNKNOWN")),
        (refused(302, "M_UNKNOWN"), (502, "M_UNKNOWN")),
        (refused(500, "M_UNKNOWN"), (502, "M_UNKNOWN")),
        (refused(400, "M_MISSING_PARAM"), (502, "M_UNKNOWN")),
        (refused(400, "M_UNABLE_TO_GRANT_JOIN"), (400, "M_UNABLE_TO_GRANT_JOIN")),
        (refused(400, "M_INCOMPATIBLE_ROOM_VERSION"), (400, "M_INCOMPATIBLE_ROOM_VERSION")),
        (refused(403, "M_FORBIDDEN"), (403, "M_FORBIDDEN")),
        (refused(403, "M_USER_DEACTIVATED"), (403, "M_FORBIDDEN")),
        (refused(403, "M_UNKNOWN_TOKEN"), (403, "M_FORBIDDEN")),
        (refused(404, "M_NOT_FOUND"), (404, "M_NOT_FOUND")),
        (RemoteError::Unreachable { server: server.clone(), why: "gone".into() }, (502, "M_UNKNOWN")),
        (RemoteError::Invalid { server, why: "HTML".into() }, (502, "M_UNKNOWN")),
    ] {
        *mal.failure.lock() = Some(failure.clone());
        *answers.failure.lock() = Some(failure.clone());
        for path in ["/join/!room:mal.test", "/knock/!room:mal.test?via=mal.test", "/join/%23alias:mal.test"] {
            assert_eq!(world.post(path, &ann, json!({})).await.verdict(), verdict, "{path} {failure}");
        }
        let body = json!({ "user_id": "@bob:mal.test" });
        let invited = world.post(&in_room(&room, "invite"), &ann, body).await;
        assert_eq!(invited.verdict(), verdict, "invite {failure}");
        for path in ["/profile/@bob:mal.test", "/directory/room/%23alias:mal.test", "/publicRooms?server=mal.test"] {
            let answer = world.get(path, &ann).await;
            assert_eq!(answer.verdict(), verdict, "{path} {failure}");
            assert!(answer.body.get("soft_logout").is_none() && answer.body.get("retry_after_ms").is_none());
        }
    }
}

#[tokio::test]
async fn the_most_telling_answer_of_several_servers_counts() {
    let (world, mal, _) = town();
    let ann = world.register("ann").await;
    *mal.failure.lock() = Some(refused(404, "M_NOT_FOUND"));
    let path = "/join/!room:mal.test?via=one.test&via=hs.test&via=two.test&via=one.test&server_name=three.test";
    assert_eq!(world.post(path, &ann, json!({})).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(*mal.asked.lock(), ["one.test", "two.test", "three.test"], "each once, and not this server");
    mal.asked.lock().clear();
    assert_eq!(world.post("/join/%23a:mal.test?via=one.test", &ann, json!({})).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(*mal.asked.lock(), ["one.test", "mal.test", "two.test"], "and the servers of the alias");
    let bad = world.post("/join/!room:mal.test?via=not%20a%20server", &ann, json!({})).await;
    assert_eq!(bad.verdict(), (400, "M_INVALID_PARAM"));
    let nobody = world.post("/join/!room:hs.test", &ann, json!({})).await;
    assert_eq!(nobody.verdict(), (404, "M_NOT_FOUND"), "nobody to ask");
}

#[tokio::test]
async fn profiles_and_directories_of_other_servers_are_shaped() {
    let (world, _, answers) = town();
    let ann = world.register("ann").await;
    let object = |value: Value| value.as_object().unwrap().clone();
    *answers.answer.lock() = object(json!({ "displayname": "Bob", "avatar_url": null, "org.x": 1 }));
    for _ in 0..2 {
        let profile = world.get("/profile/@bob:mal.test", &ann).await.ok();
        assert_eq!(profile, json!({ "displayname": "Bob", "org.x": 1 }));
    }
    assert_eq!(world.get("/profile/@bob:mal.test/avatar_url", &ann).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(answers.asked.lock().len(), 1, "asked once");
    *answers.answer.lock() = object(json!({ "displayname": { "a": 1 } }));
    assert_eq!(world.get("/profile/@eve:mal.test", &ann).await.verdict(), (502, "M_UNKNOWN"));
    assert_eq!(world.get("/publicRooms?server=mal.test", &ann).await.verdict(), (502, "M_UNKNOWN"), "no chunk");
    *answers.answer.lock() = object(json!({ "chunk": [{ "room_id": "!a:x" }], "next_batch": 7, "soft_logout": true }));
    let page = world.get("/publicRooms?server=mal.test&limit=5&since=a%26b", &ann).await.ok();
    assert_eq!(page, json!({ "chunk": [{ "room_id": "!a:x" }] }));
    let body = json!({ "limit": 7000, "filter": { "generic_search_term": "x" }, "evil": 1 });
    world.post("/publicRooms?server=mal.test", &ann, body).await.ok();
    let asked = answers.asked.lock().clone();
    assert_eq!(asked[asked.len() - 2], "publicRooms mal.test limit=5&since=a%26b ");
    let searched = "publicRooms mal.test  {\"limit\":100,\"filter\":{\"generic_search_term\":\"x\"}}";
    assert_eq!(asked[asked.len() - 1], searched);
    let found = world.get("/directory/room/%23alias:mal.test", &ann).await.ok();
    assert_eq!(found, json!({ "room_id": "!room:mal.test", "servers": ["mal.test", "two.test"] }));
}

fn object(value: Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        other => panic!("no object: {other:?}"),
    }
}

fn invitation(user: &str, n: u64) -> InviteIn {
    let room_id: OwnedRoomId = room_id!("!room:mal.test").to_owned();
    let draft = EventDraft {
        room_id: Some(room_id.clone()),
        event_type: "m.room.member".into(),
        state_key: Some(user.to_owned()),
        sender: user_id!("@mallory:mal.test").to_owned(),
        content: object(json!({ "membership": "invite" })),
        origin_server_ts: 1_700_000_000_000 + n,
        prev_events: vec![OwnedEventId::try_from(EVENT).unwrap()],
        auth_events: vec![],
        depth: 5,
        redacts: None,
    };
    let version = RoomVersion::parse("10").unwrap();
    let pdu = build(draft, version, server_name!("mal.test"), &mal_key()).unwrap();
    let raw = |text: String| RawValue::from_string(text).unwrap();
    let name =
        json!({ "type": "m.room.name", "state_key": "", "sender": "@mallory:mal.test", "content": { "name": "Cave" } });
    InviteIn {
        room_id,
        event_id: pdu.event_id().to_owned(),
        version,
        event: raw(String::from_utf8(pdu.json().to_vec()).unwrap()),
        invite_room_state: vec![raw(name.to_string())],
    }
}

impl World {
    async fn invited(&self, by: &InviteIn) {
        let good = self.rooms.check_invite(server_name!("mal.test"), by).await.unwrap();
        self.rooms.take_invite(good).await.unwrap();
    }

    async fn sync_of(&self, person: &Person, since: Option<&str>) -> Value {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        self.get(&format!("/sync?timeout=2000{since}"), person).await.ok()
    }
}

#[tokio::test]
async fn an_invitation_from_elsewhere_comes_by_sync_and_is_turned_down() {
    let (world, mal, _) = town();
    *mal.failure.lock() = Some(refused(500, "M_UNKNOWN"));
    let ann = world.register("ann").await;
    let before = world.sync_of(&ann, None).await["next_batch"].as_str().unwrap().to_owned();
    world.invited(&invitation(&ann.id, 0)).await;
    let shown = |answer: &Value| answer["rooms"]["invite"]["!room:mal.test"]["invite_state"]["events"].clone();
    let news = world.sync_of(&ann, Some(&before)).await;
    let events = shown(&news);
    assert_eq!(events[0]["content"], json!({ "name": "Cave" }), "{news}");
    let member = json!({
        "type": "m.room.member", "state_key": ann.id, "sender": "@mallory:mal.test",
        "content": { "membership": "invite" },
    });
    assert_eq!(events[1], member);
    assert_eq!(shown(&world.sync_of(&ann, None).await), events, "also to a new client");
    let since = news["next_batch"].as_str().unwrap();
    let nothing = world.get(&format!("/sync?timeout=0&since={since}"), &ann).await.ok();
    assert!(nothing.get("rooms").is_none(), "{nothing}");
    world.post("/rooms/!room:mal.test/leave", &ann, json!({})).await.ok();
    let news = world.sync_of(&ann, Some(since)).await;
    assert!(news["rooms"]["leave"]["!room:mal.test"].is_object(), "{news}");
    let first = world.sync_of(&ann, None).await;
    assert!(first["rooms"].get("invite").is_none() && first["rooms"].get("leave").is_none(), "{first}");
    let filter = pct(r#"{"room":{"include_leave":true}}"#);
    let with_left = world.get(&format!("/sync?timeout=0&filter={filter}"), &ann).await.ok();
    assert!(with_left["rooms"]["leave"]["!room:mal.test"].is_object(), "{with_left}");
    world.post("/rooms/!room:mal.test/forget", &ann, json!({})).await.ok();
    let forgotten = world.get(&format!("/sync?timeout=0&filter={filter}"), &ann).await.ok();
    assert!(forgotten.get("rooms").is_none(), "{forgotten}");
    world.invited(&invitation(&ann.id, 1)).await;
    let again = shown(&world.sync_of(&ann, None).await);
    assert!(again.is_array(), "a newer invitation is shown again");
}

#[tokio::test]
async fn who_is_only_invited_from_elsewhere_reads_nothing() {
    let (world, _, _) = town();
    let ann = world.register("ann").await;
    world.invited(&invitation(&ann.id, 0)).await;
    for path in ["messages?dir=b", "state", "members", "joined_members", "state/m.room.name/"] {
        let answer = world.get(&in_room("!room:mal.test", path), &ann).await;
        assert_eq!(answer.verdict(), (403, "M_FORBIDDEN"), "{path}");
    }
    let joined = world.get("/joined_rooms", &ann).await.ok();
    assert_eq!(joined["joined_rooms"], json!([]));
}

#[tokio::test]
async fn a_room_claims_aliases_of_other_servers_and_keeps_those_it_has() {
    let (world, _, answers) = town();
    let ann = world.register("ann").await;
    // As another server, or a removed alias, leaves it behind.
    let (dead, main) = ("#dead:hs.test", "#main:mal.test");
    let had = json!({"alias": main, "alt_aliases": [dead, 5, "nonsense"]});
    let state = json!([{"type": "m.room.canonical_alias", "content": had}]);
    let room = world.create_room(&ann, json!({"initial_state": state})).await;
    let put = async |content: Value| world.put(&in_room(&room, "state/m.room.canonical_alias"), &ann, content).await;
    world.put(&format!("/directory/room/{}", pct("#own:hs.test")), &ann, json!({"room_id": room})).await.ok();
    *answers.failure.lock() =
        Some(RemoteError::Unreachable { server: server_name!("mal.test").to_owned(), why: "gone".into() });
    put(json!({"alias": main, "alt_aliases": [dead, "nonsense", "#own:hs.test"]})).await.ok();
    put(json!({"alias": "#own:hs.test", "alt_aliases": [dead, main]})).await.ok();
    assert_eq!(*answers.asked.lock(), [] as [String; 0], "what is there already is not asked for");

    let added = json!({"alias": "#own:hs.test", "alt_aliases": ["#new:mal.test", "#new:mal.test"]});
    assert_eq!(put(added.clone()).await.verdict(), (502, "M_UNKNOWN"), "its server does not tell");
    *answers.failure.lock() = Some(refused(404, "M_NOT_FOUND"));
    assert_eq!(put(added.clone()).await.verdict(), (400, "M_BAD_ALIAS"), "there is none");
    *answers.failure.lock() = None;
    assert_eq!(put(added.clone()).await.verdict(), (400, "M_BAD_ALIAS"), "it leads elsewhere");
    let later = json!({"delay_ms": 1000, "state_key": "", "content": added});
    let delayed = world.put(&in_room(&room, "delayed_event/m.room.canonical_alias/t"), &ann, later).await;
    assert_eq!(delayed.verdict(), (400, "M_BAD_ALIAS"), "nor later");
    *answers.room.lock() = Some(OwnedRoomId::try_from(room.as_str()).unwrap());
    answers.asked.lock().clear();
    put(added).await.ok();
    assert_eq!(*answers.asked.lock(), ["directory #new:mal.test"], "once");

    // What was dropped is new when it comes back, and one event does not ask for very much.
    assert_eq!(put(json!({"alt_aliases": [dead]})).await.verdict(), (400, "M_BAD_ALIAS"));
    let many: Vec<String> = (0..1000).map(|n| format!("#n{n}:mal.test")).collect();
    answers.asked.lock().clear();
    assert_eq!(put(json!({"alt_aliases": many})).await.verdict(), (400, "M_INVALID_PARAM"));
    assert_eq!(*answers.asked.lock(), [] as [String; 0]);
}
