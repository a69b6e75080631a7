//! Reports of what is inappropriate.

use hearth_base::Rate;
use hearth_schema::ReportSubject;

use super::*;
use crate::RateLimits;

#[tokio::test]
async fn rooms_and_users_are_reported_by_anybody_and_kept() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({})).await;
    world.post(&in_room(&room, "report"), &bob, json!({"reason": "spam"})).await.ok();
    world.post(&format!("/users/{}/report", pct(&ann.id)), &bob, json!({"reason": ""})).await.ok();
    let reports = world.accounts.reports(Millis(0)).await.unwrap();
    assert_eq!(reports.len(), 2);
    assert_eq!(reports[0].subject, ReportSubject::Room { room_id: room.clone() });
    assert_eq!((&reports[0].reporter, reports[0].reason.as_str()), (&bob.id, "spam"));
    assert_eq!(reports[1].subject, ReportSubject::User { user_id: ann.id.clone() });

    let missing = world.post(&in_room(&room, "report"), &bob, json!({})).await;
    assert_eq!(missing.verdict(), (400, "M_MISSING_PARAM"));
    let wrong = world.post(&in_room(&room, "report"), &bob, json!({"reason": 7})).await;
    assert_eq!(wrong.verdict(), (400, "M_BAD_JSON"));
    let long = json!({"reason": "x".repeat(5000)});
    assert_eq!(world.post(&in_room(&room, "report"), &bob, long).await.verdict(), (413, "M_TOO_LARGE"));
    let reason = json!({"reason": ""});
    for path in ["/rooms/!none:hs.test/report", "/users/@none:hs.test/report", "/users/@bob:other.test/report"] {
        assert_eq!(world.post(path, &bob, reason.clone()).await.verdict(), (404, "M_NOT_FOUND"), "{path}");
    }
    assert_eq!(world.open(Method::POST, &in_room(&room, "report"), reason).await.verdict(), (401, "M_MISSING_TOKEN"));
    assert_eq!(world.accounts.reports(Millis(0)).await.unwrap().len(), 2, "what is refused is not kept");
}

#[tokio::test]
async fn events_are_reported_by_members_who_can_see_them() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let hidden = json!([{"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}]);
    let room = world.create_room(&ann, json!({"preset": "public_chat", "initial_state": hidden})).await;
    let say = async |by: &Person, id: &str| {
        let path = in_room(&room, &format!("send/m.room.message/{id}"));
        let sent = world.put(&path, by, json!({"body": id})).await.ok();
        in_room(&room, &format!("report/{}", pct(sent["event_id"].as_str().unwrap())))
    };
    let early = say(&ann, "early").await;
    let reason = json!({"reason": "rude", "score": -100});
    assert_eq!(world.post(&early, &bob, reason.clone()).await.verdict(), (404, "M_NOT_FOUND"), "not joined");
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    assert_eq!(world.post(&early, &bob, reason.clone()).await.verdict(), (404, "M_NOT_FOUND"), "before the join");
    let unknown = in_room(&room, "report/$none");
    assert_eq!(world.post(&unknown, &bob, reason.clone()).await.verdict(), (404, "M_NOT_FOUND"));
    let late = say(&ann, "late").await;
    world.post(&late, &bob, reason.clone()).await.ok();
    world.post(&late, &bob, json!({})).await.ok();
    let reports = world.accounts.reports(Millis(0)).await.unwrap();
    assert_eq!(reports.iter().map(|report| report.reason.as_str()).collect::<Vec<_>>(), ["rude", ""]);
    let ReportSubject::Event { room_id, sender, .. } = &reports[0].subject else { panic!("an event") };
    assert_eq!((room_id, sender), (&room, &ann.id));
    world.post(&in_room(&room, "leave"), &bob, json!({})).await.ok();
    assert_eq!(world.post(&late, &bob, reason).await.verdict(), (404, "M_NOT_FOUND"), "left");
}

#[tokio::test]
async fn reports_have_a_rate_of_their_own() {
    let limits = RateLimits { reports: Some(Rate::per_hour(1, 2)), ..RateLimits::default() };
    let world = World::with(Registration::Open, |settings| settings.rate_limits = Some(limits));
    let ann = world.register("ann").await;
    let path = format!("/users/{}/report", pct(&ann.id));
    for expected in [200, 200, 429] {
        assert_eq!(world.post(&path, &ann, json!({"reason": ""})).await.status.as_u16(), expected);
    }
}

#[tokio::test]
async fn invitations_count_for_who_invites_on_any_way() {
    let limits = RateLimits { invites: Some(Rate::per_hour(1, 2)), ..RateLimits::default() };
    let world = World::with(Registration::Open, |settings| settings.rate_limits = Some(limits));
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"invite": [bob.id]})).await;
    world.post(&in_room(&room, "invite"), &ann, json!({"user_id": bob.id})).await.ok();
    let path = in_room(&room, &format!("state/m.room.member/{}", pct(&bob.id)));
    let state = world.put(&path, &ann, json!({"membership": "invite", "displayname": "b"})).await;
    assert_eq!(state.verdict(), (429, "M_LIMIT_EXCEEDED"));
    let invite = world.post(&in_room(&room, "invite"), &ann, json!({"user_id": bob.id})).await;
    assert_eq!(invite.verdict(), (429, "M_LIMIT_EXCEEDED"));
}
