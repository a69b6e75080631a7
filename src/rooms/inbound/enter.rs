//! The last step of an event of another server: what the room's task decides and writes.
//!
//! The state before the event and what the event itself says have been judged already, beside the task. What is left
//! depends on the room's growing end: whether the current state allows the event, and what the current state is after it.

use std::sync::Arc;

use bytes::Bytes;
use hearth_event::Pdu;
use hearth_schema::{
    Change, CurrentState, EventIds, EventNid, Events, Extremity, Inbox, Membership, OutsideStates, Outsides, Position,
    RawNode, RoomHead, RoomLast, RoomNid, StateEntry, StateId, StateKeyNames, StateKeyNid, StateKeys, StateLog,
    StateLogEntry, StateNodes, StoredEvent, Timeline, TxnIds, UserNid, UserRoom, UserRoomLog, UserRooms, Verdict,
};
use hearth_store::{Batch, Owner, Pos, StoreError, View};
use ruma_common::UserId;

use super::ends::{self, Late};
use super::extras::Extras;
use super::{Ends, Entered, Inbound, InboundRequest, Outlier, Prepared, SoftFail, Taken, WithoutSignature};
use crate::SendError;
use crate::command::Transaction;
use crate::gather::{damaged, gather};
use crate::graph::{Graph, NewNodes};
use crate::intake::Rooms;
use crate::persist::{came_inside, move_head};
use crate::plan::{Need, Planner, StateSlot, count, membership_of};
use crate::state;
use crate::task::RoomTask;

/// How often what came is planned again because something else changed.
pub(super) const MAX_TRIES: u32 = 8;
/// Ends that a room has at the most: whoever makes more at will would make every event after them ever more work.
const MAX_ENDS: usize = 200;
/// Bytes of outliers in one batch, about.
const CHUNK_BYTES: usize = 1 << 20;

/// Where an event stands among those that are stored.
struct Place {
    n: u32,
    /// It was stored before: as an outlier, or soft-failed.
    known: bool,
    /// What redacted it while it was one, and what is left of it.
    redacted: Option<(u32, Bytes)>,
    /// Its place in the state, with its number and whether that is new.
    slot: Option<(StateSlot, StateKeyNid, bool)>,
}

impl Place {
    /// Stores its place in the state if that is new, and that it is what became of `transaction`.
    fn persist(&self, batch: &mut Batch, room: RoomNid, transaction: Option<&(UserNid, Transaction)>) {
        if let Some((user, txn)) = transaction {
            let key = txn.key(room, *user);
            batch.check_absent::<TxnIds>(&key);
            batch.put::<TxnIds>(&key, &self.n);
        }
        if let Some((slot, nid, true)) = &self.slot {
            let key = (room, slot.0.clone(), slot.1.clone());
            batch.check_absent::<StateKeys>(&key);
            batch.put::<StateKeys>(&key, nid);
            batch.put::<StateKeyNames>(&(room, *nid), slot);
        }
    }
}

/// What an event makes of the room's head.
enum Turn {
    /// Nothing: it was refused, or is not judged yet.
    No,
    /// It was refused, and was missing between ends, of which these are left.
    Linked(Vec<Extremity>),
    /// It was accepted.
    On(NewEnd),
}

/// What an accepted event makes of the room's end.
struct NewEnd {
    extremities: Vec<Extremity>,
    state: StateId,
    changes: Vec<StateChange>,
}

/// An entry of the current state that changes.
struct StateChange {
    slot: StateSlot,
    nid: StateKeyNid,
    before: Option<StateEntry>,
    after: Option<StateEntry>,
    /// Who sent the event that the entry is after, if that is a member event.
    by: Option<ruma_common::OwnedUserId>,
}

/// Whether the event would be one more end of a room that has very many.
fn is_one_too_many(prepared: &Prepared, head: &RoomHead) -> bool {
    let before = prepared.pdu.prev_events();
    prepared.soft_fail == SoftFail::Keep
        && prepared.ends == Ends::Follow
        && head.extremities.len() >= MAX_ENDS
        && !head.extremities.iter().any(|end| before.iter().any(|id| id.as_str() == end.event_id))
}

