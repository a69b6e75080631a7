//! Typed reads.

use std::marker::PhantomData;
use std::ops::{ControlFlow, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;

use crate::keyspace::{raw_range, successor};
use crate::{
    DecodeError, Frontier, KeyReader, Keyspace, Pos, Prefix, Range, RawKey, Snapshot, Store, StoreError, TupleKey,
    Value, raw_key,
};

/// From which end a range is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// Typed window on one snapshot. Cheap to clone; lives for one use-case, never stored.
#[derive(Clone)]
pub struct View(Arc<dyn Snapshot>);

/// Where the answer to one look-up will be.
#[derive(Debug)]
pub struct Slot<K>(usize, PhantomData<fn() -> K>);

/// Look-ups in any keyspaces, answered in one round trip.
pub struct Reads<'v> {
    view: &'v View,
    keys: Vec<RawKey>,
}

/// The answers to [`Reads`].
#[derive(Debug)]
pub struct Found(Vec<Option<Bytes>>);

impl View {
    /// A view of everything `store` has committed so far.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn latest(store: &dyn Store) -> Result<Self, StoreError> {
        Self::at_least(store, &store.frontier()).await
    }

    /// A view that contains at least `min`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn at_least(store: &dyn Store, min: &Frontier) -> Result<Self, StoreError> {
        store.snapshot(min).await.map(Self)
    }

    /// The positions this view contains.
    pub fn frontier(&self) -> &Frontier {
        self.0.frontier()
    }

    /// Collects look-ups for one round trip.
    pub const fn reads(&self) -> Reads<'_> {
        Reads { view: self, keys: Vec::new() }
    }

    /// One row.
    ///
    /// # Errors
    /// If the store cannot be read or the row is damaged.
    pub async fn get<K: Keyspace>(&self, key: &K::Key) -> Result<Option<K::Value>, StoreError> {
        let mut reads = self.reads();
        let slot = reads.get::<K>(key);
        reads.run().await?.take(slot)
    }

    /// `result[i]` belongs to `keys[i]`.
    ///
    /// # Errors
    /// If the store cannot be read or a row is damaged.
    pub async fn get_many<K: Keyspace>(&self, keys: &[K::Key]) -> Result<Vec<Option<K::Value>>, StoreError> {
        let raw: Vec<_> = keys.iter().map(|key| raw_key::<K>(key).0).collect();
        let found = self.0.get_many(&raw).await?;
        found.into_iter().map(|bytes| bytes.map(|bytes| decode_value::<K>(&bytes)).transpose()).collect()
    }

    /// At most `limit` rows whose keys begin with `prefix`, from the end that `order` says.
    ///
    /// # Errors
    /// If the store cannot be read or a row is damaged.
    pub async fn page<K: Keyspace, P: Prefix<K::Key>>(
        &self,
        prefix: &P,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(K::Key, K::Value)>, StoreError> {
        let (start, end) = raw_range::<K, P>(prefix);
        self.rows::<K>(Range { start, end, order, limit }).await
    }

    /// At most `limit` rows whose keys begin with `prefix` followed by a position in `positions`.
    ///
    /// # Errors
    /// If the store cannot be read or a row is damaged.
    pub async fn page_between<K: Keyspace, P: Prefix<K::Key>>(
        &self,
        prefix: &P,
        positions: impl RangeBounds<Pos>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(K::Key, K::Value)>, StoreError> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let (base, after) = raw_range::<K, P>(prefix);
        let at = |pos: Pos| [base.as_slice(), &pos.get().to_be_bytes()].concat();
        let start = match positions.start_bound() {
            Included(pos) => at(*pos),
            Excluded(pos) => at(pos.next()),
            Unbounded => base.clone(),
        };
        let end = match positions.end_bound() {
            Included(pos) => at(pos.next()),
            Excluded(pos) => at(*pos),
            Unbounded => after,
        };
        if start >= end {
            return Ok(Vec::new());
        }
        self.rows::<K>(Range { start, end, order, limit }).await
    }

    /// At most `limit` rows whose keys begin with `prefix` and come after `after` (ascending).
    ///
    /// # Errors
    /// If the store cannot be read or a row is damaged.
    pub async fn page_after<K: Keyspace, P: Prefix<K::Key>>(
        &self,
        prefix: &P,
        after: &K::Key,
        limit: usize,
    ) -> Result<Vec<(K::Key, K::Value)>, StoreError> {
        let (_, end) = raw_range::<K, P>(prefix);
        let start = successor_of_key(&raw_key::<K>(after).0.0);
        self.rows::<K>(Range { start, end, order: Order::Ascending, limit }).await
    }

    /// At most `limit` rows whose keys lie between `first` and `last`, both included (ascending).
    ///
    /// # Errors
    /// If the store cannot be read or a row is damaged.
    pub async fn page_within<K: Keyspace>(
        &self,
        first: &K::Key,
        last: &K::Key,
        limit: usize,
    ) -> Result<Vec<(K::Key, K::Value)>, StoreError> {
        let (start, end) = (raw_key::<K>(first).0.0, successor_of_key(&raw_key::<K>(last).0.0));
        self.rows::<K>(Range { start, end, order: Order::Ascending, limit }).await
    }

    /// At most `limit` rows whose keys begin with `prefix` and come before `before` (descending).
    ///
    /// # Errors
    /// If the store cannot be read or a row is damaged.
    pub async fn page_before<K: Keyspace, P: Prefix<K::Key>>(
        &self,
        prefix: &P,
        before: &K::Key,
        limit: usize,
    ) -> Result<Vec<(K::Key, K::Value)>, StoreError> {
        let (start, _) = raw_range::<K, P>(prefix);
        let end = raw_key::<K>(before).0.0;
        self.rows::<K>(Range { start, end, order: Order::Descending, limit }).await
    }

    /// Visits all rows whose keys begin with `prefix`, `page` at a time, until `visit` breaks.
    ///
    /// # Errors
    /// If the store cannot be read or a row is damaged.
    ///
    /// # Panics
    /// If `page` is 0.
    pub async fn scan<K: Keyspace, P: Prefix<K::Key>>(
        &self,
        prefix: &P,
        order: Order,
        page: usize,
        mut visit: impl FnMut(K::Key, K::Value) -> ControlFlow<()> + Send,
    ) -> Result<(), StoreError> {
        assert!(page > 0, "a page of no rows never ends");
        let (start, end) = raw_range::<K, P>(prefix);
        let mut next = Some(Range { start, end, order, limit: page });
        while let Some(range) = next.take() {
            for got in self.0.scan_many(std::slice::from_ref(&range)).await? {
                for (key, value) in &got.rows {
                    if visit(decode_key::<K>(key)?, decode_value::<K>(value)?).is_break() {
                        return Ok(());
                    }
                }
                next = got.rest;
            }
        }
        Ok(())
    }

    async fn rows<K: Keyspace>(&self, range: Range) -> Result<Vec<(K::Key, K::Value)>, StoreError> {
        let pages = self.0.scan_many(std::slice::from_ref(&range)).await?;
        let rows = pages.iter().flat_map(|page| &page.rows);
        rows.map(|(key, value)| Ok((decode_key::<K>(key)?, decode_value::<K>(value)?))).collect()
    }
}

