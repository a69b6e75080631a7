//! RocksDB's settings, and why.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel, LruCacheOptions,
    MergeOperands, Options, WriteBufferManager,
};

/// The family of ranges, of the change log and of the store's own rows. RocksDB wants the name.
pub(crate) const SCAN: &str = "default";
/// The family of rows that are looked up by whole keys.
pub(crate) const POINT: &str = "point";

const MIB: usize = 1 << 20;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Random bytes that become [`crate::RocksStore::store_key`] if the store is created now.
    pub new_store_key: [u8; 32],
    /// Bytes of uncompressed blocks and of rows that are not in files yet, kept in memory. More of them read less from
    /// disk.
    pub block_cache_bytes: usize,
    /// Bytes, of those of the cache, of rows in memory before they are written as files. More of them write less often.
    pub write_buffer_bytes: usize,
    /// Threads for reads that have to wait for the disk.
    pub reader_threads: usize,
    /// Open although the newest acknowledged writes are missing. Positions then continue above
    /// everything ever acknowledged, and [`crate::RocksStore::rolled_back`] says how much is missing.
    pub accept_rollback: bool,
}

impl RocksOptions {
    /// The defaults: 64 MiB of cache, 32 MiB of buffers, 4 readers.
    pub const fn new(new_store_key: [u8; 32]) -> Self {
        Self {
            new_store_key,
            block_cache_bytes: 64 * MIB,
            write_buffer_bytes: 32 * MIB,
            reader_threads: 4,
            accept_rollback: false,
        }
    }
}

/// Parts of the cache, each with a lock of its own. Few: what buffers take comes in portions of 256 KiB, and would fill
/// some of many small parts and leave others empty.
const CACHE_SHARD_BITS: i32 = 2;

/// Settings of the database, and its column families.
pub(crate) fn all(options: &RocksOptions) -> (Options, Vec<ColumnFamilyDescriptor>) {
    let mut of_cache = LruCacheOptions::default();
    of_cache.set_capacity(options.block_cache_bytes);
    of_cache.set_num_shard_bits(CACHE_SHARD_BITS);
    let cache = Cache::new_lru_cache_opts(&of_cache);
    let mut db = database();
    // One bound for all of it: buffers that are full take the place of blocks, and give it back when they are written.
    let buffers =
        WriteBufferManager::new_write_buffer_manager_with_cache(options.write_buffer_bytes, false, cache.clone());
    db.set_write_buffer_manager(&buffers);
    (db, families(options, &cache))
}

/// Settings of the whole database.
fn database() -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    // Damage is refused, never skipped.
    db.set_paranoid_checks(true);
    // A log that ends in the middle of a record is normal after a power loss; one that loses
    // acknowledged records is recognised by the file `acknowledged`.
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    db.set_track_and_verify_wals_in_manifest(true);
    // Otherwise the log's end would sit in this process and die with it.
    db.set_manual_wal_flush(false);
    // Compressed and recycled logs have been refused as corrupt while they were valid.
    db.set_wal_compression_type(DBCompressionType::None);
    db.set_recycle_log_file_num(0);
    // Bounds memory and the time of a start after a crash.
    db.set_max_total_wal_size(64 * MIB as u64);
    // The committer is the only writer.
    db.set_allow_concurrent_memtable_write(false);
    // One flush and one compaction beside the server, on a machine of two cores.
    db.set_max_background_jobs(2);
    db.set_max_open_files(512);
    db.set_bytes_per_sync(MIB as u64);
    db.set_max_manifest_file_size(16 * MIB);
    db.set_log_level(LogLevel::Warn);
    db.set_keep_log_file_num(3);
    db.set_max_log_file_size(4 * MIB);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db
}

/// The column families. Two of them: looking for what is not there (event IDs, transaction ids, state
/// nodes) wants bloom filters and small blocks, reading ranges wants large blocks that compress well
/// and no filters to carry along. A family for each keyspace would cost a write buffer and a set of
/// files each, and flushing one of thirty would hold back the log of all.
fn families(options: &RocksOptions, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let mut scan_table = table(cache);
    scan_table.set_block_size(16 * 1024);
    let mut scan = family(options);
    scan.set_block_based_table_factory(&scan_table);

    let mut point_table = table(cache);
    point_table.set_block_size(8 * 1024);
    point_table.set_bloom_filter(10.0, false);
    point_table.set_whole_key_filtering(true);
    let mut point = family(options);
    point.set_block_based_table_factory(&point_table);
    point.set_memtable_whole_key_filtering(true);
    point.set_memtable_prefix_bloom_ratio(0.05);

    vec![ColumnFamilyDescriptor::new(SCAN, scan), ColumnFamilyDescriptor::new(POINT, point)]
}

fn table(cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // Counted against the cache, so that a large database does not grow the process.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table
}

fn family(options: &RocksOptions) -> Options {
    let mut family = Options::default();
    family.set_write_buffer_size(options.write_buffer_bytes / 2);
    family.set_max_write_buffer_number(3);
    family.set_target_file_size_base(32 * MIB as u64);
    family.set_level_compaction_dynamic_level_bytes(true);
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_bottommost_compression_type(DBCompressionType::Zstd);
    family.set_merge_operator("hearth.add", add_all, partly_add);
    family
}

/// `Op::Add`: the sum, or nothing if a value is no counter, which RocksDB reports as corruption.
fn add_all(_key: &[u8], old: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let mut sum = old.map(<[u8; 8]>::try_from).transpose().ok()?;
    for operand in operands {
        let by = i64::from_be_bytes(operand.try_into().ok()?);
        sum = Some(hearth_store::add_to_counter(sum.as_ref().map(<[u8; 8]>::as_slice), by)?);
    }
    sum.map(|sum| sum.to_vec())
}

/// Operands may be added before the old value is known unless the sum leaves the range: a counter that
/// stops at the end of its range does not give the same sum in every order.
fn partly_add(_key: &[u8], _old: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let mut sum = 0_i64;
    for operand in operands {
        sum = sum.checked_add(i64::from_be_bytes(operand.try_into().ok()?))?;
    }
    Some(sum.to_be_bytes().to_vec())
}
