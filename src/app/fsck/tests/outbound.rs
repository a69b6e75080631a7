//! What is on its way to other servers.

use hearth_schema::{Destination, Destinations, Outbox, QueuedPdu, Transaction, Transactions};
use ruma_common::ServerName;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_has_a_destination_and_an_event() {
    let filled = filled().await;
    let name = <&ServerName>::try_from("other.test").expect("a name");
    let nid = filled.ids.destination(name);
    let n = filled.event_number().await;
    let event = EventNid { room: filled.room, n };
    filled.damage(|batch| batch.put_elsewhere::<Outbox>(&(nid, Pos::new(1)), &event)).await;
    filled.breaks(Invariant::I13).await;
    let row = Destination { server_name: name.to_string(), newest: 1 };
    filled.damage(|batch| batch.put_elsewhere::<Destinations>(&(nid.lane(), nid), &row)).await;
    assert_eq!(filled.broken().await, BTreeSet::new());
    let absent = EventNid { room: filled.room, n: 999_999 };
    let pdus = vec![QueuedPdu { pos: 1, event: absent }];
    let row = Transaction { id: "t".to_owned(), at: 1, pdus, edus: Vec::new() };
    filled.damage(|batch| batch.put_elsewhere::<Transactions>(&(nid,), &row)).await;
    filled.breaks(Invariant::I13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_has_the_number_of_its_name() {
    let filled = filled().await;
    let nid = filled.ids.destination(<&ServerName>::try_from("other.test").expect("a name"));
    let row = Destination { server_name: "another.test".to_owned(), newest: 1 };
    filled.damage(|batch| batch.put_elsewhere::<Destinations>(&(nid.lane(), nid), &row)).await;
    filled.breaks(Invariant::I3).await;
}
