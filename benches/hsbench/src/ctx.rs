//! Arguments, shared state, and the setup steps (never measured).

use crate::client::{Fail, Hs, Res, User};
use clap::Parser;
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Parser, Debug)]
#[command(about = "Client-server API benchmark for any Matrix homeserver")]
pub(crate) struct Args {
    /// Base URL, e.g. http://127.0.0.1:8008
    #[arg(long)]
    pub(crate) url: String,
    /// Scenarios, comma-separated, or "all" (see --list)
    #[arg(long, default_value = "all", value_delimiter = ',')]
    pub(crate) scenario: Vec<String>,
    /// Print the scenario names and stop
    #[arg(long)]
    pub(crate) list: bool,
    /// Token for m.login.registration_token
    #[arg(long)]
    pub(crate) registration_token: Option<String>,
    /// Server pid; its descendants count too (repeatable)
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    /// Data directory or file whose bytes are counted (repeatable)
    #[arg(long)]
    pub(crate) data_dir: Vec<String>,
    /// Append result lines to this file too
    #[arg(long)]
    pub(crate) out: Option<String>,
    /// Label copied into each result line
    #[arg(long, default_value = "")]
    pub(crate) label: String,
    /// Start command for the `idle` scenario (run with sh -c)
    #[arg(long)]
    pub(crate) start_cmd: Option<String>,
    /// Room version for createRoom; empty = the server's default
    #[arg(long, default_value = "")]
    pub(crate) room_version: String,
    /// Runtime threads of the load generator
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Measured seconds of each timed scenario
    #[arg(long, default_value_t = 15.0)]
    pub(crate) secs: f64,
    /// Unmeasured seconds before it
    #[arg(long, default_value_t = 2.0)]
    pub(crate) warmup: f64,
    /// Concurrent clients in closed-loop scenarios
    #[arg(long, default_value_t = 8)]
    pub(crate) conc: usize,
    /// Users in `register`
    #[arg(long, default_value_t = 60)]
    pub(crate) register_users: u64,
    /// Members of the room in send_single_room (at least conc)
    #[arg(long, default_value_t = 20)]
    pub(crate) send_members: usize,
    /// Long-polling members in sync_fanout
    #[arg(long, default_value_t = 100)]
    pub(crate) fanout_members: usize,
    /// Messages per second in sync_fanout_paced
    #[arg(long, default_value_t = 2.0)]
    pub(crate) fanout_rate: f64,
    /// Messages in sync_fanout_burst
    #[arg(long, default_value_t = 50)]
    pub(crate) fanout_burst: u64,
    /// Rooms, members per room, events per room for the sync scenarios
    #[arg(long, default_value_t = 30)]
    pub(crate) sync_rooms: usize,
    #[arg(long, default_value_t = 8)]
    pub(crate) sync_members: usize,
    #[arg(long, default_value_t = 30)]
    pub(crate) sync_events: usize,
    /// Events in the messages_pagination room
    #[arg(long, default_value_t = 1000)]
    pub(crate) page_events: usize,
    /// Room sizes at which the joins scenario reports
    #[arg(long, default_value = "100,1000,2000", value_delimiter = ',')]
    pub(crate) join_steps: Vec<usize>,
    /// Concurrent joiners
    #[arg(long, default_value_t = 4)]
    pub(crate) join_conc: usize,
    /// Bytes of each media file
    #[arg(long, default_value_t = 1 << 20)]
    pub(crate) media_bytes: usize,
    /// Files in media_upload
    #[arg(long, default_value_t = 300)]
    pub(crate) media_count: u64,
    /// Users in keys_query and recipients in to_device
    #[arg(long, default_value_t = 50)]
    pub(crate) key_users: usize,
}

/// A user in many rooms, and for each room somebody who speaks there.
pub(crate) type SyncedUser = (User, Vec<(User, String)>);

pub(crate) struct Ctx {
    pub(crate) args: Args,
    pub(crate) hs: Arc<Hs>,
    prefix: String,
    started: Instant,
    counter: AtomicU64,
    /// Room filled by send_single_room, with one member.
    pub(crate) busy_room: Mutex<Option<(User, String, u64)>>,
    /// Room grown by joins, with its creator and members.
    pub(crate) big_room: Mutex<Option<(String, Vec<User>)>>,
    /// User in many rooms, built once for sync and sliding_sync.
    pub(crate) synced: Mutex<Option<SyncedUser>>,
}

