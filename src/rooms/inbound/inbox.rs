//! The inbox: PDUs of transactions, durable before the other server is told so, judged in order afterwards.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use hearth_event::{Pdu, RoomVersion};
use hearth_schema::{Inbox, RoomNid, StagedEvent, Verdict};
use hearth_store::{Batch, Lane, Order, Owner, Pos, StoreError};
use parking_lot::Mutex;
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde::Deserialize;

use super::run::Arrived;
use super::take::Taker;
use super::{Admitted, Received, admit};
use crate::SendError;
use crate::gather::damaged;
use crate::graph::Graph;
use crate::intake::Rooms;
use crate::remote::RawPdu;

/// Events of one room read from the inbox at once.
const PAGE: usize = 64;
/// How long one event may take, with everything that has to be fetched for it.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a worker waits after a failure of the store: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Rooms with something in the inbox that a start finds in one lane.
const MAX_ROOMS: usize = 100_000;

/// Rooms whose inbox is being worked on.
#[derive(Default)]
pub(crate) struct Workers(Mutex<HashSet<RoomNid>>);

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
    /// If the store fails; a bad PDU is only its own entry.
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
        for (room_id, raw) in by_room {
            received.extend(self.receive_in(origin, &room_id, raw).await?);
        }
        Ok(received)
    }

    async fn receive_in(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        raw: Vec<RawPdu>,
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
        let mut staged = false;
        let mut received = Vec::with_capacity(admitted.len());
        for Admitted { event_id, event } in admitted {
            let result = match event {
                Ok(event) if known.contains(event.pdu().event_id()) => Ok(()),
                Ok(event) if self.denied(&graph, origin, event.pdu()).await? => {
                    Err("the room's ACL denies it".to_owned())
                }
                Ok(event) => {
                    stage(&mut batch, room, origin, event.pdu());
                    staged = true;
                    Ok(())
                }
                Err(why) => Err(why),
            };
            received.extend(event_id.map(|event_id| Received { event_id, result }));
        }
        if staged {
            self.0.store.commit(batch).await?;
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
            let mut rooms: Vec<RoomNid> = Vec::new();
            view.scan::<Inbox, _>(&(lane,), Order::Ascending, PAGE, |(_, room, _), _| {
                if rooms.last() != Some(&room) {
                    rooms.push(room);
                }
                if rooms.len() < MAX_ROOMS {
                    std::ops::ControlFlow::Continue(())
                } else {
                    std::ops::ControlFlow::Break(())
                }
            })
            .await?;
            for room in rooms {
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

    /// Starts the room's worker, unless it is at work.
    fn work_on(&self, room: RoomNid, room_id: OwnedRoomId) {
        if !self.0.workers.0.lock().insert(room) {
            return;
        }
        let rooms = self.clone();
        self.0.tasks.spawn(async move {
            let mut pause = PAUSE.0;
            while !rooms.0.is_stopping() {
                match rooms.empty_inbox(room, &room_id).await {
                    Ok(()) => {
                        pause = PAUSE.0;
                        rooms.0.workers.0.lock().remove(&room);
                        // What was staged between the last look and now has found the worker still there.
                        let done = matches!(rooms.has_mail(room).await, Ok(false));
                        if done || !rooms.0.workers.0.lock().insert(room) {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, %room_id, "the room's inbox waits");
                        rooms.0.pause(pause).await;
                        pause = PAUSE.1.min(pause * 2);
                    }
                }
            }
        });
    }

    pub(crate) async fn has_mail(&self, room: RoomNid) -> Result<bool, StoreError> {
        let rows = self.view().await?.page::<Inbox, _>(&(room.lane(), room), Order::Ascending, 1).await?;
        Ok(!rows.is_empty())
    }

    async fn empty_inbox(&self, room: RoomNid, room_id: &RoomId) -> Result<(), SendError> {
        loop {
            let view = self.view().await?;
            let rows = view.page::<Inbox, _>(&(room.lane(), room), Order::Ascending, PAGE).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let version = self.version(&view, room).await?;
            let mut arrived: Vec<Arrived> = Vec::with_capacity(rows.len());
            for ((_, _, arrival), staged) in rows {
                match parsed(arrival, staged, version) {
                    Ok(one) => arrived.push(one),
                    Err(error) => {
                        // Nobody can read it, now or later, and what came after it must not wait for ever.
                        tracing::error!(%error, %room_id, "a damaged row of a room's inbox is dropped");
                        self.drop_staged(room, arrival).await?;
                    }
                }
            }
            let mut rest = arrived.as_slice();
            while let [first, others @ ..] = rest {
                if self.0.is_stopping() {
                    return Ok(());
                }
                rest = match self.take_run(room, rest).await? {
                    0 => {
                        self.take_alone(room, room_id, first).await?;
                        others
                    }
                    taken => rest.get(taken..).unwrap_or_default(),
                };
            }
        }
    }

    async fn take_alone(&self, room: RoomNid, room_id: &RoomId, arrived: &Arrived) -> Result<(), SendError> {
        let Arrived { pdu, origin, arrival } = arrived;
        let taker = Taker::new(self, room_id, origin).await?.ok_or(SendError::UnknownRoom)?;
        // Other servers may be asked for what is missing, and nobody's silence may hold up a room for long.
        let outcome = tokio::time::timeout(PATIENCE, taker.take(pdu.clone(), Some(*arrival))).await;
        match outcome.unwrap_or_else(|_| Err(SendError::BadContent("what it stands on was not had in time".into()))) {
            Ok(_) => Ok(()),
            Err(error @ (SendError::Store(_) | SendError::Full | SendError::Stopping)) => Err(error),
            Err(error) => {
                tracing::info!(%error, event_id = %pdu.event_id(), %origin, "an event of another server is dropped");
                self.drop_staged(room, *arrival).await
            }
        }
    }

    async fn drop_staged(&self, room: RoomNid, arrival: Pos) -> Result<(), SendError> {
        let mut batch = Batch::new(room.lane());
        batch.delete::<Inbox>(&(room.lane(), room, arrival));
        self.0.store.commit(batch).await?;
        Ok(())
    }
}

/// A row of the inbox.
fn parsed(arrival: Pos, staged: StagedEvent, version: RoomVersion) -> Result<Arrived, StoreError> {
    let unreadable = |error: String| damaged("Inbox", error);
    let origin = OwnedServerName::try_from(staged.origin.as_str()).map_err(|error| unreadable(error.to_string()))?;
    let event_id = OwnedEventId::try_from(staged.event_id.as_str()).map_err(|error| unreadable(error.to_string()))?;
    let pdu = Pdu::from_stored(&event_id, Bytes::from(staged.json), version)
        .map_err(|error| unreadable(error.to_string()))?;
    Ok(Arrived { pdu, origin, arrival })
}

fn stage(batch: &mut Batch, room: RoomNid, origin: &ServerName, pdu: &Pdu) {
    let staged =
        StagedEvent { origin: origin.to_string(), event_id: pdu.event_id().to_string(), json: pdu.json().to_vec() };
    let pos = batch.next_pos();
    batch.put::<Inbox>(&(room.lane(), room, pos), &staged);
}

/// Every PDU is refused. Without the room its version is a guess, which is right for IDs that are hashes.
fn refused(raw: &[RawPdu], why: &str) -> Vec<Received> {
    refused_in(raw, RoomVersion::DEFAULT, why)
}

fn refused_in(raw: &[RawPdu], version: RoomVersion, why: &str) -> Vec<Received> {
    let ids = raw.iter().filter_map(|raw| hearth_event::check(raw.get().as_bytes(), version).ok());
    ids.map(|checked| Received { event_id: checked.event_id().to_owned(), result: Err(why.to_owned()) }).collect()
}
