use hearth_rooms::{NewReceipt, Typing};
use hearth_schema::{Membership, ReceiptKind};
use serde_json::{Value, json};
use std::time::Duration;

use crate::testing::*;
use crate::{SyncError, SyncRequest, TokenError};

#[tokio::test]
async fn the_first_answer_has_the_room_whole() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    world.say(&room_id, &bob, "hello").await;
    let answer = world.now(&alice, None, r#"{"room":{"timeline":{"limit":1}}}"#).await;
    let room = joined(&answer, &room_id);
    assert_eq!(bodies(room), ["hello"]);
    assert_eq!(room["timeline"]["limited"], true);
    assert_eq!(
        state(room),
        [
            "m.room.create/",
            "m.room.guest_access/",
            "m.room.history_visibility/",
            "m.room.join_rules/",
            "m.room.member/@alice:hearth.test",
            "m.room.member/@bob:hearth.test",
            "m.room.power_levels/"
        ]
    );
    assert_eq!(
        room["summary"],
        json!({"m.heroes": ["@bob:hearth.test"], "m.joined_member_count": 2, "m.invited_member_count": 0})
    );
    assert_eq!(room["unread_notifications"], json!({"highlight_count": 0, "notification_count": 1}));
    assert_eq!(answer["account_data"]["events"][0]["type"], "m.push_rules");
    assert!(answer["account_data"]["events"][0]["content"]["global"]["override"].is_array());
}

#[tokio::test]
async fn nothing_new_says_nothing() {
    let world = World::new();
    let alice = world.user("alice").await;
    world.room(&alice, &[]).await;
    let since = next(&world.now(&alice, None, "{}").await);
    let answer = world.now(&alice, Some(&since), "{}").await;
    assert_eq!(answer, json!({"next_batch": since, "device_one_time_keys_count": {}}));
}

#[tokio::test]
async fn a_message_comes_with_its_transaction_to_its_device_only() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let (a, b) = (next(&world.now(&alice, None, "{}").await), next(&world.now(&bob, None, "{}").await));
    let event_id = world.say(&room_id, &alice, "hi").await;
    let (to_alice, to_bob) = (world.now(&alice, Some(&a), "{}").await, world.now(&bob, Some(&b), "{}").await);
    let [to_alice, to_bob] = [&to_alice, &to_bob].map(|answer| &joined(answer, &room_id)["timeline"]["events"][0]);
    assert_eq!(to_alice["event_id"], event_id);
    assert!(to_alice["unsigned"]["transaction_id"].is_string());
    assert_eq!(to_bob["event_id"], event_id);
    assert_eq!(to_bob["unsigned"]["transaction_id"], Value::Null);
    assert_eq!(to_bob["unsigned"]["membership"], "join");
}

#[tokio::test]
async fn a_gap_is_limited_and_its_state_comes_first() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.event(&room_id, &alice, ("m.room.topic", Some("")), json!({"topic": "old"})).await;
    world.event(&room_id, &alice, ("m.room.topic", Some("")), json!({"topic": "gap"})).await;
    for n in 0..5 {
        world.say(&room_id, &alice, &n.to_string()).await;
    }
    world.event(&room_id, &alice, ("m.room.name", Some("")), json!({"name": "shown"})).await;
    let answer = world.now(&bob, Some(&since), r#"{"room":{"timeline":{"limit":3}}}"#).await;
    let room = joined(&answer, &room_id);
    assert_eq!(bodies(room), ["3", "4", "m.room.name"]);
    assert_eq!(room["timeline"]["limited"], true);
    assert_eq!(state(room), ["m.room.topic/"], "the name is in the timeline");
    assert_eq!(room["state"]["events"][0]["content"]["topic"], "gap");
    // What the timeline's filter takes away must come as state.
    let filter = r#"{"room":{"timeline":{"types":["m.room.message"]}}}"#;
    let answer = world.now(&bob, Some(&since), filter).await;
    assert_eq!(bodies(joined(&answer, &room_id)), ["0", "1", "2", "3", "4"]);
    assert_eq!(state(joined(&answer, &room_id)), ["m.room.name/", "m.room.topic/"]);
    // And the end of the gap leads to its other end.
    let prev = room["timeline"]["prev_batch"].as_str().expect("prev_batch");
    let from = crate::PageToken::parse(prev, world.sync.incarnation()).expect("a token").pos;
    let to = crate::PageToken::parse(&since, world.sync.incarnation()).expect("a token").pos;
    let query = hearth_rooms::HistoryQuery {
        room_id: room_id.clone(),
        from: Some(from),
        to: Some(to),
        direction: hearth_rooms::Direction::Backward,
        limit: 100,
        filter: hearth_rooms::EventFilter::default(),
    };
    let page = world.rooms.messages(&bob.user_id, &query).await.expect("a page");
    let types: Vec<_> = page.events.iter().map(|event| event.event_type()).collect();
    assert_eq!(types, ["m.room.message", "m.room.message", "m.room.message", "m.room.topic", "m.room.topic"]);
}

