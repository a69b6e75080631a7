//! What every engine must do, as tests that each engine runs on itself.
//!
//! [`crate::conformance_tests`] makes one test of each function below. A function gets an empty store that was
//! opened with [`KEYSPACES`]. It panics when the contract is broken and returns [`Upset`] when an
//! answer was merely unlucky, which only an engine that is unlucky on purpose may be.
#![expect(clippy::missing_panics_doc, reason = "tests panic when the contract is broken, all of them")]

mod fixtures;
mod reads;
mod writes;

use std::any::Any;
use std::sync::Arc;

pub use fixtures::{Counter, Counters, Heads, KEYSPACES, Log, Mailbox, Owned, Stamp, Stamps};
pub use reads::*;
pub use writes::*;

use crate::{CommitError, Store, StoreError};

/// An empty store, and what has to live as long as it (its directory).
pub type Subject = (Arc<dyn Store>, Box<dyn Any>);

/// Why a test could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum Upset {
    /// A read failed.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// A commit was refused that should not have been.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A watcher was told nothing in time.
    #[error("no hint came")]
    NoHint,
}

/// How a test ends.
pub type Outcome = Result<(), Upset>;

/// Runs `test` on new stores until it can be finished, at most `attempts` times.
///
/// # Panics
/// If the contract is broken, or every attempt was upset.
pub async fn check<T, F>(make: impl Fn(u32) -> Subject, attempts: u32, test: T)
where
    T: Fn(Arc<dyn Store>) -> F,
    F: Future<Output = Outcome>,
{
    for attempt in 1..=attempts {
        let (store, keep) = make(attempt);
        let outcome = test(store).await;
        drop(keep);
        match outcome {
            Ok(()) => return,
            Err(upset) => assert!(attempt < attempts, "upset {attempts} times, lately: {upset}"),
        }
    }
}

/// Makes a test of every function of [`crate::conformance`] for the engine that `$make` (a function
/// from the number of the attempt to a [`Subject`]) gives. The crate needs `tokio` with macros.
#[macro_export]
macro_rules! conformance_tests {
    ($make:expr, attempts: $attempts:expr) => {
        $crate::conformance_tests! { @each $make, $attempts,
            a_batch_happens_as_a_whole_or_not_at_all
            a_check_sees_the_batches_before_it
            a_check_sees_deletions_before_it
            of_many_writers_of_one_row_one_wins_at_a_time
            positions_are_in_commit_order_without_gaps
            positions_are_filled_into_keys_and_values
            the_outbox_reaches_other_lanes
            counters_add_up
            repeating_a_batch_finds_the_first_answer
            what_is_too_large_is_refused
            batches_of_two_lanes_are_refused
            malformed_batches_are_refused
            relaxed_commits_are_seen_at_once
            dropping_the_answer_does_not_take_the_batch_back
            look_ups_are_answered_in_their_order
            a_snapshot_does_not_change
            a_snapshot_is_as_new_as_asked
            ranges_are_read_from_both_ends_and_resumed
            many_ranges_are_answered_in_their_order
            the_tail_is_in_order_without_gaps
            the_newest_fact_is_never_behind_the_frontier
            a_watcher_hears_that_a_lane_moved
        }
    };
    (@each $make:expr, $attempts:expr, $($name:ident)+) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::conformance::check($make, $attempts, $crate::conformance::$name).await;
        }
    )+ };
}
