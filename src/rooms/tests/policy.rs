//! What becomes of an event while a policy server thinks about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_event::{EventDraft, POLICY_KEY_ID, POLICY_TYPE, Pdu, PolicyServer, RoomVersion, SigningKey, build};
use hearth_schema::{DelayedFailure, DelayedOutcome, Membership, Verdict};
use hearth_store::chaos;
use hearth_store::memory::MemoryStore;
use ruma_common::{CanonicalJsonObject, EventId, OwnedEventId, OwnedRoomId, RoomId, UserId};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::fixture::{creation, message, object, user};
use super::neighbour::{Town, event, other};
use crate::remote::{Answer, PolicyAnswer, PolicyRefusal, RemoteError};
use crate::{CreateRoom, DelayLimits, PolicyError, Preset, SendError, SendEvent};

/// What a policy server says of an event.
pub(super) type Says = Arc<dyn Fn(&Pdu) -> Answer<'static, PolicyAnswer> + Send + Sync>;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32], "policy_server").expect("a key")
}

fn naming(seed: u8) -> Value {
    json!({ "via": "other.test", "public_keys": { "ed25519": key(seed).public_key_base64() } })
}

/// The signature of whoever has the key made of `seed`: that of the same event, had it been made with that key.
fn signature(pdu: &Pdu, seed: u8) -> PolicyAnswer {
    let content: CanonicalJsonObject = serde_json::from_slice(pdu.content_json()).expect("canonical");
    let draft = EventDraft {
        room_id: Some(pdu.room_id().to_owned()),
        event_type: pdu.event_type().to_owned(),
        state_key: pdu.state_key().map(str::to_owned),
        sender: pdu.sender().to_owned(),
        content,
        origin_server_ts: pdu.origin_server_ts(),
        prev_events: pdu.prev_events().to_vec(),
        auth_events: pdu.auth_events().to_vec(),
        depth: pdu.depth(),
        redacts: pdu.redacts().map(EventId::to_owned),
    };
    let same = build(draft, pdu.version(), pdu.sender().server_name(), &key(seed)).expect("an event");
    assert_eq!(same.event_id(), pdu.event_id());
    let json: Value = serde_json::from_slice(same.json()).expect("JSON");
    let signature = &json["signatures"][pdu.sender().server_name().as_str()][POLICY_KEY_ID];
    PolicyAnswer::Signed(signature.as_str().expect("signed").to_owned())
}

/// A room that `other.test` made, which `@alice:hearth.test` is in, and whose policy server is `other.test`.
async fn policed(town: &Town) -> OwnedRoomId {
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    name_policy(town, &room_id, &naming(7)).await;
    room_id
}

/// Another server's user makes `content` the room's policy.
async fn name_policy(town: &Town, room_id: &RoomId, content: &Value) {
    let named = town.there.set(room_id, &other("olga"), (POLICY_TYPE, ""), content.clone()).await.expect("set");
    Town::deliver(&town.there, &town.here, room_id, &[&named.event_id]).await;
    let (kind, key) = (POLICY_TYPE.to_owned(), String::new());
    let expected = (kind, key, named.event_id);
    assert!(town.here.state(room_id).await.contains(&expected), "the policy event needs no signature");
}

fn says(town: &Town, says: impl Fn(&Pdu) -> Answer<'static, PolicyAnswer> + Send + Sync + 'static) {
    *town.neighbour.policy.lock().expect("not poisoned") = Some(Arc::new(says));
}

fn signs(town: &Town, seed: u8) {
    says(town, move |pdu| {
        let answer = signature(pdu, seed);
        Box::pin(async { Ok(answer) })
    });
}

fn questions(town: &Town) -> usize {
    town.neighbour.asked.lock().expect("not poisoned").iter().filter(|asked| **asked == "policy_sign").count()
}

/// A policy server that answers by the key made of each of `seeds` in turn, the first time only after `go`.
fn hesitates(town: &Town, seeds: &'static [u8]) -> (Arc<Notify>, Arc<Notify>) {
    let (asked, go, times) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let handles = (Arc::clone(&asked), Arc::clone(&go));
    says(town, move |pdu| {
        let time = times.fetch_add(1, Ordering::Relaxed);
        let answer = signature(pdu, seeds[time.min(seeds.len() - 1)]);
        let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
        Box::pin(async move {
            asked.notify_one();
            if time == 0 {
                go.notified().await;
            }
            Ok(answer)
        })
    });
    handles
}

