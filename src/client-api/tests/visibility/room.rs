//! A room in which everything happens that decides who may see what, and everybody who can stand to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::*;
use super::model::History;

/// Whoever reads, by what they are to the room at the end.
pub(super) const READERS: [&str; 14] = [
    "creator", "never", "invited", "early", "late", "waited", "left", "banned", "outcast", "forgot", "rejoined",
    "declined", "again", "knocked",
];

/// What history visibility a room has, and when it changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub first: &'static str,
    pub second: Option<(When, &'static str)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// While everybody is in who ever is, but for those who come late.
    BeforeLeaving,
    /// When some have left, and the others have not come yet.
    BeforeComing,
    /// When all have come and gone.
    AtTheEnd,
}

/// The room with its people.
pub(super) struct Stage {
    pub world: World,
    pub room: String,
    pub people: BTreeMap<&'static str, Person>,
    pub history: History,
    /// For each point at which everybody synced: how many events there were, and the token of each reader.
    pub tokens: Vec<(usize, BTreeMap<&'static str, String>)>,
    /// The same for sliding sync: each time is a connection by itself, named by its index.
    pub slides: Vec<BTreeMap<&'static str, String>>,
    /// The first message, the one that began the newest thread, and the newest.
    oldest: String,
    top: String,
    newest: String,
    said: usize,
    next: AtomicUsize,
}

impl Stage {
    pub(super) async fn play(case: Case) -> Self {
        let mut stage = Self::open(case.first).await;
        stage.first_act().await;
        stage.turn(case, When::BeforeLeaving).await;
        stage.second_act().await;
        stage.turn(case, When::BeforeComing).await;
        stage.third_act().await;
        stage.turn(case, When::AtTheEnd).await;
        stage.everything_is_counted().await;
        let path = in_room(&stage.room, "messages?dir=f&limit=1000");
        let page = stage.world.get(&path, stage.person("creator")).await.ok();
        stage.history = History::new(page["chunk"].as_array().unwrap().clone());
        stage
    }

