//! Invitations of local users into rooms of other servers.

use hearth_accounts::NewAccount;
use ruma_common::owned_room_id;

use super::*;

/// The create event of a room of `other`, and one that comes after it.
fn room_of(
    other: &Other,
    (event_type, sender): (&str, &UserId),
    state_key: Option<&str>,
    content: Value,
) -> (Pdu, Pdu) {
    let version = RoomVersion::parse("10").unwrap();
    let creator = other.user("olga");
    let draft = EventDraft {
        room_id: Some(OwnedRoomId::try_from(format!("!den:{}", other.name)).unwrap()),
        event_type: "m.room.create".into(),
        state_key: Some(String::new()),
        sender: creator.clone(),
        content: object(json!({"creator": creator, "room_version": "10"})),
        origin_server_ts: NOW.0,
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 1,
        redacts: None,
    };
    let create = build(draft.clone(), version, &other.name, &other.key).unwrap();
    let event = EventDraft {
        event_type: event_type.to_owned(),
        state_key: state_key.map(str::to_owned),
        sender: sender.to_owned(),
        content: object(content),
        prev_events: vec![create.event_id().to_owned()],
        auth_events: vec![create.event_id().to_owned()],
        depth: 2,
        ..draft
    };
    (create, build(event, version, &other.name, &other.key).unwrap())
}

async fn world_with_alice() -> World {
    let world = World::new().await;
    let account = NewAccount { localpart: Some("alice".into()), inhibit_login: true, ..NewAccount::default() };
    world.accounts.register(account).await.unwrap();
    world
}

fn body((create, event): &(Pdu, Pdu), version: &str) -> String {
    let (create, event) = (text(create), text(event));
    format!(r#"{{"room_version":"{version}","event":{event},"invite_room_state":[{create}]}}"#)
}

#[tokio::test]
async fn an_invitation_is_signed_and_shown_to_who_is_invited() {
    let (world, friend) = (world_with_alice().await, Other::friend());
    let olga = friend.user("olga");
    let invite = room_of(&friend, ("m.room.member", &olga), Some("@alice:hs.test"), json!({"membership": "invite"}));
    let path = |version: &str| {
        let event = pct(invite.1.event_id().as_str());
        format!("/_matrix/federation/{version}/invite/{}/{event}", pct("!den:other.test"))
    };
    let signed = friend.put(&world, &path("v2"), &body(&invite, "10")).await.ok();
    let signers: Vec<&String> = signed["event"]["signatures"].as_object().unwrap().keys().collect();
    assert_eq!(signers, ["hs.test", "other.test"]);
    let view = world.rooms.view().await.unwrap();
    let room = world.rooms.ids().room(&owned_room_id!("!den:other.test"));
    let row = world.rooms.membership(&view, world.rooms.ids().user(&alice()), room).await.unwrap().unwrap();
    assert_eq!(row.membership, hearth_schema::Membership::Invite);
    // A body of the first version has no room version in it, and so no room of version 10.
    let old = friend.put(&world, &path("v1"), text(&invite.1)).await;
    assert_eq!(old.status, StatusCode::BAD_REQUEST, "{}", old.body);
}

#[tokio::test]
async fn nothing_is_signed_that_is_no_invitation_of_ours_by_one_of_theirs() {
    let (world, friend, mallory) = (world_with_alice().await, Other::friend(), Other::mallory());
    let (olga, ours) = (friend.user("olga"), Some("@alice:hs.test"));
    let invite = json!({"membership": "invite"});
    let member = "m.room.member";
    let good = room_of(&friend, (member, &olga), ours, invite.clone());
    let path = |room: &str, event: &EventId| format!("{V2}/invite/{}/{}", pct(room), pct(event.as_str()));
    let den = "!den:other.test";
    let bad = [
        ("a user of another server", room_of(&friend, (member, &olga), Some("@eve:mal.test"), invite.clone())),
        ("nobody", room_of(&friend, (member, &olga), None, invite.clone())),
        ("a join", room_of(&friend, (member, &olga), ours, json!({"membership": "join"}))),
        ("a ban", room_of(&friend, (member, &olga), ours, json!({"membership": "ban"}))),
        ("a message", room_of(&friend, ("m.room.message", &olga), None, json!({"body": "x"}))),
        ("other state", room_of(&friend, ("m.room.power_levels", &olga), ours, invite.clone())),
        ("another room", room_of(&mallory, (member, &mallory.user("olga")), ours, invite.clone())),
    ];
    for (why, event) in &bad {
        let answer = friend.put(&world, &path(den, event.1.event_id()), &body(event, "10")).await;
        assert_eq!(answer.verdict(), (400, "M_INVALID_PARAM"), "{why}: {}", answer.body);
    }
    // Handed in by somebody else, under another name, in another room version, altered, for nobody.
    let id = good.1.event_id();
    let answer = mallory.put(&world, &path(den, id), &body(&good, "10")).await;
    assert_eq!(answer.verdict(), (400, "M_INVALID_PARAM"));
    let other_id = OwnedEventId::try_from("$0123456789012345678901234567890123456789012").unwrap();
    for (path, body) in [
        (path(den, &other_id), body(&good, "10")),
        (path("!other:other.test", id), body(&good, "10")),
        (path(den, id), body(&good, "1")),
        (path(den, id), body(&good, "10").replace("\"membership\":\"invite\"", "\"a\":1,\"membership\":\"invite\"")),
    ] {
        let answer = friend.put(&world, &path, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {}", answer.body);
    }
    let stranger = room_of(&friend, (member, &olga), Some("@nobody:hs.test"), invite);
    let answer = friend.put(&world, &path(den, stranger.1.event_id()), &body(&stranger, "10")).await;
    assert_eq!(answer.verdict(), (403, "M_FORBIDDEN"));
    let unknown = friend.put(&world, &path(den, id), &body(&good, "org.example.1")).await;
    assert_eq!(unknown.verdict(), (400, "M_INCOMPATIBLE_ROOM_VERSION"));
    let view = world.rooms.view().await.unwrap();
    let room = world.rooms.ids().room(&owned_room_id!("!den:other.test"));
    assert!(world.rooms.membership(&view, world.rooms.ids().user(&alice()), room).await.unwrap().is_none());
}
