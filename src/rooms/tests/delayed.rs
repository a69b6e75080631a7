//! Delayed events: their time, their end, restarts, limits.

use std::sync::Arc;
use std::time::Duration;

use hearth_schema::{DelayedFailure, DelayedOutcome, Membership};
use hearth_store::Lane;
use ruma_common::RoomId;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, message, object, user};
use crate::{DelayLimits, DelayedAction, DelayedError, Preset, SendError, SendEvent};

const SECOND: Duration = Duration::from_secs(1);

impl Fixture {
    async fn later(&self, room: &RoomId, body: &str, delay: Duration) -> Result<String, DelayedError> {
        self.rooms.schedule(&message(room, &user("alice"), body, body), delay, DelayLimits::default()).await
    }

    /// Time passes, and what is due is sent.
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.rooms.send_due(&CancellationToken::new()).await;
    }

    async fn bodies(&self, room: &RoomId) -> Vec<String> {
        let history = self.history(room, &user("alice")).await;
        history.into_iter().filter(|label| !label.starts_with("m.")).collect()
    }

    async fn outcome(&self, id: &str) -> Option<DelayedOutcome> {
        let found = self.rooms.delayed_event(&user("alice"), id).await.expect("known");
        found.event.finalised.map(|finalised| finalised.outcome)
    }

    async fn act(&self, id: &str, action: DelayedAction) -> Result<(), DelayedError> {
        self.rooms.manage_delayed(id, action, None).await
    }

    async fn scheduled(&self) -> Vec<String> {
        let scheduled = self.rooms.scheduled_events(&user("alice")).await.expect("readable");
        scheduled.into_iter().map(|delayed| delayed.delay_id).collect()
    }
}

fn status(room: &RoomId, by: &str, words: &str) -> SendEvent {
    SendEvent {
        origin_server_ts: None,
        event_type: "m.room.topic".into(),
        state_key: Some(String::new()),
        content: object(json!({ "topic": words })),
        transaction: None,
        ..message(room, &user(by), "", "")
    }
}

#[tokio::test]
async fn events_are_sent_when_they_are_due_in_the_order_of_their_times() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    let third = fixture.later(&room, "third", 3 * SECOND).await.expect("scheduled");
    let first = fixture.later(&room, "first", SECOND).await.expect("scheduled");
    let second = fixture.later(&room, "second", 2 * SECOND).await.expect("scheduled");
    assert_eq!(fixture.scheduled().await, [first.clone(), second.clone(), third.clone()]);
    fixture.pass(Duration::from_millis(999)).await;
    assert_eq!(fixture.bodies(&room).await, [""; 0]);
    fixture.pass(Duration::from_millis(1)).await;
    assert_eq!(fixture.bodies(&room).await, ["first"]);
    fixture.pass(10 * SECOND).await;
    assert_eq!(fixture.bodies(&room).await, ["first", "second", "third"]);
    assert_eq!(fixture.scheduled().await, [""; 0]);
    assert!(matches!(fixture.outcome(&first).await, Some(DelayedOutcome::Sent { .. })));
    fixture.pass(100 * SECOND).await;
    assert_eq!(fixture.bodies(&room).await.len(), 3, "each once");
}

#[tokio::test]
async fn what_became_due_while_the_server_was_down_is_sent_at_the_start() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    fixture.later(&room, "soon", SECOND).await.expect("scheduled");
    fixture.later(&room, "sooner", SECOND / 2).await.expect("scheduled");
    let later = fixture.later(&room, "later", 60 * SECOND).await.expect("scheduled");
    let fixture = fixture.restarted().await;
    // The clock of the fixture begins anew.
    fixture.clock.advance(5 * SECOND);
    let stop = CancellationToken::new();
    let running = tokio::spawn(fixture.rooms.clone().run_delayed(stop.clone()));
    tokio::time::timeout(10 * SECOND, async {
        while fixture.scheduled().await.len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("sent");
    assert_eq!(fixture.bodies(&room).await, ["sooner", "soon"]);
    assert_eq!(fixture.scheduled().await, [later]);
    stop.cancel();
    running.await.expect("ended");
}

#[tokio::test]
async fn a_crash_between_sending_and_noting_that_does_not_send_twice() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    let id = fixture.later(&room, "once", SECOND).await.expect("scheduled");
    let other = fixture.later(&room, "twice", SECOND).await.expect("scheduled");
    // As the timer does, up to the crash.
    for id in [&id, &other] {
        let key = crate::delayed::parse_delay_id(id).expect("ours");
        let row = fixture.rooms.delayed_event(&user("alice"), id).await.expect("known").event;
        fixture.rooms.send(crate::delayed::to_send(&key, &row).expect("sound")).await.expect("sent");
    }
    let fixture = fixture.restarted().await;
    // Who wants to cancel it is told the truth.
    let refused = fixture.act(&other, DelayedAction::Cancel).await;
    assert!(matches!(refused, Err(DelayedError::Finalised(_))), "{refused:?}");
    assert_eq!(fixture.rooms.read_delayed(Lane::all().collect()).await, []);
    fixture.pass(5 * SECOND).await;
    assert_eq!(fixture.bodies(&room).await, ["once", "twice"]);
    assert!(matches!(fixture.outcome(&id).await, Some(DelayedOutcome::Sent { .. })));
}

