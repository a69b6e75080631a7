use serde_json::json;

use crate::SyncRequest;
use crate::testing::*;

fn members(keys: &[String]) -> Vec<&str> {
    let members = keys.iter().filter_map(|key| key.strip_prefix("m.room.member/@"));
    members.map(|key| key.trim_end_matches(":hearth.test")).collect()
}

#[tokio::test]
async fn lazy_loading_sends_each_sender_once() {
    let world = World::new();
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let room_id = world.room(&alice, &[&bob, &carol]).await;
    world.event(&room_id, &alice, ("m.room.name", Some("")), json!({"name": "no heroes"})).await;
    let filter = r#"{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true}}}"#;
    let first = world.now(&alice, None, filter).await;
    assert_eq!(members(&state(joined(&first, &room_id))), ["alice"], "the reader, who also sent the name");
    world.say(&room_id, &bob, "1").await;
    let second = world.now(&alice, Some(&next(&first)), filter).await;
    assert_eq!(state(joined(&second, &room_id)), ["m.room.member/@bob:hearth.test"]);
    world.say(&room_id, &bob, "2").await;
    let third = world.now(&alice, Some(&next(&second)), filter).await;
    assert_eq!(state(joined(&third, &room_id)), [""; 0], "the device has it");
    let again = world.now(&alice, Some(&next(&first)), filter).await;
    assert_eq!(members(&state(joined(&again, &room_id))), ["bob"], "an answer may have been lost");
    world.say(&room_id, &bob, "3").await;
    let redundant = filter.replace("true", r#"true,"include_redundant_members":true"#);
    let answer = world.now(&alice, Some(&next(&again)), &redundant).await;
    assert_eq!(members(&state(joined(&answer, &room_id))), ["bob"]);
}

#[tokio::test]
async fn lazy_loading_sends_heroes_and_members_of_a_gap() {
    let world = World::new();
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let filter = r#"{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true}}}"#;
    world.say(&room_id, &alice, "1").await;
    let first = world.now(&alice, None, filter).await;
    let room = joined(&first, &room_id);
    assert_eq!(room["summary"]["m.heroes"], json!(["@bob:hearth.test"]));
    assert_eq!(members(&state(room)), ["alice", "bob"]);
    world.change(&room_id, &carol, &carol, hearth_schema::Membership::Join).await;
    world.say(&room_id, &alice, "2").await;
    let gap = world.now(&alice, Some(&next(&first)), filter).await;
    assert_eq!(bodies(joined(&gap, &room_id)), ["2"]);
    assert_eq!(members(&state(joined(&gap, &room_id))), ["carol"]);
    assert_eq!(joined(&gap, &room_id)["summary"]["m.joined_member_count"], 3);
}

#[tokio::test]
async fn the_state_is_that_of_the_start_of_the_timeline() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room_id = world.room(&alice, &[]).await;
    for topic in ["one", "two"] {
        world.event(&room_id, &alice, ("m.room.topic", Some("")), json!({"topic": topic})).await;
    }
    world.event(&room_id, &alice, ("org.new", Some("")), json!({})).await;
    for lazy in ["false", "true"] {
        let filter = format!(r#"{{"room":{{"timeline":{{"limit":2}},"state":{{"lazy_load_members":{lazy}}}}}}}"#);
        let answer = world.now(&alice, None, &filter).await;
        let room = joined(&answer, &room_id);
        assert_eq!(bodies(room), ["m.room.topic", "org.new"]);
        let topics: Vec<_> = room["state"]["events"]
            .as_array()
            .expect("events")
            .iter()
            .filter_map(|e| e["content"]["topic"].as_str())
            .collect();
        assert_eq!(topics, ["one"]);
        assert!(!state(room).contains(&"org.new/".to_owned()), "it is only in the timeline");
        let request =
            SyncRequest { filter: Some(&filter), use_state_after: crate::UseStateAfter::Yes, ..SyncRequest::default() };
        let answer = world.ask(&alice, &request).await;
        let after = &joined(&answer, &room_id)["state_after"]["events"];
        let topics: Vec<_> =
            after.as_array().expect("events").iter().filter_map(|e| e["content"]["topic"].as_str()).collect();
        assert_eq!(topics, ["two"]);
        assert!(joined(&answer, &room_id)["state"].is_null());
    }
}

#[tokio::test]
async fn state_after_says_what_the_timeline_changed() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room_id = world.room(&alice, &[]).await;
    let since = next(&world.now(&alice, None, "{}").await);
    world.event(&room_id, &alice, ("m.room.topic", Some("")), json!({"topic": "x"})).await;
    world.say(&room_id, &alice, "1").await;
    let request =
        SyncRequest { since: Some(&since), use_state_after: crate::UseStateAfter::Yes, ..SyncRequest::default() };
    let answer = world.ask(&alice, &request).await;
    let room = joined(&answer, &room_id);
    assert_eq!(room["state_after"]["events"].as_array().map(Vec::len), Some(1));
    assert_eq!(room["state_after"]["events"][0]["content"]["topic"], "x");
    assert_eq!(bodies(room), ["m.room.topic", "1"]);
}

