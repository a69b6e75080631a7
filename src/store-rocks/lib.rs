//! The store on RocksDB: one process, one directory, nothing else to run.
//!
//! The problem: an answer may only leave the server when what it says is on disk, yet a disk syncs a
//! few hundred to a few thousand times a second. So there is one committer thread. It takes every
//! batch that waits, verifies their conditions in order, gives out positions, writes all of them as
//! one RocksDB batch with one sync, publishes the new view, and answers. The longer a sync takes the
//! more batches share the next one. A batch that needs no sync is written by its caller if the committer has
//! nothing to do: there is one turn to write, and whoever has it is alone. An outcome for which one waits alone is brought
//! to it by a task of its own runtime (`courier.rs`).
//!
//! What follows from one writer at a time: a snapshot taken after its write holds exactly what has been
//! published, so readers share that one snapshot and never meet RocksDB's locks for it.
//!
//! What is on disk, below the directory that [`RocksStore::open`] is given:
//! * `db/`: RocksDB's files, two column families (`options.rs` says why two);
//! * `acknowledged`: how far commits have been acknowledged, written apart from RocksDB, so that a
//!   database that has silently lost its newest writes is recognised (`acknowledged.rs`);
//! * `lock`: held while the store is open.

mod acknowledged;
mod committer;
mod courier;
mod engine;
mod facts;
mod meta;
mod open;
mod options;
mod overlay;
mod pool;
mod queue;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use engine::CHANGE_LOG;
pub use meta::Identity;
pub use open::OpenError;
pub use options::RocksOptions;
pub use store::RocksStore;
