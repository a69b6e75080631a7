//! Kills the real server under load and holds it to what it acknowledged.
//!
//! `HEARTH_CHAOS_SEED` repeats a workload, `HEARTH_CHAOS_KILLS` says how often the server is killed (20). The
//! moments of the kills come from the seed, but how far the server had come at each of them does not.

mod full_disk;
mod oracle;
mod verify;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use hearth_test_harness::{Api, Config, Server, User, pct};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::oracle::Oracle;
use crate::verify::Verifier;
use crate::workload::Worker;

const BINARY: &str = env!("CARGO_BIN_EXE_hearth");
const USERS: usize = 6;
/// So many of the users also sync in a chain.
const SYNCING: usize = 3;
const ROOMS: usize = 3;
/// The design's figure is 3 s and one more for each 64 MiB of log; here the machine may be busy.
const RESTART_DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_that_was_acknowledged_and_double_nothing() {
    let seed = setting("HEARTH_CHAOS_SEED", 20_261_121);
    let kills = setting("HEARTH_CHAOS_KILLS", 20);
    println!("HEARTH_CHAOS_SEED={seed} HEARTH_CHAOS_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start(BINARY, &Config::open()).await;
    let (users, rooms) = populate(server.api()).await;
    let oracle = Arc::new(Oracle::default());
    let verifier =
        Verifier { api: server.api().clone(), users: users.clone(), rooms: rooms.clone(), oracle: oracle.clone() };
    let mut since = vec![None; SYNCING];
    for life in 0..kills {
        let worker = |index: usize| Worker {
            index,
            life,
            api: server.api().clone(),
            user: users[index].clone(),
            rooms: rooms.clone(),
            oracle: oracle.clone(),
        };
        let work: Vec<_> = (0..USERS).map(|index| tokio::spawn(worker(index).work(random.random()))).collect();
        let syncs: Vec<_> =
            since.iter().enumerate().map(|(index, since)| tokio::spawn(worker(index).sync(since.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(50..2000))).await;
        assert!(server.exited().is_none(), "the server ended by itself");
        oracle.kill_begins();
        server.kill();
        for task in work {
            task.await.expect("a worker does not panic");
        }
        for (chain, task) in since.iter_mut().zip(syncs) {
            *chain = task.await.expect("a syncing user does not panic");
        }
        if life % 5 == 4 {
            fsck(&server);
        }
        let took = server.restart().await;
        oracle.next_life_begins();
        assert!(took < RESTART_DEADLINE, "restart took {took:?}");
        let sends = oracle.book().sends.len();
        println!("kill {}: {sends} messages tried so far, ready again after {took:?}", life + 1);
        verifier.all(&mut random).await;
    }
    finish(&mut server, &verifier, &since).await;
}

/// What holds only when all is over.
async fn finish(server: &mut Server, verifier: &Verifier, since: &[Option<String>]) {
    for (index, since) in since.iter().enumerate() {
        let worker = Worker {
            index,
            life: u64::MAX,
            api: server.api().clone(),
            user: verifier.users[index].clone(),
            rooms: verifier.rooms.clone(),
            oracle: verifier.oracle.clone(),
        };
        worker.catch_up(since.clone()).await;
    }
    verifier.chains();
    verifier.every_token().await;
    server.terminate();
    let status = server.wait(Duration::from_secs(10)).await;
    assert!(status.success(), "SIGTERM ends with {status}");
    fsck(server);
    assert!(!server.log().contains("panicked"), "the server panicked:\n{}", server.log());
}

/// The store's own check finds nothing.
fn fsck(server: &Server) {
    let (success, output) = server.command(&["fsck"]);
    assert!(success, "fsck complains:\n{output}");
}

/// Users, and rooms in which all of them are and may set state.
async fn populate(api: &Api) -> (Vec<User>, Vec<String>) {
    let mut users = Vec::new();
    for index in 0..USERS {
        let made = api.register(&format!("chaos{index}"), &format!("password {index}")).await;
        users.push(made.unwrap_or_else(|other| panic!("{other}")));
    }
    let mut rooms = Vec::new();
    for index in 0..ROOMS {
        let body = json!({"preset": "public_chat", "name": format!("room {index}"),
            "power_level_content_override": {"state_default": 0}});
        let made = api.post("/_matrix/client/v3/createRoom").by(&users[0]).json(&body).ok().await;
        let room = made["room_id"].as_str().expect("createRoom gives a room").to_owned();
        for user in &users[1..] {
            api.post(&format!("/_matrix/client/v3/join/{}", pct(&room))).by(user).json(&json!({})).ok().await;
        }
        rooms.push(room);
    }
    (users, rooms)
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")),
        Err(_) => default,
    }
}
