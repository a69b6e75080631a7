//! Disks that are full or fail.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;

/// A small file system that can grow. `None` where mounting is not permitted.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }

    fn resize(&self, mebibytes: u32) {
        let size = format!("remount,size={mebibytes}m");
        assert!(Command::new("mount").args(["-o", &size]).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_until_there_is_space() {
    let Some(disk) = Tmpfs::mount(24) else {
        println!("skipped: mounting a small file system is not permitted here");
        return;
    };
    let store = open(&disk.0.path().join("store")).unwrap();
    let mut acknowledged = 0;
    let refused = loop {
        match store.commit(batch(acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100_000, "the disk never fills");
    };
    assert!(matches!(refused, CommitError::Full), "{refused}");
    for _ in 0..20 {
        assert!(matches!(store.commit(batch(acknowledged)).await, Err(CommitError::Full)), "still full");
    }
    assert_eq!(present(&store, acknowledged).await, acknowledged, "reads go on");
    assert!(store.failed().borrow().is_none(), "a full disk is no reason to end");

    disk.resize(96);
    let grown = Instant::now();
    while let Err(error) = store.commit(batch(acknowledged)).await {
        assert!(matches!(error, CommitError::Full), "{error}");
        assert!(grown.elapsed() < Duration::from_secs(10), "writes do not resume");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    acknowledged += 1;
    println!("full after {acknowledged} batches, writing again after {:?}", grown.elapsed());
    for _ in 0..200 {
        store.commit(batch(acknowledged)).await.unwrap();
        acknowledged += 1;
    }
    drop(store);
    let store = open(&disk.0.path().join("store")).unwrap();
    assert_eq!(present(&store, acknowledged).await, acknowledged, "every acknowledged batch, and no other");
    drop(store);
}

/// Replaces the open log of the store in `dir` by `by`, behind RocksDB's back.
#[expect(unsafe_code, reason = "a disk that fails is made of a file that fails")]
fn replace_log(dir: &Path, by: &OwnedFd) {
    let logs = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let target = std::fs::read_link(entry.path()).ok()?;
        let is_log = target.starts_with(dir) && target.extension().is_some_and(|extension| extension == "log");
        is_log.then(|| entry.file_name().to_string_lossy().parse::<i32>().unwrap())
    });
    let logs: Vec<_> = logs.collect();
    assert!(!logs.is_empty(), "the store has an open log");
    for log in logs {
        // SAFETY: both are open descriptors of this process; RocksDB goes on owning `log`, which stays
        // open throughout, only what it refers to changes.
        assert_eq!(unsafe { libc::dup2(by.as_raw_fd(), log) }, log);
    }
}

/// Opens a store that was just dropped: its threads may still hold the directory for a moment.
async fn reopen(path: &Path) -> RocksStore {
    for _ in 0..500 {
        match open(path) {
            Err(OpenError::InUse(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            other => return other.unwrap(),
        }
    }
    panic!("the directory is still in use");
}

#[tokio::test]
async fn a_failed_sync_ends_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let store = open(&path).unwrap();
    fill(&store, 20).await.unwrap();
    // A pipe takes what is written and cannot be synced.
    let (reader, writer) = std::io::pipe().unwrap();
    replace_log(&path, &OwnedFd::from(writer));
    let refused = fill(&store, 1).await.unwrap_err();
    assert!(matches!(refused, CommitError::Unavailable(_)), "{refused}");
    let mut failed = store.failed();
    tokio::time::timeout(Duration::from_secs(1), failed.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert!(matches!(fill(&store, 1).await, Err(CommitError::Unavailable(_))), "nothing is acknowledged any more");
    assert_eq!(present(&store, 20).await, 20, "what was committed can be read");
    drop((store, reader));
    let store = reopen(&path).await;
    assert_eq!(present(&store, 20).await, 20);
}

#[tokio::test]
async fn a_failed_write_ends_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let store = open(&path).unwrap();
    fill(&store, 20).await.unwrap();
    let nothing = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    replace_log(&path, &nothing);
    assert!(matches!(fill(&store, 1).await, Err(CommitError::Unavailable(_))));
    assert!(store.failed().borrow().is_some());
    assert!(store.shutdown().is_err() || store.failed().borrow().is_some());
    drop(store);
    assert_eq!(present(&reopen(&path).await, 20).await, 20);
}
