//! One bad event among good ones: the good ones get through.

use hearth_test_harness::{RawEvent, Signed};
use serde_json::{Value, json};

use super::scene::{Scene, Shared};

/// JSON that a field of an event's content must not be.
fn no_canonical_json() -> Vec<(&'static str, String)> {
    let text = [
        ("NaN", "NaN"),
        ("infinity", "Infinity"),
        ("a fraction", "1.5"),
        ("a whole fraction", "1.0"),
        ("an exponent", "1e3"),
        ("2^53", "9007199254740992"),
        ("-2^53", "-9007199254740992"),
        ("2^63", "9223372036854775808"),
        ("a leading zero", "01"),
        ("a plus", "+1"),
        ("a lone surrogate", "\"\\ud83d\""),
        ("surrogates in the wrong order", "\"\\ude00\\ud83d\""),
        ("a raw control character", "\"\u{1}\""),
        ("a raw line end", "\"\n\""),
        ("the same key twice", "{\"a\":1,\"a\":2}"),
        ("the same key twice, deep inside", "{\"a\":{\"b\":[{\"c\":1,\"c\":1}]}}"),
        ("a word", "yes"),
        ("single quotes", "'a'"),
        ("a comma at the end", "[1,]"),
        ("a comment", "1/*one*/"),
    ];
    let mut all: Vec<_> = text.map(|(what, raw)| (what, raw.to_owned())).into();
    all.push(("an integer of 400 digits", "9".repeat(400)));
    all.push(("10 000 arrays", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))));
    all
}

/// Whole fields that no event may have, in version 11.
fn no_event(event: &RawEvent) -> Vec<(&'static str, RawEvent)> {
    let change = |field: &str, raw: &str| event.clone().raw(field, raw);
    let long = "ü".repeat(128);
    let ids: Vec<String> = (0..21).map(|n| format!("${}{n:02}", "a".repeat(41))).collect();
    let mut all = vec![
        ("a negative depth", change("depth", "-1")),
        ("a depth of 2^53", change("depth", "9007199254740992")),
        ("a depth of 2^63-1", change("depth", "9223372036854775807")),
        ("a depth in words", change("depth", "\"12\"")),
        ("a time in words", change("origin_server_ts", "\"12\"")),
        ("a negative time", change("origin_server_ts", "-1")),
        ("256 bytes of type", event.clone().with("type", &json!(long))),
        ("256 bytes of state key", event.clone().with("state_key", &json!(long))),
        ("256 bytes of sender", event.clone().with("sender", &json!(format!("@{}:127.0.0.3:1", "a".repeat(250))))),
        ("21 prev_events", event.clone().with("prev_events", &json!(ids))),
        ("11 auth_events", event.clone().with("auth_events", &json!(ids[..11]))),
        ("no prev_events", change("prev_events", "[]")),
        ("prev_events of version 1", change("prev_events", "[[\"$a:b\",{\"sha256\":\"c\"}]]")),
        ("prev_events that are no list", change("prev_events", "{}")),
        ("a state key that is no text", change("state_key", "1")),
        ("a sender that is nobody", event.clone().with("sender", &json!("mallory"))),
        ("content that is a list", change("content", "[]")),
        ("content that is nothing", change("content", "null")),
        ("65 537 bytes", event.clone().with("content", &json!({"body": "x".repeat(65_537)}))),
    ];
    for field in ["type", "room_id", "sender", "content", "depth", "prev_events", "auth_events", "origin_server_ts"] {
        all.push(("something missing", event.clone().without(field)));
    }
    all
}

/// JSON that has several readings: what was signed in it is not sure, so the whole transaction may be refused.
const UNSIGNABLE: [&str; 4] =
    ["an exponent", "an integer of 400 digits", "the same key twice", "the same key twice, deep inside"];

