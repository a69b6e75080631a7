//! State snapshots as persistent tries.
//!
//! A room's state after each event must be findable for ever, and most states differ from their
//! neighbour in one entry. Deltas against a predecessor make chains that have to be folded and cut;
//! full copies make a busy room as large as members × events. Here a state is the root of a 16-way
//! trie over state-key numbers whose nodes are named by a keyed hash of their contents: a change
//! writes the few nodes on its path, equal states have equal roots, and two states are compared by
//! reading only the nodes in which they differ.
//!
//! Everything in here is pure: nodes come from a [`Source`], and a missing one is an error that names
//! it, so that the caller loads it and calls again.

mod node;
mod trie;

pub use node::{Node, NodeError};
pub use trie::{Change, Difference, Edited, Missing, Source, diff, entries, get, update};
