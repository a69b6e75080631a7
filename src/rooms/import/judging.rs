//! The auth rules on the events of a room that is joined, each after those that it stands on.
//!
//! Of most events nothing is needed once they are judged and written: so only what the rules ask for again and again is
//! kept in memory, and the rest is read from the store when an event stands on it.

use std::collections::HashMap;

use hearth_event::{Pdu, RoomVersion};
use hearth_schema::{Events, Verdict};
use hearth_store::{Order, StoreError};
use ruma_common::{EventId, OwnedEventId};

use super::verify::blocking;
use crate::gather::damaged;
use crate::graph::Graph;
use crate::inbound::by_auth_events;

/// Bytes of events that are kept because others may stand on them.
const KEPT_BYTES: usize = 8 << 20;

/// An event with why it is rejected.
pub(super) type Judged = (Pdu, Option<String>);

/// Judges the events of one room.
pub(super) struct Judge {
    version: RoomVersion,
    /// The room's create event, once it is known.
    pub create: Option<Pdu>,
    kept: HashMap<OwnedEventId, Pdu>,
    kept_bytes: usize,
    /// Judged, but not stored yet.
    unwritten: HashMap<OwnedEventId, Pdu>,
}

impl Judge {
    pub(super) fn new(version: RoomVersion) -> Self {
        Self { version, create: None, kept: HashMap::new(), kept_bytes: 0, unwritten: HashMap::new() }
    }

    /// Everything that was judged is stored.
    pub(super) fn written(&mut self) {
        self.unwritten.clear();
    }

    /// An event that is stored, with its verdict.
    ///
    /// # Errors
    /// If the room has another create event already.
    pub(super) fn know(&mut self, pdu: &Pdu) -> Result<(), String> {
        self.keep(pdu);
        if pdu.is_state("m.room.create", "") { self.begin(pdu) } else { Ok(()) }
    }

    /// Judges events in order; what they stand on is here or in the store.
    pub(super) async fn judge(
        &mut self,
        graph: &Graph,
        events: Vec<Pdu>,
    ) -> Result<Result<Vec<Judged>, String>, StoreError> {
        let at_hand = self.at_hand(graph, &events).await?;
        let (version, mut create) = (self.version, self.create.clone());
        let judging = move || {
            let mut done = at_hand;
            let mut out: Vec<Judged> = Vec::with_capacity(events.len());
            for pdu in events {
                let auth_events: Vec<Pdu> = pdu.auth_events().iter().filter_map(|id| done.get(id).cloned()).collect();
                let why = by_auth_events(version, &pdu, &auth_events, create.as_ref()).err().map(|error| error.rule);
                let pdu = if why.is_some() { pdu.with_rejected() } else { pdu };
                if create.is_none() && why.is_none() && pdu.is_state("m.room.create", "") {
                    create = Some(pdu.clone());
                }
                done.insert(pdu.event_id().to_owned(), pdu.clone());
                out.push((pdu, why));
            }
            out
        };
        let judged = blocking(judging).await;
        for (pdu, why) in &judged {
            if pdu.is_state("m.room.create", "") {
                if let Some(why) = why {
                    return Ok(Err(format!("the create event is rejected: {why}")));
                }
                if let Err(why) = self.begin(pdu) {
                    return Ok(Err(why));
                }
            }
            self.keep(pdu);
            self.unwritten.insert(pdu.event_id().to_owned(), pdu.clone());
        }
        Ok(Ok(judged))
    }

    fn begin(&mut self, create: &Pdu) -> Result<(), String> {
        match &self.create {
            Some(known) if known.event_id() != create.event_id() => Err("the room has two create events".to_owned()),
            Some(_) => Ok(()),
            None => {
                self.create = Some(create.clone());
                Ok(())
            }
        }
    }

    /// Members are many, and few events stand on each.
    fn keep(&mut self, pdu: &Pdu) {
        if pdu.state_key().is_none() || pdu.event_type() == "m.room.member" {
            return;
        }
        if self.kept_bytes > KEPT_BYTES {
            self.kept.clear();
            self.kept_bytes = 0;
        }
        self.kept_bytes += pdu.json().len();
        self.kept.insert(pdu.event_id().to_owned(), pdu.clone());
    }

    /// What `events` stand on, but for what is among them.
    async fn at_hand(&self, graph: &Graph, events: &[Pdu]) -> Result<HashMap<OwnedEventId, Pdu>, StoreError> {
        let mut found: HashMap<OwnedEventId, Pdu> = HashMap::new();
        let mut absent = Vec::new();
        for id in events.iter().flat_map(Pdu::auth_events) {
            if found.contains_key(id) {
                continue;
            }
            match self.kept.get(id).or_else(|| self.unwritten.get(id)) {
                Some(pdu) => {
                    found.insert(id.clone(), pdu.clone());
                }
                None => absent.push(id.clone()),
            }
        }
        found.extend(stored(graph, &absent).await?);
        Ok(found)
    }
}

/// The create event that is stored of a room that is not here: it is the first event of a join that was cut off.
pub(super) async fn first_stored(graph: &Graph) -> Result<Option<Pdu>, StoreError> {
    let page = graph.view.page::<Events, _>(&(graph.room,), Order::Ascending, 1).await?;
    let Some(((_, n), row)) = page.into_iter().next() else { return Ok(None) };
    let id = EventId::parse(&*row.event_id).map_err(|error| damaged("Events", format!("event {n}: {error}")))?;
    let pdu = Pdu::from_stored(&id, row.json, graph.version);
    let pdu = pdu.map_err(|error| damaged("Events", format!("event {n}: {error}")))?;
    Ok(Some(pdu).filter(|pdu| pdu.is_state("m.room.create", "") && row.verdict != Verdict::Rejected))
}

/// Those of `ids` that are stored in the room, which need not be there yet: each knows whether it was rejected.
pub(super) async fn stored(graph: &Graph, ids: &[OwnedEventId]) -> Result<HashMap<OwnedEventId, Pdu>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let numbers = graph.numbers(ids).await?;
    let keys: Vec<_> = numbers.iter().map(|(_, n)| (graph.room, *n)).collect();
    let rows = graph.view.get_many::<Events>(&keys).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for ((id, n), row) in numbers.into_iter().zip(rows) {
        let row = row.ok_or_else(|| damaged("Events", format!("event {n} is named but absent")))?;
        let pdu = Pdu::from_stored(&id, row.json, graph.version);
        let pdu = pdu.map_err(|error| damaged("Events", format!("event {n}: {error}")))?;
        let pdu = if row.verdict == Verdict::Rejected { pdu.with_rejected() } else { pdu };
        found.insert(id, pdu);
    }
    Ok(found)
}
