//! Threads: receipts and counts of their own, and that no count is remembered for too long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_accounts::Requester;
use hearth_rooms::{NewReceipt, ReceiptError, ReceiptThread};
use hearth_schema::ReceiptKind;
use proptest::prelude::*;
use ruma_common::OwnedRoomId;
use serde_json::{Value, json};

use crate::SyncRequest;
use crate::testing::*;

const APART: &str = r#"{"room":{"timeline":{"unread_thread_notifications":true,"limit":1}}}"#;
const TOGETHER: &str = r#"{"room":{"timeline":{"limit":1}}}"#;

/// A room in which people talk in threads.
struct Talk {
    world: Arc<World>,
    room_id: OwnedRoomId,
}

impl Talk {
    async fn say(&self, sender: &Requester, relation: Option<(&str, &str)>, mention: Option<&Requester>) -> String {
        let mut content = json!({ "msgtype": "m.text", "body": "x", "m.mentions": {} });
        if let Some((rel_type, parent)) = relation {
            content["m.relates_to"] = json!({ "rel_type": rel_type, "event_id": parent });
        }
        if let Some(mention) = mention {
            content["m.mentions"] = json!({ "user_ids": [mention.user_id] });
        }
        self.world.event(&self.room_id, sender, ("m.room.message", None), content).await
    }

    async fn read(&self, reader: &Requester, event_id: &str, thread: Option<&str>) -> Result<(), ReceiptError> {
        let thread = thread.map(|thread| match thread {
            "main" => ReceiptThread::Main,
            root => ReceiptThread::Root(root.try_into().expect("an event ID")),
        });
        let receipt = NewReceipt {
            room_id: self.room_id.clone(),
            user_id: reader.user_id.clone(),
            kind: ReceiptKind::Read,
            thread,
            event_id: event_id.try_into().expect("an event ID"),
        };
        self.world.rooms.set_receipt(&receipt).await
    }

    /// The room in a first answer.
    async fn room(&self, reader: &Requester, filter: &str) -> Value {
        joined(&self.world.now(reader, None, filter).await, &self.room_id).clone()
    }

    /// Notifications and highlights: of everything, of the main timeline, of each thread.
    async fn counts(&self, reader: &Requester) -> (Pair, Pair, BTreeMap<String, Pair>) {
        let (all, apart) = (self.room(reader, TOGETHER).await, self.room(reader, APART).await);
        assert!(all["unread_thread_notifications"].is_null(), "not asked for");
        let threads = apart["unread_thread_notifications"].as_object().into_iter().flatten();
        let threads = threads.map(|(root, counts)| (root.clone(), pair(counts))).collect();
        (pair(&all["unread_notifications"]), pair(&apart["unread_notifications"]), threads)
    }
}

type Pair = (u64, u64);

fn pair(counts: &Value) -> Pair {
    let number = |key: &str| counts[key].as_u64().unwrap_or_else(|| panic!("{key} in {counts}"));
    (number("notification_count"), number("highlight_count"))
}

async fn talk(names: &[&str]) -> (Talk, Vec<Requester>) {
    let world = World::new();
    let mut people = Vec::new();
    for name in names {
        people.push(world.user(name).await);
    }
    let others: Vec<&Requester> = people[1..].iter().collect();
    let room_id = world.room(&people[0], &others).await;
    (Talk { world: Arc::new(world), room_id }, people)
}

fn threads<const N: usize>(expected: [(&str, Pair); N]) -> BTreeMap<String, Pair> {
    expected.into_iter().map(|(root, pair)| (root.to_owned(), pair)).collect()
}

