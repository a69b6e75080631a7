//! Users who write and sync until the server is gone.

use std::sync::Arc;
use std::time::Duration;

use hearth_test_harness::{Answer, Api, Request, User, pct};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::oracle::{Key, Kind, Oracle, Send, Token};

/// The sync filter of the workload: enough that a gap is rare.
pub(crate) const FILTER: &str = r#"{"room":{"timeline":{"limit":200}}}"#;

/// The server does not answer any more.
pub(crate) struct Gone;

/// One user at work.
pub(crate) struct Worker {
    /// Index of the user, which is also in names and bodies.
    pub(crate) index: usize,
    /// Which life of the server this is, so that names of one life differ from those of another.
    pub(crate) life: u64,
    pub(crate) api: Api,
    pub(crate) user: User,
    /// Rooms in which everybody is.
    pub(crate) rooms: Vec<String>,
    pub(crate) oracle: Arc<Oracle>,
}

impl Worker {
    /// Writes without a pause worth the name until the server is gone.
    pub(crate) async fn work(self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut count = 0;
        while self.step(&mut random, count).await.is_ok() {
            count += 1;
            tokio::time::sleep(Duration::from_micros(random.random_range(0..8000))).await;
        }
    }

    async fn step(&self, random: &mut StdRng, count: u64) -> Result<(), Gone> {
        let room = self.rooms[random.random_range(0..self.rooms.len())].clone();
        let mark = format!("u{}l{}n{count}", self.index, self.life);
        match random.random_range(0..100) {
            0..60 => self.send(&room, &mark).await,
            60..70 => self.state(&room, &mark).await,
            70..78 => self.account_data(&mark).await,
            78..88 => self.receipt(&room).await,
            88..92 => self.displayname(&mark).await,
            92..95 => self.redact(&room, &mark).await,
            95..98 => self.room_and_join(&mark).await,
            _ => self.register(&mark).await,
        }
    }

    /// The answer's body, `None` for an answer that is a problem.
    async fn ask(&self, request: Request) -> Result<Option<Value>, Gone> {
        let answer: Answer = request.by(&self.user).try_send().await.map_err(|lost| self.gone(&lost))?;
        match answer.expect_status(200) {
            Ok(answer) => Ok(Some(answer.body)),
            Err(other) => {
                self.oracle.problem(other);
                Ok(None)
            }
        }
    }

    /// A lost connection ends the work; without a kill it is also a problem.
    fn gone(&self, lost: &str) -> Gone {
        if !self.oracle.killed() {
            self.oracle.problem(format!("lost while the server ran: {lost}"));
        }
        Gone
    }

    async fn send(&self, room: &str, mark: &str) -> Result<(), Gone> {
        let send = Send {
            by: self.index,
            room: room.to_owned(),
            txn: format!("txn-{mark}"),
            body: format!("body {mark}"),
            event: None,
        };
        let request = send_request(&self.api, &send);
        let index = self.oracle.intend_send(send);
        if let Some(event) = event_id(self.ask(request).await?.as_ref()) {
            self.oracle.ack_send(index, &event);
        }
        Ok(())
    }

    async fn state(&self, room: &str, mark: &str) -> Result<(), Gone> {
        let key: Key = (self.index, Kind::State, room.to_owned());
        self.oracle.intend(&key, mark);
        let request = self.api.put(&state_path(room, self.index)).json(&json!({"mark": mark}));
        if let Some(event) = event_id(self.ask(request).await?.as_ref()) {
            self.oracle.ack(&key);
            self.oracle.book().other_events.push((room.to_owned(), event));
        }
        Ok(())
    }

    async fn account_data(&self, mark: &str) -> Result<(), Gone> {
        let key: Key = (self.index, Kind::AccountData, String::new());
        self.oracle.intend(&key, mark);
        let request = self.api.put(&account_data_path(&self.user)).json(&json!({"mark": mark}));
        if self.ask(request).await?.is_some() {
            self.oracle.ack(&key);
        }
        Ok(())
    }

