//! A room whose policy server is the hostile one: what local users send.

use hearth_test_harness::{Answer, Asked, Config, Hostile, POLICY_KEY_ID, PolicyKey, Reply, pct};
use serde_json::{Value, json};

use super::scene::{Scene, Shared};
use crate::people::{Person, field};

pub(super) const VERSION: u8 = 11;
const SIGN: &str = "/_matrix/policy/v1/sign";

/// A room that both servers are in and whose policy server is the hostile one.
pub(super) struct Policed {
    pub(super) scene: Scene,
    pub(super) shared: Shared,
    pub(super) key: PolicyKey,
}

impl Policed {
    /// One that signs everything.
    pub(super) async fn new() -> Self {
        let scene = Scene::with(Config::open()).await;
        let shared = scene.room(VERSION).await;
        let mut policed = Self { scene, shared, key: PolicyKey::fresh() };
        policed.signs();
        let content = policed.key.content(policed.scene.mal.name());
        policed.names(&content).await;
        assert_eq!(policed.questions().len(), 0, "the event that names it is not asked about");
        policed
    }

    /// From now on everything is signed.
    pub(super) fn signs(&self) {
        let (key, via) = (self.key.clone(), self.scene.mal.name().to_owned());
        self.answers(move |asked| Reply::json(&key.answer(&via, &asked.body, VERSION)));
    }

    /// From now on this is answered.
    pub(super) fn answers(&self, reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        self.scene.mal.script(move |asked| (asked.path == SIGN).then(|| reply(asked)));
    }

    /// The room's policy event is made this.
    pub(super) async fn names(&mut self, content: &Value) {
        let id = self.shared.alice.set_state(&self.shared.room.id, "m.room.policy", "", content).await;
        self.shared.follow(&self.scene.mal, &id).await;
    }

    /// What the policy server was asked so far.
    pub(super) fn questions(&self) -> Vec<Asked> {
        asked(&self.scene.mal)
    }

    /// Whether the event carries its signature.
    pub(super) fn has_signed(&self, event: &Value) -> bool {
        self.key.is_on(event, self.scene.mal.name(), VERSION)
    }

    /// The event as the hostile server got it.
    async fn got(&mut self, id: &str) -> Value {
        self.shared.follow(&self.scene.mal, id).await;
        self.shared.room.events[id].json()
    }

    /// Nothing of what contains `words` is in the room or was told to others.
    async fn nothing_came_of(&mut self, words: &str) {
        self.signs();
        let last = self.shared.alice.say(&self.shared.room.id, "the last one").await;
        self.got(&last).await;
        let told = self.scene.mal.asked("/send/");
        assert!(!told.iter().any(|told| told.body.to_string().contains(words)), "{words} was told to others");
        let path = format!("/rooms/{}/messages?dir=b&limit=100", pct(&self.shared.room.id));
        let page = self.shared.alice.get(&path).await.expect_status(200).expect("the room can be read").body;
        assert!(!page.to_string().contains(words), "{words} is in the history: {page}");
        let path = format!("/rooms/{}/state", pct(&self.shared.room.id));
        let state = self.shared.alice.get(&path).await.expect_status(200).expect("the room can be read").body;
        assert!(!state.to_string().contains(words), "{words} is in the state: {state}");
    }

    async fn send(&self, transaction: &str, text: &str) -> Answer {
        send(&self.shared.alice, &self.shared.room.id, transaction, text).await
    }

    pub(super) async fn end(self) {
        self.scene.end().await;
    }
}

pub(super) fn asked(server: &Hostile) -> Vec<Asked> {
    server.asked(SIGN)
}

async fn send(person: &Person, room: &str, transaction: &str, text: &str) -> Answer {
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{transaction}", pct(room));
    let body = json!({"msgtype": "m.text", "body": text});
    person.side.api.put(&path).by(&person.user).json(&body).send().await
}

