//! Application services at the real server: registration files, and what their tokens can do.

use std::path::Path;
use std::process::Command;

use hearth_test_harness::{Api, Config, Request, Server, pct};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::BINARY;

const TOKEN: &str = "as-0123456789-sEcReT-of-the-bridge";
const HS_TOKEN: &str = "hs-0123456789-sEcReT-of-the-bridge";

fn registration(change: impl Fn(String) -> String) -> String {
    change(format!(
        "# A bridge.\nid: bridge\nurl: null\nas_token: {TOKEN}\nhs_token: {HS_TOKEN}\n\
         sender_localpart: bridge-bot\nrate_limited: false\nunknown.key: [1, 2]\nnamespaces:\n  users:\n    \
         - exclusive: true\n      regex: '@_bridge_.*'\n    - exclusive: false\n      regex: '(@a+)+$'\n  aliases:\n    \
         - exclusive: true\n      regex: '#_bridge_.*'\n  rooms: []\n"
    ))
}

fn config(files: &[&Path]) -> Config {
    let files: Vec<_> = files.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    Config::open().with("application_services", "registrations", &format!("[{}]", files.join(", ")))
}

/// A directory with one registration.
fn directory(text: &str) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    std::fs::write(directory.path().join("bridge.yaml"), text).expect("the registration can be written");
    directory
}

fn by_bridge(api: &Api, method: Method, path: &str, user: &str) -> Request {
    let query = if user.is_empty() { String::new() } else { format!("?user_id={}", pct(user)) };
    api.request(method, &format!("/_matrix/client/v3{path}{query}")).token(TOKEN)
}

#[tokio::test]
async fn a_service_lives_through_restarts_and_acts_as_its_users() {
    let files = directory(&registration(|text| text));
    let mut server = Server::start(BINARY, &config(&[files.path()])).await;
    let register = json!({"type": "m.login.application_service", "username": "_bridge_ann", "inhibit_login": true});
    let made = by_bridge(server.api(), Method::POST, "/register", "").json(&register).ok().await;
    assert_eq!(made["user_id"], "@_bridge_ann:hearth.test");
    let room = by_bridge(server.api(), Method::POST, "/createRoom", "").json(&json!({"preset": "public_chat"}));
    let room = pct(room.ok().await["room_id"].as_str().expect("createRoom gives a room"));
    let ann = "@_bridge_ann:hearth.test";
    by_bridge(server.api(), Method::POST, &format!("/rooms/{room}/join"), ann).json(&json!({})).ok().await;
    let body = json!({"msgtype": "m.text", "body": "from elsewhere"});
    let message =
        format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/1?ts=1641168000000&user_id={}", pct(ann));
    let sent = server.api().put(&message).token(TOKEN).json(&body).ok().await;
    server.restart().await;
    let api = server.api();
    let again = api.put(&message).token(TOKEN).json(&body).ok().await;
    assert_eq!(sent, again, "the transaction is remembered across a kill");
    let event = format!("/rooms/{room}/event/{}", pct(sent["event_id"].as_str().expect("an event ID")));
    let event = by_bridge(api, Method::GET, &event, "").ok().await;
    assert_eq!((&event["sender"], &event["origin_server_ts"]), (&json!(ann), &json!(1_641_168_000_000_u64)));
    let whoami = by_bridge(api, Method::GET, "/account/whoami", "").ok().await;
    assert_eq!(whoami["user_id"], "@bridge-bot:hearth.test");
    let registered = by_bridge(api, Method::POST, "/register", "").json(&register).send().await;
    assert_eq!((registered.status, registered.errcode()), (400, "M_USER_IN_USE"));
}

