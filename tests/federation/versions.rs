//! The same short story in every room version.

use serde_json::json;

use crate::pair::Pair;
use crate::people::{Side, agree};

#[tokio::test]
async fn every_room_version_is_shared() {
    let pair = Pair::new().await;
    for version in 1..=12 {
        let version = version.to_string();
        for (here, there) in pair.both_ways() {
            println!("version {version}, created at {}", here.name);
            share(&here, &there, &version).await;
        }
    }
}

async fn share(here: &Side, there: &Side, version: &str) {
    let (alice, bob) = (here.person("alice").await, there.person("bob").await);
    let room = alice.create_public(version).await;
    bob.join(&room, here).await;
    alice.sees_membership(&room, &bob, "join").await;
    let spoken = bob.say(&room, "first").await;
    alice.sees(&room, &spoken).await;
    let topic = alice.set_state(&room, "m.room.topic", "", &json!({"topic": version})).await;
    bob.sees(&room, &topic).await;
    alice.redact(&room, &spoken).await;
    bob.sees_redacted(&room, &spoken).await;
    let state = agree(&room, &alice, &bob).await;
    assert_eq!(state[&("m.room.topic".to_owned(), String::new())], topic);
    assert!(state.contains_key(&("m.room.member".to_owned(), bob.id().to_owned())));
}
