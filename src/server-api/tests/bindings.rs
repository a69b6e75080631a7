//! Mail addresses that were invited and turn out to be users of ours, as an identity server tells it.

use std::net::Ipv4Addr;

use hearth_accounts::{Erase, NewAccount, NewAccountData};
use hearth_base::Rate;

use super::exchanges::{TOKEN, bob, identity_key, room_with_offer, signed};
use super::*;
use crate::Caller;

const ADDRESS: &str = "bob@mail.test";

async fn registered(world: &World) -> OwnedUserId {
    let account = NewAccount { localpart: Some("bob".into()), inhibit_login: true, ..NewAccount::default() };
    world.accounts.register(account).await.unwrap();
    bob()
}

fn invite(room: &RoomId, sender: &UserId, user: &UserId, signed: &Value) -> Value {
    json!({
        "medium": "email", "address": ADDRESS, "mxid": user, "room_id": room, "sender": sender, "signed": signed,
    })
}

fn binding(user: &UserId, invites: &[Value]) -> Value {
    json!({ "medium": "email", "address": ADDRESS, "mxid": user, "invites": invites })
}

/// The member event.
async fn membership(world: &World, room: &RoomId, user: &UserId) -> Value {
    let view = world.rooms.view().await.unwrap();
    let room = world.rooms.ids().room(room);
    let event = world.rooms.current_event(&view, room, "m.room.member", user.as_str()).await.unwrap().unwrap();
    serde_json::from_slice(event.pdu.json()).unwrap()
}

async fn bind(world: &World, binding: &Value) -> Answer {
    world.open(Method::PUT, &format!("{V1}/3pid/onbind"), &binding.to_string()).await
}

#[tokio::test]
async fn who_was_invited_by_address_is_invited_by_name_once_the_address_is_bound() {
    let world = World::new().await;
    let (bob, room) = (registered(&world).await, room_with_offer(&world).await);
    bind(&world, &binding(&bob, &[])).await.ok();
    assert_eq!(world.membership(&room, bob.as_str()).await, None);
    let good = invite(&room, &alice(), &bob, &signed(&bob, TOKEN, &identity_key(5)));
    assert_eq!(bind(&world, &binding(&bob, std::slice::from_ref(&good))).await.ok(), json!({}));
    let event = membership(&world, &room, &bob).await;
    let content = json!({
        "membership": "invite",
        "third_party_invite": { "display_name": "olga@...", "signed": signed(&bob, TOKEN, &identity_key(5)) },
    });
    assert_eq!((&event["sender"], &event["content"]), (&json!(alice()), &content));
    // The same again, also with other capitals, changes nothing.
    let mut shouted = good.clone();
    shouted["address"] = json!("BOB@mail.test");
    bind(&world, &binding(&bob, &[good, shouted])).await.ok();
    assert_eq!(membership(&world, &room, &bob).await, event);
}

#[tokio::test]
async fn what_the_room_does_not_vouch_for_invites_nobody() {
    let world = World::new().await;
    let (bob, room) = (registered(&world).await, room_with_offer(&world).await);
    let (key, olga) = (identity_key(5), Other::friend().user("olga"));
    let good = signed(&bob, TOKEN, &key);
    let unsigned = json!({"mxid": bob, "token": TOKEN, "signatures": {}});
    let unknown = <&RoomId>::try_from("!unknown:hs.test").unwrap();
    for (why, invite, verdict) in [
        ("another key", invite(&room, &alice(), &bob, &signed(&bob, TOKEN, &identity_key(6))), (403, "M_FORBIDDEN")),
        ("no signature", invite(&room, &alice(), &bob, &unsigned), (403, "M_FORBIDDEN")),
        ("another token", invite(&room, &alice(), &bob, &signed(&bob, "other", &key)), (403, "M_FORBIDDEN")),
        ("another sender", invite(&room, &bob, &bob, &good), (403, "M_FORBIDDEN")),
        ("signed for another", invite(&room, &alice(), &bob, &signed(&olga, TOKEN, &key)), (400, "M_INVALID_PARAM")),
        ("another room", invite(unknown, &alice(), &bob, &good), (404, "M_NOT_FOUND")),
        // Her server has no address here.
        ("a room elsewhere", invite(unknown, &olga, &bob, &good), (502, "M_UNKNOWN")),
    ] {
        let answer = bind(&world, &binding(&bob, &[invite])).await;
        assert_eq!(answer.verdict(), verdict, "{why}: {}", answer.body);
        assert_eq!(world.membership(&room, bob.as_str()).await, None, "{why}");
    }
    // What is wrong with one does not hold up another, and what may pass is told first.
    let wrong = invite(unknown, &alice(), &bob, &good);
    let elsewhere = invite(<&RoomId>::try_from("!there:other.test").unwrap(), &olga, &bob, &good);
    let answer = bind(&world, &binding(&bob, &[wrong, elsewhere, invite(&room, &alice(), &bob, &good)])).await;
    assert_eq!(answer.verdict(), (502, "M_UNKNOWN"), "{}", answer.body);
    assert_eq!(world.membership(&room, bob.as_str()).await, Some("invite"));
}

