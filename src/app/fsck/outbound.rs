//! Promises about what is on its way to other servers: what is queued exists, and for a server that is known.

use hearth_schema::{
    Destination, DestinationNid, Destinations, EventNid, Events, Ids, Outbox, Transaction, Transactions,
};
use hearth_store::{Keyspace as _, Owner as _, StoreError};
use ruma_common::ServerName;

use super::report::{Invariant, Violation};
use super::{Context, Finding};

fn broken(invariant: Invariant, keyspace: &'static str, detail: String) -> Violation {
    Violation { invariant, keyspace, detail }
}

pub(super) fn destination(ids: &Ids, nid: DestinationNid, row: &Destination) -> Finding {
    let named = <&ServerName>::try_from(row.server_name.as_str()).is_ok_and(|name| ids.destination(name) == nid);
    let wrong = || broken(Invariant::I3, Destinations::DEF.name, format!("{nid:?} has the name {}", row.server_name));
    (!named).then(wrong)
}

pub(super) async fn queued(context: &Context, nid: DestinationNid, event: EventNid) -> Result<Finding, StoreError> {
    // Without its name nothing would ever be sent to it.
    if context.view.get::<Destinations>(&(nid.lane(), nid)).await?.is_none() {
        return Ok(Some(broken(Invariant::I13, Outbox::DEF.name, format!("{nid:?} has no name"))));
    }
    exists(context, event, Outbox::DEF.name).await
}

pub(super) async fn transaction(context: &Context, row: &Transaction) -> Result<Finding, StoreError> {
    for pdu in &row.pdus {
        if let Some(finding) = exists(context, pdu.event, Transactions::DEF.name).await? {
            return Ok(Some(finding));
        }
    }
    Ok(None)
}

async fn exists(context: &Context, event: EventNid, keyspace: &'static str) -> Result<Finding, StoreError> {
    let EventNid { room, n } = event;
    let found = context.view.get::<Events>(&(room, n)).await?.is_some();
    Ok((!found).then(|| broken(Invariant::I13, keyspace, format!("event {n} of {room:?} is not stored"))))
}
