//! What a commit costs, beside RocksDB written to directly with the same rows and the same syncs.
//!
//! `cargo bench -p hearth-store-rocks --bench committer`
//!
//! The directory is made where `TMPDIR` says: on a file system without a disk the syncs are free and
//! the figures are about something else. The table at the end takes both in turns, slice by slice,
//! so that a noisy machine is noisy for both.
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use hearth_store::conformance::{Heads, KEYSPACES, Mailbox, Owned};
use hearth_store::{Batch, Owner, Store};
use hearth_store_rocks::{Identity, RocksOptions, RocksStore};
use rocksdb::{DB, Options, WriteBatch, WriteOptions};
use tokio::runtime::Runtime;

const WRITERS: [u64; 3] = [1, 8, 64];

/// Eleven rows, as one event writes them: the event itself, and ten of indices, head and log.
const SMALL_ROWS: u64 = 8;

fn hearth_batch(number: u64, event: &str) -> Batch {
    let owner = Owned::new((number % 32) as u8, (number % 251) as u8);
    let mut batch = Batch::new(owner.lane());
    let pos = batch.next_pos();
    batch.put::<Heads>(&(owner,), &number.to_string());
    batch.put::<Mailbox>(&(owner, number.to_string()), &event.to_owned());
    for row in 0..SMALL_ROWS {
        batch.put::<Mailbox>(&(owner, format!("{row}/{number:016}")), &"twenty bytes of row.".to_owned());
    }
    batch.fact(pos, &b"what happened, in thirty bytes"[..]);
    batch
}

fn raw_batch(number: u64, event: &str) -> WriteBatch {
    let mut batch = WriteBatch::default();
    let owner = [(number % 32) as u8, 0, 0x10, 0, 0, (number % 251) as u8];
    batch.put(owner, number.to_string());
    batch.put([&owner, number.to_string().as_bytes()].concat(), event);
    for row in 0..SMALL_ROWS {
        batch.put([&owner, format!("{row}/{number:016}").as_bytes()].concat(), "twenty bytes of row.");
    }
    batch.put([&[0xFF], number.to_be_bytes().as_slice()].concat(), "what happened, in thirty bytes");
    batch
}

struct Hearth {
    runtime: Runtime,
    store: Arc<RocksStore>,
    next: Arc<AtomicU64>,
    event: Arc<str>,
}

struct Raw {
    db: DB,
    next: AtomicU64,
    event: String,
}

fn event() -> String {
    // As little compressible as an event with its hashes and signatures.
    let mut seed = 7_u64;
    let mut letter = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((seed >> 33) % 26) as u8)
    };
    (0..900).map(|_| letter()).collect()
}

impl Hearth {
    fn new(path: &Path) -> Self {
        let identity = Identity { server_name: "bench".into(), schema_version: 1, compat_version: 1 };
        let store = RocksStore::open(path, &RocksOptions::new([0; 32]), KEYSPACES, &identity).expect("opens");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
        Self { runtime, store: Arc::new(store), next: Arc::default(), event: event().into() }
    }

    fn run(&self, writers: u64, each: u64) -> Duration {
        let began = Instant::now();
        let tasks: Vec<_> = (0..writers)
            .map(|_| {
                let (store, next, event) = (Arc::clone(&self.store), Arc::clone(&self.next), Arc::clone(&self.event));
                self.runtime.spawn(async move {
                    for _ in 0..each {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        store.commit(hearth_batch(number, &event)).await.expect("commits");
                    }
                })
            })
            .collect();
        self.runtime.block_on(async {
            for task in tasks {
                task.await.expect("does not panic");
            }
        });
        began.elapsed()
    }
}

impl Raw {
    fn new(path: &Path) -> Self {
        let mut options = Options::default();
        options.create_if_missing(true);
        Self { db: DB::open(&options, path).expect("opens"), next: AtomicU64::new(0), event: event() }
    }

    fn run(&self, writers: u64, each: u64) -> Duration {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| {
                    let mut how = WriteOptions::default();
                    how.set_sync(true);
                    for _ in 0..each {
                        let number = self.next.fetch_add(1, Ordering::Relaxed);
                        self.db.write_opt(raw_batch(number, &self.event), &how).expect("writes");
                    }
                });
            }
        });
        began.elapsed()
    }
}

fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<_> = text.rsplit(") ").next().expect("has fields").split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Seconds and CPU seconds of `commits` commits.
fn measure(run: impl Fn(u64, u64) -> Duration, writers: u64, commits: u64) -> (f64, f64) {
    let before = cpu();
    let wall = run(writers, (commits / writers).max(1));
    (wall.as_secs_f64(), cpu().saturating_sub(before).as_secs_f64())
}

fn compare(hearth: &Hearth, raw: &Raw) {
    println!("\n{:>8} {:>13} {:>13} {:>7} {:>22}", "writers", "hearth/s", "raw/s", "ratio", "CPU µs hearth | raw");
    for writers in WRITERS {
        let commits = 2000 * writers.min(16);
        let (mut ours, mut theirs) = ((0.0, 0.0), (0.0, 0.0));
        let rounds = 8_u32;
        for _ in 0..rounds {
            let (wall, cpu) = measure(|w, n| hearth.run(w, n), writers, commits);
            ours = (ours.0 + wall, ours.1 + cpu);
            let (wall, cpu) = measure(|w, n| raw.run(w, n), writers, commits);
            theirs = (theirs.0 + wall, theirs.1 + cpu);
        }
        let total = (commits * u64::from(rounds)) as f64;
        println!(
            "{writers:>8} {:>13.0} {:>13.0} {:>6.0}% {:>14.1} | {:.1}",
            total / ours.0,
            total / theirs.0,
            theirs.0 / ours.0 * 100.0,
            ours.1 / total * 1e6,
            theirs.1 / total * 1e6,
        );
    }
}

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let hearth = Hearth::new(&directory.path().join("hearth"));
    let raw = Raw::new(&directory.path().join("raw"));
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let mut group = criterion.benchmark_group("committer");
    group.throughput(Throughput::Elements(1));
    for writers in WRITERS {
        let each = |iterations: u64| iterations.div_ceil(writers);
        let share =
            |wall: Duration, iterations: u64| wall.mul_f64(iterations as f64 / (each(iterations) * writers) as f64);
        group.bench_function(BenchmarkId::new("hearth", writers), |bench| {
            bench.iter_custom(|iterations| share(hearth.run(writers, each(iterations)), iterations));
        });
        group.bench_function(BenchmarkId::new("raw", writers), |bench| {
            bench.iter_custom(|iterations| share(raw.run(writers, each(iterations)), iterations));
        });
    }
    group.finish();
    criterion.final_summary();
    compare(&hearth, &raw);
}
