//! Who gets into a room, and out of it again.

use hearth_test_harness::pct;
use serde_json::json;

use crate::pair::Pair;
use crate::people::{agree, eventually};

#[tokio::test]
async fn a_direct_chat_begins_with_an_invitation() {
    let pair = Pair::new().await;
    for (here, there) in pair.both_ways() {
        let (alice, bob) = (here.person("alice").await, there.person("bob").await);
        let body = json!({"preset": "trusted_private_chat", "is_direct": true, "invite": [bob.id()], "name": "Us two"});
        let room = alice.create(&body).await;
        let shown = bob.is_invited(&room).await;
        let own = shown.iter().find(|event| event["state_key"] == bob.id()).expect("the invitation itself is shown");
        assert_eq!((&own["content"]["membership"], &own["content"]["is_direct"]), (&json!("invite"), &json!(true)));
        assert!(shown.iter().any(|event| event["content"]["name"] == "Us two"), "{shown:?}");
        bob.join(&room, &here).await;
        alice.sees_membership(&room, &bob, "join").await;
        let message = bob.say(&room, "nobody else hears this").await;
        alice.sees(&room, &message).await;
        let message = alice.say(&room, "nor this").await;
        bob.sees(&room, &message).await;
        agree(&room, &alice, &bob).await;
    }
}

#[tokio::test]
async fn an_invitation_is_rejected_or_taken_back() {
    let pair = Pair::new().await;
    for (here, there) in pair.both_ways() {
        let (alice, bob) = (here.person("alice").await, there.person("bob").await);
        let room = alice.create(&json!({"preset": "private_chat"})).await;
        alice.does("invite", &room, &bob).await;
        bob.is_invited(&room).await;
        bob.leave(&room).await;
        alice.sees_membership(&room, &bob, "leave").await;
        assert_eq!(bob.try_join(&room, &here).await.status, 403, "a private room needs an invitation");

        alice.does("invite", &room, &bob).await;
        bob.is_invited(&room).await;
        alice.does("kick", &room, &bob).await;
        eventually("the invitation goes", async || {
            let answer = bob.try_join(&room, &here).await;
            if answer.status == 403 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text)) }
        })
        .await;
    }
}

#[tokio::test]
async fn somebody_who_knocks_is_let_in_or_not() {
    let pair = Pair::new().await;
    for (here, there) in pair.both_ways() {
        let (alice, bob) = (here.person("alice").await, there.person("bob").await);
        let rules = json!({"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}});
        let body = json!({"preset": "private_chat", "room_version": "10", "name": "Knock", "initial_state": [rules]});
        let room = alice.create(&body).await;
        let via = pct(&here.name);
        let path = format!("/knock/{}?server_name={via}&via={via}", pct(&room));
        for verdict in ["kick", "invite"] {
            let answer = bob.post(&path, &json!({"reason": "it rains"})).await;
            answer.expect_status(200).unwrap_or_else(|other| panic!("{other}"));
            alice.sees_membership(&room, &bob, "knock").await;
            bob.syncs("the knock", |sync| {
                let shown = sync["rooms"]["knock"][&room]["knock_state"]["events"].as_array()?;
                shown.iter().any(|event| event["content"]["name"] == "Knock").then_some(())
            })
            .await;
            assert_eq!(bob.try_join(&room, &here).await.status, 403);
            alice.does(verdict, &room, &bob).await;
            let then = if verdict == "kick" { "leave" } else { "invite" };
            alice.sees_membership(&room, &bob, then).await;
        }
        bob.is_invited(&room).await;
        bob.join(&room, &here).await;
        agree(&room, &alice, &bob).await;
    }
}

#[tokio::test]
async fn a_restricted_room_lets_in_who_is_in_another() {
    let pair = Pair::new().await;
    for (here, there) in pair.both_ways() {
        for version in ["8", "10", "12"] {
            let (alice, bob) = (here.person("alice").await, there.person("bob").await);
            let club = alice.create_public(version).await;
            let allow = json!([{"type": "m.room_membership", "room_id": club}]);
            let rules = json!({"join_rule": "restricted", "allow": allow});
            let rules = json!({"type": "m.room.join_rules", "state_key": "", "content": rules});
            let body = json!({"preset": "private_chat", "room_version": version, "initial_state": [rules]});
            let room = alice.create(&body).await;
            assert_eq!(bob.try_join(&room, &here).await.status, 403, "not yet in the club");
            bob.join(&club, &here).await;
            alice.sees_membership(&club, &bob, "join").await;
            bob.join(&room, &here).await;
            alice.sees_membership(&room, &bob, "join").await;
            let path = format!("/rooms/{}/state/m.room.member/{}", pct(&room), pct(bob.id()));
            let member = alice.get(&path).await.body;
            assert_eq!(member["join_authorised_via_users_server"], alice.id());
            let message = bob.say(&room, "a member of the club").await;
            alice.sees(&room, &message).await;
            agree(&room, &alice, &bob).await;
        }
    }
}

#[tokio::test]
async fn members_leave_are_kicked_banned_and_come_back() {
    let pair = Pair::new().await;
    for (here, there) in pair.both_ways() {
        let (alice, bob, carol) = (here.person("alice").await, there.person("bob").await, there.person("carol").await);
        let room = alice.create_public("11").await;
        // The other server stays in the room by her when he is not.
        carol.join(&room, &here).await;
        bob.join(&room, &here).await;
        alice.sees_membership(&room, &bob, "join").await;
        bob.leave(&room).await;
        alice.sees_membership(&room, &bob, "leave").await;
        bob.join(&room, &here).await;
        alice.sees_membership(&room, &bob, "join").await;

        alice.does("kick", &room, &bob).await;
        carol.sees_membership(&room, &bob, "leave").await;
        assert_eq!(bob.try_say(&room, "am I here?").await.status, 403);
        bob.join(&room, &here).await;
        alice.sees_membership(&room, &bob, "join").await;

        alice.does("ban", &room, &bob).await;
        carol.sees_membership(&room, &bob, "ban").await;
        assert_eq!(bob.try_join(&room, &here).await.status, 403);
        alice.does("unban", &room, &bob).await;
        carol.sees_membership(&room, &bob, "leave").await;
        bob.join(&room, &here).await;
        alice.sees_membership(&room, &bob, "join").await;
        agree(&room, &alice, &bob).await;
    }
}

#[tokio::test]
async fn a_server_that_everybody_left_comes_back_to_what_it_missed() {
    let pair = Pair::new().await;
    for (here, there) in pair.both_ways() {
        let (alice, bob) = (here.person("alice").await, there.person("bob").await);
        let room = alice.create_public("11").await;
        bob.join(&room, &here).await;
        alice.sees_membership(&room, &bob, "join").await;
        bob.leave(&room).await;
        alice.sees_membership(&room, &bob, "leave").await;
        alice.set_state(&room, "m.room.topic", "", &json!({"topic": "while you were away"})).await;
        alice.say(&room, "nobody at the other side").await;
        bob.join(&room, &here).await;
        let message = alice.say(&room, "welcome back").await;
        bob.sees(&room, &message).await;
        agree(&room, &alice, &bob).await;
    }
}
