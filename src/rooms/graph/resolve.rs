//! State resolution on stored states.
//!
//! The algorithm is pure ([`hearth_event::resolve`]); here it gets what it needs and nothing more. States are compared
//! as tries, so only entries in which they differ are looked at; of the others, those that the auth rules may ask for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use hearth_event::{Pdu, ResolveError, StateMap};
use hearth_schema::StateId;
use hearth_store::StoreError;
use ruma_common::{EventId, OwnedEventId};

use super::{Graph, judged};
use crate::SendError;
use crate::query::RoomEvent;
use crate::state;

/// How often the algorithm may find that events are missing.
const MAX_ROUNDS: usize = 32;

type Place = (String, String);

/// What the algorithm is given.
struct Conflict {
    sets: Vec<StateMap>,
    /// For each set: its conflicted entries and what they stand on, as far as not all sets have it.
    chains: Vec<HashSet<OwnedEventId>>,
    events: HashMap<OwnedEventId, Pdu>,
}

impl Graph {
    /// The state that `roots` resolve to, stored.
    pub(crate) async fn resolve(&self, roots: Vec<StateId>) -> Result<StateId, SendError> {
        let (Some(first), true) = (roots.first().copied(), roots.len() > 1) else {
            return Ok(roots.first().copied().unwrap_or(StateId::EMPTY));
        };
        let differing = self.differing(&roots).await?;
        let mut conflict = self.conflict(&roots, &differing).await?;
        let resolved = self.run(&mut conflict).await?;
        let (root, nodes) = self.applied(first, &differing, &resolved).await?;
        self.save(nodes).await?;
        Ok(root)
    }

    /// Places in which the states differ, with the event of each state there.
    async fn differing(&self, roots: &[StateId]) -> Result<BTreeMap<u32, Vec<Option<u32>>>, StoreError> {
        let Some((first, others)) = roots.split_first() else { return Ok(BTreeMap::new()) };
        let mut nids = BTreeSet::new();
        for other in others {
            let rows = self.rooms.state_diff(&self.view, self.room, *first, *other).await?;
            nids.extend(rows.into_iter().map(|(nid, ..)| nid));
        }
        let mut out = BTreeMap::new();
        for nid in nids {
            let mut row = Vec::with_capacity(roots.len());
            for root in roots {
                row.push(self.rooms.with_nodes(&self.view, self.room, |nodes| state::get(nodes, *root, nid)).await?);
            }
            out.insert(nid, row);
        }
        Ok(out)
    }

    async fn conflict(
        &self,
        roots: &[StateId],
        differing: &BTreeMap<u32, Vec<Option<u32>>>,
    ) -> Result<Conflict, StoreError> {
        let mut chains = Vec::with_capacity(roots.len());
        for i in 0..roots.len() {
            let own: Vec<u32> = differing.values().filter_map(|row| row.get(i).copied().flatten()).collect();
            chains.push(self.auth_chain_with(own).await?);
        }
        let all: HashSet<u32> = chains.iter().flatten().copied().collect();
        let uneven: HashSet<u32> = all.iter().copied().filter(|n| !chains.iter().all(|c| c.contains(n))).collect();
        let uneven = self.only_conflicted(roots, differing, uneven).await?;

        let conflicted: BTreeSet<u32> = differing.values().flatten().copied().flatten().collect();
        let wanted: Vec<u32> =
            conflicted.iter().copied().chain(all.difference(&conflicted.iter().copied().collect()).copied()).collect();
        let loaded = self.events(&wanted).await?;
        let by_number: HashMap<u32, &Arc<RoomEvent>> = loaded.iter().map(|event| (event.n, event)).collect();
        let mut events: HashMap<OwnedEventId, Pdu> =
            loaded.iter().map(|event| (event.event_id().to_owned(), judged(event))).collect();

        let shared = self.shared_entries(roots, differing, &loaded).await?;
        let mut common = StateMap::new();
        for (place, event) in shared {
            events.entry(event.event_id().to_owned()).or_insert_with(|| judged(&event));
            common.insert(place, event.event_id().to_owned());
        }
        let id = |n: &u32| by_number.get(n).map(|event| event.event_id().to_owned());
        let sets = (0..roots.len())
            .map(|i| {
                let own = differing.values().filter_map(|row| by_number.get(&row.get(i).copied().flatten()?));
                let mut set = common.clone();
                set.extend(own.filter_map(|event| Some((place_of(event)?, event.event_id().to_owned()))));
                set
            })
            .collect();
        let chains = chains.iter().map(|chain| chain.intersection(&uneven).filter_map(id).collect()).collect();
        Ok(Conflict { sets, chains, events })
    }

