//! The inbox: PDUs of transactions, durable before the other server is told so, judged in order afterwards.

use std::collections::{BTreeMap, HashSet};

use hearth_event::{Pdu, RoomVersion};
use hearth_schema::{Inbox, RoomNid, Verdict};
use hearth_store::{Batch, Lane, Order, Owner, StoreError};
use ruma_common::{OwnedEventId, OwnedRoomId, RoomId, ServerName};
use serde::Deserialize;

use super::desk::Places;
use super::worker::staged;
use super::{Admitted, Received, admit};
use crate::SendError;
use crate::gather::damaged;
use crate::graph::Graph;
use crate::intake::Rooms;
use crate::remote::RawPdu;

/// Rows of the inbox read at once at a start.
const PAGE: usize = 64;
/// Rooms with something in the inbox that a start finds in one lane.
const MAX_ROOMS: usize = 100_000;

/// What is read of a PDU before it is known what its room's version asks for.
#[derive(Deserialize)]
struct Addressed {
    room_id: Option<OwnedRoomId>,
}

impl Rooms {
    /// Takes the PDUs of a transaction: checked, verified and durably staged when it returns; judged by the rooms' workers
    /// afterwards. `result` has an entry for each PDU that has an ID.
    ///
    /// # Errors
    /// [`SendError::Busy`] if too much of this server, or for one of the rooms, has not been judged yet: nothing is staged
    /// then, and the transaction is worth repeating. If the store fails. A bad PDU is only its own entry.
    pub async fn receive(&self, origin: &ServerName, pdus: Vec<RawPdu>) -> Result<Vec<Received>, SendError> {
        let mut by_room: BTreeMap<OwnedRoomId, Vec<RawPdu>> = BTreeMap::new();
        for raw in pdus {
            // Without a room there is no version, and without a version no ID under which to answer.
            if let Ok(Addressed { room_id: Some(room_id) }) = serde_json::from_str::<Addressed>(raw.get()) {
                by_room.entry(room_id).or_default().push(raw);
            } else {
                tracing::debug!(%origin, "a PDU names no room");
            }
        }
        let mut received = Vec::new();
        // All of them first: a transaction that comes again must not stage for one room each time.
        let mut places = Vec::with_capacity(by_room.len());
        for (room_id, raw) in &by_room {
            let room = self.ids().room(room_id);
            places.push(Places::take(self, room, origin, raw.len()).ok_or(SendError::Busy)?);
        }
        for ((room_id, raw), places) in by_room.into_iter().zip(places) {
            received.extend(self.receive_in(origin, &room_id, raw, places).await?);
        }
        Ok(received)
    }

    async fn receive_in(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        raw: Vec<RawPdu>,
        mut places: Places,
    ) -> Result<Vec<Received>, SendError> {
        let room = self.ids().room(room_id);
        let view = self.view().await?;
        let Some(meta) = self.room(&view, room).await? else {
            self.rescinded(origin, &raw).await?;
            return Ok(refused(&raw, "the room is not known here"));
        };
        let version = RoomVersion::parse(&meta.version)
            .ok_or_else(|| damaged("Rooms", format!("unknown room version {}", meta.version)))?;
        let own = self.0.signer.server_name.clone();
        if !self.server_in_room(&view, room, &own).await? {
            self.rescinded(origin, &raw).await?;
            return Ok(refused_in(&raw, version, "nobody here is in the room"));
        }
        let admitted = admit(self, room_id, version, raw).await?;
        let graph = Graph { rooms: self.clone(), view, room, version };
        let known = self.judged_already(&graph, &admitted).await?;
        let mut batch = Batch::new(room.lane());
        let mut new = 0;
        let mut received = Vec::with_capacity(admitted.len());
        for Admitted { event_id, event } in admitted {
            let result = match event {
                Ok(event) if known.contains(event.pdu().event_id()) => Ok(()),
                Ok(event) if self.denied(&graph, origin, event.pdu()).await? => {
                    Err("the room's ACL denies it".to_owned())
                }
                Ok(event) => {
                    let pos = batch.next_pos();
                    batch.put::<Inbox>(&(room.lane(), room, pos), &staged(origin.as_str(), event.pdu(), None));
                    new += 1;
                    Ok(())
                }
                Err(why) => Err(why),
            };
            received.extend(event_id.map(|event_id| Received { event_id, result }));
        }
        if new > 0 {
            self.0.store.commit(batch).await?;
            places.use_up(new);
            self.work_on(room, room_id.to_owned());
        }
        Ok(received)
    }

    async fn judged_already(&self, graph: &Graph, admitted: &[Admitted]) -> Result<HashSet<OwnedEventId>, StoreError> {
        let found = graph.find(&admitted.iter().filter_map(|one| one.event_id.clone()).collect::<Vec<_>>()).await?;
        let judged = found.into_iter().filter(|(_, event)| event.verdict != Verdict::Outlier);
        Ok(judged.map(|(id, _)| id).collect())
    }

    /// Whether the room's ACL keeps out the server that sends the event or the one that made it.
    async fn denied(&self, graph: &Graph, origin: &ServerName, pdu: &Pdu) -> Result<bool, StoreError> {
        let sender = pdu.sender().server_name();
        if !self.acl_allows(&graph.view, graph.room, origin).await? {
            return Ok(true);
        }
        Ok(sender != origin && !self.acl_allows(&graph.view, graph.room, sender).await?)
    }

    /// Goes on with what was staged before a stop.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn resume_inbound(&self) -> Result<(), StoreError> {
        let view = self.view().await?;
        for lane in Lane::all() {
            let mut rooms: BTreeMap<RoomNid, BTreeMap<String, usize>> = BTreeMap::new();
            view.scan::<Inbox, _>(&(lane,), Order::Ascending, PAGE, |(_, room, _), row| {
                *rooms.entry(room).or_default().entry(row.origin).or_default() += 1;
                if rooms.len() < MAX_ROOMS {
                    std::ops::ControlFlow::Continue(())
                } else {
                    std::ops::ControlFlow::Break(())
                }
            })
            .await?;
            for (room, staged) in rooms {
                self.0.workers.count(room, staged);
                // One damaged row is no reason not to start: `fsck` finds it again.
                match self.room(&view, room).await?.map(|meta| crate::query::parse_room_id(&meta.room_id)) {
                    Some(Ok(room_id)) => self.work_on(room, room_id),
                    Some(Err(error)) => tracing::error!(?room, %error, "a room's inbox waits for ever"),
                    None => tracing::error!(?room, "the inbox has an event of an unknown room, which waits for ever"),
                }
            }
        }
        Ok(())
    }
}

/// Every PDU is refused. Without the room its version is a guess, which is right for IDs that are hashes.
fn refused(raw: &[RawPdu], why: &str) -> Vec<Received> {
    refused_in(raw, RoomVersion::DEFAULT, why)
}

fn refused_in(raw: &[RawPdu], version: RoomVersion, why: &str) -> Vec<Received> {
    let ids = raw.iter().filter_map(|raw| hearth_event::check(raw.get().as_bytes(), version).ok());
    ids.map(|checked| Received { event_id: checked.event_id().to_owned(), result: Err(why.to_owned()) }).collect()
}
