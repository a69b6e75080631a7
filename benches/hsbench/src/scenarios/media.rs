//! media_upload, media_download.

use crate::client::Res;
use crate::ctx::Ctx;
use crate::report::{Plan, Until, Window, closed_loop, timed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::sync::Arc;

pub(crate) async fn media(ctx: &Arc<Ctx>) -> Res<()> {
    let u = ctx.user().await?;
    let size = ctx.args.media_bytes;
    let mut data = vec![0u8; size];
    StdRng::seed_from_u64(1).fill_bytes(&mut data);
    let up = "/_matrix/media/v3/upload?filename=bench.bin";
    let mxc = ctx.hs.upload(up, &u.token, data.clone()).await?.json()["content_uri"]
        .as_str()
        .unwrap_or("")
        .replace("mxc://", "");

    let (hs, t, base) = (ctx.hs.clone(), u.token.clone(), data);
    let w = Window::open(ctx, "media_upload");
    let st = closed_loop(4, Until::Ops(ctx.args.media_count), move |_, i| {
        let (hs, t, mut d) = (hs.clone(), t.clone(), base.clone());
        async move {
            // Distinct content, so that no server stores it only once.
            d[..8].copy_from_slice(&i.to_le_bytes());
            hs.upload(up, &t, d).await.map(|_| ())
        }
    })
    .await;
    w.close(ctx, &st, 0, json!({"bytes": size, "concurrency": 4}));

    let (hs, t) = (ctx.hs.clone(), u.token.clone());
    timed(ctx, Plan::new("media_download", 4).with(json!({"bytes": size})), move |_, _| {
        let (hs, t, p) = (hs.clone(), t.clone(), format!("/_matrix/client/v1/media/download/{mxc}"));
        async move {
            let r = hs.get(&p, &t).await?;
            if r.body.len() == size { Ok(()) } else { Err(crate::client::Fail::Other("short file".into())) }
        }
    })
    .await;
    Ok(())
}