#[tokio::test]
async fn what_users_do_carries_the_signature_of_the_policy_server() {
    let mut policed = Policed::new().await;
    let side = policed.scene.side();
    let (room, bob) = (policed.shared.room.id.clone(), side.person("bob").await);
    let member = ("m.room.member".to_owned(), bob.id().to_owned());
    let mut done = vec![policed.shared.alice.say(&room, "hello").await];
    done.push(policed.shared.alice.set_state(&room, "m.room.topic", "", &json!({"topic": "policies"})).await);
    // Not the event that names the policy server, although of its type.
    done.push(policed.shared.alice.set_state(&room, "m.room.policy", "other", &json!({})).await);
    policed.shared.alice.does("invite", &room, &bob).await;
    done.push(policed.shared.alice.state(&room).await.expect("readable")[&member].clone());
    bob.join(&room, &side).await;
    done.push(policed.shared.alice.state(&room).await.expect("readable")[&member].clone());
    policed.shared.alice.sees(&room, &done[0]).await;
    done.push(policed.shared.alice.redact(&room, &done[0]).await);
    policed.shared.alice.sees_redacted(&room, &done[0]).await;
    policed.shared.alice.does("kick", &room, &bob).await;
    done.push(policed.shared.alice.state(&room).await.expect("readable")[&member].clone());
    let upgrade = json!({"new_version": "11"});
    let path = format!("/rooms/{}/upgrade", pct(&room));
    policed.shared.alice.post(&path, &upgrade).await.expect_status(200).expect("an upgrade");
    let state = policed.shared.alice.state(&room).await.expect("readable");
    done.push(state[&("m.room.tombstone".to_owned(), String::new())].clone());
    let name = policed.scene.name();
    for id in &done {
        let event = policed.got(id).await;
        assert!(policed.has_signed(&event), "{event}");
        assert!(event["signatures"][&name].is_object(), "the sender's signature stays: {event}");
    }
    let questions = policed.questions();
    for id in &done {
        let about = questions.iter().filter(|asked| policed.shared.room.received(&asked.body).id == *id);
        let about: Vec<_> = about.collect();
        assert_eq!(about.len(), 1, "asked once about {id}");
        assert!(about[0].body["signatures"][&name].is_object(), "{}", about[0].body);
        assert!(about[0].authorization.starts_with("X-Matrix "));
        assert_eq!(about[0].method, "POST");
    }
    policed.end().await;
}

#[tokio::test]
async fn a_transaction_is_sent_once_and_messages_keep_their_order() {
    let mut policed = Policed::new().await;
    let first = field(&policed.send("once", "once").await.expect_status(200).expect("sent").body, "event_id");
    let again: Vec<_> = (0..4).map(|_| policed.send("once", "once")).collect();
    for answer in futures::future::join_all(again).await {
        assert_eq!(field(&answer.expect_status(200).expect("sent").body, "event_id"), first);
    }
    let together: Vec<_> = (0..4).map(|_| policed.send("together", "together")).collect();
    let together = futures::future::join_all(together).await;
    let ids: std::collections::BTreeSet<_> =
        together.into_iter().map(|answer| field(&answer.expect_status(200).expect("sent").body, "event_id")).collect();
    assert_eq!(ids.len(), 1);
    policed.scene.restart().await;
    let again = policed.send("once", "once").await.expect_status(200).expect("sent");
    assert_eq!(field(&again.body, "event_id"), first, "also after a crash");
    let shown = policed.shared.alice.sees(&policed.shared.room.id, &first).await;
    assert_eq!(shown["unsigned"]["transaction_id"], "once", "{shown}");
    for words in ["once", "together"] {
        let about = policed.questions().into_iter().filter(|asked| asked.body["content"]["body"] == words).count();
        assert_eq!(about, 1, "{words}");
    }
    let mut sent = Vec::new();
    for n in 0..10 {
        sent.push(policed.shared.alice.say(&policed.shared.room.id, &n.to_string()).await);
    }
    let path = format!("/rooms/{}/messages?dir=b&limit=10", pct(&policed.shared.room.id));
    let page = policed.shared.alice.get(&path).await.expect_status(200).expect("readable").body;
    let mut shown: Vec<String> =
        page["chunk"].as_array().expect("a list").iter().map(|event| field(event, "event_id")).collect();
    shown.reverse();
    assert_eq!(shown, sent);
    policed.end().await;
}

