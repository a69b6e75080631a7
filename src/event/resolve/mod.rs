//! State resolution: one state out of the states of several branches.
//!
//! The algorithms see events through a closure. An event that the closure does not have would silently lead to another
//! state than other servers reach, so every miss is remembered and makes the answer an error.

mod subgraph;
mod v1;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};

use ruma_common::room_version_rules::StateResolutionVersion;
use ruma_common::{EventId, OwnedEventId};
use ruma_events::StateEventType;

use crate::{Pdu, RoomVersion};

/// A room's state: (type, state key) to event ID.
pub type StateMap = HashMap<(String, String), OwnedEventId>;

/// A function from event ID to event.
pub type Fetch<'a> = dyn Fn(&EventId) -> Option<Pdu> + 'a;

/// Why states were not resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Events that are needed are not there: load them and resolve again. If they cannot be had, the room cannot
    /// be resolved.
    #[error("{} events are missing", .0.len())]
    Missing(Vec<OwnedEventId>),
    /// An event has content that the algorithm cannot work with.
    #[error("state cannot be resolved: {0}")]
    Malformed(String),
}

/// Resolves `state_sets` of one room.
///
/// `auth_chains[i]` belongs to `state_sets[i]`: the events of that state's auth chains, the recursive closure of
/// `auth_events` (room version 1 does not look at it).
///
/// Spec: <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution>, and likewise for each version.
#[expect(clippy::implicit_hasher, reason = "the hasher of the standard library is the one that callers use")]
pub fn resolve(
    version: RoomVersion,
    state_sets: &[StateMap],
    auth_chains: Vec<HashSet<OwnedEventId>>,
    fetch: &Fetch<'_>,
) -> Result<StateMap, ResolveError> {
    let missing = RefCell::new(BTreeSet::new());
    let fetch = |event_id: &EventId| {
        let found = fetch(event_id);
        if found.is_none() {
            missing.borrow_mut().insert(event_id.to_owned());
        }
        found
    };
    let resolved = match version.rules().state_res {
        StateResolutionVersion::V1 => Ok(v1::resolve(version, state_sets, &fetch)),
        _ => resolve_v2(version, state_sets, auth_chains, &fetch),
    };
    let missing = missing.take();
    if missing.is_empty() { resolved } else { Err(ResolveError::Missing(missing.into_iter().collect())) }
}

/// Version 2 of the algorithm, and 2.1 from room version 12 on.
fn resolve_v2(
    version: RoomVersion,
    state_sets: &[StateMap],
    auth_chains: Vec<HashSet<OwnedEventId>>,
    fetch: &Fetch<'_>,
) -> Result<StateMap, ResolveError> {
    let rules = version.rules();
    let Some(algorithm) = rules.state_res.v2_rules() else {
        return Err(ResolveError::Malformed("the room version resolves state in another way".to_owned()));
    };
    let maps: Vec<ruma_state_res::StateMap<OwnedEventId>> = state_sets
        .iter()
        .map(|set| {
            let entries = set.iter();
            entries.map(|((kind, key), id)| ((StateEventType::from(kind.as_str()), key.clone()), id.clone())).collect()
        })
        .collect();
    let resolved = ruma_state_res::resolve(
        &rules.authorization,
        algorithm,
        maps.iter(),
        auth_chains.into_iter().map(|chain| chain.into_iter().collect()).collect(),
        fetch,
        |conflicted| Some(subgraph::between(conflicted.values().flatten(), fetch).into_iter().collect()),
    )
    .map_err(|error| ResolveError::Malformed(error.to_string()))?;
    Ok(resolved.into_iter().map(|((kind, key), id)| ((kind.to_string(), key), id)).collect())
}

#[cfg(test)]
mod tests;
