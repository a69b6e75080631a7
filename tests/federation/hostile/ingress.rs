//! The other ways in: knocks, what a join is answered with, hashes that are wrong, keys that have run out.

use hearth_test_harness::{Hostile, RawEvent, Reply, Room, now, pct};
use serde_json::json;

use super::lying::{join, let_in, template};
use super::scene::Scene;
use super::signatures::unsigned;

#[tokio::test]
async fn knocks_need_their_senders_signature() {
    let scene = Scene::new().await;
    let stranger = Hostile::start();
    let mut shared = scene.room(11).await;
    let rule = shared.alice.set_state(&shared.room.id, "m.room.join_rules", "", &json!({"join_rule": "knock"})).await;
    shared.follow(&scene.mal, &rule).await;
    let (to, room) = (scene.name(), pct(&shared.room.id));
    let bob = scene.mal.user("bob");
    let knock = shared.room.event("m.room.member", Some(&bob), &bob, &json!({"membership": "knock"}));
    let uri = |id: &str| format!("/_matrix/federation/v1/send_knock/{room}/{}", pct(id));
    for (what, bad) in unsigned(&knock, &scene, &stranger) {
        let answer = scene.mal.put(&to, &uri(&bad.id), &bad.json()).send().await;
        assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
        assert!(answer.body.get("knock_room_state").is_none(), "{what}: {}", answer.text);
        shared.is_kept_out(what, &bad.id).await;
    }
    let member = format!("/rooms/{room}/state/m.room.member/{}", pct(&bob));
    assert_eq!(shared.alice.get(&member).await.status, 404);
    let altered = knock.clone().with("content", &json!({"membership": "knock", "reason": "please"})).sign(&scene.mal);
    let text = altered.text.replace("please", "or else");
    let answer = scene.mal.put(&to, &uri(&altered.id), &serde_json::from_str(&text).expect("JSON")).ok().await;
    assert!(answer["knock_room_state"].as_array().is_some_and(|state| !state.is_empty()), "{answer}");
    let shown = shared.alice.get(&member).await.expect_status(200).expect("he knocks").body;
    assert_eq!(shown, json!({"membership": "knock"}), "altered content is redacted");
    scene.end().await;
}

#[tokio::test]
async fn altered_content_is_taken_in_its_redacted_form() {
    let scene = Scene::new().await;
    let mut shared = scene.room(11).await;
    let wrong = shared.room.message(&shared.mallory, "by another hash").sign_with_wrong_hash(&scene.mal);
    scene.transaction(std::slice::from_ref(&wrong.text), &[]).await.expect_status(200).expect("an answer");
    assert_eq!(shared.alice.sees(&shared.room.id, &wrong.id).await["content"], json!({}));
    let bob = scene.mal.user("bob");
    let content = json!({"membership": "join", "displayname": "Bob"});
    let event = shared.room.event("m.room.member", Some(&bob), &bob, &content);
    let altered = event.sign(&scene.mal);
    let text = altered.text.replace("\"Bob\"", "\"Alice\"");
    let put = async |event: &hearth_test_harness::Signed, text: &str| {
        let uri = format!("/_matrix/federation/v2/send_join/{}/{}", pct(&shared.room.id), pct(&event.id));
        scene.mal.put(&scene.name(), &uri, &serde_json::from_str(text).expect("JSON")).send().await
    };
    assert_eq!(put(&altered, &text).await.status, 200);
    let member = format!("/rooms/{}/state/m.room.member/{}", pct(&shared.room.id), pct(&bob));
    let shown = shared.alice.get(&member).await.expect_status(200).expect("he is in").body;
    assert_eq!(shown, json!({"membership": "join"}));
    let carol = scene.mal.user("carol");
    let content = json!({"membership": "join", "displayname": "Carol"});
    let wrong = shared.room.event("m.room.member", Some(&carol), &carol, &content).sign_with_wrong_hash(&scene.mal);
    assert_eq!(put(&wrong, &wrong.text).await.status, 200);
    let member = format!("/rooms/{}/state/m.room.member/{}", pct(&shared.room.id), pct(&carol));
    assert_eq!(shared.alice.get(&member).await.body, json!({"membership": "join"}));
    scene.all_is_looked_at(&mut shared).await;
    scene.end().await;
}

