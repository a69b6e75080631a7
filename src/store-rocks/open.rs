//! Opening: everything that can be wrong with a directory is refused in plain words.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hearth_store::{Frontier, KeyspaceDef, LANES, Lane, Pos};
use parking_lot::{Mutex, RwLock};
use rocksdb::{DB, ErrorKind, WriteBatch, WriteOptions};
use tokio::sync::watch;

use crate::acknowledged::{Acknowledged, Acknowledger, SideFile};
use crate::committer::{Committer, Shared};
use crate::engine::{Engine, Layout};
use crate::facts::RecentFacts;
use crate::meta::{Identity, Progress, StoredIdentity};
use crate::options::{self, RocksOptions};
use crate::pool::ReaderPool;
use crate::queue::Queue;
use crate::snapshot::RocksSnapshot;
use crate::store::{RocksStore, Threads};
use crate::writer::Writer;

/// How far positions jump when a loss is accepted: the mark of what was acknowledged may be 100 ms
/// behind, and a disk does not sync that many positions in that time.
const ROLLBACK_JUMP: u64 = 1 << 20;

/// Why a store was not opened. Nothing in it has been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another store of this one) has it open.
    #[error("the data directory {0} is in use by another process")]
    InUse(PathBuf),
    /// It belongs to another server.
    #[error("the data directory belongs to the server {stored}, not to {wanted}: the name of a server cannot change")]
    WrongServer { stored: String, wanted: String },
    /// A newer version of the program has written it.
    #[error("the data directory was written by a newer version (format {stored}, this version knows {known})")]
    Newer { stored: u32, known: u32 },
    /// Acknowledged writes are not there any more.
    #[error(
        "the newest {missing} acknowledged writes are missing: the log is damaged or an older copy was restored. \
         Restore a newer copy, or accept the loss explicitly"
    )]
    RolledBack { missing: u64 },
    /// Files are damaged.
    #[error("the data directory is damaged: {0}")]
    Corrupt(String),
    /// The directory cannot be used: permissions, no space, a failing disk.
    #[error("the data directory cannot be used: {0}")]
    Io(String),
}

impl OpenError {
    pub(crate) fn from_rocks(error: rocksdb::Error) -> Self {
        match error.kind() {
            ErrorKind::Corruption | ErrorKind::NotFound => Self::Corrupt(error.into_string()),
            _ => Self::Io(error.into_string()),
        }
    }
}

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl RocksStore {
    /// Opens the store in the directory `path`, or creates it. `keyspaces` are all that will be used.
    ///
    /// Metrics go to the recorder that is installed by now.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Panics
    /// If two of `keyspaces` share a number or one uses a number below 16.
    pub fn open(
        path: &Path,
        options: &RocksOptions,
        keyspaces: &[KeyspaceDef],
        identity: &Identity,
    ) -> Result<Self, OpenError> {
        let layout = Layout::new(keyspaces);
        // Token hashes and the store's key are nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = lock(path)?;
        let (side, acknowledged) = SideFile::open(&path.join("acknowledged"))?;
        let db_path = path.join("db");
        let guard = Admission { options, identity, acknowledged };
        // Opening for writing drops what cannot be replayed of a damaged log. So after anything but a
        // clean stop the log is first replayed without touching it.
        if acknowledged.is_some_and(|mark| !mark.clean) {
            guard.rehearse(&db_path)?;
        }
        let (of_database, families) = options::all(options);
        let db = DB::open_cf_descriptors(&of_database, &db_path, families).map_err(OpenError::from_rocks)?;
        let (stored, progress, rolled_back) = guard.admit_open(&db)?;
        sync_directory(path)?;
        let engine = Arc::new(Engine { db, layout, _lock: lock });
        start(engine, side, Opened { progress, rolled_back, stored, options })
    }
}

struct Opened<'a> {
    progress: Progress,
    rolled_back: Option<u64>,
    stored: StoredIdentity,
    options: &'a RocksOptions,
}

