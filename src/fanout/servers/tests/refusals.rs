//! Events that a server does not like, and events that nobody should be sent.

use std::time::Duration;

use hearth_schema::{EventIds, EventNid, Events, StoredEvent};
use hearth_store::{Batch, Lane, Owner};

use super::*;

const BOB: &str = "@bob:b.test";
const B: &str = "b.test";

async fn desk_with(words: usize, odd: usize, odd_word: &str) -> (Desk, Vec<String>) {
    let desk = Desk::new();
    let room_id = desk.world.room(&[]).await;
    desk.world.relay(&room_id, BOB, "join").await;
    let mut said = Vec::new();
    for n in 0..words {
        let word = if n == odd { odd_word.to_owned() } else { format!("word {n}") };
        desk.world.say(&room_id, &word).await;
        said.push(word);
    }
    (desk, said)
}

#[tokio::test]
async fn an_event_that_is_refused_by_itself_blocks_nothing() {
    let (mut desk, said) = desk_with(5, 2, "poison").await;
    *desk.script.mood.lock() = Mood::Choosy("poison");
    let arrived = desk.deliver(B).await;
    assert_eq!(arrived.len(), 1, "it is not sent again");
    assert_eq!(arrived[0].words(), said);
    assert_eq!(desk.rows(B).await, (0, false, None));
}

#[tokio::test]
async fn an_event_for_which_whole_transactions_are_refused_is_found_and_given_up() {
    let (mut desk, mut said) = desk_with(50, 24, "poison").await;
    *desk.script.mood.lock() = Mood::Picky("poison");
    desk.consume().await;
    let mut sender = desk.sender(B);
    let mut attempts = 0;
    while desk.work(&mut sender).await != Step::Idle {
        desk.world.clock.advance(Duration::from_secs(120));
        attempts += 1;
        assert!(attempts < 5);
    }
    assert_eq!(desk.rows(B).await, (0, false, None));
    said.retain(|word| word != "poison");
    assert_eq!(*desk.script.accepted.lock(), said, "everything else has arrived, once and in order");
}

/// Replaces the stored JSON of the event that says "odd".
async fn poison(desk: &Desk, change: impl Fn(&str) -> String) {
    let view = View::latest(&*desk.world.store).await.expect("a view");
    for lane in Lane::all() {
        let mut found: Vec<(EventNid, StoredEvent)> = Vec::new();
        let ids = view.page::<EventIds, _>(&(lane,), Order::Ascending, 1_000).await.expect("rows");
        for (_, nid) in ids {
            let row = view.get::<Events>(&(nid.room, nid.n)).await.expect("a row").expect("an event");
            if String::from_utf8_lossy(&row.json).contains("odd") {
                found.push((nid, row));
            }
        }
        for (nid, row) in found {
            let json = change(std::str::from_utf8(&row.json).expect("text"));
            let mut batch = Batch::new(nid.room.lane());
            batch.put::<Events>(&(nid.room, nid.n), &StoredEvent { json: json.into(), ..row });
            desk.world.store.commit(batch).await.expect("a commit");
        }
    }
}

#[tokio::test]
async fn what_a_strict_server_cannot_read_stays_here_and_the_rest_leaves() {
    let changes: [fn(&str) -> String; 8] = [
        |json| json.replace("\"odd\"", "1.5"),
        |json| json.replace("\"odd\"", "1e400"),
        |json| json.replace("\"odd\"", "9007199254740993"),
        |json| json.replace("\"body\":\"odd\"", "\"body\":\"odd\",\"body\":\"odd\""),
        |json| json.replace("\"odd\"", &format!("\"odd{}\"", "x".repeat(70_000))),
        |json| json.replace("\"odd\"", &format!("{}{}", "[".repeat(120), "]".repeat(120))),
        |json| json.replace("\"depth\":", "\"depth\":-"),
        |json| json[..json.len() / 2].to_owned(),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let (mut desk, said) = desk_with(3, 1, "odd").await;
        desk.consume().await;
        poison(&desk, change).await;
        // What is damaged is read anew.
        let mut desk = desk.restarted();
        let arrived = desk.deliver(B).await;
        let words: Vec<_> = arrived.iter().flat_map(Arrived::words).collect();
        assert_eq!(words, [said[0].clone(), said[2].clone()], "case {n}");
        assert_eq!(desk.rows(B).await, (0, false, None), "case {n}");
    }
}

#[tokio::test]
async fn an_event_under_another_name_stays_here() {
    let (mut desk, _) = desk_with(3, 1, "odd").await;
    desk.consume().await;
    poison(&desk, |json| json.replace("\"odd\"", "\"odder\"")).await;
    let mut desk = desk.restarted();
    // The content hash does not count for the ID, so this one leaves: its receiver makes it the redacted form.
    assert_eq!(desk.deliver(B).await.iter().flat_map(Arrived::words).count(), 3);
    let (mut desk, said) = desk_with(3, 1, "odd").await;
    desk.consume().await;
    poison(&desk, |json| json.replace("@alice:hearth.test", "@alicf:hearth.test")).await;
    let mut desk = desk.restarted();
    let words: Vec<_> = desk.deliver(B).await.iter().flat_map(Arrived::words).collect();
    assert_eq!(words, [said[0].clone(), said[2].clone()], "another sender makes another ID");
}
