//! The auth rules on events whose auth events are at hand.

use std::collections::{HashMap, HashSet};

use hearth_event::{Pdu, Rejection, RoomVersion};
use hearth_schema::{StateId, Verdict};
use hearth_store::StoreError;
use ruma_common::OwnedEventId;

use crate::graph::{Graph, judged};

fn rejection(rule: &str) -> Rejection {
    Rejection { rule: rule.to_owned() }
}

/// Judges `pdu` by its own auth events; `create` is the room's, and only `None` where none is known yet.
pub(crate) fn by_auth_events(
    version: RoomVersion,
    pdu: &Pdu,
    auth_events: &[Pdu],
    create: Option<&Pdu>,
) -> Result<(), Rejection> {
    hearth_event::check_auth_events(version, pdu, auth_events)?;
    if pdu.event_type() == "m.room.create" {
        return match create {
            Some(create) if create.event_id() != pdu.event_id() => Err(rejection("the room has two create events")),
            _ => Ok(()),
        };
    }
    let create = create.ok_or_else(|| rejection("the room's create event is not known"))?;
    let state = |kind: &str, key: &str| {
        if create.is_state(kind, key) {
            return Some(create.clone());
        }
        auth_events.iter().find(|event| event.is_state(kind, key)).cloned()
    };
    hearth_event::check_auth(version, pdu, create, &state)
}

/// Why `pdu` is rejected, by its auth events or by the state before it; `None`: it is not.
pub(super) async fn why_rejected(graph: &Graph, pdu: &Pdu, state: StateId) -> Result<Option<String>, StoreError> {
    let auth_events = graph.find(pdu.auth_events()).await?;
    let auth_events: Vec<Pdu> = auth_events.values().map(|event| judged(event)).collect();
    let create = graph.create().await?;
    let mut judgement = by_auth_events(graph.version, pdu, &auth_events, create.as_ref());
    if judgement.is_ok() {
        judgement = by_state(graph, pdu, state).await?;
    }
    Ok(judgement.err().map(|rejection| rejection.rule))
}

/// Whether `pdu` may be rejected only because auth events of it could not be had just now. Rejections are for ever, so it
/// is let go, and judged when it comes again. A rejected auth event settles it.
pub(super) async fn is_unfounded(graph: &Graph, pdu: &Pdu) -> Result<bool, StoreError> {
    let found = graph.find(pdu.auth_events()).await?;
    let lacking = pdu.auth_events().iter().any(|id| !found.contains_key(id));
    Ok(lacking && !found.values().any(|event| event.verdict == Verdict::Rejected))
}

/// Judges `pdu` by the state before it.
async fn by_state(graph: &Graph, pdu: &Pdu, state: StateId) -> Result<Result<(), Rejection>, StoreError> {
    if pdu.event_type() == "m.room.create" {
        return Ok(Ok(()));
    }
    let mut places = match hearth_event::auth_types_of(graph.version, pdu) {
        Ok(places) => places,
        Err(error) => return Ok(Err(error)),
    };
    places.push(("m.room.create".to_owned(), String::new()));
    let found = graph.at(state, &places).await?;
    let entries: HashMap<(String, String), Pdu> =
        places.into_iter().zip(found).filter_map(|(place, event)| Some((place, judged(&*event?)))).collect();
    let Some(create) = entries.get(&("m.room.create".to_owned(), String::new())) else {
        return Ok(Err(rejection("the state before the event has no create event")));
    };
    let state = |kind: &str, key: &str| entries.get(&(kind.to_owned(), key.to_owned())).cloned();
    Ok(hearth_event::check_auth(graph.version, pdu, create, &state))
}

/// `events` in an order in which every event comes after those that it stands on; events that stand on each other in a
/// circle (which hashes make impossible, but names of old rooms do not) are left out.
pub(crate) fn sorted(events: &HashMap<OwnedEventId, Pdu>) -> Vec<Pdu> {
    let mut out = Vec::with_capacity(events.len());
    let mut done: HashSet<&OwnedEventId> = HashSet::new();
    let mut open: HashSet<&OwnedEventId> = HashSet::new();
    let mut ids: Vec<&OwnedEventId> = events.keys().collect();
    ids.sort_unstable();
    for id in ids {
        // A stack of our own: chains are deep.
        let mut stack = vec![(id, false)];
        while let Some((id, children_done)) = stack.pop() {
            if children_done {
                open.remove(id);
                if done.insert(id) {
                    out.push(events[id].clone());
                }
                continue;
            }
            if done.contains(id) || !open.insert(id) {
                continue;
            }
            stack.push((id, true));
            for auth_event in events[id].auth_events() {
                if let Some((auth_event, _)) = events.get_key_value(auth_event)
                    && !done.contains(auth_event)
                {
                    stack.push((auth_event, false));
                }
            }
        }
    }
    out
}