fn start(engine: Arc<Engine>, mut side: SideFile, opened: Opened<'_>) -> Result<RocksStore, OpenError> {
    let Opened { progress, rolled_back, stored, options } = opened;
    // From here on the log has to be looked at again.
    side.write(Acknowledged { progress, clean: false })?;
    let marks = Acknowledger::start(side, progress)?;
    let pool = Arc::new(ReaderPool::start(options.reader_threads)?);
    let frontier = Frontier::uniform(progress.last);
    let view = RocksSnapshot::take(Arc::clone(&engine), Arc::clone(&pool), frontier);
    let mut newest = [Pos::ZERO; LANES as usize];
    for lane in Lane::all() {
        let pos = engine.newest_fact(lane).map_err(|error| OpenError::Corrupt(error.to_string()))?;
        newest[usize::from(lane.number())] = pos;
    }
    let shared = Arc::new(Shared {
        facts: RecentFacts::new(newest),
        engine,
        pool,
        queue: Queue::default(),
        latest: RwLock::new(Arc::new(view)),
        courier: Arc::default(),
        failed: watch::Sender::new(None),
    });
    let writer = Arc::new(Mutex::new(Writer::new(Arc::clone(&shared), marks.handle(), progress)));
    let committer = Committer::new(Arc::clone(&shared), Arc::clone(&writer));
    let thread = std::thread::Builder::new().name("store-commit".into()).spawn(move || committer.run())?;
    let threads = Mutex::new(Some(Threads { committer: thread, marks }));
    Ok(RocksStore { shared, writer, threads, store_key: stored.store_key, rolled_back })
}

/// What a store must be to be let in.
struct Admission<'a> {
    options: &'a RocksOptions,
    identity: &'a Identity,
    acknowledged: Option<Acknowledged>,
}

impl Admission<'_> {
    /// Looks at the store without changing it.
    fn rehearse(&self, db_path: &Path) -> Result<(), OpenError> {
        if !db_path.join("CURRENT").exists() {
            return self.missing(Progress::default()).map(drop);
        }
        let (of_database, families) = options::all(self.options);
        let db = DB::open_cf_descriptors_read_only(&of_database, db_path, families, false);
        let db = db.map_err(OpenError::from_rocks)?;
        if let Some(stored) = StoredIdentity::read(&db)? {
            stored.admit(self.identity)?;
        }
        self.missing(Progress::read(&db)?).map(drop)
    }

    /// Checks the open store, and makes a new one ours.
    fn admit_open(&self, db: &DB) -> Result<(StoredIdentity, Progress, Option<u64>), OpenError> {
        let mut progress = Progress::read(db)?;
        let rolled_back = self.missing(progress)?;
        if let (Some(_), Some(mark)) = (rolled_back, self.acknowledged) {
            // Tokens and cursors that were given out must never come to mean something else.
            progress.commits = progress.commits.max(mark.progress.commits);
            progress.last = Pos::new(progress.last.max(mark.progress.last).get() + ROLLBACK_JUMP);
        }
        let stored = match StoredIdentity::read(db)? {
            Some(mut stored) => {
                stored.admit(self.identity)?;
                if stored.raise(self.identity) {
                    write_identity(db, &stored)?;
                }
                stored
            }
            None if progress.commits > 0 && rolled_back.is_none() => {
                return Err(OpenError::Corrupt("it has rows but no identity".into()));
            }
            None => {
                let stored = StoredIdentity::new(self.identity, self.options.new_store_key);
                write_identity(db, &stored)?;
                stored
            }
        };
        Ok((stored, progress, rolled_back))
    }

    /// How many acknowledged commits are not in the database, if that is accepted.
    fn missing(&self, found: Progress) -> Result<Option<u64>, OpenError> {
        let acknowledged = self.acknowledged.map_or(Progress::default(), |mark| mark.progress);
        match acknowledged.commits.checked_sub(found.commits) {
            None | Some(0) => Ok(None),
            Some(missing) if self.options.accept_rollback => {
                tracing::warn!(missing, "opening a store that has lost its newest acknowledged writes");
                Ok(Some(missing))
            }
            Some(missing) => Err(OpenError::RolledBack { missing }),
        }
    }
}

fn write_identity(db: &DB, stored: &StoredIdentity) -> Result<(), OpenError> {
    let mut batch = WriteBatch::default();
    stored.put(&mut batch);
    let mut how = WriteOptions::default();
    how.set_sync(true);
    db.write_opt(batch, &how).map_err(OpenError::from_rocks)
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file = File::options().write(true).create(true).truncate(false).open(path.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Makes the names of new files durable.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