/// Whether an event that is stored with `verdict` can still become part of the room.
///
/// What was soft-failed may be sent again by a server that waits for the answer: it is not told that its event is in the
/// room unless it is, and the current state, which kept the event out, may allow it by now.
fn is_open(prepared: &Prepared, verdict: Verdict) -> bool {
    match verdict {
        Verdict::Outlier => true,
        Verdict::SoftFailed => prepared.soft_fail == SoftFail::Refuse,
        Verdict::Accepted | Verdict::Rejected => false,
    }
}

impl RoomTask {
    pub(crate) async fn handle_inbound(&mut self, request: InboundRequest) {
        self.drain().await;
        let InboundRequest { what, reply } = request;
        let mut result = Err(SendError::Busy);
        for _ in 0..MAX_TRIES {
            result = match &what {
                Inbound::Event(prepared) => self.enter(prepared).await,
                Inbound::Outliers(outliers) => self.keep_outliers(outliers).await.map(Taken::In),
                Inbound::Past(past) => self.place_past(past).await.map(Taken::In),
            };
            if !self.is_overtaken(&result) {
                break;
            }
        }
        // Whoever asked may be gone; it is done all the same.
        drop(reply.send(result));
    }

    /// Whether what was planned has only met something else that changed. After any failure the room is read again.
    pub(super) fn is_overtaken<T>(&mut self, result: &Result<T, SendError>) -> bool {
        if result.is_err() {
            self.planner = None;
        }
        matches!(result, Err(SendError::Busy | SendError::Store(StoreError::SnapshotExpired)))
    }

    pub(super) fn graph(&self, view: View) -> Graph {
        Graph { rooms: Rooms(Arc::clone(&self.rooms)), view, room: self.room, version: self.version }
    }

    pub(crate) async fn with_planner(&mut self, view: &View) -> Result<&mut Planner, SendError> {
        if self.planner.is_none() {
            self.planner = Some(self.load(view).await?);
        }
        self.planner.as_mut().ok_or_else(|| SendError::Internal("no planner".into()))
    }

    async fn enter(&mut self, prepared: &Prepared) -> Result<Taken, SendError> {
        let view = View::latest(&*self.rooms.store).await?;
        let head = self.with_planner(&view).await?.head.clone();
        let graph = self.graph(view);
        let pdu = &prepared.pdu;
        let place = match self.place(&graph, &head, prepared).await? {
            Ok(place) => place,
            Err(known) => return self.known_already(prepared, &known).await.map(Taken::In),
        };
        let mut verdict = self.verdict(&graph.view, prepared, &head).await?;
        if verdict == Verdict::Accepted && is_one_too_many(prepared, &head) {
            // Known and not shown: what other servers build on it counts, and brings it back.
            metrics::counter!("hearth_federation_ends_refused_total").increment(1);
            tracing::debug!(event_id = %pdu.event_id(), "soft-failed: the room has too many ends");
            verdict = Verdict::SoftFailed;
        }
        if verdict == Verdict::Accepted
            && prepared.ends == Ends::Follow
            && let Some(policy) = self.policy(&graph.view).await?.lacking(pdu)?
        {
            if prepared.soft_fail == SoftFail::Refuse || prepared.unsigned == WithoutSignature::Ask {
                return Ok(Taken::Unsigned(policy.clone()));
            }
            metrics::counter!("hearth_federation_unsigned_events_total").increment(1);
            tracing::debug!(event_id = %pdu.event_id(), "soft-failed: the policy server has not signed it");
            verdict = Verdict::SoftFailed;
        }
        if verdict != Verdict::Accepted && prepared.soft_fail == SoftFail::Refuse {
            return Err(SendError::Forbidden("the room's current state does not allow the event".into()));
        }
        let (after, nodes) = match &place.slot {
            Some((_, nid, _)) if verdict != Verdict::Rejected => {
                graph.changed(prepared.state_before, &[(nid.0, Some(place.n))]).await?
            }
            _ => (prepared.state_before, Vec::new()),
        };
        let turn = match verdict {
            Verdict::Accepted => {
                let Some(end) = self.end(&graph, &head, (prepared, &place), after).await? else {
                    // The states of several ends are resolved; for that the event has to be stored.
                    self.write(prepared, &place, &head, Verdict::Outlier, (Turn::No, nodes), &graph).await?;
                    return Err(SendError::Busy);
                };
                Turn::On(end)
            }
            Verdict::Rejected | Verdict::SoftFailed => {
                ends::linked(&graph, &head, &[pdu], Late::Perhaps).await?.map_or(Turn::No, Turn::Linked)
            }
            Verdict::Outlier => Turn::No,
        };
        self.write(prepared, &place, &head, verdict, (turn, nodes), &graph).await.map(Taken::In)
    }

