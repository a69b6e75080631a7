//! Times as clients meet them, who have a clock of their own.

use hearth_base::{Clock as _, SystemClock};
use hearth_test_harness::{Config, Server, pct};
use serde_json::json;

use crate::BINARY;

#[tokio::test]
async fn a_room_begins_after_the_client_asks_for_it_and_is_there_before_the_answer() {
    let server = Server::start(BINARY, &Config::open()).await;
    let ann = server.api().register("ann", "correct horse").await.expect("registered");
    // Some of them within a millisecond, if the server did not see to it.
    for _ in 0..20 {
        let before = SystemClock.now().0;
        let created = server
            .api()
            .post("/_matrix/client/v3/createRoom")
            .by(&ann)
            .json(&json!({ "preset": "public_chat" }))
            .ok()
            .await;
        let after = SystemClock.now().0;
        let room = pct(created["room_id"].as_str().expect("an ID"));
        let find = async |ts: u64, dir: &str| {
            let path = format!("/_matrix/client/v1/rooms/{room}/timestamp_to_event?ts={ts}&dir={dir}");
            server.api().get(&path).by(&ann).send().await
        };
        assert_eq!(find(before, "b").await.status, 404);
        assert_eq!(find(after, "f").await.status, 404);
        assert_eq!(find(before, "f").await.status, 200);
        assert_eq!(find(after, "b").await.status, 200);
    }
}
