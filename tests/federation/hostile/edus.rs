//! Typing, receipts and presence in the name of others.

use serde_json::{Value, json};

use super::scene::Scene;

#[tokio::test]
async fn nobody_speaks_for_users_of_other_servers() {
    let scene = Scene::new().await;
    let shared = scene.room(11).await;
    let room = shared.room.id.as_str();
    let alice = shared.alice.id();
    let bob = scene.side().person("bob").await;
    // A room that the hostile server is not in.
    let closed = shared.alice.create(&json!({"preset": "private_chat"})).await;
    let secret = shared.alice.say(&closed, "secret").await;
    let spoken = shared.alice.say(room, "hello").await;
    let begin = shared.alice.get("/sync?timeout=0").await.expect_status(200).expect("a sync").body;

    let typing = |room: &str, user: &str| json!({"edu_type": "m.typing", "content": {"room_id": room, "user_id": user, "typing": true}});
    let receipt = |room: &str, kind: &str, user: &str, event: &str| json!({"edu_type": "m.receipt", "content": {room: {kind: {user: {"data": {"ts": 1}, "event_ids": [event]}}}}});
    let presence = |user: &str| {
        let push = json!([{"user_id": user, "presence": "online", "status_msg": "forged", "last_active_ago": 1}]);
        json!({"edu_type": "m.presence", "content": {"push": push}})
    };
    let ghost = scene.mal.user("ghost");
    let stranger = "@stranger:127.0.0.9:1";
    let forged = vec![
        typing(room, stranger),
        typing(room, bob.id()),
        typing(room, &ghost),
        typing(&closed, &shared.mallory),
        typing("!none:127.0.0.9:1", &shared.mallory),
        receipt(room, "m.read", stranger, &spoken),
        receipt(room, "m.read", bob.id(), &spoken),
        receipt(room, "m.read", &ghost, &spoken),
        receipt(room, "m.read.private", &shared.mallory, &spoken),
        receipt(&closed, "m.read", &shared.mallory, &secret),
        presence(stranger),
        presence(alice),
        presence(bob.id()),
        json!({"edu_type": "m.typing", "content": {"room_id": room, "user_id": shared.mallory, "typing": "yes"}}),
        json!({"edu_type": "m.typing", "content": null}),
        json!({"edu_type": "m.receipt", "content": {room: []}}),
        json!({"edu_type": "m.presence", "content": {"push": 5}}),
        json!({"edu_type": "org.example.unheard_of", "content": {}}),
        json!({"edu_type": 5, "content": {}}),
        json!(null),
    ];
    for edu in forged {
        let answer = scene.transaction(&[], std::slice::from_ref(&edu)).await;
        assert_eq!(answer.status, 200, "{edu}: {}", answer.text);
    }
    // These are right, and come last.
    let honest = [receipt(room, "m.read", &shared.mallory, &spoken), typing(room, &shared.mallory)];
    scene.transaction(&[], &honest).await.expect_status(200).expect("an answer");

    let since = begin["next_batch"].as_str().expect("a token").to_owned();
    let mut seen = Vec::new();
    let mut from = since;
    let all = |seen: &[Value]| {
        let text = json!(seen).to_string();
        text.contains(&format!("\"user_ids\":[\"{}\"]", shared.mallory)) && text.contains("m.read")
    };
    let began = std::time::Instant::now();
    while !all(&seen) {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "what is right does not come: {seen:?}");
        let sync = shared.alice.get(&format!("/sync?timeout=1000&since={}", hearth_test_harness::pct(&from))).await;
        let sync = sync.expect_status(200).expect("a sync").body;
        from = sync["next_batch"].as_str().expect("a token").to_owned();
        seen.push(sync);
    }
    let text = json!(seen).to_string();
    for name in [stranger, bob.id(), &ghost, "forged", "m.read.private", &secret] {
        assert!(!text.contains(name), "{name} is seen: {text}");
    }
    assert!(!text.contains(&format!("\"m.read\":{{\"{alice}\"")), "{text}");
    scene.end().await;
}
