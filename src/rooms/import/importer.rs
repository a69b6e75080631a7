//! What another server tells of a room that is joined: verified, sorted, judged and stored as it comes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt as _;
use hearth_event::{Pdu, RoomVersion};
use hearth_schema::{Membership, StateId};
use hearth_store::StoreError;
use ruma_common::{EventId, OwnedEventId, OwnedServerName};
use tokio::task::JoinSet;

use super::ImportError;
use super::judging::{Judge, Judged, first_stored, stored};
use super::rows::{Removed, Writer};
use super::sorter::Sorter;
use super::told::{Place, Told};
use super::verify::{Item, List, Portion, Verifier};
use crate::inbound::Outlier;
use crate::intake::Rooms;
use crate::plan::membership_of;
use crate::remote::{JoinPart, JoinParts, RawPdu, RemoteError};

/// Portions that are verified at the same time: more than there are cores, because some wait for keys.
const VERIFIED_AT_ONCE: usize = 32;
/// Events without keys that are verified together, and how often that is tried again.
const VERIFIED_AGAIN: usize = 1024;
const MAX_ROUNDS: usize = 4;
/// Bytes of events that are written together, about.
const WRITTEN_AT_ONCE: usize = 1 << 20;

/// What is remembered of an event once it is judged.
struct Fact {
    place: Option<Place>,
    membership: Option<Membership>,
    rejected: bool,
}

/// Events that could not be verified at first.
#[derive(Default)]
struct Again {
    rounds: usize,
    last: usize,
}

impl Again {
    /// Has them tried again, as long as that makes them fewer.
    fn spawn(&mut self, verifier: &Arc<Verifier>, verifying: &mut JoinSet<Result<Portion, StoreError>>) -> bool {
        let keyless = verifier.take_keyless();
        let vain = self.rounds > 0 && keyless.len() >= self.last;
        if keyless.is_empty() || vain || self.rounds >= MAX_ROUNDS {
            if !keyless.is_empty() {
                tracing::info!(
                    events = keyless.len(),
                    "nobody tells the keys for some events of a room that is joined"
                );
            }
            return false;
        }
        (self.rounds, self.last) = (self.rounds + 1, keyless.len());
        for list in [List::State, List::AuthChain] {
            let raw: Vec<RawPdu> = keyless.iter().filter(|(of, _)| *of == list).map(|(_, raw)| raw.clone()).collect();
            for some in raw.chunks(VERIFIED_AGAIN) {
                verifying.spawn(Arc::clone(verifier).verify(list, some.to_vec()));
            }
        }
        true
    }
}

/// Where the create event comes from that is known before it is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// There is none, the room is here, or what was told stands on it.
    Settled,
    /// From a join that was cut off; nothing that was told stands on it so far.
    LeftBehind,
    /// What was left behind began otherwise than what is told, and is gone.
    Replaced,
}

/// A room on its way in.
pub(super) struct Importer<'a> {
    rooms: &'a Rooms,
    via: &'a OwnedServerName,
    join: Pdu,
    version: RoomVersion,
    writer: &'a Writer,
    sorter: Sorter,
    judge: Judge,
    facts: HashMap<OwnedEventId, Fact>,
    /// The events of the state.
    state: HashSet<OwnedEventId>,
    unwritten: Vec<Outlier>,
    unwritten_bytes: usize,
    beginning: Beginning,
    /// Our join as it came back.
    given: Option<RawPdu>,
}

impl<'a> Importer<'a> {
    pub(super) fn new(rooms: &'a Rooms, via: &'a OwnedServerName, join: Pdu, writer: &'a Writer) -> Self {
        let version = join.version();
        let named = format!("${}", join.room_id().as_str().trim_start_matches('!'));
        // What is no event ID is the name of no room either: no create event will have it.
        let create = EventId::parse(named).ok().filter(|_| version.room_id_is_create_hash());
        let sorter = Sorter::new(create);
        Self {
            rooms,
            via,
            join,
            version,
            writer,
            sorter,
            judge: Judge::new(version),
            facts: HashMap::new(),
            state: HashSet::new(),
            unwritten: Vec::new(),
            unwritten_bytes: 0,
            beginning: Beginning::Settled,
            given: None,
        }
    }

