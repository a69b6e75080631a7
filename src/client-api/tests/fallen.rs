//! Delayed events of users who may not send any more when they are due.

use hearth_schema::{DelayedFailure, DelayedOutcome};

use super::*;

/// A world with an administrator and a user of a room of both.
struct Fallen {
    world: World,
    boss: Person,
    ann: Person,
    room: String,
}

impl Fallen {
    async fn new() -> Self {
        let admins = BTreeSet::from(["@root:hs.test".to_owned()]);
        let world = World::build(AccountsSettings { admins, ..World::accounts(Registration::Open) }, |_| {});
        let (boss, ann) = (world.register("root").await, world.register("ann").await);
        let room = world.create_room(&boss, json!({"preset": "public_chat"})).await;
        world.post(&in_room(&room, "join"), &ann, json!({})).await.ok();
        Self { world, boss, ann, room }
    }

    /// Ann's event, due in five seconds: its delay id.
    async fn schedule(&self, rest: &str, content: Value) -> String {
        let path = format!("{}?org.matrix.msc4140.delay=5000", in_room(&self.room, rest));
        let answer = self.world.put(&path, &self.ann, content).await.ok();
        answer["delay_id"].as_str().unwrap().to_owned()
    }

    /// An administrator's decision about Ann.
    async fn decide(&self, what: &str, body: Value) {
        let path = format!("/_matrix/client/v1/admin/{what}/{}", pct(&self.ann.id));
        self.world.raw(Method::PUT, &path, Some(&self.boss), body.to_string()).await.ok();
    }

    async fn send(&self, delay_id: &str) -> Answer {
        let path = format!("/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}/send");
        self.world.raw(Method::POST, &path, None, "{}").await
    }

    /// Five seconds pass; how each of these has ended.
    async fn due(&self, delay_ids: &[&String]) -> Vec<DelayedOutcome> {
        self.world.clock.advance(Duration::from_secs(5));
        let user: &ruma_common::UserId = self.ann.id.as_str().try_into().unwrap();
        let mut outcomes = Vec::new();
        for delay_id in delay_ids {
            let ended = async {
                loop {
                    let found = self.world.rooms.delayed_event(user, delay_id).await.expect("known");
                    if let Some(finalised) = found.event.finalised {
                        return finalised.outcome;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            outcomes.push(tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends"));
        }
        outcomes
    }

    /// Bodies of what Ann has said.
    async fn said(&self) -> Vec<String> {
        let page = self.world.get(&in_room(&self.room, "messages?dir=f&limit=100"), &self.boss).await.ok();
        let chunk = page["chunk"].as_array().unwrap();
        let hers = chunk.iter().filter(|event| event["sender"] == json!(self.ann.id));
        hers.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
    }
}

fn text(body: &str) -> Value {
    json!({"msgtype": "m.text", "body": body})
}

fn failures(outcomes: &[DelayedOutcome]) -> Vec<Option<DelayedFailure>> {
    let failure = |outcome: &DelayedOutcome| match outcome {
        DelayedOutcome::Failed { why, .. } => Some(*why),
        _ => None,
    };
    outcomes.iter().map(failure).collect()
}

#[tokio::test]
async fn a_suspended_user_says_nothing_later_either() {
    let fallen = Fallen::new().await;
    let world = &fallen.world;
    let mine = world.put(&in_room(&fallen.room, "send/m.room.message/0"), &fallen.ann, text("mine")).await.ok();
    let theirs = world.put(&in_room(&fallen.room, "send/m.room.message/0"), &fallen.boss, text("theirs")).await.ok();
    let said = fallen.schedule("send/m.room.message/1", text("late")).await;
    let state = fallen.schedule("state/org.example.left/x", json!({})).await;
    let own = fallen.schedule("send/m.room.redaction/2", json!({"redacts": mine["event_id"]})).await;
    let of_others = fallen.schedule("send/m.room.redaction/3", json!({"redacts": theirs["event_id"]})).await;
    fallen.decide("suspend", json!({"suspended": true})).await;
    assert_eq!(fallen.send(&said).await.verdict(), (403, "M_USER_SUSPENDED"), "nor at once, by who knows the id");
    let outcomes = fallen.due(&[&said, &state, &own, &of_others]).await;
    let suspended = Some(DelayedFailure::Suspended);
    assert_eq!(failures(&outcomes), [suspended, suspended, None, suspended]);
    assert_eq!(fallen.said().await, [""; 0], "what she took back is gone, and nothing was added");
    let path = format!("/_matrix/client/v1/delayed_events/{said}");
    let found = world.raw(Method::GET, &path, Some(&fallen.ann), "").await.ok();
    assert_eq!(found["finalised"]["error"]["errcode"], "M_USER_SUSPENDED");
    fallen.decide("suspend", json!({"suspended": false})).await;
    fallen.schedule("send/m.room.message/4", text("again")).await;
    let again = fallen.schedule("send/m.room.message/5", text("and again")).await;
    fallen.send(&again).await.ok();
    assert_eq!(fallen.said().await, ["and again"]);
}

#[tokio::test]
async fn nothing_is_sent_for_a_locked_user() {
    let fallen = Fallen::new().await;
    let said = fallen.schedule("send/m.room.message/1", text("late")).await;
    fallen.decide("lock", json!({"locked": true})).await;
    assert_eq!(fallen.send(&said).await.verdict(), (401, "M_USER_LOCKED"));
    assert_eq!(failures(&fallen.due(&[&said]).await), [Some(DelayedFailure::Locked)]);
    assert_eq!(fallen.said().await, [""; 0]);
}

#[tokio::test]
async fn nothing_is_sent_for_a_user_who_is_gone() {
    let fallen = Fallen::new().await;
    let (said, sent) = (
        fallen.schedule("send/m.room.message/1", text("late")).await,
        fallen.schedule("send/m.room.message/2", text("by hand")).await,
    );
    let asked = fallen.world.post("/account/deactivate", &fallen.ann, json!({})).await;
    let auth = with_password(&fallen.ann, &asked.body["session"]);
    fallen.world.post("/account/deactivate", &fallen.ann, json!({ "auth": auth })).await.ok();
    assert_eq!(fallen.send(&sent).await.verdict(), (409, "M_UNKNOWN"), "it counts as cancelled");
    let outcomes = fallen.due(&[&said, &sent]).await;
    assert_eq!(outcomes, [DelayedOutcome::Cancelled, DelayedOutcome::Cancelled]);
    assert_eq!(fallen.said().await, [""; 0]);
}