#[tokio::test]
async fn a_restart_puts_off_a_cancellation_ends_and_sending_does_not_wait() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    let heart = fixture.later(&room, "heart", 10 * SECOND).await.expect("scheduled");
    for _ in 0..5 {
        fixture.pass(9 * SECOND).await;
        fixture.act(&heart, DelayedAction::Restart).await.expect("put off");
    }
    assert_eq!(fixture.bodies(&room).await, [""; 0]);
    fixture.pass(10 * SECOND).await;
    assert_eq!(fixture.bodies(&room).await, ["heart"]);

    let dropped = fixture.later(&room, "dropped", SECOND).await.expect("scheduled");
    fixture.act(&dropped, DelayedAction::Cancel).await.expect("cancelled");
    fixture.pass(5 * SECOND).await;
    let now = fixture.later(&room, "now", 1000 * SECOND).await.expect("scheduled");
    fixture.act(&now, DelayedAction::Send).await.expect("sent");
    assert_eq!(fixture.bodies(&room).await, ["heart", "now"]);

    // What has happened can be asked for again; its opposite cannot.
    fixture.act(&now, DelayedAction::Send).await.expect("it was sent");
    fixture.act(&dropped, DelayedAction::Cancel).await.expect("it was cancelled");
    for (id, action) in [
        (&now, DelayedAction::Cancel),
        (&now, DelayedAction::Restart),
        (&dropped, DelayedAction::Send),
        (&dropped, DelayedAction::Restart),
    ] {
        let refused = fixture.act(id, action).await;
        assert!(matches!(refused, Err(DelayedError::Finalised(_))), "{action:?}: {refused:?}");
    }
    assert!(matches!(fixture.act("abc", DelayedAction::Cancel).await, Err(DelayedError::NotFound)));
}

#[tokio::test]
async fn only_the_owner_sees_it_and_only_the_owner_acts_by_name() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PublicChat).await;
    let id = fixture.later(&room, "mine", SECOND).await.expect("scheduled");
    let bob = user("bob");
    assert!(matches!(fixture.rooms.delayed_event(&bob, &id).await, Err(DelayedError::NotFound)));
    assert_eq!(fixture.rooms.scheduled_events(&bob).await.expect("readable"), []);
    let refused = fixture.rooms.manage_delayed(&id, DelayedAction::Cancel, Some(&bob)).await;
    assert!(matches!(refused, Err(DelayedError::NotFound)));
    let by_alice = fixture.rooms.manage_delayed(&id, DelayedAction::Cancel, Some(&user("alice"))).await;
    by_alice.expect("hers");
}

#[tokio::test]
async fn the_room_judges_when_it_is_sent() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PublicChat).await;
    let bob = user("bob");
    let limits = DelayLimits::default();
    let outside = fixture.rooms.schedule(&message(&room, &bob, "x", "x"), SECOND, limits).await;
    assert!(matches!(outside, Err(DelayedError::Forbidden(_))), "{outside:?}");
    fixture.change(&room, (&bob, &bob), Membership::Join).await.expect("joined");
    let topic = fixture.rooms.schedule(&status(&room, "bob", "mine"), 9 * SECOND, limits).await.expect("scheduled");
    // Not by hand either, but it stays scheduled: the reason may go away.
    let early = fixture.act(&topic, DelayedAction::Send).await;
    assert!(matches!(early, Err(DelayedError::Send(SendError::Forbidden(_)))), "{early:?}");
    let words = fixture.rooms.schedule(&message(&room, &bob, "bye", "y"), SECOND, limits).await.expect("scheduled");
    fixture.change(&room, (&bob, &bob), Membership::Leave).await.expect("left");
    fixture.pass(10 * SECOND).await;
    for id in [topic, words] {
        let found = fixture.rooms.delayed_event(&bob, &id).await.expect("known").event.finalised.expect("ended");
        assert!(matches!(&found.outcome, DelayedOutcome::Failed { why: DelayedFailure::Forbidden, .. }), "{found:?}");
    }
    assert_eq!(fixture.bodies(&room).await, [""; 0]);
}

#[tokio::test]
async fn state_that_was_set_in_between_is_overwritten() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::TrustedPrivateChat).await;
    let topic = status(&room, "alice", "in the end");
    fixture.rooms.schedule(&topic, 2 * SECOND, DelayLimits::default()).await.expect("scheduled");
    fixture.rooms.send(status(&room, "alice", "in between")).await.expect("sent");
    fixture.pass(2 * SECOND).await;
    let event = fixture.rooms.state_event(&user("alice"), &room, "m.room.topic", "").await.expect("there");
    assert!(event.pdu.content().get().contains("in the end"));
}

