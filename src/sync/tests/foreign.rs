//! What users of other servers type, read and are is shown like what local users do.

use std::sync::Arc;
use std::time::Duration;

use hearth_accounts::{PresenceMode, Requester};
use hearth_base::SystemClock;
use hearth_event::{EventDraft, PublicKeys, RoomVersion, SigningKey, check};
use hearth_fanout::ForeignEdus;
use hearth_store::Pos;
use hearth_store::memory::MemoryStore;
use ruma_common::{OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, json};

use crate::SyncRequest;
use crate::presence::PresenceError;
use crate::testing::{LONG, World, bodies, joined, next, now, object, state};

const BOB: &str = "@bob:b.test";

struct Desk {
    world: World,
    edus: ForeignEdus,
}

impl Desk {
    fn new() -> Self {
        let world = World::with(Arc::new(MemoryStore::new()), PresenceMode::On);
        let presence = world.accounts.presence().clone();
        let edus = ForeignEdus::new(world.rooms.clone(), presence, Arc::new(SystemClock));
        Self { world, edus }
    }

    async fn says(&self, edu_type: &str, content: Value) {
        let origin = <&ServerName>::try_from("b.test").expect("a name");
        self.edus.accept(origin, edu_type, &serde_json::value::to_raw_value(&content).expect("JSON")).await;
    }

    async fn is(&self, presence: &str) {
        let push = json!([{ "user_id": BOB, "presence": presence, "last_active_ago": 5, "status_msg": "far away" }]);
        self.says("m.presence", json!({ "push": push })).await;
    }

    /// The answer that comes by itself when bob's presence changes.
    async fn woken(&self, who: &Requester, mut since: String) -> Value {
        for _ in 0..10 {
            let answer = self.world.ask(who, &SyncRequest { since: Some(&since), timeout: LONG, ..quiet() }).await;
            if !told(&answer).is_empty() {
                return answer;
            }
            since = next(&answer);
        }
        panic!("nothing was told");
    }

    /// Bob joins a public room through this server.
    async fn enters(&self, room_id: &RoomId) {
        self.sends(self.join_of_bob(room_id).await).await;
    }

    /// What Bob signs to join, as the room is now.
    async fn join_of_bob(&self, room_id: &RoomId) -> EventDraft {
        let (rooms, bob) = (&self.world.rooms, bob());
        let view = rooms.view().await.expect("a view");
        let room = rooms.ids().room(room_id);
        let head = rooms.head(&view, room).await.expect("a head");
        let mut auth_events = Vec::new();
        for event_type in ["m.room.power_levels", "m.room.join_rules"] {
            let event = rooms.current_event(&view, room, event_type, "").await.expect("a store").expect("an event");
            auth_events.push(event.event_id().to_owned());
        }
        EventDraft {
            room_id: Some(room_id.to_owned()),
            event_type: "m.room.member".to_owned(),
            state_key: Some(BOB.to_owned()),
            sender: bob,
            content: object(json!({ "membership": "join" })),
            origin_server_ts: now().0,
            prev_events: head.extremities.iter().map(|end| end.event_id.as_str().try_into().expect("an ID")).collect(),
            auth_events,
            depth: head.extremities.iter().map(|end| end.depth).max().unwrap_or(0) + 1,
            redacts: None,
        }
    }

    async fn sends(&self, draft: EventDraft) {
        let bob = bob();
        let key = SigningKey::from_seed([9; 32], "foreign").expect("a valid key");
        let mut keys = PublicKeys::default();
        keys.insert(bob.server_name(), key.key_id(), &key.public_key_base64(), u64::MAX).expect("a key");
        let pdu = hearth_event::build(draft, RoomVersion::DEFAULT, bob.server_name(), &key).expect("an event");
        let event = check(pdu.json(), RoomVersion::DEFAULT).expect("valid").verify(&keys).expect("signed");
        self.world.rooms.enter_handshake(bob.server_name(), event).await.expect("the room takes it");
    }
}

fn bob() -> OwnedUserId {
    UserId::parse(BOB).expect("a user ID")
}

/// Polls that change nobody's presence.
fn quiet<'a>() -> SyncRequest<'a> {
    SyncRequest { set_presence: hearth_accounts::PresenceState::Offline, ..SyncRequest::default() }
}

fn told(answer: &Value) -> Vec<String> {
    let events = answer["presence"]["events"].as_array().map_or(&[][..], Vec::as_slice);
    let foreign = events.iter().filter(|event| event["sender"] == BOB);
    foreign.map(|event| event["content"]["presence"].as_str().expect("text").to_owned()).collect()
}

