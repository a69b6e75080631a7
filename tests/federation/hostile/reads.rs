//! What a server may read that is in one room and not in another.

use hearth_test_harness::{Answer, pct};
use serde_json::json;

use super::scene::Scene;

/// What is answered, but when.
fn timeless(answer: &Answer) -> (u16, String) {
    let mut body = answer.body.clone();
    if let Some(body) = body.as_object_mut() {
        body.remove("origin_server_ts");
    }
    (answer.status, body.to_string())
}

#[tokio::test]
async fn events_of_other_rooms_are_not_there() {
    let scene = Scene::new().await;
    let shared = scene.room(11).await;
    let (mal, to) = (&scene.mal, scene.name());
    let ours = shared.room.id.clone();
    let closed = shared.alice.create(&json!({"preset": "private_chat", "room_version": "11"})).await;
    let secret = shared.alice.say(&closed, "secret").await;
    let state = shared.alice.state(&closed).await.expect("her own room");
    let member = state[&("m.room.member".to_owned(), shared.alice.id().to_owned())].clone();
    let unknown = format!("${}", "A".repeat(43));

    let ask = async |path: &str, event: &str| -> Answer {
        let uri = path.replace("EVENT", &pct(event)).replace("ROOM", &pct(&ours));
        mal.get(&to, &uri).send().await
    };
    for path in [
        "/_matrix/federation/v1/event/EVENT",
        "/_matrix/federation/v1/state/ROOM?event_id=EVENT",
        "/_matrix/federation/v1/state_ids/ROOM?event_id=EVENT",
        "/_matrix/federation/v1/event_auth/ROOM/EVENT",
        "/_matrix/federation/v1/backfill/ROOM?limit=10&v=EVENT",
    ] {
        let none = ask(path, &unknown).await;
        for event in [&secret, &member] {
            let answer = ask(path, event).await;
            assert_eq!(timeless(&answer), timeless(&none), "{path}");
            assert!(!answer.text.contains("secret"), "{path}");
        }
    }
    for (latest, earliest) in [(&secret, &unknown), (&member, &secret), (&unknown, &secret)] {
        let body = json!({"latest_events": [latest], "earliest_events": [earliest], "limit": 10, "min_depth": 0});
        let answer =
            mal.post(&to, &format!("/_matrix/federation/v1/get_missing_events/{}", pct(&ours)), &body).send().await;
        assert!([200, 404].contains(&answer.status), "{}", answer.text);
        assert!(answer.status == 404 || answer.body["events"] == json!([]), "{}", answer.text);
    }
    let closed_room = pct(&closed);
    for uri in [
        format!("/_matrix/federation/v1/state/{closed_room}?event_id={}", pct(&secret)),
        format!("/_matrix/federation/v1/state_ids/{closed_room}?event_id={}", pct(&secret)),
        format!("/_matrix/federation/v1/event_auth/{closed_room}/{}", pct(&secret)),
        format!("/_matrix/federation/v1/backfill/{closed_room}?limit=10&v={}", pct(&secret)),
        format!("/_matrix/federation/v1/timestamp_to_event/{closed_room}?ts=0&dir=f"),
        format!("/_matrix/federation/v1/make_leave/{closed_room}/{}", pct(&shared.mallory)),
        format!("/_matrix/federation/v1/make_join/{closed_room}/{}?ver=11", pct(&shared.mallory)),
        format!("/_matrix/federation/v1/make_knock/{closed_room}/{}?ver=11", pct(&shared.mallory)),
    ] {
        let answer = mal.get(&to, &uri).send().await;
        assert!([403, 404].contains(&answer.status), "{uri}: {} {}", answer.status, answer.text);
    }
    let body = json!({"latest_events": [secret], "earliest_events": [], "limit": 10, "min_depth": 0});
    let uri = format!("/_matrix/federation/v1/get_missing_events/{closed_room}");
    assert!([403, 404].contains(&mal.post(&to, &uri, &body).send().await.status));
    scene.end().await;
}