/// Whether the event is in the room here, signed by the key made of `seed`.
async fn is_signed(town: &Town, room_id: &RoomId, id: &EventId, seed: u8) -> bool {
    let stored = event(&town.here.rooms, room_id, id).await.expect("it is in the room");
    assert_eq!(stored.verdict, Verdict::Accepted);
    policy_server(seed, &stored.pdu).has_signed(&stored.pdu).expect("readable")
}

fn policy_server(seed: u8, like: &Pdu) -> PolicyServer {
    let content = object(naming(seed));
    let draft = EventDraft {
        room_id: Some(like.room_id().to_owned()),
        event_type: POLICY_TYPE.to_owned(),
        state_key: Some(String::new()),
        sender: like.sender().to_owned(),
        content,
        origin_server_ts: 1,
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 1,
        redacts: None,
    };
    let event = build(draft, like.version(), like.sender().server_name(), &key(1)).expect("an event");
    PolicyServer::of(&event).expect("valid")
}

#[tokio::test]
async fn the_room_goes_on_while_the_policy_server_thinks() {
    let town = Town::new();
    let room_id = policed(&town).await;
    let (asked, go) = hesitates(&town, &[7]);
    let alice = user("alice");
    let waiting = town.here.say(&room_id, &alice, "slow", "1");
    let meanwhile = async {
        asked.notified().await;
        // The policy server is changed for another one by somebody else, and the room takes it at once.
        name_policy(&town, &room_id, &naming(8)).await;
        let state = town.here.state(&room_id).await;
        assert!(state.iter().any(|(kind, ..)| kind == POLICY_TYPE));
        assert!(!town.here.history(&room_id, &alice).await.contains(&"slow".to_owned()));
        name_policy(&town, &room_id, &naming(7)).await;
        go.notify_one();
    };
    let (sent, ()) = tokio::join!(waiting, meanwhile);
    let sent = sent.expect("sent").event_id;
    assert!(is_signed(&town, &room_id, &sent, 7).await);
    assert_eq!(questions(&town), 1);
    assert_eq!(town.here.history(&room_id, &alice).await.last().map(String::as_str), Some("slow"));
}

#[tokio::test]
async fn a_key_that_changes_meanwhile_has_the_event_signed_again() {
    let town = Town::new();
    let room_id = policed(&town).await;
    let (asked, go) = hesitates(&town, &[7, 8]);
    let alice = user("alice");
    let waiting = town.here.say(&room_id, &alice, "slow", "1");
    let meanwhile = async {
        asked.notified().await;
        name_policy(&town, &room_id, &naming(8)).await;
        go.notify_one();
    };
    let (sent, ()) = tokio::join!(waiting, meanwhile);
    assert!(is_signed(&town, &room_id, &sent.expect("sent").event_id, 8).await);
    assert_eq!(questions(&town), 2);
}

#[tokio::test]
async fn who_is_put_out_meanwhile_has_sent_nothing() {
    let town = Town::new();
    let room_id = policed(&town).await;
    let (asked, go) = hesitates(&town, &[7]);
    let alice = user("alice");
    let waiting = town.here.say(&room_id, &alice, "too late", "1");
    let meanwhile = async {
        asked.notified().await;
        name_policy(&town, &room_id, &json!({})).await;
        let ban = town.there.change(&room_id, (&other("olga"), &alice), Membership::Ban).await.expect("a ban").event_id;
        Town::deliver(&town.there, &town.here, &room_id, &[&ban]).await;
        go.notify_one();
    };
    let (sent, ()) = tokio::join!(waiting, meanwhile);
    assert!(matches!(sent, Err(SendError::Forbidden(_))), "{sent:?}");
    assert!(!town.here.history(&room_id, &alice).await.contains(&"too late".to_owned()));
}

#[tokio::test]
async fn who_hangs_up_and_asks_again_has_sent_it_once() {
    let town = Town::new();
    let room_id = policed(&town).await;
    let (asked, go) = hesitates(&town, &[7]);
    let alice = user("alice");
    {
        let mut gone = Box::pin(town.here.say(&room_id, &alice, "once", "1"));
        tokio::select! {
            _ = &mut gone => panic!("the policy server has not answered"),
            () = asked.notified() => {}
        }
    }
    go.notify_one();
    let first = town.here.say(&room_id, &alice, "once", "1").await.expect("sent").event_id;
    let again = town.here.say(&room_id, &alice, "once", "1").await.expect("sent").event_id;
    assert_eq!(first, again);
    let history = town.here.history(&room_id, &alice).await;
    assert_eq!(history.iter().filter(|said| *said == "once").count(), 1);
    assert_eq!(questions(&town), 2, "the one that was given up, and one");
}

