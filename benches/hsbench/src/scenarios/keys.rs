//! keys_upload, keys_query, keys_claim.

use crate::client::{Hs, Res, User};
use crate::ctx::Ctx;
use crate::report::{Plan, Until, Window, closed_loop, timed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// `n` repeatable bytes of `seed` as unpadded base64.
fn b64(seed: u64, n: usize) -> String {
    const A: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut raw = vec![0u8; n];
    StdRng::seed_from_u64(seed).fill_bytes(&mut raw);
    let mut out = String::new();
    for c in raw.chunks(3) {
        let byte = |i: usize| u32::from(c.get(i).copied().unwrap_or(0));
        let v = byte(0) << 16 | byte(1) << 8 | byte(2);
        out.extend((0..=c.len()).map(|k| A[(v >> (18 - 6 * k)) as usize & 63] as char));
    }
    out
}

/// The same text gives the same seed, within one run.
fn seed_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Well-formed but unsigned keys: servers do not verify device signatures.
fn device_keys(u: &User) -> Value {
    let d = &u.device;
    let seed = seed_of(&u.id);
    json!({"user_id": u.id, "device_id": d,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {format!("curve25519:{d}"): b64(seed, 32), format!("ed25519:{d}"): b64(!seed, 32)},
        "signatures": {u.id.as_str(): {format!("ed25519:{d}"): b64(seed, 64)}}})
}

fn one_time_keys(u: &User, seed: u64, n: u64) -> Value {
    let mut m = Map::new();
    for k in 0..n {
        let own = seed_of(&u.id) ^ (seed << 16) ^ k;
        let sig = json!({u.id.as_str(): {format!("ed25519:{}", u.device): b64(own, 64)}});
        m.insert(format!("signed_curve25519:A{seed:x}K{k}"), json!({"key": b64(own, 32), "signatures": sig}));
    }
    Value::Object(m)
}

async fn upload(hs: &Hs, u: &User, body: Value) -> Res<()> {
    hs.post("/_matrix/client/v3/keys/upload", &u.token, &body).await.map(|_| ())
}

pub(crate) async fn keys(ctx: &Arc<Ctx>) -> Res<()> {
    let users = Arc::new(ctx.users(ctx.args.key_users).await?);
    ctx.each(users.to_vec(), 4, |u| {
        let hs = ctx.hs.clone();
        async move { upload(&hs, &u, json!({"device_keys": device_keys(&u)})).await }
    })
    .await?;

    // 20 uploads of 20 keys for each device: Synapse lets a device hold 500.
    let n = ctx.args.conc.min(users.len());
    let w = Window::open(ctx, "keys_upload");
    let (hs, us) = (ctx.hs.clone(), users.clone());
    let st = closed_loop(n, Until::Ops(20 * users.len() as u64), move |_, i| {
        let (hs, us) = (hs.clone(), us.clone());
        async move {
            let u = &us[i as usize % us.len()];
            upload(&hs, u, json!({"one_time_keys": one_time_keys(u, i, 20)})).await
        }
    })
    .await;
    w.close(ctx, &st, 0, json!({"concurrency": n, "one_time_keys": 20}));

    let (hs, us) = (ctx.hs.clone(), users.clone());
    let ask: Map<String, Value> = users.iter().map(|u| (u.id.clone(), json!([]))).collect();
    let body = json!({"device_keys": ask});
    timed(ctx, Plan::new("keys_query", n).with(json!({"users": users.len()})), move |w, _| {
        let (hs, us, body) = (hs.clone(), us.clone(), body.clone());
        async move { hs.post("/_matrix/client/v3/keys/query", &us[w].token, &body).await.map(|_| ()) }
    })
    .await;

    // Each claim takes one key of every user, who has 400.
    let ask: Map<String, Value> =
        users.iter().map(|u| (u.id.clone(), json!({u.device.as_str(): "signed_curve25519"}))).collect();
    let body = json!({"one_time_keys": ask});
    let w = Window::open(ctx, "keys_claim");
    let (hs, us) = (ctx.hs.clone(), users.clone());
    let st = closed_loop(4, Until::Ops(200), move |w, _| {
        let (hs, us, body) = (hs.clone(), us.clone(), body.clone());
        async move { hs.post("/_matrix/client/v3/keys/claim", &us[w].token, &body).await.map(|_| ()) }
    })
    .await;
    w.close(ctx, &st, 0, json!({"concurrency": 4, "keys_per_claim": users.len()}));
    Ok(())
}
