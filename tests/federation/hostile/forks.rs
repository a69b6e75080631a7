//! Forks without end.

use hearth_test_harness::Signed;
use serde_json::Value;

use super::scene::Scene;

#[tokio::test]
async fn a_room_with_very_many_ends_goes_on() {
    let scene = Scene::new().await;
    let mut shared = scene.room(11).await;
    let siblings: Vec<Signed> =
        (0..250).map(|n| shared.room.message(&shared.mallory, &format!("branch {n}")).sign(&scene.mal)).collect();
    for page in siblings.chunks(50) {
        let pdus: Vec<String> = page.iter().map(|event| event.text.clone()).collect();
        scene.transaction(&pdus, &[]).await.expect_status(200).expect("an answer");
    }
    for event in siblings.iter().step_by(60) {
        // Those beyond what a room has place for are known, but not shown.
        if event.id == siblings[240].id {
            break;
        }
        shared.alice.sees(&shared.room.id, &event.id).await;
    }
    // The last that still had place: everything before it has been looked at.
    shared.alice.sees(&shared.room.id, &siblings[198].id).await;
    // Each takes twenty together; while she speaks, there is place for those that had none.
    for n in 0..16 {
        let said = shared.alice.say(&shared.room.id, &format!("still here {n}")).await;
        let room = shared.room.clone();
        let of = |asked: &hearth_test_harness::Asked| asked.body["pdus"].as_array().cloned().unwrap_or_default();
        let asked =
            scene.mal.is_asked("her message", |asked| of(asked).iter().any(|pdu| room.received(pdu).id == said));
        let pdus = of(&asked.await);
        let pdu: &Value = pdus.iter().find(|pdu| room.received(pdu).id == said).expect("just found");
        let before = pdu["prev_events"].as_array().expect("a list");
        assert!((1..=20).contains(&before.len()), "{} events before {said}", before.len());
        if n == 15 {
            assert!(before.len() < 20, "by now the ends have been taken together: {}", before.len());
        }
    }
    scene.all_is_looked_at(&mut shared).await;
    scene.end().await;
}
