//! Rooms that the server under test is in.

use hearth_test_harness::{Reply, Room, pct};
use serde_json::{Value, json};

use super::super::lying::{join, let_in, template};
use super::super::scene::{Scene, Shared};
use super::contents::{Kind, Names, messages, odd_values, state};
use super::reading::{Reader, relations_of};

/// A room of `version` in which the hostile member may do everything, listed in the directory.
async fn given_away(scene: &Scene, version: u8) -> Shared {
    let mut shared = scene.room(version).await;
    let (alice, room) = (&shared.alice, shared.room.id.clone());
    let levels = json!({"users": {alice.id(): 100, &shared.mallory: 100}});
    let given = alice.set_state(&room, "m.room.power_levels", "", &levels).await;
    alice.put(&format!("/directory/list/room/{}", pct(&room)), &json!({"visibility": "public"})).await;
    shared.follow(&scene.mal, &given).await;
    shared
}

async fn names(scene: &Scene, shared: &mut Shared) -> Names {
    let root = shared.alice.say(&shared.room.id, "a root").await;
    shared.follow(&scene.mal, &root).await;
    let own = shared.room.message(&shared.mallory, "to be edited");
    let own = shared.room.send(&scene.mal, &own);
    scene.deliver(&own).await;
    Names {
        mallory: shared.mallory.clone(),
        ghost: scene.mal.user("ghost"),
        alice: shared.alice.id().to_owned(),
        root,
        own: own.id,
        room: shared.room.id.clone(),
    }
}

/// Puts one event of each kind on top of the room, sends them, and waits until all has been looked at; gives the last.
async fn send_all(scene: &Scene, shared: &mut Shared, contents: Vec<(&Kind, Value)>) -> String {
    let mallory = shared.mallory.clone();
    // Whatever the join rules were made before, membership needs good ones.
    let public = shared.room.event("m.room.join_rules", Some(""), &mallory, &json!({"join_rule": "public"}));
    let mut sent = vec![shared.room.send(&scene.mal, &public)];
    for (kind, content) in contents {
        let event = shared.room.event(kind.event_type, kind.state_key.as_deref(), &mallory, &content);
        sent.push(shared.room.send(&scene.mal, &event));
    }
    let last = shared.room.message(&mallory, "the last of them");
    sent.push(shared.room.send(&scene.mal, &last));
    let pdus: Vec<String> = sent.iter().map(|event| event.text.clone()).collect();
    let answer = scene.transaction(&pdus, &[]).await.expect_status(200).expect("an answer");
    for event in &sent {
        assert_eq!(answer.body["pdus"][&event.id], json!({}), "{}", event.text);
    }
    let last = sent.pop().expect("just pushed").id;
    shared.alice.sees(&shared.room.id, &last).await;
    last
}

#[tokio::test]
async fn events_with_odd_content_spoil_no_answer() {
    let scene = Scene::new().await;
    let mut shared = given_away(&scene, 11).await;
    let bob = scene.side().person("bob").await;
    bob.join(&shared.room.id, &scene.side()).await;
    let joined = bob.state(&shared.room.id).await.expect("he is in");
    let joined = joined[&("m.room.member".to_owned(), bob.id().to_owned())].clone();
    shared.follow(&scene.mal, &joined).await;
    let mut reader = Reader::new(bob).await;
    let names = names(&scene, &mut shared).await;
    let kinds: Vec<Kind> = messages(&names).into_iter().chain(state(&names)).collect();
    let rounds = kinds.iter().map(Kind::variants).max().expect("some");
    for odd in odd_values() {
        let shown: String = odd.to_string().chars().take(20).collect();
        for n in 0..rounds {
            let with_place = kinds.iter().filter(|kind| n < kind.variants());
            let contents: Vec<(&Kind, Value)> = with_place.map(|kind| (kind, kind.variant(n, &odd))).collect();
            let what = format!("{shown} in place {n}");
            let last = send_all(&scene, &mut shared, contents).await;
            reader.reads(&what, &shared.room.id, &last).await;
        }
        relations_of(&reader, &shown, &shared.room.id, &names.root).await;
        relations_of(&reader, &shown, &shared.room.id, &names.own).await;
        // All of it is what the room is now, or the answers prove nothing.
        assert_eq!(reader.person.state(&shared.room.id).await.expect("readable"), shared.room.state, "{shown}");
    }
    let own = reader.person.say(&shared.room.id, "and I am still here").await;
    shared.alice.sees(&shared.room.id, &own).await;
    scene.end().await;
}

