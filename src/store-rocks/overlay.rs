//! Conditions within a group: what earlier batches of the group do that RocksDB does not know yet.

use std::collections::HashMap;

use hearth_store::{Check, Op, StoreError};
use rocksdb::{ReadOptions, ReadTier};

use crate::engine::{Cached, Engine};

/// The group's effect on guarded keyspaces so far. Rows that no check can name are left out, which
/// keeps this to a few entries a batch.
pub(crate) struct Overlay<'a> {
    engine: &'a Engine,
    /// `None`: deleted.
    rows: HashMap<&'a [u8], Option<&'a [u8]>>,
    deleted_ranges: Vec<(&'a [u8], &'a [u8])>,
    how: ReadOptions,
}

impl<'a> Overlay<'a> {
    /// Looks at what RocksDB has in `tier`.
    pub(crate) fn new(engine: &'a Engine, tier: ReadTier) -> Self {
        let mut how = ReadOptions::default();
        how.set_read_tier(tier);
        Self { engine, rows: HashMap::new(), deleted_ranges: Vec::new(), how }
    }

    /// Which of `checks` do not hold, by index.
    pub(crate) fn failing(&self, checks: &[Check]) -> Result<Cached<Vec<usize>>, StoreError> {
        let mut failing = Vec::new();
        for (index, check) in checks.iter().enumerate() {
            match self.holds(check)? {
                Cached::Hit(true) => {}
                Cached::Hit(false) => failing.push(index),
                Cached::Miss => return Ok(Cached::Miss),
            }
        }
        Ok(Cached::Hit(failing))
    }

    fn holds(&self, check: &Check) -> Result<Cached<bool>, StoreError> {
        let (key, expected) = match check {
            Check::Absent(key) => (key, None),
            Check::Is(key, value) => (key, Some(value.as_ref())),
        };
        if let Some(row) = self.rows.get(key.0.as_slice()) {
            return Ok(Cached::Hit(*row == expected));
        }
        if self.deleted_ranges.iter().any(|(start, end)| *start <= key.0.as_slice() && key.0.as_slice() < *end) {
            return Ok(Cached::Hit(expected.is_none()));
        }
        Ok(match self.engine.get(&key.0, &self.how)? {
            Cached::Hit(row) => Cached::Hit(row.as_deref() == expected),
            Cached::Miss => Cached::Miss,
        })
    }

    /// Remembers what `op`, whose holes are filled, does to a guarded keyspace.
    ///
    /// # Panics
    /// If it adds to a row of a guarded keyspace: the sum is not known here.
    pub(crate) fn apply(&mut self, op: &'a Op) {
        let guarded = self.engine.layout.get(op.first_key()).is_some_and(|def| def.guarded);
        if !guarded {
            return;
        }
        match op {
            Op::Put { key, value, .. } => {
                self.rows.insert(&key.0, Some(value));
            }
            Op::Delete { key } => {
                self.rows.insert(&key.0, None);
            }
            Op::DeleteRange { start, end } => {
                self.rows.retain(|key, _| *key < start.0.as_slice() || *key >= end.0.as_slice());
                self.deleted_ranges.push((&start.0, &end.0));
            }
            Op::Add { key, .. } => panic!("counters cannot be guarded: {key:?}"),
        }
    }
}