#[tokio::test]
async fn events_across_rooms_are_kept_out() {
    let scene = Scene::new().await;
    let mut shared = scene.room(11).await;
    let mut other = scene.room(11).await;
    // Sent to one room, made for another.
    let bob = scene.mal.user("bob");
    let join = other.room.event("m.room.member", Some(&bob), &bob, &json!({"membership": "join"})).sign(&scene.mal);
    let uri = format!("/_matrix/federation/v2/send_join/{}/{}", pct(&shared.room.id), pct(&join.id));
    let answer = scene.mal.put(&scene.name(), &uri, &join.json()).send().await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    other.is_kept_out("a join for another room", &join.id).await;
    // An event whose auth events are of another room.
    let event = shared.room.message(&shared.mallory, "by the other room's rules");
    let foreign = event.with("auth_events", &json!(other.room.message(&other.mallory, "").field("auth_events")));
    let foreign = foreign.sign(&scene.mal);
    scene.transaction(std::slice::from_ref(&foreign.text), &[]).await.expect_status(200).expect("an answer");
    scene.all_is_looked_at(&mut shared).await;
    shared.is_kept_out("foreign auth events", &foreign.id).await;
    scene.all_is_looked_at(&mut other).await;
    scene.end().await;
}

#[tokio::test]
async fn reads_have_limits() {
    let scene = Scene::new().await;
    let shared = scene.room(11).await;
    let (mal, to, room) = (&scene.mal, scene.name(), pct(&shared.room.id));
    let mut last = String::new();
    for number in 0..130 {
        last = shared.alice.say(&shared.room.id, &format!("message {number}")).await;
    }
    let many = "1000000000";
    let uri = format!("/_matrix/federation/v1/backfill/{room}?limit={many}&v={}", pct(&last));
    let answer = mal.get(&to, &uri).ok().await;
    let length = answer["pdus"].as_array().expect("a list").len();
    assert!((1..=100).contains(&length), "{length}");
    let join = &shared.room.head[0];
    let body = json!({"latest_events": [last], "earliest_events": [join], "limit": 1_000_000_000, "min_depth": 0});
    let answer = mal.post(&to, &format!("/_matrix/federation/v1/get_missing_events/{room}"), &body).ok().await;
    let length = answer["events"].as_array().expect("a list").len();
    assert!((1..=20).contains(&length), "{length}");
    let body = json!({"server_keys": (0..10_000).map(|n| (format!("s{n}.invalid"), json!({}))).collect::<serde_json::Map<_, _>>()});
    let answer = mal.post(&to, "/_matrix/key/v2/query", &body).send().await;
    assert!([200, 400, 413, 429].contains(&answer.status), "{} {}", answer.status, answer.text);
    scene.end().await;
}

