//! Redactions that come before what they redact.

use hearth_event::{Pdu, RoomVersion};
use hearth_schema::Membership;
use ruma_common::{OwnedRoomId, OwnedUserId, RoomId};
use serde_json::json;

use super::fixture::{message, user};
use super::neighbour::{Town, event, event_on, name, other, raw};

/// Who redacts, and how this server comes to know.
#[derive(Clone, Copy, Debug)]
enum By {
    /// A user of the author's server, without power.
    Author,
    /// A user of another server, with the power to redact.
    Admin,
    /// A user of another server, without.
    Nobody,
    /// The same, through this server.
    NobodyHere,
}

struct Scene {
    town: Town,
    room_id: OwnedRoomId,
    otto: OwnedUserId,
    alice: OwnedUserId,
    bob: OwnedUserId,
}

impl Scene {
    /// A room of otto, who is of another server, and of this server's alice, who may redact, and bob, who may not.
    async fn new() -> Self {
        let town = Town::new();
        let room_id = town.shared_room(RoomVersion::parse("11").expect("known")).await;
        let (olga, otto, alice, bob) = (other("olga"), other("otto"), user("alice"), user("bob"));
        let levels = json!({ "users": { olga.as_str(): 100, alice.as_str(): 100 } });
        let levels = town.there.set(&room_id, &olga, ("m.room.power_levels", ""), levels).await.expect("set").event_id;
        let join = town.there.change(&room_id, (&otto, &otto), Membership::Join).await.expect("joined").event_id;
        Town::deliver(&town.there, &town.here, &room_id, &[&levels, &join]).await;
        let join = town.here.change(&room_id, (&bob, &bob), Membership::Join).await.expect("joined").event_id;
        Town::deliver(&town.here, &town.there, &room_id, &[&join]).await;
        Self { town, room_id, otto, alice, bob }
    }

    async fn comes(&self, pdu: &Pdu) {
        let received = self.town.here.rooms.receive(name(1), vec![raw(pdu)]).await.expect("received");
        assert!(received[0].result.is_ok(), "{received:?}");
        self.town.here.settled(&self.room_id).await;
    }

    async fn redact(&self, secret: &Pdu, by: By) {
        let room_id: &RoomId = &self.room_id;
        let sender = match by {
            By::Author => &self.otto,
            By::Admin => &self.alice,
            By::Nobody => &self.bob,
            By::NobodyHere => {
                let mut redaction = message(room_id, &self.bob, "", "redact");
                redaction.event_type = "m.room.redaction".into();
                redaction.redacts = Some(secret.event_id().to_owned());
                self.town.here.rooms.send(redaction).await.expect("it may come yet");
                return;
            }
        };
        let content = json!({ "redacts": secret.event_id() });
        self.comes(&event_on(&self.town.there, room_id, sender, ("m.room.redaction", None), content).await).await;
    }
}

#[tokio::test]
async fn a_redaction_that_may_is_not_undone_by_one_that_may_not() {
    let cases: [(&[By], bool); 8] = [
        (&[By::Admin, By::Nobody], true),
        (&[By::Nobody, By::Admin], true),
        (&[By::Author, By::Nobody], true),
        (&[By::Nobody, By::Author], true),
        (&[By::Author, By::NobodyHere], true),
        (&[By::NobodyHere, By::Admin], true),
        (&[By::Nobody], false),
        (&[By::NobodyHere, By::Nobody], false),
    ];
    for (redactors, is_redacted) in cases {
        let scene = Scene::new().await;
        let (here, room_id) = (&scene.town.here, &scene.room_id);
        let content = json!({ "body": "secret", "msgtype": "m.text" });
        let secret = event_on(&scene.town.there, room_id, &scene.otto, ("m.room.message", None), content).await;
        for by in redactors {
            scene.redact(&secret, *by).await;
        }
        scene.comes(&secret).await;
        let found = event(&here.rooms, room_id, secret.event_id()).await.expect("an event");
        assert_eq!(found.redacted_by.is_some(), is_redacted, "{redactors:?}");
        let shown = here.history(room_id, &scene.alice).await.contains(&"secret".to_owned());
        assert_eq!(shown, !is_redacted, "{redactors:?}");
    }
}
