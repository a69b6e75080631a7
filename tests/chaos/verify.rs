//! Holds the book against the server after a restart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hearth_test_harness::{Api, User, pct};
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::oracle::{Kind, Oracle, Token};
use crate::workload::{account_data_path, displayname_path, event_ids, messages_path};
use crate::workload::{send_request, state_path, sync_path};

/// A timeline of one event a room: enough to see whether a room is there.
const NARROW: &str = r#"{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true}}}"#;
const WIDE: &str = r#"{"room":{"timeline":{"limit":100}}}"#;

/// The server after a restart, and what it ought to hold.
pub(crate) struct Verifier {
    pub(crate) api: Api,
    pub(crate) users: Vec<User>,
    /// Rooms in which everybody is.
    pub(crate) rooms: Vec<String>,
    pub(crate) oracle: Arc<Oracle>,
}

/// A room's whole history as `/messages` tells it.
struct History {
    /// Newest first.
    ids: Vec<String>,
    /// Event IDs by body.
    bodies: HashMap<String, Vec<String>>,
    /// Events without content.
    empty: HashSet<String>,
}

impl Verifier {
    /// All checks but the one of every token.
    pub(crate) async fn all(&self, random: &mut StdRng) {
        self.repeat_unanswered().await;
        self.repeat_some_answered(random).await;
        self.histories().await;
        self.values().await;
        self.accounts().await;
        self.rooms_and_joins().await;
        self.some_tokens(random).await;
        let book = self.oracle.book();
        assert!(book.problems.is_empty(), "wrong answers: {:#?}", book.problems);
    }

    /// Whether an unanswered send happened is unknown; asked again it must happen exactly once.
    async fn repeat_unanswered(&self) {
        let open: Vec<_> = {
            let book = self.oracle.book();
            book.sends.iter().cloned().enumerate().filter(|(_, send)| send.event.is_none()).collect()
        };
        for (index, send) in open {
            let body = send_request(&self.api, &send).by(&self.users[send.by]).ok().await;
            let event = body["event_id"].as_str().unwrap_or_else(|| panic!("no event_id for {send:?}: {body}"));
            self.oracle.ack_send(index, event);
        }
    }

    /// A repeated transaction id gives the event ID of the first answer.
    async fn repeat_some_answered(&self, random: &mut StdRng) {
        let chosen: Vec<_> = {
            let sends = &self.oracle.book().sends;
            let newest = sends.len().saturating_sub(16)..sends.len();
            let any = (0..16).filter(|_| !sends.is_empty()).map(|_| random.random_range(0..sends.len()));
            newest.chain(any).map(|index| sends[index].clone()).collect()
        };
        for send in chosen {
            let body = send_request(&self.api, &send).by(&self.users[send.by]).ok().await;
            assert_eq!(body["event_id"].as_str(), send.event.as_deref(), "the same transaction again: {send:?}");
        }
    }

    /// Every acknowledged event once, no message twice, nothing lost that a sync has shown.
    async fn histories(&self) {
        for room in &self.rooms {
            let history = self.history(room).await;
            let held: HashSet<&String> = history.ids.iter().collect();
            assert_eq!(held.len(), history.ids.len(), "{room}: an event comes twice in its history");
            let book = self.oracle.book();
            let redacted: HashSet<_> = book.redacted.iter().map(|(_, event)| event).collect();
            for send in book.sends.iter().filter(|send| send.room == *room) {
                let event = send.event.as_ref().unwrap_or_else(|| panic!("unanswered sends are repeated: {send:?}"));
                assert!(held.contains(event), "an acknowledged message is missing: {send:?}");
                let same = history.bodies.get(&send.body).map_or(&[][..], Vec::as_slice);
                if redacted.contains(event) {
                    assert!(same.is_empty() && history.empty.contains(event), "not redacted: {send:?}");
                } else if same.is_empty() {
                    // A redaction that was not answered may have happened.
                    assert!(history.empty.contains(event), "content lost: {send:?}");
                } else {
                    assert_eq!(same, std::slice::from_ref(event), "not exactly once: {send:?}");
                }
            }
            for (_, event) in book.other_events.iter().filter(|(at, _)| at == room) {
                assert!(held.contains(event), "{room}: an acknowledged state event or redaction is missing: {event}");
            }
            for (user, seen) in &book.seen {
                for (_, event) in seen.iter().filter(|(at, _)| at == room) {
                    assert!(held.contains(event), "{room}: user {user} was shown {event}, which is gone");
                }
            }
        }
    }

