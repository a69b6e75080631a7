use ruma_common::{EventId, UserId, server_name};
use serde_json::{Value, json};

use super::*;
use crate::{Checked, PublicKeys, check, redact};

fn key() -> SigningKey {
    SigningKey::from_seed([7; 32], "1").unwrap()
}

fn content(value: Value) -> CanonicalJsonObject {
    serde_json::from_value(value).unwrap()
}

fn draft(version: RoomVersion) -> EventDraft {
    EventDraft {
        room_id: Some(RoomId::parse(if version.as_str() == "12" { "!hash" } else { "!room:domain" }).unwrap()),
        event_type: "m.room.message".to_owned(),
        state_key: None,
        sender: UserId::parse("@alice:domain").unwrap(),
        content: content(json!({ "msgtype": "m.text", "body": "hello \"you\"\n" })),
        origin_server_ts: 1_700_000_000_000,
        prev_events: vec![EventId::parse("$prev:domain").unwrap()],
        auth_events: vec![EventId::parse("$auth:domain").unwrap()],
        depth: 7,
        redacts: None,
    }
}

fn make(draft: EventDraft, version: RoomVersion) -> Result<Pdu, BuildError> {
    build(draft, version, server_name!("domain"), &key())
}

fn keys() -> PublicKeys {
    let mut keys = PublicKeys::default();
    keys.insert(server_name!("domain"), "ed25519:1", &key().public_key_base64(), u64::MAX).unwrap();
    keys
}

fn check_again(pdu: &Pdu) -> Checked {
    check(pdu.json(), pdu.version()).unwrap()
}

