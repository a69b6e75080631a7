//! The rollback detector: how far commits have been acknowledged, kept apart from RocksDB.
//!
//! RocksDB opens a log that was damaged in the middle, or a restored older copy of the directory,
//! without a word: the newest writes are gone although people have seen them. This file says how many
//! commits there were. It is written a moment after a commit, but at most every 100 ms, and only with what the log
//! has already synced, so it is never ahead of what is durable and at most that much behind.
//!
//! Two records of 40 bytes in one block, written in turns, each with a check sum: a write that is torn
//! spoils the older one only.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::meta::Progress;

const RECORD: usize = 40;
/// Between two records: what the file is behind at the most.
const INTERVAL: Duration = Duration::from_millis(100);
/// Between the first commit after a rest and its record. People wait for what follows from a commit, and nobody for
/// the record: written at once, it takes the processor from those who bring the commit to people.
const PAUSE: Duration = Duration::from_millis(20);

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) progress: Progress,
    /// Everything was flushed and nothing followed: there is no log to replay.
    pub(crate) clean: bool,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct SideFile {
    file: File,
    /// Number of the next record; its lowest bit chooses the place.
    next: u64,
}

impl SideFile {
    /// Opens or creates the file; `None` if it says nothing.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Option<Acknowledged>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let newest = [0, RECORD as u64].into_iter().map(|at| read_record(&file, at)).collect::<io::Result<Vec<_>>>()?;
        let newest = newest.into_iter().flatten().max_by_key(|(number, _)| *number);
        let next = newest.map_or(0, |(number, _)| number + 1);
        Ok((Self { file, next }, newest.map(|(_, acknowledged)| acknowledged)))
    }

    /// Writes and syncs.
    pub(crate) fn write(&mut self, acknowledged: Acknowledged) -> io::Result<()> {
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&self.next.to_be_bytes());
        record[8..24].copy_from_slice(&acknowledged.progress.to_bytes());
        record[24] = u8::from(acknowledged.clean);
        let sum = check_sum(&record[..32]);
        record[32..].copy_from_slice(&sum);
        self.file.write_all_at(&record, (self.next % 2) * RECORD as u64)?;
        self.file.sync_data()?;
        self.next += 1;
        Ok(())
    }
}

fn read_record(file: &File, at: u64) -> io::Result<Option<(u64, Acknowledged)>> {
    let mut record = [0; RECORD];
    match file.read_exact_at(&mut record, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    if record[32..] != check_sum(&record[..32]) {
        return Ok(None);
    }
    let number = u64::from_be_bytes(record[..8].try_into().expect("eight bytes"));
    let progress = Progress::from_bytes(record[8..24].try_into().expect("sixteen bytes"));
    Ok(Some((number, Acknowledged { progress, clean: record[24] == 1 })))
}

/// FNV-1a: against torn writes and flipped bits, not against people.
fn check_sum(bytes: &[u8]) -> [u8; 8] {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, step).to_be_bytes()
}

/// Writes the file from a thread of its own, so that commits do not wait for it.
#[derive(Debug)]
pub(crate) struct Acknowledger {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<SideFile>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    durable: Progress,
    /// The thread sleeps until something is durable that the file does not say.
    idle: bool,
    stopping: bool,
}

/// How a store ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything is flushed: the log is not needed any more.
    Clean,
    /// The log has to be replayed.
    Dirty,
}

/// Where the committer reports what is durable.
#[derive(Clone, Debug)]
pub(crate) struct AcknowledgeHandle(Arc<Shared>);

impl AcknowledgeHandle {
    pub(crate) fn durable(&self, progress: Progress) {
        let mut state = self.0.state.lock();
        state.durable = progress;
        // Waking a thread that waits for its time to pass would cost every commit a sleep that is broken off.
        let wake = std::mem::take(&mut state.idle);
        drop(state);
        if wake {
            self.0.changed.notify_one();
        }
    }
}

impl Acknowledger {
    pub(crate) fn start(file: SideFile, written: Progress) -> io::Result<Self> {
        let state = Mutex::new(State { durable: written, idle: false, stopping: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let mine = Arc::clone(&shared);
        let run = move || run(&mine, file, written);
        let thread = std::thread::Builder::new().name("store-mark".into()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn handle(&self) -> AcknowledgeHandle {
        AcknowledgeHandle(Arc::clone(&self.shared))
    }

    /// Writes what is durable by now and ends the thread.
    pub(crate) fn stop(mut self, ending: Ending) -> io::Result<()> {
        self.shared.state.lock().stopping = true;
        self.shared.changed.notify_all();
        let Some(Ok(mut file)) = self.thread.take().map(JoinHandle::join) else {
            return Err(io::Error::other("the thread that marks progress has panicked"));
        };
        let progress = self.shared.state.lock().durable;
        file.write(Acknowledged { progress, clean: ending == Ending::Clean })
    }
}

fn run(shared: &Shared, mut file: SideFile, mut written: Progress) -> SideFile {
    let mut last: Option<Instant> = None;
    loop {
        let mut state = shared.state.lock();
        while state.durable == written && !state.stopping {
            state.idle = true;
            shared.changed.wait(&mut state);
        }
        state.idle = false;
        // It collects what follows closely. A stop ends the wait.
        let rest = last.and_then(|last| INTERVAL.checked_sub(last.elapsed()));
        shared.changed.wait_while_for(&mut state, |state| !state.stopping, rest.unwrap_or_default().max(PAUSE));
        let (progress, stopping) = (state.durable, state.stopping);
        drop(state);
        if stopping {
            return file;
        }
        match file.write(Acknowledged { progress, clean: false }) {
            Ok(()) => {
                written = progress;
                last = Some(Instant::now());
            }
            // A mark that is behind misses a rollback at worst: no reason to stop the server.
            Err(error) => {
                tracing::warn!(%error, "cannot write how far commits have been acknowledged");
                std::thread::sleep(INTERVAL);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_store::Pos;

    fn at(commits: u64) -> Acknowledged {
        Acknowledged { progress: Progress { commits, last: Pos::new(commits * 2) }, clean: false }
    }

    #[test]
    fn reads_the_newest_record_and_survives_a_torn_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acknowledged");
        let (mut file, found) = SideFile::open(&path).unwrap();
        assert_eq!(found, None);
        for commits in 1..=4 {
            file.write(at(commits)).unwrap();
            assert_eq!(SideFile::open(&path).unwrap().1, Some(at(commits)));
        }
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[RECORD + 9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(SideFile::open(&path).unwrap().1, Some(at(3)));
    }

    #[test]
    fn stops_with_the_last_progress() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acknowledged");
        let (file, _) = SideFile::open(&path).unwrap();
        let acknowledger = Acknowledger::start(file, Progress::default()).unwrap();
        acknowledger.handle().durable(at(9).progress);
        acknowledger.stop(Ending::Clean).unwrap();
        assert_eq!(SideFile::open(&path).unwrap().1, Some(Acknowledged { clean: true, ..at(9) }));
    }

    #[test]
    fn is_written_within_the_interval() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acknowledged");
        let (file, _) = SideFile::open(&path).unwrap();
        let acknowledger = Acknowledger::start(file, Progress::default()).unwrap();
        acknowledger.handle().durable(at(5).progress);
        std::thread::sleep(INTERVAL * 5);
        assert_eq!(SideFile::open(&path).unwrap().1, Some(at(5)));
        acknowledger.stop(Ending::Dirty).unwrap();
    }
}