#[tokio::test]
async fn nobody_takes_what_the_service_has_nor_the_service_what_others_have() {
    let files = directory(&registration(|text| text));
    let server = Server::start(BINARY, &config(&[&files.path().join("bridge.yaml")])).await;
    let api = server.api();
    let cleo = api.register("cleo", "correct horse").await.unwrap_or_else(|other| panic!("{other}"));
    for user in ["@cleo:hearth.test", "@_bridge_x:other.test", "@_bridge_absent:hearth.test", "@", "%00"] {
        let answer = by_bridge(api, Method::GET, "/account/whoami", user).send().await;
        assert_eq!((answer.status, answer.errcode()), (403, "M_FORBIDDEN"), "{user}");
    }
    let device = format!("/_matrix/client/v3/account/whoami?device_id={}", pct(&cleo.device));
    let answer = api.get(&device).token(TOKEN).send().await;
    assert_eq!((answer.status, answer.errcode()), (400, "M_UNKNOWN_DEVICE"));
    for token in [HS_TOKEN, &TOKEN[..20], "", &TOKEN.to_uppercase()] {
        let answer = api.get("/_matrix/client/v3/account/whoami").token(token).send().await;
        assert_eq!(answer.status, 401, "{token}");
    }
    let body = json!({"username": "bridge-bot", "password": "correct horse", "auth": {"type": "m.login.dummy"}});
    let answer = api.post("/_matrix/client/v3/register").json(&body).send().await;
    assert_eq!((answer.status, answer.errcode()), (400, "M_EXCLUSIVE"));
    let room = api.post("/_matrix/client/v3/createRoom").by(&cleo).json(&json!({})).ok().await;
    let alias = format!("/_matrix/client/v3/directory/room/{}", pct("#_bridge_x:hearth.test"));
    let answer = api.put(&alias).by(&cleo).json(&json!({"room_id": room["room_id"]})).send().await;
    assert_eq!((answer.status, answer.errcode()), (400, "M_EXCLUSIVE"));
    // An expression that makes others backtrack for ever.
    let hostile = format!("@{}:hearth.test", "a".repeat(230));
    let answer = by_bridge(api, Method::GET, "/account/whoami", &hostile).send().await;
    assert_eq!((answer.status, answer.errcode()), (403, "M_FORBIDDEN"));
    assert!(!server.log().contains("sEcReT"), "the log holds a token");
}

/// What `hearth run` says of registrations that cannot be used, and its exit code.
fn refusal(files: &[(&str, String)]) -> (Option<i32>, String) {
    let directory = TempDir::new().expect("a temporary directory");
    let mut named = Vec::new();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("the registration can be written");
        named.push(format!("{:?}", path.display().to_string()));
    }
    let store = directory.path().join("store");
    let text = format!(
        "[server]\nname = \"hearth.test\"\n[listen]\nclient = [\"127.0.0.1:{}\"]\nmetrics = \"off\"\n[storage]\n\
         path = {:?}\n[application_services]\nregistrations = [{}]\n",
        hearth_test_harness::free_port(),
        store.display().to_string(),
        named.join(", ")
    );
    let file = directory.path().join("hearth.toml");
    std::fs::write(&file, text).expect("the configuration can be written");
    let output = Command::new(BINARY).arg("run").arg("--config").arg(&file).output().expect("the binary runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), text)
}

#[test]
fn a_wrong_registration_ends_the_start_with_its_file_and_without_its_secrets() {
    let good = registration(|text| text);
    let other = good.replace("id: bridge", "id: other").replace("bridge-bot", "other-bot");
    let user_token = "hrt_0123456789012345678901234567890123456789012_sEcReT";
    let of_user = good.replace(TOKEN, user_token);
    for (files, words) in [
        (vec![("a.yaml", good.replace("hs_token", "hs-token"))], "a.yaml: \"hs_token\" is missing"),
        (vec![("a.yaml", good.replace(TOKEN, "''"))], "a.yaml: \"as_token\" must have"),
        (vec![("a.yaml", good.replace("regex: '@", "regex: '["))], "a.yaml: \"namespaces.users\", entry 1"),
        (vec![("a.yaml", good.replace("rooms: []", "rooms: [sEcReT"))], "a.yaml: is no YAML: see line"),
        (vec![("a.yaml", of_user)], "a.yaml: \"as_token\" has the form of a user's token"),
        (vec![("a.yaml", good.clone()), ("b.yaml", good.clone())], "the same \"id\""),
        (vec![("a.yaml", good.clone()), ("b.yaml", other.clone())], "the same \"as_token\""),
        (
            vec![("a.yaml", good.clone()), ("b.yaml", other.replace(TOKEN, "another-token-of-its-own"))],
            "the same \"hs_token\"",
        ),
    ] {
        let (code, told) = refusal(&files);
        assert_eq!(code, Some(78), "{told}");
        assert!(told.contains(words), "wanted {words}: {told}");
        assert!(!told.contains("sEcReT"), "{told}");
    }
}
