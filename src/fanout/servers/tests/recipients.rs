//! Who is sent what.

use hearth_schema::Membership;
use serde_json::json;

use super::*;

const BOB: &str = "@bob:b.test";
const CAROL: &str = "@carol:c.test";

#[tokio::test]
async fn a_room_of_this_server_alone_is_nobody_elses_business() {
    let mut desk = Desk::new();
    let room_id = desk.world.room(&["ann"]).await;
    desk.world.say(&room_id, "1").await;
    desk.consume().await;
    assert!(desk.outbound.0.touched.lock().is_empty());
    assert_eq!(desk.rows("hearth.test").await, (0, false, None));
}

#[tokio::test]
async fn events_go_to_the_servers_that_were_in_the_room_then() {
    let mut desk = Desk::new();
    let room_id = desk.world.room(&[]).await;
    desk.world.say(&room_id, "before").await;
    desk.world.relay(&room_id, BOB, "join").await;
    desk.world.say(&room_id, "with bob").await;
    desk.world.relay(&room_id, CAROL, "join").await;
    desk.world.say(&room_id, "with both").await;
    desk.world.relay(&room_id, BOB, "leave").await;
    desk.world.say(&room_id, "with carol").await;
    // The consumer sees all of it only now, when bob has gone.
    let to = async |desk: &mut Desk, name: &str| {
        let arrived = desk.deliver(name).await;
        assert!(arrived.iter().all(|transaction| transaction.server == name));
        arrived.iter().flat_map(Arrived::words).collect::<Vec<_>>()
    };
    assert_eq!(to(&mut desk, "b.test").await, ["with bob", "m.room.member", "with both"], "not his own, on their way");
    assert_eq!(to(&mut desk, "c.test").await, ["with both", "m.room.member", "with carol"]);
    assert_eq!(desk.rows("b.test").await, (0, false, None));
}

#[tokio::test]
async fn a_consumer_that_is_up_to_date_finds_the_same() {
    let mut desk = Desk::new();
    let room_id = desk.world.room(&[]).await;
    desk.consume().await;
    for (user_id, membership) in [(BOB, "join"), (CAROL, "join"), (BOB, "leave"), (CAROL, "leave"), (BOB, "join")] {
        desk.world.relay(&room_id, user_id, membership).await;
        desk.consume().await;
        desk.world.say(&room_id, &format!("{user_id} {membership}")).await;
        desk.consume().await;
    }
    let words = |arrived: Vec<Arrived>| {
        let words: Vec<_> = arrived.iter().flat_map(Arrived::words).collect();
        words.into_iter().filter(|word| word != "m.room.member").collect::<Vec<_>>()
    };
    assert_eq!(words(desk.deliver("b.test").await), ["@bob:b.test join", "@carol:c.test join", "@bob:b.test join"]);
    assert_eq!(words(desk.deliver("c.test").await), ["@carol:c.test join", "@bob:b.test leave"]);
}

#[tokio::test]
async fn kicks_and_bans_reach_those_who_go_and_those_who_never_came() {
    let mut desk = Desk::new();
    let room_id = desk.world.room(&[]).await;
    desk.world.relay(&room_id, BOB, "join").await;
    desk.world.change(&room_id, "alice", BOB, Membership::Ban).await;
    desk.world.change(&room_id, "alice", CAROL, Membership::Ban).await;
    desk.world.say(&room_id, "alone").await;
    let bob: Vec<_> = desk.deliver("b.test").await.iter().flat_map(Arrived::words).collect();
    assert_eq!(bob, ["m.room.member"], "his ban, not carol's");
    let carol: Vec<_> = desk.deliver("c.test").await.iter().flat_map(Arrived::words).collect();
    assert_eq!(carol, ["m.room.member"]);
}

#[tokio::test]
async fn a_server_that_is_kept_out_hears_so_and_nothing_more() {
    let mut desk = Desk::new();
    let room_id = desk.world.room(&[]).await;
    desk.world.relay(&room_id, BOB, "join").await;
    desk.world.relay(&room_id, CAROL, "join").await;
    desk.world.say(&room_id, "1").await;
    let acl = json!({ "allow": ["*"], "deny": ["b.test"] });
    desk.world.send(&room_id, ("m.room.server_acl", Some("")), acl).await;
    desk.world.say(&room_id, "2").await;
    let bob: Vec<_> = desk.deliver("b.test").await.iter().flat_map(Arrived::words).collect();
    assert_eq!(bob, ["m.room.member", "1", "m.room.server_acl"]);
    let carol: Vec<_> = desk.deliver("c.test").await.iter().flat_map(Arrived::words).collect();
    assert_eq!(carol, ["1", "m.room.server_acl", "2"]);
}

#[tokio::test]
async fn consuming_again_after_a_crash_sends_the_same_again() {
    let mut desk = Desk::new();
    let room_id = desk.world.room(&[]).await;
    desk.world.relay(&room_id, BOB, "join").await;
    desk.world.say(&room_id, "1").await;
    desk.consume().await;
    assert_eq!(desk.rows("b.test").await.0, 1);
    // The cursor and the rows are one batch: a crash loses both or none.
    let mut desk = desk.restarted();
    desk.consume().await;
    assert_eq!(desk.rows("b.test").await.0, 1);
    desk.world.say(&room_id, "2").await;
    let words: Vec<_> = desk.deliver("b.test").await.iter().flat_map(Arrived::words).collect();
    assert_eq!(words, ["1", "2"]);
}
