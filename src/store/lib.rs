//! An ordered, transactional key-value store, as seen by everything above it.
//!
//! The problem: Matrix needs an event, its index rows, the room's head, the membership rows and the
//! change-log row to appear together or not at all, on one machine today and on a distributed
//! database later. The answer here: a write is plain data (a [`Batch`]) that names the [`Lane`] it
//! belongs to, the conditions under which it may happen, the rows it changes, the facts it adds to
//! the change log and the effects it has on other lanes. An engine applies it atomically, assigns
//! [`Pos`]itions in commit order, and answers when it is durable.
//!
//! Nothing in this crate knows what a room is.

mod batch;
pub mod chaos;
mod codec;
#[cfg(test)]
mod codec_tests;
pub mod conformance;
mod engine;
mod key;
mod keyspace;
mod lane;
pub mod memory;
mod recent;
mod signals;
#[cfg(test)]
mod tests;
mod view;

pub use batch::{Batch, BatchId, Check, Durability, Fact, LoggedFact, Op};
pub use codec::{add_to_counter, decode_body, encode_body};
pub use engine::{CommitError, Committed, Limits, Page, Range, Snapshot, Store, StoreError};
pub use key::{DecodeError, Desc, Element, Hole, KeyBuf, KeyReader, Owner, Pos, Prefix, RawKey, TupleKey};
pub use keyspace::{Keyspace, KeyspaceDef, KeyspaceId, Profile, Value, raw_key};
pub use lane::{Frontier, LANES, Lane};
pub use recent::RecentIds;
pub use signals::Signals;
pub use view::{Found, Order, Reads, Slot, View};