#[tokio::test]
async fn banned_servers_get_nothing_and_say_nothing() {
    let scene = Scene::new().await;
    let mut shared = scene.room(11).await;
    let (mal, to, room) = (&scene.mal, scene.name(), pct(&shared.room.id));
    let before = shared.alice.say(&shared.room.id, "before").await;
    // Ports and upper case do not help.
    let acl = json!({"allow": ["*"], "deny": ["127.0.0.3"], "allow_ip_literals": true});
    shared.alice.set_state(&shared.room.id, "m.room.server_acl", "", &acl).await;
    let event = pct(&before);
    for uri in [
        format!("/_matrix/federation/v1/make_join/{room}/{}?ver=11", pct(&mal.user("bob"))),
        format!("/_matrix/federation/v1/make_leave/{room}/{}", pct(&shared.mallory)),
        format!("/_matrix/federation/v1/make_knock/{room}/{}?ver=11", pct(&mal.user("bob"))),
        format!("/_matrix/federation/v1/event/{event}"),
        format!("/_matrix/federation/v1/state/{room}?event_id={event}"),
        format!("/_matrix/federation/v1/state_ids/{room}?event_id={event}"),
        format!("/_matrix/federation/v1/event_auth/{room}/{event}"),
        format!("/_matrix/federation/v1/backfill/{room}?limit=10&v={event}"),
        format!("/_matrix/federation/v1/timestamp_to_event/{room}?ts=0&dir=f"),
    ] {
        let answer = mal.get(&to, &uri).send().await;
        // An event alone does not say of which room it is: to this server there is none.
        let none = uri.contains("/event/") && answer.status == 404;
        assert!(none || (answer.status, answer.errcode()) == (403, "M_FORBIDDEN"), "{uri}: {}", answer.text);
    }
    let body = json!({"latest_events": [before], "earliest_events": [], "limit": 10, "min_depth": 0});
    let answer = mal.post(&to, &format!("/_matrix/federation/v1/get_missing_events/{room}"), &body).send().await;
    assert_eq!((answer.status, answer.errcode()), (403, "M_FORBIDDEN"), "{}", answer.text);
    let bob = mal.user("bob");
    let member =
        |membership: &str| shared.room.event("m.room.member", Some(&bob), &bob, &json!({"membership": membership}));
    for (what, event) in
        [("send_join", member("join")), ("send_leave", member("leave")), ("send_knock", member("knock"))]
    {
        let event = event.sign(mal);
        let v = if what == "send_knock" { "v1" } else { "v2" };
        let uri = format!("/_matrix/federation/{v}/{what}/{room}/{}", pct(&event.id));
        let answer = mal.put(&to, &uri, &event.json()).send().await;
        assert_eq!((answer.status, answer.errcode()), (403, "M_FORBIDDEN"), "{what}: {}", answer.text);
    }
    let message = shared.room.message(&shared.mallory, "let me in").sign(mal);
    let typing = json!({"edu_type": "m.typing", "content": {"room_id": shared.room.id, "user_id": shared.mallory, "typing": true}});
    let answer = scene.transaction(std::slice::from_ref(&message.text), &[typing]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.body["pdus"][&message.id]["error"].is_string(), "{}", answer.text);
    // Another room, which has no such list, tells when the transaction is done.
    let mut other = scene.room(11).await;
    scene.all_is_looked_at(&mut other).await;
    shared.is_kept_out("a server that is kept out", &message.id).await;
    let sync = shared.alice.get("/sync?timeout=0").await.body;
    assert!(!sync["rooms"]["join"][&shared.room.id]["ephemeral"].to_string().contains(&shared.mallory), "{sync}");
    shared.room.head.clear();
    scene.end().await;
}

#[tokio::test]
async fn rooms_without_our_users_stay_as_they_were() {
    let scene = Scene::new().await;
    let mut shared = scene.room(11).await;
    let levels = json!({"users": {shared.alice.id(): 100, shared.mallory.as_str(): 100}});
    let levels = shared.alice.set_state(&shared.room.id, "m.room.power_levels", "", &levels).await;
    let sent = |id: String| move |asked: &hearth_test_harness::Asked| asked.body["pdus"].to_string().contains(&id);
    let _ = sent;
    shared.alice.leave(&shared.room.id).await;
    // What her server tells of it is where the hostile one goes on.
    let told = scene.mal.is_asked("her leaving", |asked| {
        asked.body["pdus"].as_array().is_some_and(|pdus| pdus.iter().any(|pdu| pdu["content"]["membership"] == "leave"))
    });
    told.await;
    for asked in scene.mal.asked("/send/") {
        for pdu in asked.body["pdus"].as_array().into_iter().flatten() {
            let event = shared.room.received(pdu);
            shared.room.add(&event);
        }
    }
    assert!(shared.room.events.contains_key(&levels));
    let alice = shared.alice.id().to_owned();
    let back = shared.room.event("m.room.member", Some(&alice), &shared.mallory, &json!({"membership": "ban"}));
    let back = shared.room.send(&scene.mal, &back);
    let message = shared.room.message(&shared.mallory, "nobody hears").sign(&scene.mal);
    let typing = json!({"edu_type": "m.typing", "content": {"room_id": shared.room.id, "user_id": shared.mallory, "typing": true}});
    let answer = scene.transaction(&[back.text.clone(), message.text.clone()], &[typing]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut other = scene.room(11).await;
    scene.all_is_looked_at(&mut other).await;
    assert!([403, 404].contains(&shared.shown(&message.id).await.status));
    let path = format!("/rooms/{}/state/m.room.member/{}", pct(&shared.room.id), pct(&alice));
    assert_eq!(shared.alice.get(&path).await.body["membership"], "leave");
    scene.end().await;
}