#[tokio::test]
async fn what_the_policy_server_refuses_is_not_sent_and_the_client_is_told_why() {
    let mut policed = Policed::new().await;
    let room = policed.shared.room.id.clone();
    for (n, (status, errcode, told)) in [
        (400, "M_FORBIDDEN", "M_FORBIDDEN"),
        (400, "M_BAD_JSON", "M_BAD_JSON"),
        (400, "ORG.EXAMPLE_SPAM", "ORG.EXAMPLE_SPAM"),
        (403, "M_FORBIDDEN", "M_FORBIDDEN"),
        (404, "M_NOT_FOUND", "M_NOT_FOUND"),
        (404, "M_UNRECOGNIZED", "M_UNRECOGNIZED"),
        // A client would log out.
        (403, "M_UNKNOWN_TOKEN", "M_FORBIDDEN"),
    ]
    .into_iter()
    .enumerate()
    {
        policed.answers(move |_| Reply::error(status, errcode));
        let before = policed.questions().len();
        let answer = policed.send(&format!("refused{n}"), "refused words").await;
        assert_eq!((answer.status, answer.errcode()), (status, told), "{}", answer.text);
        assert_eq!(answer.body["error"], "because");
        assert_eq!(policed.questions().len(), before + 1, "asked once");
    }
    let slow =
        json!({"errcode": "M_LIMIT_EXCEEDED", "error": "slow down", "retry_after_ms": 1234, "soft_logout": true});
    policed.answers(move |_| Reply::text(429, slow.to_string()));
    let answer = policed.send("limited", "refused words").await;
    assert_eq!((answer.status, answer.errcode()), (429, "M_LIMIT_EXCEEDED"), "{}", answer.text);
    assert_eq!((&answer.body["error"], &answer.body["retry_after_ms"]), (&json!("slow down"), &json!(1234)));
    assert!(answer.body.get("soft_logout").is_none());
    policed.answers(|_| Reply::error(400, "M_FORBIDDEN"));
    let topic = format!("/_matrix/client/v3/rooms/{}/state/m.room.topic/", pct(&room));
    let alice = &policed.shared.alice;
    let answer = alice.side.api.put(&topic).by(&alice.user).json(&json!({"topic": "refused words"})).send().await;
    assert_eq!((answer.status, answer.errcode()), (400, "M_FORBIDDEN"), "{}", answer.text);
    let bob = policed.scene.side().person("bob").await;
    let join = bob.post(&format!("/join/{}", pct(&room)), &json!({"reason": "refused words"})).await;
    assert_eq!((join.status, &join.body["error"]), (400, &json!("because")), "{}", join.text);
    policed.nothing_came_of("refused words").await;
    // What was refused is not remembered: the same transaction may be tried again.
    let answer = policed.send("refused0", "other words").await.expect_status(200).expect("it is signed now");
    let event = policed.got(&field(&answer.body, "event_id")).await;
    assert!(policed.has_signed(&event), "{event}");
    policed.end().await;
}

#[tokio::test]
async fn without_a_signature_nothing_is_sent_until_the_policy_server_is_switched_off() {
    let mut policed = Policed::new().await;
    let (room, mal) = (policed.shared.room.id.clone(), policed.scene.mal.clone());
    let named = |name: &str, signature: String| json!({name: {POLICY_KEY_ID: signature}});
    let key = PolicyKey::fresh();
    let own = mal.name().to_owned();
    policed.answers(move |asked| Reply::json(&key.answer(&own, &asked.body, VERSION)));
    let answer = policed.send("other key", "unsigned words").await;
    assert_eq!((answer.status, answer.errcode()), (502, "M_UNKNOWN"), "by another key: {}", answer.text);
    let (key, other) = (policed.key.clone(), "other.test".to_owned());
    policed.answers(move |asked| Reply::json(&key.answer(&other, &asked.body, VERSION)));
    assert_eq!(policed.send("other name", "unsigned words").await.status, 502, "under another name");
    let (key, own) = (policed.key.clone(), mal.name().to_owned());
    policed.answers(move |asked| {
        let mut other = asked.body.clone();
        other["depth"] = json!(1);
        Reply::json(&key.answer(&own, &other, VERSION))
    });
    assert_eq!(policed.send("other event", "unsigned words").await.status, 502, "of another event");
    for (what, reply) in [
        ("nothing", Reply::json(&json!({}))),
        ("a list", Reply::json(&json!([]))),
        ("no signature", Reply::json(&named(mal.name(), "x".repeat(86)))),
        ("a long one", Reply::json(&named(mal.name(), "x".repeat(50_000)))),
        ("no JSON", Reply::text(200, "<html>")),
        ("without end", Reply::endless("{\"a\":")),
        ("a failure", Reply::error(500, "M_UNKNOWN")),
        ("another place", Reply::text(302, "").header("location", "https://127.0.0.3/")),
        ("who are you", Reply::error(401, "M_UNKNOWN_TOKEN")),
        ("silence", Reply::silence()),
    ] {
        policed.answers(move |_| reply.clone());
        let answer = policed.send(&pct(what), "unsigned words").await;
        assert_eq!((answer.status, answer.errcode()), (502, "M_UNKNOWN"), "{what}: {}", answer.text);
    }
    // The policy server says nothing, and the event that ends it gets through.
    let before = policed.questions().len();
    policed.shared.alice.set_state(&room, "m.room.policy", "", &json!({})).await;
    let said = policed.shared.alice.say(&room, "free at last").await;
    assert_eq!(policed.questions().len(), before, "nobody is asked any more");
    let event = policed.got(&said).await;
    assert!(event["signatures"].get(mal.name()).is_none(), "{event}");
    policed.nothing_came_of("unsigned words").await;
    policed.end().await;
}

