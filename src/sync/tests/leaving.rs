//! Rooms that end, begin, or stay outside: what is shown of them, and not a byte more.

use std::sync::Arc;
use std::time::Duration;

use hearth_accounts::NewAccountData;
use hearth_schema::Membership;
use ruma_common::RoomId;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::testing::*;

const LEAVE: &str = r#"{"room":{"include_leave":true}}"#;

fn left<'a>(answer: &'a Value, room_id: &RoomId) -> &'a Value {
    &answer["rooms"]["leave"][room_id.as_str()]
}

fn memberships(room: &Value) -> Vec<&str> {
    let events = room["timeline"]["events"].as_array().map_or(&[][..], Vec::as_slice);
    events.iter().filter_map(|event| event["content"]["membership"].as_str()).collect()
}

async fn topic(world: &World, room_id: &RoomId, who: &hearth_accounts::Requester, topic: &str) {
    world.event(room_id, who, ("m.room.topic", Some("")), json!({ "topic": topic })).await;
}

/// Whoever is kicked during a long poll is shown everything before, the kick, and nothing after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_kicked_during_a_long_poll_gets_no_byte_after_the_leave() {
    let world = Arc::new(World::new());
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    for round in 0..20 {
        let room_id = world.room(&alice, &[&bob]).await;
        let mut since = next(&world.now(&bob, None, "{}").await);
        let reader = tokio::spawn({
            let (world, bob, room_id) = (Arc::clone(&world), bob.clone(), room_id.clone());
            async move {
                let mut answers = Vec::new();
                loop {
                    let answer = world.poll(&bob, &since).await;
                    since = next(&answer);
                    let done = left(&answer, &room_id).is_object();
                    answers.push(answer);
                    if done {
                        answers.push(world.now(&bob, Some(&since), LEAVE).await);
                        return answers;
                    }
                }
            }
        });
        world.say(&room_id, &alice, "said").await;
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        world.change(&room_id, &alice, &bob, Membership::Leave).await;
        let for_long = hearth_rooms::Typing::For(Duration::from_secs(60));
        world.rooms.set_typing(&room_id, &alice.user_id, for_long).await.expect("typing");
        topic(&world, &room_id, &alice, "secret").await;
        world.say(&room_id, &alice, "secret").await;
        world.change(&room_id, &alice, &alice, Membership::Leave).await;
        let answers = timeout(Duration::from_secs(10), reader).await.expect("in time").expect("no panic");
        let all = Value::from(answers.clone()).to_string();
        assert!(!all.contains("secret") && !all.contains("m.typing"), "{all}");
        assert!(!all.contains(r#""m.joined_member_count":0"#), "{all}");
        let seen: Vec<String> = answers
            .iter()
            .flat_map(|answer| [bodies(joined(answer, &room_id)), bodies(left(answer, &room_id))].concat())
            .collect();
        assert_eq!(seen, ["said", "m.room.member"]);
    }
}

#[tokio::test]
async fn an_invitation_turned_down_between_two_polls_is_a_leave_and_nothing_else() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    world.say(&room_id, &alice, "old").await;
    world.change(&room_id, &bob, &bob, Membership::Leave).await;
    let since = next(&world.now(&bob, None, LEAVE).await);
    world.say(&room_id, &alice, "secret").await;
    world.change(&room_id, &alice, &bob, Membership::Invite).await;
    world.change(&room_id, &bob, &bob, Membership::Leave).await;
    let answer = world.now(&bob, Some(&since), "{}").await;
    assert_eq!(memberships(left(&answer, &room_id)), ["invite", "leave"]);
    assert_eq!(bodies(left(&answer, &room_id)).len(), 2, "what was known is not repeated: {answer}");
    assert_eq!(left(&answer, &room_id)["timeline"]["limited"], false);
    assert_eq!(state(left(&answer, &room_id)), [""; 0]);
    assert!(!answer.to_string().contains("secret"));
}

