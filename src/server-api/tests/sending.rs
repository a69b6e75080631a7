//! Transactions.

use std::time::Duration;

use super::*;

impl World {
    /// Waits until `event` has been judged and is in the room.
    pub(super) async fn holds_now(&self, room: &RoomId, event: &EventId) -> bool {
        let view = self.rooms.view().await.unwrap();
        self.rooms.event_in_room(&view, self.rooms.ids().room(room), event).await.unwrap().is_some()
    }

    pub(super) async fn holds(&self, room: &RoomId, event: &EventId) -> bool {
        for _ in 0..400 {
            if self.holds_now(room, event).await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }
}

#[tokio::test]
async fn a_bad_event_stops_none_of_the_others() {
    let (world, friend) = (World::new().await, Other::friend());
    let room = world.room(Preset::PublicChat).await;
    friend.join(&world, &room, "olga").await;
    let olga = friend.user("olga");
    let good = friend.event(&world, (&room, &olga), ("m.room.message", None), json!({"body": "good"})).await;
    let float = text(&good).replace("\"body\":\"good\"", "\"body\":1.5");
    let huge = text(&good).replace("\"body\":\"good\"", &format!("\"body\":\"{}\"", "x".repeat(70_000)));
    let twice = text(&good).replace("\"body\":\"good\"", "\"body\":\"a\",\"body\":\"b\"");
    let deep = text(&good).replace("\"body\":\"good\"", &format!("\"body\":{}{}", "[".repeat(110), "]".repeat(110)));
    let long_type = text(&good).replace("m.room.message", &"x".repeat(256));
    let sender = text(&good).replace("@olga:other.test", "@eve:mal.test");
    let bad = ["{}", "[]", "7", "null", "\"x\"", &float, &huge, &twice, &deep, &long_type, &sender];
    let mut pdus: Vec<&str> = bad.to_vec();
    pdus.insert(5, text(&good));
    let answer = friend.transact(&world, "1", &pdus).await.ok();
    let results = answer["pdus"].as_object().unwrap();
    assert_eq!(results[good.event_id().as_str()], json!({}), "{answer}");
    for (id, result) in results {
        assert!(id == good.event_id().as_str() || result["error"].is_string(), "{id}: {result}");
    }
    assert!(world.holds(&room, good.event_id()).await);
}

#[tokio::test]
async fn a_transaction_has_fifty_events_and_a_hundred_others_at_the_most() {
    let (world, friend) = (World::new().await, Other::friend());
    let path = |txn: &str| format!("{V1}/send/{txn}");
    let body = |pdus: usize, edus: usize| {
        let edu = json!({"edu_type": "m.typing", "content": {}});
        json!({"origin": "other.test", "pdus": vec![json!({}); pdus], "edus": vec![edu; edus]}).to_string()
    };
    assert_eq!(friend.put(&world, &path("1"), &body(50, 100)).await.verdict(), (200, ""));
    assert_eq!(friend.put(&world, &path("2"), &body(51, 0)).await.verdict(), (400, "M_BAD_JSON"));
    assert_eq!(friend.put(&world, &path("3"), &body(0, 101)).await.verdict(), (400, "M_BAD_JSON"));
    assert_eq!(friend.put(&world, &path(&"x".repeat(300)), &body(0, 0)).await.verdict(), (400, "M_INVALID_PARAM"));
    assert_eq!(friend.put(&world, &path("4"), "{\"pdus\":{}}").await.verdict(), (400, "M_BAD_JSON"));
    assert_eq!(world.heard.0.lock().len(), 100);
}

#[tokio::test]
async fn what_is_no_event_reaches_who_takes_such_and_once() {
    let (world, friend) = (World::new().await, Other::friend());
    let body = json!({"pdus": [], "edus": [
        {"edu_type": "m.typing", "content": {"room_id": "!r:x"}}, 5, {"content": {}}, {"edu_type": 1, "content": {}},
        {"edu_type": "m.receipt", "content": {}, "more": [1]},
    ]});
    for _ in 0..3 {
        let answer = friend.put(&world, &format!("{V1}/send/txn"), &body.to_string()).await.ok();
        assert_eq!(answer, json!({"pdus": {}}));
    }
    let of = |kind: &str| (friend.name.clone(), kind.to_owned());
    assert_eq!(*world.heard.0.lock(), [of("m.typing"), of("m.receipt")]);
}

#[tokio::test]
async fn a_transaction_is_answered_as_before_also_after_a_restart() {
    let (world, friend) = (World::new().await, Other::friend());
    let room = world.room(Preset::PublicChat).await;
    friend.join(&world, &room, "olga").await;
    let olga = friend.user("olga");
    let event = friend.event(&world, (&room, &olga), ("m.room.message", None), json!({"body": "one"})).await;
    let forged =
        text(&event).replace("\"body\":\"one\"", "\"body\":\"two\",\"x\":\"@olga\"").replace("ed25519:1", "ed25519:9");
    let first = friend.transact(&world, "7", &[text(&event), &forged]).await.ok();
    assert!(first["pdus"].as_object().unwrap().contains_key(event.event_id().as_str()));
    let world = World::on(Arc::clone(&world.store), |_| {});
    // The name of the transaction decides: what it holds now is not looked at.
    assert_eq!(friend.transact(&world, "7", &[]).await.ok(), first);
    assert_eq!(friend.transact(&world, "8", &[]).await.ok(), json!({"pdus": {}}));
    assert_eq!(Other::mallory().transact(&world, "7", &[]).await.ok(), json!({"pdus": {}}), "by server");
    // One whose place another has taken is another one.
    for i in 0..40 {
        friend.transact(&world, &format!("more{i}"), &[]).await.ok();
    }
    assert_eq!(friend.transact(&world, "7", &[]).await.ok(), json!({"pdus": {}}));
}

#[tokio::test]
async fn one_transaction_of_a_server_is_taken_at_a_time() {
    let (world, friend) = (Arc::new(World::new().await), Other::friend());
    let body = json!({"pdus": [], "edus": [{"edu_type": "m.typing", "content": {}}]}).to_string();
    let both = futures::future::join_all((0..6).map(|_| friend.put(&world, "/_matrix/federation/v1/send/same", &body)));
    for answer in both.await {
        assert_eq!(answer.ok(), json!({"pdus": {}}));
    }
    assert_eq!(world.heard.0.lock().len(), 1, "the others waited for it");
}

#[tokio::test]
async fn events_of_rooms_that_the_server_is_not_in_or_is_kept_out_of_are_refused() {
    let (world, friend, mallory) = (World::new().await, Other::friend(), Other::mallory());
    let room = world.room(Preset::PublicChat).await;
    friend.join(&world, &room, "olga").await;
    mallory.join(&world, &room, "eve").await;
    world.set(&room, "m.room.server_acl", json!({"allow": ["*"], "deny": ["mal.test"]})).await;
    let eve = mallory.user("eve");
    let denied = mallory.event(&world, (&room, &eve), ("m.room.message", None), json!({"body": "x"})).await;
    let answer = mallory.transact(&world, "1", &[text(&denied)]).await.ok();
    assert!(answer["pdus"][denied.event_id().as_str()]["error"].is_string(), "{answer}");
    let olga = friend.user("olga");
    let late = friend.event(&world, (&room, &olga), ("m.room.message", None), json!({"body": "x"})).await;
    world.leave(&room).await;
    let answer = friend.transact(&world, "2", &[text(&late)]).await.ok();
    assert!(answer["pdus"][late.event_id().as_str()]["error"].is_string(), "nobody here is in it: {answer}");
}

#[tokio::test]
async fn what_is_rejected_is_not_served_to_others() {
    let (world, friend) = (World::new().await, Other::friend());
    let room = world.room(Preset::PublicChat).await;
    friend.join(&world, &room, "olga").await;
    let olga = friend.user("olga");
    let coup = json!({"users": {"@olga:other.test": 100}});
    let coup = friend.event(&world, (&room, &olga), ("m.room.power_levels", Some("")), coup).await;
    let next = friend.event(&world, (&room, &olga), ("m.room.message", None), json!({"body": "next"})).await;
    friend.transact(&world, "1", &[text(&coup), text(&next)]).await.ok();
    assert!(world.holds(&room, next.event_id()).await, "and so what came before it has been judged");
    assert!(!world.holds_now(&room, coup.event_id()).await);
    let unknown = (404, "M_NOT_FOUND");
    let event = pct(coup.event_id().as_str());
    assert_eq!(friend.get(&world, &format!("{V1}/event/{event}")).await.verdict(), unknown);
    assert_eq!(friend.get(&world, &about("state_ids", &room, coup.event_id())).await.verdict(), unknown);
    let path = format!("{V1}/event_auth/{}/{event}", pct(room.as_str()));
    assert_eq!(friend.get(&world, &path).await.verdict(), unknown);
    let said = world.say(&room, "after it").await;
    let path = format!("{V1}/backfill/{}?limit=100&v={event}&v={}", pct(room.as_str()), pct(said.as_str()));
    let page = friend.get(&world, &path).await.ok();
    assert_eq!(page["pdus"][0]["content"]["body"], "after it");
    assert!(!page.to_string().contains("\"@olga:other.test\":100"));
}
