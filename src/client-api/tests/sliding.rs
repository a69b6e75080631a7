//! Simplified sliding sync, and the threads that a user follows.

use tokio::time::timeout;

use super::*;

const SYNC: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
const FOLLOWED: &str = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions";
const THREADS: &str = "io.element.msc4308.thread_subscriptions";

async fn slide(world: &World, by: &Person, query: &str, body: Value) -> Answer {
    world.raw(Method::POST, &format!("{SYNC}{query}"), Some(by), body.to_string()).await
}

fn pos(answer: &Value) -> String {
    answer["pos"].as_str().expect("a position").to_owned()
}

async fn say(world: &World, room: &str, by: &Person, txn: usize) -> String {
    let sent = world.put(&in_room(room, &format!("send/m.room.message/{txn}")), by, json!({"body": "x"})).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

async fn follow(world: &World, by: &Person, (room, top): (&str, &str), method: Method) {
    let base = "/_matrix/client/unstable/io.element.msc4306/rooms";
    let path = format!("{base}/{}/thread/{}/subscription", pct(room), pct(top));
    world.raw(method, &path, Some(by), "{}").await.ok();
}

/// An answer about threads, of a connection that goes on from `pos`.
async fn threads(world: &World, by: &Person, pos: Option<&str>, limit: Option<u64>) -> (String, Value) {
    let mut body = json!({"extensions": {THREADS: {"enabled": true}}});
    if let Some(pos) = pos {
        body["pos"] = json!(pos);
    }
    if let Some(limit) = limit {
        body["extensions"][THREADS]["limit"] = json!(limit);
    }
    let answer = slide(world, by, "", body).await.ok();
    (self::pos(&answer), answer["extensions"][THREADS].clone())
}

/// Roots of threads in an answer about them.
fn roots(threads: &Value, of: &str, room: &str) -> BTreeSet<String> {
    threads[of][room].as_object().into_iter().flatten().map(|(top, _)| top.clone()).collect()
}

fn set(roots: &[&String]) -> BTreeSet<String> {
    roots.iter().map(|top| (*top).clone()).collect()
}

#[tokio::test]
async fn followed_threads_come_first_and_then_as_they_change() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let top = say(&world, &room, &ann, 1).await;
    let (first, found) = threads(&world, &ann, None, Some(2)).await;
    assert_eq!(found, Value::Null);
    follow(&world, &ann, (&room, &top), Method::PUT).await;
    for _ in 0..2 {
        // An answer that was lost comes again.
        let (_, found) = threads(&world, &ann, Some(&first), Some(2)).await;
        let subscribed = &found["subscribed"][&room][&top];
        assert!(subscribed["bump_stamp"].is_u64() && subscribed["automatic"] == json!(false), "{found}");
    }
    let (second, found) = threads(&world, &ann, None, Some(2)).await;
    let followed = found["subscribed"][&room][&top]["bump_stamp"].as_u64();
    assert!(followed.is_some(), "a new connection begins anew: {found}");
    follow(&world, &ann, (&room, &top), Method::DELETE).await;
    let (third, found) = threads(&world, &ann, Some(&second), None).await;
    assert!(found["unsubscribed"][&room][&top]["bump_stamp"].as_u64() > followed, "{found}");
    assert!(found.get("subscribed").is_none() && found.get("prev_batch").is_none(), "{found}");
    assert_eq!(threads(&world, &ann, Some(&third), None).await.1, Value::Null, "it has arrived");
    let old = slide(&world, &ann, &format!("?pos={second}"), json!({})).await;
    assert_eq!(old.verdict(), (400, "M_UNKNOWN_POS"));
}