    /// `uneven` without entries that all states share and what they stand on: that is in every state's chains.
    async fn only_conflicted(
        &self,
        roots: &[StateId],
        differing: &BTreeMap<u32, Vec<Option<u32>>>,
        uneven: HashSet<u32>,
    ) -> Result<HashSet<u32>, StoreError> {
        // What is conflicted takes part anyhow: only for more than that the whole state is read.
        let conflicted: HashSet<u32> = differing.values().flatten().copied().flatten().collect();
        let Some(first) = roots.first().filter(|_| !uneven.is_subset(&conflicted)) else { return Ok(uneven) };
        let entries = self.rooms.with_nodes(&self.view, self.room, |nodes| state::entries(nodes, *first)).await?;
        let shared = entries.into_iter().filter(|(nid, _)| !differing.contains_key(nid)).map(|(_, n)| n);
        let common = self.auth_chain_with(shared.collect()).await?;
        Ok(uneven.difference(&common).copied().collect())
    }

    /// Entries that all states share and that the auth rules may ask for when they look at `events`.
    async fn shared_entries(
        &self,
        roots: &[StateId],
        differing: &BTreeMap<u32, Vec<Option<u32>>>,
        events: &[Arc<RoomEvent>],
    ) -> Result<Vec<(Place, Arc<RoomEvent>)>, StoreError> {
        let Some(first) = roots.first() else { return Ok(Vec::new()) };
        let mut places: BTreeSet<Place> = BTreeSet::new();
        for kind in ["m.room.create", "m.room.power_levels", "m.room.join_rules"] {
            places.insert((kind.to_owned(), String::new()));
        }
        for event in events {
            // What cannot be judged is not allowed, and asks for nothing.
            places.extend(hearth_event::auth_types_of(self.version, &event.pdu).into_iter().flatten());
            places.extend(place_of(event));
        }
        let places: Vec<Place> = places.into_iter().collect();
        let nids = self.state_keys(&places).await?;
        let known = places.into_iter().zip(nids);
        let shared: Vec<Place> = known
            .filter(|(_, nid)| nid.is_some_and(|nid| !differing.contains_key(&nid.0)))
            .map(|(place, _)| place)
            .collect();
        let found = self.at(*first, &shared).await?;
        Ok(shared.into_iter().zip(found).filter_map(|(place, event)| Some((place, event?))).collect())
    }

    /// Runs the algorithm, and again with what it missed.
    async fn run(&self, conflict: &mut Conflict) -> Result<StateMap, SendError> {
        for _ in 0..MAX_ROUNDS {
            let fetch = |id: &EventId| conflict.events.get(id).cloned();
            match hearth_event::resolve(self.version, &conflict.sets, conflict.chains.clone(), &fetch) {
                Ok(resolved) => return Ok(resolved),
                Err(ResolveError::Missing(ids)) => {
                    let found = self.find(&ids).await?;
                    if let Some(absent) = ids.iter().find(|id| !found.contains_key(*id)) {
                        return Err(SendError::Internal(format!("state cannot be resolved without {absent}")));
                    }
                    conflict.events.extend(found.into_iter().map(|(id, event)| (id, judged(&event))));
                }
                Err(error) => return Err(SendError::Internal(error.to_string())),
            }
        }
        Err(SendError::Internal("state resolution misses ever more events".into()))
    }

    /// `first` with the entries that differed as they were resolved.
    async fn applied(
        &self,
        first: StateId,
        differing: &BTreeMap<u32, Vec<Option<u32>>>,
        resolved: &StateMap,
    ) -> Result<(StateId, super::NewNodes), SendError> {
        let places: Vec<Place> = resolved.keys().cloned().collect();
        let nids = self.state_keys(&places).await?;
        let ids: Vec<OwnedEventId> = resolved.values().cloned().collect();
        let numbers: HashMap<_, _> = self.numbers(&ids).await?.into_iter().collect();
        let mut changes: BTreeMap<u32, Option<u32>> = differing.keys().map(|nid| (*nid, None)).collect();
        for (place, nid) in places.iter().zip(nids) {
            let n = resolved.get(place).and_then(|id| numbers.get(id)).copied();
            let (Some(nid), Some(n)) = (nid, n) else {
                return Err(SendError::Internal("state was resolved to an event that is not stored".into()));
            };
            changes.insert(nid.0, Some(n));
        }
        let changes: Vec<state::Change> = changes.into_iter().collect();
        Ok(self.changed(first, &changes).await?)
    }
}

fn place_of(event: &RoomEvent) -> Option<Place> {
    event.state_key().map(|key| (event.event_type().to_owned(), key.to_owned()))
}
