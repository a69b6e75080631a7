//! What an event of another server does to others: relations and redactions.

use std::collections::HashMap;

use bytes::Bytes;
use hearth_event::{Pdu, PowerLevels};
use hearth_schema::{EventKey, Events, PendingRelations, RoomNid, StateId, StoredEvent};
use hearth_store::{Batch, Pos};
use ruma_common::{CanonicalJsonObject, EventId};

use crate::SendError;
use crate::attach::{number_of, redaction_target};
use crate::early::{self, Early, Reach};
use crate::graph::Graph;
use crate::plan::Intent;
use crate::relation::{self, Adoption, Among, Bound, Pending, Relation};
use crate::task::RoomTask;

/// Rows that change with an accepted event besides its own.
#[derive(Default)]
pub(super) struct Extras {
    relation: Option<relation::Change>,
    /// The relation of an event that is redacted.
    unbound: Option<relation::Change>,
    /// The event that is redacted, with its new form.
    redaction: Option<(u32, StoredEvent)>,
    /// The event redacts one that has not come yet.
    early: Option<Early>,
    /// The event relates to one that has not come yet.
    awaits: Option<EventKey>,
    /// Events that have waited for this one, to which they relate.
    adoption: Adoption,
    /// The event was redacted before it came: by which, and what is left of it.
    pub(super) redacted: Option<(u32, Bytes)>,
}

impl Extras {
    pub(super) fn persist(&self, batch: &mut Batch, room: RoomNid, n: u32, pos: Pos) {
        for change in [&self.relation, &self.unbound].into_iter().flatten() {
            change.persist(batch, room, n, pos);
        }
        if let Some((n, stored)) = &self.redaction {
            batch.put::<Events>(&(room, *n), stored);
        }
        if let Some(early) = &self.early {
            early.persist(batch, room, n);
        }
        if let Some(parent) = &self.awaits {
            batch.put::<PendingRelations>(&(room, *parent, n), &());
        }
        self.adoption.persist(batch, room);
    }

    /// Whether nothing changes besides the event's own rows.
    pub(super) const fn is_empty(&self) -> bool {
        self.relation.is_none()
            && self.unbound.is_none()
            && self.redaction.is_none()
            && self.early.is_none()
            && self.awaits.is_none()
            && self.adoption.is_empty()
            && self.redacted.is_none()
    }

    /// Numbers of other events whose rows are written again.
    pub(super) fn rewritten(&self) -> impl Iterator<Item = u32> {
        self.redaction.iter().map(|(n, _)| *n)
    }
}

impl RoomTask {
    /// For an event that comes to the end of the timeline.
    pub(super) async fn extras(
        &mut self,
        graph: &Graph,
        pdu: &Pdu,
        n: u32,
        state_before: StateId,
    ) -> Result<Extras, SendError> {
        self.extras_at(graph, (pdu, n, state_before), None).await
    }

    /// For an event that comes to `pos`, or to the end.
    pub(super) async fn extras_at(
        &mut self,
        graph: &Graph,
        (pdu, n, state_before): (&Pdu, u32, StateId),
        pos: Option<Pos>,
    ) -> Result<Extras, SendError> {
        let mut extras = Extras { adoption: relations(graph).adopt(n, pdu).await?, ..Extras::default() };
        let ids = graph.rooms.ids();
        if let Some(by) = early::redaction_of(&graph.view, ids, self.room, pdu).await? {
            extras.redacted = Some((by, redacted(graph, pdu)?.json().clone()));
            return Ok(extras);
        }
        match pdu.redacts().filter(|_| pdu.event_type() == "m.room.redaction") {
            Some(target) => self.redact(graph, (pdu, n, state_before), target, &mut extras).await?,
            None => self.relate(graph, (pdu, n, pos), &mut extras).await?,
        }
        Ok(extras)
    }

