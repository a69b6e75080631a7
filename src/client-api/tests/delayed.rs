//! Delayed events over HTTP.

use super::*;

const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.msc4140";
const STABLE: &str = "/_matrix/client/v1";

fn delayed(room: &str, rest: &str, millis: u64) -> String {
    format!("{}?org.matrix.msc4140.delay={millis}", in_room(room, rest))
}

impl World {
    async fn list(&self, by: &Person) -> Vec<Value> {
        let answer = self.raw(Method::GET, &format!("{UNSTABLE}/delayed_events"), Some(by), "").await.ok();
        answer["delayed_events"].as_array().unwrap().clone()
    }

    async fn act(&self, prefix: &str, id: &str, action: &str, by: Option<&Person>) -> Answer {
        self.raw(Method::POST, &format!("{prefix}/delayed_events/{id}/{action}"), by, "{}").await
    }

    /// Waits until the server has noticed that time has passed.
    async fn until_sent(&self, by: &Person) {
        tokio::time::timeout(Duration::from_secs(20), async {
            while !self.list(by).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("sent");
    }
}

fn id(answer: Answer) -> String {
    let body = answer.ok();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    body["delay_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_delayed_message_is_listed_then_sent_and_its_sender_sees_which_it_was() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&format!("/join/{}", pct(&room)), &bob, json!({})).await.ok();
    let path = delayed(&room, "send/m.room.message/t", 5000);
    let delay_id = id(world.put(&path, &ann, json!({"body": "bye", "msgtype": "m.text"})).await);
    // The same transaction, also without its body.
    let again = world.raw(Method::PUT, &format!("{CLIENT}{path}"), Some(&ann), "").await;
    assert_eq!(id(again), delay_id);
    assert_eq!(world.list(&bob).await, [] as [Value; 0]);
    let expected = json!({
        "delay_id": delay_id, "room_id": room, "type": "m.room.message", "delay_ms": 5000,
        "delayed_since_ts": 1_700_000_000_000_u64, "content": {"body": "bye", "msgtype": "m.text"},
        "delay": 5000, "running_since": 1_700_000_000_000_u64,
    });
    assert_eq!(world.list(&ann).await, [expected]);
    world.clock.advance(Duration::from_secs(5));
    world.until_sent(&ann).await;

    let found = world.raw(Method::GET, &format!("{STABLE}/delayed_events/{delay_id}"), Some(&ann), "").await.ok();
    assert_eq!(found["finalised"]["finalised_ts"], 1_700_000_005_000_u64);
    assert!(found.get("delay").is_none());
    let old = world.raw(Method::GET, &format!("{UNSTABLE}/delayed_events/{delay_id}"), Some(&ann), "").await.ok();
    assert_eq!(old["delay_id"], json!(delay_id));
    let event_id = found["finalised"]["event_id"].as_str().unwrap();
    let event = in_room(&room, &format!("event/{}", pct(event_id)));
    let to_ann = world.get(&event, &ann).await.ok();
    assert_eq!(to_ann["content"]["body"], "bye");
    assert_eq!(to_ann["unsigned"]["delay_id"], json!(delay_id));
    assert_eq!(to_ann["unsigned"]["org.matrix.msc4140.delay_id"], json!(delay_id));
    assert_eq!(to_ann["unsigned"]["transaction_id"], Value::Null);
    assert_eq!(world.get(&event, &bob).await.ok()["unsigned"]["delay_id"], Value::Null, "others do not");
}

#[tokio::test]
async fn delayed_state_is_managed_by_whoever_knows_the_id_on_the_unstable_path_only() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({})).await;
    let state = in_room(&room, "state/org.example/k");
    let one = id(world.put(&delayed(&room, "state/org.example/k", 5000), &ann, json!({"n": 1})).await);
    let two = id(world.put(&delayed(&room, "state/org.example/k", 9000), &ann, json!({"n": 2})).await);
    assert_ne!(one, two, "state has no transactions");
    assert_eq!(world.get(&state, &ann).await.verdict(), (404, "M_NOT_FOUND"));
    for action in ["send", "cancel", "restart"] {
        assert_eq!(world.act(STABLE, &one, action, None).await.verdict(), (401, "M_MISSING_TOKEN"));
        assert_eq!(world.act(STABLE, &one, action, Some(&bob)).await.verdict(), (404, "M_NOT_FOUND"));
        assert_eq!(world.act(UNSTABLE, "abc", action, None).await.verdict(), (404, "M_NOT_FOUND"));
    }
    assert_eq!(world.act(UNSTABLE, &one, "explode", None).await.verdict(), (404, "M_UNRECOGNIZED"));
    let bare = world.raw(Method::POST, &format!("{UNSTABLE}/delayed_events/{one}"), None, "{}").await;
    assert_eq!(bare.verdict(), (405, "M_UNRECOGNIZED"));

    assert_eq!(world.act(UNSTABLE, &one, "send", None).await.ok(), json!({}));
    assert_eq!(world.get(&state, &ann).await.ok(), json!({"n": 1}));
    assert_eq!(world.act(STABLE, &two, "restart", Some(&ann)).await.ok(), json!({}));
    assert_eq!(world.act(UNSTABLE, &two, "cancel", None).await.ok(), json!({}));
    assert_eq!(world.act(STABLE, &two, "send", Some(&ann)).await.verdict(), (409, "M_UNKNOWN"));
    assert_eq!(world.act(STABLE, &one, "cancel", Some(&ann)).await.verdict(), (409, "M_UNKNOWN"));
    assert_eq!(world.act(STABLE, &one, "send", Some(&ann)).await.ok(), json!({}), "again is no harm");
    assert_eq!(world.list(&ann).await, [] as [Value; 0]);
}

#[tokio::test]
async fn the_endpoint_of_its_own_takes_messages_and_state() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let path = |txn: &str| in_room(&room, &format!("delayed_event/org.example/{txn}"));
    let state = id(world.put(&path("1"), &ann, json!({"delay_ms": 10, "state_key": "", "content": {"n": 1}})).await);
    let message = id(world.put(&path("2"), &ann, json!({"delay_ms": 9, "content": {"n": 2}})).await);
    assert_eq!(id(world.put(&path("2"), &ann, json!({})).await), message, "the same transaction");
    let unstable = format!("{UNSTABLE}{}", path("3"));
    id(world.raw(Method::PUT, &unstable, Some(&ann), r#"{"delay_ms":8,"content":{}}"#).await);
    let listed = world.list(&ann).await;
    assert_eq!(listed.len(), 3);
    assert_eq!((&listed[1]["delay_id"], listed[1].get("state_key")), (&json!(message), None));
    assert_eq!((&listed[2]["delay_id"], listed[2].get("state_key")), (&json!(state), Some(&json!(""))));
    for (body, wanted) in [
        (json!({"content": {}}), (400, "M_MISSING_PARAM")),
        (json!({"delay_ms": 5}), (400, "M_MISSING_PARAM")),
        (json!({"delay_ms": 0, "content": {}}), (400, "M_INVALID_PARAM")),
        (json!({"delay_ms": -5, "content": {}}), (400, "M_BAD_JSON")),
        (json!({"delay_ms": 5, "content": []}), (400, "M_BAD_JSON")),
        (json!({"delay_ms": 5, "content": {"n": 1.5}}), (400, "M_BAD_JSON")),
        (json!({"delay_ms": 5, "state_key": 1, "content": {}}), (400, "M_BAD_JSON")),
        (json!({"delay_ms": 86_400_001, "content": {}}), (403, "M_FORBIDDEN")),
    ] {
        let answer = world.put(&path("4"), &ann, body.clone()).await;
        assert_eq!(answer.verdict(), wanted, "{body}");
    }
    for wrong in ["0", "-1", "soon", "1.5", ""] {
        let path = format!("{}?org.matrix.msc4140.delay={wrong}", in_room(&room, "send/m.room.message/5"));
        assert_eq!(world.put(&path, &ann, json!({})).await.verdict(), (400, "M_INVALID_PARAM"), "{wrong}");
    }
}

#[tokio::test]
async fn limits_are_advertised_and_kept() {
    let limits = hearth_rooms::DelayLimits { max_delay: Duration::from_secs(60), max_scheduled: 2 };
    let world = World::with(Registration::Open, |settings| settings.delays = limits);
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let capabilities = world.get("/capabilities", &ann).await.ok();
    assert_eq!(capabilities["capabilities"]["m.delayed_events"], json!({"max_delay_ms": 60_000, "max_scheduled": 2}));
    for n in 0..2 {
        world.put(&delayed(&room, &format!("send/x.y/{n}"), 30_000), &ann, json!({})).await.ok();
    }
    let full = world.put(&delayed(&room, "send/x.y/3", 1000), &ann, json!({})).await;
    assert_eq!(full.verdict(), (429, "M_LIMIT_EXCEEDED"));
    assert_eq!(full.headers[header::RETRY_AFTER], "30");
    assert_eq!(full.body["retry_after_ms"], 30_000);
    let long = world.put(&delayed(&room, "send/x.y/4", 60_001), &ann, json!({})).await;
    assert_eq!(long.verdict(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn what_could_not_be_sent_says_why() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let outside = world.put(&delayed(&room, "send/m.room.message/0", 1000), &bob, json!({})).await;
    assert_eq!(outside.verdict(), (403, "M_FORBIDDEN"));
    world.post(&format!("/join/{}", pct(&room)), &bob, json!({})).await.ok();
    let delay_id = id(world.put(&delayed(&room, "send/m.room.message/1", 1000), &bob, json!({})).await);
    world.post(&in_room(&room, "leave"), &bob, json!({})).await.ok();
    assert_eq!(world.act(STABLE, &delay_id, "send", Some(&bob)).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.list(&bob).await.len(), 1, "it may still become possible");
    world.clock.advance(Duration::from_secs(1));
    world.until_sent(&bob).await;
    let found = world.raw(Method::GET, &format!("{STABLE}/delayed_events/{delay_id}"), Some(&bob), "").await.ok();
    assert_eq!(found["finalised"]["error"]["errcode"], "M_FORBIDDEN");
    assert!(found["finalised"].get("event_id").is_none());
    assert_eq!(world.act(STABLE, &delay_id, "cancel", Some(&bob)).await.ok(), json!({}));
}