#[tokio::test]
async fn threads_are_counted_and_read_apart() {
    let (talk, people) = talk(&["ann", "bob"]).await;
    let (ann, bob) = (&people[0], &people[1]);
    let root = talk.say(ann, None, None).await;
    let first = talk.say(ann, Some(("m.thread", &root)), None).await;
    talk.say(ann, Some(("m.thread", &root)), Some(bob)).await;
    let mention = talk.say(ann, None, Some(bob)).await;
    let last = talk.say(ann, Some(("m.thread", &root)), None).await;
    let reference = talk.say(ann, Some(("m.reference", &root)), None).await;
    let reply = talk.say(ann, Some(("m.reference", &last)), None).await;
    assert_eq!(talk.counts(bob).await, ((7, 2), (3, 1), threads([(&root, (4, 1))])), "relations lead to the thread");

    talk.read(bob, &root, Some("main")).await.expect("the root is in the main timeline");
    assert_eq!(talk.counts(bob).await, ((6, 2), (2, 1), threads([(&root, (4, 1))])));
    talk.read(bob, &first, Some(&root)).await.expect("in the thread");
    assert_eq!(talk.counts(bob).await, ((5, 2), (2, 1), threads([(&root, (3, 1))])));
    let receipts = talk.room(ann, TOGETHER).await["ephemeral"]["events"].clone();
    assert_eq!(receipts.as_array().map(Vec::len), Some(1), "{receipts}");
    assert_eq!(receipts[0]["content"][&root]["m.read"][bob.user_id.as_str()]["thread_id"], "main");
    assert_eq!(receipts[0]["content"][&first]["m.read"][bob.user_id.as_str()]["thread_id"], json!(root));

    talk.read(bob, &mention, None).await.expect("unthreaded");
    assert_eq!(talk.counts(bob).await, ((3, 0), (1, 0), threads([(&root, (2, 0))])), "in every thread");
    talk.read(bob, &reference, Some(&root)).await.expect("it relates to the root");
    assert_eq!(talk.counts(bob).await, ((2, 0), (1, 0), threads([(&root, (1, 0))])), "the main timeline is not read");
    talk.read(bob, &first, Some(&root)).await.expect("nothing");
    assert_eq!(talk.counts(bob).await, ((2, 0), (1, 0), threads([(&root, (1, 0))])), "no receipt moves backwards");
    talk.say(bob, Some(("m.thread", &root)), None).await;
    assert_eq!(talk.counts(bob).await, ((1, 0), (1, 0), threads([])), "who speaks in a thread has read it");
    talk.read(bob, &reply, None).await.expect("unthreaded");
    assert_eq!(talk.counts(bob).await, ((0, 0), (0, 0), threads([])));
}

#[tokio::test]
async fn a_receipt_belongs_to_the_thread_of_its_event() {
    let (talk, people) = talk(&["ann", "bob"]).await;
    let (ann, bob) = (&people[0], &people[1]);
    let (root, other) = (talk.say(ann, None, None).await, talk.say(ann, None, None).await);
    let reply = talk.say(ann, Some(("m.thread", &root)), None).await;
    let far = talk.say(ann, Some(("m.thread", &other)), None).await;
    for (event, thread) in [
        (&reply, "main"),
        (&reply, other.as_str()),
        (&far, root.as_str()),
        (&other, root.as_str()),
        (&root, reply.as_str()),
        (&root, "$unknown"),
    ] {
        let refused = talk.read(bob, event, Some(thread)).await;
        assert!(matches!(refused, Err(ReceiptError::NotInThread)), "{event} in {thread}: {refused:?}");
    }
    assert_eq!(talk.counts(bob).await.0, (4, 0), "nothing was stored");
    talk.read(bob, &root, Some(&root)).await.expect("clients do that when they open a thread");
}

