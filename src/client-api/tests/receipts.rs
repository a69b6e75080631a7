//! Receipts and subscriptions of threads, as far as HTTP goes.

use super::*;

const THREADS: &str = "/_matrix/client/unstable/io.element.msc4306";

async fn say(world: &World, room: &str, by: &Person, top: Option<&str>) -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let txn = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut content = json!({"msgtype": "m.text", "body": "b"});
    if let Some(top) = top {
        content["m.relates_to"] = json!({"rel_type": "m.thread", "event_id": top});
    }
    let sent = world.put(&in_room(room, &format!("send/m.room.message/{txn}")), by, content).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

/// A room of two, and who they are.
async fn talk(world: &World) -> (Person, Person, String) {
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    (ann, bob, room)
}

async fn room_of(world: &World, by: &Person, room: &str, query: &str) -> Value {
    world.get(&format!("/sync{query}"), by).await.ok()["rooms"]["join"][room].clone()
}

#[tokio::test]
async fn threaded_receipts_go_out_by_thread_and_private_ones_to_nobody_else() {
    let world = World::new();
    let (ann, bob, room) = talk(&world).await;
    let top = say(&world, &room, &ann, None).await;
    let reply = say(&world, &room, &ann, Some(&top)).await;
    let apart = format!("?filter={}", pct(r#"{"room":{"timeline":{"unread_thread_notifications":true}}}"#));
    let counts = |number: u64| json!({"highlight_count": 0, "notification_count": number});
    let seen = room_of(&world, &bob, &room, &apart).await;
    assert_eq!(seen["unread_notifications"], counts(1));
    assert_eq!(seen["unread_thread_notifications"], json!({&top: counts(1)}));

    let receipt = |kind: &str, event: &str| in_room(&room, &format!("receipt/{kind}/{}", pct(event)));
    for (event, thread) in
        [(&reply, json!("main")), (&top, json!(reply)), (&reply, json!("$other")), (&reply, json!("x"))]
    {
        let refused = world.post(&receipt("m.read", event), &bob, json!({"thread_id": thread})).await;
        assert_eq!(refused.verdict(), (400, "M_INVALID_PARAM"), "{event} in {thread}");
    }
    world.post(&receipt("m.read.private", &reply), &bob, json!({"thread_id": top})).await.ok();
    world.post(&receipt("m.read", &top), &bob, json!({"thread_id": "main"})).await.ok();
    let seen = room_of(&world, &bob, &room, &apart).await;
    assert_eq!(seen["unread_notifications"], counts(0));
    assert_eq!(seen["unread_thread_notifications"], Value::Null);
    let own = &seen["ephemeral"]["events"][0]["content"];
    assert_eq!(own[&reply]["m.read.private"][&bob.id]["thread_id"], json!(top));
    let public = room_of(&world, &ann, &room, "").await["ephemeral"]["events"].clone();
    assert_eq!(public[0]["content"][&top]["m.read"][&bob.id]["thread_id"], "main");
    assert!(!public.to_string().contains("private"), "{public}");
}

#[tokio::test]
async fn read_markers_are_stored_together_or_not_at_all() {
    let world = World::new();
    let (ann, bob, room) = talk(&world).await;
    let event = say(&world, &room, &ann, None).await;
    let markers = in_room(&room, "read_markers");
    for wrong in [
        json!({"m.fully_read": "$none", "m.read": event}),
        json!({"m.fully_read": event, "m.read": event, "m.read.private": "$none"}),
    ] {
        assert_eq!(world.post(&markers, &bob, wrong).await.verdict(), (404, "M_NOT_FOUND"));
    }
    assert_eq!(world.post(&markers, &bob, json!({"m.read": 7})).await.verdict(), (400, "M_BAD_JSON"));
    let seen = room_of(&world, &bob, &room, "").await;
    assert_eq!(seen["unread_notifications"]["notification_count"], 1);
    assert_eq!(seen["ephemeral"]["events"], json!([]));
    assert_eq!(seen["account_data"]["events"], json!([]));
    world.post(&markers, &bob, json!({})).await.ok();
    world.post(&markers, &bob, json!({"m.fully_read": event, "m.read.private": event})).await.ok();
    let seen = room_of(&world, &bob, &room, "").await;
    assert_eq!(seen["unread_notifications"]["notification_count"], 0);
    assert_eq!(seen["account_data"]["events"][0]["content"], json!({"event_id": event}));
    assert!(seen["ephemeral"]["events"][0]["content"][&event]["m.read"].is_null());
    let eve = world.register("eve").await;
    assert_eq!(world.post(&markers, &eve, json!({"m.read": event})).await.verdict(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn a_message_that_writes_an_id_highlights() {
    let world = World::new();
    let (ann, bob, room) = talk(&world).await;
    let content = json!({"msgtype": "m.text", "body": format!("Hello {}!", bob.id)});
    world.put(&in_room(&room, "send/m.room.message/t"), &ann, content).await.ok();
    let counts = room_of(&world, &bob, &room, "").await["unread_notifications"].clone();
    assert_eq!(counts, json!({"highlight_count": 1, "notification_count": 1}));
}

/// A user's subscription to a thread.
struct Subscribed<'a> {
    world: &'a World,
    path: String,
    by: &'a Person,
}

impl Subscribed<'_> {
    fn to<'a>(world: &'a World, room: &str, top: &str, by: &'a Person) -> Subscribed<'a> {
        let path = format!("{THREADS}{}", in_room(room, &format!("thread/{}/subscription", pct(top))));
        Subscribed { world, path, by }
    }

    async fn put(&self, body: Value) -> Answer {
        self.world.raw(Method::PUT, &self.path, Some(self.by), body.to_string()).await
    }

    async fn delete(&self) -> Answer {
        self.world.raw(Method::DELETE, &self.path, Some(self.by), "").await
    }

    async fn get(&self) -> Answer {
        self.world.raw(Method::GET, &self.path, Some(self.by), "").await
    }

    /// `automatic` of the subscription; `None`: there is none.
    async fn automatic(&self) -> Option<bool> {
        let answer = self.get().await;
        if answer.status == StatusCode::NOT_FOUND {
            assert_eq!(answer.verdict(), (404, "M_NOT_FOUND"));
            return None;
        }
        answer.ok()["automatic"].as_bool()
    }
}

#[tokio::test]
async fn threads_are_followed_until_the_user_says_no() {
    let world = World::new();
    let (ann, bob, room) = talk(&world).await;
    let top = say(&world, &room, &ann, None).await;
    let first = say(&world, &room, &ann, Some(&top)).await;
    let thread = Subscribed::to(&world, &room, &top, &bob);
    assert_eq!(thread.automatic().await, None);
    thread.put(json!({"automatic": first})).await.ok();
    assert_eq!(thread.automatic().await, Some(true));
    assert_eq!(Subscribed::to(&world, &room, &top, &ann).automatic().await, None, "everybody's own");
    thread.put(json!({})).await.ok();
    thread.put(json!({"automatic": first})).await.ok();
    assert_eq!(thread.automatic().await, Some(false), "what the user wants stays so");

    let second = say(&world, &room, &ann, Some(&top)).await;
    for _ in 0..2 {
        thread.delete().await.ok();
        assert_eq!(thread.automatic().await, None);
    }
    let conflict = (409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION");
    for cause in [&first, &second] {
        assert_eq!(thread.put(json!({"automatic": cause})).await.verdict(), conflict);
        assert_eq!(thread.automatic().await, None);
    }
    let third = say(&world, &room, &ann, Some(&top)).await;
    thread.put(json!({"automatic": third})).await.ok();
    assert_eq!(thread.automatic().await, Some(true));
    thread.delete().await.ok();
    thread.put(json!({})).await.ok();
    assert_eq!(thread.automatic().await, Some(false));
}

#[tokio::test]
async fn only_threads_that_the_user_sees_can_be_followed_and_for_a_reason_in_them() {
    let world = World::new();
    let (ann, bob, room) = talk(&world).await;
    let (top, other) = (say(&world, &room, &ann, None).await, say(&world, &room, &ann, None).await);
    let (reply, elsewhere) = (say(&world, &room, &ann, Some(&top)).await, say(&world, &room, &ann, Some(&other)).await);
    let thread = Subscribed::to(&world, &room, &top, &bob);
    for cause in [&top, &other, &elsewhere, "$none"] {
        let refused = thread.put(json!({"automatic": cause})).await;
        assert_eq!(refused.verdict(), (400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD"), "{cause}");
    }
    assert_eq!(thread.put(json!({"automatic": 7})).await.verdict(), (400, "M_BAD_JSON"));
    assert_eq!(thread.put(json!({"automatic": "no ID"})).await.verdict(), (400, "M_BAD_JSON"));
    assert_eq!(thread.automatic().await, None);
    thread.delete().await.ok();

    let eve = world.register("eve").await;
    for (top, by) in [("$none", &bob), (reply.as_str(), &bob), (top.as_str(), &eve)] {
        let thread = Subscribed::to(&world, &room, top, by);
        for answer in [thread.put(json!({})).await, thread.delete().await, thread.get().await] {
            assert_eq!(answer.verdict(), (404, "M_NOT_FOUND"), "{top}");
        }
    }
    let unknown = world.raw(Method::GET, &thread.path, None, "").await;
    assert_eq!(unknown.verdict(), (401, "M_MISSING_TOKEN"));
}
