//! CORS, HTTP/2, bodies in pieces, and what must never be in the log.

use hearth_test_harness::{Api, Config, Server, pct};
use reqwest::Method;
use serde_json::json;

use crate::BINARY;

#[tokio::test]
async fn browsers_may_ask_from_anywhere() {
    let server = Server::start(BINARY, &Config::open()).await;
    for path in ["/_matrix/client/versions", "/_matrix/client/v3/sync", "/_matrix/client/v3/nothing"] {
        let preflight = server
            .api()
            .request(Method::OPTIONS, path)
            .header("origin", "https://app.example.org")
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "authorization,content-type")
            .send()
            .await;
        assert!(matches!(preflight.status, 200 | 204), "{path}: {}", preflight.status);
        assert_eq!(preflight.header("access-control-allow-origin"), "*", "{path}");
        let methods = preflight.header("access-control-allow-methods").to_uppercase();
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            assert!(methods.contains(method), "{path}: {method} is not in {methods}");
        }
        let headers = preflight.header("access-control-allow-headers").to_lowercase();
        for header in ["x-requested-with", "content-type", "authorization"] {
            assert!(headers.contains(header), "{path}: {header} is not in {headers}");
        }
    }
    // A browser shows a page neither answers nor errors without this header.
    for (path, status) in
        [("/_matrix/client/versions", 200), ("/_matrix/client/v3/sync", 401), ("/_matrix/client/v3/nothing", 404)]
    {
        let answer = server.api().get(path).header("origin", "https://app.example.org").send().await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
    }
}

#[tokio::test]
async fn http_2_with_prior_knowledge_holds_a_conversation() {
    let server = Server::start(BINARY, &Config::open()).await;
    let api = Api::http2(&server.url());
    let user = api.register("two", "correct horse").await.unwrap_or_else(|other| panic!("{other}"));
    let made = api.post("/_matrix/client/v3/createRoom").by(&user).json(&json!({})).ok().await;
    let room = pct(made["room_id"].as_str().expect("createRoom gives a room"));
    // Many requests at once share one connection.
    let sends = (0..50).map(|n| {
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/n{n}");
        api.put(&path).by(&user).json(&json!({"msgtype": "m.text", "body": "x"})).send()
    });
    let tasks: Vec<_> = sends.map(tokio::spawn).collect();
    for task in tasks {
        let answer = task.await.expect("a request does not panic");
        assert_eq!((answer.status, answer.version().as_str()), (200, "HTTP/2.0"), "{}", answer.text);
    }
}

#[tokio::test]
async fn bodies_are_read_whatever_type_they_claim_to_have() {
    // The specification makes the type optional: every endpoint but media takes JSON.
    let server = Server::start(BINARY, &Config::open()).await;
    let user = server.api().register("typeless", "correct horse").await.unwrap_or_else(|other| panic!("{other}"));
    let request = server.api().post("/_matrix/client/v3/createRoom").by(&user);
    let answer = request.body_of_type("text/plain", "{\"name\":\"x\"}").send().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = server.api().post("/_matrix/client/v3/createRoom").by(&user).body_of_type("", "{}").send().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn the_log_holds_no_secrets_and_no_messages() {
    let config = Config::open().with("log", "level", "\"debug\"");
    let mut server = Server::start(BINARY, &config).await;
    let api = server.api().clone();
    let user = api.register("discreet", "sEcReT-pass-phrase").await.unwrap_or_else(|other| panic!("{other}"));
    let again = api.login("discreet", "sEcReT-pass-phrase").await.unwrap_or_else(|other| panic!("{other}"));
    api.login("discreet", "WrOnG-pass-phrase").await.expect_err("a wrong password is refused");
    let body = json!({"name": "PrIvAtE-name"});
    let made = api.post("/_matrix/client/v3/createRoom").by(&user).json(&body).ok().await;
    let room = pct(made["room_id"].as_str().expect("createRoom gives a room"));
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/once");
    api.put(&path).by(&user).json(&json!({"msgtype": "m.text", "body": "WhIsPeReD-words"})).ok().await;
    api.get("/_matrix/client/v3/account/whoami?access_token=QuErY-token").send().await;
    api.put(&path).by(&user).text("{\"body\":\"HaLf-a-body").send().await;
    server.terminate();
    server.wait(std::time::Duration::from_secs(10)).await;
    let log = server.log();
    assert!(!log.is_empty(), "at debug the log says something");
    let secrets =
        ["sEcReT-pass-phrase", "WrOnG-pass-phrase", "PrIvAtE-name", "WhIsPeReD-words", "QuErY-token", "HaLf-a"];
    for secret in secrets.into_iter().chain([user.token.as_str(), again.token.as_str()]) {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
