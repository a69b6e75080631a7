//! What holds for the resolution of states, whatever the room.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};

use hearth_event::{EventDraft, Pdu, PowerLevel, PowerLevels, RoomVersion, StateMap, build};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use ruma_common::{EventId, OwnedEventId};
use serde_json::json;

use crate::cast::{key_of, user};
use crate::{Dag, Event, Recipe, rooms, share};

type Place = (String, String);
type Ids = HashSet<OwnedEventId>;

/// A room, and the states after some of its events.
fn room_and_states(recipe: &Recipe, picks: &[u16]) -> (Dag, Vec<StateMap>) {
    let dag = recipe.room();
    let sets = picks.iter().map(|pick| dag.events[usize::from(*pick) % dag.events.len()].after());
    let sets = sets.collect();
    (dag, sets)
}

fn picks() -> impl Strategy<Value = Vec<u16>> {
    vec(any::<u16>(), 2..6)
}

/// Places that are not the same in all `sets`.
fn conflicted_places(sets: &[StateMap]) -> BTreeSet<&Place> {
    let same = |place: &Place| sets.iter().all(|set| set.get(place) == sets[0].get(place));
    sets.iter().flat_map(HashMap::keys).filter(|place| !same(place)).collect()
}

fn conflicted_events(sets: &[StateMap]) -> Ids {
    let places = conflicted_places(sets);
    sets.iter().flatten().filter(|(place, _)| places.contains(place)).map(|(_, id)| id.clone()).collect()
}

fn chain_of(dag: &Dag, event: &OwnedEventId) -> Ids {
    dag.auth_chain(std::iter::once(event))
}

/// What is in the auth chains of some sets, but not of all.
fn auth_difference(dag: &Dag, sets: &[StateMap]) -> Ids {
    let chains: Vec<Ids> = sets.iter().map(|set| dag.auth_chain(set.values())).collect();
    let all: Ids = chains.iter().flatten().cloned().collect();
    all.into_iter().filter(|id| !chains.iter().all(|chain| chain.contains(id))).collect()
}

/// What lies on a path of auth events from one conflicted event to another.
fn conflicted_subgraph(dag: &Dag, sets: &[StateMap]) -> Ids {
    let conflicted = conflicted_events(sets);
    let reached: Ids = conflicted.iter().flat_map(|id| chain_of(dag, id)).collect();
    reached.into_iter().filter(|id| !chain_of(dag, id).is_disjoint(&conflicted)).collect()
}

fn resolves_conflicts_from_nothing(version: RoomVersion) -> bool {
    version.rules().state_res.v2_rules().is_some_and(|rules| rules.begin_iterative_auth_checks_with_empty_state_map)
}

/// P1 and P2: the same input gives the same state, however often and wherever it is computed, and neither the order of
/// the sets nor their number counts.
fn check_function(dag: &Dag, sets: &[StateMap]) -> Result<(), TestCaseError> {
    let expected = dag.resolve(sets);
    // A map that is built anew is walked in another order.
    let anew = || sets.iter().map(|set| set.clone().into_iter().collect::<StateMap>()).collect::<Vec<_>>();
    for _ in 0..8 {
        prop_assert_eq!(&dag.resolve(&anew()), &expected, "P1\n{}", dag);
    }
    let elsewhere = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| dag.resolve(&anew())));
        threads.map(|thread| thread.join().expect("resolved"))
    });
    prop_assert!(elsewhere.iter().all(|state| *state == expected), "P1 on another thread\n{}", dag);
    let mut turned = sets.to_vec();
    for _ in 0..sets.len() {
        turned.rotate_left(1);
        prop_assert_eq!(&dag.resolve(&turned), &expected, "P2, turned\n{}", dag);
        turned.swap(0, 1);
        prop_assert_eq!(&dag.resolve(&turned), &expected, "P2, swapped\n{}", dag);
        let mut doubled = turned.clone();
        doubled.push(turned[0].clone());
        prop_assert_eq!(&dag.resolve(&doubled), &expected, "P2, doubled\n{}", dag);
    }
    Ok(())
}

