//! Whoever suggests an event gets only that signed which was meant: the suggestion is no signing service.

use hearth_test_harness::{Hostile, Reply, Room, pct};
use serde_json::{Value, json};

use super::lying::template;
use super::scene::Scene;
use crate::people::Person;

/// Fields that a member event may have.
const FIELDS: [&str; 14] = [
    "auth_events",
    "content",
    "depth",
    "event_id",
    "hashes",
    "origin",
    "origin_server_ts",
    "prev_events",
    "room_id",
    "sender",
    "signatures",
    "state_key",
    "type",
    "unsigned",
];
const CONTENT: [&str; 6] =
    ["membership", "displayname", "avatar_url", "join_authorised_via_users_server", "reason", "is_direct"];

type Change = Box<dyn Fn(&mut Value)>;

/// What a template is changed to; `victim` is somebody else of the server that is to sign.
fn changes(victim: &str) -> Vec<(&'static str, Change)> {
    let set = |pointer: &'static str, value: Value| -> Change {
        Box::new(move |made: &mut Value| {
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            made.pointer_mut(parent).expect("the template has it")[key] = value.clone();
        })
    };
    vec![
        ("another type", set("/event/type", json!("m.room.power_levels"))),
        (
            "a message",
            Box::new(|made| {
                made["event"]["type"] = json!("m.room.message");
                made["event"].as_object_mut().expect("an object").remove("state_key");
            }),
        ),
        ("another sender", set("/event/sender", json!(victim))),
        ("another state key", set("/event/state_key", json!(victim))),
        ("another room", set("/event/room_id", json!("!other:127.0.0.9:1"))),
        ("a ban", set("/event/content/membership", json!("ban"))),
        ("an invitation", set("/event/content/membership", json!("invite"))),
        ("more fields", set("/event/redacts", json!("$event"))),
        ("more content", set("/event/content/third_party_invite", json!({"signed": {"mxid": victim}}))),
        ("60 KiB of content", set("/event/content/x", json!("x".repeat(60 * 1024)))),
        ("power levels as content", set("/event/content/users", json!({"@mallory:127.0.0.3:1": 100}))),
        ("another version", set("/room_version", json!("10"))),
        ("an unknown version", set("/room_version", json!("org.example.evil"))),
        ("a version that is no text", set("/room_version", json!(11))),
        ("no version", set("/room_version", Value::Null)),
        ("no event", set("/event", Value::Null)),
        ("a list as event", set("/event", json!([]))),
        ("too many auth events", set("/event/auth_events", json!(vec![format!("${}", "a".repeat(43)); 5000]))),
        ("too many previous events", set("/event/prev_events", json!(vec![format!("${}", "a".repeat(43)); 5000]))),
        ("references that are none", set("/event/prev_events", json!([{"a": 1}]))),
        ("a depth below zero", set("/event/depth", json!(-5))),
    ]
}

/// Whatever the server was led to sign is a membership of `person` in the room and nothing else.
fn only_memberships(mal: &Hostile, person: &Person, room: &str, membership: &str, part: &str) {
    for asked in mal.asked(part) {
        let event = &asked.body;
        let fields = event.as_object().expect("an event is an object");
        assert!(fields.keys().all(|field| FIELDS.contains(&field.as_str())), "{event}");
        assert_eq!((&event["type"], &event["room_id"]), (&json!("m.room.member"), &json!(room)), "{event}");
        assert_eq!((&event["sender"], &event["state_key"]), (&json!(person.id()), &json!(person.id())), "{event}");
        let content = event["content"].as_object().expect("content is an object");
        assert_eq!(content["membership"], membership, "{event}");
        assert!(content.keys().all(|field| CONTENT.contains(&field.as_str())), "{event}");
        assert!(event.to_string().len() < 16 * 1024, "{event}");
        assert!(event["prev_events"].as_array().is_some_and(|list| list.len() <= 20), "{event}");
        assert!(event["auth_events"].as_array().is_some_and(|list| list.len() <= 10), "{event}");
    }
}

