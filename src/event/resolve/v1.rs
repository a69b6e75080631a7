//! Version 1 of the algorithm, for rooms of version 1 only.
//!
//! Spec: <https://spec.matrix.org/v1.19/rooms/v1/#state-resolution>

use std::collections::{BTreeMap, BTreeSet};

use ruma_common::OwnedEventId;
use sha1::{Digest as _, Sha1};

use super::{Fetch, StateMap};
use crate::auth::check_auth;
use crate::{Pdu, RoomVersion};

type Conflicts = BTreeMap<(String, String), Vec<Pdu>>;

pub(super) fn resolve(version: RoomVersion, state_sets: &[StateMap], fetch: &Fetch<'_>) -> StateMap {
    let (mut resolved, conflicts) = split(state_sets, fetch);
    for kind in ["m.room.power_levels", "m.room.join_rules", "m.room.member"] {
        // Conflicts of one type do not see each other's outcome.
        let before = resolved.clone();
        for (key, events) in conflicts.iter().filter(|((of, _), _)| of == kind) {
            if let Some(winner) = last_allowed(version, key, events, &before, fetch) {
                resolved.insert(key.clone(), winner);
            }
        }
    }
    let before = resolved.clone();
    for (key, events) in conflicts {
        if !resolved.contains_key(&key)
            && let Some(winner) = highest_allowed(version, &events, &before, fetch)
        {
            resolved.insert(key, winner);
        }
    }
    resolved
}

/// The union of what does not conflict, and what does: from the earliest to the latest event.
fn split(state_sets: &[StateMap], fetch: &Fetch<'_>) -> (StateMap, Conflicts) {
    let mut ids: BTreeMap<&(String, String), BTreeSet<&OwnedEventId>> = BTreeMap::new();
    for (key, id) in state_sets.iter().flatten() {
        ids.entry(key).or_default().insert(id);
    }
    let mut resolved = StateMap::new();
    let mut conflicts = Conflicts::new();
    for (key, ids) in ids {
        if let (1, Some(id)) = (ids.len(), ids.first()) {
            resolved.insert(key.clone(), (*id).clone());
            continue;
        }
        let mut events: Vec<Pdu> = ids.into_iter().filter_map(|id| fetch(id)).collect();
        // Ascending depth, then descending SHA-1 of the ID.
        events.sort_by_cached_key(|event| {
            (event.depth(), std::cmp::Reverse(Sha1::digest(event.event_id().as_str().as_bytes())))
        });
        conflicts.insert(key.clone(), events);
    }
    (resolved, conflicts)
}

/// Of events that the rules depend on: the first, then each that the one before it allows, until one is not allowed.
fn last_allowed(
    version: RoomVersion,
    key: &(String, String),
    events: &[Pdu],
    state: &StateMap,
    fetch: &Fetch<'_>,
) -> Option<OwnedEventId> {
    let mut events = events.iter();
    let mut winner = events.next()?;
    for event in events {
        if !is_allowed(version, event, Some((key, winner)), state, fetch) {
            break;
        }
        winner = event;
    }
    Some(winner.event_id().to_owned())
}

/// Of other events: the latest that is allowed; the earliest, if none is.
fn highest_allowed(version: RoomVersion, events: &[Pdu], state: &StateMap, fetch: &Fetch<'_>) -> Option<OwnedEventId> {
    let allowed = events.iter().rev().find(|event| is_allowed(version, event, None, state, fetch));
    allowed.or(events.first()).map(|event| event.event_id().to_owned())
}

fn is_allowed(
    version: RoomVersion,
    event: &Pdu,
    instead: Option<(&(String, String), &Pdu)>,
    state: &StateMap,
    fetch: &Fetch<'_>,
) -> bool {
    let look_up = |kind: &str, key: &str| {
        let key = (kind.to_owned(), key.to_owned());
        match instead {
            Some((at, event)) if *at == key => Some(event.clone()),
            _ => state.get(&key).and_then(|id| fetch(id)),
        }
    };
    look_up("m.room.create", "").is_some_and(|create| check_auth(version, event, &create, &look_up).is_ok())
}
