//! Servers that nothing waits for are forgotten, and no others.

use std::time::Duration;

use hearth_schema::Destinations;
use hearth_store::{Lane, Owner as _};

use super::*;

const BOB: &str = "@bob:b.test";
const B: &str = "b.test";

/// The servers that have a row, each with the position in it.
async fn named(desk: &Desk) -> Vec<(String, u64)> {
    let view = View::latest(&*desk.world.store).await.expect("a view");
    let mut names = Vec::new();
    for lane in Lane::all() {
        let rows = view.page::<Destinations, _>(&(lane,), Order::Ascending, 100).await.expect("rows");
        names.extend(rows.into_iter().map(|(_, row)| (row.server_name, row.newest)));
    }
    names.sort();
    names
}

#[tokio::test]
async fn a_server_is_forgotten_when_everything_has_arrived_and_remembered_when_there_is_more() {
    let mut desk = Desk::new();
    let room_id = desk.world.room(&[]).await;
    desk.world.relay(&room_id, BOB, "join").await;
    desk.world.say(&room_id, "1").await;
    desk.consume().await;
    assert_eq!(desk.outbound.sweep().await.expect("swept"), 0, "something waits");
    assert_eq!(named(&desk).await.len(), 1);
    let before = named(&desk).await;
    assert_eq!(desk.deliver(B).await.len(), 1);
    assert_eq!(desk.outbound.sweep().await.expect("swept"), 1);
    assert_eq!(named(&desk).await, []);
    desk.world.say(&room_id, "2").await;
    desk.consume().await;
    let after = named(&desk).await;
    assert!(after[0].1 > before[0].1, "the row says which event was the last");
    // What waits is found at a start, as ever.
    let mut desk = desk.restarted();
    assert_eq!(desk.outbound.sweep().await.expect("swept"), 0);
    assert_eq!(desk.deliver(B).await.iter().flat_map(Arrived::words).collect::<Vec<_>>(), ["2"]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_forgotten_only_when_nothing_is_known_of_it() {
    let mut desk = Desk::new();
    let room_id = desk.world.room(&[]).await;
    desk.world.relay(&room_id, BOB, "join").await;
    desk.world.say(&room_id, "odd").await;
    *desk.script.mood.lock() = Mood::Picky("odd");
    // It refuses the one event, which is given up; how it behaved is remembered.
    desk.deliver(B).await;
    assert_eq!(desk.rows(B).await, (0, false, Some(1)));
    assert_eq!(desk.outbound.sweep().await.expect("swept"), 0, "it is left alone for a while");
    desk.world.clock.advance(Duration::from_secs(600));
    assert_eq!(desk.outbound.sweep().await.expect("swept"), 1);
    assert_eq!((named(&desk).await, desk.rows(B).await), (Vec::new(), (0, false, None)));
}

#[tokio::test]
async fn a_row_that_has_changed_meanwhile_stays() {
    let mut desk = Desk::new();
    let room_id = desk.world.room(&[]).await;
    desk.world.relay(&room_id, BOB, "join").await;
    desk.world.say(&room_id, "1").await;
    desk.deliver(B).await;
    let nid = desk.world.rooms.ids().destination(&server(B));
    let view = View::latest(&*desk.world.store).await.expect("a view");
    let row = view.get::<Destinations>(&(nid.lane(), nid)).await.expect("readable").expect("a row");
    // The sweep has looked at the row; now comes an event.
    desk.world.say(&room_id, "2").await;
    desk.consume().await;
    assert!(!desk.outbound.forget(nid.lane(), nid, &row).await.expect("no failure"));
    assert_eq!((named(&desk).await.len(), desk.rows(B).await.0), (1, 1));
}
