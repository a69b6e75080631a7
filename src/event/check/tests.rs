use ruma_common::{ServerName, server_name};
use serde_json::{Value, json};

use super::*;
use crate::SigningKey;
use crate::key::add_signature;

fn key() -> SigningKey {
    SigningKey::from_file_text("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap()
}

fn keys(valid_until: u64) -> PublicKeys {
    let mut keys = PublicKeys::default();
    keys.insert(server_name!("domain"), "ed25519:1", &key().public_key_base64(), valid_until).unwrap();
    keys
}

fn version(name: &str) -> RoomVersion {
    RoomVersion::parse(name).unwrap()
}

fn object(value: &Value) -> Object {
    parse_object(&serde_json::to_vec(value).unwrap(), LIMITS, Strictness::Lenient).unwrap()
}

/// `event` with its hash and `server`'s signature.
fn signed(event: &Value, version: RoomVersion, server: &ServerName) -> Value {
    let mut event = object(event);
    event.insert("hashes", Json::Object(Object::default()));
    let mut hashes = Object::default();
    hashes.insert("sha256", Json::Str(BASE64.encode(content_hash(&event)).into()));
    event.insert("hashes", Json::Object(hashes));
    add(&mut event, version, server);
    serde_json::from_slice(&event.bytes()).unwrap()
}

fn add(event: &mut Object, version: RoomVersion, server: &ServerName) {
    let mut redacted = event.clone();
    let kind = event.text("type").unwrap().to_owned();
    redact_object(&mut redacted, &version.rules().redaction, &kind);
    let mut message = Vec::new();
    redacted.write_without(&UNSIGNED, &mut message);
    add_signature(event, server, "ed25519:1", key().sign(&message));
}

/// <https://spec.matrix.org/v1.19/appendices/#json-signing>
#[test]
fn signs_the_json_examples_of_the_specification() {
    let sign = |value: Value| {
        let signed = key().sign_server_keys(server_name!("domain"), serde_json::from_value(value).unwrap());
        serde_json::to_value(&signed["signatures"]).unwrap()["domain"]["ed25519:1"].clone()
    };
    assert_eq!(
        sign(json!({})),
        "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"
    );
    assert_eq!(
        sign(json!({ "one": 1, "two": "Two" })),
        "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"
    );
}

/// <https://spec.matrix.org/v1.19/appendices/#event-signing>
#[test]
fn signs_the_event_examples_of_the_specification() {
    let minimal = json!({
        "room_id": "!x:domain", "sender": "@a:domain", "origin": "domain", "origin_server_ts": 1_000_000,
        "signatures": {}, "hashes": {}, "type": "X", "content": {}, "prev_events": [], "auth_events": [], "depth": 3,
        "unsigned": { "age_ts": 1_000_000 },
    });
    let redactable = json!({
        "content": { "body": "Here is the message content" }, "event_id": "$0:domain", "origin": "domain",
        "origin_server_ts": 1_000_000, "type": "m.room.message", "room_id": "!r:domain", "sender": "@u:domain",
        "signatures": {}, "unsigned": { "age_ts": 1_000_000 },
    });
    for (event, hash, signature) in [
        (
            minimal,
            "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            redactable,
            "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ] {
        let signed = signed(&event, version("1"), server_name!("domain"));
        assert_eq!(signed["hashes"]["sha256"], hash);
        assert_eq!(signed["signatures"]["domain"]["ed25519:1"], signature);
    }
}

fn event(version: RoomVersion) -> Value {
    let reference = |id: &str| if version.refers_by_pairs() { json!([id, { "sha256": "x" }]) } else { json!(id) };
    let mut event = json!({
        "type": "m.room.message", "sender": "@alice:domain", "room_id": "!room:domain", "content": { "body": "x" },
        "origin_server_ts": 1000, "depth": 3, "prev_events": [reference("$a:domain")],
        "auth_events": [reference("$b:domain")], "hashes": { "sha256": "x" }, "signatures": {},
    });
    if version.has_event_id_field() {
        event["event_id"] = json!("$event:domain");
    }
    event
}

fn check_value(event: &Value, version: RoomVersion) -> Result<Checked, FormatError> {
    check(&serde_json::to_vec(event).unwrap(), version)
}

/// Rows A7 and A8 of the attack classes: one field at a time.
#[test]
fn refuses_fields_of_the_wrong_shape() {
    for version in RoomVersion::all() {
        assert!(check_value(&event(version), version).is_ok(), "version {version}");
        for field in [
            "type",
            "sender",
            "room_id",
            "content",
            "origin_server_ts",
            "depth",
            "prev_events",
            "auth_events",
            "hashes",
            "signatures",
        ] {
            let mut missing = event(version);
            missing.as_object_mut().unwrap().remove(field);
            assert_eq!(
                check_value(&missing, version).unwrap_err(),
                FormatError::Missing { field },
                "version {version}"
            );
            for odd in [json!(null), json!(true), json!([[]]), json!(-1), json!("\u{0}"), json!([1]), json!({ "a": 1 })]
            {
                let is_right = matches!(field, "content" | "hashes" | "signatures") && odd.is_object()
                    || field == "type" && odd.is_string();
                let mut wrong = event(version);
                wrong[field] = odd.clone();
                assert_eq!(check_value(&wrong, version).is_ok(), is_right, "version {version}, {field}: {odd}");
            }
        }
        for odd in [json!(null), json!(1), json!({})] {
            let mut wrong = event(version);
            wrong["state_key"] = odd;
            assert_eq!(check_value(&wrong, version).unwrap_err(), FormatError::Invalid { field: "state_key" });
        }
    }
}

#[test]
fn refuses_fields_beyond_the_limits() {
    for version in RoomVersion::all() {
        let with = |field: &str, value: Value| {
            let mut event = event(version);
            event[field] = value;
            check_value(&event, version).map(drop)
        };
        for field in ["type", "state_key"] {
            assert_eq!(with(field, json!("x".repeat(255))), Ok(()));
            assert!(with(field, json!("x".repeat(256))).is_err());
            // Bytes count, not characters; but in old versions other servers have let such events pass.
            assert_eq!(with(field, json!("é".repeat(128))).is_err(), version.counts_bytes());
            assert!(with(field, json!("é".repeat(256))).is_err());
        }
        let user = |length: usize| json!(format!("@{}:domain", "x".repeat(length - 8)));
        assert_eq!(with("sender", user(255)), Ok(()));
        assert!(with("sender", user(256)).is_err());
        let room = |length: usize| json!(format!("!{}:domain", "x".repeat(length - 8)));
        assert_eq!(with("room_id", room(255)), Ok(()));
        assert!(with("room_id", room(256)).is_err());
        if version.has_event_id_field() {
            assert_eq!(with("event_id", json!(format!("${}:domain", "x".repeat(247)))), Ok(()));
            assert!(with("event_id", json!(format!("${}:domain", "x".repeat(248)))).is_err());
            assert!(with("event_id", json!("$nothing")).is_err());
        }
        for (field, most) in [("prev_events", 20), ("auth_events", 10)] {
            let list = |count: usize| Value::Array(vec![event(version)["prev_events"][0].clone(); count]);
            assert_eq!(with(field, list(most)), Ok(()));
            assert_eq!(with(field, list(most + 1)), Err(FormatError::TooLong { field: field_name(field) }));
            assert_eq!(with(field, list(0)), Ok(()));
        }
        for (depth, is_right) in
            [(json!(0), true), (json!(MAX_SAFE_DEPTH), true), (json!(-1), false), (json!("5"), false)]
        {
            assert_eq!(with("depth", depth.clone()).is_ok(), is_right, "version {version}, depth {depth}");
        }
        // Old versions take what fits into 64 bits.
        assert_eq!(with("depth", json!(i64::MAX)).is_ok(), !version.strict_json());
        assert!(with("depth", json!(u64::MAX)).is_err());
        assert_eq!(with("content", json!({ "a": 1.5 })).is_ok(), !version.strict_json());
    }
}

const MAX_SAFE_DEPTH: i64 = crate::json::MAX_SAFE;

fn field_name(field: &str) -> &'static str {
    if field == "prev_events" { "prev_events" } else { "auth_events" }
}

#[test]
fn measures_events_without_unsigned_in_canonical_form() {
    let version = RoomVersion::DEFAULT;
    let sized = |length: usize, unsigned: Value| {
        let mut event = event(version);
        event["content"]["body"] = json!("x".repeat(length));
        event["unsigned"] = unsigned;
        serde_json::to_vec_pretty(&event).unwrap()
    };
    let bare = check(&sized(0, json!({})), version).unwrap().event.bytes().len();
    let much = json!({ "age": 1, "junk": "y".repeat(100_000) });
    assert!(check(&sized(65_536 - bare, much.clone()), version).is_ok());
    assert_eq!(check(&sized(65_537 - bare, much), version).unwrap_err(), FormatError::TooLarge);
    let endless = sized(0, json!("y".repeat(600_000)));
    assert_eq!(check(&endless, version).unwrap_err(), FormatError::Json(JsonError::TooLarge { limit: LIMITS.bytes }));
    let deep = format!("{{\"a\":{}", "[".repeat(10_000));
    assert_eq!(check(deep.as_bytes(), version).unwrap_err(), FormatError::Json(JsonError::TooDeep { limit: 100 }));
}

#[test]
fn refuses_duplicate_keys_from_version_6() {
    for version in RoomVersion::all() {
        let text =
            serde_json::to_string(&event(version)).unwrap().replace("\"body\":\"x\"", "\"body\":\"x\",\"body\":\"y\"");
        assert_eq!(check(text.as_bytes(), version).is_ok(), !version.strict_json(), "version {version}");
    }
}

/// Row A4 of the attack classes, as far as it concerns one event.
#[test]
fn verifies_the_signatures_that_are_needed() {
    let domain = server_name!("domain");
    for version in RoomVersion::all() {
        let good = signed(&event(version), version, domain);
        let verify = |event: &Value, keys: &PublicKeys| check_value(event, version).unwrap().verify(keys);
        assert!(!verify(&good, &keys(1000)).unwrap().redacted_by_hash());
        let unknown = VerifyError::UnknownKeys { server: domain.to_owned() };
        assert_eq!(verify(&good, &PublicKeys::default()).unwrap_err(), unknown);
        let bad = VerifyError::BadSignature { server: domain.to_owned() };
        let mut unsigned = good.clone();
        unsigned["signatures"] = json!({});
        assert_eq!(verify(&unsigned, &keys(1000)).unwrap_err(), bad);
        let mut foreign = good.clone();
        foreign["signatures"] = json!({ "elsewhere": good["signatures"]["domain"] });
        assert_eq!(verify(&foreign, &keys(1000)).unwrap_err(), bad);
        for odd in [json!(null), json!(""), json!("AAAA"), json!({})] {
            let mut broken = good.clone();
            broken["signatures"]["domain"]["ed25519:1"] = odd;
            assert_eq!(verify(&broken, &keys(1000)).unwrap_err(), bad);
        }
        let mut wrong_key = PublicKeys::default();
        let other = SigningKey::from_seed([9; 32], "1").unwrap();
        wrong_key.insert(domain, "ed25519:1", &other.public_key_base64(), 1000).unwrap();
        assert_eq!(verify(&good, &wrong_key).unwrap_err(), bad);
        // A key that had expired when the event was made counts only before version 5.
        assert_eq!(verify(&good, &keys(999)).is_ok(), !version.rules().enforce_key_validity, "version {version}");
        // A changed field that the signature is over.
        let mut changed = good.clone();
        changed["depth"] = json!(4);
        assert_eq!(verify(&changed, &keys(1000)).unwrap_err(), bad);
    }
}

#[test]
fn keeps_only_the_redacted_form_of_altered_content() {
    for version in RoomVersion::all() {
        let mut altered = signed(&event(version), version, server_name!("domain"));
        let id = check_value(&altered, version).unwrap().event_id().to_owned();
        altered["content"] = json!({ "body": "altered" });
        altered["more"] = json!("added");
        let checked = check_value(&altered, version).unwrap();
        assert_eq!(checked.event_id(), id);
        let verified = checked.verify(&keys(1000)).unwrap();
        assert!(verified.redacted_by_hash());
        assert_eq!(verified.pdu().content().get(), "{}");
        assert!(!String::from_utf8_lossy(verified.pdu().json()).contains("more"));
    }
}

#[test]
fn asks_for_the_server_that_authorised_a_join_and_not_for_the_sender_of_a_third_party_invite() {
    let member = |version: RoomVersion, content: Value| {
        let mut event = event(version);
        event["type"] = json!("m.room.member");
        event["state_key"] = json!("@alice:domain");
        event["content"] = content;
        let checked = check_value(&event, version)?;
        Ok::<_, FormatError>(checked.signers().iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let join = json!({ "membership": "join", "join_authorised_via_users_server": "@bob:elsewhere" });
    assert_eq!(member(version("7"), join.clone()).unwrap(), ["domain"]);
    assert_eq!(member(version("8"), join).unwrap(), ["domain", "elsewhere"]);
    let odd = json!({ "membership": "join", "join_authorised_via_users_server": 5 });
    assert!(member(version("8"), odd).is_err());
    let leave = json!({ "membership": "leave", "join_authorised_via_users_server": "@bob:elsewhere" });
    assert_eq!(member(version("8"), leave).unwrap(), ["domain"]);
    let invite = json!({ "membership": "invite", "third_party_invite": { "signed": {} } });
    assert_eq!(member(version("10"), invite.clone()).unwrap(), Vec::<String>::new());
    // The name that an event gives itself is vouched for by its server.
    assert_eq!(member(version("1"), invite).unwrap(), ["domain"]);
    let no_object = json!({ "membership": "invite", "third_party_invite": null });
    assert_eq!(member(version("10"), no_object).unwrap(), ["domain"]);
}

#[test]
fn a_server_puts_its_name_only_to_a_join_on_the_word_of_its_user() {
    let home = server_name!("home");
    let mut all = keys(1000);
    all.insert(home, "ed25519:1", &key().public_key_base64(), 1000).unwrap();
    let member = |content: Value| {
        let mut event = event(version("8"));
        event["type"] = json!("m.room.member");
        event["state_key"] = json!("@alice:domain");
        event["content"] = content;
        check_value(&signed(&event, version("8"), server_name!("domain")), version("8")).unwrap()
    };
    let join = json!({ "membership": "join", "join_authorised_via_users_server": "@bob:home" });
    // By the usual way it is refused; this server may add what is missing, and then it passes.
    assert!(member(join.clone()).verify(&all).is_err());
    let unvouched = member(join.clone()).verify_for(&keys(1000), home).unwrap();
    assert!(unvouched.is_wanting() && !unvouched.redacted_by_hash());
    assert!(unvouched.clone().complete().is_none());
    let vouched = unvouched.vouch(home, &key()).unwrap();
    check(vouched.pdu().json(), version("8")).unwrap().verify(&all).unwrap();
    // Nobody else's signature can be missing, and of others nothing is signed.
    let unsigned = {
        let mut event = event(version("8"));
        event["type"] = json!("m.room.member");
        event["state_key"] = json!("@alice:domain");
        event["content"] = join.clone();
        event
    };
    let forged = signed(&unsigned, version("8"), server_name!("elsewhere"));
    assert!(check_value(&forged, version("8")).unwrap().verify_for(&keys(1000), home).is_err());
    assert!(member(join).verify_for(&keys(1000), server_name!("domain")).is_err(), "its own sender's name stays due");
    let plain = member(json!({ "membership": "join" })).verify_for(&keys(1000), home).unwrap();
    assert!(!plain.is_wanting() && plain.clone().vouch(home, &key()).is_err());
    assert!(plain.complete().is_some());
}