#[tokio::test]
async fn an_invitation_becomes_a_joined_room() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    world.event(&room_id, &alice, ("m.room.name", Some("")), json!({"name": "Tea"})).await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.change(&room_id, &alice, &bob, Membership::Invite).await;
    let answer = world.now(&bob, Some(&since), "{}").await;
    let invite = answer["rooms"]["invite"][room_id.as_str()]["invite_state"]["events"].as_array().expect("events");
    let of = |kind: &str| invite.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    assert_eq!(of("m.room.name")[0]["content"]["name"], "Tea");
    assert_eq!(of("m.room.member").len(), 2, "who invites, and who is invited");
    assert_eq!(of("m.room.create").len(), 1);
    let stripped = |event: &serde_json::Value| if event["type"] == "m.room.create" { 5 } else { 4 };
    assert!(invite.iter().all(|event| event.as_object().is_some_and(|one| one.len() == stripped(event))), "stripped");
    let since = next(&answer);
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    let answer = world.now(&bob, Some(&since), "{}").await;
    let room = joined(&answer, &room_id);
    assert!(answer["rooms"]["invite"].is_null());
    assert_eq!(bodies(room).last().map(String::as_str), Some("m.room.member"));
    assert_eq!(room["timeline"]["limited"], true);
    assert_eq!(room["summary"]["m.joined_member_count"], 2);
}