    async fn displayname(&self, mark: &str) -> Result<(), Gone> {
        let key: Key = (self.index, Kind::Displayname, String::new());
        self.oracle.intend(&key, mark);
        let request = self.api.put(&displayname_path(&self.user)).json(&json!({"displayname": mark}));
        if self.ask(request).await?.is_some() {
            self.oracle.ack(&key);
        }
        Ok(())
    }

    /// Reads up to this user's own newest message, so that receipts only move forward.
    async fn receipt(&self, room: &str) -> Result<(), Gone> {
        let Some(event) = self.own_newest(room) else { return Ok(()) };
        let key: Key = (self.index, Kind::Receipt, room.to_owned());
        self.oracle.intend(&key, &event);
        let path = format!("/_matrix/client/v3/rooms/{}/receipt/m.read/{}", pct(room), pct(&event));
        if self.ask(self.api.post(&path).json(&json!({}))).await?.is_some() {
            self.oracle.ack(&key);
        }
        Ok(())
    }

    async fn redact(&self, room: &str, mark: &str) -> Result<(), Gone> {
        let Some(event) = self.own_newest(room) else { return Ok(()) };
        let path = format!("/_matrix/client/v3/rooms/{}/redact/{}/r-{mark}", pct(room), pct(&event));
        if let Some(redaction) = event_id(self.ask(self.api.put(&path).json(&json!({}))).await?.as_ref()) {
            let mut book = self.oracle.book();
            book.other_events.push((room.to_owned(), redaction));
            book.redacted.push((room.to_owned(), event));
        }
        Ok(())
    }

    fn own_newest(&self, room: &str) -> Option<String> {
        let book = self.oracle.book();
        book.sends.iter().rev().filter(|send| send.by == self.index && send.room == room).find_map(|s| s.event.clone())
    }

    /// Makes a public room, or joins the newest one that somebody else made.
    async fn room_and_join(&self, mark: &str) -> Result<(), Gone> {
        let newest = self.oracle.book().rooms.last().cloned();
        if let Some((room, maker)) = newest
            && maker.id != self.user.id
        {
            let request = self.api.post(&format!("/_matrix/client/v3/join/{}", pct(&room))).json(&json!({}));
            if self.ask(request).await?.is_some() {
                self.oracle.book().joins.push((room, self.user.clone()));
            }
            return Ok(());
        }
        let body = json!({"preset": "public_chat", "name": mark});
        let made = self.ask(self.api.post("/_matrix/client/v3/createRoom").json(&body)).await?;
        if let Some(room) = made.as_ref().and_then(|body| body["room_id"].as_str()) {
            self.oracle.book().rooms.push((room.to_owned(), self.user.clone()));
        }
        Ok(())
    }

    async fn register(&self, mark: &str) -> Result<(), Gone> {
        // The harness's words for a lost connection and a wrong answer are the same type: ask again which it was.
        match self.api.register(mark, &format!("password of {mark}")).await {
            Ok(user) => self.oracle.book().accounts.push(user),
            Err(text) => {
                self.api.get("/_matrix/client/versions").try_send().await.map_err(|lost| self.gone(&lost))?;
                self.oracle.problem(text);
            }
        }
        Ok(())
    }

