//! An application service at one server, in rooms that another is in.

use hearth_test_harness::{Config, Federated, now, pct};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_hearth");
const TOKEN: &str = "as-token-0123456789abcdef";
/// The third of January 2022.
const LONG_AGO: u64 = 1_641_168_000_000;

/// A registration as the protocol's test suite makes it.
const REGISTRATION: &str = "id: my_as_id\nhs_token: hs-token-0123456789abcdef\nas_token: as-token-0123456789abcdef\n\
    url: 'http://localhost:9000'\nsender_localpart: the-bridge-user\nrate_limited: false\nnamespaces:\n  users:\n    \
    - exclusive: false\n      regex: .*\n  rooms: []\n  aliases: []\n";

#[tokio::test]
async fn a_bridge_shares_rooms_with_other_servers_and_its_old_events_are_found_there() {
    let files = TempDir::new().expect("a temporary directory");
    std::fs::write(files.path().join("as.yaml"), REGISTRATION).expect("the registration can be written");
    let directory = format!("[{:?}]", files.path().display().to_string());
    let config = Config::open().with("application_services", "registrations", &directory);
    let here = Federated::start(BINARY, config).await;
    let there = Federated::start(BINARY, Config::open()).await;
    let charlie = there.api().register("charlie", "correct horse").await.unwrap_or_else(|other| panic!("{other}"));
    let alice = here.api().register("alice", "correct horse").await.unwrap_or_else(|other| panic!("{other}"));
    let bridge = |method: Method, path: &str| here.api().request(method, path).token(TOKEN);

    // Its user has no profile, and nobody has registered it.
    let create = json!({"preset": "public_chat"});
    let theirs = there.api().post("/_matrix/client/v3/createRoom").by(&charlie).json(&create).ok().await;
    let theirs = pct(theirs["room_id"].as_str().expect("createRoom gives a room"));
    let join = format!("/_matrix/client/v3/join/{theirs}?server_name={}", pct(there.name()));
    bridge(Method::POST, &join).json(&json!({})).ok().await;
    let member = format!("/_matrix/client/v3/rooms/{theirs}/state/m.room.member/{}", {
        pct(&format!("@the-bridge-user:{}", here.name()))
    });
    let member = there.api().get(&member).by(&charlie).ok().await;
    assert_eq!(member, json!({"membership": "join"}));

    let before = now();
    let ours = here.api().post("/_matrix/client/v3/createRoom").by(&alice).json(&create).ok().await;
    let ours = pct(ours["room_id"].as_str().expect("createRoom gives a room"));
    bridge(Method::POST, &format!("/_matrix/client/v3/join/{ours}")).json(&json!({})).ok().await;
    let body = json!({"msgtype": "m.text", "body": "from long ago"});
    let send = format!("/_matrix/client/v3/rooms/{ours}/send/m.room.message/1?ts={LONG_AGO}");
    let old = bridge(Method::PUT, &send).json(&body).ok().await;
    let join = format!("/_matrix/client/v3/join/{ours}?server_name={}", pct(here.name()));
    there.api().post(&join).by(&charlie).json(&json!({})).ok().await;
    for (api, user) in [(here.api(), &alice), (there.api(), &charlie)] {
        let at = format!("/_matrix/client/v1/rooms/{ours}/timestamp_to_event?ts={}&dir=b", before - 1000);
        let found = api.get(&at).by(user).ok().await;
        assert_eq!((&found["event_id"], &found["origin_server_ts"]), (&old["event_id"], &json!(LONG_AGO)));
    }
}
