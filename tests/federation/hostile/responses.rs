//! Answers that are no answers, and keys that are no keys.

use hearth_test_harness::{Hostile, Reply, now, pct};
use serde_json::{Value, json};

use super::scene::Scene;

/// Whatever another server answers.
fn answers() -> Vec<(&'static str, Reply)> {
    let out = json!({"errcode": "M_UNKNOWN_TOKEN", "error": "out", "soft_logout": true}).to_string();
    let later =
        json!({"errcode": "M_LIMIT_EXCEEDED", "error": "later", "retry_after_ms": 9_223_372_036_854_775_807_u64});
    vec![
        ("M_UNKNOWN_TOKEN", Reply::text(401, out.clone())),
        ("M_UNKNOWN_TOKEN with 403", Reply::text(403, out)),
        ("M_MISSING_TOKEN", Reply::error(401, "M_MISSING_TOKEN")),
        ("M_USER_DEACTIVATED", Reply::error(403, "M_USER_DEACTIVATED")),
        ("come back in 300 million years", Reply::text(429, later.to_string())),
        ("an empty 200", Reply::text(200, "")),
        ("HTML", Reply::text(200, "<html>hello</html>").header("content-type", "text/html")),
        ("half of something", Reply::text(200, "{\"room_version\":\"11\",\"event\":{")),
        ("null", Reply::text(200, "null")),
        ("a list", Reply::text(200, "[]")),
        ("no UTF-8", Reply::text(200, vec![0xff, 0xfe, 0x00])),
        ("10 000 arrays", Reply::text(200, "[".repeat(10_000))),
        ("something compressed that is not", Reply::text(200, "{}").header("content-encoding", "gzip")),
        ("a status that is none", Reply::text(999, "{}")),
        ("500", Reply::text(500, "oh")),
        ("a body without end", Reply::endless("{\"a\":\"b\"},")),
    ]
}

#[tokio::test]
async fn what_others_answer_logs_nobody_out() {
    let scene = Scene::new().await;
    let alice = scene.side().person("alice").await;
    let elsewhere = Hostile::start();
    let mut all = answers();
    let away = format!("https://{}/stolen", elsewhere.name());
    all.push(("a redirect", Reply::text(302, "").header("location", &away)));
    all.push(("a redirect that keeps the method", Reply::text(308, "").header("location", &away)));
    for (what, reply) in all {
        // A server of its own each time: nobody is left alone for what another has done.
        let mal = Hostile::start();
        mal.answer("/_matrix/federation/", reply);
        let (via, room) = (pct(mal.name()), pct(&format!("!room:{}", mal.name())));
        let asked = [
            alice.post(&format!("/join/{room}?server_name={via}&via={via}"), &json!({})).await,
            alice.get(&format!("/profile/{}", pct(&mal.user("mallory")))).await,
            alice.get(&format!("/directory/room/{}", pct(&format!("#alias:{}", mal.name())))).await,
            alice.post(&format!("/publicRooms?server={via}"), &json!({})).await,
        ];
        assert!(!mal.asked("/_matrix/federation/").is_empty(), "{what}: it is not even asked");
        for answer in asked {
            let text = &answer.text;
            assert!((400..600).contains(&answer.status) || answer.status == 200, "{what}: {} {text}", answer.status);
            assert!(![401, 429].contains(&answer.status), "{what}: {}: {text}", answer.what);
            for word in ["M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_DEACTIVATED", "soft_logout", "retry_after_ms"] {
                assert!(!text.contains(&format!("\"{word}\"")), "{what}: {}: {text}", answer.what);
            }
        }
        assert_eq!(alice.get("/account/whoami").await.status, 200, "{what}");
    }
    assert!(elsewhere.asked("").is_empty(), "redirects are not followed: {:?}", elsewhere.asked(""));
    scene.end().await;
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let scene = Scene::new().await;
    let alice = scene.side().person("alice").await;
    for (what, part) in [("answer", "/_matrix/federation/"), ("keys", "/_matrix/key/")] {
        let mal = Hostile::start();
        mal.answer(part, Reply::silence());
        let began = std::time::Instant::now();
        let status = if what == "keys" {
            mal.get(&scene.name(), &format!("/_matrix/federation/v1/query/profile?user_id={}", pct(alice.id())))
                .send()
                .await
                .status
        } else {
            alice.get(&format!("/profile/{}", pct(&mal.user("mallory")))).await.status
        };
        assert!(status >= 400, "{what}: {status}");
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "{what}: {:?}", began.elapsed());
        assert!(!mal.asked(part).is_empty(), "{what}");
    }
    scene.end().await;
}

type Change = Box<dyn Fn(&Hostile) -> Reply>;