#[tokio::test]
async fn sections_obey_their_filters() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (one, two) = (world.room(&alice, &[&bob]).await, world.room(&alice, &[]).await);
    world.say(&one, &bob, "from bob").await;
    world.say(&one, &alice, "from alice").await;
    let filter = format!(
        r#"{{"room":{{"not_rooms":["{two}"],"timeline":{{"not_senders":["{}"],"types":["m.room.mess*"]}},"state":{{"types":["m.room.create"]}}}}}}"#,
        bob.user_id
    );
    let answer = world.now(&alice, None, &filter).await;
    assert!(joined(&answer, &two).is_null());
    assert_eq!(bodies(joined(&answer, &one)), ["from alice"]);
    // The whole room is in the stretch of the timeline, so there is no state before it.
    assert_eq!(joined(&answer, &one)["timeline"]["limited"], false);
    let raw = world.now(&alice, None, r#"{"event_format":"federation","room":{"timeline":{"limit":1}}}"#).await;
    let event = &joined(&raw, &one)["timeline"]["events"][0];
    assert!(event["signatures"].is_object() && event["auth_events"].is_array(), "{event}");
}

#[tokio::test]
async fn state_that_the_filter_keeps_out_of_the_timeline_is_in_the_state() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room_id = world.room(&alice, &[]).await;
    world.say(&room_id, &alice, "1").await;
    world.event(&room_id, &alice, ("m.room.topic", Some("")), json!({"topic": "new"})).await;
    for (types, shown) in [(r#""m.room.message""#, vec!["1"]), (r#""org.nothing""#, vec![])] {
        let filter = format!(r#"{{"room":{{"timeline":{{"limit":10,"types":[{types}]}}}}}}"#);
        let answer = world.now(&alice, None, &filter).await;
        let room = joined(&answer, &room_id);
        assert_eq!(bodies(room), shown);
        let keys = state(room);
        for wanted in ["m.room.create/", "m.room.member/@alice:hearth.test", "m.room.topic/"] {
            assert!(keys.iter().any(|key| key == wanted), "{wanted} is not in {keys:?}");
        }
    }
}

#[tokio::test]
async fn a_forgotten_room_does_not_come_back() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room_id = world.room(&alice, &[]).await;
    world.change(&room_id, &alice, &alice, hearth_schema::Membership::Leave).await;
    let filter = r#"{"room":{"include_leave":true}}"#;
    let before = world.now(&alice, None, filter).await;
    assert!(before["rooms"]["leave"][room_id.as_str()].is_object(), "{before}");
    world.rooms.forget(&alice.user_id, &room_id).await.expect("forgotten");
    let after = world.now(&alice, None, filter).await;
    assert!(after["rooms"]["leave"][room_id.as_str()].is_null(), "{after}");
}