#[tokio::test]
async fn a_joined_room_that_was_unknown_comes_with_all_its_state() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    let answer = world.now(&bob, Some(&since), r#"{"room":{"timeline":{"limit":1}}}"#).await;
    let room = joined(&answer, &room_id);
    assert_eq!(bodies(room), ["m.room.member"]);
    assert_eq!(state(room).len(), 6, "{:?}", state(room));
    // A change of name is no new room.
    let since = next(&answer);
    world.change(&room_id, &bob, &bob, Membership::Leave).await;
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    let answer = world.now(&bob, Some(&since), r#"{"room":{"timeline":{"limit":1}}}"#).await;
    assert_eq!(state(joined(&answer, &room_id)).len(), 7, "left and joined again: anew");
    let profile = hearth_rooms::MemberProfile { displayname: Some("Robert".into()), avatar_url: None };
    world.rooms.update_profile(&bob.user_id, &profile).await.expect("a profile");
    let answer = world.now(&bob, Some(&next(&answer)), "{}").await;
    assert_eq!(bodies(joined(&answer, &room_id)), ["m.room.member"]);
    assert_eq!(joined(&answer, &room_id)["timeline"]["limited"], false);
    assert_eq!(state(joined(&answer, &room_id)), [""; 0]);
}

#[tokio::test]
async fn a_left_room_ends_with_the_leave() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.say(&room_id, &alice, "before").await;
    world.change(&room_id, &alice, &bob, Membership::Leave).await;
    world.say(&room_id, &alice, "after").await;
    world.event(&room_id, &alice, ("m.room.topic", Some("")), json!({"topic": "after"})).await;
    let left = |answer: &Value| answer["rooms"]["leave"][room_id.as_str()].clone();
    let answer = world.now(&bob, Some(&since), LAZY).await;
    assert_eq!(bodies(&left(&answer)), ["before", "m.room.member"]);
    assert!(!answer.to_string().contains("after"), "{answer}");
    assert!(answer["rooms"]["join"].is_null());
    let quiet = world.now(&bob, Some(&next(&answer)), "{}").await;
    assert!(quiet["rooms"].is_null(), "it is told once: {quiet}");
    for filter in ["{}", r#"{"room":{"include_leave":true,"timeline":{"limit":2}}}"#] {
        let answer = world.now(&bob, None, filter).await;
        assert_eq!(bodies(&left(&answer)).last().map(String::as_str), Some("m.room.member"), "a kick is told of");
        assert!(!answer.to_string().contains("after"), "{answer}");
    }
    assert!(state(&left(&world.now(&bob, None, r#"{"room":{"timeline":{"limit":1}}}"#).await)).len() >= 6);
}

#[tokio::test]
async fn an_own_leave_is_shown_at_first_only_when_asked_for() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    world.change(&room_id, &bob, &bob, Membership::Leave).await;
    assert!(world.now(&bob, None, "{}").await["rooms"].is_null());
    let asked = world.now(&bob, None, r#"{"room":{"include_leave":true}}"#).await;
    assert!(asked["rooms"]["leave"][room_id.as_str()].is_object());
}

#[tokio::test]
async fn a_refused_invitation_shows_nothing_of_the_room() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    world.say(&room_id, &alice, "secret").await;
    world.change(&room_id, &alice, &bob, Membership::Invite).await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.change(&room_id, &bob, &bob, Membership::Leave).await;
    let answer = world.now(&bob, Some(&since), "{}").await;
    let room = &answer["rooms"]["leave"][room_id.as_str()];
    assert!(bodies(room).iter().all(|body| body == "m.room.member"), "{room}");
    assert_eq!(state(room), [""; 0]);
    assert!(!answer.to_string().contains("secret"));
}

#[tokio::test]
async fn history_before_a_join_stays_hidden() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    world
        .event(&room_id, &alice, ("m.room.history_visibility", Some("")), json!({"history_visibility": "joined"}))
        .await;
    world.say(&room_id, &alice, "secret").await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.change(&room_id, &bob, &bob, Membership::Join).await;
    world.say(&room_id, &alice, "welcome").await;
    for since in [None, Some(since.as_str())] {
        let answer = world.now(&bob, since, "{}").await;
        assert!(!answer.to_string().contains("secret"), "{answer}");
        assert_eq!(bodies(joined(&answer, &room_id)).last().map(String::as_str), Some("welcome"));
    }
}

#[tokio::test]
async fn receipts_move_counts_and_private_ones_stay_private() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    world.say(&room_id, &alice, "1").await;
    let second = world.say(&room_id, &alice, "2").await;
    let third = world.say(&room_id, &alice, "3").await;
    let (a, b) = (world.now(&alice, None, "{}").await, world.now(&bob, None, "{}").await);
    assert_eq!(joined(&b, &room_id)["unread_notifications"]["notification_count"], 3);
    assert_eq!(joined(&a, &room_id)["unread_notifications"]["notification_count"], 0, "own messages are read");
    let receipt = |kind, event_id: &str| NewReceipt {
        room_id: room_id.clone(),
        user_id: bob.user_id.clone(),
        kind,
        thread: None,
        event_id: event_id.try_into().expect("an event ID"),
    };
    world.rooms.set_receipt(&receipt(ReceiptKind::Read, &second)).await.expect("a receipt");
    let (a, b) = (world.now(&alice, Some(&next(&a)), "{}").await, world.now(&bob, Some(&next(&b)), "{}").await);
    assert_eq!(joined(&b, &room_id)["unread_notifications"]["notification_count"], 1);
    let shown = &joined(&a, &room_id)["ephemeral"]["events"][0];
    assert_eq!(shown["type"], "m.receipt");
    assert!(shown["content"][&second]["m.read"]["@bob:hearth.test"]["ts"].as_u64() <= Some(now().0));
    world.rooms.set_receipt(&receipt(ReceiptKind::ReadPrivate, &third)).await.expect("a receipt");
    let (a, b) = (world.now(&alice, Some(&next(&a)), "{}").await, world.now(&bob, Some(&next(&b)), "{}").await);
    assert!(a["rooms"].is_null(), "{a}");
    assert_eq!(joined(&b, &room_id)["unread_notifications"]["notification_count"], 0);
    assert!(joined(&b, &room_id)["ephemeral"]["events"][0]["content"][&third]["m.read.private"].is_object());
    for (who, shown) in [(&alice, false), (&bob, true)] {
        let all = world.now(who, None, "{}").await;
        assert_eq!(all.to_string().contains("m.read.private"), shown);
        assert!(all.to_string().contains(r#""m.read":{"@bob:hearth.test""#));
    }
}

#[tokio::test]
async fn account_data_comes_when_it_changes() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room_id = world.room(&alice, &[]).await;
    let since = next(&world.now(&alice, None, "{}").await);
    let item = |room: Option<&ruma_common::OwnedRoomId>, kind: &str| hearth_accounts::NewAccountData {
        room: room.cloned(),
        kind: kind.to_owned(),
        json: r#"{"a":1}"#.to_owned(),
    };
    world.accounts.set_account_data(alice.user, item(None, "org.x")).await.expect("stored");
    world.accounts.set_account_data(alice.user, item(Some(&room_id), "m.tag")).await.expect("stored");
    let answer = world.now(&alice, Some(&since), "{}").await;
    assert_eq!(answer["account_data"]["events"], json!([{"type": "org.x", "content": {"a": 1}}]));
    assert_eq!(joined(&answer, &room_id)["account_data"]["events"], json!([{"type": "m.tag", "content": {"a": 1}}]));
    let filter = r#"{"account_data":{"types":[]},"room":{"account_data":{"not_types":["m.*"]}}}"#;
    let filtered = world.now(&alice, Some(&since), filter).await;
    assert_eq!(filtered, json!({"next_batch": next(&answer), "device_one_time_keys_count": {}}));
    let all = world.now(&alice, None, "{}").await;
    assert_eq!(all["account_data"]["events"].as_array().map(Vec::len), Some(2));
    assert_eq!(joined(&all, &room_id)["account_data"]["events"][0]["type"], "m.tag");
}

#[tokio::test]
async fn typing_is_told_when_it_begins_and_when_it_ends() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let mut since = next(&world.now(&bob, None, "{}").await);
    let for_long = Typing::For(Duration::from_secs(60));
    for (typing, shown) in [(for_long, json!(["@alice:hearth.test"])), (Typing::Stopped, json!([]))] {
        world.rooms.set_typing(&room_id, &alice.user_id, typing).await.expect("typing");
        let answer = world.poll(&bob, &since).await;
        let events = &joined(&answer, &room_id)["ephemeral"]["events"];
        assert_eq!(*events, json!([{"type": "m.typing", "content": {"user_ids": shown}}]));
        since = next(&answer);
        assert!(world.now(&bob, Some(&since), "{}").await["rooms"].is_null(), "it is told once");
    }
}

#[tokio::test]
async fn tokens_and_filters_that_cannot_be_used_are_refused() {
    let world = World::new();
    let alice = world.user("alice").await;
    world.room(&alice, &[]).await;
    for (since, expected) in [
        ("s1_2", TokenError::Malformed),
        ("h1_1_9000000000000000_0_0", TokenError::UnknownPos),
        ("h1_2_1_0_0", TokenError::UnknownPos),
    ] {
        let error = world.fails(&alice, Some(since), None).await;
        assert!(matches!(&error, SyncError::Token(found) if *found == expected), "{since}: {error:?}");
    }
    for filter in ["{", "[]", "7", "no such", r#"{"room":7}"#] {
        let error = world.fails(&alice, None, Some(filter)).await;
        assert!(matches!(error, SyncError::Filter(_) | SyncError::UnknownFilter), "{filter}: {error:?}");
    }
    let id = world.accounts.store_filter(alice.user, r#"{"room":{"rooms":[]}}"#).await.expect("a filter");
    for _ in 0..2 {
        assert!(world.now(&alice, None, &id).await["rooms"].is_null());
    }
}

#[tokio::test]
async fn tokens_outlive_the_server() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.say(&room_id, &alice, "missed").await;
    let world = world.restarted().await;
    let answer = world.now(&bob, Some(&since), "{}").await;
    assert_eq!(bodies(joined(&answer, &room_id)), ["missed"]);
    assert_eq!(joined(&answer, &room_id)["unread_notifications"]["notification_count"], 1);
    let request = SyncRequest { since: Some(&since), full_state: true, ..SyncRequest::default() };
    let whole = world.ask(&bob, &request).await;
    assert_eq!(bodies(joined(&whole, &room_id)), ["missed"]);
    assert_eq!(state(joined(&whole, &room_id)).len(), 7);
}

#[tokio::test]
async fn a_knock_shows_the_room_to_who_waits_at_its_door() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[]).await;
    world.event(&room_id, &alice, ("m.room.name", Some("")), json!({"name": "Tea"})).await;
    world.event(&room_id, &alice, ("m.room.join_rules", Some("")), json!({"join_rule": "knock"})).await;
    world.say(&room_id, &alice, "secret").await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.change(&room_id, &bob, &bob, Membership::Knock).await;
    let answer = world.now(&bob, Some(&since), "{}").await;
    let events = answer["rooms"]["knock"][room_id.as_str()]["knock_state"]["events"].as_array().expect("events");
    assert!(events.iter().any(|event| event["content"]["name"] == "Tea"));
    assert!(events.iter().any(|event| event["content"]["membership"] == "knock"));
    assert!(!answer.to_string().contains("secret"));
    // Turned away: the room is left, and nothing of it was ever shown.
    world.change(&room_id, &alice, &bob, Membership::Leave).await;
    let answer = world.now(&bob, Some(&next(&answer)), "{}").await;
    assert!(answer["rooms"]["knock"].is_null());
    assert!(bodies(&answer["rooms"]["leave"][room_id.as_str()]).iter().all(|body| body == "m.room.member"));
    assert!(!answer.to_string().contains("secret"));
}