#[tokio::test]
async fn what_does_not_fit_into_an_answer_is_fetched_in_pages() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let mut all = Vec::new();
    for txn in 0..5 {
        let top = say(&world, &room, &ann, txn).await;
        follow(&world, &ann, (&room, &top), Method::PUT).await;
        all.push(top);
    }
    follow(&world, &ann, (&room, &all[0]), Method::DELETE).await;
    let (seen, found) = threads(&world, &ann, None, Some(2)).await;
    assert_eq!(roots(&found, "unsubscribed", &room), set(&[&all[0]]), "the newest decision");
    assert_eq!(roots(&found, "subscribed", &room), set(&[&all[4]]));
    let page = async |query: String| {
        let answer = world.raw(Method::GET, &format!("{FOLLOWED}?{query}"), Some(&ann), "").await;
        let body = answer.ok();
        let end = body["end"].as_str().map(str::to_owned);
        (roots(&body, "subscribed", &room), roots(&body, "unsubscribed", &room), end)
    };
    let from = found["prev_batch"].as_str().expect("there are more");
    let (followed, ended, end) = page(format!("dir=b&limit=2&from={from}")).await;
    assert_eq!((followed, ended), (set(&[&all[3], &all[2]]), set(&[])));
    let end = end.expect("there is one more");
    assert_eq!(page(format!("dir=b&limit=2&from={end}")).await, (set(&[&all[1]]), set(&[]), None));
    let whole = (set(&[&all[1], &all[2], &all[3], &all[4]]), set(&[&all[0]]), None);
    assert_eq!(page("dir=b".to_owned()).await, whole);
    let top = say(&world, &room, &ann, 9).await;
    follow(&world, &ann, (&room, &top), Method::PUT).await;
    assert_eq!(page(format!("to={seen}")).await, (set(&[&top]), set(&[]), None), "since an answer");
    for wrong in ["dir=f", "limit=0", "limit=x", "from=x", "to=s1"] {
        let answer = world.raw(Method::GET, &format!("{FOLLOWED}?{wrong}"), Some(&ann), "").await;
        assert_eq!(answer.verdict(), (400, "M_INVALID_PARAM"), "{wrong}");
    }
}

#[tokio::test]
async fn a_poll_ends_when_a_thread_is_followed_elsewhere() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let top = say(&world, &room, &ann, 1).await;
    let (since, _) = threads(&world, &ann, None, None).await;
    let body = json!({"extensions": {THREADS: {"enabled": true}}});
    let query = format!("?pos={since}&timeout=30000");
    let poll = slide(&world, &ann, &query, body);
    let later = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        follow(&world, &ann, (&room, &top), Method::PUT).await;
    };
    let both = async { tokio::join!(poll, later) };
    let (answer, ()) = timeout(Duration::from_secs(5), both).await.expect("at once");
    assert_eq!(roots(&answer.ok()["extensions"][THREADS], "subscribed", &room), set(&[&top]));
}

#[tokio::test]
async fn what_cannot_be_used_is_refused() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let list = json!({"timeline_limit": 1, "ranges": [[2, 1]]});
    for (query, body, verdict) in [
        ("", json!({"lists": {"a": list}}), (400, "M_INVALID_PARAM")),
        ("", json!({"lists": {"a": {"ranges": [[0, 1]]}}}), (400, "M_BAD_JSON")),
        ("", json!({"conn_id": "x".repeat(17)}), (400, "M_INVALID_PARAM")),
        ("", json!({"set_presence": "asleep"}), (400, "M_INVALID_PARAM")),
        ("?set_presence=asleep", json!({}), (400, "M_INVALID_PARAM")),
        ("?timeout=soon", json!({}), (400, "M_INVALID_PARAM")),
        ("?pos=s1.h1_0_1", json!({}), (400, "M_UNKNOWN_POS")),
        ("?pos=x", json!({}), (400, "M_UNKNOWN_POS")),
        ("", json!({"pos": "h1_0_1_0_0"}), (400, "M_UNKNOWN_POS")),
    ] {
        assert_eq!(slide(&world, &ann, query, body.clone()).await.verdict(), verdict, "{query} {body}");
    }
    assert_eq!(world.raw(Method::POST, SYNC, Some(&ann), "[]").await.verdict(), (400, "M_BAD_JSON"));
    assert_eq!(world.raw(Method::POST, SYNC, None, "{}").await.verdict(), (401, "M_MISSING_TOKEN"));
    let answer = slide(&world, &ann, "", json!({"conn_id": "a", "txn_id": "t\"1"})).await.ok();
    assert_eq!(answer["txn_id"], json!("t\"1"));
    let elsewhere = format!("?pos={}", pos(&answer));
    let another = json!({"conn_id": "b"});
    assert_eq!(slide(&world, &ann, &elsewhere, another).await.verdict(), (400, "M_UNKNOWN_POS"));
    let foreign = slide(&world, &bob, &elsewhere, json!({"conn_id": "a"})).await;
    assert_eq!(foreign.verdict(), (400, "M_UNKNOWN_POS"), "somebody else's");
    slide(&world, &ann, &elsewhere, json!({"conn_id": "a"})).await.ok();
}

#[tokio::test]
async fn a_log_out_ends_the_poll() {
    let world = World::new();
    let ann = world.register("ann").await;
    let since = pos(&slide(&world, &ann, "", json!({})).await.ok());
    let poll = slide(&world, &ann, "?timeout=30000", json!({"pos": since}));
    let log_out = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.post("/logout", &ann, json!({})).await.ok();
    };
    let both = async { tokio::join!(poll, log_out) };
    let (ended, ()) = timeout(Duration::from_secs(5), both).await.expect("at once");
    assert_eq!(ended.verdict(), (401, "M_UNKNOWN_TOKEN"));
}
