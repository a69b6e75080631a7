//! Turning invitations down, knocking, and what other servers take back.

use hearth_schema::Membership;
use ruma_common::CanonicalJsonObject;
use serde_json::{Value, json};

use super::*;
use crate::{Entry, MembershipError, RequesterKind, SendError};

fn content(pdu: &Pdu) -> Value {
    serde_json::from_str(pdu.content().get()).expect("JSON")
}

#[tokio::test]
async fn turning_an_invitation_down_is_told_with_an_event_of_our_own() {
    let world = World::new().await;
    world.invite(&incoming(&invitation(json!({})))).await.expect("taken");
    *world.mal.template.lock() = Some(template("leave"));
    let sent = world.rooms.change_membership(change(Membership::Leave)).await.expect("left");
    let told = world.mal.sent.lock().pop().expect("an event");
    assert_eq!(told.event_id(), sent.event_id);
    assert_eq!(content(&told), json!({ "membership": "leave", "reason": "because" }), "and nothing of the template");
    let row = world.row(there()).await.expect("a row");
    assert_eq!((row.membership, row.n, row.own), (Membership::Leave, None, true));
    world.rooms.forget(bob(), there()).await.expect("forgotten");
    let forgotten = world.row(there()).await.expect("a row");
    assert!(forgotten.forgotten);
}

#[tokio::test]
async fn nobody_is_held_to_an_invitation_by_servers_that_do_not_help() {
    for bad in [None, Some(template("ban")), Some(template("join"))] {
        let world = World::new().await;
        world.invite(&incoming(&invitation(json!({})))).await.expect("taken");
        world.mal.template.lock().clone_from(&bad);
        world.rooms.change_membership(change(Membership::Leave)).await.expect("left");
        assert_eq!(world.mal.sent.lock().len(), 0, "nothing was signed for {bad:?}");
        assert_eq!(world.row(there()).await.expect("a row").membership, Membership::Leave);
        let nobody = world.rooms.change_membership(change(Membership::Leave)).await;
        assert!(matches!(nobody, Err(MembershipError::Send(SendError::UnknownRoom))), "{nobody:?}");
    }
}

async fn knock(world: &World) -> Result<crate::Sent, MembershipError> {
    let (change, content) = (change(Membership::Knock), CanonicalJsonObject::new());
    world.rooms.enter(Entry { change, content, requester: RequesterKind::User, via: Vec::new() }).await
}

#[tokio::test]
async fn a_knock_is_kept_with_what_describes_the_room_and_an_invitation_answers_it() {
    let world = World::new().await;
    let refused = knock(&world).await;
    assert!(matches!(refused, Err(MembershipError::Remote(RemoteError::Refused { .. }))), "{refused:?}");
    *world.mal.template.lock() = Some(template("knock"));
    let name = json!({ "type": "m.room.name", "state_key": "", "sender": mallory(), "content": { "name": "Cave" } });
    *world.mal.described.lock() = vec![raw_json(&name), raw_json(&json!(1))];
    let sent = knock(&world).await.expect("knocked");
    let told = world.mal.sent.lock().pop().expect("an event");
    assert_eq!(told.event_id(), sent.event_id);
    assert_eq!(content(&told), json!({ "membership": "knock", "displayname": "Bob", "reason": "because" }));
    assert_eq!(world.row(there()).await.expect("a row").membership, Membership::Knock);
    let shown = world.shown(there()).await;
    assert_eq!((shown.len(), &shown[0]), (2, &name));
    world.invite(&incoming(&invitation(json!({})))).await.expect("taken");
    assert_eq!(world.row(there()).await.expect("a row").membership, Membership::Invite);
}

#[tokio::test]
async fn a_knock_is_taken_back() {
    let world = World::new().await;
    *world.mal.template.lock() = Some(template("knock"));
    knock(&world).await.expect("knocked");
    *world.mal.template.lock() = Some(template("leave"));
    world.rooms.change_membership(change(Membership::Leave)).await.expect("taken back");
    assert_eq!(content(&world.mal.sent.lock()[1])["membership"], "leave");
    assert_eq!(world.row(there()).await.expect("a row").membership, Membership::Leave);
}

#[tokio::test]
async fn who_invited_takes_the_invitation_back_and_nobody_else() {
    let world = World::new().await;
    world.invite(&incoming(&invitation(json!({})))).await.expect("taken");
    let origin = server_name!("mal.test");
    let by = |sender: &str, membership: &str| {
        raw(&invitation(json!({ "sender": sender, "content": { "membership": membership } })))
    };
    let mut unsigned: Value = serde_json::from_str(by("@mallory:mal.test", "leave").get()).expect("JSON");
    unsigned["signatures"] = json!({});
    let idle = [
        by("@other:mal.test", "leave"),
        by("@mallory:mal.test", "invite"),
        by("@mallory:mal.test", "join"),
        raw_json(&unsigned),
    ];
    world.rooms.receive(origin, idle.to_vec()).await.expect("received");
    assert_eq!(world.row(there()).await.expect("a row").membership, Membership::Invite);
    world.rooms.receive(origin, vec![by("@mallory:mal.test", "leave")]).await.expect("received");
    let row = world.row(there()).await.expect("a row");
    assert_eq!((row.membership, row.own), (Membership::Leave, false));
}
