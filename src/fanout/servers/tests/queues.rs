//! Queues of destinations that answer, do not answer, and come back.

use std::time::Duration;

use hearth_base::Millis;

use super::*;
use crate::testing::START;

const BOB: &str = "@bob:b.test";
const B: &str = "b.test";
const MINUTE: Duration = Duration::from_secs(60);

async fn with_bob(settings: OutboundSettings) -> (Desk, ruma_common::OwnedRoomId) {
    let desk = Desk::at(World::new(), settings);
    let room_id = desk.world.room(&[]).await;
    desk.world.relay(&room_id, BOB, "join").await;
    (desk, room_id)
}

fn wait(step: Step) -> u64 {
    match step {
        Step::Wait(Millis(at)) => at,
        other => panic!("no wait: {other:?}"),
    }
}

#[tokio::test]
async fn events_leave_in_order_and_fifty_at_a_time() {
    let (mut desk, room_id) = with_bob(OutboundSettings::default()).await;
    let mut said = Vec::new();
    for n in 0..120 {
        said.push(n.to_string());
        desk.world.say(&room_id, &n.to_string()).await;
    }
    let arrived = desk.deliver(B).await;
    assert_eq!(arrived.iter().map(|transaction| transaction.words().len()).collect::<Vec<_>>(), [50, 50, 20]);
    assert_eq!(arrived.iter().flat_map(Arrived::words).collect::<Vec<_>>(), said);
    let ids: std::collections::BTreeSet<_> = arrived.iter().map(|transaction| &transaction.id).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(arrived[0].body["origin"], "hearth.test");
    assert_eq!(arrived[0].body["origin_server_ts"], START);
    assert_eq!(desk.rows(B).await, (0, false, None));
}

#[tokio::test]
async fn large_events_go_in_several_transactions() {
    let (mut desk, room_id) = with_bob(OutboundSettings::default()).await;
    for _ in 0..40 {
        desk.world.say(&room_id, &"x".repeat(60_000)).await;
    }
    let arrived = desk.deliver(B).await;
    assert_eq!(arrived.iter().map(|transaction| transaction.words().len()).collect::<Vec<_>>(), [17, 17, 6]);
    assert_eq!(desk.rows(B).await, (0, false, None));
}