#[tokio::test]
async fn nobody_schedules_more_or_later_than_allowed_not_even_at_once() {
    let fixture = Fixture::on_chaos(3);
    let room = fixture.room(Preset::PrivateChat).await;
    let limits = DelayLimits { max_delay: 60 * SECOND, max_scheduled: 5 };
    let alice = user("alice");
    let events: Vec<_> = (0..20).map(|n| message(&room, &alice, "x", &format!("t{n}"))).collect();
    let all = events.iter().map(|event| fixture.rooms.schedule(event, 30 * SECOND, limits));
    let results = futures::future::join_all(all).await;
    let done = results.iter().filter(|result| result.is_ok()).count();
    // Who met too many others is told to come again, which is no more than the limit either.
    assert!((1..=5).contains(&done), "{results:?}");
    for event in &events {
        let _ = fixture.rooms.schedule(event, 30 * SECOND, limits).await;
    }
    assert_eq!(fixture.scheduled().await.len(), 5);
    fixture.clock.advance(10 * SECOND);
    let refused = fixture.rooms.schedule(&message(&room, &alice, "x", "new"), SECOND, limits).await;
    let Err(DelayedError::TooMany { next_in }) = refused else { panic!("{refused:?}") };
    assert_eq!(next_in, 20 * SECOND);
    let long = fixture.rooms.schedule(&message(&room, &alice, "x", "long"), 61 * SECOND, limits).await;
    assert!(matches!(long, Err(DelayedError::Forbidden(_))), "{long:?}");
    let never = DelayLimits { max_scheduled: 0, ..limits };
    let off = fixture.rooms.schedule(&message(&room, &alice, "x", "off"), SECOND, never).await;
    assert!(matches!(off, Err(DelayedError::Forbidden(_))), "{off:?}");
}

#[tokio::test]
async fn a_transaction_schedules_once() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    let first = fixture.later(&room, "once", SECOND).await.expect("scheduled");
    assert_eq!(fixture.later(&room, "once", SECOND).await.expect("the same"), first);
    fixture.pass(SECOND).await;
    assert_eq!(fixture.later(&room, "once", SECOND).await.expect("the same"), first, "also after its end");
    assert_ne!(fixture.later(&room, "other", SECOND).await.expect("scheduled"), first);
}

#[tokio::test]
async fn what_has_ended_is_forgotten_in_the_end() {
    let fixture = Fixture::new();
    let room = fixture.room(Preset::PrivateChat).await;
    let old = fixture.later(&room, "old", SECOND).await.expect("scheduled");
    fixture.pass(SECOND).await;
    let mut ids = Vec::new();
    for n in 0..101 {
        let id = fixture.later(&room, &format!("m{n}"), SECOND).await.expect("scheduled");
        fixture.act(&id, DelayedAction::Cancel).await.expect("cancelled");
        ids.push(id);
    }
    let alice = user("alice");
    assert!(matches!(fixture.rooms.delayed_event(&alice, &old).await, Err(DelayedError::NotFound)));
    assert_eq!(fixture.outcome(&ids[100]).await, Some(DelayedOutcome::Cancelled));
    fixture.clock.advance(8 * 24 * 3600 * SECOND);
    fixture.later(&room, "new", SECOND).await.expect("scheduled");
    assert!(matches!(fixture.rooms.delayed_event(&alice, &ids[100]).await, Err(DelayedError::NotFound)));
}

/// Whoever was told that an event is cancelled never sees it, whatever the timer does meanwhile.
#[tokio::test]
async fn cancelled_and_sent_exclude_each_other() {
    let fixture = Arc::new(Fixture::on_chaos(5));
    let room = fixture.room(Preset::PrivateChat).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        // The unlucky store may make this too hard for one try; the transaction makes a second harmless.
        loop {
            match fixture.later(&room, &format!("m{n}"), SECOND).await {
                Ok(id) => break ids.push(id),
                Err(DelayedError::Send(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    fixture.clock.advance(SECOND);
    let stop = CancellationToken::new();
    let (_, cancelled) = tokio::join!(
        fixture.rooms.send_due(&stop),
        futures::future::join_all(ids.iter().map(|id| fixture.act(id, DelayedAction::Cancel))),
    );
    // What failed for now is tried again.
    fixture.pass(11 * SECOND).await;
    let bodies = fixture.bodies(&room).await;
    for (n, result) in cancelled.iter().enumerate() {
        let sent = bodies.contains(&format!("m{n}"));
        assert!(!(sent && result.is_ok()), "m{n} was cancelled and sent");
        if matches!(result, Err(DelayedError::Finalised(_))) {
            assert!(sent, "m{n} was said to be sent");
        }
    }
}
