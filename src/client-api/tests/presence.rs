//! `/presence` and `set_presence`.

use super::*;

fn status(of: &Person) -> String {
    format!("/presence/{}/status", pct(&of.id))
}

#[tokio::test]
async fn presence_is_set_by_oneself_and_seen_by_room_mates() {
    let world = World::with_presence(PresenceMode::On);
    let (ann, bob, eve) = (world.register("ann").await, world.register("bob").await, world.register("eve").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    assert_eq!(world.get(&status(&ann), &ann).await.ok()["presence"], "offline");
    let here = json!({"presence": "online", "status_msg": "here"});
    world.put(&status(&ann), &ann, here.clone()).await.ok();
    world.clock.advance(Duration::from_secs(20));
    let seen = world.get(&status(&ann), &bob).await.ok();
    let expected = json!({"presence": "online", "status_msg": "here", "currently_active": true,
        "last_active_ago": 20_000});
    assert_eq!(seen, expected);
    for unseen in [status(&ann), "/presence/@nobody:hs.test/status".to_owned()] {
        assert_eq!(world.get(&unseen, &eve).await.verdict(), (403, "M_FORBIDDEN"), "{unseen}");
    }
    assert_eq!(world.put(&status(&ann), &bob, here.clone()).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.put(&status(&ann), &ann, json!({})).await.verdict(), (400, "M_MISSING_PARAM"));
    let odd = json!({"presence": "busy"});
    assert_eq!(world.put(&status(&ann), &ann, odd).await.verdict(), (400, "M_BAD_JSON"));
    let long = json!({"presence": "online", "status_msg": "x".repeat(2000)});
    assert_eq!(world.put(&status(&ann), &ann, long).await.verdict(), (413, "M_TOO_LARGE"));
    assert_eq!(world.open(Method::PUT, &status(&ann), here).await.verdict(), (401, "M_MISSING_TOKEN"));

    world.get("/sync?set_presence=unavailable", &ann).await.ok();
    assert_eq!(world.get(&status(&ann), &bob).await.ok()["presence"], "unavailable");
    assert_eq!(world.get("/sync?set_presence=busy", &ann).await.verdict(), (400, "M_INVALID_PARAM"));
    world.get("/sync", &ann).await.ok();
    let seen = world.get(&status(&ann), &bob).await.ok();
    assert_eq!((&seen["presence"], &seen["status_msg"]), (&json!("online"), &json!("here")));
    world.clock.advance(Duration::from_secs(31));
    assert_eq!(world.get(&status(&ann), &bob).await.ok()["presence"], "offline", "no poll for a while");
}

#[tokio::test]
async fn sending_is_an_activity() {
    let world = World::with_presence(PresenceMode::On);
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    world.put(&status(&ann), &ann, json!({"presence": "online"})).await.ok();
    world.clock.advance(Duration::from_secs(25));
    world.put(&in_room(&room, "send/m.room.message/1"), &ann, json!({"body": "hi"})).await.ok();
    assert_eq!(world.get(&status(&ann), &ann).await.ok()["last_active_ago"], 0);
}

#[tokio::test]
async fn without_presence_nothing_is_told() {
    let world = World::new();
    let ann = world.register("ann").await;
    world.put(&status(&ann), &ann, json!({"presence": "online"})).await.ok();
    assert_eq!(world.get(&status(&ann), &ann).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(world.get("/sync", &ann).await.ok()["presence"], Value::Null);
}
