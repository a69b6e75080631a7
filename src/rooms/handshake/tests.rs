//! What malicious servers suggest to be signed.

use hearth_base::Millis;
use hearth_event::{RoomVersion, SigningKey};
use hearth_schema::Ids;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, RoomId, UserId, room_id, server_name, user_id};
use serde_json::{Value, json};
use std::sync::Arc;

use super::{HandshakeError, Wish, draft, signed};
use crate::plan::Signer;
use crate::remote::{Handshake, Template};

const EVENT: &str = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const OTHER: &str = "$BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

fn object(value: Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        other => panic!("no object: {other:?}"),
    }
}

fn version(name: &str) -> RoomVersion {
    RoomVersion::parse(name).expect("known")
}

fn bob() -> &'static UserId {
    user_id!("@bob:hearth.test")
}

fn there() -> &'static RoomId {
    room_id!("!room:mal.test")
}

fn suggestion(membership: &str) -> Value {
    json!({
        "type": "m.room.member", "room_id": there(), "sender": bob(), "state_key": bob(), "origin": "mal.test",
        "origin_server_ts": 7, "content": { "membership": membership }, "depth": 12,
        "prev_events": [EVENT], "auth_events": [EVENT, OTHER],
    })
}

fn wish(what: Handshake) -> Wish<'static> {
    let content = object(json!({ "displayname": "Bob", "membership": "ban", "org.example": 1 }));
    let (via, now) = (server_name!("mal.test"), Millis(1_700_000_000_000));
    Wish { what, via, room_id: there(), user: bob(), version: None, content, now }
}

fn drafted(what: Handshake, event: Value) -> Result<hearth_event::EventDraft, HandshakeError> {
    draft(&Template { room_version: version("10"), event: object(event) }, wish(what))
}

const ALL: [(Handshake, &str); 3] =
    [(Handshake::Join, "join"), (Handshake::Leave, "leave"), (Handshake::Knock, "knock")];

#[test]
fn the_event_is_ours_and_only_its_place_in_the_graph_is_theirs() {
    let key = Arc::new(SigningKey::from_seed([3; 32], "test").expect("a key"));
    let signer = Signer { server_name: server_name!("hearth.test").to_owned(), key, ids: Ids::new([5; 32]) };
    for (what, membership) in ALL {
        let mut event = suggestion(membership);
        event["content"]["displayname"] = json!("Mallory");
        event["content"]["avatar_url"] = json!("x".repeat(60 * 1024));
        event["content"]["third_party_invite"] = json!({ "signed": {} });
        event["redacts"] = json!(EVENT);
        event["unsigned"] = json!({ "a": 1 });
        event["org.evil"] = json!("sign me");
        event["signatures"] = json!({ "hearth.test": { "ed25519:test": "x" } });
        let template = Template { room_version: version("10"), event: object(event) };
        let pdu = signed(&template, wish(what), &signer).expect("an event");
        let json: Value = serde_json::from_slice(pdu.json()).expect("JSON");
        let mut keys: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        keys.sort_unstable();
        let allowed = [
            "auth_events",
            "content",
            "depth",
            "hashes",
            "origin_server_ts",
            "prev_events",
            "room_id",
            "sender",
            "signatures",
            "state_key",
            "type",
        ];
        assert_eq!(keys, allowed);
        assert_eq!(json["content"], json!({ "membership": membership, "displayname": "Bob", "org.example": 1 }));
        assert_eq!(json["origin_server_ts"], 1_700_000_000_000_u64);
        assert_eq!((&json["prev_events"], &json["auth_events"]), (&json!([EVENT]), &json!([EVENT, OTHER])));
        assert_eq!(json["depth"], 12);
        assert_eq!((&json["sender"], &json["state_key"]), (&json!(bob()), &json!(bob())));
    }
}

#[test]
fn what_contradicts_the_question_is_refused_before_anything_is_signed() {
    let foreign = [
        ("type", json!("m.room.message")),
        ("type", json!("m.room.power_levels")),
        ("type", Value::Null),
        ("sender", json!("@admin:hearth.test")),
        ("sender", json!("@bob:mal.test")),
        ("state_key", json!("@admin:hearth.test")),
        ("state_key", json!("")),
        ("room_id", json!("!other:mal.test")),
        ("room_id", json!(7)),
    ];
    for (what, membership) in ALL {
        for (field, value) in &foreign {
            let mut event = suggestion(membership);
            event[field] = value.clone();
            assert_eq!(drafted(what, event).err(), Some(HandshakeError::Contradicts(field)), "{field} {value}");
            let mut event = suggestion(membership);
            event.as_object_mut().expect("an object").remove(*field);
            assert_eq!(drafted(what, event).err(), Some(HandshakeError::Contradicts(field)), "no {field}");
        }
        for other in ["join", "leave", "knock", "ban", "invite", ""].into_iter().filter(|other| *other != membership) {
            let refused = drafted(what, suggestion(other)).err();
            assert_eq!(refused, Some(HandshakeError::Contradicts("membership")), "{other} for {membership}");
        }
        let mut event = suggestion(membership);
        event["content"] = json!("join");
        assert_eq!(drafted(what, event).err(), Some(HandshakeError::Invalid("content")));
    }
}