#[tokio::test]
async fn a_receipt_without_a_thread_says_it_all() {
    let (talk, people) = talk(&["ann", "bob"]).await;
    let (ann, bob) = (&people[0], &people[1]);
    let root = talk.say(ann, None, None).await;
    let reply = talk.say(ann, Some(("m.thread", &root)), None).await;
    talk.read(bob, &reply, None).await.expect("a receipt");
    talk.read(bob, &reply, Some(&root)).await.expect("a receipt");
    talk.read(ann, &root, Some("main")).await.expect("a receipt");
    talk.read(ann, &root, Some(&root)).await.expect("a receipt");
    let shown = talk.room(ann, TOGETHER).await;
    let events = shown["ephemeral"]["events"].as_array().expect("events");
    let of = |event: &Value, id: &str, who: &Requester| event["content"][id]["m.read"][who.user_id.as_str()].clone();
    assert_eq!(events.len(), 2, "one place for one event: {events:?}");
    assert!(of(&events[0], &reply, bob)["ts"].is_u64());
    assert!(of(&events[0], &reply, bob)["thread_id"].is_null());
    assert!(of(&events[1], &reply, bob).is_null());
    let mut of_root = events.iter().map(|event| of(event, &root, ann)["thread_id"].clone()).collect::<Vec<_>>();
    of_root.sort_by_key(ToString::to_string);
    assert_eq!(of_root, [json!(root), json!("main")]);
}

#[tokio::test]
async fn all_devices_see_counts_fall_and_each_receipt_once() {
    let (talk, people) = talk(&["ann", "bob"]).await;
    let (ann, bob) = (&people[0], &people[1]);
    let phone = Requester { client: "PHONE".into(), ..bob.clone() };
    let event_id = talk.say(ann, None, None).await;
    let mut since = Vec::new();
    for device in [bob, &phone, ann] {
        since.push(next(&talk.world.now(device, None, LAZY).await));
    }
    talk.read(bob, &event_id, None).await.expect("a receipt");
    for (device, since) in [bob, &phone, ann].into_iter().zip(since) {
        let request = SyncRequest { since: Some(&since), filter: Some(LAZY), timeout: LONG, ..SyncRequest::default() };
        let answer = talk.world.ask(device, &request).await;
        let room = joined(&answer, &talk.room_id);
        assert_eq!(pair(&room["unread_notifications"]), (0, 0));
        let receipts = &room["ephemeral"]["events"];
        assert_eq!(receipts.as_array().map(Vec::len), Some(1));
        assert!(receipts[0]["content"][&event_id]["m.read"][bob.user_id.as_str()].is_object());
        assert_eq!(room["state"]["events"], json!([]), "a receipt names users, and needs no member events");
        let again = talk.world.now(device, Some(&next(&answer)), LAZY).await;
        assert!(again["rooms"].is_null(), "{again}");
    }
}

/// What somebody does.
#[derive(Clone, Debug)]
enum Step {
    /// Who speaks, in which thread (`None`: outside), who is mentioned.
    Say(usize, Option<usize>, Option<usize>),
    /// Who reads which event, with the event's thread or without.
    Read(usize, prop::sample::Index, Threaded),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Threaded {
    Yes,
    No,
}

fn step() -> impl Strategy<Value = Step> {
    let person = || 0..PEOPLE.len();
    let say = (person(), prop::option::of(0..ROOTS), prop::option::weighted(0.3, person()));
    let threaded = prop::sample::select(vec![Threaded::Yes, Threaded::No]);
    prop_oneof![
        3 => say.prop_map(|(who, thread, mention)| Step::Say(who, thread, mention)),
        2 => (person(), any::<prop::sample::Index>(), threaded).prop_map(|(who, event, how)| Step::Read(who, event, how)),
    ]
}

const PEOPLE: [&str; 3] = ["ann", "bob", "cid"];
const ROOTS: usize = 2;

/// Counts from scratch, by the words of the specification.
#[derive(Default)]
struct Model {
    events: Vec<Said>,
    /// By reader: how many events are read, in all threads.
    all: [usize; 3],
    /// By reader and thread.
    apart: BTreeMap<(usize, Option<usize>), usize>,
}

struct Said {
    id: String,
    who: usize,
    thread: Option<usize>,
    mention: Option<usize>,
}

impl Model {
    fn read(&mut self, who: usize, event: usize, threaded: Threaded) {
        let read_to = match threaded {
            Threaded::No => &mut self.all[who],
            Threaded::Yes => self.apart.entry((who, self.events[event].thread)).or_default(),
        };
        *read_to = (*read_to).max(event + 1);
    }

