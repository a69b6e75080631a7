//! Rooms that the server under test is not in: what invitations and knocks say of them.

use hearth_test_harness::{Reply, Room, pct};
use serde_json::{Value, json};

use super::super::lying::template;
use super::super::scene::Scene;
use super::contents::{Names, odd_values, state};
use super::reading::Reader;

/// What somebody may say of a room, with `odd` in many places.
fn descriptions(room: &Room, mallory: &str, odd: &Value) -> Vec<(&'static str, Value)> {
    let names = Names {
        mallory: mallory.to_owned(),
        ghost: mallory.replace("mallory", "ghost"),
        alice: "@alice:a.test".to_owned(),
        root: "$root".to_owned(),
        own: "$own".to_owned(),
        room: room.id.clone(),
    };
    let stripped = |place: usize| -> Value {
        let events = state(&names).into_iter().map(|kind| {
            json!({"type": kind.event_type, "state_key": kind.state_key, "sender": mallory,
                "content": kind.variant(place, odd)})
        });
        events.collect()
    };
    let create =
        |content: &Value| json!({"type": "m.room.create", "state_key": "", "sender": mallory, "content": content});
    vec![
        ("all odd", stripped(usize::MAX)),
        ("first place", stripped(0)),
        ("second place", stripped(1)),
        ("creation", json!([create(odd), create(&json!({"type": odd, "room_version": odd, "predecessor": odd}))])),
        ("content", json!([{"type": "m.room.name", "state_key": "", "sender": mallory, "content": odd}])),
        ("fields", json!([{"type": odd, "state_key": odd, "sender": odd, "content": {}}, {}, odd])),
        ("the list", odd.clone()),
        ("many", Value::Array(vec![odd.clone(); 200])),
    ]
}

#[tokio::test]
async fn odd_descriptions_of_rooms_spoil_no_answer() {
    let scene = Scene::new().await;
    let mal = &scene.mal;
    let mallory = mal.user("mallory");
    for odd in odd_values() {
        let shown: String = odd.to_string().chars().take(20).collect();
        let mut reader = Reader::new(scene.side().person("alice").await).await;
        let alice = reader.person.id().to_owned();
        let count = descriptions(&Room::create(mal, &mallory, 11), &mallory, &odd).len();
        let mut welcome = 0;
        for n in 0..count {
            let room = Room::create(mal, &mallory, 11);
            let (what, described) = descriptions(&room, &mallory, &odd).swap_remove(n);
            let what = format!("{shown}: {what}");
            let content = json!({"membership": "invite", "displayname": odd, "avatar_url": odd, "is_direct": odd,
                "reason": odd, "third_party_invite_of_none": odd});
            let invite = room.event("m.room.member", Some(&alice), &mallory, &content).sign(mal);
            let uri = format!("/_matrix/federation/v2/invite/{}/{}", pct(&room.id), pct(&invite.id));
            let body = json!({"room_version": "11", "event": invite.json(), "invite_room_state": described});
            let answer = mal.put(&scene.name(), &uri, &body).send().await;
            assert!([200, 400, 413].contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
            if answer.status == 200 {
                welcome += 1;
                reader.person.is_invited(&room.id).await;
            }
            reader.reads_outside(&what, &room.id).await;

            let room = Room::create(mal, &mallory, 11);
            mal.answer("/make_knock/", Reply::json(&template(&room, &alice, "knock")));
            mal.answer("/send_knock/", Reply::json(&json!({"knock_room_state": described})));
            let via = pct(mal.name());
            let path = format!("/knock/{}?server_name={via}&via={via}", pct(&room.id));
            let knocked = reader.person.post(&path, &json!({})).await;
            assert!([200, 400, 403, 404, 502].contains(&knocked.status), "{what}: {} {}", knocked.status, knocked.text);
            reader.reads_outside(&what, &room.id).await;
        }
        assert!(welcome > 0, "{shown}: nothing of it is taken, which proves nothing");
    }
    scene.end().await;
}