#[tokio::test]
async fn the_same_transaction_is_repeated_also_after_a_crash() {
    let (mut desk, room_id) = with_bob(OutboundSettings::default()).await;
    desk.world.say(&room_id, "1").await;
    *desk.script.mood.lock() = Mood::Down;
    let first = desk.deliver(B).await;
    assert_eq!(first.len(), 1);
    desk.world.say(&room_id, "2").await;
    assert_eq!(desk.rows(B).await, (1, true, Some(1)));

    let mut desk = desk.restarted();
    assert_eq!(desk.deliver(B).await, [], "also the pause is remembered");
    desk.world.clock.advance(2 * MINUTE);
    let second = desk.deliver(B).await;
    assert_eq!(second[0], first[0], "the same id, time and events, although there is more by now");
    assert_eq!(second.iter().flat_map(Arrived::words).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(desk.rows(B).await, (0, false, None));
}

#[tokio::test]
async fn a_destination_that_fails_fifty_times_is_asked_ever_more_seldom_and_gets_everything() {
    let settings = OutboundSettings { catch_up_after: Duration::from_secs(u64::MAX / 1000), ..Default::default() };
    let (mut desk, room_id) = with_bob(settings).await;
    desk.world.say(&room_id, "1").await;
    desk.consume().await;
    *desk.script.mood.lock() = Mood::Down;
    let mut sender = desk.sender(B);
    let mut last = 0;
    for attempt in 1..=50 {
        let at = wait(desk.work(&mut sender).await);
        assert_eq!(desk.script.take().len(), 1, "one attempt at a time");
        let pause = at - desk.world.now().0;
        assert!(pause > last / 2 && pause <= 7 * 24 * 3_600_000 * 6 / 5, "{attempt}: {pause}");
        last = pause;
        assert_eq!(wait(desk.work(&mut sender).await), at, "nothing before its time");
        assert_eq!(desk.script.take(), []);
        desk.world.clock.advance(Duration::from_millis(pause));
    }
    assert_eq!(desk.rows(B).await, (1, true, Some(50)));
    *desk.script.mood.lock() = Mood::Well;
    assert_eq!(desk.work(&mut sender).await, Step::Idle);
    assert_eq!(desk.script.words(), ["1"]);
    assert_eq!(desk.rows(B).await, (0, false, None));
}

#[tokio::test]
async fn after_an_hour_with_many_events_only_the_latest_of_each_room_are_sent() {
    let (mut desk, first_room) = with_bob(OutboundSettings::default()).await;
    let second_room = desk.world.room(&[]).await;
    desk.world.relay(&second_room, BOB, "join").await;
    *desk.script.mood.lock() = Mood::Down;
    desk.world.say(&first_room, "under way").await;
    desk.consume().await;
    let mut sender = desk.sender(B);
    desk.work(&mut sender).await;
    desk.script.take();
    for n in 0..1_000 {
        desk.world.say(&first_room, &n.to_string()).await;
        if n % 10 == 0 {
            desk.world.say(&second_room, &format!("second {n}")).await;
        }
    }
    let progress = desk.follower.progress();
    desk.consume().await;
    assert_eq!(desk.rows(B).await.0, 1_101);
    desk.outbound.flush(*progress.borrow());
    // Already while it is down: nothing grows without end.
    wait(desk.work(&mut sender).await);
    assert_eq!(desk.rows(B).await.0, 2);
    desk.world.clock.advance(60 * MINUTE);
    *desk.script.mood.lock() = Mood::Well;
    desk.work(&mut sender).await;
    assert_eq!(desk.script.words(), ["under way", "second 990", "999"]);
    // From then on everything is sent again.
    for word in ["a", "b", "c"] {
        desk.world.say(&first_room, word).await;
    }
    desk.consume().await;
    desk.outbound.flush(*progress.borrow());
    desk.work(&mut sender).await;
    assert_eq!(desk.script.words(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_short_queue_is_sent_whole_after_a_short_time_and_thinned_out_after_a_long_one() {
    for (minutes, expected) in [(5, vec!["0", "1", "2", "3"]), (90, vec!["0", "3"])] {
        let (mut desk, room_id) = with_bob(OutboundSettings::default()).await;
        *desk.script.mood.lock() = Mood::Down;
        desk.world.say(&room_id, "0").await;
        desk.deliver(B).await;
        for word in ["1", "2", "3"] {
            desk.world.say(&room_id, word).await;
        }
        desk.world.clock.advance(minutes * MINUTE);
        *desk.script.mood.lock() = Mood::Well;
        let words: Vec<_> = desk.deliver(B).await.iter().flat_map(Arrived::words).collect();
        assert_eq!(words, expected, "{minutes} minutes");
    }
}

#[tokio::test]
async fn who_is_heard_from_is_tried_at_once() {
    let (mut desk, room_id) = with_bob(OutboundSettings::default()).await;
    desk.world.say(&room_id, "1").await;
    desk.consume().await;
    *desk.script.mood.lock() = Mood::Down;
    let mut sender = desk.sender(B);
    for _ in 0..10 {
        let at = wait(desk.work(&mut sender).await);
        desk.world.clock.advance(Millis(at).since(desk.world.now()));
    }
    wait(desk.work(&mut sender).await);
    desk.script.take();
    desk.outbound.heard_from(&server("elsewhere.test"));
    desk.outbound.heard_from(&server(B));
    wait(desk.work(&mut sender).await);
    assert_eq!(desk.script.take(), [], "but not in the same moment");
    desk.world.clock.advance(Duration::from_secs(10));
    *desk.script.mood.lock() = Mood::Well;
    assert_eq!(desk.work(&mut sender).await, Step::Idle);
    assert_eq!(desk.script.words(), ["1"]);
}

#[tokio::test]
async fn a_redacted_event_leaves_in_its_redacted_form() {
    let (mut desk, room_id) = with_bob(OutboundSettings::default()).await;
    let secret = desk.world.say(&room_id, "secret").await;
    *desk.script.mood.lock() = Mood::Down;
    assert!(desk.deliver(B).await[0].body.to_string().contains("secret"));
    desk.world.redact(&room_id, &secret).await;
    *desk.script.mood.lock() = Mood::Well;
    desk.world.clock.advance(2 * MINUTE);
    let arrived = desk.deliver(B).await;
    assert_eq!(arrived.iter().flat_map(Arrived::words).collect::<Vec<_>>(), ["m.room.message", "m.room.redaction"]);
    assert!(!arrived[0].body.to_string().contains("secret"));
}

#[tokio::test]
async fn everything_runs_by_itself_and_goes_on_after_a_restart() {
    let settings = OutboundSettings {
        first_retry: Duration::from_millis(1),
        longest_retry: Duration::from_millis(1),
        ..OutboundSettings::default()
    };
    let (mut desk, room_id) = with_bob(settings).await;
    *desk.script.mood.lock() = Mood::Down;
    desk.world.say(&room_id, "left over").await;
    desk.deliver(B).await;
    let desk = desk.restarted();
    desk.world.clock.advance(MINUTE);
    let Desk { world, script, outbound, follower } = desk;
    let (hear, heard) = broadcast::channel(4);
    let following = tokio::spawn(follower.run(world.shutdown.clone()));
    let running = tokio::spawn(outbound.run(heard));
    let until = async |word: &str| {
        let arrives = async {
            while !script.arrived.lock().iter().flat_map(Arrived::words).any(|found| found == word) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), arrives).await.expect("it arrives");
    };
    until("left over").await;
    *script.mood.lock() = Mood::Down;
    world.say(&room_id, "new").await;
    until("new").await;
    script.take();
    *script.mood.lock() = Mood::Well;
    world.clock.advance(MINUTE);
    hear.send(server(B)).expect("somebody listens");
    until("new").await;
    world.shutdown.cancel();
    let ended = async { (following.await.expect("no panic"), running.await.expect("no panic")) };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("they stop");
}
