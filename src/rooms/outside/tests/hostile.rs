//! What is no invitation of a local user is neither signed nor kept (row A5 of the security table).

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn what_is_no_invitation_of_ours_is_not_signed() {
    let world = World::new().await;
    world.register(user_id!("@gone:hearth.test"), Standing::Deactivated).await;
    let third = json!({ "membership": "invite", "third_party_invite": { "signed": {}, "display_name": "x" } });
    for changes in [
        json!({ "state_key": "@eve:mal.test" }),
        json!({ "state_key": "" }),
        json!({ "type": "m.room.message" }),
        json!({ "type": "m.room.power_levels" }),
        json!({ "content": { "membership": "join" } }),
        json!({ "content": { "membership": "ban" } }),
        json!({ "content": { "membership": "leave" } }),
        json!({ "content": {} }),
        json!({ "content": third }),
        json!({ "room_id": "!other:mal.test" }),
        json!({ "sender": "@mallory:third.test" }),
        json!({ "sender": "@alice:hearth.test" }),
    ] {
        let refused = world.invite(&incoming(&invitation(changes.clone()))).await;
        assert!(matches!(refused, Err(InviteError::Invalid(_))), "{changes}: {refused:?}");
    }
    for nobody in ["@nobody:hearth.test", "@gone:hearth.test"] {
        let refused = world.invite(&incoming(&invitation(json!({ "state_key": nobody })))).await;
        assert!(matches!(refused, Err(InviteError::UnknownUser)), "{nobody}: {refused:?}");
    }
    assert_eq!(world.row(there()).await, None);
}

#[tokio::test]
async fn an_invitation_is_the_one_that_the_request_names_and_unaltered() {
    let world = World::new().await;
    let pdu = invitation(json!({}));
    let altered = |change: &dyn Fn(&mut Value)| {
        let mut json: Value = serde_json::from_slice(pdu.json()).expect("JSON");
        change(&mut json);
        raw_json(&json)
    };
    let good = incoming(&pdu);
    let another = invitation(json!({ "content": { "membership": "invite", "reason": "x" } }));
    for bad in [
        InviteIn { event_id: another.event_id().to_owned(), ..good.clone() },
        InviteIn { room_id: room_id!("!other:mal.test").to_owned(), ..good.clone() },
        InviteIn { version: version("12"), ..good.clone() },
        InviteIn { version: version("1"), ..good.clone() },
        InviteIn { event: altered(&|json| json["content"]["reason"] = json!("new")), ..good.clone() },
        InviteIn { event: altered(&|json| json["signatures"] = json!({})), ..good.clone() },
        InviteIn {
            event: altered(&|json| json["signatures"]["mal.test"] = json!({ "ed25519:mal": "AAAA" })),
            ..good.clone()
        },
        InviteIn { event: altered(&|json| json["depth"] = json!(-1)), ..good.clone() },
        InviteIn { event: raw_json(&json!([])), ..good.clone() },
    ] {
        let refused = world.invite(&bad).await;
        assert!(matches!(refused, Err(InviteError::Invalid(_))), "{bad:?}: {refused:?}");
    }
    let by_third = world.rooms.check_invite(server_name!("third.test"), &good).await;
    assert!(matches!(by_third, Err(InviteError::Invalid(_))), "sent by another server");
    assert_eq!(world.row(there()).await, None);
    world.invite(&good).await.expect("and as it was it is fine");
}
