//! The conflicted state subgraph of version 2.1.
//!
//! Spec: <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution>

use std::collections::{HashMap, HashSet};

use ruma_common::OwnedEventId;

use super::Fetch;

/// Every event on a path of `auth_events` from one event of `conflicted` to another, the ends included.
pub(super) fn between<'a>(
    conflicted: impl Iterator<Item = &'a OwnedEventId>,
    fetch: &Fetch<'_>,
) -> HashSet<OwnedEventId> {
    let conflicted: HashSet<&OwnedEventId> = conflicted.collect();
    // Whether an event leads to one of `conflicted`. Walked with a stack of our own: chains are deep.
    let mut leads: HashMap<OwnedEventId, bool> = HashMap::new();
    let mut stack: Vec<Step> = conflicted.iter().map(|id| Step::Enter((*id).clone())).collect();
    while let Some(step) = stack.pop() {
        match step {
            Step::Enter(id) if leads.contains_key(&id) => {}
            Step::Enter(id) => {
                // A cycle cannot be made of hashes; in versions that could have one, this is not used.
                leads.insert(id.clone(), conflicted.contains(&id));
                let auth_events = fetch(&id).map(|event| event.auth_events().to_vec()).unwrap_or_default();
                stack.push(Step::Leave(id, auth_events.clone()));
                stack.extend(auth_events.into_iter().map(Step::Enter));
            }
            Step::Leave(id, auth_events) => {
                if auth_events.iter().any(|auth_event| leads.get(auth_event) == Some(&true)) {
                    leads.insert(id, true);
                }
            }
        }
    }
    // Everything that was walked comes from a conflicted event, so what also leads to one lies between two.
    leads.into_iter().filter(|(_, leads)| *leads).map(|(id, _)| id).collect()
}

enum Step {
    Enter(OwnedEventId),
    Leave(OwnedEventId, Vec<OwnedEventId>),
}
