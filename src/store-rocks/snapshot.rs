//! Views that own what they need.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_store::{Frontier, Page, Range, RawKey, Snapshot, StoreError};
use rocksdb::{DB, ReadOptions, ReadTier};

use crate::engine::{Cached, Engine, Scanned};
use crate::pool::ReaderPool;

/// Look-ups that are tried in the caller's thread: about 2 µs each if everything is in memory.
const INLINE_KEYS: usize = 256;
/// Rows that are, 1 µs each.
const INLINE_ROWS: usize = 512;

/// One view of the database. Reads what is in memory in the caller's thread, the rest in the pool.
#[derive(Debug)]
pub(crate) struct RocksSnapshot {
    inner: Arc<Inner>,
    pool: Arc<ReaderPool>,
}

struct Inner {
    // These three are dropped before `engine`, in this order.
    in_memory: ReadOptions,
    anywhere: ReadOptions,
    snapshot: rocksdb::Snapshot<'static>,
    engine: Arc<Engine>,
    frontier: Frontier,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("frontier", &self.frontier).finish_non_exhaustive()
    }
}

impl RocksSnapshot {
    /// Takes the view that holds everything written so far, which is `frontier`.
    pub(crate) fn take(engine: Arc<Engine>, pool: Arc<ReaderPool>, frontier: Frontier) -> Self {
        let snapshot = owned_snapshot(&engine);
        let in_memory = options(&snapshot, ReadTier::BlockCache);
        let anywhere = options(&snapshot, ReadTier::All);
        Self { inner: Arc::new(Inner { in_memory, anywhere, snapshot, engine, frontier }), pool }
    }
}

/// A snapshot whose borrow of the database the caller has to replace by holding `engine` for longer.
#[expect(unsafe_code, reason = "a snapshot and the database it belongs to live in one struct")]
fn owned_snapshot(engine: &Arc<Engine>) -> rocksdb::Snapshot<'static> {
    let db: *const DB = &raw const engine.db;
    // SAFETY: `db` points into the allocation of `engine`, which does not move, is never borrowed
    // mutably, and lives as long as any of its `Arc`s. The only caller puts the snapshot and a clone
    // of the `Arc` into `Inner`, whose fields are private and dropped in order of declaration: the
    // snapshot first. The test `snapshots_outlive_the_store` holds a view after the store has gone.
    let db: &'static DB = unsafe { &*db };
    db.snapshot()
}

fn options(snapshot: &rocksdb::Snapshot<'_>, tier: ReadTier) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_snapshot(snapshot);
    options.set_read_tier(tier);
    options
}

impl Inner {
    fn scan(&self, range: &Range, limit: usize, tier: ReadTier) -> Result<Scanned, StoreError> {
        self.engine.scan(range, limit, options(&self.snapshot, tier))
    }

    /// Values of the first keys, until one is not in memory.
    fn leading(&self, keys: &[RawKey]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            match self.engine.get(&key.0, &self.in_memory)? {
                Cached::Hit(value) => found.push(value),
                Cached::Miss => break,
            }
        }
        Ok(found)
    }

    /// Goes on with `page`, whose rows so far were in memory.
    fn finish(&self, page: &mut Page, asked: &Range) -> Result<(), StoreError> {
        let Some(mut rest) = page.rest.take() else { return Ok(()) };
        rest.limit = asked.limit - page.rows.len();
        let more = self.scan(&rest, rest.limit, ReadTier::All)?.page;
        page.rows.extend(more.rows);
        page.rest = more.rest.map(|rest| Range { limit: asked.limit, ..rest });
        Ok(())
    }
}

impl Snapshot for RocksSnapshot {
    fn get_many<'a>(&'a self, keys: &'a [RawKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, StoreError>> {
        async move {
            let mut found =
                if keys.len() <= INLINE_KEYS { self.inner.leading(keys)? } else { Vec::with_capacity(keys.len()) };
            if found.len() < keys.len() {
                let (inner, rest) = (Arc::clone(&self.inner), keys[found.len()..].to_vec());
                found.extend(self.pool.run(move || inner.engine.get_many(&rest, &inner.anywhere)).await?);
            }
            Ok(found)
        }
        .boxed()
    }

    fn scan_many<'a>(&'a self, ranges: &'a [Range]) -> BoxFuture<'a, Result<Vec<Page>, StoreError>> {
        async move {
            let mut pages = Vec::with_capacity(ranges.len());
            let mut rows_left = INLINE_ROWS;
            for range in ranges {
                let limit = range.limit.min(rows_left);
                let scanned = if limit > 0 {
                    self.inner.scan(range, limit, ReadTier::BlockCache)?
                } else {
                    Scanned { page: Page { rows: Vec::new(), rest: Some(range.clone()) }, missed: true }
                };
                rows_left = rows_left.saturating_sub(scanned.page.rows.len().max(1));
                let Scanned { mut page, missed } = scanned;
                if missed || (limit < range.limit && page.rest.is_some()) {
                    let (inner, asked) = (Arc::clone(&self.inner), range.clone());
                    page = self.pool.run(move || inner.finish(&mut page, &asked).map(|()| page)).await?;
                }
                pages.push(page);
            }
            Ok(pages)
        }
        .boxed()
    }

    fn frontier(&self) -> &Frontier {
        &self.inner.frontier
    }
}