#[tokio::test]
async fn a_binding_is_about_an_active_user_of_ours_and_of_one_piece() {
    let world = World::new().await;
    let (bob, room) = (registered(&world).await, room_with_offer(&world).await);
    let good = invite(&room, &alice(), &bob, &signed(&bob, TOKEN, &identity_key(5)));
    let with = |key: &str, value: Value| {
        let mut changed = good.clone();
        changed[key] = value;
        binding(&bob, &[changed])
    };
    let whole = |key: &str, value: Value| {
        let mut changed = binding(&bob, std::slice::from_ref(&good));
        changed[key] = value;
        changed
    };
    let olga = Other::friend().user("olga");
    let carl = OwnedUserId::try_from("@carl:hs.test").unwrap();
    for (why, binding, verdict) in [
        ("not ours", binding(&olga, &[]), (400, "M_INVALID_PARAM")),
        ("not here", binding(&carl, &[]), (404, "M_NOT_FOUND")),
        ("no user", whole("mxid", json!("bob")), (400, "M_BAD_JSON")),
        ("another medium", whole("medium", json!("pigeon")), (400, "M_INVALID_PARAM")),
        ("no address", whole("address", json!("")), (400, "M_INVALID_PARAM")),
        ("a long address", whole("address", json!("x".repeat(513))), (400, "M_INVALID_PARAM")),
        ("no list", whole("invites", json!({})), (400, "M_BAD_JSON")),
        ("nothing", json!({}), (400, "M_BAD_JSON")),
        ("no object", json!([]), (400, "M_NOT_JSON")),
        ("an invite of another medium", with("medium", json!("msisdn")), (400, "M_INVALID_PARAM")),
        ("an invite of another address", with("address", json!("eve@mail.test")), (400, "M_INVALID_PARAM")),
        ("an invite of another user", with("mxid", json!(carl)), (400, "M_INVALID_PARAM")),
        ("no room", with("room_id", json!("room")), (400, "M_BAD_JSON")),
        ("no sender", with("sender", Value::Null), (400, "M_BAD_JSON")),
        ("nothing signed", with("signed", json!({"mxid": bob})), (400, "M_BAD_JSON")),
        ("too many", binding(&bob, &vec![good.clone(); 51]), (400, "M_INVALID_PARAM")),
    ] {
        let answer = bind(&world, &binding).await;
        assert_eq!(answer.verdict(), verdict, "{why}: {}", answer.body);
    }
    let large = binding(&bob, &[json!("x".repeat(256 << 10))]);
    assert_eq!(bind(&world, &large).await.verdict(), (413, "M_TOO_LARGE"));
    let nid = world.rooms.ids().user(&bob);
    let kind = "m.invite_permission_config".to_owned();
    let data = NewAccountData { room: None, kind, json: json!({"default_action": "block"}).to_string() };
    world.accounts.set_account_data(nid, data).await.unwrap();
    let answer = bind(&world, &binding(&bob, std::slice::from_ref(&good))).await;
    assert_eq!(answer.verdict(), (403, "M_INVITE_BLOCKED"), "{}", answer.body);
    world.accounts.deactivate(nid, Erase::No).await.unwrap();
    assert_eq!(bind(&world, &binding(&bob, &[good])).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(world.membership(&room, bob.as_str()).await, None);
}

#[tokio::test]
async fn an_address_may_tell_of_so_many_invites() {
    let world = World::with(|settings| settings.rates.unproven = Some(Rate::per_minute(1, 8))).await;
    let bob = registered(&world).await;
    let olga = Other::friend().user("olga");
    let told = |last: u8, count: usize| {
        let room = <&RoomId>::try_from("!there:other.test").unwrap();
        let invites = vec![invite(room, &olga, &bob, &signed(&bob, TOKEN, &identity_key(5))); count];
        let path = format!("{V1}/3pid/onbind");
        let body = Body::from(binding(&bob, &invites).to_string());
        let mut request = Request::builder().method(Method::PUT).uri(path).body(body).unwrap();
        request.extensions_mut().insert(Caller(Some(Ipv4Addr::new(203, 0, 113, last).into())));
        world.send(request)
    };
    assert_eq!(told(1, 5).await.verdict(), (502, "M_UNKNOWN"));
    assert_eq!(told(1, 5).await.verdict(), (429, "M_LIMIT_EXCEEDED"), "invites count");
    assert_eq!(told(2, 0).await.status, StatusCode::OK, "others go on");
}