#[test]
fn makes_events_that_pass_every_check_in_every_version() {
    for version in RoomVersion::all() {
        let pdu = make(draft(version), version).unwrap();
        let checked = check_again(&pdu);
        assert_eq!(checked.event_id(), pdu.event_id(), "version {version}");
        let verified = checked.verify(&keys()).unwrap();
        assert!(!verified.redacted_by_hash(), "version {version}");
        let again = verified.into_pdu();
        assert_eq!(again, pdu);
        assert_eq!(again.content().get(), r#"{"body":"hello \"you\"\n","msgtype":"m.text"}"#);
        assert_eq!(again.content_json(), pdu.content_json());
        assert_eq!(again.prev_events(), pdu.prev_events());
        assert_eq!(again.auth_events(), pdu.auth_events());
        assert_eq!((again.depth(), again.origin_server_ts()), (7, 1_700_000_000_000));
        assert_eq!((again.room_id(), again.sender()), (pdu.room_id(), pdu.sender()));
    }
}

/// A second implementation says the same: ruma's hashes and signatures, in the versions that it is for.
#[test]
fn makes_the_same_events_as_ruma() {
    for version in RoomVersion::all() {
        let pdu = make(draft(version), version).unwrap();
        let object: CanonicalJsonObject = serde_json::from_slice(pdu.json()).unwrap();
        let public = std::collections::BTreeMap::from([(
            "domain".to_owned(),
            std::collections::BTreeMap::from([(
                "ed25519:1".to_owned(),
                ruma_common::serde::Base64::parse(key().public_key_base64()).unwrap(),
            )]),
        )]);
        let verdict = ruma_signatures::verify_event(&public, &object, version.rules()).unwrap();
        assert_eq!(verdict, ruma_signatures::Verified::All, "version {version}");
        if !version.has_event_id_field() {
            let hash = ruma_signatures::reference_hash(&object, version.rules()).unwrap();
            assert_eq!(pdu.event_id().as_str(), format!("${hash}"));
        }
    }
}

#[test]
fn names_events_the_same_again_in_versions_1_and_2() {
    for version in RoomVersion::all().take(2) {
        let one = make(draft(version), version).unwrap();
        assert_eq!(one, make(draft(version), version).unwrap());
        assert_eq!(one.event_id().server_name(), Some(server_name!("domain")));
        let mut other = draft(version);
        other.depth = 8;
        assert_ne!(make(other, version).unwrap().event_id(), one.event_id());
    }
}

#[test]
fn names_the_room_by_its_create_event_from_version_12() {
    let mut create = draft(RoomVersion::DEFAULT);
    create.event_type = "m.room.create".to_owned();
    create.state_key = Some(String::new());
    create.content = content(json!({ "room_version": "12" }));
    assert_eq!(make(create.clone(), RoomVersion::DEFAULT), Err(BuildError::RoomId));
    create.room_id = None;
    let pdu = make(create.clone(), RoomVersion::DEFAULT).unwrap();
    assert_eq!(pdu.room_id().as_str().strip_prefix('!'), pdu.event_id().as_str().strip_prefix('$'));
    assert_eq!(check_again(&pdu).verify(&keys()).unwrap().pdu().room_id(), pdu.room_id());
    assert!(!String::from_utf8_lossy(pdu.json()).contains("room_id"));
    assert_eq!(make(create, RoomVersion::parse("11").unwrap()), Err(BuildError::RoomId));
}

#[test]
fn puts_redacts_where_the_version_wants_it() {
    for version in RoomVersion::all() {
        let mut redaction = draft(version);
        redaction.event_type = "m.room.redaction".to_owned();
        redaction.content = content(json!({ "reason": "spam" }));
        redaction.redacts = Some(EventId::parse("$target:domain").unwrap());
        let pdu = make(redaction, version).unwrap();
        let json: Value = serde_json::from_slice(pdu.json()).unwrap();
        let in_content = version >= RoomVersion::parse("11").unwrap();
        assert_eq!(json["redacts"].is_null(), in_content, "version {version}");
        assert_eq!(json["content"]["redacts"].is_null(), !in_content, "version {version}");
        assert_eq!(pdu.redacts().unwrap(), "$target:domain");
        assert_eq!(check_again(&pdu).verify(&keys()).unwrap().into_pdu().redacts(), pdu.redacts());
        let head: Value = serde_json::from_str(&head_with_brace(&pdu)).unwrap();
        assert_eq!(
            (&head["redacts"], &head["content"]["redacts"]),
            (&json!("$target:domain"), &json!("$target:domain"))
        );
    }
}

fn head_with_brace(pdu: &Pdu) -> String {
    String::from_utf8(crate::client_head(pdu).to_vec()).unwrap() + "}"
}

#[test]
fn shows_clients_an_event_in_their_form() {
    let mut state = draft(RoomVersion::DEFAULT);
    state.event_type = "m.room.topic".to_owned();
    state.state_key = Some("a\"b".to_owned());
    state.content = content(json!({ "topic": "x" }));
    let pdu = make(state, RoomVersion::DEFAULT).unwrap();
    let event_id = pdu.event_id();
    assert_eq!(
        head_with_brace(&pdu),
        format!(
            r#"{{"content":{{"topic":"x"}},"event_id":"{event_id}","origin_server_ts":1700000000000,"room_id":"!hash","sender":"@alice:domain","state_key":"a\"b","type":"m.room.topic"}}"#
        )
    );
    let bare = String::from_utf8(crate::client_head_without_room(&pdu).to_vec()).unwrap();
    assert_eq!(bare + "}", head_with_brace(&pdu).replace(r#""room_id":"!hash","#, ""));
}

/// Row A8 of the attack classes, as far as our own events go.
#[test]
fn holds_the_limits_of_size() {
    let version = RoomVersion::DEFAULT;
    let with_body = |length: usize| {
        let mut draft = draft(version);
        draft.content = content(json!({ "body": "x".repeat(length) }));
        make(draft, version)
    };
    let empty = with_body(0).unwrap().json().len();
    assert_eq!(with_body(65_536 - empty).unwrap().json().len(), 65_536);
    assert_eq!(with_body(65_537 - empty), Err(BuildError::TooLarge { bytes: 65_537 }));
    let change = |change: fn(&mut EventDraft)| {
        let mut draft = draft(version);
        change(&mut draft);
        make(draft, version).map(drop)
    };
    let id = |n: usize| EventId::parse(format!("${n}")).unwrap();
    assert_eq!(change(|draft| draft.event_type = "é".repeat(127)), Ok(()));
    assert_eq!(change(|draft| draft.event_type = "é".repeat(128)), Err(BuildError::FieldTooLong { field: "type" }));
    assert_eq!(change(|draft| draft.state_key = Some("x".repeat(255))), Ok(()));
    assert_eq!(
        change(|draft| draft.state_key = Some("x".repeat(256))),
        Err(BuildError::FieldTooLong { field: "state_key" })
    );
    for (count, expected) in [(20, Ok(())), (21, Err(BuildError::TooMany { field: "prev_events" }))] {
        let mut draft = draft(version);
        draft.prev_events = (0..count).map(id).collect();
        assert_eq!(make(draft, version).map(drop), expected);
    }
    for (count, expected) in [(10, Ok(())), (11, Err(BuildError::TooMany { field: "auth_events" }))] {
        let mut draft = draft(version);
        draft.auth_events = (0..count).map(id).collect();
        assert_eq!(make(draft, version).map(drop), expected);
    }
    assert_eq!(change(|draft| draft.origin_server_ts = 1 << 53), Err(BuildError::Time));
    assert_eq!(change(|draft| draft.sender = UserId::parse("@eve:elsewhere").unwrap()), Err(BuildError::ForeignSender));
    let mut deep = draft(version);
    deep.depth = u64::MAX;
    assert_eq!(make(deep, version).unwrap().depth(), (1 << 53) - 1);
}

#[test]
fn redacting_keeps_the_id_and_the_signature_and_is_done_once() {
    for version in RoomVersion::all() {
        let pdu = make(draft(version), version).unwrap();
        let redacted = redact(version, &pdu).unwrap();
        assert_eq!(redacted.content().get(), "{}");
        assert_eq!(redact(version, &redacted).unwrap(), redacted);
        let checked = check_again(&redacted);
        assert_eq!(checked.event_id(), pdu.event_id());
        let verified = checked.verify(&keys()).unwrap();
        // The hash is that of the whole event, which is not there any more.
        assert!(verified.redacted_by_hash());
        assert_eq!(verified.pdu(), &redacted);
    }
}