/// 24 good events, the bad one, 25 good ones.
async fn among_good_ones(scene: &Scene, shared: &mut Shared, what: &str, bad: &str) -> Value {
    let mut good: Vec<Signed> = Vec::new();
    for number in 0..49 {
        let event = shared.room.message(&shared.mallory, &format!("{what} {number}"));
        good.push(shared.room.send(&scene.mal, &event));
    }
    let mut pdus: Vec<String> = good.iter().map(|event| event.text.clone()).collect();
    pdus.insert(24, bad.to_owned());
    let mut answer = scene.transaction(&pdus, &[]).await;
    if UNSIGNABLE.contains(&what) && [400, 401].contains(&answer.status) {
        pdus.remove(24);
        answer = scene.transaction(&pdus, &[]).await;
    }
    let body = answer.expect_status(200).unwrap_or_else(|other| panic!("{what}: {other}")).body;
    for event in &good {
        assert_eq!(body["pdus"][&event.id], json!({}), "{what}: {} is good", event.id);
    }
    shared.alice.sees(&shared.room.id, &good[48].id).await;
    for event in good.iter().step_by(12) {
        assert_eq!(shared.shown(&event.id).await.status, 200, "{what}: {} is good", event.id);
    }
    body
}

#[tokio::test]
async fn one_bad_event_does_not_stop_49_good_ones() {
    let scene = Scene::new().await;
    let mut shared = scene.room(11).await;
    let message = shared.room.message(&shared.mallory, "poison");
    let content = no_canonical_json().into_iter().map(|(what, raw)| {
        (what, message.clone().raw("content", &format!("{{\"body\":{raw},\"msgtype\":\"m.text\"}}")))
    });
    let events: Vec<_> = content.chain(no_event(&message)).collect();
    for (what, event) in events {
        let bad = event.sign(&scene.mal);
        // What is no JSON at all spoils the text around it: that is the next test.
        if serde_json::from_str::<Value>(&bad.text).is_err() {
            continue;
        }
        let body = among_good_ones(&scene, &mut shared, what, &bad.text).await;
        // Well formed: this one is rejected by the state before it, of which there is none.
        if what != "no prev_events" {
            assert_ne!(body["pdus"][&bad.id], json!({}), "{what} is taken");
        }
        shared.is_kept_out(what, &bad.id).await;
    }
    for (what, bad) in
        [("null", "null"), ("a list", "[]"), ("a number", "5"), ("an empty object", "{}"), ("text", "\"a\"")]
    {
        among_good_ones(&scene, &mut shared, what, bad).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn a_transaction_that_is_no_json_is_refused_as_a_whole() {
    let scene = Scene::new().await;
    let mut shared = scene.room(11).await;
    let message = shared.room.message(&shared.mallory, "poison");
    for (what, raw) in no_canonical_json() {
        let event =
            message.clone().raw("content", &format!("{{\"body\":{raw},\"msgtype\":\"m.text\"}}")).sign(&scene.mal);
        if serde_json::from_str::<Value>(&event.text).is_ok() {
            continue;
        }
        let good = shared.room.message(&shared.mallory, "good").sign(&scene.mal);
        let answer = scene.transaction(&[good.text, event.text], &[]).await;
        // Either the transaction is none, or the event is none in it; both is an answer.
        assert!([200, 400, 401].contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
        shared.is_kept_out(what, &event.id).await;
    }
    scene.all_is_looked_at(&mut shared).await;
    scene.end().await;
}

#[tokio::test]
async fn transactions_have_limits() {
    let scene = Scene::new().await;
    let mut shared = scene.room(11).await;
    let message = shared.room.message(&shared.mallory, "one of too many").sign(&scene.mal);
    let many: Vec<String> = (0..51).map(|_| message.text.clone()).collect();
    let answer = scene.transaction(&many, &[]).await;
    assert_eq!(answer.status, 400, "51 PDUs: {}", answer.text);
    let edu = json!({"edu_type": "m.typing", "content": {"room_id": shared.room.id, "user_id": shared.mallory, "typing": true}});
    let answer = scene.transaction(&[], &vec![edu; 101]).await;
    assert_eq!(answer.status, 400, "101 EDUs: {}", answer.text);
    shared.is_kept_out("a transaction that is too long", &message.id).await;

    // The largest event that may be; one byte more is in the corpus above.
    let fill = |bytes: usize| shared.room.message(&shared.mallory, &"x".repeat(bytes)).sign(&scene.mal);
    let largest = fill(65_536 - fill(0).text.len());
    assert_eq!(largest.text.len(), 65_536);
    scene.deliver(&largest).await;
    shared.alice.sees(&shared.room.id, &largest.id).await;
    scene.all_is_looked_at(&mut shared).await;
    scene.end().await;
}