    /// The event's place; `Err`: what is stored of it already.
    async fn place(
        &mut self,
        graph: &Graph,
        head: &RoomHead,
        prepared: &Prepared,
    ) -> Result<Result<Place, StoredEvent>, SendError> {
        let pdu = &prepared.pdu;
        let mut redacted = None;
        let n = crate::attach::number_of(&graph.view, graph.rooms.ids(), self.room, pdu.event_id()).await?;
        if let Some(n) = n {
            let stored = graph.view.get::<Events>(&(self.room, n)).await?;
            let stored = stored.ok_or_else(|| damaged("Events", format!("event {n} has an ID but is absent")))?;
            if !is_open(prepared, stored.verdict) {
                return Ok(Err(stored));
            }
            redacted = stored.redacted_by.map(|by| (by, stored.json));
        }
        let slot = match pdu.state_key() {
            None => None,
            Some(key) => {
                let slot = (pdu.event_type().to_owned(), key.to_owned());
                let nid = graph.state_keys(std::slice::from_ref(&slot)).await?.into_iter().next().flatten();
                Some((slot, nid.unwrap_or(StateKeyNid(head.next_state_key)), nid.is_none()))
            }
        };
        Ok(Ok(Place { n: n.unwrap_or(head.next_event), known: n.is_some(), redacted, slot }))
    }

    /// The event has been judged before: only its row in the inbox goes.
    async fn known_already(&mut self, prepared: &Prepared, stored: &StoredEvent) -> Result<Entered, SendError> {
        if let Some(arrival) = prepared.inbox {
            let mut batch = Batch::new(self.room.lane());
            batch.delete::<Inbox>(&(self.room.lane(), self.room, arrival));
            self.rooms.store.commit(batch).await?;
        }
        if stored.verdict == Verdict::Rejected && prepared.soft_fail == SoftFail::Refuse {
            return Err(SendError::Forbidden("the event was rejected".into()));
        }
        Ok(Entered { pos: Pos::ZERO, state_before: stored.state_before })
    }

    async fn verdict(&mut self, view: &View, prepared: &Prepared, head: &RoomHead) -> Result<Verdict, SendError> {
        if prepared.rejected.is_some() {
            return Ok(Verdict::Rejected);
        }
        if prepared.state_before == head.state || prepared.ends == Ends::Replace {
            return Ok(Verdict::Accepted);
        }
        let places = hearth_event::auth_types_of(self.version, &prepared.pdu);
        let Ok(mut places) = places else { return Ok(Verdict::Rejected) };
        places.push(("m.room.create".to_owned(), String::new()));
        let planner = self.with_planner(view).await?;
        places.retain(|place| !planner.slots.contains_key(place));
        if !places.is_empty() {
            gather(view, planner, Need::Slots(places)).await?;
        }
        match planner.judge(&prepared.pdu) {
            Ok(()) => Ok(Verdict::Accepted),
            Err(crate::plan::PlanError::Refused(SendError::Forbidden(why))) => {
                tracing::debug!(event_id = %prepared.pdu.event_id(), %why, "soft-failed");
                Ok(Verdict::SoftFailed)
            }
            Err(crate::plan::PlanError::Refused(error)) => Err(error),
            Err(crate::plan::PlanError::Need(need)) => Err(SendError::Internal(format!("judging needs {need:?}"))),
        }
    }

