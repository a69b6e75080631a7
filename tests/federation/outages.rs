//! Servers that lose each other, and find each other again.

use hearth_test_harness::pct;
use serde_json::json;

use crate::pair::Pair;
use crate::people::{Person, Side, agree, sees_history};

/// Both are moderators of a room that both are in.
async fn moderated(here: &Side, there: &Side, version: &str) -> (Person, Person, String) {
    let (alice, bob) = (here.person("alice").await, there.person("bob").await);
    let room = alice.create_public(version).await;
    bob.join(&room, here).await;
    alice.sees_membership(&room, &bob, "join").await;
    let mut users = json!({bob.id(): 100});
    if version != "12" {
        users[alice.id()] = json!(100);
    }
    let levels = alice.set_state(&room, "m.room.power_levels", "", &json!({"users": users})).await;
    bob.sees(&room, &levels).await;
    agree(&room, &alice, &bob).await;
    (alice, bob, room)
}

#[tokio::test]
async fn conflicting_state_of_a_partition_is_resolved_alike() {
    let pair = Pair::apart().await;
    let mut parties = Vec::new();
    // Each algorithm for resolving state: that of version 1, of 2 to 11, of 12.
    for version in ["1", "10", "12"] {
        for (here, there) in pair.both_ways() {
            let (carol, dan) = (here.person("carol").await, there.person("dan").await);
            let (alice, bob, room) = moderated(&here, &there, version).await;
            carol.join(&room, &there).await;
            dan.join(&room, &here).await;
            agree(&room, &alice, &bob).await;
            parties.push((alice, bob, carol, dan, room));
        }
    }
    pair.cut();
    for (alice, bob, carol, dan, room) in &parties {
        let mut levels = alice.get(&format!("/rooms/{}/state/m.room.power_levels", pct(room))).await.body;
        levels["events"] = json!({"m.room.topic": 100});
        alice.set_state(room, "m.room.power_levels", "", &levels).await;
        alice.set_state(room, "m.room.topic", "", &json!({"topic": "hers"})).await;
        alice.does("ban", room, dan).await;
        for number in 0..5 {
            alice.say(room, &format!("hers {number}")).await;
        }
        bob.set_state(room, "m.room.name", "", &json!({"name": "his"})).await;
        bob.set_state(room, "m.room.topic", "", &json!({"topic": "his"})).await;
        bob.does("kick", room, carol).await;
        // Banned at the other side, which this one cannot know.
        dan.say(room, "still here").await;
        for number in 0..5 {
            bob.say(room, &format!("his {number}")).await;
        }
    }
    pair.mend();
    for (alice, bob, _, _, room) in &parties {
        // Something new on each side leads the other to what it missed.
        let (hers, his) = (alice.say(room, "hello?").await, bob.say(room, "hello!").await);
        alice.sees(room, &his).await;
        bob.sees(room, &hers).await;
        agree(room, alice, bob).await;
        let (hers, his) = (alice.say(room, "so we agree").await, bob.say(room, "we do").await);
        alice.sees(room, &his).await;
        bob.sees(room, &hers).await;
        agree(room, alice, bob).await;
    }
}

#[tokio::test]
async fn a_peer_that_was_down_receives_everything() {
    let pair = Pair::apart().await;
    let (alice, bob, room) = moderated(&pair.ours(), &pair.theirs(), "11").await;
    pair.peer().kill();
    let topic = alice.set_state(&room, "m.room.topic", "", &json!({"topic": "you are down"})).await;
    let mut sent = said(&alice, &room).await;
    pair.peer().restart().await;
    // Hearth tries again by itself; Synapse, in its place, when there is something new.
    if pair.is_self_check() {
        sent.push(alice.say(&room, "are you back?").await);
    }
    sees_history(&bob, &room, &sent).await;
    let state = agree(&room, &alice, &bob).await;
    assert_eq!(state[&("m.room.topic".to_owned(), String::new())], topic);
}

#[tokio::test]
async fn a_killed_server_catches_up() {
    let mut pair = Pair::apart().await;
    let (alice, bob, room) = moderated(&pair.ours(), &pair.theirs(), "11").await;
    let before = alice.say(&room, "the last thing before the crash").await;
    pair.kill_ours();
    let topic = bob.set_state(&room, "m.room.topic", "", &json!({"topic": "are you down?"})).await;
    let mut sent = said(&bob, &room).await;
    pair.restart_ours().await;
    sent.push(bob.say(&room, "are you back?").await);
    sees_history(&alice, &room, &sent).await;
    // What was acknowledged before the crash is not lost to others either.
    sees_history(&bob, &room, &[before]).await;
    let state = agree(&room, &alice, &bob).await;
    assert_eq!(state[&("m.room.topic".to_owned(), String::new())], topic);
}

#[tokio::test]
async fn a_restarted_server_asks_for_what_it_missed() {
    let mut pair = Pair::apart().await;
    // Synapse asks nobody.
    if pair.is_self_check() {
        return;
    }
    let (alice, bob, room) = moderated(&pair.ours(), &pair.theirs(), "11").await;
    pair.kill_ours();
    let sent = said(&bob, &room).await;
    pair.restart_ours().await;
    sees_history(&alice, &room, &sent).await;
    agree(&room, &alice, &bob).await;
}

/// Many messages; gives their IDs.
async fn said(person: &Person, room: &str) -> Vec<String> {
    let mut sent = Vec::new();
    for number in 0..80 {
        sent.push(person.say(room, &format!("for later {number}")).await);
    }
    sent
}
