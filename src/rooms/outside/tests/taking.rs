//! Invitations that are taken, kept and shown.

use hearth_schema::Membership;
use ruma_common::RoomId;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn an_invitation_is_signed_kept_and_shown_also_after_a_restart() {
    let world = World::new().await;
    let invite = incoming(&invitation(json!({})));
    let signed = world.invite(&invite).await.expect("taken");
    let json: Value = serde_json::from_slice(signed.json()).expect("JSON");
    let signers: Vec<_> = json["signatures"].as_object().expect("signatures").keys().collect();
    assert_eq!(signers, ["hearth.test", "mal.test"]);
    assert_eq!(signed.event_id(), invite.event_id);
    let row = world.row(there()).await.expect("a row");
    assert_eq!((row.membership, row.n, row.own), (Membership::Invite, None, false));
    let world = World::on(world.store);
    let shown = world.shown(there()).await;
    let member = json!({ "type": "m.room.member", "state_key": bob(), "sender": mallory(), "content": { "membership": "invite" } });
    let name = json!({ "type": "m.room.name", "state_key": "", "sender": mallory(), "content": { "name": "Cave" } });
    assert_eq!(shown, [name, member]);
}

#[tokio::test]
async fn the_same_invitation_again_changes_nothing() {
    let world = World::new().await;
    let invite = incoming(&invitation(json!({})));
    let first = world.invite(&invite).await.expect("taken");
    let row = world.row(there()).await;
    assert_eq!(world.invite(&invite).await.expect("taken again"), first);
    assert_eq!(world.row(there()).await, row);
    let left = world.rooms.change_membership(change(Membership::Leave)).await;
    left.expect("turned down");
    world.invite(&invite).await.expect("signed again");
    assert_eq!(world.row(there()).await.expect("a row").membership, Membership::Leave, "it was turned down");
    let newer = incoming(&invitation(json!({ "content": { "membership": "invite", "reason": "please" } })));
    world.invite(&newer).await.expect("taken");
    assert_eq!(world.row(there()).await.expect("a row").membership, Membership::Invite);
}

#[tokio::test]
async fn only_so_many_invitations_of_a_server_wait_for_a_user() {
    let world = World::new().await;
    let mut refused = 0;
    for n in 0..102 {
        let room_id = RoomId::parse(format!("!room{n}:mal.test")).expect("a room");
        let pdu = invitation_in(&room_id, version("10"), &json!({}));
        let invite = InviteIn { room_id, ..incoming(&pdu) };
        refused += usize::from(matches!(world.invite(&invite).await, Err(InviteError::TooMany)));
    }
    assert_eq!(refused, 2);
}

#[tokio::test]
async fn what_describes_the_room_is_bounded_and_cleaned() {
    let world = World::new().await;
    let pdu = invitation(json!({}));
    let of =
        |kind: &str, content: Value| json!({ "type": kind, "state_key": "", "sender": mallory(), "content": content });
    let mut elsewhere = of("m.room.topic", json!({ "topic": "x" }));
    elsewhere["room_id"] = json!("!other:mal.test");
    let mut extra = of("m.room.avatar", json!({ "url": 7 }));
    extra["unsigned"] = json!({ "a": 1 });
    let bad = [
        json!("text"),
        json!({}),
        of("m.room.name", json!("no object")),
        json!({ "type": "m.room.name", "state_key": 1, "sender": mallory(), "content": {} }),
        json!({ "type": "m.room.name", "state_key": "", "sender": "mallory", "content": {} }),
        of("m.room.topic", json!({ "topic": "x".repeat(40_000) })),
        elsewhere,
        extra,
    ];
    let invite = InviteIn { invite_room_state: bad.iter().map(raw_json).collect(), ..incoming(&pdu) };
    world.invite(&invite).await.expect("taken");
    let shown = world.shown(there()).await;
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert_eq!(shown[0], of("m.room.avatar", json!({ "url": 7 })));
    let many = vec![raw_json(&of("m.room.name", json!({}))); 65];
    let invite = InviteIn { invite_room_state: many, ..incoming(&pdu) };
    assert!(matches!(world.invite(&invite).await, Err(InviteError::Invalid(_))));
}

/// The room's creation in version 12, which names the room.
fn creation() -> Pdu {
    let draft = EventDraft {
        room_id: None,
        event_type: "m.room.create".into(),
        state_key: Some(String::new()),
        sender: mallory().to_owned(),
        content: object(json!({ "room_version": "12" })),
        origin_server_ts: 1_600_000_000_000,
        prev_events: vec![],
        auth_events: vec![],
        depth: 1,
        redacts: None,
    };
    build(draft, version("12"), server_name!("mal.test"), &mal_key()).expect("an event")
}

#[tokio::test]
async fn version_twelve_is_described_by_whole_events_of_the_room() {
    let world = World::new().await;
    let create = creation();
    let room_id = create.room_id().to_owned();
    let pdu = invitation_in(&room_id, version("12"), &json!({}));
    let named = |room: &RoomId| {
        let changes = json!({ "type": "m.room.name", "state_key": "", "content": { "name": "Cave" } });
        raw(&invitation_in(room, version("12"), &changes))
    };
    let with = |state: Vec<RawPdu>| InviteIn { room_id: room_id.clone(), invite_room_state: state, ..incoming(&pdu) };
    let stripped = raw_json(&json!({ "type": "m.room.create", "state_key": "", "sender": mallory(), "content": {} }));
    let other = room_id!("!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    for bad in [vec![], vec![stripped], vec![named(&room_id)], vec![raw(&create), named(other)]] {
        let refused = world.invite(&with(bad.clone())).await;
        assert!(matches!(refused, Err(InviteError::Invalid(_))), "{bad:?}: {refused:?}");
        assert_eq!(world.row(&room_id).await, None);
    }
    world.invite(&with(vec![raw(&create), named(&room_id)])).await.expect("taken");
    let shown = world.shown(&room_id).await;
    assert_eq!(shown.len(), 3);
    assert_eq!(shown[0]["origin_server_ts"], 1_600_000_000_000_u64);
}