#[tokio::test]
async fn a_room_of_odd_state_can_be_joined_and_read() {
    let scene = Scene::new().await;
    let mal = &scene.mal;
    let mut reader = Reader::new(scene.side().person("alice").await).await;
    let mallory = mal.user("mallory");
    let claims: [fn(&Value) -> Value; 5] = [
        |odd| json!({"type": odd, "predecessor": odd}),
        |odd| json!({"type": "m.space", "predecessor": {"room_id": odd, "event_id": "$x"}}),
        |odd| json!({"type": odd, "predecessor": {"room_id": "!a:b", "event_id": odd}}),
        |odd| json!({"predecessor": [odd], "additional_creators": odd}),
        |odd| json!({"type": [odd], "predecessor": {"room_id": [odd], "event_id": {"a": odd}}}),
    ];
    for odd in odd_values() {
        let shown: String = odd.to_string().chars().take(20).collect();
        for (n, claims) in claims.iter().enumerate() {
            let mut room = Room::create_with(mal, &mallory, 11, |_| claims(&odd));
            let names = Names {
                mallory: mallory.clone(),
                ghost: mal.user("ghost"),
                alice: reader.person.id().to_owned(),
                root: "$root".to_owned(),
                own: "$own".to_owned(),
                room: room.id.clone(),
            };
            // Everything odd at the top, then one place after the other. She could not join with odd join rules.
            for kind in state(&names).iter().filter(|kind| kind.event_type != "m.room.join_rules") {
                let place = if n == 0 { usize::MAX } else { n - 1 };
                let event =
                    room.event(kind.event_type, kind.state_key.as_deref(), &mallory, &kind.variant(place, &odd));
                room.send(mal, &event);
            }
            let what = format!("{shown}, room {n}");
            mal.answer("/make_join/", Reply::json(&template(&room, reader.person.id(), "join")));
            mal.answer("/send_join/", Reply::json(&let_in(&room, mal)));
            let joined = join(&reader.person, &room.id, mal).await;
            assert_eq!(joined.status, 200, "{what}: {}", joined.text);
            // All of it is what the room is now, or the answers prove nothing.
            let mut state = reader.person.state(&room.id).await.expect("she is in");
            state.remove(&("m.room.member".to_owned(), reader.person.id().to_owned())).expect("her join");
            assert_eq!(state, room.state, "{what}");
            let last = reader.person.say(&room.id, "I am in").await;
            reader.reads(&what, &room.id, &last).await;
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn power_levels_that_old_rooms_allow_spoil_no_answer() {
    // Up to version 9 a level may be a number in words, with spaces around it.
    let scene = Scene::new().await;
    let mut shared = given_away(&scene, 9).await;
    let alice = shared.alice.id().to_owned();
    let side = scene.side();
    let mut reader = Reader::new(side.person("bob").await).await;
    reader.person.join(&shared.room.id, &side).await;
    let joined = reader.person.state(&shared.room.id).await.expect("he is in");
    let joined = joined[&("m.room.member".to_owned(), reader.person.id().to_owned())].clone();
    shared.follow(&scene.mal, &joined).await;
    let mallory = shared.mallory.clone();
    for (what, more) in [
        ("words", json!({"users_default": "0", "events_default": " 0 ", "ban": "+50", "kick": "050"})),
        ("words for events", json!({"events": {"m.room.message": "0", "m.room.name": " 50 "}})),
        ("words for notifications", json!({"notifications": {"room": "50", "other": "1"}})),
        ("something else", json!({"odd": null, "odder": [1], "events": {"m.call.invite": 10}})),
    ] {
        let mut content = json!({"users": {&alice: "100", &mallory: " 100 "}});
        for (key, value) in more.as_object().expect("an object") {
            content[key] = value.clone();
        }
        let levels = shared.room.event("m.room.power_levels", Some(""), &mallory, &content);
        let levels = shared.room.send(&scene.mal, &levels);
        scene.deliver(&levels).await;
        let call = json!({"msgtype": "m.text", "body": "@room", "m.mentions": {"room": true}});
        let call = shared.room.event("m.room.message", None, &mallory, &call);
        let call = shared.room.send(&scene.mal, &call);
        scene.deliver(&call).await;
        shared.alice.sees(&shared.room.id, &call.id).await;
        reader.reads(what, &shared.room.id, &call.id).await;
        let state = reader.person.state(&shared.room.id).await.expect("readable");
        assert_eq!(state, shared.room.state, "{what}");
        let said = reader.person.say(&shared.room.id, "I may speak").await;
        shared.follow(&scene.mal, &said).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn an_odd_server_acl_shuts_out_others_and_nobody_here() {
    let scene = Scene::new().await;
    let side = scene.side();
    for odd in odd_values() {
        let shown: String = odd.to_string().chars().take(20).collect();
        for acl in
            [json!({"allow": odd, "deny": odd, "allow_ip_literals": odd}), json!({"allow": ["*", odd], "deny": [odd]})]
        {
            let mut shared = given_away(&scene, 11).await;
            let mut reader = Reader::new(side.person("bob").await).await;
            reader.person.join(&shared.room.id, &side).await;
            let joined = reader.person.state(&shared.room.id).await.expect("he is in");
            let joined = joined[&("m.room.member".to_owned(), reader.person.id().to_owned())].clone();
            shared.follow(&scene.mal, &joined).await;
            let acl = shared.room.event("m.room.server_acl", Some(""), &shared.mallory, &acl);
            let acl = shared.room.send(&scene.mal, &acl);
            scene.deliver(&acl).await;
            reader.person.sees(&shared.room.id, &acl.id).await;
            reader.reads(&shown, &shared.room.id, &acl.id).await;
            let own = reader.person.say(&shared.room.id, "still here").await;
            shared.alice.sees(&shared.room.id, &own).await;
        }
    }
    scene.end().await;
}