fn wrong_keys() -> Vec<(&'static str, Change)> {
    let altered = |change: fn(&mut Value)| -> Change {
        Box::new(move |mal| {
            let mut keys = mal.keys();
            change(&mut keys);
            Reply::json(&mal.signed(keys))
        })
    };
    vec![
        ("of another server", altered(|keys| keys["server_name"] = json!("127.0.0.9:1"))),
        ("of nobody", altered(|keys| drop(keys.as_object_mut().expect("an object").remove("server_name")))),
        ("that have expired", altered(|keys| keys["valid_until_ts"] = json!(now() - 1000))),
        ("that expire some time", altered(|keys| keys["valid_until_ts"] = json!("tomorrow"))),
        ("that are no keys", altered(|keys| keys["verify_keys"] = json!([]))),
        ("that are too short", altered(|keys| keys["verify_keys"]["ed25519:mal"]["key"] = json!("AAAA"))),
        (
            "that are old ones",
            altered(|keys| {
                keys["old_verify_keys"] =
                    json!({"ed25519:mal": {"key": keys["verify_keys"]["ed25519:mal"]["key"], "expired_ts": 1}});
                keys["verify_keys"] = json!({});
            }),
        ),
        (
            "without signature",
            Box::new(|mal| {
                let mut keys = mal.keys();
                keys.as_object_mut().expect("an object").remove("signatures");
                Reply::json(&keys)
            }),
        ),
        (
            "signed by another",
            Box::new(|mal| {
                let mut keys = Hostile::start().signed(mal.keys());
                let signatures =
                    keys["signatures"].as_object().expect("signatures").values().next().expect("one").clone();
                keys["signatures"] = json!({mal.name(): signatures});
                Reply::json(&keys)
            }),
        ),
        (
            "altered after signing",
            Box::new(|mal| {
                let mut keys = mal.keys();
                keys["valid_until_ts"] = json!(now() + 7_200_000);
                Reply::json(&keys)
            }),
        ),
        ("without end", Box::new(|_| Reply::endless("{\"a\":\"b\"},"))),
        (
            "in 10 MiB",
            Box::new(|mal| {
                let mut keys = mal.keys();
                keys["x"] = json!("x".repeat(10 << 20));
                Reply::json(&mal.signed(keys))
            }),
        ),
        ("that are no JSON", Box::new(|_| Reply::text(200, "ed25519"))),
    ]
}

#[tokio::test]
async fn keys_count_only_if_their_server_signs_them() {
    let scene = Scene::new().await;
    let alice = scene.side().person("alice").await;
    let to = scene.name();
    let uri = format!("/_matrix/federation/v1/query/profile?user_id={}", pct(alice.id()));
    for (what, make) in wrong_keys() {
        let mal = Hostile::start();
        mal.answer("/_matrix/key/v2/server", make(&mal));
        let answer = mal.get(&to, &uri).send().await;
        assert_eq!((answer.status, answer.errcode()), (401, "M_UNAUTHORIZED"), "keys {what}: {}", answer.text);
        // Nor does the server vouch for them to others.
        let answer = scene.mal.get(&to, &format!("/_matrix/key/v2/query/{}", pct(mal.name()))).ok().await;
        for keys in answer["server_keys"].as_array().expect("a list") {
            assert_eq!(keys["server_name"], mal.name(), "keys {what}: {keys}");
            assert!(keys["valid_until_ts"].as_u64().is_some_and(|until| until < now()), "keys {what}: {keys}");
        }
    }
    let mal = Hostile::start();
    let mut keys = mal.keys();
    keys["valid_until_ts"] = json!(7_258_118_400_000_u64);
    mal.answer("/_matrix/key/v2/server", Reply::json(&mal.signed(keys)));
    assert_eq!(mal.get(&to, &uri).send().await.status, 200, "valid until 2200, which is no reason to refuse");
    // Vouched for by both.
    let answer = scene.mal.get(&to, &format!("/_matrix/key/v2/query/{}", pct(mal.name()))).ok().await;
    let signatures = &answer["server_keys"][0]["signatures"];
    assert!(signatures[mal.name()].is_object() && signatures[&to].is_object(), "{answer}");
    scene.end().await;
}

#[tokio::test]
async fn only_the_server_of_that_name_is_talked_to() {
    let scene = Scene::new().await;
    let alice = scene.side().person("alice").await;
    for mal in [Hostile::called("localhost"), Hostile::untrusted()] {
        let answer = alice.get(&format!("/profile/{}", pct(&mal.user("mallory")))).await;
        assert!(answer.status >= 400 && answer.status != 401, "{} {}", answer.status, answer.text);
        assert!(mal.asked("").is_empty(), "{:?}", mal.asked(""));
    }
    for name in [
        "127.0.0.3:0",
        "127.0.0.3:99999",
        "user@127.0.0.3:1",
        "127.0.0.3/..",
        "127.0.0.3:1/x?y",
        "[::1",
        "a b",
        "ü.test",
    ] {
        let via = pct(name);
        let answer = alice.post(&format!("/join/!room%3A{via}?server_name={via}&via={via}"), &json!({})).await;
        assert!(
            (400..=504).contains(&answer.status) && answer.status != 401,
            "{name}: {} {}",
            answer.status,
            answer.text
        );
        let answer = alice.post(&format!("/publicRooms?server={via}"), &json!({})).await;
        assert!(
            (400..=504).contains(&answer.status) && answer.status != 401,
            "{name}: {} {}",
            answer.status,
            answer.text
        );
    }
    scene.end().await;
}
