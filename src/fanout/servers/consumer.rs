//! From the change log into the queues.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_accounts::PresenceState;
use hearth_rooms::RoomEvent;
use hearth_schema::{
    Change, Destination, Destinations, EventNid, Outbox, ReceiptKind, ReceiptLog, ReceiptName, Receipts, RoomNid,
};
use hearth_store::{Batch, LoggedFact, Owner, Pos, StoreError, Value, View};
use ruma_common::{OwnedUserId, RoomId, UserId};

use super::edus::OutReceipt;
use super::recipients::Recipients;
use super::{Outbound, PresenceOut};
use crate::{ConsumeError, Consumer, Habit};

/// Users who are there that are looked at when a server comes into a room.
const MAX_SEEN: usize = 5_000;
/// Local ones among them of whom it may be told.
const MAX_WELCOMED: usize = 500;

/// Puts what other servers have to know into their queues.
pub struct ToServers {
    outbound: Outbound,
    recipients: Recipients,
}

impl ToServers {
    /// Its name in `Cursors`.
    pub const NAME: &'static str = "servers";

    pub(super) fn new(outbound: Outbound) -> Self {
        let inner = &outbound.0;
        let recipients = Recipients::new(inner.rooms.clone(), inner.server_name.clone());
        Self { outbound, recipients }
    }

    async fn consume_page(&mut self, view: &View, facts: &[LoggedFact], batch: &mut Batch) -> Result<(), ConsumeError> {
        let mut numbers: HashMap<RoomNid, Vec<u32>> = HashMap::new();
        let mut receipts = Vec::new();
        for fact in facts {
            // Facts and events that are damaged are reported by the unread consumer and by `fsck`.
            match Change::decode(&fact.body) {
                Ok(Change::Event { event }) => numbers.entry(event.room).or_default().push(event.n),
                Ok(Change::Receipt { room, .. }) => receipts.push((room, fact.pos)),
                Ok(
                    Change::AccountData { .. }
                    | Change::Outside { .. }
                    | Change::ThreadSubscription { .. }
                    | Change::Deactivated { .. },
                )
                | Err(_) => {}
            }
        }
        for (room, numbers) in numbers {
            for event in self.load(view, room, &numbers).await? {
                match self.event(view, &event, batch).await {
                    // Waiting would not repair the row, and stop everybody else of the lane.
                    Err(error @ StoreError::Corrupt { .. }) => {
                        tracing::error!(event_id = %event.event_id(), %error, "an event is not sent to other servers");
                    }
                    other => other?,
                }
            }
        }
        for (room, pos) in receipts {
            match self.receipt(view, room, pos).await {
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(?room, %error, "a receipt is not sent to other servers");
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn load(&self, view: &View, room: RoomNid, numbers: &[u32]) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        match self.outbound.0.rooms.events(view, room, numbers).await {
            Err(StoreError::Corrupt { .. }) if numbers.len() > 1 => {
                let mut found = Vec::new();
                for n in numbers {
                    found.extend(Box::pin(self.load(view, room, &[*n])).await?);
                }
                Ok(found)
            }
            Err(StoreError::Corrupt { .. }) => Ok(Vec::new()),
            found => found,
        }
    }

    async fn event(&mut self, view: &View, event: &RoomEvent, batch: &mut Batch) -> Result<(), StoreError> {
        let servers = self.recipients.of(view, event).await?;
        self.welcome(view, event).await?;
        let ids = self.outbound.0.rooms.ids();
        for server in servers {
            let nid = ids.destination(&server);
            let row = Destination { server_name: server.to_string(), newest: event.pos.get() };
            batch.put_elsewhere::<Destinations>(&(nid.lane(), nid), &row);
            batch.put_elsewhere::<Outbox>(&(nid, event.pos), &EventNid { room: event.room, n: event.n });
            self.outbound.touch(server, event.pos);
        }
        Ok(())
    }

    /// A server that comes into a room is told which of its local members are there.
    async fn welcome(&mut self, view: &View, event: &RoomEvent) -> Result<(), StoreError> {
        let inner = &self.outbound.0;
        if inner.settings.presence != PresenceOut::Told {
            return Ok(());
        }
        let Some(server) = self.recipients.newcomer(view, event).await? else { return Ok(()) };
        let there = inner.presence.since(0, MAX_SEEN, |state| state != PresenceState::Offline);
        let local = there.into_iter().map(|(_, sight)| sight);
        let local = local.filter(|sight| sight.user_id.server_name() == inner.server_name);
        for sight in local.take(MAX_WELCOMED) {
            if inner.rooms.is_joined(view, event.room, &sight.user_id).await? {
                self.outbound.send_to(&server, |destination| destination.fleeting(|edus| edus.presence(&sight)));
            }
        }
        Ok(())
    }

    /// A public receipt of a local user; one that has moved on since has a fact of its own.
    async fn receipt(&mut self, view: &View, room: RoomNid, pos: Pos) -> Result<(), StoreError> {
        let Some(name) = view.get::<ReceiptLog>(&(room, pos)).await? else { return Ok(()) };
        let Some(user) = self.sender(&name) else { return Ok(()) };
        let servers = self.recipients.now_in(view, room).await?;
        if servers.is_empty() {
            return Ok(());
        }
        let inner = &self.outbound.0;
        let Some(meta) = inner.rooms.room(view, room).await? else { return Ok(()) };
        let room_id = RoomId::parse(&meta.room_id)
            .map_err(|error| StoreError::Corrupt { keyspace: "Rooms", detail: error.to_string().into() })?;
        let key = (room, name.kind, name.thread.clone(), name.user_id);
        let Some(row) = view.get::<Receipts>(&key).await? else { return Ok(()) };
        let thread = (!name.thread.is_empty()).then_some(name.thread);
        for server in servers.iter() {
            let receipt = OutReceipt { event_id: row.event_id.clone(), ts: row.ts };
            let of = (room_id.clone(), user.clone(), thread.clone());
            self.outbound.send_to(server, |destination| Some(destination.receipt(of, receipt)));
        }
        Ok(())
    }

    fn sender(&self, name: &ReceiptName) -> Option<OwnedUserId> {
        let user = <&UserId>::try_from(name.user_id.as_str()).ok()?;
        let tells = name.kind == ReceiptKind::Read && user.server_name() == self.outbound.0.server_name;
        tells.then(|| user.to_owned())
    }
}

impl Consumer for ToServers {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn consume<'a>(
        &'a mut self,
        view: &'a View,
        facts: &'a [LoggedFact],
        batch: &'a mut Batch,
    ) -> BoxFuture<'a, Result<(), ConsumeError>> {
        self.consume_page(view, facts, batch).boxed()
    }

    fn reached(&mut self, pos: Pos) {
        self.outbound.reached(pos);
    }

    fn forget(&mut self) {
        self.recipients.forget();
    }

    /// Most events of a server are for nobody else, or came from elsewhere; but who waits for one wants it now.
    fn habit(&self) -> Habit {
        Habit::Prompt
    }
}
