//! What other servers are served, where the server API does not show it.

use std::time::Duration;

use ruma_common::{ServerName, event_id, server_name};

use super::fixture::Fixture;
use crate::{EarlierTransaction, Received, Rooms};

/// Remembers a transaction, which must be new.
async fn remember(rooms: &Rooms, origin: &ServerName, txn: &str, results: &[Received]) {
    let EarlierTransaction::New(place) = rooms.received_before(origin, txn).await.unwrap() else {
        panic!("{txn} is known")
    };
    rooms.remember_received(place, txn, results).await.unwrap();
}

/// What a transaction came to.
async fn known(rooms: &Rooms, origin: &ServerName, txn: &str) -> Option<Vec<Received>> {
    match rooms.received_before(origin, txn).await.unwrap() {
        EarlierTransaction::Known(results) => Some(results),
        EarlierTransaction::New(_) => None,
    }
}

#[tokio::test]
async fn the_last_transactions_are_known_whatever_they_are_called() {
    let fixture = Fixture::new();
    let (rooms, origin) = (&fixture.rooms, server_name!("other.test"));
    let names: Vec<String> = (0..40_u32).map(|count| format!("t{}", count * 16)).collect();
    for (sent, name) in names.iter().enumerate() {
        remember(rooms, origin, name, &[]).await;
        for (earlier, name) in names.iter().enumerate() {
            let expected = (sent.saturating_sub(15)..=sent).contains(&earlier);
            assert_eq!(known(rooms, origin, name).await.is_some(), expected, "{name} after {sent}");
        }
        assert!(known(rooms, server_name!("a.other.test"), name).await.is_none(), "of another server");
    }
}

#[tokio::test]
async fn transactions_are_known_for_a_day_and_not_for_ever() {
    let fixture = Fixture::new();
    let (rooms, origin) = (&fixture.rooms, server_name!("other.test"));
    let refused = Received { event_id: event_id!("$b").to_owned(), result: Err("é".repeat(300)) };
    let results = [Received { event_id: event_id!("$a").to_owned(), result: Ok(()) }, refused];
    remember(rooms, origin, "1", &results).await;
    fixture.clock.advance(Duration::from_secs(3600));
    remember(rooms, origin, "2", &[]).await;
    let known = async |txn: &str| known(rooms, origin, txn).await;
    let first = known("1").await.unwrap();
    assert_eq!(first[0].result, Ok(()));
    assert_eq!(first[1].result, Err("é".repeat(100)), "a reason is kept in part");
    assert!(known("3").await.is_none());
    rooms.forget_received().await.unwrap();
    assert!(known("1").await.is_some() && known("2").await.is_some());
    fixture.clock.advance(Duration::from_secs(24 * 3600));
    rooms.forget_received().await.unwrap();
    assert!(known("1").await.is_none() && known("2").await.is_some());
}