/// P3 to P6, and what of P7 holds in every version.
fn check_result(dag: &Dag, sets: &[StateMap]) -> Result<(), TestCaseError> {
    let resolved = dag.resolve(sets);
    for set in sets {
        prop_assert_eq!(&dag.resolve(&[set.clone(), set.clone()]), set, "P3, the same twice\n{}", dag);
    }
    let again: Vec<StateMap> = std::iter::once(resolved.clone()).chain(sets.iter().cloned()).collect();
    for state in [&resolved, &dag.resolve(&again)] {
        let create = state.get(&("m.room.create".to_owned(), String::new()));
        prop_assert_eq!(create.map(|id| &**id), Some(dag.create().event_id()), "P7, one create event\n{}", dag);
        for ((kind, key), id) in state {
            let event = dag.position(id).map(|index| &dag.events[index]);
            let Some(Event { pdu, rejected, .. }) = event else { panic!("P4: {id} is in no room\n{dag}") };
            prop_assert!(pdu.is_state(kind, key), "P3: {} is not at its place\n{}", id, dag);
            prop_assert!(rejected.is_none() && !pdu.rejected(), "P6: {} was rejected\n{}", id, dag);
            for auth_event in pdu.auth_events() {
                let fine = dag.pdu(auth_event).is_some_and(|pdu| !pdu.rejected());
                prop_assert!(fine, "P3: {} stands on nothing good\n{}", id, dag);
            }
        }
    }
    let given: Ids = sets.iter().flat_map(HashMap::values).cloned().collect();
    let mut allowed = given;
    if dag.version.rules().state_res.v2_rules().is_some() {
        allowed.extend(auth_difference(dag, sets));
    }
    if resolves_conflicts_from_nothing(dag.version) {
        allowed.extend(conflicted_subgraph(dag, sets));
    }
    prop_assert!(resolved.values().all(|id| allowed.contains(id)), "P4: an event comes from nowhere\n{}", dag);
    let conflicted = conflicted_places(sets);
    for (place, id) in sets.iter().flatten().filter(|(place, _)| !conflicted.contains(place)) {
        prop_assert_eq!(resolved.get(place), Some(id), "P5: {:?} was not in conflict\n{}", place, dag);
    }
    Ok(())
}

/// P7: creators stay above everybody.
fn check_creators(dag: &Dag, recipe: &Recipe, sets: &[StateMap]) -> Result<(), TestCaseError> {
    if !dag.version.rules().authorization.explicitly_privilege_room_creators {
        return Ok(());
    }
    prop_assert_eq!(&dag.room_id().as_str()[1..], &dag.create().event_id().as_str()[1..]);
    let resolved = dag.resolve(sets);
    let levels = resolved.get(&("m.room.power_levels".to_owned(), String::new())).and_then(|id| dag.pdu(id));
    let levels = PowerLevels::of(dag.version, dag.create(), levels.as_ref());
    let creators = if recipe.more_creators { 0..2 } else { 0..1 };
    for index in 0..recipe.users {
        let level = levels.user(&user(index, recipe.servers));
        prop_assert_eq!(level == PowerLevel::Infinite, creators.contains(&index), "P7: user {}\n{}", index, dag);
    }
    Ok(())
}

/// P10: what one resolution asks for, by what it has to look at: a fixed number of events for each in conflict and each
/// that these stand on.
fn check_cost(dag: &Dag, sets: &[StateMap]) -> Result<(), TestCaseError> {
    let (asked, different) = count(dag, sets);
    let (in_conflict, stood_on) = sizes(dag, sets);
    prop_assert!(different <= stood_on + 12 * in_conflict, "P10: {} of {} different\n{}", different, stood_on, dag);
    let most = 8 * in_conflict * (1 + in_conflict.max(1).ilog2() as usize) + 16 * stood_on;
    prop_assert!(asked <= most, "P10: {} for {} and {}\n{}", asked, in_conflict, stood_on, dag);
    Ok(())
}