    async fn open(visibility: &str) -> Self {
        let world = World::new();
        let mut people = BTreeMap::new();
        for name in READERS {
            people.insert(name, world.register(name).await);
        }
        let initial = json!([{"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}]);
        let (history, tokens, slides) = (History::new(Vec::new()), Vec::new(), Vec::new());
        let (room, oldest, top, newest) = Default::default();
        let (said, next) = (0, AtomicUsize::new(0));
        let mut stage = Self { world, room, people, history, tokens, slides, oldest, top, newest, said, next };
        stage.everybody_syncs().await;
        let body = json!({"preset": "public_chat", "initial_state": initial, "name": stage.mark()});
        stage.room = stage.world.create_room(stage.person("creator"), body).await;
        stage
    }

    async fn first_act(&mut self) {
        self.begin_thread().await;
        self.oldest.clone_from(&self.top);
        self.begin_thread().await;
        self.set("m.room.topic", "topic").await;
        self.set("x.secret", "text").await;
        for name in ["invited", "waited", "declined"] {
            self.act("creator", "invite", name).await;
        }
        for name in ["early", "left", "banned", "outcast", "forgot", "rejoined", "again"] {
            self.say().await;
            self.act(name, "join", name).await;
        }
        self.say().await;
        self.set("m.room.topic", "topic").await;
        self.set("x.secret", "text").await;
        self.say().await;
    }

    async fn second_act(&mut self) {
        self.say().await;
        self.act("creator", "ban", "banned").await;
        for name in ["left", "outcast", "forgot", "rejoined", "declined", "again"] {
            self.act(name, "leave", name).await;
            self.say().await;
        }
        let path = in_room(&self.room, "forget");
        self.world.post(&path, self.person("forgot"), json!({})).await.ok();
        self.set("m.room.topic", "topic").await;
        self.set("x.secret", "text").await;
        self.say().await;
    }

    async fn third_act(&mut self) {
        self.begin_thread().await;
        self.set("m.room.topic", "topic").await;
        self.set("x.secret", "text").await;
        self.act("creator", "ban", "outcast").await;
        self.act("creator", "invite", "again").await;
        for name in ["late", "waited", "rejoined"] {
            self.say().await;
            self.act(name, "join", name).await;
        }
        self.say().await;
        self.put("m.room.join_rules", "", json!({"join_rule": "knock"})).await;
        let knock = format!("/knock/{}", pct(&self.room));
        self.world.post(&knock, self.person("knocked"), json!({"reason": self.mark()})).await.ok();
        self.put("m.room.join_rules", "", json!({"join_rule": "invite"})).await;
        let renamed = json!({"membership": "join", "displayname": self.mark()});
        self.put("m.room.member", &self.person("creator").id.clone(), renamed).await;
        self.set("m.room.topic", "topic").await;
        self.set("x.secret", "text").await;
        self.say().await;
        // A redaction is an event of its own time, whatever it redacts.
        let path = in_room(&self.room, &format!("redact/{}/r", pct(&self.oldest)));
        self.world.put(&path, self.person("creator"), json!({"reason": self.mark()})).await.ok();
        self.say().await;
    }

    /// What is to be between two acts: everybody syncs, and the visibility changes if this is when.
    async fn turn(&mut self, case: Case, now: When) {
        self.everybody_syncs().await;
        if let Some((_, second)) = case.second.filter(|(when, _)| *when == now) {
            self.put("m.room.history_visibility", "", json!({"history_visibility": second})).await;
            self.say().await;
        }
    }

    pub(super) fn person(&self, name: &str) -> &Person {
        &self.people[name]
    }

    /// A text that nothing else has, so that it is found wherever it comes out.
    fn mark(&self) -> String {
        format!("mark-{}-", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Time goes on, so that every event has one of its own.
    fn tick(&self) {
        self.world.clock.advance(Duration::from_secs(1));
    }

    /// The creator says something that is a child of something else: by turns of every kind that there is.
    async fn say(&mut self) {
        self.said += 1;
        let mark = self.mark();
        let text = json!({"msgtype": "m.text", "body": mark});
        let message = "m.room.message";
        let (kind, rel_type, parent, mut content) = match self.said % 6 {
            0 => (message, "m.reference", &self.oldest, text),
            1 | 4 => (message, "m.thread", &self.top, text),
            2 => (message, "m.replace", &self.top, json!({"msgtype": "m.text", "body": mark, "m.new_content": text})),
            3 => ("m.reaction", "m.annotation", &self.oldest, json!({})),
            _ if self.said % 12 == 5 => (message, "m.thread", &self.oldest, text),
            _ => (message, "m.reference", &self.newest, text),
        };
        content["m.relates_to"] = json!({"rel_type": rel_type, "event_id": parent});
        if kind == "m.reaction" {
            content["m.relates_to"]["key"] = json!(mark);
        }
        self.newest = self.send(kind, &mark, content).await;
    }

    /// The creator says something that is no child.
    async fn begin_thread(&mut self) {
        let mark = self.mark();
        let content = json!({"msgtype": "m.text", "body": mark});
        self.newest = self.send("m.room.message", &mark, content).await;
        self.top.clone_from(&self.newest);
    }

    async fn send(&self, kind: &str, mark: &str, content: Value) -> String {
        self.tick();
        let path = in_room(&self.room, &format!("send/{kind}/{}", mark.replace("mark", "txn")));
        let sent = self.world.put(&path, self.person("creator"), content).await.ok();
        sent["event_id"].as_str().unwrap().to_owned()
    }

    async fn set(&self, kind: &str, field: &str) {
        self.put(kind, "", json!({field: self.mark()})).await;
    }

    async fn put(&self, kind: &str, key: &str, content: Value) {
        self.tick();
        let path = in_room(&self.room, &format!("state/{kind}/{}", pct(key)));
        self.world.put(&path, self.person("creator"), content).await.ok();
    }

    async fn act(&self, by: &str, what: &str, whom: &str) {
        self.tick();
        let body = json!({"user_id": self.person(whom).id, "reason": self.mark()});
        self.world.post(&in_room(&self.room, what), self.person(by), body).await.ok();
    }

    async fn everybody_syncs(&mut self) {
        let mut tokens = BTreeMap::new();
        for name in READERS {
            let answer = self.world.get("/sync", self.person(name)).await.ok();
            tokens.insert(name, answer["next_batch"].as_str().unwrap().to_owned());
        }
        let mut slides = BTreeMap::new();
        for name in READERS {
            let body = super::sliding::body(self, self.slides.len(), 3);
            let answer = super::sliding::ask(self, self.person(name), body).await;
            slides.insert(name, answer["pos"].as_str().unwrap().to_owned());
        }
        self.slides.push(slides);
        let mut count = 0;
        if !self.room.is_empty() {
            let path = in_room(&self.room, "messages?dir=f&limit=1000");
            let page = self.world.get(&path, self.person("creator")).await.ok();
            count = page["chunk"].as_array().unwrap().len();
        }
        self.tokens.push((count, tokens));
    }

    /// Nothing is shown by `/sync` before its counts are known: waits until all is.
    async fn everything_is_counted(&self) {
        let creator = self.person("creator");
        for _ in 0..100 {
            let answer = self.world.get("/sync", creator).await.ok();
            let events = &answer["rooms"]["join"][&self.room]["timeline"]["events"];
            if events.as_array().and_then(|events| events.last()).is_some_and(|last| last["event_id"] == self.newest) {
                return;
            }
            let since = answer["next_batch"].as_str().unwrap();
            self.world.get(&format!("/sync?since={since}&timeout=100"), creator).await.ok();
        }
        panic!("the newest event does not come");
    }
}
