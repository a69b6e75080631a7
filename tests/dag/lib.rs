//! Random rooms for tests of state resolution.
//!
//! A room that breaks a property is of use only when it is small. So a room is not drawn event by event: proptest draws a
//! [`Recipe`], plain data without a single event ID, and [`Recipe::room`] makes the same signed events of it every time.
//! Leaving a step out or making one simpler gives another good recipe, so a failure shrinks to the few events that
//! matter, and its seed is kept in a file beside the test, `.proptest-regressions`.
//!
//! `HEARTH_DAG_CASES` says how many rooms all properties together look at; a night may look at 200 000.
//!
//! A [`Dag`] also knows what is so in it: the state before each event and whether it is rejected, found by the words of the
//! specification with no cache, no index and nothing left out ([`dag`]), and what a server that takes the events in some
//! order comes to ([`Observer`]).
#![expect(clippy::missing_panics_doc, reason = "every function here panics where a test would")]

mod cast;
mod dag;
mod make;
mod observer;
mod recipe;

#[cfg(test)]
mod properties;

pub use cast::{OBSERVER, OBSERVER_SEED, observer, public_keys};
pub use dag::{Dag, Event};
pub use observer::{Observer, Standing};
pub use recipe::{Act, Clock, Flaw, Own, Parents, Recipe, Step, To, recipe, rooms};

/// How many rooms all properties together look at, unless `HEARTH_DAG_CASES` says otherwise.
const CASES: u32 = 2_000;

/// The configuration of a property that looks at `percent` of all rooms.
pub fn share(percent: u32) -> proptest::test_runner::Config {
    let cases = match std::env::var("HEARTH_DAG_CASES") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("HEARTH_DAG_CASES is a number, not {text:?}")),
        Err(_) => CASES,
    };
    // The same rooms in every run, so that a change is to blame for what it breaks; other ones when asked for.
    let rng_seed = match std::env::var("HEARTH_DAG_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("HEARTH_DAG_SEED is a number, not {text:?}")),
        Err(_) => 1,
    };
    let cases = u32::try_from(u64::from(cases) * u64::from(percent) / 100).expect("a share is less than all");
    let beside = proptest::test_runner::FileFailurePersistence::WithSource("proptest-regressions");
    proptest::test_runner::Config {
        cases: cases.max(1),
        rng_seed: proptest::test_runner::RngSeed::Fixed(rng_seed),
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(beside)),
        ..Default::default()
    }
}