#[tokio::test]
async fn commits_that_fail_lose_and_double_nothing() {
    for seed in 0..10 {
        let rates = chaos::ChaosRates { conflict: 20, expired: 0, ..chaos::ChaosRates::default() };
        let town = Town::on(Arc::new(chaos::ChaosStore::with_rates(MemoryStore::new(), seed, rates)));
        let room_id = policed(&town).await;
        signs(&town, 7);
        let alice = user("alice");
        let mut sent = Vec::new();
        for n in 0..10 {
            let (txn, body) = (n.to_string(), format!("message {n}"));
            let id = loop {
                match town.here.say(&room_id, &alice, &body, &txn).await {
                    Ok(sent) => break sent.event_id,
                    Err(SendError::Busy | SendError::Store(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            sent.push(id);
        }
        for id in &sent {
            assert!(is_signed(&town, &room_id, id, 7).await);
        }
        let history = town.here.history(&room_id, &alice).await;
        let expected: Vec<_> = (0..10).map(|n| format!("message {n}")).collect();
        assert_eq!(history[history.len() - 10..], expected, "seed {seed}");
    }
}

#[tokio::test]
async fn delayed_events_are_signed_when_they_are_due_or_fail() {
    let town = Town::new();
    let room_id = policed(&town).await;
    let (alice, hour) = (user("alice"), Duration::from_secs(60 * 60));
    let schedule = async |body: &str| {
        let event = message(&room_id, &alice, body, body);
        town.here.rooms.schedule(&event, Duration::from_secs(1), DelayLimits::default()).await.expect("scheduled")
    };
    let pass = async |time: Duration| {
        town.here.clock.advance(time);
        town.here.rooms.send_due(&CancellationToken::new()).await;
    };
    let outcome = async |id: &str| {
        let found = town.here.rooms.delayed_event(&alice, id).await.expect("known");
        found.event.finalised.map(|finalised| finalised.outcome)
    };
    let later = schedule("later").await;
    assert_eq!(questions(&town), 0);
    is_away(&town);
    pass(Duration::from_secs(1)).await;
    assert_eq!(outcome(&later).await, None, "the policy server may come back");
    signs(&town, 7);
    pass(hour / 2).await;
    let Some(DelayedOutcome::Sent { event_id }) = outcome(&later).await else { panic!("not sent") };
    assert!(is_signed(&town, &room_id, &OwnedEventId::try_from(event_id).expect("an ID"), 7).await);
    let never = schedule("never").await;
    is_away(&town);
    pass(Duration::from_secs(1)).await;
    assert_eq!(outcome(&never).await, None);
    pass(hour).await;
    let Some(DelayedOutcome::Failed { why: DelayedFailure::Forbidden, .. }) = outcome(&never).await else {
        panic!("it is tried for ever")
    };
    let refused = schedule("refused").await;
    refuses(&town);
    pass(Duration::from_secs(1)).await;
    let Some(DelayedOutcome::Failed { why: DelayedFailure::Forbidden, message }) = outcome(&refused).await else {
        panic!("it is tried again")
    };
    assert_eq!(message, "spam");
    assert_eq!(town.here.history(&room_id, &alice).await.last().map(String::as_str), Some("later"));
}

#[tokio::test]
async fn a_policy_server_that_thinks_holds_up_nobody_elses_delayed_events() {
    let town = Town::new();
    let room_id = policed(&town).await;
    let (asked, go) = hesitates(&town, &[7]);
    let (alice, bob) = (user("alice"), user("bob"));
    let creation = CreateRoom { creator: bob.clone(), ..creation(Preset::PrivateChat) };
    let other_room = town.here.rooms.create(creation).await.expect("a room");
    for (room_id, sender, words, seconds) in
        [(&room_id, &alice, "slow", 1), (&other_room, &bob, "first", 2), (&other_room, &bob, "second", 3)]
    {
        let (event, delay) = (message(room_id, sender, words, words), Duration::from_secs(seconds));
        town.here.rooms.schedule(&event, delay, DelayLimits::default()).await.expect("scheduled");
    }
    town.here.clock.advance(Duration::from_secs(3));
    let stop = CancellationToken::new();
    let meanwhile = async {
        asked.notified().await;
        while town.here.history(&other_room, &bob).await.last().map(String::as_str) != Some("second") {
            tokio::task::yield_now().await;
        }
        assert!(!town.here.history(&room_id, &alice).await.contains(&"slow".to_owned()));
        go.notify_one();
    };
    let (next, ()) = tokio::join!(town.here.rooms.send_due(&stop), meanwhile);
    assert_eq!(next, None);
    let history = town.here.history(&other_room, &bob).await;
    assert_eq!(history[history.len() - 2..], ["first", "second"]);
    assert_eq!(town.here.history(&room_id, &alice).await.last().map(String::as_str), Some("slow"));
}

#[tokio::test]
async fn relations_and_redactions_are_what_they_are_elsewhere() {
    let town = Town::new();
    let room_id = policed(&town).await;
    signs(&town, 7);
    let alice = user("alice");
    let parent = town.here.say(&room_id, &alice, "parent", "1").await.expect("sent").event_id;
    let react = async |txn: &str| {
        let relation = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": parent, "key": "+" } });
        let (event_type, content) = ("m.reaction".to_owned(), object(relation));
        town.here.rooms.send(SendEvent { event_type, content, ..message(&room_id, &alice, "", txn) }).await
    };
    let reaction = react("2").await.expect("sent").event_id;
    let asked = questions(&town);
    assert!(matches!(react("3").await, Err(SendError::DuplicateAnnotation)));
    let strike = async |by: &UserId, target: &EventId, txn: &str| {
        let (event_type, content) = ("m.room.redaction".to_owned(), object(json!({})));
        let redacts = Some(target.to_owned());
        town.here.rooms.send(SendEvent { event_type, content, redacts, ..message(&room_id, by, "", txn) }).await
    };
    let create = town.here.state(&room_id).await.into_iter().find(|(kind, ..)| kind == "m.room.create").expect("one");
    let refused = strike(&alice, &create.2, "4").await;
    assert!(matches!(refused, Err(SendError::Forbidden(_))), "she may not redact another user's event: {refused:?}");
    assert_eq!(questions(&town), asked, "nobody is asked about what is not sent anyway");
    strike(&alice, &reaction, "5").await.expect("sent");
    let redacted = event(&town.here.rooms, &room_id, &reaction).await.expect("stored");
    assert!(redacted.redacted_by.is_some());
    assert!(policy_server(7, &redacted.pdu).has_signed(&redacted.pdu).expect("readable"), "signatures stay");
    react("6").await.expect("there is none any more");
}

fn is_away(town: &Town) {
    says(town, |_| {
        Box::pin(async {
            let server = super::neighbour::name(1).to_owned();
            Err(RemoteError::Unreachable { server, why: "away".into() })
        })
    });
}

fn refuses(town: &Town) {
    says(town, |_| {
        let (errcode, error) = ("M_FORBIDDEN".to_owned(), "spam".to_owned());
        Box::pin(async { Ok(PolicyAnswer::Refused(PolicyRefusal { status: 400, errcode, error, retry_after: None })) })
    });
}

#[tokio::test]
async fn what_is_refused_leaves_no_trace() {
    let town = Town::new();
    let room_id = policed(&town).await;
    let alice = user("alice");
    let before = town.here.history(&room_id, &alice).await;
    refuses(&town);
    let said = town.here.say(&room_id, &alice, "spam", "1").await;
    assert!(matches!(&said, Err(SendError::Policy(PolicyError::Refused(no))) if no.error == "spam"), "{said:?}");
    is_away(&town);
    let said = town.here.say(&room_id, &alice, "spam", "2").await;
    assert!(matches!(&said, Err(SendError::Policy(PolicyError::Unreachable(_)))), "{said:?}");
    assert_eq!(town.here.history(&room_id, &alice).await, before);
    // What the rules forbid is not shown to anybody.
    let asked = questions(&town);
    let forbidden = town.here.set(&room_id, &alice, ("m.room.topic", ""), json!({ "topic": "mine" })).await;
    assert!(matches!(forbidden, Err(SendError::Forbidden(_))), "{forbidden:?}");
    let stranger = town.here.rooms.send(message(&room_id, &user("mallory"), "hi", "1")).await;
    assert!(matches!(stranger, Err(SendError::Forbidden(_))), "{stranger:?}");
    assert_eq!(questions(&town), asked);
}
