//! Delivery time from a send to each long-polling member: room messages
//! (sync_fanout_*) and to-device messages (to_device_*).

use crate::client::{Res, User, pct};
use crate::ctx::Ctx;
use crate::report::{Stats, Window};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const FILTER: &str = r#"{"room":{"timeline":{"limit":100},"state":{"lazy_load_members":true}}}"#;

/// What the listeners of one room have seen.
struct Deliveries {
    /// Delivery latencies.
    stats: Stats,
    /// When the newest delivery came.
    last: Instant,
}

struct Listeners {
    seen: Arc<Mutex<Deliveries>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// Starts one long-polling loop per user and lets them settle.
    async fn start(ctx: &Arc<Ctx>, users: &[User]) -> Res<Self> {
        let seen = Arc::new(Mutex::new(Deliveries { stats: Stats::new(), last: Instant::now() }));
        let query = format!("&filter={}", pct(FILTER));
        let since = ctx
            .each(users.to_vec(), 8, |u| {
                let (hs, query) = (ctx.hs.clone(), query.clone());
                async move {
                    let r = hs.sync(&u, None, 0, &query).await?;
                    Ok(r.json()["next_batch"].as_str().unwrap_or("").to_owned())
                }
            })
            .await?;
        let listeners = users.iter().cloned().zip(since).map(|(user, since)| Listener {
            ctx: ctx.clone(),
            user,
            since,
            query: query.clone(),
            seen: seen.clone(),
        });
        let tasks = listeners.map(|l| tokio::spawn(l.listen())).collect();
        tokio::time::sleep(Duration::from_secs(4)).await;
        Ok(Listeners { seen, tasks })
    }

    fn reset(&self) {
        lock(&self.seen).stats = Stats::new();
    }

    async fn wait_for(&self, n: u64) {
        let end = Instant::now() + Duration::from_secs(30);
        while lock(&self.seen).stats.ops < n && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The latencies so far, and when the newest delivery came; deliveries missing of `want` are errors.
    fn take(&self, want: u64) -> (Stats, Instant) {
        let mut seen = lock(&self.seen);
        let mut s = std::mem::replace(&mut seen.stats, Stats::new());
        s.errors += want.saturating_sub(s.ops);
        (s, seen.last)
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// One long-polling device.
struct Listener {
    ctx: Arc<Ctx>,
    user: User,
    since: String,
    query: String,
    seen: Arc<Mutex<Deliveries>>,
}

impl Listener {
    async fn listen(mut self) {
        loop {
            match self.ctx.hs.sync(&self.user, Some(&self.since), 30_000, &self.query).await {
                Ok(reply) => self.record(&reply.json()),
                Err(e) => {
                    lock(&self.seen).stats.err(e);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn record(&mut self, v: &Value) {
        let now = self.ctx.now_us();
        let rooms = v["rooms"]["join"].as_object().into_iter().flatten();
        let timeline = rooms.filter_map(|(_, room)| room["timeline"]["events"].as_array()).flatten();
        let to_device = v["to_device"]["events"].as_array().into_iter().flatten();
        for t0 in timeline.chain(to_device).filter_map(|event| event["content"]["t0"].as_i64()) {
            let mut seen = lock(&self.seen);
            seen.stats.ok(Duration::from_micros((now - t0).max(1).unsigned_abs()));
            seen.last = Instant::now();
        }
        if let Some(s) = v["next_batch"].as_str() {
            s.clone_into(&mut self.since);
        }
    }
}

fn lock(seen: &Mutex<Deliveries>) -> MutexGuard<'_, Deliveries> {
    seen.lock().expect("no listener panics while it records")
}

pub(crate) async fn sync_fanout(ctx: &Arc<Ctx>) -> Res<()> {
    let n = ctx.args.fanout_members;
    let sender = ctx.user().await?;
    let members = ctx.users(n).await?;
    let room = ctx.room(&sender).await?;
    ctx.join_all(&members, &room, 2).await?;
    let ls = Listeners::start(ctx, &members).await?;
    let send = |i: u64, kind: &'static str| {
        let (ctx, sender, room) = (ctx.clone(), sender.clone(), room.clone());
        async move {
            let c = json!({"msgtype": "m.text", "body": "fan-out", "t0": ctx.now_us()});
            ctx.hs.send(&sender, &room, &format!("{kind}{i}"), &c).await
        }
    };
    send(0, "warm").await?;
    ls.wait_for(n as u64).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    ls.reset();
    let total = (ctx.args.fanout_rate * ctx.args.secs).max(1.0) as u64;
    let w = Window::open(ctx, "sync_fanout_paced");
    let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / ctx.args.fanout_rate));
    for i in 0..total {
        tick.tick().await;
        send(i, "paced").await?;
    }
    let want = total * n as u64;
    ls.wait_for(want).await;
    let (st, _) = ls.take(want);
    w.close(ctx, &st, 0, json!({"members": n, "messages": total, "rate_per_s": ctx.args.fanout_rate}));

    let t = Instant::now();
    let total = ctx.args.fanout_burst;
    let w = Window::open(ctx, "sync_fanout_burst");
    for i in 0..total {
        send(i, "burst").await?;
    }
    let sent = t.elapsed().as_secs_f64();
    let want = total * n as u64;
    ls.wait_for(want).await;
    let (st, last) = ls.take(want);
    let all = last.duration_since(t).as_secs_f64();
    w.close(
        ctx,
        &st,
        0,
        json!({"members": n, "messages": total,
        "send_per_s": (total as f64 / sent).round(),
        "deliveries_per_s": (st.ops as f64 / all).round()}),
    );
    Ok(())
}

pub(crate) async fn to_device(ctx: &Arc<Ctx>) -> Res<()> {
    let n = ctx.args.key_users;
    let sender = ctx.user().await?;
    let members = ctx.users(n).await?;
    let ls = Listeners::start(ctx, &members).await?;
    let put = |i: u64| {
        let (ctx, sender, members) = (ctx.clone(), sender.clone(), members.clone());
        async move {
            let mut per_user = serde_json::Map::new();
            for m in &members {
                per_user.insert(m.id.clone(), json!({"*": {"t0": ctx.now_us(), "text": "x".repeat(200)}}));
            }
            let p = format!("/_matrix/client/v3/sendToDevice/org.example.bench/td{i}");
            ctx.hs.put(&p, &sender.token, &json!({"messages": per_user})).await
        }
    };
    put(0).await?;
    ls.wait_for(n as u64).await;
    ls.reset();
    let total = 40;
    let t = Instant::now();
    let w = Window::open(ctx, "to_device_fanout");
    for i in 1..=total {
        put(i).await?;
    }
    let sent = t.elapsed().as_secs_f64();
    let want = total * n as u64;
    ls.wait_for(want).await;
    let (st, last) = ls.take(want);
    let all = last.duration_since(t).as_secs_f64();
    w.close(
        ctx,
        &st,
        0,
        json!({"recipients": n, "requests": total,
        "put_per_s": (total as f64 / sent * 10.0).round() / 10.0,
        "deliveries_per_s": (st.ops as f64 / all).round()}),
    );
    Ok(())
}
