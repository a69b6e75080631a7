//! What a transaction looks like on its way.
//!
//! Events are read when they are sent, so one that was redacted meanwhile goes in its redacted form. Each is held
//! against the rules for events of other servers once more: one that another server cannot read would make it refuse
//! everything beside it, for ever. Such an event stays here, and the transaction goes without it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use hearth_event::{Pdu, check};
use hearth_rooms::{RoomEvent, Rooms};
use hearth_schema::{EventNid, QueuedPdu, Transaction, Verdict};
use hearth_store::{StoreError, View};
use parking_lot::Mutex;
use ruma_common::ServerName;

/// Events whose form is remembered to be good.
const MAX_KNOWN: usize = 8192;
/// Bytes of a transaction's events: more goes with the next one.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Whether events may leave. One that goes to many servers is looked at once.
#[derive(Default)]
pub(super) struct Inspector(Mutex<HashMap<(EventNid, Option<u32>), bool>>);

impl Inspector {
    /// The events of `pdus` that may leave, in their order, each with its place in the queue.
    pub(super) async fn fit(
        &self,
        rooms: &Rooms,
        view: &View,
        pdus: &[QueuedPdu],
    ) -> Result<Vec<(QueuedPdu, Arc<RoomEvent>)>, StoreError> {
        let mut fit = Vec::with_capacity(pdus.len());
        for pdu in pdus {
            let EventNid { room, n } = pdu.event;
            match rooms.events(view, room, &[n]).await {
                Ok(events) => fit.extend(
                    events.into_iter().filter(|event| self.may_leave(pdu.event, event)).map(|event| (*pdu, event)),
                ),
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(?room, n, %error, "an event is damaged and not sent to other servers");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(fit)
    }

    fn may_leave(&self, nid: EventNid, event: &RoomEvent) -> bool {
        let key = (nid, event.redacted_by);
        if let Some(known) = self.0.lock().get(&key) {
            return *known;
        }
        let fit = event.verdict == Verdict::Accepted && is_sound(&event.pdu);
        if !fit {
            metrics::counter!("hearth_federation_events_kept_back_total").increment(1);
            tracing::error!(event_id = %event.event_id(), "an event is not as other servers want it and is not sent");
        }
        let mut known = self.0.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key, fit);
        fit
    }
}

/// Whether a strict server takes it for what we say it is.
pub(super) fn is_sound(pdu: &Pdu) -> bool {
    check(pdu.json(), pdu.version()).is_ok_and(|checked| checked.event_id() == pdu.event_id())
}

/// How many of `events` one transaction has place for; at least one.
pub(super) fn that_fit(events: &[(QueuedPdu, Arc<RoomEvent>)]) -> usize {
    let mut bytes = 0;
    let fits = |(_, event): &&(QueuedPdu, Arc<RoomEvent>)| {
        bytes += event.pdu.json().len();
        bytes <= MAX_BYTES
    };
    events.iter().take_while(fits).count().max(1)
}

/// The body of `PUT /_matrix/federation/v1/send/{txnId}`.
pub(super) fn body(origin: &ServerName, transaction: &Transaction, events: &[(QueuedPdu, Arc<RoomEvent>)]) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"edus\":[");
    list(transaction.edus.iter().map(String::as_bytes), &mut out);
    out.extend_from_slice(b"],\"origin\":\"");
    // Server names have no character that JSON escapes.
    out.extend_from_slice(origin.as_str().as_bytes());
    out.extend_from_slice(format!("\",\"origin_server_ts\":{},\"pdus\":[", transaction.at).as_bytes());
    list(events.iter().map(|(_, event)| &event.pdu.json()[..]), &mut out);
    out.extend_from_slice(b"]}");
    out.into()
}

fn list<'a>(items: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    for (n, item) in items.enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
}