#[tokio::test]
async fn who_is_invited_elsewhere_sees_a_signed_invitation() {
    let mut policed = Policed::new().await;
    let room = policed.shared.room.id.clone();
    let eve = Hostile::start();
    let server = eve.clone();
    eve.script(move |asked| {
        let is_invite = asked.path.starts_with("/_matrix/federation/v2/invite/");
        is_invite.then(|| Reply::json(&json!({"event": server.countersigned(&asked.body["event"], VERSION)})))
    });
    let invite = json!({"user_id": eve.user("eve")});
    let path = format!("/rooms/{}/invite", pct(&room));
    policed.answers(|_| Reply::error(400, "M_FORBIDDEN"));
    let refused = policed.shared.alice.post(&path, &invite).await;
    assert_eq!((refused.status, &refused.body["error"]), (400, &json!("because")), "{}", refused.text);
    assert!(eve.asked("/invite/").is_empty(), "nobody is told of an invitation that the policy server refuses");
    policed.signs();
    policed.shared.alice.post(&path, &invite).await.expect_status(200).expect("an invitation");
    let shown = eve.asked("/invite/");
    assert_eq!(shown.len(), 1);
    assert!(policed.has_signed(&shown[0].body["event"]), "{}", shown[0].body);
    let state = policed.shared.alice.state(&room).await.expect("readable");
    let event = policed.got(&state[&("m.room.member".to_owned(), eve.user("eve"))]).await;
    assert!(policed.has_signed(&event) && event["signatures"][eve.name()].is_object(), "{event}");
    policed.end().await;
}

#[tokio::test]
async fn what_names_no_policy_server_that_could_be_asked_changes_nothing() {
    let mut policed = Policed::new().await;
    let (room, eve) = (policed.shared.room.id.clone(), Hostile::start());
    let mal = policed.scene.mal.clone();
    policed.answers(|_| Reply::error(400, "M_FORBIDDEN"));
    let good = policed.key.content(mal.name());
    let with = |key: &str, value: Value| {
        let mut content = good.clone();
        content[key] = value;
        content
    };
    for content in [
        // Nobody of that server is in the room.
        policed.key.content(eve.name()),
        policed.key.content("not a name"),
        with("via", json!(null)),
        with("via", json!([mal.name()])),
        with("public_keys", json!({})),
        with("public_keys", json!({"ed25519": 7})),
        with("public_keys", json!([good["public_keys"]["ed25519"]])),
    ] {
        policed.names(&content).await;
        policed.shared.alice.say(&room, "nobody is asked").await;
        let event = policed.shared.room.message(&policed.shared.mallory, "nor about this");
        let event = policed.shared.room.send(&mal, &event);
        policed.scene.deliver(&event).await;
        policed.shared.alice.sees(&room, &event.id).await;
    }
    // And this server is none.
    let content = policed.key.content(&policed.scene.name());
    policed.names(&content).await;
    let answer = policed.send("own", "by ourselves").await;
    assert_eq!((answer.status, answer.errcode()), (502, "M_UNKNOWN"), "{}", answer.text);
    let event = policed.shared.room.message(&policed.shared.mallory, "signed by whoever has the key").sign(&mal);
    let event = policed.key.add_to(&event, &policed.scene.name(), VERSION);
    policed.scene.deliver(&event).await;
    policed.shared.alice.sees(&room, &event.id).await;
    assert!(policed.questions().is_empty() && asked(&eve).is_empty());
    policed.end().await;
}
