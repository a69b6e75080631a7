//! Memberships that are changed by state events, at once and later: nothing is got round by it.

use hearth_base::Rate;

use super::*;
use crate::RateLimits;

const WAIT: (u16, &str) = (429, "M_LIMIT_EXCEEDED");

/// The ways of setting somebody's membership by a state event: by `/state`, by `/state` with a delay, and by
/// `/delayed_event`.
const WAYS: usize = 3;

struct Setting<'a> {
    world: &'a World,
    room: &'a str,
}

impl Setting<'_> {
    async fn set(&self, way: usize, by: &Person, target: &str, membership: &str) -> Answer {
        let content = json!({"membership": membership});
        let state = in_room(self.room, &format!("state/m.room.member/{}", pct(target)));
        match way {
            0 => self.world.put(&state, by, content).await,
            1 => self.world.put(&format!("{state}?org.matrix.msc4140.delay=86400000"), by, content).await,
            _ => {
                let path = in_room(self.room, &format!("delayed_event/m.room.member/{}{membership}", pct(target)));
                let later = json!({"delay_ms": 86_400_000, "state_key": target, "content": content});
                self.world.put(&path, by, later).await
            }
        }
    }
}

fn limited(rates: RateLimits) -> World {
    World::with(Registration::Open, |settings| settings.rate_limits = Some(rates))
}

#[tokio::test]
async fn who_takes_no_invitations_gets_none_later() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&bob, json!({})).await;
    let setting = Setting { world: &world, room: &room };
    let config = format!("/user/{}/account_data/m.invite_permission_config", pct(&ann.id));
    world.put(&config, &ann, json!({"default_action": "block"})).await.ok();
    for way in 0..WAYS {
        let answer = setting.set(way, &bob, &ann.id, "invite").await;
        assert_eq!(answer.verdict(), (403, "M_INVITE_BLOCKED"), "way {way}");
    }
    world.put(&config, &ann, json!({"default_action": "allow"})).await.ok();
    for way in 0..WAYS {
        setting.set(way, &bob, &ann.id, "invite").await.ok();
    }
}

#[tokio::test]
async fn invitations_by_state_are_counted_with_the_others() {
    for way in 0..WAYS {
        let world = limited(RateLimits { invites: Some(Rate::per_minute(1, 2)), ..RateLimits::default() });
        let ann = world.register("ann").await;
        let room = world.create_room(&ann, json!({})).await;
        let setting = Setting { world: &world, room: &room };
        world.post(&in_room(&room, "invite"), &ann, json!({"user_id": "@bob:hs.test"})).await.ok();
        setting.set(way, &ann, "@carl:hs.test", "invite").await.ok();
        assert_eq!(setting.set(way, &ann, "@dora:hs.test", "invite").await.verdict(), WAIT, "way {way}");
        let again = world.post(&in_room(&room, "invite"), &ann, json!({"user_id": "@dora:hs.test"})).await;
        assert_eq!(again.verdict(), WAIT, "way {way}");
        setting.set(way, &ann, "@dora:hs.test", "ban").await.ok();
    }
}

#[tokio::test]
async fn joins_by_state_and_upgrades_are_counted_with_joins_and_names_are_not() {
    let world = limited(RateLimits { joins: Some(Rate::per_minute(1, 2)), ..RateLimits::default() });
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let setting = Setting { world: &world, room: &room };
    setting.set(0, &bob, &bob.id, "join").await.ok();
    let path = in_room(&room, &format!("state/m.room.member/{}", pct(&bob.id)));
    for name in ["Bob", "Bobby", "Robert"] {
        world.put(&path, &bob, json!({"membership": "join", "displayname": name})).await.ok();
    }
    world.post(&in_room(&room, "leave"), &bob, json!({})).await.ok();
    setting.set(0, &bob, &bob.id, "join").await.ok();
    world.post(&in_room(&room, "leave"), &bob, json!({})).await.ok();
    for membership in ["join", "knock"] {
        assert_eq!(setting.set(0, &bob, &bob.id, membership).await.verdict(), WAIT, "{membership}");
    }
    assert_eq!(world.post(&in_room(&room, "join"), &bob, json!({})).await.verdict(), WAIT);

    world.post(&in_room(&room, "upgrade"), &ann, json!({"new_version": "11"})).await.ok();
    let another = world.post(&in_room(&room, "upgrade"), &ann, json!({"new_version": "10"})).await;
    assert_eq!(another.verdict(), WAIT, "each makes a room");
}
