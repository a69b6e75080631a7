//! Everything that a client can read of its rooms.

use std::cell::RefCell;

use hearth_test_harness::{Answer, pct};
use serde_json::{Value, json};

use crate::people::Person;

/// Somebody with a room that nobody spoils.
pub(super) struct Reader {
    pub(super) person: Person,
    good: String,
    since: String,
    slides: String,
}

impl Reader {
    pub(super) async fn new(person: Person) -> Self {
        let good = person.create(&json!({"preset": "private_chat", "name": "The good room"})).await;
        Self { person, good, since: String::new(), slides: String::new() }
    }

    /// Reads all that there is of `room`, of which the event `last` is the newest, and sees that nothing is missing of
    /// the good room.
    pub(super) async fn reads(&mut self, what: &str, room: &str, last: &str) {
        let said = self.person.say(&self.good, what).await;
        self.follows(&[said.as_str(), last]).await;
        let first = self.ok(what, "/_matrix/client/v3/sync?timeout=0").await;
        let good = &first["rooms"]["join"][&self.good];
        assert!(good.to_string().contains(&said) && good.to_string().contains("The good room"), "{what}: {good}");
        assert!(first["rooms"]["join"][room].is_object(), "{what}: {first}");
        self.slides(what, &said).await;
        for path in pages(room, last) {
            self.ok(what, &path).await;
        }
        let query = json!({"filter": {"generic_search_term": "odd", "room_types": [null, "m.space"]}});
        self.posts(what, "/_matrix/client/v3/publicRooms", &query).await;
        let categories = json!({"room_events": {"search_term": "x", "event_context": {}}});
        self.posts(what, "/_matrix/client/v3/search", &json!({"search_categories": categories})).await;
    }

    /// The same of a room that this server is not in.
    pub(super) async fn reads_outside(&mut self, what: &str, room: &str) {
        let said = self.person.say(&self.good, what).await;
        self.follows(&[&said]).await;
        let first = self.ok(what, "/_matrix/client/v3/sync?timeout=0").await;
        let good = &first["rooms"]["join"][&self.good];
        assert!(good.to_string().contains(&said) && good.to_string().contains("The good room"), "{what}: {good}");
        self.slides(what, &said).await;
        let room = pct(room);
        for path in [
            "/_matrix/client/v3/initialSync?limit=20".to_owned(),
            "/_matrix/client/v3/joined_rooms".to_owned(),
            format!("/_matrix/client/v3/sync?timeout=0&filter={}", filter()),
        ] {
            self.ok(what, &path).await;
        }
        // Whether it is shown or not: not an error of the server.
        let answer = self.get(&format!("/_matrix/client/v1/room_summary/{room}")).await;
        assert!(answer.status < 500 || answer.status == 502, "{what}: {} {}", answer.status, answer.text);
    }

    /// Follows `/sync` until these events have come.
    async fn follows(&mut self, events: &[&str]) {
        let seen = RefCell::new(String::new());
        let all = |sync: &Value| {
            seen.borrow_mut().push_str(&sync.to_string());
            events.iter().all(|event| seen.borrow().contains(event)).then_some(())
        };
        self.person.syncs_since(&mut self.since, "all that was said", all).await;
    }

    async fn slides(&mut self, what: &str, said: &str) {
        let room = json!({"required_state": [["*", "*"]], "timeline_limit": 30});
        let list = |filters: Value| json!({"ranges": [[0, 99]], "required_state": [["*", "*"]], "timeline_limit": 30, "filters": filters});
        let body = json!({
            "lists": {
                "all": list(json!({})),
                "plain": list(json!({"is_encrypted": false, "is_dm": false, "not_room_types": ["m.space"]})),
                "spaces": list(json!({"room_types": ["m.space"], "is_encrypted": true})),
            },
            "room_subscriptions": {&self.good: room},
            "extensions": {"receipts": {"enabled": true}, "account_data": {"enabled": true}, "typing": {"enabled": true}},
        });
        let path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=0";
        if !self.slides.is_empty() {
            let answer = self.posts(what, &format!("{path}&pos={}", pct(&self.slides)), &body).await;
            assert!(answer["rooms"][&self.good].to_string().contains(said), "{what}: {answer}");
        }
        // Anew, which ends the connection that there was.
        let answer = self.posts(what, path, &body).await;
        let good = &answer["rooms"][&self.good];
        assert!(good.to_string().contains(said), "{what}: {answer}");
        assert_eq!(good["name"], "The good room", "{what}: {good}");
        answer["pos"].as_str().expect("a position").clone_into(&mut self.slides);
    }

