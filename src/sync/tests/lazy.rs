//! Lazy loading over several devices and lives of the server.

use serde_json::{Value, json};

use super::sessions::login;
use crate::testing::*;

const FILTER: &str = r#"{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true}}}"#;

fn members(answer: &Value, room_id: &ruma_common::RoomId) -> Vec<String> {
    let keys = state(joined(answer, room_id)).into_iter();
    keys.filter_map(|key| Some(key.strip_prefix("m.room.member/")?.split(':').next()?.to_owned())).collect()
}

#[tokio::test]
async fn each_device_is_sent_what_it_lacks_and_after_a_restart_rather_twice_than_never() {
    let world = World::new();
    let (phone, bob) = (world.user("alice").await, world.user("bob").await);
    let (tablet, _) = login(&world, "alice", "TABLET", false).await;
    let room_id = world.room(&phone, &[&bob]).await;
    world.event(&room_id, &phone, ("m.room.name", Some("")), json!({"name": "no heroes"})).await;
    let first = world.now(&phone, None, FILTER).await;
    assert_eq!(members(&first, &room_id), ["@alice"]);
    world.say(&room_id, &bob, "1").await;
    let mut on_phone = world.now(&phone, Some(&next(&first)), FILTER).await;
    assert_eq!(members(&on_phone, &room_id), ["@bob"]);
    let mut on_tablet = world.now(&tablet, Some(&next(&first)), FILTER).await;
    assert_eq!(members(&on_tablet, &room_id), ["@bob"], "what the phone has, the tablet has not");
    let mut world = world;
    for (n, wanted) in [(2, &[][..]), (3, &["@bob"]), (4, &[])] {
        if n == 3 {
            world = world.restarted().await;
        }
        world.say(&room_id, &bob, &n.to_string()).await;
        on_phone = world.now(&phone, Some(&next(&on_phone)), FILTER).await;
        on_tablet = world.now(&tablet, Some(&next(&on_tablet)), FILTER).await;
        for answer in [&on_phone, &on_tablet] {
            assert_eq!(bodies(joined(answer, &room_id)), [n.to_string()]);
            assert_eq!(members(answer, &room_id), wanted, "{n}");
        }
    }
}