#[tokio::test]
async fn typing_and_receipts_wake_local_members() {
    let desk = Desk::new();
    let alice = desk.world.user("alice").await;
    let room_id = desk.world.room(&alice, &[]).await;
    desk.enters(&room_id).await;
    let event_id = desk.world.say(&room_id, &alice, "hello").await;
    let first = desk.world.ask(&alice, &quiet()).await;
    let since = next(&first);
    let poll = SyncRequest { since: Some(&since), timeout: LONG, ..quiet() };
    let (answer, ()) = tokio::join!(desk.world.ask(&alice, &poll), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        desk.says("m.typing", json!({ "room_id": room_id, "user_id": BOB, "typing": true })).await;
    });
    let ephemeral = &joined(&answer, &room_id)["ephemeral"]["events"];
    assert_eq!(*ephemeral, json!([{ "type": "m.typing", "content": { "user_ids": [BOB] } }]));
    let since = next(&answer);
    let poll = SyncRequest { since: Some(&since), timeout: LONG, ..quiet() };
    let read = json!({ "event_ids": [event_id], "data": { "ts": 5 } });
    let (answer, ()) = tokio::join!(desk.world.ask(&alice, &poll), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        desk.says("m.receipt", json!({ room_id.as_str(): { "m.read": { BOB: read } } })).await;
    });
    let content = json!({ event_id: { "m.read": { BOB: { "ts": 5 } } } });
    let ephemeral = &joined(&answer, &room_id)["ephemeral"]["events"];
    assert_eq!(*ephemeral, json!([{ "type": "m.receipt", "content": content }]));
}

#[tokio::test]
async fn a_timeline_does_not_begin_with_state_that_is_older_than_what_came_before_it() {
    let desk = Desk::new();
    let (alice, world) = (desk.world.user("alice").await, &desk.world);
    let room_id = world.room(&alice, &[]).await;
    let since = next(&world.ask(&alice, &quiet()).await);
    let late = desk.join_of_bob(&room_id).await;
    world.say(&room_id, &alice, "1").await;
    world.say(&room_id, &alice, "2").await;
    desk.sends(late).await;
    for (limit, shown, in_state) in [(1, vec![], true), (2, vec!["2", "m.room.member"], false)] {
        let filter = format!(r#"{{"room":{{"timeline":{{"limit":{limit}}}}}}}"#);
        let answer = world.now(&alice, None, &filter).await;
        let room = joined(&answer, &room_id);
        assert_eq!(bodies(room), shown, "limit {limit}");
        assert_eq!(state(room).iter().any(|key| key == "m.room.member/@bob:b.test"), in_state, "limit {limit}");
        assert_eq!(room["timeline"]["limited"], true);
    }
    // Who has the room is told what is new in the order in which it came.
    let answer = world.poll(&alice, &since).await;
    assert_eq!(bodies(joined(&answer, &room_id)), ["1", "2", "m.room.member"]);
    world.say(&room_id, &alice, "3").await;
    let answer = world.now(&alice, None, r#"{"room":{"timeline":{"limit":2}}}"#).await;
    let room = joined(&answer, &room_id);
    assert_eq!(bodies(room), ["3"]);
    let page_end = room["timeline"]["prev_batch"].as_str().expect("a token");
    let upto = crate::PageToken::parse(page_end, crate::Incarnation(1)).expect("a token").pos;
    let view = world.rooms.view().await.expect("a view");
    let before = world.rooms.timeline(&view, world.rooms.ids().room(&room_id), (Pos::ZERO, upto), 1).await;
    assert_eq!(before.expect("a page").events[0].state_key(), Some(BOB));
}

#[tokio::test]
async fn presence_is_told_to_those_who_share_a_room_and_to_nobody_else() {
    let desk = Desk::new();
    let (alice, eve) = (desk.world.user("alice").await, desk.world.user("eve").await);
    let room_id = desk.world.room(&alice, &[]).await;
    desk.world.room(&eve, &[]).await;
    let since = next(&desk.world.ask(&alice, &quiet()).await);
    let of_eve = next(&desk.world.ask(&eve, &quiet()).await);
    desk.is("online").await;
    let ask = async |by: &Requester| -> Result<Value, PresenceError> {
        let json = desk.world.sync.presence_of(by, &bob()).await?;
        Ok(serde_json::from_slice(&json).expect("JSON"))
    };
    assert!(matches!(ask(&alice).await, Err(PresenceError::Forbidden)), "they share no room yet");
    assert_eq!(told(&desk.world.ask(&alice, &SyncRequest { since: Some(&since), ..quiet() }).await), [""; 0]);
    desk.enters(&room_id).await;
    let answer = desk.woken(&alice, since).await;
    assert_eq!(told(&answer), ["online"], "who comes is shown");
    let seen = ask(&alice).await.expect("a room-mate");
    assert_eq!((&seen["presence"], &seen["status_msg"]), (&"online".into(), &"far away".into()));
    let since = next(&answer);
    let (answer, ()) = tokio::join!(desk.woken(&alice, since), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        desk.is("unavailable").await;
    });
    assert_eq!(told(&answer), ["unavailable"]);
    assert_eq!(told(&desk.world.ask(&alice, &quiet()).await), ["unavailable"], "also in a first answer");
    assert_eq!(told(&desk.world.ask(&eve, &SyncRequest { since: Some(&of_eve), ..quiet() }).await), [""; 0]);
    assert!(matches!(ask(&eve).await, Err(PresenceError::Forbidden)));
}