    async fn history(&self, room: &str) -> History {
        let mut history = History { ids: Vec::new(), bodies: HashMap::new(), empty: HashSet::new() };
        let mut from = None;
        loop {
            let page = self.api.get(&messages_path(room, from.as_deref())).by(&self.users[0]).ok().await;
            history.ids.extend(event_ids(&page["chunk"]));
            for event in page["chunk"].as_array().into_iter().flatten() {
                let id = event["event_id"].as_str().expect("a client event has an ID").to_owned();
                match event["content"]["body"].as_str() {
                    Some(body) => history.bodies.entry(body.to_owned()).or_default().push(id),
                    None if event["content"].as_object().is_some_and(serde_json::Map::is_empty) => {
                        history.empty.insert(id);
                    }
                    None => {}
                }
            }
            from = page["end"].as_str().map(str::to_owned);
            if from.is_none() || page["chunk"].as_array().is_none_or(Vec::is_empty) {
                return history;
            }
        }
    }

    /// Account data, display names, state and receipts hold the last acknowledged value or a later unanswered one.
    async fn values(&self) {
        let mut receipts = HashMap::new();
        for (index, user) in self.users.iter().enumerate() {
            receipts.insert(index, self.api.get(&sync_path(None, 0, NARROW)).by(user).ok().await);
        }
        let keys: Vec<_> = self.oracle.book().values.keys().cloned().collect();
        for key in keys {
            let (index, kind, room) = &key;
            let user = &self.users[*index];
            let found = match kind {
                Kind::AccountData => self.read(&account_data_path(user), user, "mark").await,
                Kind::Displayname => self.read(&displayname_path(user), user, "displayname").await,
                Kind::State => self.read(&state_path(room, *index), user, "mark").await,
                Kind::Receipt => receipt(&receipts[index]["rooms"]["join"][room], &user.id),
            };
            let book = self.oracle.book();
            let latest = &book.values[&key];
            assert!(latest.allows(found.as_deref()), "{key:?} is {found:?}, allowed is {latest:?}");
        }
    }

    /// A field of what GET answers; `None` for 404 or an absent field.
    async fn read(&self, path: &str, user: &User, field: &str) -> Option<String> {
        let answer = self.api.get(path).by(user).send().await;
        assert!(matches!(answer.status, 200 | 404), "{}: {} {}", answer.what, answer.status, answer.text);
        answer.body[field].as_str().map(str::to_owned)
    }

    /// Acknowledged accounts keep their tokens and passwords.
    async fn accounts(&self) {
        let accounts = self.oracle.book().accounts.clone();
        for user in self.users.iter().chain(accounts.iter().rev().take(20)) {
            let who = self.api.get("/_matrix/client/v3/account/whoami").by(user).ok().await;
            assert_eq!(who["user_id"].as_str(), Some(user.id.as_str()), "whoami of {}", user.id);
        }
        for user in accounts.iter().rev().take(5) {
            let again = self.api.login(&user.name, &user.password).await.unwrap_or_else(|other| panic!("{other}"));
            assert_eq!(again.id, user.id, "login after the restart");
        }
    }

    async fn rooms_and_joins(&self) {
        let (rooms, joins) = {
            let book = self.oracle.book();
            (book.rooms.clone(), book.joins.clone())
        };
        for (room, maker) in rooms.iter().rev().take(10) {
            let name = format!("/_matrix/client/v3/rooms/{}/state/m.room.name", pct(room));
            self.api.get(&name).by(maker).ok().await;
        }
        for (room, user) in joins.iter().rev().take(20) {
            let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/{}", pct(room), pct(&user.id));
            let member = self.api.get(&path).by(user).ok().await;
            assert_eq!(member["membership"].as_str(), Some("join"), "{} joined {room}", user.id);
        }
    }

