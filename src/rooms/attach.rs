//! What belongs to an event besides itself: its transaction, what it redacts.

use hearth_event::{Pdu, PowerLevels, RoomVersion};
use hearth_schema::{EventIds, Events, Ids, RoomNid, StoredEvent, TxnIds, UserNid, Verdict};
use hearth_store::{Owner, Pos, StoreError, View};
use ruma_common::{EventId, OwnedEventId, UserId};

use crate::SendError;
use crate::command::Transaction;
use crate::gather::{damaged, parse};
use crate::plan::{Planned, Planner};

/// The event that this transaction gave before.
pub(crate) async fn sent_before(
    view: &View,
    room: RoomNid,
    (user, txn): &(UserNid, Transaction),
) -> Result<Option<OwnedEventId>, StoreError> {
    let key = txn.key(room, *user);
    let Some(n) = view.get::<TxnIds>(&key).await? else { return Ok(None) };
    let stored = view.get::<Events>(&(room, n)).await?;
    let stored = stored.ok_or_else(|| damaged("Events", format!("event {n} has a transaction but is absent")))?;
    OwnedEventId::try_from(&*stored.event_id).map(Some).map_err(|error| damaged("Events", error.to_string()))
}

/// The number of an event of this room.
pub(crate) async fn number_of(
    view: &View,
    ids: &Ids,
    room: RoomNid,
    event_id: &EventId,
) -> Result<Option<u32>, StoreError> {
    let found = view.get::<EventIds>(&(room.lane(), ids.event(event_id))).await?;
    Ok(found.filter(|found| found.room == room).map(|found| found.n))
}

/// An event of this room that shall be redacted.
pub(crate) struct RedactionTarget {
    n: u32,
    stored: StoredEvent,
    pdu: Pdu,
}

impl RedactionTarget {
    /// Its number.
    pub(crate) const fn n(&self) -> u32 {
        self.n
    }

    /// Its position.
    pub(crate) const fn pos(&self) -> Pos {
        self.stored.pos
    }

    /// The row with the event's redacted form, by the redaction with number `by`; `None`: it is redacted already.
    pub(crate) fn redacted(self, version: RoomVersion, by: u32) -> Result<Option<(u32, StoredEvent)>, SendError> {
        if self.stored.redacted_by.is_some() {
            return Ok(None);
        }
        let redacted = hearth_event::redact(version, &self.pdu)
            .map_err(|error| SendError::Internal(format!("cannot redact: {error}")))?;
        let stored = StoredEvent { redacted_by: Some(by), json: redacted.json().clone(), ..self.stored };
        Ok(Some((self.n, stored)))
    }

    /// The event as it is now.
    pub(crate) const fn pdu(&self) -> &Pdu {
        &self.pdu
    }
}

/// Loads the event that a redaction names.
pub(crate) async fn redaction_target(
    view: &View,
    ids: &Ids,
    room: RoomNid,
    version: RoomVersion,
    target: &EventId,
) -> Result<RedactionTarget, SendError> {
    let n = number_of(view, ids, room, target).await?.ok_or(SendError::UnknownEvent)?;
    let stored = view.get::<Events>(&(room, n)).await?;
    let stored = stored.ok_or_else(|| damaged("Events", format!("event {n} has an ID but is absent")))?;
    if stored.verdict == Verdict::Rejected {
        return Err(SendError::UnknownEvent);
    }
    let pdu = parse(&stored, version)?;
    Ok(RedactionTarget { n, stored, pdu })
}

/// The power levels of a room in which something has been planned.
pub(crate) fn levels(room: &Planner) -> Result<PowerLevels, SendError> {
    let pdu_at = |event_type: &str| room.slots.get(&(event_type.to_owned(), String::new()))?.pdu.as_ref();
    let create = pdu_at("m.room.create").ok_or_else(|| SendError::Internal("the room has no create event".into()))?;
    Ok(PowerLevels::of(room.version, create, pdu_at("m.room.power_levels")))
}

/// Whether `sender` may redact `target`.
///
/// From room version 3 on the auth rules let every redaction pass and leave its effect to each
/// server, so a local user's redaction of others' events is refused here.
pub(crate) fn check_redaction(room: &Planner, sender: &UserId, target: &RedactionTarget) -> Result<(), SendError> {
    let levels = levels(room)?;
    if target.pdu.sender() != sender && levels.user(sender) < levels.redact() {
        return Err(SendError::Forbidden("you may not redact others' events in this room".into()));
    }
    Ok(())
}

/// The redacted form of `target`, if there is anything left to redact.
pub(crate) fn redaction(
    room: &mut Planner,
    planned: &Planned,
    target: RedactionTarget,
) -> Result<Option<(u32, StoredEvent)>, SendError> {
    check_redaction(room, planned.pdu.sender(), &target)?;
    if target.stored.redacted_by.is_some() {
        return Ok(None);
    }
    let redacted = hearth_event::redact(room.version, &target.pdu)
        .map_err(|error| SendError::Internal(format!("cannot redact: {error}")))?;
    for slot in room.slots.values_mut() {
        if slot.entry.is_some_and(|entry| entry.n == target.n) {
            slot.pdu = Some(redacted.clone());
        }
    }
    let stored = StoredEvent { redacted_by: Some(planned.n), json: redacted.json().clone(), ..target.stored };
    Ok(Some((target.n, stored)))
}
