//! A server that lies about the room it lets somebody into.

use hearth_test_harness::{Hostile, Reply, Room, pct};
use serde_json::{Value, json};

use super::scene::Scene;
use crate::people::Person;

/// The right answer to `make_join`, `make_leave` and `make_knock`.
pub(super) fn template(room: &Room, user: &str, membership: &str) -> Value {
    let event = room.event("m.room.member", Some(user), user, &json!({"membership": membership}));
    let fields = [
        "type",
        "room_id",
        "sender",
        "state_key",
        "content",
        "depth",
        "prev_events",
        "auth_events",
        "origin_server_ts",
    ];
    let event: serde_json::Map<String, Value> =
        fields.iter().map(|field| ((*field).to_owned(), event.field(field))).collect();
    json!({"room_version": room.version(), "event": event})
}

/// The right answer to `send_join`.
pub(super) fn let_in(room: &Room, mal: &Hostile) -> Value {
    json!({"origin": mal.name(), "members_omitted": false, "state": room.state_events(), "auth_chain": room.auth_chain()})
}

pub(super) async fn join(person: &Person, room: &str, mal: &Hostile) -> hearth_test_harness::Answer {
    let via = pct(mal.name());
    person.post(&format!("/join/{}?server_name={via}&via={via}", pct(room)), &json!({})).await
}

type Lie = Box<dyn Fn(&mut Value, &Room, &Hostile)>;

fn list(value: &mut Value, key: &str) -> Vec<Value> {
    value[key].as_array().expect("a list").clone()
}

fn without(answer: &mut Value, kind: &str) {
    for part in ["state", "auth_chain"] {
        answer[part].as_array_mut().expect("a list").retain(|event| event["type"] != kind);
    }
}

fn lies() -> Vec<(&'static str, Lie)> {
    let add = |answer: &mut Value, event: &Value| {
        answer["state"].as_array_mut().expect("a list").push(event.clone());
    };
    vec![
        ("no create event", Box::new(|answer, _, _| without(answer, "m.room.create"))),
        ("no state", Box::new(|answer, _, _| answer["state"] = json!([]))),
        ("members left out", Box::new(|answer, _, _| answer["members_omitted"] = json!(true))),
        ("nothing at all", Box::new(|answer, _, _| *answer = json!({}))),
        ("lists that are none", Box::new(|answer, _, _| answer["state"] = json!({"a": 1}))),
        ("events that are none", Box::new(|answer, _, _| answer["state"] = json!([1, null, "a", {}]))),
        (
            "two create events",
            Box::new(move |answer, _, mal| {
                let other = Room::create(mal, &mal.user("mallory"), 11);
                add(answer, &other.state_events()[0]);
                let create = other.events[&other.state[&("m.room.create".to_owned(), String::new())]].json();
                add(answer, &create);
            }),
        ),
        (
            "the create event of another room",
            Box::new(|answer, _, mal| {
                let other = Room::create(mal, &mal.user("mallory"), 11);
                without(answer, "m.room.create");
                let create = other.events[&other.state[&("m.room.create".to_owned(), String::new())]].json();
                answer["state"].as_array_mut().expect("a list").push(create.clone());
                answer["auth_chain"].as_array_mut().expect("a list").push(create);
            }),
        ),
        (
            "a gap in the auth chain",
            Box::new(|answer, _, _| {
                without(answer, "m.room.power_levels");
            }),
        ),
        (
            "an unsigned create event",
            Box::new(|answer, _, _| {
                for part in ["state", "auth_chain"] {
                    for event in answer[part].as_array_mut().expect("a list") {
                        if event["type"] == "m.room.create" {
                            event["signatures"] = json!({});
                        }
                    }
                }
            }),
        ),
        (
            "two events for one place",
            Box::new(move |answer, room, mal| {
                let again =
                    room.event("m.room.join_rules", Some(""), &mal.user("mallory"), &json!({"join_rule": "invite"}));
                add(answer, &again.sign(mal).json());
            }),
        ),
        (
            "a message in the state",
            Box::new(move |answer, room, mal| {
                add(answer, &room.message(&mal.user("mallory"), "no state").sign(mal).json());
            }),
        ),
        (
            "an event that the rules forbid",
            Box::new(move |answer, room, mal| {
                let nobody = mal.user("nobody");
                let event = room.event("m.room.topic", Some(""), &nobody, &json!({"topic": "by nobody"}));
                add(answer, &event.sign(mal).json());
            }),
        ),
        (
            "an event of another room",
            Box::new(move |answer, _, mal| {
                let mallory = mal.user("mallory");
                let other = Room::create(mal, &mallory, 11);
                let event = other.event("m.room.topic", Some(""), &mallory, &json!({"topic": "elsewhere"}));
                add(answer, &event.sign(mal).json());
            }),
        ),
        (
            "the ban of who joins",
            Box::new(move |answer, room, mal| {
                let victim = answer["victim"].as_str().expect("set below").to_owned();
                let ban =
                    room.event("m.room.member", Some(&victim), &mal.user("mallory"), &json!({"membership": "ban"}));
                add(answer, &ban.sign(mal).json());
            }),
        ),
    ]
}

