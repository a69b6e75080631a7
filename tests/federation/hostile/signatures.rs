//! Events that their sender's server has not signed, or has signed with other content, wherever events come in.

use hearth_test_harness::{Hostile, RawEvent, Reply, Signed, pct};
use serde_json::{Value, json};

use super::scene::Scene;

/// An event that is signed by nobody who may, in each way.
pub(super) fn unsigned(event: &RawEvent, scene: &Scene, stranger: &Hostile) -> Vec<(&'static str, Signed)> {
    let mal = &scene.mal;
    let good = event.sign(mal);
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut json = good.json();
        change(&mut json["signatures"]);
        Signed { id: good.id.clone(), text: json.to_string() }
    };
    vec![
        ("no signature", event.unsigned()),
        ("a signature of another server", event.sign_as(stranger, stranger.name(), stranger.key_id())),
        ("a signature with another key", event.sign_as(stranger, mal.name(), mal.key_id())),
        ("a key that nobody knows", event.sign_as(mal, mal.name(), "ed25519:none")),
        ("a signature that is not base64", broken(&|all| all[mal.name()] = json!({mal.key_id(): "!"}))),
        ("a signature that is empty", broken(&|all| all[mal.name()] = json!({mal.key_id(): ""}))),
        ("a signature that is no text", broken(&|all| all[mal.name()] = json!({mal.key_id(): 1}))),
        ("no signatures at all", broken(&|all| *all = Value::Null)),
        // Redactions keep the depth: it is signed.
        (
            "a signed field changed",
            Signed { text: good.text.replacen("\"depth\":", "\"depth\":1", 1), id: good.id.clone() },
        ),
    ]
}

#[tokio::test]
async fn events_in_transactions_need_their_senders_signature() {
    let scene = Scene::new().await;
    let stranger = Hostile::start();
    for version in [4, 11, 12] {
        let mut shared = scene.room(version).await;
        for (what, bad) in unsigned(&shared.room.message(&shared.mallory, "forged"), &scene, &stranger) {
            let answer = scene.transaction(std::slice::from_ref(&bad.text), &[]).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text);
            scene.all_is_looked_at(&mut shared).await;
            shared.is_kept_out(what, &bad.id).await;
        }
        // Our own users and those of third servers cannot be spoken for.
        for sender in [shared.alice.id().to_owned(), stranger.user("mallory")] {
            let forged = shared.room.message(&sender, "not me").sign(&scene.mal);
            scene.transaction(std::slice::from_ref(&forged.text), &[]).await.expect_status(200).expect("an answer");
            scene.all_is_looked_at(&mut shared).await;
            shared.is_kept_out("somebody else's event", &forged.id).await;
        }
        let altered = shared.room.message(&shared.mallory, "what was said").sign(&scene.mal);
        let altered = Signed { text: altered.text.replace("what was said", "what was not"), id: altered.id };
        scene.transaction(std::slice::from_ref(&altered.text), &[]).await.expect_status(200).expect("an answer");
        let shown = shared.alice.sees(&shared.room.id, &altered.id).await;
        assert_eq!(shown["content"], json!({}), "altered content is redacted");
        scene.all_is_looked_at(&mut shared).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn joins_invitations_and_leaves_need_it_too() {
    let scene = Scene::new().await;
    let stranger = Hostile::start();
    let mut shared = scene.room(11).await;
    let (to, room) = (scene.name(), pct(&shared.room.id));
    let bob = scene.mal.user("bob");
    let join = shared.room.event("m.room.member", Some(&bob), &bob, &json!({"membership": "join"}));
    for (what, bad) in unsigned(&join, &scene, &stranger) {
        let uri = format!("/_matrix/federation/v2/send_join/{room}/{}", pct(&bad.id));
        let answer = scene.mal.put(&to, &uri, &bad.json()).send().await;
        assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
        shared.is_kept_out(what, &bad.id).await;
    }
    let leave =
        shared.room.event("m.room.member", Some(&shared.mallory), &shared.mallory, &json!({"membership": "leave"}));
    for (what, bad) in unsigned(&leave, &scene, &stranger) {
        let uri = format!("/_matrix/federation/v2/send_leave/{room}/{}", pct(&bad.id));
        let answer = scene.mal.put(&to, &uri, &bad.json()).send().await;
        assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
        shared.is_kept_out(what, &bad.id).await;
    }
    let own = hearth_test_harness::Room::create(&scene.mal, &shared.mallory, 11);
    let alice = shared.alice.id().to_owned();
    let invite = own.event("m.room.member", Some(&alice), &shared.mallory, &json!({"membership": "invite"}));
    for (what, bad) in unsigned(&invite, &scene, &stranger) {
        let uri = format!("/_matrix/federation/v2/invite/{}/{}", pct(&own.id), pct(&bad.id));
        let body = json!({"room_version": "11", "event": bad.json(), "invite_room_state": []});
        let answer = scene.mal.put(&to, &uri, &body).send().await;
        assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
    }
    let sync = shared.alice.get("/sync?timeout=0").await.expect_status(200).expect("a sync");
    assert!(sync.body["rooms"]["invite"].get(&own.id).is_none(), "{}", sync.text);
    scene.all_is_looked_at(&mut shared).await;
    scene.end().await;
}

#[tokio::test]
async fn events_that_were_fetched_need_it_too() {
    let scene = Scene::new().await;
    let stranger = Hostile::start();
    let mut shared = scene.room(11).await;
    for (what, bad) in unsigned(&shared.room.message(&shared.mallory, "forged"), &scene, &stranger) {
        let before = shared.room.clone();
        // A good event on top of a bad one, for which the server has to ask.
        shared.room.head = vec![bad.id.clone()];
        let child = shared.room.message(&shared.mallory, "on top").sign(&scene.mal);
        shared.room = before;
        let json = bad.json();
        let (state, chain) = (shared.room.state_events(), shared.room.auth_chain());
        let ids =
            |events: &[Value]| -> Vec<String> { events.iter().map(|event| shared.room.received(event).id).collect() };
        let (state_ids, chain_ids) = (ids(&state), ids(&chain));
        scene.mal.answer("/get_missing_events/", Reply::json(&json!({"events": [json]})));
        scene.mal.answer(
            "/event/",
            Reply::json(&json!({"origin": scene.mal.name(), "origin_server_ts": 1, "pdus": [json]})),
        );
        scene.mal.answer(
            "/backfill/",
            Reply::json(&json!({"origin": scene.mal.name(), "origin_server_ts": 1, "pdus": [json]})),
        );
        scene.mal.answer("/state_ids/", Reply::json(&json!({"pdu_ids": state_ids, "auth_chain_ids": chain_ids})));
        scene.mal.answer("/state/", Reply::json(&json!({"pdus": state, "auth_chain": chain})));
        scene.transaction(std::slice::from_ref(&child.text), &[]).await.expect_status(200).expect("an answer");
        scene.mal.is_asked("what is missing", |asked| asked.body["latest_events"] == json!([child.id])).await;
        scene.all_is_looked_at(&mut shared).await;
        shared.is_kept_out(what, &bad.id).await;
    }
    scene.end().await;
}