#[test]
fn the_place_in_the_graph_is_bounded() {
    let many = |count: usize| Value::from((0..count).map(|n| format!("${n:043}")).collect::<Vec<_>>());
    let bad = [
        ("prev_events", json!([])),
        ("prev_events", many(21)),
        ("prev_events", json!([EVENT, EVENT])),
        ("prev_events", json!([[EVENT, {}]])),
        ("prev_events", json!(["AAAA"])),
        ("prev_events", json!(["$a:mal.test"])),
        ("prev_events", json!([format!("${}", "a".repeat(300))])),
        ("prev_events", json!({ "a": EVENT })),
        ("prev_events", Value::Null),
        ("auth_events", many(11)),
        ("auth_events", json!([1])),
        ("depth", json!("12")),
        ("depth", Value::Null),
    ];
    for (field, value) in bad {
        let mut event = suggestion("join");
        event[field] = value.clone();
        assert_eq!(drafted(Handshake::Join, event).err(), Some(HandshakeError::Invalid(field)), "{field} {value}");
    }
    for (field, value) in [("prev_events", many(20)), ("auth_events", many(10)), ("auth_events", json!([]))] {
        let mut event = suggestion("join");
        event[field] = value;
        assert!(drafted(Handshake::Join, event).is_ok(), "{field}");
    }
    for (depth, taken) in [(-5, 1), (0, 1), (9_007_199_254_740_991_i64, 9_007_199_254_740_991)] {
        let mut event = suggestion("join");
        event["depth"] = json!(depth);
        assert_eq!(drafted(Handshake::Join, event).expect("a draft").depth, taken);
    }
}

#[test]
fn versions_one_and_two_name_events_by_pairs() {
    for name in ["1", "2"] {
        let template = |prev: Value| {
            let mut event = suggestion("join");
            (event["prev_events"], event["auth_events"]) = (prev, json!([]));
            Template { room_version: version(name), event: object(event) }
        };
        let good = draft(&template(json!([["$a:mal.test", { "sha256": "x" }]])), wish(Handshake::Join));
        assert_eq!(good.expect("a draft").prev_events.len(), 1);
        for bad in [json!(["$a:mal.test"]), json!([["$a:mal.test"]]), json!([[EVENT, {}]])] {
            let refused = draft(&template(bad), wish(Handshake::Join)).err();
            assert_eq!(refused, Some(HandshakeError::Invalid("prev_events")));
        }
    }
}

#[test]
fn only_the_word_of_the_server_that_answers_lets_a_user_in() {
    let word = |what, name: &str, member: Value| {
        let mut event = suggestion(if what == Handshake::Join { "join" } else { "leave" });
        event["content"]["join_authorised_via_users_server"] = member;
        let drafted = draft(&Template { room_version: version(name), event: object(event) }, wish(what));
        drafted.map(|draft| draft.content.get("join_authorised_via_users_server").cloned())
    };
    let good = word(Handshake::Join, "8", json!("@mod:mal.test"));
    assert_eq!(good, Ok(Some(CanonicalJsonValue::String("@mod:mal.test".into()))));
    assert_eq!(word(Handshake::Join, "7", json!("@mod:mal.test")), Ok(None), "no restricted rooms yet");
    assert_eq!(word(Handshake::Leave, "8", json!("@mod:mal.test")), Ok(None), "only joins");
    for bad in [json!("@admin:hearth.test"), json!("@mod:third.test"), json!("mod"), json!(7), json!({})] {
        let refused = word(Handshake::Join, "8", bad.clone());
        assert_eq!(refused, Err(HandshakeError::Invalid("join_authorised_via_users_server")), "{bad}");
    }
}

#[test]
fn the_room_version_must_fit() {
    let in_version = |name: &str, wish: Wish<'_>| {
        let event = object(suggestion(wish.what.membership().as_str()));
        draft(&Template { room_version: version(name), event }, wish).err()
    };
    let known = Wish { version: Some(version("9")), ..wish(Handshake::Join) };
    assert_eq!(in_version("10", known), Some(HandshakeError::Contradicts("room_version")));
    assert_eq!(in_version("6", wish(Handshake::Knock)), Some(HandshakeError::Version(version("6"))));
    assert_eq!(in_version("12", wish(Handshake::Join)), Some(HandshakeError::Version(version("12"))));
}