#[tokio::test]
async fn joins_and_knocks_are_made_of_what_we_want() {
    let scene = Scene::new().await;
    let mal = &scene.mal;
    let (alice, victim) = (scene.side().person("alice").await, scene.side().person("victim").await);
    let room = Room::create(mal, &mal.user("mallory"), 11);
    for (membership, action, make, send) in
        [("join", "join", "/make_join/", "/send_join/"), ("knock", "knock", "/make_knock/", "/send_knock/")]
    {
        mal.answer(send, Reply::error(403, "M_FORBIDDEN"));
        let via = pct(mal.name());
        let path = format!("/{action}/{}?server_name={via}&via={via}", pct(&room.id));
        for (what, change) in changes(victim.id()) {
            let mut made = template(&room, alice.id(), membership);
            change(&mut made);
            mal.answer(make, Reply::json(&made));
            let answer = alice.post(&path, &json!({})).await;
            assert!((400..=504).contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
            assert_ne!(answer.status, 401, "{what}: {}", answer.text);
            assert!(!mal.asked(make).is_empty(), "the hostile server is not even asked: {}", answer.text);
            only_memberships(mal, &alice, &room.id, membership, send);
        }
        // The same with the right template, or the test proves nothing.
        mal.answer(make, Reply::json(&template(&room, alice.id(), membership)));
        alice.post(&path, &json!({})).await;
        assert!(!mal.asked(send).is_empty(), "a right {membership} is sent");
        only_memberships(mal, &alice, &room.id, membership, send);
    }
    scene.end().await;
}

#[tokio::test]
async fn rejections_are_made_of_what_we_want() {
    let scene = Scene::new().await;
    let mal = &scene.mal;
    let victim = scene.side().person("victim").await;
    let alice = scene.side().person("alice").await;
    mal.answer("/send_leave/", Reply::json(&json!({})));
    for (what, change) in changes(victim.id()) {
        let mallory = mal.user("mallory");
        let room = Room::create(mal, &mallory, 11);
        let invite =
            room.event("m.room.member", Some(alice.id()), &mallory, &json!({"membership": "invite"})).sign(mal);
        let uri = format!("/_matrix/federation/v2/invite/{}/{}", pct(&room.id), pct(&invite.id));
        mal.put(&scene.name(), &uri, &json!({"room_version": "11", "event": invite.json(), "invite_room_state": []}))
            .ok()
            .await;
        let mut made = template(&room, alice.id(), "leave");
        change(&mut made);
        mal.answer("/make_leave/", Reply::json(&made));
        let answer = alice.post(&format!("/rooms/{}/leave", pct(&room.id)), &json!({})).await;
        assert_ne!(answer.status, 401, "{what}: {}", answer.text);
        for asked in mal.asked(&format!("/send_leave/{}", pct(&room.id))) {
            assert_eq!(asked.body["room_id"], room.id.as_str(), "{what}");
        }
        let sent = mal.asked("/send_leave/");
        for asked in sent.iter().filter(|asked| asked.decoded().contains(&room.id)) {
            assert_eq!(asked.body["content"], json!({"membership": "leave"}), "{what}");
            assert_eq!((&asked.body["sender"], &asked.body["state_key"]), (&json!(alice.id()), &json!(alice.id())));
            assert_eq!((&asked.body["type"], &asked.body["room_id"]), (&json!("m.room.member"), &json!(room.id)));
            assert!(asked.body.as_object().is_some_and(|all| all.keys().all(|key| FIELDS.contains(&key.as_str()))));
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn only_invitations_of_our_users_are_signed() {
    let scene = Scene::new().await;
    let (mal, to) = (&scene.mal, scene.name());
    let stranger = Hostile::start();
    let shared = scene.room(11).await;
    let (alice, mallory) = (shared.alice.id().to_owned(), shared.mallory.clone());
    let room = Room::create(mal, &mallory, 11);
    let closed = shared.alice.create(&json!({"preset": "private_chat", "room_version": "11"})).await;
    let bob = scene.side().person("bob").await;

    let invite =
        |key: &str, sender: &str| room.event("m.room.member", Some(key), sender, &json!({"membership": "invite"}));
    let right = invite(&alice, &mallory);
    let uri = |room: &str, event: &str| format!("/_matrix/federation/v2/invite/{}/{}", pct(room), pct(event));
    for (what, event, version) in [
        ("for nobody of ours", invite(&stranger.user("bob"), &mallory), "11"),
        ("of another server's user", invite(&alice, &stranger.user("mallory")), "11"),
        ("of our own user", invite(&alice, bob.id()), "11"),
        ("that is a join", right.clone().with("content", &json!({"membership": "join"})), "11"),
        ("that is a ban", right.clone().with("content", &json!({"membership": "ban"})), "11"),
        ("without membership", right.clone().with("content", &json!({})), "11"),
        ("that is a message", right.clone().with("type", &json!("m.room.message")), "11"),
        ("that has no state key", right.clone().without("state_key"), "11"),
        ("of another version", right.clone(), "1"),
        ("of an unknown version", right.clone(), "org.example.evil"),
        ("to a room of ours that it is not in", right.clone().with("room_id", &json!(closed)), "11"),
    ] {
        let signed = event.sign(mal);
        let room_id = event.field("room_id").as_str().expect("a room").to_owned();
        let body = json!({"room_version": version, "event": signed.json(), "invite_room_state": []});
        let answer = mal.put(&to, &uri(&room_id, &signed.id), &body).send().await;
        assert!([400, 403].contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
        assert!(!answer.text.contains("signatures"), "{what}: {}", answer.text);
    }
    let signed = right.sign(mal);
    let body = json!({"room_version": "11", "event": signed.json(), "invite_room_state": []});
    let answer = mal.put(&to, &uri("!another:127.0.0.3:1", &signed.id), &body).send().await;
    assert_eq!(answer.status, 400, "another room in the path: {}", answer.text);
    let answer = mal.put(&to, &uri(&room.id, &format!("${}", "a".repeat(43))), &body).send().await;
    assert_eq!(answer.status, 400, "another event in the path: {}", answer.text);
    let answer = mal.put(&to, &uri(&room.id, &signed.id), &body).ok().await;
    assert!(answer["event"]["signatures"][&to].is_object(), "{answer}");
    assert!(answer["event"]["signatures"][mal.name()].is_object(), "{answer}");
    shared.alice.is_invited(&room.id).await;
    scene.end().await;
}

#[tokio::test]
async fn joins_are_authorised_only_for_those_whom_the_rules_let_in() {
    let scene = Scene::new().await;
    let (mal, to) = (&scene.mal, scene.name());
    let alice = scene.side().person("alice").await;
    let club = alice.create_public("11").await;
    let allow = json!([{"type": "m.room_membership", "room_id": club}]);
    let rules =
        json!({"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "restricted", "allow": allow}});
    let room = alice.create(&json!({"preset": "private_chat", "room_version": "11", "initial_state": [rules]})).await;
    let mallory = mal.user("mallory");
    let uri = format!("/_matrix/federation/v1/make_join/{}/{}?ver=11", pct(&room), pct(&mallory));
    let answer = mal.get(&to, &uri).send().await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    // It knows the state from whomever, and asks for the signature all the same.
    let mut copy = Room::create(mal, &mallory, 11);
    copy.id.clone_from(&room);
    copy.state = alice.state(&room).await.expect("her room");
    copy.head = vec![copy.state[&("m.room.join_rules".to_owned(), String::new())].clone()];
    let content = json!({"membership": "join", "join_authorised_via_users_server": alice.id()});
    let join = copy.event("m.room.member", Some(&mallory), &mallory, &content).sign(mal);
    let uri = format!("/_matrix/federation/v2/send_join/{}/{}", pct(&room), pct(&join.id));
    let answer = mal.put(&to, &uri, &join.json()).send().await;
    assert!([400, 403].contains(&answer.status), "{} {}", answer.status, answer.text);
    assert!(!answer.text.contains("signatures"), "{}", answer.text);
    scene.end().await;
}