    /// The room's end with the event; `None`: that takes a resolution, and the event is not stored.
    async fn end(
        &mut self,
        graph: &Graph,
        head: &RoomHead,
        (prepared, place): (&Prepared, &Place),
        after: StateId,
    ) -> Result<Option<NewEnd>, SendError> {
        let pdu = &prepared.pdu;
        let own = Extremity { n: place.n, event_id: pdu.event_id().to_string(), depth: pdu.depth() };
        let mut extremities = match prepared.ends {
            Ends::Follow => head.extremities.clone(),
            Ends::Replace => Vec::new(),
        };
        let followed = ends::followed(graph, &[pdu], &extremities).await?;
        extremities.retain(|end| !ends::is_in(&followed, end));
        // What fills a gap is no end; but ends may have been waiting for it before the gap.
        let is_end = extremities.is_empty() || !ends::comes_before(graph, pdu, &extremities, &[pdu]).await?;
        let mut roots = ends::states_after(graph, &extremities).await?;
        roots.extend(is_end.then_some(after));
        if is_end && roots.len() > 1 && !place.known {
            return Ok(None);
        }
        let state = graph.resolve(roots.into_iter().collect()).await?;
        if is_end {
            extremities.push(own);
        }
        let changes = self.changes(graph, head.state, state, (pdu, place)).await?;
        Ok(Some(NewEnd { extremities, state, changes }))
    }

    /// What changes in the current state from `before` to `after`.
    async fn changes(
        &mut self,
        graph: &Graph,
        before: StateId,
        after: StateId,
        (pdu, place): (&Pdu, &Place),
    ) -> Result<Vec<StateChange>, SendError> {
        let rows = graph.rooms.state_diff(&graph.view, self.room, before, after).await?;
        let mut changes = Vec::with_capacity(rows.len());
        let keys: Vec<_> = rows.iter().map(|(nid, ..)| (self.room, StateKeyNid(*nid))).collect();
        let names = graph.view.get_many::<StateKeyNames>(&keys).await?;
        for ((nid, _, now), name) in rows.into_iter().zip(names) {
            let nid = StateKeyNid(nid);
            let own = place.slot.as_ref().filter(|(_, own, _)| *own == nid);
            let slot = name.or_else(|| own.map(|(slot, ..)| slot.clone()));
            let slot = slot.ok_or_else(|| damaged("StateKeyNames", "a state has a place without a name"))?;
            let key = (self.room, slot.0.clone(), slot.1.clone());
            let entry = graph.view.get::<CurrentState>(&key).await?;
            let (mut membership, mut by) = (None, None);
            if let Some(n) = now.filter(|_| slot.0 == "m.room.member") {
                let event = if n == place.n { pdu.clone() } else { self.stored_pdu(graph, n).await? };
                membership = membership_of(&event);
                by = Some(event.sender().to_owned());
            }
            let after = now.map(|n| StateEntry { n, membership });
            changes.push(StateChange { slot, nid, before: entry, after, by });
        }
        Ok(changes)
    }

    async fn stored_pdu(&mut self, graph: &Graph, n: u32) -> Result<Pdu, SendError> {
        let event = graph.events(&[n]).await?.pop();
        Ok(event.ok_or_else(|| damaged("Events", "no event"))?.pdu.clone())
    }

