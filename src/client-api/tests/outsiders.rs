//! Who is not in a room, or has no power there, learns nothing of it by asking to change it.

use super::*;

const FORBIDDEN: (u16, &str) = (403, "M_FORBIDDEN");

/// A private room of Ann: Bob is banned, Carl was in it, Dora is invited, Hal is in it without power.
struct Club {
    world: World,
    room: String,
    ann: Person,
    bob: Person,
    carl: Person,
    dora: Person,
    hal: Person,
    eve: Person,
}

impl Club {
    async fn new() -> Self {
        let world = World::new();
        let mut people = Vec::new();
        for name in ["ann", "bob", "carl", "dora", "hal", "eve"] {
            people.push(world.register(name).await);
        }
        let Ok([ann, bob, carl, dora, hal, eve]) = <[Person; 6]>::try_from(people) else { panic!("six people") };
        let room = world.create_room(&ann, json!({"preset": "private_chat"})).await;
        let club = Self { world, room, ann, bob, carl, dora, hal, eve };
        for (way, target) in [("invite", &club.carl), ("invite", &club.dora), ("invite", &club.hal), ("ban", &club.bob)]
        {
            club.act(way, &club.ann, &target.id).await.ok();
        }
        for joins in [&club.carl, &club.hal] {
            club.world.post(&in_room(&club.room, "join"), joins, json!({})).await.ok();
        }
        club
    }

    async fn act(&self, way: &str, by: &Person, target: &str) -> Answer {
        self.world.post(&in_room(&self.room, way), by, json!({"user_id": target})).await
    }

    async fn put(&self, rest: &str, by: &Person, body: Value) -> Answer {
        self.world.put(&in_room(&self.room, rest), by, body).await
    }

    async fn say(&self, txn: &str, content: Value) -> String {
        let sent = self.put(&format!("send/m.room.message/{txn}"), &self.ann, content).await.ok();
        sent["event_id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn acting_on_members_tells_strangers_nothing_of_their_membership() {
    let club = Club::new().await;
    club.act("kick", &club.ann, &club.carl.id).await.ok();
    let targets = [&club.ann.id, &club.bob.id, &club.dora.id, &club.hal.id, "@nobody:hs.test"];
    for by in [&club.eve, &club.carl] {
        for way in ["kick", "ban", "unban", "invite"] {
            let mut answers = BTreeSet::new();
            for target in targets {
                let answer = club.act(way, by, target).await;
                assert_eq!(answer.verdict(), FORBIDDEN, "{way} {target} by {}", by.id);
                answers.insert(answer.body.to_string());
            }
            assert_eq!(answers.len(), 1, "{way} by {}: {answers:?}", by.id);
        }
    }
    for way in ["ban", "unban", "kick"] {
        for target in targets.into_iter().filter(|target| *target != club.hal.id) {
            assert_eq!(club.act(way, &club.hal, target).await.verdict(), FORBIDDEN, "{way} {target} without power");
        }
    }
    // Who has the power is told how it stands.
    club.act("ban", &club.ann, &club.bob.id).await.ok();
    assert_eq!(club.act("kick", &club.ann, &club.bob.id).await.verdict(), FORBIDDEN);
    assert_eq!(club.act("unban", &club.ann, &club.hal.id).await.verdict(), (403, "M_BAD_STATE"));
}

#[tokio::test]
async fn setting_again_what_one_set_before_needs_the_right_to_set_it() {
    let club = Club::new().await;
    let levels = club.world.get(&in_room(&club.room, "state/m.room.power_levels"), &club.ann).await.ok();
    let mut open = levels.clone();
    open["state_default"] = json!(0);
    open["events"]["m.room.topic"] = json!(0);
    club.put("state/m.room.power_levels", &club.ann, open).await.ok();
    for by in [&club.carl, &club.hal] {
        let path = format!("state/x.mark/{}", pct(&by.id));
        let first = club.put(&path, by, json!({"here": true})).await.ok();
        assert_eq!(club.put(&path, by, json!({"here": true})).await.ok(), first);
    }
    club.act("kick", &club.ann, &club.carl.id).await.ok();
    club.put("state/m.room.power_levels", &club.ann, levels).await.ok();
    for by in [&club.carl, &club.hal] {
        for content in [json!({"here": true}), json!({"here": false})] {
            let path = format!("state/x.mark/{}", pct(&by.id));
            assert_eq!(club.put(&path, by, content).await.verdict(), FORBIDDEN, "{}", by.id);
        }
    }
}

#[tokio::test]
async fn naming_events_or_creators_tells_strangers_nothing_of_them() {
    let club = Club::new().await;
    let parent = club.say("parent", json!({"body": "parent"})).await;
    let thread = |of: &str| json!({"body": "reply", "m.relates_to": {"rel_type": "m.thread", "event_id": of}});
    let reply = club.say("reply", thread(&parent)).await;
    let unknown = "$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let (mut sent, mut redacted) = (BTreeSet::new(), BTreeSet::new());
    for (n, target) in [parent.as_str(), &reply, unknown].into_iter().enumerate() {
        let answer = club.put(&format!("send/m.room.message/{n}"), &club.eve, thread(target)).await;
        assert_eq!(answer.verdict(), FORBIDDEN, "a reply to {target}");
        sent.insert(answer.body.to_string());
        let answer = club.put(&format!("redact/{}/{n}", pct(target)), &club.eve, json!({})).await;
        assert_eq!(answer.verdict(), FORBIDDEN, "a redaction of {target}");
        redacted.insert(answer.body.to_string());
    }
    assert_eq!((sent.len(), redacted.len()), (1, 1), "{sent:?} {redacted:?}");
    assert_eq!(club.put("send/m.room.message/n", &club.ann, thread(&reply)).await.verdict(), (400, "M_UNKNOWN"));
    assert_eq!(
        club.put(&format!("redact/{}/n", pct(unknown)), &club.ann, json!({})).await.verdict(),
        (404, "M_NOT_FOUND")
    );
    for name in [&club.ann.id, &club.hal.id] {
        let levels = json!({"users": {name: 100}});
        assert_eq!(club.put("state/m.room.power_levels", &club.eve, levels).await.verdict(), FORBIDDEN, "{name}");
    }
    let levels = json!({"users": {&club.ann.id: 100}});
    assert_eq!(club.put("state/m.room.power_levels", &club.ann, levels).await.verdict(), (400, "M_BAD_JSON"));
}
