//! The open database, and where each keyspace lives in it.

use std::fs::File;

use bytes::Bytes;
use hearth_store::{KeyspaceDef, KeyspaceId, Lane, Order, Page, Pos, Profile, Range, RawKey, StoreError};
use rocksdb::{ColumnFamily, DB, ErrorKind, ReadOptions};

use crate::options::{POINT, SCAN};

/// The keyspace of the change log: (lane, position) to the fact's body. It is the engine's own; only
/// [`crate::RocksStore::scan_all`] shows it.
pub const CHANGE_LOG: KeyspaceId = KeyspaceId(0x01);
/// Keyspaces below this are the engine's own.
const FIRST_FREE: u16 = 0x10;

/// The database with its keyspaces. Closed when the last snapshot has gone.
pub(crate) struct Engine {
    pub(crate) db: DB,
    pub(crate) layout: Layout,
    /// Keeps other processes out until the database is closed: fields are dropped in this order.
    pub(crate) _lock: File,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("path", &self.db.path()).finish_non_exhaustive()
    }
}

/// What is known of each keyspace, by number.
#[derive(Debug)]
pub(crate) struct Layout(Vec<Option<KeyspaceDef>>);

impl Layout {
    /// # Panics
    /// If two keyspaces have one number, or one has a number of the engine's own.
    pub(crate) fn new(keyspaces: &[KeyspaceDef]) -> Self {
        let length = keyspaces.iter().map(|def| usize::from(def.id.0) + 1).max().unwrap_or(0);
        let mut table = vec![None; length];
        for def in keyspaces {
            assert!(def.id.0 >= FIRST_FREE, "{}: numbers below {FIRST_FREE} are the engine's", def.name);
            let earlier = table[usize::from(def.id.0)].replace(*def);
            assert!(earlier.is_none(), "{} has the number of another keyspace", def.name);
        }
        Self(table)
    }

    pub(crate) fn get(&self, key: &RawKey) -> Option<&KeyspaceDef> {
        self.0.get(usize::from(key.keyspace().0))?.as_ref()
    }

    pub(crate) fn name(&self, key: &[u8]) -> &'static str {
        let keyspace = match key {
            [_, high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        self.0.get(usize::from(keyspace)).and_then(Option::as_ref).map_or("the engine's rows", |def| def.name)
    }

    fn is_point(&self, key: &[u8]) -> bool {
        let [_, high, low, ..] = key else { return false };
        let keyspace = usize::from(u16::from_be_bytes([*high, *low]));
        matches!(self.0.get(keyspace), Some(Some(def)) if def.profile == Profile::Point)
    }
}

/// What a read in the caller's own thread may do.
#[derive(Debug)]
pub(crate) enum Cached<T> {
    /// Everything was in memory.
    Hit(T),
    /// The disk has to be asked.
    Miss,
}

/// Rows read so far, and whether the range goes on.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) page: Page,
    /// The rows that follow are not in memory; `page.rest` says where to go on.
    pub(crate) missed: bool,
}

/// Both families, looked up once for many uses.
#[derive(Clone, Copy)]
pub(crate) struct Families<'a> {
    layout: &'a Layout,
    pub(crate) scan: &'a ColumnFamily,
    pub(crate) point: &'a ColumnFamily,
}

impl<'a> Families<'a> {
    pub(crate) fn of(&self, key: &[u8]) -> &'a ColumnFamily {
        if self.layout.is_point(key) { self.point } else { self.scan }
    }
}