#[tokio::test]
async fn a_room_left_and_joined_again_comes_whole_without_what_was_known() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    world.say(&room_id, &alice, "known").await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.change(&room_id, &bob, &bob, Membership::Leave).await;
    topic(&world, &room_id, &alice, "missed").await;
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    world.say(&room_id, &alice, "news").await;
    let answer = world.now(&bob, Some(&since), "{}").await;
    let room = joined(&answer, &room_id);
    assert!(answer["rooms"]["leave"].is_null(), "{answer}");
    assert_eq!(bodies(room), ["m.room.member", "m.room.topic", "m.room.member", "news"]);
    assert_eq!(room["timeline"]["limited"], true);
    assert_eq!(state(room).len(), 7, "{:?}", state(room));
    let prev = room["timeline"]["prev_batch"].as_str().expect("prev_batch");
    let from = crate::PageToken::parse(prev, world.sync.incarnation()).expect("a token").pos;
    let query = hearth_rooms::HistoryQuery {
        room_id: room_id.clone(),
        from: Some(from),
        to: None,
        direction: hearth_rooms::Direction::Backward,
        limit: 1,
        filter: hearth_rooms::EventFilter::default(),
    };
    let page = world.rooms.messages(&bob.user_id, &query).await.expect("a page");
    assert!(page.events[0].pdu.content().get().contains("known"));
}

#[tokio::test]
async fn a_stay_between_two_polls_is_a_left_room_with_all_its_state() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    world.say(&room_id, &alice, "hello").await;
    world.change(&room_id, &bob, &bob, Membership::Leave).await;
    topic(&world, &room_id, &alice, "secret").await;
    let answer = world.now(&bob, Some(&since), r#"{"room":{"timeline":{"limit":3}}}"#).await;
    let room = left(&answer, &room_id);
    assert_eq!(bodies(room), ["m.room.member", "hello", "m.room.member"]);
    assert_eq!(room["timeline"]["limited"], true);
    assert_eq!(state(room).len(), 6, "{:?}", state(room));
    assert!(!answer.to_string().contains("secret"));
    // And once more, into the room: the leave is no news any more.
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    let answer = world.now(&bob, Some(&since), "{}").await;
    assert!(answer["rooms"]["leave"].is_null(), "{answer}");
    assert_eq!(memberships(joined(&answer, &room_id)).last(), Some(&"join"));
}

#[tokio::test]
async fn the_state_of_a_left_room_has_what_its_timeline_hides() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    let hidden = json!({"history_visibility": "joined"});
    world.event(&room_id, &alice, ("m.room.history_visibility", Some("")), hidden).await;
    topic(&world, &room_id, &alice, "before").await;
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    world.change(&room_id, &bob, &bob, Membership::Leave).await;
    topic(&world, &room_id, &alice, "after").await;
    let answer = world.now(&bob, None, LEAVE).await;
    let room = left(&answer, &room_id);
    assert!(!bodies(room).contains(&"m.room.topic".to_owned()) && memberships(room).ends_with(&["join", "leave"]));
    let topics: Vec<_> = room["state"]["events"]
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|e| e["content"]["topic"].as_str())
        .collect();
    assert_eq!(topics, ["before"], "{:?}", state(room));
    let all = [state(room), bodies(room)].concat();
    assert!(all.iter().any(|label| label.starts_with("m.room.create")), "{all:?}");
    let nowhere = format!(r#"{{"room":{{"include_leave":true,"state":{{"not_rooms":["{room_id}"]}}}}}}"#);
    assert_eq!(state(left(&world.now(&bob, None, &nowhere).await, &room_id)), [""; 0]);
    let lazy = r#"{"room":{"include_leave":true,"state":{"lazy_load_members":true},"timeline":{"types":[]}}}"#;
    let answer = world.now(&bob, None, lazy).await;
    let members: Vec<_> = state(left(&answer, &room_id)).into_iter().filter(|key| key.contains("member")).collect();
    assert_eq!(members, ["m.room.member/@bob:hearth.test"], "one's own is needed");
}