#[tokio::test]
async fn keys_that_have_run_out_sign_nothing_new() {
    let scene = Scene::new().await;
    let late = |event: RawEvent| event.with("origin_server_ts", &json!(now() + 2 * 3_600_000)).sign(&scene.mal);
    for version in [4, 5, 11] {
        let mut shared = scene.room(version).await;
        let message = late(shared.room.message(&shared.mallory, "from tomorrow"));
        scene.transaction(std::slice::from_ref(&message.text), &[]).await.expect_status(200).expect("an answer");
        scene.all_is_looked_at(&mut shared).await;
        if version == 4 {
            // Before version 5 nobody asked until when a key was good.
            shared.alice.sees(&shared.room.id, &message.id).await;
            continue;
        }
        shared.is_kept_out("a key that has run out", &message.id).await;
        let bob = scene.mal.user("bob");
        let join = late(shared.room.event("m.room.member", Some(&bob), &bob, &json!({"membership": "join"})));
        let uri = format!("/_matrix/federation/v2/send_join/{}/{}", pct(&shared.room.id), pct(&join.id));
        let answer = scene.mal.put(&scene.name(), &uri, &join.json()).send().await;
        assert!((400..500).contains(&answer.status), "{} {}", answer.status, answer.text);
        shared.is_kept_out("a join by a key that has run out", &join.id).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn what_a_join_is_answered_with_needs_signatures() {
    let scene = Scene::new().await;
    let stranger = Hostile::start();
    let mal = &scene.mal;
    let alice = scene.side().person("alice").await;
    let (mallory, bob, carol) = (mal.user("mallory"), mal.user("bob"), mal.user("carol"));
    let kinds = {
        let room = Room::create(mal, &mallory, 11);
        unsigned(&room.message(&mallory, "any"), &scene, &stranger).len()
    };
    for kind in 0..kinds {
        // Once as a part of the state, once as what a part of the state stands on.
        for part in ["state", "auth_chain"] {
            let room = Room::create(mal, &mallory, 11);
            let mut answer = let_in(&room, mal);
            let member = room.event("m.room.member", Some(&bob), &bob, &json!({"membership": "join"}));
            let (what, bad) = unsigned(&member, &scene, &stranger).swap_remove(kind);
            let mut kept_out = vec![bad.id.clone()];
            answer[part].as_array_mut().expect("a list").push(bad.json());
            if part == "auth_chain" {
                let mut believed = room.clone();
                believed.state.insert(("m.room.member".to_owned(), bob.clone()), bad.id.clone());
                let child = believed.event("m.room.member", Some(&carol), &bob, &json!({"membership": "invite"}));
                let child = child.sign(mal);
                answer["state"].as_array_mut().expect("a list").push(child.json());
                kept_out.push(child.id);
            }
            mal.answer("/make_join/", Reply::json(&template(&room, alice.id(), "join")));
            mal.answer("/send_join/", Reply::json(&answer));
            let joined = join(&alice, &room.id, mal).await;
            if joined.status != 200 {
                assert!((400..=504).contains(&joined.status), "{what} in {part}: {} {}", joined.status, joined.text);
                continue;
            }
            let state = alice.state(&room.id).await.expect("she is in");
            for id in &kept_out {
                assert!(!state.values().any(|known| known == id), "{what} in {part}: {id} is in the state");
                let path = format!("/rooms/{}/event/{}", pct(&room.id), pct(id));
                assert_eq!(alice.get(&path).await.status, 404, "{what} in {part}: {id} is shown");
            }
        }
    }
    scene.end().await;
}
