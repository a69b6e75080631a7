//! Turning a planned event into rows. Pure: adds to a batch, never commits.

use hearth_schema::{
    Change, CurrentState, EventIds, EventNid, Events, Ids, Membership, OutsideStates, Outsides, RawNode, RoomHead,
    RoomHeads, RoomLast, RoomNid, Source, StateEntry, StateKeyNames, StateKeys, StateLog, StateLogEntry, StateNodes,
    StoredEvent, Timeline, TxnIds, UserNid, UserRoom, UserRoomLog, UserRooms, Verdict,
};
use hearth_store::{Batch, Owner, Pos};
use ruma_common::{OwnedUserId, ServerName, UserId};

use crate::command::Transaction;
use crate::early::Early;
use crate::plan::{Planned, PlannedState};
use crate::relation;

/// Where an event's rows go.
pub(crate) struct Target<'a> {
    pub room: RoomNid,
    pub ids: &'a Ids,
    pub server_name: &'a ServerName,
}

/// What belongs to an event besides the event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attached {
    /// How it came.
    pub source: Source,
    /// The sender and its transaction id.
    pub transaction: Option<(UserNid, Transaction)>,
    /// What its relation changes, or the end of the one that the event it redacts had.
    pub relation: Option<relation::Change>,
    /// It redacts an event that has not come yet.
    pub early: Option<Early>,
    /// The stored event that it redacts, with its new form.
    pub redaction: Option<(u32, StoredEvent)>,
}

/// The batch applies only on the head it was planned on, and leaves the planned one.
pub(crate) fn move_head(batch: &mut Batch, room: RoomNid, before: Option<&RoomHead>, after: &RoomHead) {
    batch.check::<RoomHeads>(&(room,), before);
    batch.put::<RoomHeads>(&(room,), after);
}

/// Adds everything that makes `planned` part of the room; gives its position.
pub(crate) fn persist(batch: &mut Batch, target: &Target<'_>, planned: &Planned, attached: &Attached) -> Pos {
    let Planned { pdu, n, state_before, state, .. } = planned;
    let (room, n) = (target.room, *n);
    let pos = batch.next_pos();
    let id = EventNid { room, n };
    let key = (room.lane(), target.ids.event(pdu.event_id()));
    batch.check_absent::<EventIds>(&key);
    batch.put::<EventIds>(&key, &id);
    let stored = StoredEvent {
        pos,
        verdict: Verdict::Accepted,
        source: attached.source,
        state_before: *state_before,
        redacted_by: None,
        replaces_state: state.as_ref().and_then(|state| state.previous).map(|entry| entry.n),
        transaction: attached.transaction.as_ref().map(|(_, txn)| (txn.device_id.clone(), txn.id.clone())),
        event_id: pdu.event_id().as_str().into(),
        json: pdu.json().clone(),
    };
    batch.put::<Events>(&(room, n), &stored);
    batch.put::<Timeline>(&(room, pos), &n);
    batch.put::<RoomLast>(&(room.lane(), room), &hearth_schema::Position(pos));
    if let Some(state) = state {
        persist_state(batch, target, state, n, pos);
        persist_membership(batch, target, planned, state, pos);
    }
    if let Some((user, txn)) = &attached.transaction {
        let key = txn.key(room, *user);
        batch.check_absent::<TxnIds>(&key);
        batch.put::<TxnIds>(&key, &n);
    }
    if let Some(change) = &attached.relation {
        change.persist(batch, room, n, pos);
    }
    if let Some((redacted, stored)) = &attached.redaction {
        batch.put::<Events>(&(room, *redacted), stored);
    }
    if let Some(early) = &attached.early {
        early.persist(batch, room, n);
    }
    batch.fact(pos, Change::Event { event: id }.to_bytes());
    pos
}

fn persist_state(batch: &mut Batch, target: &Target<'_>, state: &PlannedState, n: u32, pos: Pos) {
    let room = target.room;
    let (event_type, state_key) = state.slot.clone();
    if state.new_nid {
        let key = (room, event_type.clone(), state_key.clone());
        batch.check_absent::<StateKeys>(&key);
        batch.put::<StateKeys>(&key, &state.nid);
        batch.put::<StateKeyNames>(&(room, state.nid), &state.slot);
    }
    for (id, _, bytes) in &state.nodes {
        batch.put::<StateNodes>(&(room, *id), &RawNode(bytes.clone()));
    }
    batch.put::<CurrentState>(&(room, event_type, state_key), &StateEntry { n, membership: state.membership });
    let entry = StateLogEntry { n: Some(n), previous: state.previous.map(|entry| entry.n) };
    batch.put::<StateLog>(&(room, pos, state.nid), &entry);
}

/// A local user's room list lives in the user's lane.
fn persist_membership(batch: &mut Batch, target: &Target<'_>, planned: &Planned, state: &PlannedState, pos: Pos) {
    let Planned { pdu, n, .. } = planned;
    let Some((user_id, membership)) = local_member(target.server_name, state) else { return };
    let user = target.ids.user(&user_id);
    let row = UserRoom {
        pos,
        room_id: pdu.room_id().to_string(),
        membership,
        n: Some(*n),
        own: pdu.sender() == user_id,
        forgotten: false,
    };
    batch.put_elsewhere::<UserRooms>(&(user, target.room), &row);
    if membership == Membership::Join && state.previous.is_none_or(|entry| entry.membership != Some(membership)) {
        came_inside(batch, (user, target.room));
    }
    batch.put_elsewhere::<UserRoomLog>(&(user, pos), &target.room);
}

/// Forgets what was known of a user's membership while nobody of this server was in the room.
pub(crate) fn came_inside(batch: &mut Batch, key: (UserNid, RoomNid)) {
    batch.delete_elsewhere::<Outsides>(&key);
    batch.delete_elsewhere::<OutsideStates>(&key);
}

fn local_member(server_name: &ServerName, state: &PlannedState) -> Option<(OwnedUserId, Membership)> {
    let membership = state.membership?;
    // The auth rules have checked that a member event's state key is a user ID.
    let user = <&UserId>::try_from(state.slot.1.as_str()).ok()?;
    (user.server_name() == server_name).then(|| (user.to_owned(), membership))
}
