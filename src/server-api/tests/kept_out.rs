//! Servers that a room's access control list keeps out (row A18): invitations, and events by way of others.

use hearth_accounts::NewAccount;

use super::exchanges::{TOKEN, bob, identity_key, room_with_offer, signed, wish};
use super::*;

async fn keep_out(world: &World, room: &RoomId, server: &str) {
    world.set(room, "m.room.server_acl", json!({"allow": ["*"], "deny": [server]})).await;
}

#[tokio::test]
async fn a_server_that_is_kept_out_invites_nobody() {
    for version in ["1", "10"] {
        let (world, friend, mallory) = (World::new().await, Other::friend(), Other::mallory());
        let account = NewAccount { localpart: Some("bob".into()), inhibit_login: true, ..NewAccount::default() };
        world.accounts.register(account).await.unwrap();
        let room = world.room_with(version, Preset::PublicChat, &[]).await;
        keep_out(&world, &room, "*.invalid").await;
        friend.join(&world, &room, "olga").await;
        mallory.join(&world, &room, "eve").await;
        let mut invitations = Vec::new();
        for (other, name) in [(&friend, "olga"), (&mallory, "eve")] {
            let target = bob();
            let member = ("m.room.member", Some(target.as_str()));
            let invite = other.event(&world, (&room, &other.user(name)), member, json!({"membership": "invite"})).await;
            let path = format!("invite/{}/{}", pct(room.as_str()), pct(invite.event_id().as_str()));
            let event = text(&invite);
            let (endpoint, body) = if version == "1" {
                (format!("{V1}/{path}"), event.to_owned())
            } else {
                let body = format!(r#"{{"room_version":"{version}","event":{event},"invite_room_state":[]}}"#);
                (format!("{V2}/{path}"), body)
            };
            other.put(&world, &endpoint, &body).await.ok();
            invitations.push((other, endpoint, body));
        }
        keep_out(&world, &room, "mal.test").await;
        let denied = [(200, ""), (403, "M_FORBIDDEN")];
        for ((other, endpoint, body), verdict) in invitations.iter().zip(denied) {
            let answer = other.put(&world, endpoint, body).await;
            assert_eq!(answer.verdict(), verdict, "{} {version}: {}", other.name, answer.body);
        }
    }
}

#[tokio::test]
async fn a_server_that_is_kept_out_exchanges_no_third_party_invite() {
    let (world, friend, mallory) = (World::new().await, Other::friend(), Other::mallory());
    let room = room_with_offer(&world).await;
    keep_out(&world, &room, "mal.test").await;
    // The friend's server would be asked for its signature now; it has no address here.
    for (other, status) in [(&friend, 502), (&mallory, 403)] {
        let user = other.user("olga");
        let wish = wish(&room, &alice(), &user, &signed(&user, TOKEN, &identity_key(5)));
        let path = format!("{V1}/exchange_third_party_invite/{}", pct(room.as_str()));
        let answer = other.put(&world, &path, &wish.to_string()).await;
        assert_eq!(answer.status.as_u16(), status, "{}: {}", other.name, answer.body);
        assert_eq!(world.membership(&room, user.as_str()).await, None);
    }
}

#[tokio::test]
async fn who_is_kept_out_is_not_heard_through_others() {
    let (world, friend, mallory) = (World::new().await, Other::friend(), Other::mallory());
    let room = world.room(Preset::PublicChat).await;
    friend.join(&world, &room, "olga").await;
    mallory.join(&world, &room, "eve").await;
    let eve = mallory.user("eve");
    let say =
        async |body: &str| mallory.event(&world, (&room, &eve), ("m.room.message", None), json!({"body": body})).await;
    let before = say("before").await;
    let answer = friend.transact(&world, "1", &[text(&before)]).await.ok();
    assert_eq!(answer["pdus"][before.event_id().as_str()], json!({}), "{answer}");
    assert!(world.holds(&room, before.event_id()).await);
    keep_out(&world, &room, "mal.test").await;
    let after = say("after").await;
    let olga = friend.user("olga");
    let next = friend.event(&world, (&room, &olga), ("m.room.message", None), json!({"body": "next"})).await;
    let answer = friend.transact(&world, "2", &[text(&after), text(&next)]).await.ok();
    assert!(answer["pdus"][after.event_id().as_str()]["error"].is_string(), "{answer}");
    assert_eq!(answer["pdus"][next.event_id().as_str()], json!({}), "{answer}");
    assert!(world.holds(&room, next.event_id()).await, "and so what came before it would be here too");
    assert!(!world.holds_now(&room, after.event_id()).await);
}
