//! What other servers are served, where the server API does not show it.

use std::time::Duration;

use ruma_common::{event_id, server_name};

use super::fixture::Fixture;
use crate::Received;

#[tokio::test]
async fn transactions_are_known_for_a_day_and_not_for_ever() {
    let fixture = Fixture::new();
    let (rooms, origin) = (&fixture.rooms, server_name!("other.test"));
    let refused = Received { event_id: event_id!("$b").to_owned(), result: Err("é".repeat(300)) };
    let results = [Received { event_id: event_id!("$a").to_owned(), result: Ok(()) }, refused];
    rooms.remember_received(origin, "1", &results).await.unwrap();
    fixture.clock.advance(Duration::from_secs(3600));
    rooms.remember_received(origin, "2", &[]).await.unwrap();
    let known = async |txn: &str| rooms.received_before(origin, txn).await.unwrap();
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
