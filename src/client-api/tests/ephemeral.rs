//! Receipts and typing are for those who can see what they are about.

use super::*;

#[tokio::test]
async fn receipts_are_of_events_that_their_user_can_see() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let hidden = json!([{"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}]);
    let room = world.create_room(&ann, json!({"preset": "public_chat", "initial_state": hidden})).await;
    let other = world.create_room(&ann, json!({})).await;
    let say = async |room: &str, id: &str| {
        let path = in_room(room, &format!("send/m.room.message/{id}"));
        let sent = world.put(&path, &ann, json!({"body": id})).await.ok();
        pct(sent["event_id"].as_str().unwrap())
    };
    let (early, elsewhere) = (say(&room, "early").await, say(&other, "elsewhere").await);
    let read = async |room: &str, kind: &str, event: &str| {
        world.post(&in_room(room, &format!("receipt/{kind}/{event}")), &bob, json!({})).await
    };
    assert_eq!(read(&room, "m.read", &early).await.verdict(), (403, "M_FORBIDDEN"), "not in the room");
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let late = say(&room, "late").await;
    for kind in ["m.read", "m.read.private", "m.fully_read"] {
        for event in [&early, &elsewhere, &"$none".to_owned()] {
            let answer = read(&room, kind, event).await;
            assert_eq!(answer.verdict(), (404, "M_NOT_FOUND"), "{kind} {event}");
        }
        read(&room, kind, &late).await.ok();
    }
    assert_eq!(read(&other, "m.read", &elsewhere).await.verdict(), (403, "M_FORBIDDEN"));
    let markers = json!({"m.read": early.replace("%24", "$")});
    let answer = world.post(&in_room(&room, "read_markers"), &bob, markers).await;
    assert_eq!(answer.verdict(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn typing_is_for_members_and_by_oneself() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let kind = async |by: &Person, of: &Person| {
        let path = in_room(&room, &format!("typing/{}", pct(&of.id)));
        world.put(&path, by, json!({"typing": true, "timeout": 30_000})).await
    };
    assert_eq!(kind(&bob, &bob).await.verdict(), (403, "M_FORBIDDEN"), "not in the room");
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    assert_eq!(kind(&bob, &ann).await.verdict(), (403, "M_FORBIDDEN"), "in another's name");
    kind(&bob, &bob).await.ok();
    world.post(&in_room(&room, "leave"), &bob, json!({})).await.ok();
    assert_eq!(kind(&bob, &bob).await.verdict(), (403, "M_FORBIDDEN"), "left");
}