    /// Syncs in a chain until the server is gone; `since` is where the last life's chain ended.
    pub(crate) async fn sync(self, mut since: Option<String>) -> Option<String> {
        while let Ok((next, _)) = self.sync_once(since.as_deref()).await {
            since = next.or(since);
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        since
    }

    /// Goes on with the chain until it brings nothing new.
    pub(crate) async fn catch_up(self, mut since: Option<String>) {
        while let Ok((next, events)) = self.sync_once(since.as_deref()).await
            && events > 0
        {
            since = next.or(since);
        }
    }

    /// One sync, with what its timelines left out; gives its token and how many events it brought.
    async fn sync_once(&self, since: Option<&str>) -> Result<(Option<String>, usize), Gone> {
        let request = self.api.get(&sync_path(since, 1000, FILTER));
        let Some(body) = self.ask(request).await? else { return Ok((None, 0)) };
        let mut brought = Vec::new();
        // Rooms that this user entered in the middle of the chain have no clear beginning for it.
        for room in &self.rooms {
            let timeline = &body["rooms"]["join"][room]["timeline"];
            let ids = event_ids(&timeline["events"]);
            brought.extend(ids.map(|id| (room.clone(), id)));
            if timeline["limited"] == json!(true) {
                self.fill_gap(room, &timeline["prev_batch"], &mut brought).await?;
            }
        }
        let Some(next) = body["next_batch"].as_str() else {
            self.oracle.problem("a sync without next_batch".to_owned());
            return Ok((None, 0));
        };
        let events = brought.len();
        let mut book = self.oracle.book();
        let seen = book.seen.entry(self.index).or_default();
        let repeated: Vec<_> = brought.into_iter().filter(|event| !seen.insert(event.clone())).collect();
        if !repeated.is_empty() {
            let problem = format!("user {}: since {since:?} brought again {repeated:?}", self.index);
            book.problems.push(problem);
        }
        let floor = book.sends.len();
        book.tokens.push(Token { of: self.index, text: next.to_owned(), floor });
        Ok((Some(next.to_owned()), events))
    }

    /// What a limited timeline left out: back to the first event that this user has seen.
    async fn fill_gap(&self, room: &str, prev_batch: &Value, brought: &mut Vec<(String, String)>) -> Result<(), Gone> {
        let mut from = prev_batch.as_str().map(str::to_owned);
        while let Some(token) = from {
            let Some(page) = self.ask(self.api.get(&messages_path(room, Some(&token)))).await? else { return Ok(()) };
            let ids: Vec<String> = event_ids(&page["chunk"]).collect();
            let known = |id: &String| {
                let book = self.oracle.book();
                book.seen.get(&self.index).is_some_and(|seen| seen.contains(&(room.to_owned(), id.clone())))
            };
            let new: Vec<String> = ids.iter().take_while(|id| !known(id)).cloned().collect();
            let done = new.len() < ids.len();
            brought.extend(new.into_iter().map(|id| (room.to_owned(), id)));
            from = if done { None } else { page["end"].as_str().map(str::to_owned) };
        }
        Ok(())
    }
}

/// The request that sends `send`, the same every time.
pub(crate) fn send_request(api: &Api, send: &Send) -> Request {
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{}", pct(&send.room), send.txn);
    api.put(&path).json(&json!({"msgtype": "m.text", "body": send.body}))
}

/// The IDs of a list of events.
pub(crate) fn event_ids(events: &Value) -> impl Iterator<Item = String> {
    events.as_array().into_iter().flatten().filter_map(|event| event["event_id"].as_str().map(str::to_owned))
}

fn event_id(body: Option<&Value>) -> Option<String> {
    body?["event_id"].as_str().map(str::to_owned)
}

/// The state of one user's own state key.
pub(crate) fn state_path(room: &str, user: usize) -> String {
    format!("/_matrix/client/v3/rooms/{}/state/test.chaos/user{user}", pct(room))
}

/// The account data that the workload writes.
pub(crate) fn account_data_path(user: &User) -> String {
    format!("/_matrix/client/v3/user/{}/account_data/test.chaos", pct(&user.id))
}

/// The user's display name.
pub(crate) fn displayname_path(user: &User) -> String {
    format!("/_matrix/client/v3/profile/{}/displayname", pct(&user.id))
}

/// A page of a room's history, newest first.
pub(crate) fn messages_path(room: &str, from: Option<&str>) -> String {
    let from = from.map(|from| format!("&from={}", pct(from))).unwrap_or_default();
    format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=500{from}", pct(room))
}

/// A sync.
pub(crate) fn sync_path(since: Option<&str>, timeout_ms: u64, filter: &str) -> String {
    let since = since.map(|since| format!("&since={}", pct(since))).unwrap_or_default();
    format!("/_matrix/client/v3/sync?timeout={timeout_ms}&filter={}{since}", pct(filter))
}
