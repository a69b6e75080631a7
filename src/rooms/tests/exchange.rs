//! Third-party invitations that become invitations of users.

use hearth_event::{RoomVersion, SigningKey};
use hearth_schema::Membership;
use ruma_common::{RoomId, ServerName, UserId};
use serde_json::{Value, json};

use super::fixture::{creation, object, user};
use super::neighbour::{Town, event, name, other};
use crate::{CreateRoom, ExchangeIn, Preset};

pub(super) const TOKEN: &str = "token";

pub(super) fn identity_key() -> SigningKey {
    SigningKey::from_seed([5; 32], "0").expect("a valid key")
}

pub(super) fn exchange(room_id: &RoomId, invited: &UserId) -> ExchangeIn {
    let signed = object(json!({ "mxid": invited, "token": TOKEN }));
    let server = <&ServerName>::try_from("id.test").expect("a valid name");
    let signed = serde_json::to_value(identity_key().sign_server_keys(server, signed)).expect("a value");
    ExchangeIn {
        room_id: room_id.to_owned(),
        sender: user("alice"),
        user: invited.to_owned(),
        mxid: invited.to_owned(),
        token: TOKEN.into(),
        signatures: serde_json::from_value(signed["signatures"].clone()).expect("signatures"),
    }
}

#[tokio::test]
async fn who_is_vouched_for_by_the_rooms_identity_server_is_invited_once() {
    for version in RoomVersion::all() {
        let town = Town::new();
        let create = CreateRoom { version: Some(version), ..creation(Preset::PrivateChat) };
        let room_id = town.here.rooms.create(create).await.expect("a room");
        let (alice, olga) = (user("alice"), other("olga"));
        let offer =
            json!({ "display_name": "o...", "public_keys": [{ "public_key": identity_key().public_key_base64() }] });
        town.here.set(&room_id, &alice, ("m.room.third_party_invite", TOKEN), offer).await.expect("set");
        for _ in 0..2 {
            let wanted = exchange(&room_id, &olga);
            town.here.rooms.exchange_third_party_invite(name(1), wanted).await.expect("an invitation");
        }
        let state = town.here.state(&room_id).await;
        let (.., id) =
            state.iter().find(|(kind, key, _)| kind == "m.room.member" && key == olga.as_str()).expect("there");
        let invited = event(&town.here.rooms, &room_id, id).await.expect("an event");
        let whole: Value = serde_json::from_slice(invited.pdu.json()).expect("JSON");
        assert_eq!(whole["sender"], alice.as_str());
        assert_eq!(whole["content"]["membership"], Membership::Invite.as_str());
        let invite = &whole["content"]["third_party_invite"];
        assert_eq!(invite["display_name"], "o...", "of our own event");
        assert_eq!((&invite["signed"]["mxid"], &invite["signed"]["token"]), (&json!(olga), &json!(TOKEN)));
        let signers: Vec<&String> = whole["signatures"].as_object().expect("an object").keys().collect();
        assert_eq!(signers, ["hearth.test", "other.test"], "version {version}");
    }
}
