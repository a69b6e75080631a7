//! What people do in rooms, as steps of a scenario: whoever waits has a deadline, and says what was missing.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hearth_test_harness::{Answer, Api, User, pct};
use serde_json::{Value, json};

/// How long anything may take to get to the other server, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A homeserver as its users and its peers know it.
#[derive(Clone)]
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) api: Api,
}

/// Somebody at a side.
pub(crate) struct Person {
    pub(crate) side: Side,
    pub(crate) user: User,
}

/// The event of each state key of a room.
pub(crate) type State = BTreeMap<(String, String), String>;

impl Side {
    /// A new user whose name begins with `name`.
    pub(crate) async fn person(&self, name: &str) -> Person {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}", MADE.fetch_add(1, Ordering::Relaxed));
        let user = self.api.register(&name, "correct horse").await.expect("anybody can register");
        Person { side: self.clone(), user }
    }
}

impl Person {
    pub(crate) fn id(&self) -> &str {
        &self.user.id
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.side.api.post(&format!("/_matrix/client/v3{path}")).by(&self.user).json(body).send().await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Value {
        self.side.api.put(&format!("/_matrix/client/v3{path}")).by(&self.user).json(body).ok().await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.side.api.get(&format!("/_matrix/client/v3{path}")).by(&self.user).send().await
    }

    async fn done(&self, path: &str, body: &Value) -> Value {
        self.post(path, body).await.expect_status(200).unwrap_or_else(|other| panic!("{other}")).body
    }

    pub(crate) async fn create(&self, body: &Value) -> String {
        field(&self.done("/createRoom", body).await, "room_id")
    }

    /// A room that anybody may join.
    pub(crate) async fn create_public(&self, version: &str) -> String {
        self.create(&json!({"preset": "public_chat", "room_version": version, "name": "A room for all"})).await
    }

    /// Joins through the server of `via`.
    pub(crate) async fn join(&self, room: &str, via: &Side) {
        // A server that has only just come back may be thought away.
        eventually(format!("{} joins {room}", self.id()), async || {
            self.try_join(room, via).await.expect_status(200).map(drop)
        })
        .await;
    }

    pub(crate) async fn try_join(&self, room: &str, via: &Side) -> Answer {
        let via = pct(&via.name);
        self.post(&format!("/join/{}?server_name={via}&via={via}", pct(room)), &json!({})).await
    }

    pub(crate) async fn leave(&self, room: &str) {
        self.done(&format!("/rooms/{}/leave", pct(room)), &json!({})).await;
    }

    /// `invite`, `kick`, `ban` or `unban`.
    pub(crate) async fn does(&self, what: &str, room: &str, whom: &Person) {
        self.done(&format!("/rooms/{}/{what}", pct(room)), &json!({"user_id": whom.id()})).await;
    }

    pub(crate) async fn try_say(&self, room: &str, text: &str) -> Answer {
        static SENT: AtomicU32 = AtomicU32::new(0);
        let transaction = SENT.fetch_add(1, Ordering::Relaxed);
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{transaction}", pct(room));
        let body = json!({"msgtype": "m.text", "body": text});
        self.side.api.put(&path).by(&self.user).json(&body).send().await
    }

    /// Sends a message; gives its ID.
    pub(crate) async fn say(&self, room: &str, text: &str) -> String {
        let answer = self.try_say(room, text).await.expect_status(200).unwrap_or_else(|other| panic!("{other}"));
        field(&answer.body, "event_id")
    }

    pub(crate) async fn set_state(&self, room: &str, kind: &str, key: &str, content: &Value) -> String {
        field(&self.put(&format!("/rooms/{}/state/{kind}/{}", pct(room), pct(key)), content).await, "event_id")
    }

    pub(crate) async fn redact(&self, room: &str, event: &str) -> String {
        let path = format!("/rooms/{}/redact/{}/r{}", pct(room), pct(event), pct(event));
        field(&self.put(&path, &json!({})).await, "event_id")
    }

    /// The event, as soon as it has come.
    pub(crate) async fn sees(&self, room: &str, event: &str) -> Value {
        eventually(format!("{} sees {event}", self.id()), async || {
            let path = format!("/rooms/{}/event/{}", pct(room), pct(event));
            Ok(self.get(&path).await.expect_status(200)?.body)
        })
        .await
    }

    /// Waits until the event is shown without its content.
    pub(crate) async fn sees_redacted(&self, room: &str, event: &str) {
        eventually(format!("{} sees {event} redacted", self.id()), async || {
            let path = format!("/rooms/{}/event/{}", pct(room), pct(event));
            let shown = self.get(&path).await.expect_status(200)?.body;
            let content = shown["content"].as_object().is_some_and(serde_json::Map::is_empty);
            if content { Ok(()) } else { Err(shown.to_string()) }
        })
        .await;
    }

    /// Waits until `whom` has that membership in what this person is shown.
    pub(crate) async fn sees_membership(&self, room: &str, whom: &Person, membership: &str) {
        eventually(format!("{} sees {} as {membership}", self.id(), whom.id()), async || {
            let path = format!("/rooms/{}/state/m.room.member/{}", pct(room), pct(whom.id()));
            let member = self.get(&path).await.expect_status(200)?.body;
            if member["membership"] == membership { Ok(()) } else { Err(member.to_string()) }
        })
        .await;
    }

    pub(crate) async fn state(&self, room: &str) -> Result<State, String> {
        let events = self.get(&format!("/rooms/{}/state", pct(room))).await.expect_status(200)?.body;
        let events = events.as_array().ok_or("the state is no list")?;
        Ok(events
            .iter()
            .map(|event| ((field(event, "type"), field(event, "state_key")), field(event, "event_id")))
            .collect())
    }

    /// Waits until a `/sync` from the beginning on has what `wanted` looks for.
    pub(crate) async fn syncs<T>(&self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        self.syncs_since(&mut String::new(), what, wanted).await
    }

    /// The same from the token `since` on, which moves.
    pub(crate) async fn syncs_since<T>(
        &self,
        since: &mut String,
        what: &str,
        wanted: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let began = Instant::now();
        loop {
            let from = if since.is_empty() { String::new() } else { format!("&since={}", pct(since)) };
            let timeout = if since.is_empty() { 0 } else { 1000 };
            let answer = self.get(&format!("/sync?timeout={timeout}{from}")).await;
            let body = answer.expect_status(200).unwrap_or_else(|other| panic!("{other}")).body;
            *since = field(&body, "next_batch");
            if let Some(found) = wanted(&body) {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "{} waits for {what}; the last sync was {body}", self.id());
        }
    }

    /// Waits for an invitation; gives its stripped state.
    pub(crate) async fn is_invited(&self, room: &str) -> Vec<Value> {
        self.syncs("an invitation", |sync| sync["rooms"]["invite"][room]["invite_state"]["events"].as_array().cloned())
            .await
    }

    /// Waits from the token `since` on for an ephemeral event of the room for which `wanted` holds.
    pub(crate) async fn notices(&self, since: &mut String, room: &str, wanted: impl Fn(&Value) -> bool) {
        self.syncs_since(since, "an ephemeral event", |sync| {
            let events = sync["rooms"]["join"][room]["ephemeral"]["events"].as_array()?;
            events.iter().any(&wanted).then_some(())
        })
        .await;
    }
}

/// Waits until `attempt` gives something; fails with its last complaint.
pub(crate) async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: impl std::fmt::Display,
    attempt: impl Fn() -> F,
) -> T {
    let began = Instant::now();
    loop {
        match attempt().await {
            Ok(found) => return found,
            Err(complaint) => assert!(began.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}: {complaint}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until both have the same event for every state key of the room; gives that state.
pub(crate) async fn agree(room: &str, one: &Person, other: &Person) -> State {
    eventually(format!("{} and {} agree on the state of {room}", one.id(), other.id()), async || {
        let (ours, theirs) = (one.state(room).await?, other.state(room).await?);
        let only = |these: &State, those: &State| -> Vec<String> {
            let differs = these.iter().filter(|(key, event)| those.get(*key) != Some(event));
            differs.map(|((kind, key), event)| format!("{kind} {key:?} {event}")).collect()
        };
        if ours == theirs {
            return Ok(ours);
        }
        let (here, there) = (only(&ours, &theirs), only(&theirs, &ours));
        Err(format!("only {} has {here:?}, only {} has {there:?}", one.side.name, other.side.name))
    })
    .await
}

/// Waits until paging back through the room shows these messages in their order.
pub(crate) async fn sees_history(person: &Person, room: &str, messages: &[String]) {
    eventually(format!("{} sees all of the history of {room}", person.id()), async || {
        let mut found = history(person, room).await?;
        found.retain(|event| messages.contains(event));
        // By number: what is missing, twice or out of order shows.
        let numbers: Vec<_> = found.iter().map(|event| messages.iter().position(|other| other == event)).collect();
        if found == messages { Ok(()) } else { Err(format!("of {} messages: {numbers:?}", messages.len())) }
    })
    .await;
}

/// The messages of the room from the oldest on, by paging back from now.
async fn history(person: &Person, room: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut from = String::new();
    for _ in 0..50 {
        let path = format!("/rooms/{}/messages?dir=b&limit=20{from}", pct(room));
        let page = person.get(&path).await.expect_status(200)?.body;
        let events = page["chunk"].as_array().ok_or("no chunk")?;
        let messages = events.iter().filter(|event| event["type"] == "m.room.message");
        found.extend(messages.map(|event| field(event, "event_id")));
        let Some(end) = page["end"].as_str() else { break };
        from = format!("&from={}", pct(end));
    }
    found.reverse();
    Ok(found)
}

pub(crate) fn field(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}