    /// One batch with everything that the event changes.
    #[expect(clippy::too_many_arguments, reason = "each names a different part of one decision")]
    async fn write(
        &mut self,
        prepared: &Prepared,
        place: &Place,
        head: &RoomHead,
        verdict: Verdict,
        (turn, nodes): (Turn, NewNodes),
        graph: &Graph,
    ) -> Result<Entered, SendError> {
        let Prepared { pdu, source, state_before, inbox, .. } = prepared;
        let transaction = prepared.transaction.as_ref().filter(|_| verdict == Verdict::Accepted);
        let (room, ids) = (self.room, self.rooms.signer.ids.clone());
        let mut batch = Batch::new(room.lane());
        let mut after = head.clone();
        after.generation += 1;
        after.next_event = after.next_event.max(place.n + 1);
        if matches!(turn, Turn::On(_)) {
            super::heal::make_room(&mut batch, *source);
        }
        let pos = batch.next_pos();
        let key = (room.lane(), ids.event(pdu.event_id()));
        if !place.known {
            batch.check_absent::<EventIds>(&key);
            batch.put::<EventIds>(&key, &EventNid { room, n: place.n });
        }
        let replaces_state = match &place.slot {
            Some((_, nid, false)) => {
                graph.rooms.with_nodes(&graph.view, room, |nodes| state::get(nodes, *state_before, nid.0)).await?
            }
            _ => None,
        };
        let mut extras = match verdict {
            Verdict::Accepted => self.extras(graph, pdu, place.n, *state_before).await?,
            _ => Extras::default(),
        };
        let redacted = place.redacted.clone().or(extras.redacted.take());
        let (redacted_by, json) = redacted.map_or_else(|| (None, pdu.json().clone()), |(by, json)| (Some(by), json));
        let stored = StoredEvent {
            pos,
            verdict,
            source: *source,
            state_before: *state_before,
            redacted_by,
            replaces_state: replaces_state.filter(|n| *n != place.n),
            transaction: transaction.map(|(_, txn)| (txn.device_id.clone(), txn.id.clone())),
            event_id: pdu.event_id().as_str().into(),
            json,
        };
        batch.put::<Events>(&(room, place.n), &stored);
        place.persist(&mut batch, room, transaction);
        if let Some((_, nid, true)) = &place.slot {
            after.next_state_key = after.next_state_key.max(nid.0 + 1);
        }
        for (id, _, bytes) in &nodes {
            batch.put::<StateNodes>(&(room, *id), &RawNode(bytes.clone()));
        }
        if let Some(arrival) = inbox.filter(|_| verdict != Verdict::Outlier) {
            batch.delete::<Inbox>(&(room.lane(), room, arrival));
        }
        match turn {
            Turn::No => {}
            Turn::Linked(left) => after.extremities = left,
            Turn::On(end) => {
                batch.put::<Timeline>(&(room, pos), &place.n);
                batch.put::<RoomLast>(&(room.lane(), room), &Position(pos));
                extras.persist(&mut batch, room, place.n, pos);
                super::heal::open(&mut batch, room, pos, *source);
                self.apply(&mut batch, pos, &mut after, &end);
                batch.fact(pos, Change::Event { event: EventNid { room, n: place.n } }.to_bytes());
            }
        }
        move_head(&mut batch, room, Some(head), &after);
        let committed = self.rooms.store.commit(batch).await?;
        let pos = committed.resolve(pos);
        for n in place.known.then_some(place.n).into_iter().chain(extras.rewritten()) {
            self.rooms.caches.forget_redacted(EventNid { room, n }, pos);
        }
        if let Some(planner) = &mut self.planner {
            if planner.head.state != after.state || extras.rewritten().next().is_some() {
                planner.slots.clear();
            }
            planner.head = after;
        }
        Ok(Entered { pos, state_before: *state_before })
    }

    /// Rows of a changed current state.
    fn apply(&self, batch: &mut Batch, pos: Pos, head: &mut RoomHead, end: &NewEnd) {
        let room = self.room;
        head.extremities.clone_from(&end.extremities);
        head.state = end.state;
        for change in &end.changes {
            let key = (room, change.slot.0.clone(), change.slot.1.clone());
            match &change.after {
                Some(entry) => batch.put::<CurrentState>(&key, entry),
                None => batch.delete::<CurrentState>(&key),
            }
            let log =
                StateLogEntry { n: change.after.map(|entry| entry.n), previous: change.before.map(|entry| entry.n) };
            batch.put::<StateLog>(&(room, pos, change.nid), &log);
            let (before, after) =
                (change.before.and_then(|entry| entry.membership), change.after.and_then(|entry| entry.membership));
            count(&mut head.joined_members, Membership::Join, before, after);
            count(&mut head.invited_members, Membership::Invite, before, after);
            self.apply_membership(batch, pos, change);
        }
    }

