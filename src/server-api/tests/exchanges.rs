//! Mail addresses that were invited and turn out to be users of other servers.

use super::*;

pub(super) const TOKEN: &str = "abc123";

pub(super) fn identity_key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32], "0").unwrap()
}

pub(super) fn bob() -> OwnedUserId {
    OwnedUserId::try_from("@bob:hs.test").unwrap()
}

/// What the identity server signs.
pub(super) fn signed(user: &UserId, token: &str, key: &SigningKey) -> Value {
    let signed = object(json!({"mxid": user, "token": token}));
    serde_json::to_value(key.sign_server_keys(server_name!("id.test"), signed)).unwrap()
}

pub(super) fn wish(room: &RoomId, sender: &UserId, user: &UserId, signed: &Value) -> Value {
    json!({
        "type": "m.room.member", "room_id": room, "sender": sender, "state_key": user,
        "content": {
            "membership": "invite",
            "third_party_invite": { "display_name": "mallory's words", "signed": signed },
        },
    })
}

/// A room in which alice has invited a mail address.
pub(super) async fn room_with_offer(world: &World) -> OwnedRoomId {
    let room = world.room(Preset::PrivateChat).await;
    let key = identity_key(5).public_key_base64();
    let offer = json!({
        "display_name": "olga@...", "key_validity_url": "https://id.test/valid", "public_key": key,
        "public_keys": [{ "public_key": key }],
    });
    world.event(&room, ("m.room.third_party_invite", Some(TOKEN)), offer).await;
    room
}

async fn exchange(world: &World, other: &Other, room: &RoomId, wish: &Value) -> Answer {
    let path = format!("{V1}/exchange_third_party_invite/{}", pct(room.as_str()));
    other.put(world, &path, &wish.to_string()).await
}

#[tokio::test]
async fn an_invited_address_is_exchanged_for_an_invitation_of_its_user() {
    let (world, friend) = (World::new().await, Other::friend());
    let (room, olga) = (room_with_offer(&world).await, friend.user("olga"));
    let good = wish(&room, &alice(), &olga, &signed(&olga, TOKEN, &identity_key(5)));
    // Everything is right, and the user's server is asked for its signature: it has no address here.
    let answer = exchange(&world, &friend, &room, &good).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{}", answer.body);
    // Who is there already needs no invitation.
    world.event(&room, ("m.room.join_rules", Some("")), json!({"join_rule": "public"})).await;
    let join = json!({"membership": "join"});
    let join = friend.event(&world, (&room, &olga), ("m.room.member", Some(olga.as_str())), join).await;
    let path = format!("{V2}/send_join/{}/{}", pct(room.as_str()), pct(join.event_id().as_str()));
    friend.put(&world, &path, text(&join)).await.ok();
    exchange(&world, &friend, &room, &good).await.ok();
    assert_eq!(world.membership(&room, olga.as_str()).await, Some("join"));
}

#[tokio::test]
async fn nobody_is_invited_whom_no_identity_server_of_the_room_vouches_for() {
    let (world, friend, mallory) = (World::new().await, Other::friend(), Other::mallory());
    let (room, olga, eve) = (room_with_offer(&world).await, friend.user("olga"), mallory.user("eve"));
    let key = identity_key(5);
    let good = signed(&olga, TOKEN, &key);
    let unsigned = json!({"mxid": olga, "token": TOKEN, "signatures": {}});
    let mut many = good.clone();
    for n in 0..9 {
        many["signatures"][format!("id{n}.test")] = json!({"ed25519:0": "x"});
    }
    let mut long = good.clone();
    long["signatures"]["id.test"]["ed25519:0"] = json!("x".repeat(129));
    let forbidden = [
        ("signed by another key", wish(&room, &alice(), &olga, &signed(&olga, TOKEN, &identity_key(6)))),
        ("not signed", wish(&room, &alice(), &olga, &unsigned)),
        ("a token that the room does not have", wish(&room, &alice(), &olga, &signed(&olga, "other", &key))),
        ("in the name of who has not invited", wish(&room, &bob(), &olga, &good)),
    ];
    for (why, wish) in forbidden {
        assert_eq!(exchange(&world, &friend, &room, &wish).await.verdict(), (403, "M_FORBIDDEN"), "{why}");
    }
    let invalid = [
        ("signed for another user", wish(&room, &alice(), &olga, &signed(&friend.user("pim"), TOKEN, &key))),
        ("another server's user", wish(&room, &alice(), &eve, &signed(&eve, TOKEN, &key))),
        ("our own user", wish(&room, &alice(), &bob(), &signed(&bob(), TOKEN, &key))),
        ("a sender who is not ours", wish(&room, &olga, &olga, &good)),
        ("another room", wish(<&RoomId>::try_from("!other:hs.test").unwrap(), &alice(), &olga, &good)),
        ("many signatures", wish(&room, &alice(), &olga, &many)),
        ("long signatures", wish(&room, &alice(), &olga, &long)),
    ];
    for (why, wish) in invalid {
        let answer = exchange(&world, &friend, &room, &wish).await;
        assert_eq!(answer.verdict(), (400, "M_INVALID_PARAM"), "{why}: {}", answer.body);
    }
    for (field, value) in [("type", json!("m.room.message")), ("content", json!({"membership": "join"}))] {
        let mut wish = wish(&room, &alice(), &olga, &good);
        wish[field] = value;
        assert_eq!(exchange(&world, &friend, &room, &wish).await.status, StatusCode::BAD_REQUEST, "{field}");
    }
    let unknown = <&RoomId>::try_from("!unknown:hs.test").unwrap();
    let answer = exchange(&world, &friend, unknown, &wish(unknown, &alice(), &olga, &good)).await;
    assert_eq!(answer.verdict(), (404, "M_NOT_FOUND"));
    // Whoever has lost the power to invite invites nobody, although the rules would let them.
    let users = json!({"users": {alice(): 0}, "invite": 50});
    let older = world.room_with("10", Preset::PrivateChat, &[]).await;
    let public = identity_key(5).public_key_base64();
    world.event(&older, ("m.room.third_party_invite", Some(TOKEN)), json!({"public_key": public})).await;
    world.set(&older, "m.room.power_levels", users).await;
    let answer = exchange(&world, &friend, &older, &wish(&older, &alice(), &olga, &good)).await;
    assert_eq!(answer.verdict(), (403, "M_FORBIDDEN"), "{}", answer.body);
    assert_eq!(world.membership(&room, olga.as_str()).await, None);
    assert_eq!(world.membership(&room, eve.as_str()).await, None);
}