/// Events in conflict, with the auth difference and the conflicted subgraph; and those with all that they stand on.
fn sizes(dag: &Dag, sets: &[StateMap]) -> (usize, usize) {
    let mut full = conflicted_events(sets);
    full.extend(auth_difference(dag, sets));
    full.extend(conflicted_subgraph(dag, sets));
    (full.len(), dag.auth_chain(full.iter()).len())
}

/// How many events a resolution asks for, and how many different ones.
fn count(dag: &Dag, sets: &[StateMap]) -> (usize, usize) {
    let chains = sets.iter().map(|set| dag.auth_chain(set.values())).collect();
    let asked = Cell::new(0);
    let different = std::cell::RefCell::new(HashSet::new());
    let fetch = |id: &EventId| {
        asked.set(asked.get() + 1);
        different.borrow_mut().insert(id.to_owned());
        dag.pdu(id)
    };
    hearth_event::resolve(dag.version, sets, chains, &fetch).expect("resolved");
    (asked.get(), different.into_inner().len())
}

proptest! {
    #![proptest_config(share(20))]

    #[test]
    fn the_resolved_state_depends_on_the_states_alone(recipe in rooms(), picks in picks()) {
        let (dag, sets) = room_and_states(&recipe, &picks);
        check_function(&dag, &sets)?;
    }

    #[test]
    fn the_resolved_state_is_made_of_what_was_given_and_allowed(recipe in rooms(), picks in picks()) {
        let (dag, sets) = room_and_states(&recipe, &picks);
        check_result(&dag, &sets)?;
        check_creators(&dag, &recipe, &sets)?;
    }

    #[test]
    fn resolving_asks_for_no_more_than_the_conflict_needs(recipe in rooms(), picks in picks()) {
        let (dag, sets) = room_and_states(&recipe, &picks);
        check_cost(&dag, &sets)?;
    }
}

#[test]
fn most_rooms_have_what_makes_resolving_hard() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    let strategy = (rooms(), picks());
    let count = 200;
    for _ in 0..count {
        let (recipe, picks) = strategy.new_tree(&mut runner).expect("a tree").current();
        let (dag, sets) = room_and_states(&recipe, &picks);
        let mut see = |what, so: bool| *seen.entry(what).or_default() += usize::from(so);
        let of_kind = |kind: &str| conflicted_places(&sets).iter().any(|(of, _)| of == kind);
        see("conflict", !conflicted_places(&sets).is_empty());
        see("power levels in conflict", of_kind("m.room.power_levels"));
        see("members in conflict", of_kind("m.room.member"));
        see("join rules in conflict", of_kind("m.room.join_rules"));
        see("rejected", dag.events.iter().any(|event| event.rejected.is_some()));
        see("merge", dag.events.iter().any(|event| event.pdu.prev_events().len() > 1));
        let by_token =
            |event: &Event| event.rejected.is_none() && event.pdu.content().get().contains("third_party_invite");
        see("invited by token", dag.events.iter().any(by_token));
        let by_word = |event: &Event| event.rejected.is_none() && event.pdu.content().get().contains("authorised_via");
        see("let in by another's word", dag.events.iter().any(by_word));
        see("closed", dag.leaves().len() == 1);
        see("at least twenty events", dag.events.len() >= 20);
    }
    println!("of {count} rooms: {seen:#?}");
    for (what, least) in [
        ("conflict", 160),
        ("power levels in conflict", 60),
        ("members in conflict", 60),
        ("join rules in conflict", 30),
        ("rejected", 60),
        ("merge", 100),
        ("invited by token", 5),
        ("let in by another's word", 15),
        ("closed", 160),
        ("at least twenty events", 80),
    ] {
        assert!(seen[what] >= least, "only {} of {count} rooms: {what}", seen[what]);
    }
}