impl Reads<'_> {
    /// Adds a look-up.
    pub fn get<K: Keyspace>(&mut self, key: &K::Key) -> Slot<K> {
        self.keys.push(raw_key::<K>(key).0);
        Slot(self.keys.len() - 1, PhantomData)
    }

    /// Asks for all of them at once.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn run(self) -> Result<Found, StoreError> {
        if self.keys.is_empty() {
            return Ok(Found(Vec::new()));
        }
        self.view.0.get_many(&self.keys).await.map(Found)
    }
}

impl Found {
    /// The answer to the look-up that gave `slot`.
    ///
    /// # Errors
    /// If the row is damaged.
    #[expect(clippy::needless_pass_by_value, reason = "an answer is taken once, and so is its slot")]
    pub fn take<K: Keyspace>(&mut self, slot: Slot<K>) -> Result<Option<K::Value>, StoreError> {
        self.0[slot.0].take().map(|bytes| decode_value::<K>(&bytes)).transpose()
    }
}

fn damaged<K: Keyspace>(error: DecodeError) -> StoreError {
    StoreError::Corrupt { keyspace: K::DEF.name, detail: error.0.into() }
}

fn decode_value<K: Keyspace>(bytes: &[u8]) -> Result<K::Value, StoreError> {
    K::Value::decode(bytes).map_err(damaged::<K>)
}

fn decode_key<K: Keyspace>(key: &[u8]) -> Result<K::Key, StoreError> {
    let mut reader = KeyReader(key.get(RawKey::HEADER..).unwrap_or_default());
    let decoded = K::Key::decode(&mut reader).map_err(damaged::<K>)?;
    reader.finish().map_err(damaged::<K>)?;
    Ok(decoded)
}

/// Keys are prefix-free within a keyspace, so the next possible key is after everything that begins
/// with this one.
fn successor_of_key(key: &[u8]) -> Vec<u8> {
    successor(key)
}