    async fn redact(
        &mut self,
        graph: &Graph,
        (pdu, n, state_before): (&Pdu, u32, StateId),
        target: &EventId,
        extras: &mut Extras,
    ) -> Result<(), SendError> {
        let ids = graph.rooms.ids();
        if number_of(&graph.view, ids, self.room, target).await?.is_none() {
            let reach = reach(graph, pdu, state_before).await?;
            extras.early = Some(Early::new(ids.event(target), pdu.sender(), reach));
            return Ok(());
        }
        let found = match redaction_target(&graph.view, ids, self.room, self.version, target).await {
            Ok(found) => found,
            Err(SendError::UnknownEvent) => return Ok(()),
            Err(error) => return Err(error),
        };
        if !may_redact(graph, pdu, state_before, found.pdu()).await? {
            return Ok(());
        }
        let source = relations(graph);
        extras.unbound = source.unbind(&found).await?;
        extras.redaction = found.redacted(self.version, n)?;
        if extras.redaction.is_none() {
            extras.unbound = None;
        }
        Ok(())
    }

    async fn relate(
        &mut self,
        graph: &Graph,
        (pdu, n, pos): (&Pdu, u32, Option<Pos>),
        extras: &mut Extras,
    ) -> Result<(), SendError> {
        let Some(relation) = Relation::of(pdu) else { return Ok(()) };
        let Some(intent) = intent_of(pdu) else { return Ok(()) };
        match relations(graph).bind(&intent, &HashMap::new(), &Pending::default()).await {
            Ok(Bound::To(bond)) => {
                let among = match (pos, bond.newest_reply()) {
                    (Some(pos), Some(newest)) => {
                        let newest = graph.events(&[newest]).await?.pop();
                        if newest.is_some_and(|newest| newest.pos > pos) { Among::Earlier } else { Among::Newest }
                    }
                    _ => Among::Newest,
                };
                extras.relation = Some(bond.change_of(pdu, n, among));
                Ok(())
            }
            Ok(Bound::No | Bound::Drain) => {
                extras.awaits = Some(graph.rooms.ids().event(&relation.event_id));
                Ok(())
            }
            // Rules for local clients; an event of another server is there all the same.
            Err(SendError::BadRelation(_) | SendError::DuplicateAnnotation) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What is asked of relations; `None`: what is no canonical JSON (in old rooms) relates to nothing.
pub(super) fn intent_of(pdu: &Pdu) -> Option<Intent> {
    let content: CanonicalJsonObject = serde_json::from_slice(pdu.content_json()).ok()?;
    Some(Intent {
        sender: pdu.sender().to_owned(),
        event_type: pdu.event_type().to_owned(),
        state_key: pdu.state_key().map(str::to_owned),
        content,
        redacts: None,
        origin_server_ts: None,
    })
}

fn relations(graph: &Graph) -> relation::Source<'_> {
    let (ids, caches) = (graph.rooms.ids(), &graph.rooms.0.caches);
    relation::Source { view: &graph.view, ids, caches, room: graph.room, version: graph.version }
}

/// Whether `redaction`, sent in the state `before`, takes effect on `target`
/// ([spec](https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions)).
async fn may_redact(graph: &Graph, redaction: &Pdu, before: StateId, target: &Pdu) -> Result<bool, SendError> {
    if target.room_id() != redaction.room_id() {
        return Ok(false);
    }
    if redaction.sender().server_name() == target.sender().server_name() {
        return Ok(true);
    }
    Ok(reach(graph, redaction, before).await? == Reach::All)
}

/// Whose events `redaction`, sent in the state `before`, takes effect on.
async fn reach(graph: &Graph, redaction: &Pdu, before: StateId) -> Result<Reach, SendError> {
    let places = ["m.room.create", "m.room.power_levels"].map(|kind| (kind.to_owned(), String::new()));
    let found = graph.at(before, &places).await?;
    let Some(create) = found.first().and_then(Option::as_ref) else { return Ok(Reach::OwnServer) };
    let levels = found.get(1).and_then(Option::as_ref).map(|event| &event.pdu);
    let levels = PowerLevels::of(graph.version, &create.pdu, levels);
    Ok(Reach::of(&levels, redaction.sender()))
}

fn redacted(graph: &Graph, pdu: &Pdu) -> Result<Pdu, SendError> {
    hearth_event::redact(graph.version, pdu).map_err(|error| SendError::Internal(format!("cannot redact: {error}")))
}