#[tokio::test]
async fn a_first_answer_tells_of_kicks_but_not_of_invitations_taken_back() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (kicked, uninvited) = (world.room(&alice, &[&bob]).await, world.room(&alice, &[]).await);
    world.change(&kicked, &alice, &bob, Membership::Leave).await;
    world.change(&uninvited, &alice, &bob, Membership::Invite).await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.change(&uninvited, &alice, &bob, Membership::Leave).await;
    let first = world.now(&bob, None, "{}").await;
    assert!(left(&first, &kicked).is_object() && left(&first, &uninvited).is_null(), "{first}");
    let news = world.now(&bob, Some(&since), "{}").await;
    assert_eq!(memberships(left(&news, &uninvited)), ["leave"]);
    let asked = world.now(&bob, None, LEAVE).await;
    assert!(left(&asked, &uninvited).is_object(), "{asked}");
    world.rooms.forget(&bob.user_id, &kicked).await.expect("forgotten");
    assert!(left(&world.now(&bob, None, LEAVE).await, &kicked).is_null());
}

#[tokio::test]
async fn a_room_without_timeline_ends_with_the_leave_in_its_state() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let since = next(&world.now(&bob, None, "{}").await);
    topic(&world, &room_id, &alice, "before").await;
    world.change(&room_id, &bob, &bob, Membership::Leave).await;
    topic(&world, &room_id, &alice, "after").await;
    let filter = r#"{"room":{"include_leave":true,"timeline":{"limit":0}}}"#;
    for (since, all) in [(None, 8), (Some(since.as_str()), 2)] {
        let answer = world.now(&bob, since, filter).await;
        let room = left(&answer, &room_id);
        assert_eq!(room["timeline"]["events"], json!([]));
        assert_eq!(room["timeline"]["limited"], true);
        assert_eq!(state(room).len(), all, "{:?}", state(room));
        let own = room["state"]["events"].as_array().expect("events").iter();
        let own: Vec<_> = own.filter(|e| e["state_key"] == bob.user_id.as_str()).collect();
        assert_eq!(own[0]["content"]["membership"], "leave");
        assert!(answer.to_string().contains("before") && !answer.to_string().contains("after"), "{answer}");
    }
}

#[tokio::test]
async fn account_data_stored_outside_of_a_room_comes_with_it() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    let tag = NewAccountData { room: Some(room_id.clone()), kind: "m.tag".into(), json: r#"{"tags":{}}"#.into() };
    world.accounts.set_account_data(bob.user, tag).await.expect("stored");
    let since = next(&world.now(&bob, None, "{}").await);
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    let answer = world.now(&bob, Some(&since), "{}").await;
    assert_eq!(joined(&answer, &room_id)["account_data"]["events"][0]["type"], "m.tag", "{answer}");
    world.say(&room_id, &alice, "hello").await;
    let answer = world.now(&bob, Some(&next(&answer)), "{}").await;
    assert_eq!(joined(&answer, &room_id)["account_data"]["events"], json!([]), "it is told once");
}

#[tokio::test]
async fn who_is_outside_sees_the_room_as_it_was() {
    let world = World::new();
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let room_id = world.room(&alice, &[&carol]).await;
    let named =
        async |name: &str| world.event(&room_id, &alice, ("m.room.name", Some("")), json!({ "name": name })).await;
    let huge = "x".repeat(60_000);
    topic(&world, &room_id, &alice, &huge).await;
    named("then").await;
    world.event(&room_id, &alice, ("m.room.avatar", Some("")), json!({ "url": huge })).await;
    world.change(&room_id, &alice, &bob, Membership::Invite).await;
    named("now").await;
    let answer = world.now(&bob, None, "{}").await;
    let events = answer["rooms"]["invite"][room_id.as_str()]["invite_state"]["events"].as_array().expect("events");
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    for kind in ["m.room.create", "m.room.name", "m.room.join_rules"] {
        assert!(kinds.contains(&kind), "{kind} is not in {kinds:?}");
    }
    assert!(answer.to_string().contains("then") && !answer.to_string().contains(r#""now""#));
    let members: Vec<_> = events.iter().filter_map(|event| event["content"]["membership"].as_str()).collect();
    assert_eq!(members, ["join", "invite"], "who invites, and who is invited");
    assert_eq!(kinds.iter().filter(|kind| matches!(**kind, "m.room.topic" | "m.room.avatar")).count(), 1, "{kinds:?}");
    assert!(answer.to_string().len() < 80_000);
}
