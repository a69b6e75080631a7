//! Asks matrix-synapse the same questions as `hearth-event`, for every room version. See `README.md`.

mod auth_cases;
mod driver;
mod json_cases;
mod known;
mod resolve_cases;
mod world;

use std::collections::BTreeMap;

use hearth_event::RoomVersion;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

/// A question, and our answer in the shape of the other side's.
pub(crate) struct Case {
    pub(crate) request: Value,
    pub(crate) ours: Value,
}

type Generator = fn(RoomVersion, &mut StdRng) -> Case;

/// Of a hundred cases, how many are of each kind.
const MIX: [(&str, usize, Generator); 6] = [
    ("canonical", 10, json_cases::canonical),
    ("event_id", 15, json_cases::event_id),
    ("auth", 50, auth_cases::auth),
    ("create", 5, auth_cases::create),
    ("resolve", 15, resolve_cases::resolve),
    ("room", 5, resolve_cases::room),
];

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => default,
    }
}

fn case(seed: u64) -> (&'static str, RoomVersion, Case) {
    let mut rng = StdRng::seed_from_u64(seed);
    let versions: Vec<_> = RoomVersion::all().collect();
    let version = versions[usize::try_from(seed).expect("64 bits") % versions.len()];
    let mut ticket = rng.random_range(0..100);
    for (kind, share, generator) in MIX {
        if ticket < share {
            return (kind, version, generator(version, &mut rng));
        }
        ticket -= share;
    }
    unreachable!("the shares add up to a hundred")
}

#[test]
fn answers_as_synapse_does() {
    let first = number("HEARTH_ORACLE_SEED", 1);
    let count = number("HEARTH_ORACLE_CASES", 20_000);
    let seeds: Vec<u64> = (first..first + count).collect();
    let answers = driver::ask(seeds.iter().map(|seed| case(*seed).2.request));
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    for (seed, answer) in seeds.into_iter().zip(answers) {
        let (kind, version, case) = case(seed);
        let theirs = driver::normalise(&answer, version);
        *kinds.entry(outcome(kind, &theirs)).or_default() += 1;
        if case.ours == theirs {
            continue;
        }
        match known::reason(version, &case, &theirs, &answer) {
            Some(reason) => *explained.entry(reason).or_default() += 1,
            None => failures.push((seed, kind, version, case, answer)),
        }
    }
    println!("outcomes: {kinds:#?}\nexplained differences: {explained:#?}");
    let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
    for (_, kind, version, ..) in &failures {
        *by_kind.entry(format!("{kind} {version}")).or_default() += 1;
    }
    println!("unexplained: {by_kind:#?}");
    let shown: Vec<String> = failures
        .iter()
        .take(usize::try_from(number("HEARTH_ORACLE_SHOW", 3)).expect("64 bits"))
        .map(describe)
        .collect();
    assert!(failures.is_empty(), "{} unexplained differences\n{}", failures.len(), shown.join("\n"));
    let most = usize::try_from(count).expect("64 bits") / 20;
    assert!(explained.values().sum::<usize>() <= most, "more than a twentieth is explained away");
}

/// What kind of question it was and how it came out, to see that each rule has been passed and failed.
fn outcome(kind: &str, theirs: &Value) -> String {
    let verdict = |key: &str| theirs.get(key).map_or("", |value| if *value == Value::Bool(true) { "+" } else { "-" });
    match kind {
        "auth" | "create" => format!("{kind} {}{}", verdict("independent"), verdict("dependent")),
        _ => format!("{kind} {}", if theirs.get("err").is_some() { "-" } else { "+" }),
    }
}

fn describe((seed, kind, version, case, answer): &(u64, &str, RoomVersion, Case, Value)) -> String {
    let request = serde_json::to_string(&case.request).expect("a value is JSON");
    format!("seed {seed}, {kind}, version {version}\n  request {request}\n  ours   {}\n  theirs {answer}\n", case.ours)
}