    async fn get(&self, path: &str) -> Answer {
        self.person.side.api.get(path).by(&self.person.user).send().await
    }

    async fn ok(&self, what: &str, path: &str) -> Value {
        taken(what, self.get(path).await)
    }

    async fn posts(&self, what: &str, path: &str, body: &Value) -> Value {
        taken(what, self.person.side.api.post(path).by(&self.person.user).json(body).send().await)
    }
}

/// An answer that says yes, or that there is no such endpoint.
fn taken(what: &str, answer: Answer) -> Value {
    let none = answer.status == 404 && answer.errcode() == "M_UNRECOGNIZED";
    let body: String = answer.text.chars().take(1000).collect();
    assert!(answer.status == 200 || none, "{what}: {}: {} {body}", answer.what, answer.status);
    answer.body
}

/// One that looks into contents.
fn filter() -> String {
    let timeline = json!({"limit": 50, "contains_url": true, "lazy_load_members": true});
    pct(&json!({"room": {"timeline": timeline, "state": {"lazy_load_members": true}}}).to_string())
}

fn pages(room: &str, last: &str) -> Vec<String> {
    let (room, last) = (pct(room), pct(last));
    let in_room = |rest: &str| format!("/_matrix/client/v3/rooms/{room}/{rest}");
    let looks = pct(&json!({"contains_url": false, "lazy_load_members": true}).to_string());
    let related = pct(&json!({"related_by_rel_types": ["m.thread", "m.annotation"]}).to_string());
    vec![
        format!("/_matrix/client/v3/sync?timeout=0&filter={}", filter()),
        in_room("messages?dir=b&limit=100"),
        in_room(&format!("messages?dir=b&limit=100&filter={looks}")),
        in_room(&format!("messages?dir=b&limit=100&filter={related}")),
        in_room("members"),
        in_room("joined_members"),
        in_room("state"),
        in_room("aliases"),
        in_room("initialSync?limit=50"),
        in_room(&format!("context/{last}?limit=100")),
        in_room(&format!("event/{last}")),
        "/_matrix/client/v3/initialSync?limit=50".to_owned(),
        "/_matrix/client/v3/joined_rooms".to_owned(),
        "/_matrix/client/v3/publicRooms".to_owned(),
        "/_matrix/client/v3/notifications".to_owned(),
        format!("/_matrix/client/v1/room_summary/{room}"),
        format!("/_matrix/client/v1/rooms/{room}/hierarchy"),
        format!("/_matrix/client/v1/rooms/{room}/threads"),
        format!("/_matrix/client/v1/rooms/{room}/threads?include=participated"),
        format!("/_matrix/client/v1/rooms/{room}/timestamp_to_event?ts=1&dir=f"),
    ]
}

/// What there is to read about `event`.
pub(super) async fn relations_of(reader: &Reader, what: &str, room: &str, event: &str) {
    let (room, event) = (pct(room), pct(event));
    for path in [
        format!("/_matrix/client/v1/rooms/{room}/relations/{event}?limit=100"),
        format!("/_matrix/client/v1/rooms/{room}/relations/{event}?limit=100&recurse=true"),
        format!("/_matrix/client/v1/rooms/{room}/relations/{event}/m.thread"),
        format!("/_matrix/client/v1/rooms/{room}/relations/{event}/m.annotation/m.reaction"),
        format!("/_matrix/client/v3/rooms/{room}/event/{event}"),
        format!("/_matrix/client/v3/rooms/{room}/context/{event}?limit=50"),
    ] {
        reader.ok(what, &path).await;
    }
}
