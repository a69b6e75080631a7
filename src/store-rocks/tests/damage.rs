//! Files that are not what they were: nothing is lost in silence.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// Copies all files below `from`.
fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_all(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// The largest file in the database whose name ends with `suffix`.
fn largest(dir: &Path, suffix: &str) -> PathBuf {
    let files = fs::read_dir(dir.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.to_string_lossy().ends_with(suffix));
    files.max_by_key(|path| fs::metadata(path).unwrap().len()).expect("there is such a file")
}

#[tokio::test]
async fn an_older_copy_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    fill(&store, 10).await.unwrap();
    drop(store);
    let backup = dir.path().join("older");
    copy_all(&dir.path().join("db"), &backup);
    let store = open(dir.path()).unwrap();
    let last = fill(&store, 7).await.unwrap()[6].first;
    store.shutdown().unwrap();
    drop(store);
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    copy_all(&backup, &dir.path().join("db"));

    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::RolledBack { missing: 7 }), "{error}");
    assert!(error.to_string().contains("the newest 7 acknowledged writes are missing"));
    let options = RocksOptions { accept_rollback: true, ..RocksOptions::new([7; 32]) };
    let store = open_with(dir.path(), &options).unwrap();
    assert_eq!(store.rolled_back(), Some(7));
    let next = fill(&store, 1).await.unwrap()[0].first;
    assert!(next > last, "no position means two things");
    drop(store);
    assert_eq!(open(dir.path()).unwrap().rolled_back(), None, "accepted once is enough");
}

#[tokio::test]
async fn a_database_that_has_gone_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    fill(&store, 4).await.unwrap();
    store.shutdown().unwrap();
    drop(store);
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::RolledBack { missing: 4 })));
}

#[tokio::test]
async fn a_damaged_log_is_refused_and_left_as_it_is() {
    for (flip, percent) in [(true, 100), (false, 50), (false, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        fill(&store, 400).await.unwrap();
        drop(store);
        let log = largest(dir.path(), ".log");
        let mut bytes = fs::read(&log).unwrap();
        let middle = bytes.len() / 2;
        if flip {
            bytes[middle] ^= 0x10;
        }
        bytes.truncate(bytes.len() * percent / 100);
        fs::write(&log, &bytes).unwrap();

        for _ in 0..2 {
            let error = open(dir.path()).unwrap_err();
            assert!(matches!(error, OpenError::RolledBack { missing: 1.. } | OpenError::Corrupt(_)), "{error}");
            assert_eq!(fs::read(&log).unwrap(), bytes, "the evidence is kept");
        }
        let options = RocksOptions { accept_rollback: true, ..RocksOptions::new([7; 32]) };
        let store = open_with(dir.path(), &options).unwrap();
        let kept = present(&store, 400).await;
        assert!(kept < 400, "the damage was accepted, not ignored");
        assert!(store.rolled_back().is_some());
    }
}

#[tokio::test]
async fn a_log_cut_below_what_was_acknowledged_is_not_needed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    fill(&store, 50).await.unwrap();
    drop(store);
    // What a power loss leaves behind the last synced record.
    let log = largest(dir.path(), ".log");
    let mut bytes = fs::read(&log).unwrap();
    bytes.extend([0xA5; 1000]);
    fs::write(&log, bytes).unwrap();
    assert_eq!(present(&open(dir.path()).unwrap(), 50).await, 50);
}

#[tokio::test]
async fn flipped_bits_in_tables_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    fill(&store, 3000).await.unwrap();
    store.shutdown().unwrap();
    drop(store);
    for eighth in 0..8 {
        // A copy each: a store that is open may write its tables anew.
        let copy = tempfile::tempdir().unwrap();
        copy_all(dir.path(), copy.path());
        let table = largest(copy.path(), ".sst");
        let mut bytes = fs::read(&table).unwrap();
        let at = bytes.len() / 8 * eighth + 11;
        bytes[at] ^= 0x04;
        fs::write(&table, bytes).unwrap();
        // Refused at once, or found by the full scan: never a wrong row.
        match open(copy.path()) {
            Err(OpenError::Corrupt(_)) => {}
            Err(other) => panic!("{other}"),
            Ok(store) => {
                let error = store.scan_all(|_, _| {}).unwrap_err();
                assert!(matches!(error, hearth_store::StoreError::Corrupt { .. }), "{error}");
            }
        }
    }
    fs::remove_file(dir.path().join("db/CURRENT")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt(_) | OpenError::Io(_) | OpenError::RolledBack { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_table_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    fill(&store, 100).await.unwrap();
    store.shutdown().unwrap();
    drop(store);
    fs::remove_file(largest(dir.path(), ".sst")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
}

#[tokio::test]
async fn a_spoiled_mark_does_not_stop_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    fill(&store, 5).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(store);
    fs::write(dir.path().join("acknowledged"), [0xEE; 80]).unwrap();
    assert_eq!(present(&open(dir.path()).unwrap(), 5).await, 5);
}