#[tokio::test]
async fn a_banned_member_is_told_and_sees_no_more() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let since = next(&world.now(&bob, None, "{}").await);
    world.change(&room_id, &alice, &bob, Membership::Ban).await;
    world.say(&room_id, &alice, "after").await;
    let answer = world.now(&bob, Some(&since), "{}").await;
    let room = &answer["rooms"]["leave"][room_id.as_str()];
    assert_eq!(room["timeline"]["events"][0]["content"]["membership"], "ban");
    assert!(!answer.to_string().contains("after"));
}

#[tokio::test]
async fn a_redacted_event_comes_redacted() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room_id = world.room(&alice, &[&bob]).await;
    let since = next(&world.now(&bob, None, "{}").await);
    let event_id = world.say(&room_id, &alice, "regretted").await;
    assert!(world.now(&bob, Some(&since), "{}").await.to_string().contains("regretted"));
    let redaction = hearth_rooms::SendEvent {
        room_id: room_id.clone(),
        sender: alice.user_id.clone(),
        event_type: "m.room.redaction".into(),
        state_key: None,
        content: object(json!({"redacts": event_id})),
        redacts: Some(event_id.as_str().try_into().expect("an event ID")),
        origin_server_ts: None,
        transaction: None,
    };
    let redaction = world.rooms.send(redaction).await.expect("a redaction").event_id;
    let answer = world.now(&bob, Some(&since), "{}").await;
    let events = &joined(&answer, &room_id)["timeline"]["events"];
    assert_eq!(events[0]["event_id"], event_id);
    assert_eq!(events[0]["content"], json!({}));
    assert_eq!(events[0]["unsigned"]["redacted_because"]["event_id"], redaction.as_str());
    assert_eq!(events[1]["event_id"], redaction.as_str());
    assert!(!answer.to_string().contains("regretted"));
}