    /// From a token on, everything that was sent after it.
    async fn some_tokens(&self, random: &mut StdRng) {
        let chosen: Vec<Token> = {
            let tokens = &self.oracle.book().tokens;
            let any = (0..6).filter(|_| !tokens.is_empty()).map(|_| random.random_range(0..tokens.len()));
            any.chain(tokens.len().saturating_sub(2)..tokens.len()).map(|index| tokens[index].clone()).collect()
        };
        for token in chosen {
            let user = &self.users[token.of];
            let body = self.api.get(&sync_path(Some(&token.text), 0, WIDE)).by(user).ok().await;
            for room in &self.rooms {
                let wanted: HashSet<String> = {
                    let book = self.oracle.book();
                    let later = book.sends[token.floor..].iter().filter(|send| send.room == *room);
                    later.filter_map(|send| send.event.clone()).collect()
                };
                self.holds(&body["rooms"]["join"][room]["timeline"], wanted, room, &token).await;
            }
        }
    }

    /// Whether a timeline, or the pages before it if it is limited, have all `wanted` events.
    async fn holds(&self, timeline: &Value, mut wanted: HashSet<String>, room: &str, token: &Token) {
        for id in event_ids(&timeline["events"]) {
            wanted.remove(&id);
        }
        let limited = timeline["limited"].as_bool() == Some(true);
        let mut from = limited.then(|| timeline["prev_batch"].as_str().expect("limited has a prev_batch").to_owned());
        while let (false, Some(token)) = (wanted.is_empty(), from) {
            let page = self.api.get(&messages_path(room, Some(&token))).by(&self.users[0]).ok().await;
            for id in event_ids(&page["chunk"]) {
                wanted.remove(&id);
            }
            from = page["end"].as_str().map(str::to_owned);
        }
        assert!(wanted.is_empty(), "{room}: a sync from {token:?} lost {wanted:?}");
    }

    /// Every token that was ever returned still works, and names the rooms that have something new.
    pub(crate) async fn every_token(&self) {
        let tokens = self.oracle.book().tokens.clone();
        for token in &tokens {
            let body = self.api.get(&sync_path(Some(&token.text), 0, NARROW)).by(&self.users[token.of]).ok().await;
            assert!(body["next_batch"].is_string(), "a sync from {token:?} has no next_batch: {body}");
            let book = self.oracle.book();
            let newer: HashSet<&String> = book.sends[token.floor..].iter().map(|send| &send.room).collect();
            for room in newer {
                let events = &body["rooms"]["join"][room]["timeline"]["events"];
                assert!(events.as_array().is_some_and(|e| !e.is_empty()), "a sync from {token:?} lacks {room}");
            }
        }
        println!("{} sync tokens, each good after the last restart", tokens.len());
    }

    /// The chain of syncs of each user brought every acknowledged message (and, as it is a set that refuses
    /// repetitions, brought it once).
    pub(crate) fn chains(&self) {
        let book = self.oracle.book();
        for (user, seen) in &book.seen {
            for send in &book.sends {
                let event = send.event.clone().expect("unanswered sends are repeated");
                assert!(seen.contains(&(send.room.clone(), event)), "user {user} never saw {send:?}");
            }
        }
    }
}

/// The event that `user` has read up to, of a room in a sync.
fn receipt(room: &Value, user: &str) -> Option<String> {
    let events = room["ephemeral"]["events"].as_array()?;
    let receipts = events.iter().filter(|event| event["type"] == "m.receipt");
    let mut marks = receipts.filter_map(|event| event["content"].as_object()).flatten();
    marks.find(|(_, by)| by["m.read"][user].is_object()).map(|(event, _)| event.clone())
}