    /// A local user's room list lives in the user's lane.
    fn apply_membership(&self, batch: &mut Batch, pos: Pos, change: &StateChange) {
        if change.slot.0 != "m.room.member" {
            return;
        }
        let Ok(user_id) = <&UserId>::try_from(change.slot.1.as_str()) else { return };
        if user_id.server_name() != self.rooms.signer.server_name {
            return;
        }
        let Some(n) = change.after.or(change.before).map(|entry| entry.n) else { return };
        let user = self.rooms.signer.ids.user(user_id);
        let row = UserRoom {
            pos,
            room_id: self.room_id.to_string(),
            // Who has no membership any more has left.
            membership: change.after.and_then(|entry| entry.membership).unwrap_or(Membership::Leave),
            n: Some(n),
            own: change.by.as_deref() == Some(user_id),
            forgotten: false,
        };
        if row.membership == Membership::Join {
            // What was known while nobody of this server was in the room.
            batch.delete_elsewhere::<Outsides>(&(user, self.room));
            batch.delete_elsewhere::<OutsideStates>(&(user, self.room));
        }
        batch.put_elsewhere::<UserRooms>(&(user, self.room), &row);
        came_inside(batch, (user, self.room));
        batch.put_elsewhere::<UserRoomLog>(&(user, pos), &self.room);
    }

    /// Stores events that are known through others only.
    async fn keep_outliers(&mut self, outliers: &[Outlier]) -> Result<Entered, SendError> {
        let mut rest = outliers;
        while !rest.is_empty() {
            let view = View::latest(&*self.rooms.store).await?;
            let head = self.with_planner(&view).await?.head.clone();
            let mut bytes = 0;
            let chunk = rest
                .iter()
                .take_while(|outlier| {
                    bytes += outlier.pdu.json().len() + 256;
                    bytes <= CHUNK_BYTES + 256
                })
                .count()
                .max(1);
            let (now, later) = rest.split_at(chunk.min(rest.len()));
            let mut batch = Batch::new(self.room.lane());
            let mut after = head.clone();
            after.generation += 1;
            let graph = self.graph(view);
            let again = super::outliers::put(&graph, &mut batch, &mut after, now).await?;
            let pos = batch.next_pos();
            move_head(&mut batch, self.room, Some(&head), &after);
            let committed = self.rooms.store.commit(batch).await?;
            for n in again {
                let id = EventNid { room: self.room, n };
                self.rooms.caches.forget_redacted(id, committed.resolve(pos));
            }
            if let Some(planner) = &mut self.planner {
                planner.head = after;
            }
            rest = later;
        }
        let rejected = outliers.iter().filter(|outlier| outlier.rejected.is_some());
        self.link(&rejected.map(|outlier| &outlier.pdu).collect::<Vec<_>>()).await?;
        Ok(Entered { pos: Pos::ZERO, state_before: StateId::EMPTY })
    }

    /// Takes out the ends that `refused`, which are stored by now, lead back to from others.
    async fn link(&mut self, refused: &[&Pdu]) -> Result<(), SendError> {
        if refused.is_empty() {
            return Ok(());
        }
        let view = View::latest(&*self.rooms.store).await?;
        let head = self.with_planner(&view).await?.head.clone();
        let graph = self.graph(view);
        let Some(left) = ends::linked(&graph, &head, refused, Late::Perhaps).await? else { return Ok(()) };
        let mut batch = Batch::new(self.room.lane());
        let after = RoomHead { generation: head.generation + 1, extremities: left, ..head.clone() };
        move_head(&mut batch, self.room, Some(&head), &after);
        self.rooms.store.commit(batch).await?;
        if let Some(planner) = &mut self.planner {
            planner.head = after;
        }
        Ok(())
    }
}
