//! A disk without space: writes are refused, reads go on, writes resume.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hearth_test_harness::{Answer, Config, Server, User, pct};
use serde_json::json;
use tempfile::TempDir;

use crate::{BINARY, workload};

/// How long writes may take to resume.
const RECOVERY: Duration = Duration::from_secs(10);

/// A small file system of our own, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` if this user may not mount.
    fn mount(mebibytes: u32) -> Option<Self> {
        let directory = TempDir::new().expect("a temporary directory");
        let size = format!("size={mebibytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut filler = File::create(&path).expect("the filler can be created");
        let mut block = 1 << 16;
        while block > 0 {
            // At the end single pages: what is left must not hold a write.
            if filler.write_all(&vec![0; block]).is_err() {
                block /= 16;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path().display());
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let Some(disk) = SmallDisk::mount(96) else {
        println!("SKIPPED: this user may not mount a tmpfs");
        return;
    };
    let config = Config::open().with("storage", "write_buffers", "\"4 MiB\"");
    let mut server = Server::start_in(BINARY, &config, disk.path()).await;
    let user = server.api().register("full", "password").await.unwrap_or_else(|other| panic!("{other}"));
    let made = server.api().post("/_matrix/client/v3/createRoom").by(&user).json(&json!({})).ok().await;
    let room = made["room_id"].as_str().expect("createRoom gives a room").to_owned();
    let mut acked = Vec::new();
    for n in 0..20 {
        acked.push(event(&send(&server, &user, &room, n).await));
    }

    let filler = disk.fill();
    // The write-ahead log has space that was taken before; it runs out at last.
    let refused = {
        let mut n = 1000;
        loop {
            assert!(n < 5000, "a full disk takes 4000 messages of 20 kB");
            let answer = send(&server, &user, &room, n).await;
            if answer.status != 200 {
                break (n, answer);
            }
            acked.push(event(&answer));
            n += 1;
        }
    };
    let (unwritten, answer) = refused;
    assert!(matches!(answer.status, 503 | 507), "refused with {} {}", answer.status, answer.text);
    assert!(answer.errcode().starts_with("M_"), "refused without a reason: {}", answer.text);
    let began = Instant::now();
    let again = send(&server, &user, &room, unwritten + 1).await;
    assert_ne!(again.status, 200, "a write after the first refusal, while nothing was freed");
    assert!(began.elapsed() < Duration::from_secs(1), "refusing took {:?}", began.elapsed());
    assert!(server.exited().is_none(), "the server ended");
    reads_go_on(&server, &user, &room, &acked).await;

    fs::remove_file(filler).expect("the filler can be removed");
    let began = Instant::now();
    let answer = loop {
        let answer = send(&server, &user, &room, unwritten).await;
        if answer.status == 200 {
            break answer;
        }
        assert!(began.elapsed() < RECOVERY, "still refused after {RECOVERY:?}: {} {}", answer.status, answer.text);
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    println!("writes resumed {:?} after space returned", began.elapsed());
    acked.push(event(&answer));
    reads_go_on(&server, &user, &room, &acked).await;
    server.restart().await;
    reads_go_on(&server, &user, &room, &acked).await;
}

async fn send(server: &Server, user: &User, room: &str, n: u64) -> Answer {
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/full{n}", pct(room));
    let body = json!({"msgtype": "m.text", "body": format!("{n} {}", "x".repeat(20_000))});
    server.api().put(&path).by(user).json(&body).send().await
}

fn event(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}: {}", answer.what, answer.text);
    answer.body["event_id"].as_str().expect("a send gives an event").to_owned()
}

/// Sync answers, and the history has every acknowledged event once.
async fn reads_go_on(server: &Server, user: &User, room: &str, acked: &[String]) {
    server.api().get(&workload::sync_path(None, 0, workload::FILTER)).by(user).ok().await;
    let mut found = Vec::new();
    let mut from = None;
    loop {
        let page = server.api().get(&workload::messages_path(room, from.as_deref())).by(user).ok().await;
        found.extend(workload::event_ids(&page["chunk"]));
        from = page["end"].as_str().map(str::to_owned);
        if from.is_none() {
            break;
        }
    }
    for event in acked {
        assert_eq!(found.iter().filter(|id| *id == event).count(), 1, "acknowledged before the disk was full: {event}");
    }
}