    fn unread(&self, who: usize, of: impl Fn(Option<usize>) -> bool) -> Pair {
        let mut counts = (0, 0);
        for (at, said) in self.events.iter().enumerate().filter(|(_, said)| of(said.thread)) {
            let apart = self.apart.get(&(who, said.thread)).copied().unwrap_or(0);
            if at >= self.all[who].max(apart) && said.who != who {
                counts.0 += 1;
                counts.1 += u64::from(said.mention == Some(who));
            }
        }
        counts
    }
}

/// Does `steps` while everybody's devices poll, and compares every answer that follows one of them.
async fn converse(steps: Vec<Step>) {
    let (talk, people) = talk(&PEOPLE).await;
    let talk = Arc::new(talk);
    let mut model = Model::default();
    for _ in 0..ROOTS {
        let id = talk.say(&people[0], None, None).await;
        model.events.push(Said { id, who: 0, thread: None, mention: None });
        model.read(0, model.events.len() - 1, Threaded::Yes);
    }
    let roots: Vec<String> = model.events.iter().map(|said| said.id.clone()).collect();
    for (thread, root) in roots.iter().enumerate() {
        let id = talk.say(&people[0], Some(("m.thread", root)), None).await;
        model.events.push(Said { id, who: 0, thread: Some(thread), mention: None });
        model.read(0, model.events.len() - 1, Threaded::Yes);
    }
    let done = Arc::new(AtomicBool::new(false));
    let polls: Vec<_> =
        people.iter().map(|who| tokio::spawn(poll(Arc::clone(&talk), who.clone(), Arc::clone(&done)))).collect();
    for step in steps {
        match step {
            Step::Say(who, thread, mention) => {
                let mention = mention.filter(|mention| *mention != who);
                let relation = thread.map(|root| ("m.thread", roots[root].as_str()));
                let id = talk.say(&people[who], relation, mention.map(|mention| &people[mention])).await;
                model.events.push(Said { id, who, thread, mention });
                model.read(who, model.events.len() - 1, Threaded::Yes);
            }
            Step::Read(who, event, threaded) => {
                let event = event.index(model.events.len());
                let said = &model.events[event];
                let thread = said.thread.map_or("main", |root| &roots[root]);
                talk.read(&people[who], &said.id, Some(thread).filter(|_| threaded == Threaded::Yes))
                    .await
                    .expect("read");
                model.read(who, event, threaded);
            }
        }
        for (who, person) in people.iter().enumerate() {
            let of = |root: usize| (roots[root].clone(), model.unread(who, |thread| thread == Some(root)));
            let apart = (0..ROOTS).map(of).filter(|(_, counts)| *counts != (0, 0)).collect();
            let expected = (model.unread(who, |_| true), model.unread(who, |thread| thread.is_none()), apart);
            assert_eq!(talk.counts(person).await, expected, "{} after {step:?}", PEOPLE[who]);
        }
    }
    done.store(true, Ordering::Release);
    for poll in polls {
        poll.await.expect("no panic");
    }
}

/// Another device, that fills what is remembered at the worst moments.
async fn poll(talk: Arc<Talk>, who: Requester, done: Arc<AtomicBool>) {
    let mut since = next(&talk.world.now(&who, None, APART).await);
    while !done.load(Ordering::Acquire) {
        let timeout = Duration::from_millis(5);
        let request = SyncRequest { since: Some(&since), filter: Some(APART), timeout, ..SyncRequest::default() };
        since = next(&talk.world.ask(&who, &request).await);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn counts_are_true_whatever_is_said_and_read(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(converse(steps));
    }
}