/// Two branches of one founding: on each the power levels change `changes` times, and then `notes` places are set.
fn ladder(version: RoomVersion, changes: usize, notes: usize) -> (Vec<Pdu>, [StateMap; 2]) {
    let recipe = Recipe { version, servers: 2, users: 3, more_creators: false, steps: Vec::new() };
    let dag = recipe.room();
    let joined = &dag.events[dag.founded];
    let mut events: Vec<Pdu> = dag.events.iter().map(|event| event.pdu.clone()).collect();
    let creator = user(0, 2);
    let place = |kind: &str, key: &str| (kind.to_owned(), key.to_owned());
    let branch = |branch: u64| {
        let mut state = joined.after();
        let mut own = Vec::new();
        let mut add = |kind: &str, key: &str, content: serde_json::Value| {
            let needed = [
                place("m.room.create", ""),
                place("m.room.power_levels", ""),
                place("m.room.member", creator.as_str()),
            ];
            let skip = usize::from(version.rules().authorization.room_create_event_id_as_room_id);
            let draft = EventDraft {
                room_id: Some(dag.room_id().to_owned()),
                event_type: kind.to_owned(),
                state_key: Some(key.to_owned()),
                sender: creator.clone(),
                content: serde_json::from_value(content).expect("canonical"),
                origin_server_ts: 1_700_000_100_000 + branch + own.len() as u64,
                prev_events: vec![joined.pdu.event_id().to_owned()],
                auth_events: needed[skip..].iter().map(|place| state[place].clone()).collect(),
                depth: 100,
                redacts: None,
            };
            let pdu = build(draft, version, creator.server_name(), &key_of(creator.server_name())).expect("an event");
            state.insert(place(kind, key), pdu.event_id().to_owned());
            own.push(pdu);
        };
        let infinite = version.rules().authorization.explicitly_privilege_room_creators;
        for change in 0..changes {
            let mut levels = json!({ "users": { user(2, 2).as_str(): 50 }, "ban": 50, "kick": change });
            if !infinite {
                levels["users"][creator.as_str()] = json!(100);
            }
            add("m.room.power_levels", "", levels);
        }
        for note in 0..notes {
            add("m.test.note", &note.to_string(), json!({ "branch": branch }));
        }
        (own, state)
    };
    let [(one, first), (two, second)] = [branch(0), branch(1)];
    events.extend(one.into_iter().chain(two));
    (events, [first, second])
}

fn cost_of_ladder(version: RoomVersion, changes: usize, notes: usize) -> usize {
    let (events, sets) = ladder(version, changes, notes);
    let by_id: HashMap<OwnedEventId, Pdu> = events.into_iter().map(|pdu| (pdu.event_id().to_owned(), pdu)).collect();
    let chain = |set: &StateMap| {
        let (mut chain, mut todo) = (Ids::new(), set.values().cloned().collect::<Vec<_>>());
        while let Some(id) = todo.pop() {
            if chain.insert(id.clone()) {
                todo.extend(by_id[&id].auth_events().iter().cloned());
            }
        }
        chain
    };
    let asked = Cell::new(0);
    let fetch = |id: &EventId| {
        asked.set(asked.get() + 1);
        by_id.get(id).cloned()
    };
    hearth_event::resolve(version, &sets, sets.iter().map(chain).collect(), &fetch).expect("resolved");
    asked.get()
}

/// P10 where it hurts: a conflict twice as large costs little more than twice as much.
#[test]
fn the_cost_grows_as_the_conflict_does() {
    for version in RoomVersion::all() {
        let cost = |changes, notes| cost_of_ladder(version, changes, notes);
        let base = cost(40, 40);
        println!("version {version}: {base}, {} {} {}", cost(80, 40), cost(40, 80), cost(80, 80));
        for (changes, notes) in [(80, 40), (40, 80)] {
            let larger = cost(changes, notes);
            assert!(larger * 10 <= base * 23, "version {version}: {base}, then {larger} for {changes} and {notes}");
        }
    }
}
