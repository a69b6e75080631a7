//! Very much of what is allowed once.

use hearth_test_harness::{Api, Config, Hostile, Room, free_port, pct};
use serde_json::json;

use super::scene::Scene;

/// Memory that a flood may cost.
const GROWTH: u64 = 64 << 20;

#[tokio::test]
async fn a_flood_of_edus_is_dropped_and_disturbs_nobody() {
    let metrics = format!("127.0.0.1:{}", free_port());
    let mut scene = Scene::with(Config::open().with("listen", "metrics", &format!("\"{metrics}\""))).await;
    let shared = scene.room(11).await;
    let bystander = scene.side().person("bystander").await;
    let own = bystander.create_public("11").await;
    let floods: Vec<Hostile> = (0..3).map(|_| Hostile::start()).collect();
    for mal in &floods {
        Room::join(mal, &scene.name(), &shared.room.id, &mal.user("mallory"), 11).await;
    }
    let before = scene.memory();
    let (to, room) = (scene.name(), shared.room.id.clone());
    let sending = floods.iter().map(|mal| {
        let (to, room) = (to.clone(), room.clone());
        async move {
            for transaction in 0..40 {
                let edus: Vec<_> = (0..100)
                    .map(|n| {
                        let ghost = mal.user(&format!("ghost{transaction}-{n}"));
                        match n % 3 {
                            0 => json!({"edu_type": "m.presence", "content": {"push": [{"user_id": ghost, "presence": "online", "status_msg": "x".repeat(1000), "last_active_ago": 1}]}}),
                            1 => json!({"edu_type": "m.receipt", "content": {&room: {"m.read": {ghost: {"data": {"ts": 1}, "event_ids": [format!("$none{n}")]}}}}}),
                            _ => json!({"edu_type": "m.typing", "content": {"room_id": room, "user_id": mal.user("mallory"), "typing": n % 2 == 0}}),
                        }
                    })
                    .collect();
                let body = json!({"origin": mal.name(), "origin_server_ts": 1, "pdus": [], "edus": edus});
                let uri = format!("/_matrix/federation/v1/send/flood{transaction}");
                let answer = mal.put(&to, &uri, &body).send().await;
                assert!([200, 429].contains(&answer.status), "{} {}", answer.status, answer.text);
            }
        }
    });
    let looking = async {
        let mut since = String::new();
        for n in 0..20 {
            let said = bystander.say(&own, &format!("message {n}")).await;
            bystander
                .syncs_since(&mut since, "her own message", |sync| sync.to_string().contains(&said).then_some(()))
                .await;
        }
    };
    futures::join!(futures::future::join_all(sending), looking);
    let page = Api::new(&format!("http://{metrics}")).get("/metrics").send().await.text;
    let dropped: f64 = page
        .lines()
        .filter(|line| line.starts_with("hearth_federation_edus_dropped_total") && line.contains("flood"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(dropped >= 1000.0, "12 000 were sent: {dropped} were dropped");
    let after = scene.memory();
    assert!(after.saturating_sub(before) < GROWTH, "{before} bytes have become {after}");
    scene.end().await;
}

#[tokio::test]
async fn a_state_that_is_asked_for_all_the_time_is_worked_out_once() {
    let mut scene = Scene::new().await;
    let shared = scene.room(11).await;
    let (mal, to, room) = (scene.mal.clone(), scene.name(), pct(&shared.room.id));
    for n in 0..60 {
        shared.alice.set_state(&shared.room.id, "org.example.place", &n.to_string(), &json!({"n": n})).await;
    }
    let last = shared.alice.say(&shared.room.id, "now").await;
    let stranger = Hostile::start();
    let before = scene.memory();
    for kind in ["state", "state_ids"] {
        let uri = format!("/_matrix/federation/v1/{kind}/{room}?event_id={}", pct(&last));
        let first = mal.get(&to, &uri).ok().await;
        for _ in 0..5 {
            let asking = (0..20).map(|_| mal.get(&to, &uri).send());
            for answer in futures::future::join_all(asking).await {
                assert_eq!((answer.status, &answer.body), (200, &first), "{kind}");
            }
        }
        let answer = stranger.get(&to, &uri).send().await;
        assert_eq!((answer.status, answer.errcode()), (403, "M_FORBIDDEN"), "{kind}");
    }
    let after = scene.memory();
    assert!(after.saturating_sub(before) < GROWTH, "{before} bytes have become {after}");
    // More than anybody can want in one question.
    let body = json!({"latest_events": vec![&last; 500], "earliest_events": vec![&last; 500], "limit": 9_007_199_254_740_991_u64, "min_depth": 0});
    let uri = format!("/_matrix/federation/v1/get_missing_events/{room}");
    let answer = mal.post(&to, &uri, &body).send().await;
    assert!([200, 413].contains(&answer.status), "{} {}", answer.status, answer.text);
    assert!(answer.body["events"].as_array().is_none_or(|events| events.len() <= 20), "{}", answer.text);
    // What is too large to be read is refused in words, not with a broken connection.
    let body = json!({"latest_events": vec![&last; 20_000], "earliest_events": vec![&last; 20_000], "limit": 20});
    let answer = mal.post(&to, &uri, &body).send().await;
    assert_eq!((answer.status, answer.errcode()), (413, "M_TOO_LARGE"), "{}", answer.text);
    scene.end().await;
}
