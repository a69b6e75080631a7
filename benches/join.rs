//! Joining a large room: the real server, as a process, joins a generated room that scripted servers tell it of, over
//! TLS on loopback.
//!
//! ```sh
//! cargo bench --bench join                    # 20 000 members
//! cargo bench --bench join -- 2000            # another number
//! ```
//!
//! `HEARTH_JOIN_SERVERS` says how many servers the members are of (8), `HEARTH_TEST_BINARY` names another binary. The
//! server is started, joins a room of one member so that everything is warm, and then the large one; what is printed is
//! the second join alone. The servers that tell the room run in this process and are not counted. At the end `hearth
//! fsck` looks at every row.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hearth_test_harness::{Api, Config, Federated, Hostile, Reply, Room, User, pct};
use serde_json::{Value, json};

/// Members of the room, if nobody says otherwise.
const MEMBERS: usize = 20_000;
/// Servers that they are of.
const SERVERS: usize = 8;

fn main() {
    let members = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(MEMBERS);
    let servers = std::env::var("HEARTH_JOIN_SERVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(SERVERS);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run(members, servers));
}

async fn run(members: usize, servers: usize) {
    let servers: Vec<Hostile> = (0..servers.max(1)).map(|_| Hostile::start()).collect();
    let resident = &servers[0];
    let began = Instant::now();
    let room = generated(&servers, members);
    let text = json!({
        "origin": resident.name(),
        "members_omitted": false,
        "state": room.state_events(),
        "auth_chain": room.auth_chain(),
    });
    let text = text.to_string();
    let (events, bytes) = (room.events.len(), text.len());
    println!("generated {events} events, {} of answer, in {:.1} s", mega(bytes as u64), began.elapsed().as_secs_f64());

    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let mut hearth = Federated::start_in(env!("CARGO_BIN_EXE_hearth"), Config::open(), directory.path()).await;
    let alice = hearth.api().register("alice", "correct horse").await.expect("anybody can register");
    let small = Room::create(resident, &resident.user("olga"), 11);
    let answer = json!({"state": small.state_events(), "auth_chain": small.auth_chain()});
    join(hearth.api(), &alice, resident, &small, answer.to_string()).await;

    let pid = hearth.server().pid().expect("it runs");
    let store = directory.path().join("store");
    let before = (memory(pid), cpu(pid), size(&store));
    let began = Instant::now();
    join(hearth.api(), &alice, resident, &room, text).await;
    let took = began.elapsed();
    let after = (memory(pid), cpu(pid), size(&store));
    let growth = after.0.peak.saturating_sub(before.0.now);
    println!("joined in       {:>9.2} s", took.as_secs_f64());
    println!("CPU             {:>9.2} s", (after.1 - before.1).as_secs_f64());
    println!("memory before   {:>12}", mega(before.0.now));
    println!("peak            {:>12}", mega(after.0.peak));
    println!("growth at most  {:>12}", mega(growth));
    println!("memory after    {:>12}", mega(after.0.now));
    println!("on disk         {:>12}", mega(after.2.saturating_sub(before.2)));

    let path = format!("/_matrix/client/v3/rooms/{}/joined_members", pct(&room.id));
    let here = hearth.api().get(&path).by(&alice).ok().await;
    let here = here["joined"].as_object().expect("an object").len();
    assert_eq!(here, members + 1, "the members and alice");
    hearth.server().terminate();
    hearth.server().wait(Duration::from_secs(60)).await;
    let (sound, said) = hearth.server().command(&["fsck"]);
    assert!(sound, "{said}");
    println!("fsck finds nothing");
}

/// A public room of `members` users, who are of all `servers` in turn.
fn generated(servers: &[Hostile], members: usize) -> Room {
    let mut room = Room::create(&servers[0], &servers[0].user("olga"), 11);
    for n in 1..members {
        let server = &servers[n % servers.len()];
        let user = server.user(&format!("member-{n}"));
        let content = json!({
            "membership": "join",
            "displayname": format!("Member number {n} of this room"),
            "avatar_url": format!("mxc://{}/AbCdEfGhIjKlMnOpQrStUv{n}", server.name()),
        });
        let join = room.event("m.room.member", Some(&user), &user, &content);
        room.send(server, &join);
    }
    room
}

/// `user` joins `room`, of which `resident` tells `answer`.
async fn join(api: &Api, user: &User, resident: &Hostile, room: &Room, answer: String) {
    let event = room.event("m.room.member", Some(&user.id), &user.id, &json!({"membership": "join"}));
    let fields = [
        "type",
        "room_id",
        "sender",
        "state_key",
        "content",
        "depth",
        "prev_events",
        "auth_events",
        "origin_server_ts",
    ];
    let event: serde_json::Map<String, Value> =
        fields.iter().map(|field| ((*field).to_owned(), event.field(field))).collect();
    resident.answer("/make_join/", Reply::json(&json!({"room_version": "11", "event": event})));
    resident.answer("/send_join/", Reply::text(200, answer));
    let path = format!("/_matrix/client/v3/join/{}?via={}", pct(&room.id), pct(resident.name()));
    let joined = api.post(&path).by(user).json(&json!({})).send().await;
    assert_eq!(joined.status, 200, "{}", joined.text);
}

/// Resident memory of a process in bytes.
struct Memory {
    now: u64,
    peak: u64,
}

fn memory(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells it");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib << 10
    };
    Memory { now: field("VmRSS:"), peak: field("VmHWM:") }
}

/// What a process has used of processors, in user and system mode.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name may have spaces; user and system time are the 12th and 13th field after it.
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    // Linux counts a hundred in a second, whatever its own clock does.
    Duration::from_millis(ticks * 10)
}

/// Bytes of all files below `path`.
fn size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let entries = entries.filter_map(Result::ok).map(|entry| entry.path());
    // A file may be gone by now.
    entries.map(|path| if path.is_dir() { size(&path) } else { fs::metadata(&path).map_or(0, |file| file.len()) }).sum()
}

fn mega(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}