#[tokio::test]
async fn a_room_that_is_none_is_not_joined() {
    let scene = Scene::new().await;
    let mal = &scene.mal;
    let alice = scene.side().person("alice").await;
    for (what, lie) in lies() {
        let room = Room::create(mal, &mal.user("mallory"), 11);
        mal.answer("/make_join/", Reply::json(&template(&room, alice.id(), "join")));
        let mut answer = let_in(&room, mal);
        answer["victim"] = json!(alice.id());
        lie(&mut answer, &room, mal);
        mal.answer("/send_join/", Reply::json(&answer));
        let before = mal.asked("/send_join/").len();
        let joined = join(&alice, &room.id, mal).await;
        assert!(mal.asked("/send_join/").len() > before, "{what}: it was not even asked: {}", joined.text);
        let tolerated = [
            "two create events",
            "two events for one place",
            "a message in the state",
            "an event that the rules forbid",
            "an event of another room",
        ];
        if tolerated.contains(&what) && joined.status == 200 {
            // What is wrong may also be left out, if the room is sound without it.
            let state = alice.state(&room.id).await.expect("she is in");
            let mut wanted = room.state.clone();
            let key = ("m.room.member".to_owned(), alice.id().to_owned());
            wanted.insert(key.clone(), state[&key].clone());
            assert_eq!(state, wanted, "{what}");
            continue;
        }
        assert!(
            (400..=504).contains(&joined.status) && joined.status != 401,
            "{what}: {} {}",
            joined.status,
            joined.text
        );
        let rooms = alice.get("/joined_rooms").await.body;
        assert!(!rooms.to_string().contains(&room.id), "{what}: {rooms}");
        let message = alice.try_say(&room.id, "where am I?").await;
        assert!([403, 404].contains(&message.status), "{what}: {} {}", message.status, message.text);
    }
    scene.end().await;
}

#[tokio::test]
async fn an_honest_answer_lets_somebody_in_also_with_repetitions() {
    let scene = Scene::new().await;
    let mal = &scene.mal;
    for version in [4, 10, 11, 12] {
        // One version is enough to see that nothing is done ten thousand times that could be done once.
        for times in [1, if version == 11 { 10_000 } else { 3 }] {
            let alice = scene.side().person("alice").await;
            let mut room = Room::create(mal, &mal.user("mallory"), version);
            mal.answer("/make_join/", Reply::json(&template(&room, alice.id(), "join")));
            let mut answer = let_in(&room, mal);
            let first = list(&mut answer, "auth_chain")[0].clone();
            answer["auth_chain"].as_array_mut().expect("a list").extend(vec![first; times - 1]);
            mal.answer("/send_join/", Reply::json(&answer));
            let joined = join(&alice, &room.id, mal).await;
            assert_eq!(joined.status, 200, "version {version}, {times} times: {}", joined.text);
            let sent = mal.asked("/send_join/").pop().expect("asked").body;
            let sent = room.received(&sent);
            room.add(&sent);
            assert_eq!(alice.state(&room.id).await.expect("she is in"), room.state);
            let mallory = mal.user("mallory");
            let hello = room.message(&mallory, "hello");
            let hello = room.send(mal, &hello);
            scene.deliver(&hello).await;
            assert_eq!(alice.sees(&room.id, &hello.id).await["content"]["body"], "hello");
            // And what she says gets to the hostile server, signed.
            let said = alice.say(&room.id, "is anybody here?").await;
            mal.is_asked("her message", |asked| {
                let pdus = asked.body["pdus"].as_array();
                pdus.is_some_and(|pdus| pdus.iter().any(|pdu| room.received(pdu).id == said))
            })
            .await;
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn rooms_of_other_versions_than_asked_for_are_refused() {
    let scene = Scene::new().await;
    let shared = scene.room(11).await;
    let (mal, to, room) = (&scene.mal, scene.name(), pct(&shared.room.id));
    for versions in ["?ver=1&ver=2&ver=org.example.evil", "?ver=", ""] {
        let uri = format!("/_matrix/federation/v1/make_join/{room}/{}{versions}", pct(&mal.user("bob")));
        let answer = mal.get(&to, &uri).send().await;
        assert_eq!((answer.status, answer.errcode()), (400, "M_INCOMPATIBLE_ROOM_VERSION"), "{}", answer.text);
        assert_eq!(answer.body["room_version"], "11");
    }
    for (what, version) in
        [("unknown", json!("13.evil")), ("a number", json!(11)), ("another", json!("9")), ("none", Value::Null)]
    {
        let own = Room::create(mal, &shared.mallory, 11);
        let mut made = template(&own, shared.alice.id(), "join");
        made["room_version"] = version;
        mal.answer("/make_join/", Reply::json(&made));
        mal.answer("/send_join/", Reply::json(&let_in(&own, mal)));
        let joined = join(&shared.alice, &own.id, mal).await;
        assert!(
            (400..=504).contains(&joined.status) && joined.status != 401,
            "{what}: {} {}",
            joined.status,
            joined.text
        );
        let rooms = shared.alice.get("/joined_rooms").await.body;
        assert!(!rooms.to_string().contains(&own.id), "{what}: {rooms}");
    }
    scene.end().await;
}
