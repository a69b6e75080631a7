//! `use_state_after`: the state up to the end of the timeline.

use hearth_accounts::Requester;
use hearth_schema::Membership;
use ruma_common::RoomId;
use serde_json::{Value, json};

use crate::testing::*;
use crate::{SyncRequest, UseStateAfter};

async fn ask(world: &World, who: &Requester, since: Option<&str>, filter: &str) -> Value {
    let use_state_after = UseStateAfter::Yes;
    world.ask(who, &SyncRequest { since, filter: Some(filter), use_state_after, ..SyncRequest::default() }).await
}

/// `type: content` of what differs from an empty room, sorted.
fn after(room: &Value) -> Vec<String> {
    assert!(room["state"].is_null(), "only one of the two: {room}");
    let events = room["state_after"]["events"].as_array().expect("it is there even when it is empty");
    let text = |event: &Value| {
        let what = ["topic", "name", "membership"].into_iter().find_map(|key| event["content"][key].as_str());
        format!("{} {}", event["state_key"].as_str().expect("a key"), what.unwrap_or("-"))
    };
    let mut all: Vec<String> = events.iter().map(text).collect();
    all.sort();
    all
}

async fn set(world: &World, room_id: &RoomId, who: &Requester, kind: &str, value: &str) {
    let content = match kind {
        "m.room.topic" => json!({ "topic": value }),
        _ => json!({ "name": value }),
    };
    world.event(room_id, who, (kind, Some("")), content).await;
}

#[tokio::test]
async fn changes_in_the_gap_and_in_the_timeline_are_all_there_once() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let since = next(&ask(&world, &bob, None, "{}").await);
    set(&world, &room_id, &alice, "m.room.topic", "gap").await;
    set(&world, &room_id, &alice, "m.room.name", "gap").await;
    for n in 0..5 {
        world.say(&room_id, &alice, &n.to_string()).await;
    }
    set(&world, &room_id, &alice, "m.room.name", "one").await;
    set(&world, &room_id, &alice, "m.room.name", "two").await;
    for (limit, limited) in [(3, true), (100, false)] {
        let filter = format!(r#"{{"room":{{"timeline":{{"limit":{limit}}}}}}}"#);
        let answer = ask(&world, &bob, Some(&since), &filter).await;
        let room = joined(&answer, &room_id);
        assert_eq!(room["timeline"]["limited"], limited);
        assert_eq!(after(room), [" gap", " two"], "the newest of each place");
    }
    let filter = r#"{"room":{"timeline":{"types":["m.room.message"]}}}"#;
    assert_eq!(after(joined(&ask(&world, &bob, Some(&since), filter).await, &room_id)), [" gap", " two"]);
    let filter = r#"{"room":{"state":{"not_types":["m.room.name"]}}}"#;
    assert_eq!(after(joined(&ask(&world, &bob, Some(&since), filter).await, &room_id)), [" gap"]);
    let whole = ask(&world, &bob, None, r#"{"room":{"timeline":{"limit":1}}}"#).await;
    let all = after(joined(&whole, &room_id));
    assert!(all.contains(&" two".to_owned()) && !all.contains(&" one".to_owned()), "{all:?}");
    assert_eq!(all.len(), 9);
}

#[tokio::test]
async fn what_did_not_change_is_empty_and_not_absent() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room_id = world.room(&alice, &[]).await;
    let since = next(&ask(&world, &alice, None, "{}").await);
    world.say(&room_id, &alice, "hello").await;
    let answer = ask(&world, &alice, Some(&since), "{}").await;
    assert_eq!(joined(&answer, &room_id)["state_after"], json!({"events": []}));
    let unstable =
        SyncRequest { since: Some(&since), use_state_after: UseStateAfter::Unstable, ..SyncRequest::default() };
    let answer = world.ask(&alice, &unstable).await;
    let room = joined(&answer, &room_id);
    assert_eq!(room["org.matrix.msc4222.state_after"], json!({"events": []}));
    assert!(room["state"].is_null() && room["state_after"].is_null(), "{room}");
}

#[tokio::test]
async fn lazy_loading_has_the_members_of_the_timeline_and_those_that_changed() {
    let world = World::new();
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let first = ask(&world, &alice, None, LAZY).await;
    let of = |answer: &Value| -> Vec<String> {
        after(joined(answer, &room_id)).into_iter().filter(|text| text.starts_with('@')).collect()
    };
    // Nobody may update the state from the timeline, so who joined there has to be here as well.
    assert_eq!(of(&first), ["@alice:hearth.test join", "@bob:hearth.test join"]);
    world.change(&room_id, &carol, &carol, Membership::Join).await;
    world.say(&room_id, &bob, "hello").await;
    let second = ask(&world, &alice, Some(&next(&first)), LAZY).await;
    assert_eq!(of(&second), ["@carol:hearth.test join"], "bob's is known");
    world.change(&room_id, &carol, &carol, Membership::Leave).await;
    let third = ask(&world, &alice, Some(&next(&second)), LAZY).await;
    assert_eq!(of(&third), ["@carol:hearth.test leave"]);
}

#[tokio::test]
async fn left_rooms_have_it_up_to_the_leave() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let since = next(&ask(&world, &bob, None, "{}").await);
    set(&world, &room_id, &alice, "m.room.topic", "before").await;
    world.change(&room_id, &alice, &bob, Membership::Leave).await;
    set(&world, &room_id, &alice, "m.room.topic", "after").await;
    set(&world, &room_id, &alice, "m.room.name", "after").await;
    let answer = ask(&world, &bob, Some(&since), "{}").await;
    assert_eq!(after(&answer["rooms"]["leave"][room_id.as_str()]), [" before", "@bob:hearth.test leave"]);
    let answer = ask(&world, &bob, None, r#"{"room":{"include_leave":true}}"#).await;
    let all = after(&answer["rooms"]["leave"][room_id.as_str()]);
    assert!(all.contains(&" before".to_owned()) && all.contains(&"@bob:hearth.test leave".to_owned()), "{all:?}");
    assert_eq!(all.len(), 8);
}