    /// Takes everything that is told.
    ///
    /// # Errors
    /// [`RemoteError::Invalid`] if it contradicts itself or the room version.
    pub(super) async fn told(mut self, mut parts: JoinParts) -> Result<Told, ImportError> {
        self.begin().await?;
        let verifier = Arc::new(Verifier::new(self.rooms, &self.join, self.via));
        // They end with this set if it is dropped.
        let mut verifying: JoinSet<Result<Portion, StoreError>> = JoinSet::new();
        let (mut open, mut again) = (true, Again::default());
        while open || !verifying.is_empty() || again.spawn(&verifier, &mut verifying) {
            tokio::select! {
                part = parts.next(), if open && verifying.len() < VERIFIED_AT_ONCE => match part.transpose()? {
                    Some(JoinPart::State(raw)) => {
                        verifying.spawn(Arc::clone(&verifier).verify(List::State, raw));
                    }
                    Some(JoinPart::AuthChain(raw)) => {
                        verifying.spawn(Arc::clone(&verifier).verify(List::AuthChain, raw));
                    }
                    Some(JoinPart::Event(raw)) => self.given = Some(raw),
                    Some(JoinPart::MembersOmitted) => {
                        return Err(self.invalid("members were left out although all were asked for"));
                    }
                    Some(JoinPart::ServersInRoom(_)) => {}
                    None => open = false,
                },
                Some(done) = verifying.join_next() => match done {
                    Ok(portion) => self.take(portion?).await?,
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => return Err(crate::SendError::Stopping.into()),
                    },
                },
            }
        }
        self.finish().await
    }

    /// A room has one create event for ever. Whoever has made another one for it is told apart by the first; what is
    /// stored was judged by it. What a join that was cut off has left behind counts only for who tells of the same room.
    async fn begin(&mut self) -> Result<(), ImportError> {
        let graph = self.writer.graph().await?;
        let create = if self.rooms.room(&graph.view, graph.room).await?.is_some() {
            let create = self.rooms.current_event(&graph.view, graph.room, "m.room.create", "").await?;
            create.map(|event| event.pdu.clone())
        } else {
            let left_behind = first_stored(&graph).await?;
            if left_behind.is_some() {
                self.beginning = Beginning::LeftBehind;
            }
            left_behind
        };
        let Some(create) = create else { return Ok(()) };
        self.judge.know(&create).map_err(|why| self.invalid(&why))
    }

    async fn take(&mut self, portion: Portion) -> Result<(), ImportError> {
        let (mut ready, mut known) = (Vec::new(), Vec::new());
        for item in portion.items {
            let id = match &item {
                Item::Again(id) | Item::Known(id) => id,
                Item::Fresh(pdu) => pdu.event_id(),
            };
            if portion.of == List::State {
                self.state.insert(id.to_owned());
            }
            match item {
                Item::Again(_) => {}
                Item::Known(id) => known.push(id),
                Item::Fresh(pdu) => self.sorter.add(pdu, &mut ready),
            }
        }
        self.settle_beginning(&ready, &known).await?;
        let graph = self.writer.graph().await?;
        let found = stored(&graph, &known).await?;
        if found.len() < known.len() && self.beginning == Beginning::Replaced {
            return Err(self.invalid("the room has two create events, of which one was left behind"));
        }
        for (id, pdu) in found {
            self.judge.know(&pdu).map_err(|why| self.invalid(&why))?;
            self.facts.insert(id.clone(), fact(&pdu));
            self.sorter.place(&id, &mut ready);
        }
        if ready.is_empty() {
            return Ok(());
        }
        let judged = self.judge.judge(&graph, ready).await?.map_err(|why| self.invalid(&why))?;
        for one in judged {
            self.keep(one);
        }
        // The create event is the first that is stored, so that a later join sees whether it is told of the same room.
        if self.unwritten_bytes >= WRITTEN_AT_ONCE && self.judge.create.is_some() {
            self.flush().await?;
        }
        Ok(())
    }

    /// Who tells of another beginning than a join that was cut off contradicts that one, not itself. Which of them is right
    /// cannot be known; but nobody is in the room that was left behind, so all of that goes.
    async fn settle_beginning(&mut self, ready: &[Pdu], known: &[OwnedEventId]) -> Result<(), ImportError> {
        if self.beginning != Beginning::LeftBehind {
            return Ok(());
        }
        if !known.is_empty() {
            self.beginning = Beginning::Settled;
            return Ok(());
        }
        // What is stored is known: so it is another one.
        let begins = ready.iter().any(|pdu| pdu.is_state("m.room.create", ""));
        if begins && self.writer.remove().await? == Removed::All {
            self.judge = Judge::new(self.version);
            self.beginning = Beginning::Replaced;
        }
        Ok(())
    }

    fn keep(&mut self, (pdu, rejected): Judged) {
        self.facts.insert(pdu.event_id().to_owned(), fact(&pdu));
        self.unwritten_bytes += pdu.json().len();
        let first = pdu.is_state("m.room.create", "");
        self.unwritten.push(Outlier { pdu, rejected, state_before: StateId::EMPTY });
        let last = self.unwritten.len() - 1;
        if first {
            self.unwritten.swap(0, last);
        }
    }

    async fn flush(&mut self) -> Result<(), ImportError> {
        if self.beginning == Beginning::LeftBehind {
            self.beginning = Beginning::Settled;
        }
        let outliers = std::mem::take(&mut self.unwritten);
        self.unwritten_bytes = 0;
        let mut rest = outliers.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|outlier| {
                bytes += outlier.pdu.json().len() + 256;
                bytes <= WRITTEN_AT_ONCE
            });
            let (now, later) = rest.split_at(fits.count().clamp(1, rest.len()));
            self.writer.write(now).await?;
            rest = later;
        }
        self.judge.written();
        Ok(())
    }

    async fn finish(mut self) -> Result<Told, ImportError> {
        let left: Vec<&OwnedEventId> = self.sorter.left().take(5).collect();
        if !left.is_empty() {
            tracing::info!(?left, via = %self.via, "events of a room that is joined stand on events that were not told");
        }
        let create = self.judge.create.clone().ok_or_else(|| self.invalid("the state has no create event"))?;
        check_version(&create, self.version).map_err(|why| self.invalid(&why))?;
        self.flush().await?;
        let state = self.told_state(&create).map_err(|why| self.invalid(&why))?;
        let join = super::told::countersigned(self.rooms, &self.join, self.given.take()).await?;
        let join = join.map_err(|why| self.invalid(&why))?;
        let told = Told { version: self.version, join, state };
        let graph = self.writer.graph().await?;
        told.check_join(&graph, &create).await?.map_err(|why| self.invalid(&why))?;
        Ok(told)
    }

    /// The state without what was rejected. Without what the rules themselves stand on there is no room.
    fn told_state(&self, create: &Pdu) -> Result<BTreeMap<Place, (OwnedEventId, Option<Membership>)>, String> {
        if !self.state.contains(create.event_id()) {
            return Err("the state has no create event".to_owned());
        }
        let mut state = BTreeMap::new();
        for id in &self.state {
            // It is no good, or it stands on what was not told.
            let Some(fact) = self.facts.get(id) else { continue };
            let place = fact.place.as_ref().ok_or("the state has an event that is none")?;
            if fact.rejected && ["m.room.power_levels", "m.room.join_rules"].contains(&place.0.as_str()) {
                return Err(format!("{} is rejected", place.0));
            }
            if state.insert(place.clone(), (id.clone(), fact.membership, fact.rejected)).is_some() {
                return Err("the state has two events at one place".to_owned());
            }
        }
        let accepted = state.into_iter().filter(|(_, (_, _, rejected))| !rejected);
        Ok(accepted.map(|(place, (id, membership, _))| (place, (id, membership))).collect())
    }

    fn invalid(&self, why: &str) -> ImportError {
        RemoteError::Invalid { server: self.via.clone(), why: why.to_owned() }.into()
    }
}

fn fact(pdu: &Pdu) -> Fact {
    let place = pdu.state_key().map(|key| (pdu.event_type().to_owned(), key.to_owned()));
    let membership = if pdu.event_type() == "m.room.member" { membership_of(pdu) } else { None };
    Fact { place, membership, rejected: pdu.rejected() }
}

/// Whether the room is of the version that the join was made for.
fn check_version(create: &Pdu, version: RoomVersion) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Content {
        room_version: Option<String>,
    }
    let content: Content = serde_json::from_str(create.content().get()).map_err(|error| error.to_string())?;
    // Rooms from before there were versions.
    let told = content.room_version.as_deref().unwrap_or("1");
    if told == version.as_str() {
        return Ok(());
    }
    Err("the create event has another room version than the template".to_owned())
}