impl Ctx {
    pub(crate) fn new(args: Args) -> Self {
        Ctx {
            hs: Arc::new(Hs::new(&args.url)),
            prefix: run_prefix(),
            started: Instant::now(),
            args,
            counter: AtomicU64::new(0),
            busy_room: Mutex::new(None),
            big_room: Mutex::new(None),
            synced: Mutex::new(None),
        }
    }

    pub(crate) fn emit(&self, mut v: Value) {
        if !self.args.label.is_empty() {
            v["label"] = json!(self.args.label);
        }
        println!("{v}");
        if let Some(p) = &self.args.out
            && let Ok(mut f) = std::fs::OpenOptions::new().create(true).append(true).open(p)
        {
            let _ = writeln!(f, "{v}");
        }
    }

    /// Microseconds since this run began: what messages carry to measure their delivery.
    pub(crate) fn now_us(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).expect("a run ends before 292 000 years")
    }

    pub(crate) fn fresh_name(&self) -> String {
        format!("{}u{}", self.prefix, self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// Registers one user through the interactive flow.
    pub(crate) async fn register(&self, name: &str) -> Res<User> {
        let pass = format!("pw-{name}-X9");
        self.hs.register_uia(name, &pass, self.args.registration_token.as_deref()).await
    }

    pub(crate) async fn users(&self, n: usize) -> Res<Vec<User>> {
        let names: Vec<String> = (0..n).map(|_| self.fresh_name()).collect();
        self.each(names, 8, |name| async move { retry(|| self.register(&name)).await }).await
    }
    pub(crate) async fn user(&self) -> Res<User> {
        Ok(self.users(1).await?.remove(0))
    }

    /// Runs `f` over `items`, `conc` at a time, keeping order; first failure wins.
    pub(crate) async fn each<T, R, F, Fut>(&self, items: Vec<T>, conc: usize, f: F) -> Res<Vec<R>>
    where
        F: Fn(T) -> Fut,
        Fut: Future<Output = Res<R>>,
    {
        stream::iter(items.into_iter().map(f)).buffered(conc).collect::<Vec<_>>().await.into_iter().collect()
    }

    pub(crate) fn room_body(&self) -> Value {
        let mut b = json!({"preset": "public_chat", "name": "bench room"});
        if !self.args.room_version.is_empty() {
            b["room_version"] = json!(self.args.room_version);
        }
        b
    }
    pub(crate) async fn room(&self, creator: &User) -> Res<String> {
        let b = self.room_body();
        retry(|| self.hs.create_room(creator, &b)).await
    }
    /// Sends one message as a setup step.
    pub(crate) async fn fill(&self, u: &User, room: &str, txn: String, i: u64) -> Res<String> {
        let c = message(i);
        retry(|| self.hs.send(u, room, &txn, &c)).await
    }
    pub(crate) async fn join_all(&self, users: &[User], room: &str, conc: usize) -> Res<()> {
        self.each(users.to_vec(), conc, |u| async move { retry(|| self.hs.join(&u, room)).await }).await.map(|_| ())
    }
}

/// Setup steps try again on rate limits and server errors.
pub(crate) async fn retry<T, F, Fut>(f: F) -> Res<T>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Res<T>>,
{
    let mut wait = 200;
    loop {
        match f().await {
            Err(Fail::Other(m)) if wait < 7000 && (m.contains("HTTP 429") || m.contains("HTTP 5")) => {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                wait *= 2;
            }
            r => return r,
        }
    }
}

/// About 100 bytes of text; one message in a hundred has the word "needle".
pub(crate) fn message(i: u64) -> Value {
    let rare = if i.is_multiple_of(100) { " needle" } else { "" };
    json!({"msgtype": "m.text",
        "body": format!("message number {i}: the quick brown fox jumps over the lazy dog again and again{rare}")})
}

/// A prefix for user names that no earlier run on the same data has used.
fn run_prefix() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("Linux gives a random id");
    format!("b{}", &id[..8])
}