impl Engine {
    pub(crate) fn families(&self) -> Families<'_> {
        let family = |name| self.db.cf_handle(name).expect("both families were opened with the database");
        Families { layout: &self.layout, scan: family(SCAN), point: family(POINT) }
    }

    /// One row.
    pub(crate) fn get(&self, key: &[u8], how: &ReadOptions) -> Result<Cached<Option<Bytes>>, StoreError> {
        match self.db.get_pinned_cf_opt(self.families().of(key), key, how) {
            Ok(found) => Ok(Cached::Hit(found.map(|value| Bytes::copy_from_slice(&value)))),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Cached::Miss),
            Err(error) => Err(self.damaged(key, &error)),
        }
    }

    /// `result[i]` belongs to `keys[i]`; neighbours on disk are read together.
    pub(crate) fn get_many(&self, keys: &[RawKey], how: &ReadOptions) -> Result<Vec<Option<Bytes>>, StoreError> {
        let families = self.families();
        let mut found = vec![None; keys.len()];
        for family in [families.scan, families.point] {
            let of_family = |key: &RawKey| std::ptr::eq(families.of(&key.0), family);
            let places: Vec<_> = (0..keys.len()).filter(|at| of_family(&keys[*at])).collect();
            if places.is_empty() {
                continue;
            }
            let wanted = places.iter().map(|at| keys[*at].0.as_slice());
            let answers = self.db.batched_multi_get_cf_opt(family, wanted, false, how);
            for (at, answer) in places.into_iter().zip(answers) {
                let value = answer.map_err(|error| self.damaged(&keys[at].0, &error))?;
                found[at] = value.map(|value| Bytes::copy_from_slice(&value));
            }
        }
        Ok(found)
    }

    /// Reads `limit` rows of `range`, or until its end, or the end of what is in memory if `how` stays there.
    pub(crate) fn scan(&self, range: &Range, limit: usize, mut how: ReadOptions) -> Result<Scanned, StoreError> {
        let mut page = Page::default();
        if range.start >= range.end {
            return Ok(Scanned { page, missed: false });
        }
        how.set_iterate_lower_bound(range.start.as_slice());
        how.set_iterate_upper_bound(range.end.as_slice());
        let mut rows = self.db.raw_iterator_cf_opt(self.families().of(&range.start), how);
        match range.order {
            Order::Ascending => rows.seek(&range.start),
            Order::Descending => rows.seek_to_last(),
        }
        while page.rows.len() < limit
            && let Some((key, value)) = rows.item()
        {
            page.rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
            match range.order {
                Order::Ascending => rows.next(),
                Order::Descending => rows.prev(),
            }
        }
        // An iterator that stops on an error looks like one at its end until it is asked.
        let missed = match rows.status() {
            Ok(()) => false,
            Err(error) if error.kind() == ErrorKind::Incomplete => true,
            Err(error) => return Err(self.damaged(&range.start, &error)),
        };
        if missed || rows.valid() {
            page.rest = Some(page.rows.last().map_or_else(|| range.clone(), |(last, _)| range.after(last)));
        }
        Ok(Scanned { missed: missed && page.rows.len() < limit, page })
    }

    /// Position of the newest fact of `lane`, 0 if there is none.
    pub(crate) fn newest_fact(&self, lane: Lane) -> Result<Pos, StoreError> {
        let range = fact_range(lane, Pos::ZERO, Order::Descending, 1);
        let page = self.scan(&range, 1, ReadOptions::default())?.page;
        page.rows.first().map_or(Ok(Pos::ZERO), |(key, _)| fact_pos(key))
    }

    /// Says which keyspace a failed read was in.
    pub(crate) fn damaged(&self, key: &[u8], error: &rocksdb::Error) -> StoreError {
        let detail = error.to_string().into();
        match error.kind() {
            ErrorKind::Corruption => StoreError::Corrupt { keyspace: self.layout.name(key), detail },
            _ => StoreError::Unavailable(detail),
        }
    }
}

/// The key of a fact.
pub(crate) fn fact_key(lane: Lane, pos: Pos) -> [u8; RawKey::HEADER + 8] {
    let mut key = [0; RawKey::HEADER + 8];
    key[0] = lane.number();
    key[1..3].copy_from_slice(&CHANGE_LOG.0.to_be_bytes());
    key[3..].copy_from_slice(&pos.get().to_be_bytes());
    key
}

/// Facts of `lane` after `from`.
pub(crate) fn fact_range(lane: Lane, from: Pos, order: Order, limit: usize) -> Range {
    let [high, low] = CHANGE_LOG.0.to_be_bytes();
    // The first key after the one of `from`, which is not asked for.
    let start = [fact_key(lane, from).as_slice(), &[0]].concat();
    Range { start, end: vec![lane.number(), high, low + 1], order, limit }
}

/// The position in the key of a fact.
pub(crate) fn fact_pos(key: &[u8]) -> Result<Pos, StoreError> {
    let pos = key.get(RawKey::HEADER..).and_then(|pos| <[u8; 8]>::try_from(pos).ok());
    let damaged = || StoreError::Corrupt { keyspace: "ChangeLog", detail: "a key of a wrong length".into() };
    pos.map(|pos| Pos::new(u64::from_be_bytes(pos))).ok_or_else(damaged)
}
