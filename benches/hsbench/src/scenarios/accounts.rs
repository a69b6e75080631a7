//! register, login, what one hash costs, and what they do to everybody else.

use crate::client::{Res, pct};
use crate::ctx::Ctx;
use crate::ctx::message;
use crate::procstat::sample;
use crate::report::{Plan, Until, Window, closed_loop, timed};
use argon2::{Algorithm, Argon2, Params, Version};
use serde_json::json;
use std::sync::Arc;

/// One Argon2id as servers use it by default (19 MiB, two passes, one lane): the floor of register and login.
pub(crate) fn argon2id(ctx: &Arc<Ctx>) {
    let params = Params::new(19 * 1024, 2, 1, Some(32)).expect("these parameters are OWASP's");
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut out = [0; 32];
    let before = sample(&[], &[]);
    let ops: u64 = 20;
    for i in 0..ops {
        hasher.hash_password_into(&i.to_be_bytes(), b"a salt of 16 bys", &mut out).expect("the lengths are allowed");
    }
    let cpu = sample(&[], &[]).own_cpu_s - before.own_cpu_s;
    ctx.emit(json!({"scenario": "argon2id", "ops": ops, "errors": 0, "cpu_ms_per_op": cpu * 1000.0 / ops as f64}));
}

pub(crate) async fn register(ctx: &Arc<Ctx>) -> Res<()> {
    ctx.user().await?; // connection and code paths warm
    let w = Window::open(ctx, "register");
    let c = ctx.clone();
    let st = closed_loop(4, Until::Ops(ctx.args.register_users), move |_, _| {
        let c = c.clone();
        async move { c.register(&c.fresh_name()).await.map(|_| ()) }
    })
    .await;
    w.close(ctx, &st, 0, json!({"concurrency": 4}));
    Ok(())
}

pub(crate) async fn login(ctx: &Arc<Ctx>) -> Res<()> {
    let users = Arc::new(ctx.users(4).await?);
    let hs = ctx.hs.clone();
    timed(ctx, Plan::new("login", 4), move |w, _| {
        let (hs, users) = (hs.clone(), users.clone());
        async move {
            let u = &users[w];
            hs.login(u.localpart(), &u.password).await.map(|_| ())
        }
    })
    .await;
    Ok(())
}

/// One client sends and syncs while 8 others register without a pause: `sends_beside_register` is its latency.
pub(crate) async fn beside_register(ctx: &Arc<Ctx>) -> Res<()> {
    let talker = ctx.user().await?;
    let room = ctx.room(&talker).await?;
    let first = ctx.hs.sync(&talker, None, 0, "").await?.json();
    let since = first["next_batch"].as_str().unwrap_or("").to_owned();
    let c = ctx.clone();
    let crowd = tokio::spawn(closed_loop(8, Until::Secs(ctx.args.warmup + ctx.args.secs + 1.0), move |_, _| {
        let c = c.clone();
        async move { c.register(&c.fresh_name()).await.map(|_| ()) }
    }));
    let hs = ctx.hs.clone();
    let since = pct(&since);
    timed(ctx, Plan::new("sends_beside_register", 1).writes_events().with(json!({"registering": 8})), move |_, i| {
        let (hs, talker, room, since) = (hs.clone(), talker.clone(), room.clone(), since.clone());
        async move {
            hs.send(&talker, &room, &format!("beside{i}"), &message(i)).await?;
            let path = format!("/_matrix/client/v3/sync?timeout=0&since={since}");
            let filter = pct(r#"{"room":{"timeline":{"limit":1}}}"#);
            hs.get(&format!("{path}&filter={filter}"), &talker.token).await.map(|_| ())
        }
    })
    .await;
    // Refusals (429, 503) are a legitimate answer to the crowd; only its number of accounts is told.
    if let Ok(st) = crowd.await {
        eprintln!("[beside_register] {} accounts registered meanwhile, {} refused", st.ops, st.errors);
    }
    Ok(())
}
