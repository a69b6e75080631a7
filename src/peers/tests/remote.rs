//! What rooms and clients ask.

use futures::StreamExt as _;
use hearth_event::{EventDraft, Pdu, RoomVersion, build};
use hearth_rooms::remote::{ExchangeOut, Handshake, InviteOut, JoinPart, MissingEvents, Remote as _, RemoteError};
use http::Response;
use ruma_common::{
    CanonicalJsonObject, EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, UserId,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::testing::{Body, NOW, Seen, TestServer, World, json as reply, key_of, server};
use crate::{Children, Look, Peers};

struct Asked {
    peers: Peers,
    by: TestServer,
    name: OwnedServerName,
    room: OwnedRoomId,
    user: OwnedUserId,
    _world: World,
}

async fn asked(handler: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Asked {
    let world = World::new();
    let by = world.serve("127.0.0.1:0", &["127.0.0.1"], handler).await;
    Asked {
        peers: world.peers("me.test"),
        name: server(&by.address.to_string()),
        by,
        room: RoomId::parse("!r/oom:b.test").expect("an ID"),
        user: UserId::parse("@me:me.test").expect("an ID"),
        _world: world,
    }
}

async fn answered(value: Value) -> Asked {
    asked(move |_| reply(200, &value)).await
}

fn event(version: &str, room: &OwnedRoomId, user: &OwnedUserId) -> Pdu {
    let content = json!({ "membership": "join" });
    let draft = EventDraft {
        room_id: Some(room.clone()),
        event_type: "m.room.member".to_owned(),
        state_key: Some(user.to_string()),
        sender: user.clone(),
        content: serde_json::from_value(content).expect("an object"),
        origin_server_ts: NOW.0,
        prev_events: vec![],
        auth_events: vec![],
        depth: 1,
        redacts: None,
    };
    let version = RoomVersion::parse(version).expect("a version");
    build(draft, version, user.server_name(), &key_of("me.test")).expect("an event")
}

fn id(text: &str) -> OwnedEventId {
    EventId::parse(text).expect("an ID")
}

fn texts(pdus: &[Box<RawValue>]) -> Vec<&str> {
    pdus.iter().map(|pdu| pdu.get()).collect()
}

#[tokio::test]
async fn templates_are_asked_for_in_all_versions() {
    let on = answered(json!({ "room_version": "10", "event": { "type": "m.room.member", "depth": 3 } })).await;
    for (what, endpoint, versions) in
        [(Handshake::Join, "make_join", 12), (Handshake::Knock, "make_knock", 12), (Handshake::Leave, "make_leave", 0)]
    {
        let made = on.peers.make(&on.name, what, &on.room, &on.user).await.expect("a template");
        assert_eq!((made.room_version.as_str(), made.event.len()), ("10", 2));
        let uri = on.by.last().uri;
        let start = format!("/_matrix/federation/v1/{endpoint}/%21r%2Foom%3Ab.test/%40me%3Ame.test");
        assert!(uri.starts_with(&start), "{uri}");
        assert_eq!(uri.matches("ver=").count(), versions);
    }
    let old = answered(json!({ "event": {} })).await;
    let made = old.peers.make(&old.name, Handshake::Join, &old.room, &old.user).await.expect("a template");
    assert_eq!(made.room_version.as_str(), "1");
    for wrong in [
        json!({ "room_version": "org.example.unknown", "event": {} }),
        json!({ "room_version": 1, "event": {} }),
        json!({ "room_version": "10", "event": [] }),
        json!({ "room_version": "10", "event": { "depth": 1.5 } }),
        json!({ "room_version": "10" }),
        json!([]),
    ] {
        let on = answered(wrong.clone()).await;
        let result = on.peers.make(&on.name, Handshake::Join, &on.room, &on.user).await;
        assert!(matches!(result, Err(RemoteError::Invalid { .. })), "{wrong}: {result:?}");
    }
}

#[tokio::test]
async fn what_is_sent_is_the_event_byte_by_byte() {
    let answer = json!({
        "state": [{ "a": 1 }],
        "auth_chain": [{ "b": 1.5 }, 7],
        "event": {},
        "members_omitted": true,
        "servers_in_room": ["a.test", "b c"],
        "knock_room_state": [{}],
    });
    let on = answered(answer).await;
    let event = event("10", &on.room, &on.user);
    let joined = on.peers.send_join(&on.name, &event).await.expect("joined");
    let joined: Vec<_> = joined.map(|part| format!("{:?}", part.expect("a part"))).collect().await;
    let seen = on.by.last();
    let id = event.event_id().as_str().replace('$', "%24");
    assert_eq!(seen.uri, format!("/_matrix/federation/v2/send_join/%21r%2Foom%3Ab.test/{id}"));
    assert_eq!((seen.method.as_str(), &seen.body), ("PUT", event.json()));
    // As they come: the members of the answer are in alphabetical order.
    let expected = [
        "Event(RawValue({}))",
        "MembersOmitted",
        r#"ServersInRoom(["a.test"])"#,
        r#"AuthChain([RawValue({"b":1.5}), RawValue(7)])"#,
        r#"State([RawValue({"a":1})])"#,
    ];
    assert_eq!(joined, expected);
    on.peers.send_leave(&on.name, &event).await.expect("left");
    assert!(on.by.last().uri.starts_with("/_matrix/federation/v2/send_leave/"));
    let state = on.peers.send_knock(&on.name, &event).await.expect("knocked");
    assert!(on.by.last().uri.starts_with("/_matrix/federation/v1/send_knock/"));
    assert_eq!(texts(&state), ["{}"]);
}

#[tokio::test]
async fn servers_that_know_only_the_first_endpoints_are_asked_by_those() {
    let on = asked(|seen| match &*seen.uri {
        uri if uri.contains("/v2/") => reply(404, &json!({ "errcode": "M_UNRECOGNIZED", "error": "what?" })),
        uri if uri.contains("/send_join/") => reply(200, &json!([200, { "state": [{}], "auth_chain": [] }])),
        _ => reply(200, &json!([200, {}])),
    })
    .await;
    let event = event("10", &on.room, &on.user);
    let joined = on.peers.send_join(&on.name, &event).await.expect("joined");
    let joined: Vec<_> = joined.collect().await;
    assert!(matches!(joined.as_slice(), [Ok(JoinPart::State(state))] if texts(state) == ["{}"]), "{joined:?}");
    on.peers.send_leave(&on.name, &event).await.expect("left");
    let ways: Vec<_> =
        on.by.uris().iter().map(|uri| uri.split('/').skip(3).take(2).collect::<Vec<_>>().join("/")).collect();
    assert_eq!(ways, ["v2/send_join", "v1/send_join", "v2/send_leave", "v1/send_leave"]);
    assert_eq!(on.by.last().body, event.json(), "the same event");
    // That the room is not there is no reason to ask in another way.
    let on = asked(|_| reply(404, &json!({ "errcode": "M_NOT_FOUND", "error": "no such room" }))).await;
    let result = on.peers.send_join(&on.name, &event).await.map(drop);
    assert!(matches!(&result, Err(RemoteError::Refused { status: 404, .. })), "{result:?}");
    on.peers.send_leave(&on.name, &event).await.expect_err("no such room");
    assert_eq!(on.by.uris().len(), 2);
}

#[tokio::test]
async fn joins_have_a_limit() {
    let world = World::new();
    let large = json!({ "state": ["x".repeat(2000)], "auth_chain": [] });
    let by = world.serve("127.0.0.1:0", &["127.0.0.1"], move |_| reply(200, &large)).await;
    let room = RoomId::parse("!room:b.test").expect("an ID");
    let event = event("10", &room, &UserId::parse("@me:me.test").expect("an ID"));
    let name = server(&by.address.to_string());
    let small = world.peers_with("me.test", |settings| settings.max_join_response = 2000);
    let small = small.send_join(&name, &event).await.expect("a head");
    let all: Vec<_> = small.collect().await;
    assert!(matches!(all.as_slice(), [Err(RemoteError::Invalid { .. })]), "{all:?}");
    let parts = world.peers("me.test").send_join(&name, &event).await.expect("a head");
    let all: Vec<_> = parts.collect().await;
    assert!(matches!(all.as_slice(), [Ok(JoinPart::State(_))]), "the usual limit is far: {all:?}");
}

#[tokio::test]
async fn a_large_answer_to_a_join_comes_in_portions() {
    let list = |name: &str, count: usize| (0..count).map(|n| json!({ name: n })).collect::<Vec<_>>();
    let on = answered(json!({ "auth_chain": list("c", 300), "state": list("s", 1000) })).await;
    let parts = on.peers.send_join(&on.name, &event("10", &on.room, &on.user)).await.expect("a head");
    let sizes = parts.map(|part| match part.expect("a part") {
        JoinPart::AuthChain(events) => ("auth_chain", events.len()),
        JoinPart::State(events) => ("state", events.len()),
        other => panic!("{other:?}"),
    });
    let sizes: Vec<_> = sizes.collect().await;
    let expected =
        [("auth_chain", 256), ("auth_chain", 44), ("state", 256), ("state", 256), ("state", 256), ("state", 232)];
    assert_eq!(sizes, expected);
}

#[tokio::test]
async fn an_answer_to_a_join_that_breaks_off_or_is_none_is_an_error_at_the_end() {
    for (text, parts) in [
        (r#"{"state":[{}],"auth_chain":[{}"#, 1),
        (r#"{"state":[{}]}"#, 0),
        (r#"{"state":[{}],"auth_chain":[{}],"members_omitted":7}"#, 0),
        ("<html>", 0),
    ] {
        let on = asked(move |_| crate::testing::body(200, text)).await;
        let answer = on.peers.send_join(&on.name, &event("10", &on.room, &on.user)).await.expect("a head");
        let all: Vec<_> = answer.collect().await;
        let (last, before) = all.split_last().expect("an error at least");
        assert!(matches!(last, Err(RemoteError::Invalid { .. })), "{text}: {all:?}");
        assert!(before.iter().all(Result::is_ok) && before.len() == parts, "{text}: {all:?}");
    }
    let on = asked(|_| reply(403, &json!({ "errcode": "M_FORBIDDEN", "error": "no" }))).await;
    let refused = on.peers.send_join(&on.name, &event("10", &on.room, &on.user)).await.map(drop);
    assert!(matches!(refused, Err(RemoteError::Refused { status: 403, .. })), "{refused:?}");
}

fn invite(version: &str, on: &Asked) -> InviteOut {
    let state = RawValue::from_string(r#"{"type":"m.room.name"}"#.to_owned()).expect("JSON");
    InviteOut {
        version: RoomVersion::parse(version).expect("a version"),
        event: event(version, &on.room, &on.user),
        invite_room_state: vec![state],
    }
}

#[tokio::test]
async fn invitations_carry_version_and_state() {
    let on = answered(json!({ "event": { "signed": true } })).await;
    let out = invite("10", &on);
    let back = on.peers.invite(&on.name, &out).await.expect("invited");
    assert_eq!(back.get(), r#"{"signed":true}"#);
    let seen = on.by.last();
    assert!(seen.uri.starts_with("/_matrix/federation/v2/invite/"), "{}", seen.uri);
    let sent: Value = serde_json::from_slice(&seen.body).expect("JSON");
    let event: Value = serde_json::from_slice(out.event.json()).expect("JSON");
    let expected = json!({ "room_version": "10", "event": event, "invite_room_state": [{ "type": "m.room.name" }] });
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn third_party_invites_are_exchanged_at_the_server_of_who_invited() {
    let on = answered(json!({})).await;
    let event = CanonicalJsonObject::from([("type".to_owned(), "m.room.member".to_owned().into())]);
    let wanted = ExchangeOut { room_id: on.room.clone(), event };
    on.peers.exchange_third_party_invite(&on.name, &wanted).await.expect("exchanged");
    let seen = on.by.last();
    let path = crate::path::federation_path("v1/exchange_third_party_invite", &[on.room.as_str()]);
    assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("PUT", path.as_str()));
    let sent: Value = serde_json::from_slice(&seen.body).expect("JSON");
    assert_eq!(sent, json!({ "type": "m.room.member" }));
    let no = asked(|_| reply(403, &json!({ "errcode": "M_FORBIDDEN" }))).await;
    let refused = no.peers.exchange_third_party_invite(&no.name, &wanted).await;
    assert!(matches!(refused, Err(RemoteError::Refused { status: 403, .. })), "{refused:?}");
}

#[tokio::test]
async fn old_servers_are_invited_in_the_old_way_to_old_rooms() {
    let handler = |seen: &Seen| {
        if seen.uri.contains("/v2/") {
            reply(404, &json!({ "errcode": "M_UNRECOGNIZED" }))
        } else {
            reply(200, &json!([200, { "event": {} }]))
        }
    };
    let on = asked(handler).await;
    let out = invite("1", &on);
    assert_eq!(on.peers.invite(&on.name, &out).await.expect("invited").get(), "{}");
    let seen = on.by.last();
    assert!(seen.uri.starts_with("/_matrix/federation/v1/invite/"), "{}", seen.uri);
    let mut sent: Value = serde_json::from_slice(&seen.body).expect("JSON");
    let unsigned = sent.as_object_mut().expect("an object").remove("unsigned");
    assert_eq!(unsigned, Some(json!({ "invite_room_state": [{ "type": "m.room.name" }] })));
    assert_eq!(sent, serde_json::from_slice::<Value>(out.event.json()).expect("JSON"));
    on.peers.invite(&on.name, &invite("3", &on)).await.expect_err("a version that the old way cannot name");
    let no = asked(|_| reply(403, &json!({ "errcode": "M_FORBIDDEN" }))).await;
    let result = no.peers.invite(&no.name, &invite("1", &no)).await;
    assert!(matches!(result, Err(RemoteError::Refused { status: 403, .. })), "{result:?}");
    assert_eq!(no.by.uris().len(), 1);
}

#[tokio::test]
async fn events_and_states_are_read() {
    let value = json!({
        "pdus": [{ "n": 1 }],
        "auth_chain": [{ "n": 2 }],
        "pdu_ids": ["$a"],
        "auth_chain_ids": ["$b", "$c"],
        "events": [{ "n": 3 }, { "n": 4 }, { "n": 5 }],
    });
    let on = answered(value).await;
    let (room, name) = (&on.room, &on.name);
    assert_eq!(on.peers.event(name, &id("$a/b")).await.expect("an event").get(), r#"{"n":1}"#);
    assert_eq!(on.by.last().uri, "/_matrix/federation/v1/event/%24a%2Fb");
    let state = on.peers.state(name, room, &id("$a")).await.expect("a state");
    assert_eq!((texts(&state.state), texts(&state.auth_chain)), (vec![r#"{"n":1}"#], vec![r#"{"n":2}"#]));
    assert_eq!(on.by.last().uri, "/_matrix/federation/v1/state/%21r%2Foom%3Ab.test?event_id=%24a");
    let ids = on.peers.state_ids(name, room, &id("$a")).await.expect("IDs");
    assert_eq!((ids.state, ids.auth_chain), (vec![id("$a")], vec![id("$b"), id("$c")]));
    assert_eq!(texts(&on.peers.event_auth(name, room, &id("$a")).await.expect("a chain")), [r#"{"n":2}"#]);
    assert_eq!(on.by.last().uri, "/_matrix/federation/v1/event_auth/%21r%2Foom%3Ab.test/%24a");
    let page = on.peers.backfill(name, room, &[id("$a"), id("$b")], 10).await.expect("a page");
    assert_eq!(texts(&page), [r#"{"n":1}"#]);
    assert_eq!(on.by.last().uri, "/_matrix/federation/v1/backfill/%21r%2Foom%3Ab.test?v=%24a&v=%24b&limit=10");
    let ask = MissingEvents { latest: vec![id("$l")], earliest: vec![id("$e")], limit: 2, min_depth: 7 };
    let missing = on.peers.missing_events(name, room, &ask).await.expect("events");
    assert_eq!(texts(&missing), [r#"{"n":3}"#, r#"{"n":4}"#], "no more than was asked for");
    let sent: Value = serde_json::from_slice(&on.by.last().body).expect("JSON");
    assert_eq!(sent, json!({ "latest_events": ["$l"], "earliest_events": ["$e"], "limit": 2, "min_depth": 7 }));
}

#[tokio::test]
async fn clients_questions_are_asked() {
    let value = json!({
        "displayname": "B",
        "room_id": "!r:b.test",
        "servers": ["b.test", "no server", "c.test"],
        "chunk": [],
        "event_id": "$a",
        "origin_server_ts": 7,
    });
    let on = answered(value).await;
    let user = UserId::parse(format!("@b:{}", on.name)).expect("an ID");
    let profile = on.peers.profile(&user, Some("displayname")).await.expect("a profile");
    assert_eq!(profile["displayname"], "B");
    let start = "/_matrix/federation/v1/query/profile?user_id=%40b%3A127.0.0.1%3A";
    let uri = on.by.last().uri;
    assert!(uri.starts_with(start) && uri.ends_with("&field=displayname"), "{uri}");
    let alias = RoomAliasId::parse(format!("#x y:{}", on.name)).expect("an alias");
    let found = on.peers.directory(&alias).await.expect("a room");
    assert_eq!((found.room_id.as_str(), found.servers.len()), ("!r:b.test", 2));
    on.peers.public_rooms(&on.name, "limit=1", None).await.expect("a page");
    assert_eq!(
        (on.by.last().method.as_str(), on.by.last().uri.as_str()),
        ("GET", "/_matrix/federation/v1/publicRooms?limit=1")
    );
    on.peers.public_rooms(&on.name, "", Some("{}".into())).await.expect("a page");
    assert_eq!(
        (on.by.last().method.as_str(), on.by.last().uri.as_str()),
        ("POST", "/_matrix/federation/v1/publicRooms")
    );
    let near = on.peers.timestamp_to_event(&on.name, &on.room, 5, Look::Backward).await.expect("an event");
    assert_eq!((near.event_id, near.origin_server_ts), (id("$a"), 7));
    assert!(on.by.last().uri.ends_with("?ts=5&dir=b"));
    on.peers.hierarchy(&on.name, &on.room, Children::Suggested).await.expect("a page");
    assert!(on.by.last().uri.ends_with("/hierarchy/%21r%2Foom%3Ab.test?suggested_only=true"));
}
